"""Figures of training: bands against plain numpy, runs that stopped early, and the command that
draws them.
"""

import json

import numpy as np
import pytest

from franken.cli import run_command
from franken.cli.train_watch import summarise
from franken.errors import UsageError
from franken.report.figures.training import bands, training_table


def make_run(folder, recipe, seed, rewards, correct=None):
    folder.mkdir(parents=True)
    (folder / "recipe.json").write_text(json.dumps({"recipe": {"name": recipe, "seed": seed}}))
    correct = rewards if correct is None else correct
    lines = [
        {"stage": 0, "step": i + 1, "update": i + 1, "reward": float(r), "correct": float(c)}
        for i, (r, c) in enumerate(zip(rewards, correct, strict=True))
    ]
    lines[-1]["held_out"] = {"acc@1": 0.5, "acc@4": 0.75}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_bands_are_means_of_running_means_and_the_extremes(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.random((3, 12))
    for seed, row in enumerate(values):
        make_run(
            tmp_path / str(seed), "a", seed, row if seed else row[:9]
        )  # the first seed stopped early
    found = bands(training_table([tmp_path / str(s) for s in range(3)]), "reward", 4)
    smooth = np.array([[row[max(0, i - 3) : i + 1].mean() for i in range(9)] for row in values])
    np.testing.assert_allclose(found["mean"], smooth.mean(0))
    np.testing.assert_allclose(found["low"], smooth.min(0))
    np.testing.assert_allclose(found["high"], smooth.max(0))


def test_the_command_draws_what_the_runs_have(tmp_path, capsys):
    runs = [
        str(make_run(tmp_path / f"{r}{s}", r, s, np.arange(5) + s)) for r in "ab" for s in range(2)
    ]
    assert (
        run_command(["train-figures", *runs, "--out", str(tmp_path / "x.png"), "--json"], True) == 0
    )
    assert json.loads(capsys.readouterr().out)["figure"].endswith("x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UsageError, match="no training run"):
        training_table([tmp_path / "none"])


def test_the_end_of_a_run_says_where_the_reward_was_hacked(tmp_path):
    rng = np.random.default_rng(0)
    rise = np.concatenate([np.zeros(20), np.ones(20)]) + 0.01 * rng.random(40)
    folder = make_run(tmp_path / "hacked", "a", 0, rise, 1 - rise)
    assert len(summarise(folder)["hacked"]) == 1
    assert (folder / "figures" / "training.png").exists()
    assert summarise(make_run(tmp_path / "honest", "a", 0, rise, rise))["hacked"] == []
