"""Where an update is: shares by hand, the permutation test by enumeration."""

from itertools import permutations

import numpy as np
import pytest

from franken.diff.location import LayerSums, late_share_test, locate
from franken.diff.metrics import Sums


def row(part, layer, delta, elements=10, method="sft→rl"):
    return LayerSums(method, part, layer, Sums(elements=elements, delta=delta))


def test_shares_by_hand():
    rows = [row("text", i, d) for i, d in enumerate([1, 1, 2, 4, 4, 4])] + [
        row("text", None, 4.0),
        row("vision", None, 0.0, 30),
    ]
    text, vision = locate(rows)
    assert text.energy_share == 1.0
    assert text.element_share == pytest.approx(70 / 100)
    assert text.thirds == {"early": 2 / 16, "middle": 6 / 16, "late": 8 / 16}
    assert text.test.share == 14 / 16
    assert text.test.expected == 4 / 6
    assert (vision.energy_share, vision.thirds, vision.test) == (0.0, {}, None)


def test_the_permutation_test_equals_enumeration():
    energies = np.array([1.0, 4.0, 2.0, 8.0, 3.0, 9.0])
    found = late_share_test(energies)
    every = [sum(p[2:]) for p in permutations(energies)]
    assert found.p == pytest.approx(np.mean([s >= energies[2:].sum() for s in every]), abs=0.02)
    shifts = [np.roll(energies, k)[2:].sum() for k in range(6)]
    assert found.p_shift == np.mean([s >= energies[2:].sum() for s in shifts])


def test_equal_layers_are_no_evidence_and_one_late_layer_is_little():
    assert late_share_test(np.ones(28)).p == 1.0
    assert late_share_test(np.ones(28)).p_shift == 1.0
    assert late_share_test(np.eye(28)[20]).p == pytest.approx(19 / 28, abs=0.02)


def test_a_rise_over_depth_is_found():
    found = late_share_test(np.linspace(1, 3, 28))
    assert found.p < 0.01
    assert found.p_shift <= 3 / 28


def test_a_frozen_part_has_no_test():
    text = locate([row("text", i, 0.0) for i in range(6)])[0]
    assert text.energy_share is None
    assert text.test is None
