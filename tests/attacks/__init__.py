"""Malformed inputs of every kind against every verb: `make attacks` (see `__main__`)."""
