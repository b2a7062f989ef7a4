"""Studies that need several verbs: the autopsy, its hybrids, and the lanes that run steps side by
side.
"""
