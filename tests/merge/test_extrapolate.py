"""Checkpoints made of the way of a run: a planted line is extended exactly, all directions give the
checkpoint itself, and the hybrid on disk is what the naive computation makes.
"""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from franken.checkpoints import open_checkpoint
from franken.cli import run_command
from franken.errors import UsageError
from franken.merge.options import recipe_from_options
from franken.merge.plan import open_all, plan_merge
from franken.merge.run import run_merge
from franken.models.tiny import tiny

UPDATES = (10, 20, 40)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A start, a run along a straight line (in sixteenths, which are exact), and a bent one."""
    folder = tmp_path_factory.mktemp("runs")
    start = folder / "start"
    tiny("qwen2_5_vl", 0).requires_grad_(False).save_pretrained(start)
    tensors = {
        n: torch.round(t * 64) / 64 for n, t in load_file(start / "model.safetensors").items()
    }
    save_file(tensors, start / "model.safetensors", {"format": "pt"})
    torch.manual_seed(0)
    way = {n: torch.round(torch.randn_like(t) * 4) / 64 for n, t in tensors.items()}
    side = {n: torch.randn_like(t) / 8 for n, t in tensors.items()}
    for update in UPDATES:
        for run, bend in (("line", 0.0), ("bent", (update / 10) ** 0.5)):
            made = folder / run / "checkpoints" / f"step-{update:08d}"
            made.mkdir(parents=True)
            for file in start.glob("*.json"):
                (made / file.name).write_bytes(file.read_bytes())
            values = {n: t + update * way[n] + bend * side[n] for n, t in tensors.items()}
            save_file(values, made / "model.safetensors", {"format": "pt"})
    return folder, tensors, way


def made(runs, run, out, **options):
    folder = runs[0]
    options = {"method": "extrapolate", **options}
    recipe = recipe_from_options([str(folder / "start"), str(folder / run)], **options)
    plan = plan_merge(recipe, open_all(recipe))
    return load_file(run_merge(plan, out) / "model.safetensors")


@pytest.mark.parametrize("update", [5, 40, 320])
def test_a_planted_line_is_extended_exactly(runs, tmp_path, update):
    _, tensors, way = runs
    found = made(runs, "line", tmp_path / "out", param=[f"update={update}"])
    for name, start in tensors.items():
        torch.testing.assert_close(found[name], start + update * way[name], rtol=2e-7, atol=1e-6)


def test_all_directions_are_the_checkpoint_and_one_is_the_nearest(runs, tmp_path):
    folder, tensors, _ = runs
    full = made(runs, "bent", tmp_path / "full", param=["update=20", "rank=3", "fitted=false"])
    first = made(runs, "bent", tmp_path / "one", param=["update=20", "fitted=false"])
    steps = [
        load_file(folder / "bent" / "checkpoints" / f"step-{u:08d}" / "model.safetensors")
        for u in UPDATES
    ]
    for name, start in tensors.items():
        torch.testing.assert_close(full[name], steps[1][name], rtol=1e-6, atol=1e-5)
        stacked = np.array([(s[name].double() - start.double()).flatten().numpy() for s in steps])
        u = np.linalg.svd(stacked, full_matrices=False)[2][0]
        naive = start.double().flatten().numpy() + (stacked[1] @ u) * u
        np.testing.assert_allclose(first[name].flatten().numpy(), naive, rtol=1e-5, atol=1e-4)


def test_layers_may_be_chosen_and_the_card_tells_the_run(runs, tmp_path, capsys):
    folder, tensors, _ = runs
    command = ["merge", str(folder / "start"), str(folder / "line"), "--method", "extrapolate"]
    command += ["--layers", "1-2", "--param", "update=80", "--out", str(tmp_path / "out")]
    assert run_command(command, False) == 0
    assert "every one verified" in capsys.readouterr().out
    card = (tmp_path / "out" / "README.md").read_text()
    assert "extrapolate" in card
    assert "step-00000020: 20" in card
    found, base = open_checkpoint(tmp_path / "out"), open_checkpoint(folder / "start")
    values = load_file(tmp_path / "out" / "model.safetensors")
    moved = {
        k for k, e in found.tensors.items() if not torch.equal(values[e.name], tensors[e.name])
    }
    assert moved == {k for k in base.tensors if k.startswith("text.layers.1.")}


@pytest.mark.parametrize("param", ["update=soon", "rank=0", "fitted=2", "steps=3"])
def test_what_it_does_not_take_is_refused(runs, param):
    folder = runs[0]
    with pytest.raises(UsageError):
        options = [str(folder / "start"), str(folder / "line")]
        recipe = recipe_from_options(options, method="extrapolate", param=[param])
        plan_merge(recipe, open_all(recipe))
    with pytest.raises(UsageError, match="a base and one run"):
        recipe_from_options(["a", "b", "c"], method="extrapolate")
