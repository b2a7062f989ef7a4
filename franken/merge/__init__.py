"""Hybrids: recipes, a plan that says what every tensor will be, an exact transplant, mergekit's
arithmetic, and the proof.
"""
