"""Methods by their names, for the tests of what they run."""

from franken.probe import methods
from franken.probe.methods.ablation import Ablate

ABLATIONS = [m for m in methods.every() if isinstance(m, Ablate)]


def ablations_of(layers, named=ABLATIONS):
    """Every ablation of some layers."""
    return [ablation for method in named for ablation in method.at(layers)]


def swap_sets(mode, layers, depth):
    """The swapped layers of `swap-MODE`, a set for each of `layers`."""
    return methods.get(f"swap-{mode}").sets(layers, depth)
