"""Checkpoints along a run: which updates are kept, that they are the weights of those updates, and
that a run that was interrupted ends with the same ones.
"""

import signal
from collections import namedtuple

import numpy as np
import pytest
from safetensors.numpy import load_file

from franken.checkpoints import open_checkpoint
from franken.diff.plan import plan_diff
from franken.diff.values import opened
from franken.errors import FrankenError, UsageError
from franken.models.loading import load
from trainer import kept_files, loop
from trainer.kept import is_kept, most_kept
from trainer.plan import memory_plan
from trainer.recipe import Keep, parse_recipe


def recipe(keep, steps=6, **changes):
    stage = {"kind": "sft", "steps": steps, "batch": 2, "lr": 1e-3, "tasks": {"read": 1.0}}
    stage |= {"freeze": ["vision", "projector"], "save_every": 2}
    raw = {"name": "t", "model": "creature:sft", "device": "cpu", "keep": keep, "stages": [stage]}
    return parse_recipe(raw | changes)


def names(out):
    return [folder.name for folder in sorted((out / "checkpoints").iterdir())]


@pytest.mark.parametrize(
    ("keep", "updates", "kept"),
    [
        (Keep(every=1), 4, [1, 2, 3, 4]),
        (Keep(every=3), 10, [3, 6, 9]),
        (Keep(every=2, at_most=3), 6, [2, 4, 6]),
        (Keep(every=2, at_most=3), 8, [4, 8]),
        (Keep(every=2, at_most=3), 100, [32, 64, 96]),
        (Keep(every="powers"), 20, [1, 2, 4, 8, 16]),
        (Keep(), 5, []),
    ],
)
def test_which_updates_are_kept(keep, updates, kept):
    assert [u for u in range(1, updates + 1) if is_kept(keep, u, updates)] == kept


@pytest.mark.parametrize("every", [1, 2, 3, 7])
@pytest.mark.parametrize("at_most", [1, 2, 3, 20])
def test_what_is_kept_at_the_end_was_never_removed_before(every, at_most):
    keep = Keep(every=every, at_most=at_most)
    for end in range(1, 120):
        for update in (u for u in range(1, end + 1) if is_kept(keep, u, end)):
            assert all(is_kept(keep, update, now) for now in range(update, end + 1))
        on_disk = {u for u in range(1, end + 1) if is_kept(keep, u, max(end - 1, u))} | {end}
        assert len(on_disk) <= most_kept(recipe({"every": every, "at_most": at_most}, steps=end))


def test_all_is_every_update_and_unused_keys_do_not_change_what_a_run_is():
    assert recipe("all").keep == Keep(every=1)
    plain = recipe({}).model_dump(mode="json")["keep"]
    assert plain == {"last": 2, "best": 0, "by": "acc@4"}
    assert recipe("all").model_dump(mode="json")["keep"] == {**plain, "every": 1}
    for bad in ("some", {"every": -1}, {"at_most": 3}, {"every": "powers", "at_most": 3}):
        with pytest.raises(UsageError):
            recipe(bad)
    timed = recipe({}).model_dump(mode="json")
    timed["stages"][0] |= {"steps": None, "cpu_seconds": 5}
    with pytest.raises(UsageError) as told:
        parse_recipe({**timed, "keep": "all"})
    assert "needs keep.at_most" in told.value.why
    assert most_kept(parse_recipe({**timed, "keep": {"every": 1, "at_most": 5}})) == 7


def test_an_interrupted_run_keeps_the_same_checkpoints(tmp_path):
    """Of six updates every one, at most two: 4 stays, and 6, the last; 1, 2 and 3 have gone."""
    kept = recipe({"every": 1, "at_most": 2})
    seen = {}

    def interrupt(now):
        seen[now.update.update] = names(tmp_path / "cut")
        if now.update.update == 3:
            (tmp_path / "cut" / "checkpoints" / ".step-00000009.1").mkdir()  # of a killed writer
            signal.raise_signal(signal.SIGINT)

    final = loop.run_train(kept, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        loop.run_train(kept, tmp_path / "cut", report=interrupt)
    loop.run_train(kept, tmp_path / "cut")
    assert seen == {
        1: ["step-00000001"],
        2: ["step-00000001", "step-00000002"],
        3: ["step-00000001", "step-00000002"],  # nothing goes before the next one is there
    }
    for out in (tmp_path / "whole", tmp_path / "cut"):
        assert names(out) == ["step-00000004", "step-00000006"]
    for name in names(tmp_path / "whole"):
        whole, cut = (tmp_path / run / "checkpoints" / name for run in ("whole", "cut"))
        files = sorted(path.name for path in whole.iterdir())
        assert files == sorted(path.name for path in cut.iterdir())
        assert [f for f in files if (whole / f).read_bytes() != (cut / f).read_bytes()] == []
    last = tmp_path / "whole" / "checkpoints" / "step-00000006"
    assert (last / "model.safetensors").read_bytes() == (final / "model.safetensors").read_bytes()
    load(str(last.parent / "step-00000004"), device="cpu")  # with its processor
    assert open_checkpoint(last).name == "step-00000006"


def test_what_was_kept_after_the_update_a_run_goes_on_from_is_made_again(tmp_path):
    for update in (1, 2, 3):
        (tmp_path / "checkpoints" / f"step-{update:08d}").mkdir(parents=True)
    kept_files.drop_after(tmp_path, 2)
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


def test_with_adapters_only_they_are_kept_and_read_as_everywhere(tmp_path):
    lora = {"rank": 2, "alpha": 6, "targets": ["text:0-2.attn"]}
    final = loop.run_train(recipe("all", steps=2, lora=lora), tmp_path / "run")
    last = tmp_path / "run" / "checkpoints" / "step-00000002"
    assert sum(f.stat().st_size for f in last.iterdir()) < 100_000  # the model has 5 MB
    plan = plan_diff(["creature:sft", last])
    merged = load_file(final / "model.safetensors")
    model = open_checkpoint(final)
    moved = set()
    for name in plan.tensors:
        before, after = plan.stages(name)
        with opened(*before) as a, opened(*after) as b:
            now = b.floats(0, b.size).copy()
            moved |= {name} if np.any(now != a.floats(0, a.size)) else set()
        np.testing.assert_allclose(now, merged[model.tensors[name].name].ravel(), atol=1e-6)
    assert len(moved) == 8  # q, k, v, o of two layers


def test_the_plan_counts_what_is_kept_and_a_run_that_cannot_hold_it_does_not_begin(
    tmp_path, monkeypatch
):
    plain, kept = memory_plan(recipe({})), memory_plan(recipe({"every": 2, "at_most": 2}))
    assert (kept.kept, kept.kept_bytes) == (4, 4 * kept.parameters)
    assert kept.stages[0].disk - plain.stages[0].disk == 4 * kept.kept_bytes
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(kept_files.shutil, "disk_usage", lambda _: usage(0, 0, 4_000_000))
    with pytest.raises(FrankenError, match="checkpoints will not fit") as told:
        loop.run_train(recipe("all"), tmp_path / "run")
    assert "at_most" in told.value.fix
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_full_disk_leaves_the_checkpoints_that_were_there(tmp_path, monkeypatch):
    loaded = load("creature:sft", device="cpu")
    every = recipe("all")
    kept_files.keep_weights(tmp_path, loaded, every, 1, last=False)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept_files, "save_processor", full)
    with pytest.raises(FrankenError, match="step-00000002 could not be written"):
        kept_files.keep_weights(tmp_path, loaded, every, 2, last=False)
    assert names(tmp_path) == ["step-00000001"]
