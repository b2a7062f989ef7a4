"""How good is a model, how varied are its answers, and does it need the image to give them?"""
