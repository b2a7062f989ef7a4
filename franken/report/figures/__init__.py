"""Figures: tidy rows in, a matplotlib Axes or Figure out; used by the page, by runs and by
notebooks.
"""
