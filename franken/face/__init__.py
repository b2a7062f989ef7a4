"""The public functions of `franken`, a file each: what a command of the same name does, without its
printing.

They stand beside the command line, above every other room, and `franken.train` is the only way from
here to `trainer`. `franken/__init__.py` finds them by name when they are used, so that no room
imports upwards and `import franken` loads nothing.
"""
