"""Organisms: pairs of checkpoints whose difference is known by construction, on which a method can
be right or wrong.

    kinds       every kind by its name, and `make`, which writes the later checkpoint of a pair
    nulls       nothing changes that can be seen: the same weights, the same function, noise
    symmetries  another set of weights that computes the same
    grafts      RL's update in one known place only
    rewrite     a checkpoint with some tensors changed, one at a time

An organism is the earlier checkpoint as it is and a later one that `make` writes; `organism.json`
beside its weights holds what is true of the pair. Plants that have to be trained (RL on a random
reward, a strategy that SFT alone prefers) are recipes of the trainer.
"""
