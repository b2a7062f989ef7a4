"""Hybrids: a plan that says what every tensor will be, an exact transplant, and the proof."""
