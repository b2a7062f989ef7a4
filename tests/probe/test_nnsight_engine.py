"""The nnsight engine and the torch engine write the same rows."""

import pytest
from spelled import ablations_of, swap_sets

from franken import tasks
from franken.generate import Prompt
from franken.probe import ablate as torch_ablate
from franken.probe import nnsight_engine, swap
from franken.probe.ablate import calibrate
from franken.probe.plan import plan_probe
from franken.probe.run import run_probe
from franken.runs import load_run

DEPTH = 8


def test_swaps_are_the_same_in_both_engines(sft_creature):
    pair = tasks.get("read").pairs(1, 3)[0]
    target, source = (Prompt(i.question, (i.image,), i.id) for i in (pair.target, pair.source))
    encoded = [swap.encode_pair(sft_creature, target, source)]
    sets = [
        frozenset(),
        *(s for mode in ("suffix", "single") for s in swap_sets(mode, (0, 4, 7), DEPTH)),
    ]
    ours = swap.swapped_batch(sft_creature, encoded, sets, 12, measure=True)[0]
    theirs = nnsight_engine.swapped_batch(sft_creature, encoded, sets, 12, measure=True)[0]
    assert [r.answer.ids for r in ours] == [r.answer.ids for r in theirs]
    assert [r.kl for r in ours] == pytest.approx([r.kl for r in theirs], abs=1e-3)
    assert [r.logit_difference for r in ours] == pytest.approx(
        [r.logit_difference for r in theirs], abs=1e-3
    )
    assert len({tuple(r.answer.ids) for r in theirs}) > 1


def test_ablations_are_the_same_in_both_engines(sft_creature):
    items = tasks.get("read").items(2, 0)
    asked = [Prompt(i.question, (i.image,), i.id) for i in items]
    calibration = calibrate(sft_creature, asked[1:], range(DEPTH))
    wanted = ablations_of((1, 6))
    given = {"max_new_tokens": 8, "calibration": calibration}
    ours = torch_ablate.ablate(sft_creature, asked[0], wanted, **given)
    theirs = nnsight_engine.ablate(sft_creature, asked[0], wanted, **given)
    assert [r.ids for r in ours] == [r.ids for r in theirs]


def test_a_run_of_either_engine_holds_the_same_rows(tmp_path):
    def run(engine):
        plan = plan_probe(
            "creature:sft",
            methods=["swap-suffix", "zero"],
            task_names=["read"],
            samples=1,
            layers="2,6",
            max_new_tokens=6,
            engine=engine,
        )
        return load_run(run_probe(plan, out=tmp_path, device="cpu")).samples

    columns = [
        "method",
        "sample",
        "layer",
        "output",
        "baseline",
        "changed",
        "task_changed",
        "score",
    ]
    assert run("torch")[columns].equals(run("nnsight")[columns])
