"""Where do two models part, token by token, and do those places carry what the second gained?"""
