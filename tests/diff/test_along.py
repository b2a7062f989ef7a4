"""Trajectories of whole checkpoints: sums over layers against naive numpy, resuming, adapters,
several runs, memory that is flat in the number of checkpoints, and what is refused.
"""

import json
import shutil
import tracemalloc

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from franken.cli import run_command
from franken.diff.along_plan import find_run, plan_along
from franken.diff.along_run import run_along
from franken.diff.plan import plan_diff
from franken.diff.run import run_diff
from franken.errors import UsageError
from franken.models.creature import creature_path
from franken.models.tiny import tiny
from franken.names import canonical
from franken.report import theme as look
from franken.report.assemble import assemble
from franken.report.behaviour import behaviour
from franken.report.page.what import what
from franken.runs import layer_row, load_run, open_run, open_runs, open_study


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A start and two runs from it: one straight, in layer 1 alone, one a random walk everywhere."""
    folder = tmp_path_factory.mktemp("runs")
    start = folder / "start"
    tiny("qwen2_5_vl", 0).requires_grad_(False).save_pretrained(start)
    tensors = load_file(start / "model.safetensors")
    torch.manual_seed(0)
    way = {
        n: torch.randn_like(t)
        for n, t in tensors.items()
        if ".layers.1." in n and "visual" not in n
    }
    walked = dict(tensors)
    for update in (10, 20, 40):
        straight = {n: t + update * 2**-10 * way[n] if n in way else t for n, t in tensors.items()}
        walked = {n: t + 0.01 * torch.randn_like(t) for n, t in walked.items()}
        for run, values in (("straight", straight), ("walk", walked)):
            save(start, folder / run / "checkpoints" / f"step-{update:08d}", values)
    return folder


def save(start, folder, tensors):
    folder.mkdir(parents=True)
    for file in start.iterdir():
        if file.suffix == ".json":
            (folder / file.name).write_bytes(file.read_bytes())
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def value(run, metric, model, part: str | None = "text", layer=None, component="all"):
    rows = run.layers[(run.layers["metric"] == metric) & (run.layers["model"] == model)]
    rows = rows[rows["component"] == component]
    rows = rows[rows["part"].isna() if part is None else rows["part"] == part]
    rows = rows[rows["layer"].isna() if layer is None else rows["layer"] == layer]
    return rows["value"].item()


def test_layers_parts_and_the_whole_are_the_sums_of_their_tensors(runs, tmp_path):
    plan = plan_along(runs / "start", [runs / "straight", runs / "walk" / "checkpoints"])
    run = load_run(run_along(plan, out=tmp_path, with_spectra=True))
    assert [(t.run, t.updates) for t in run.manifest.trajectories] == [
        ("straight", [10, 20, 40]),
        ("walk", [10, 20, 40]),
    ]
    for metric in ("straightness", "rank_one_share", "linearity"):
        assert value(run, metric, "straight", layer=1) == pytest.approx(1, abs=1e-6)
    assert value(run, "half_change", "straight", layer=1) == pytest.approx(20, rel=1e-6)
    assert np.isnan(value(run, "straightness", "straight", layer=0))
    assert value(run, "straightness", "walk", layer=0) < 0.7
    assert value(run, "straightness", "walk", layer=0) == pytest.approx(
        value(run, "straightness_null", "walk", layer=0), abs=0.02
    )
    stored = [
        load_file(f / "model.safetensors") for f in (runs / "start", *plan.runs[1].checkpoints)
    ]
    keys = {n: canonical(n, "qwen2_5_vl") for n in stored[0]}

    def stacked(prefix):
        names = [n for n, key in keys.items() if key.startswith(prefix)]
        flat = [torch.cat([t[n].double().flatten() for n in names]).numpy() for t in stored]
        return np.array(flat[1:]) - flat[0]

    for prefix, part, layer in (
        ("text.layers.0.", "text", 0),
        ("text.", "text", None),
        ("", None, None),
    ):
        moved = stacked(prefix)
        sigma = np.linalg.svd(moved, compute_uv=False)
        where = {"model": "walk", "part": part, "layer": layer}
        share = sigma[0] ** 2 / (sigma**2).sum()
        assert value(run, "distance@20", **where) == pytest.approx(
            np.linalg.norm(moved[1]), rel=1e-6
        )
        assert value(run, "rank_one_share", **where) == pytest.approx(share, rel=1e-6)
    ends = [c.checkpoints[-1] for c in plan.runs]
    a, b = (torch.cat([(load_file(e / "model.safetensors")[n] - stored[0][n]).double().flatten()
                       for n in stored[0]]) for e in ends)  # fmt: skip
    cosine = float(a @ b / a.norm() / b.norm())
    assert value(run, "cosine_of_ends", "straight ~ walk", None) == pytest.approx(cosine, rel=1e-4)
    matrices = [
        n for n, k in keys.items() if k.startswith("text.layers.1.") and stored[0][n].dim() > 1
    ]
    first = whole = 0.0
    for name in matrices:
        sigma = torch.linalg.svdvals((stored[3][name] - stored[0][name]).double())
        first, whole = first + float(sigma[0] ** 2), whole + float((sigma**2).sum())
    found = value(run, "rank_one_of_update@40", "walk", layer=1)
    assert found == pytest.approx(first / whole, rel=1e-6)


@pytest.mark.parametrize("jobs", [1, 3])
def test_an_interrupted_trajectory_ends_as_an_uninterrupted_one(runs, tmp_path, jobs):
    plan = plan_along(runs / "start", [runs / "walk"])
    whole = load_run(run_along(plan, out=tmp_path / "whole"))
    seen = []

    def stop(n):
        seen.append(n)
        if len(seen) == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_along(plan, out=tmp_path / "cut", jobs=jobs, progress=stop)
    again: list[int] = []
    cut = load_run(run_along(plan, out=tmp_path / "cut", jobs=jobs, progress=again.append))
    assert again[0] > 0  # what was there already
    key = ["part", "layer", "component", "metric"]
    tables = [r.layers.sort_values(key).reset_index(drop=True) for r in (whole, cut)]
    np.testing.assert_allclose(*(t["value"].astype(float) for t in tables), rtol=1e-12)


def test_memory_is_flat_in_the_number_of_checkpoints(tmp_path):
    """Of creature-sized files: three and twelve checkpoints, 5 MB each."""
    start = creature_path("sft")
    tensors = load_file(start / "model.safetensors")
    for n in range(12):
        moved = {name: t + 1e-3 * (n + 1) for name, t in tensors.items()}
        for run in ("few", "many")[n > 2 :]:
            save(start, tmp_path / run / f"step-{n + 1}", moved)

    def peak(run):
        plan = plan_along(start, [tmp_path / run])
        tracemalloc.start()
        run_along(plan, out=tmp_path / "out", jobs=1)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak("few")  # compiles and imports what it will
    shutil.rmtree(tmp_path / "out")
    few, many = peak("few"), peak("many")
    assert few < 12e6  # a stretch of 1 MiB, its copies, and the rows; the files have 15 MB
    assert many - few < 1.5e6  # headers and rows; the weights of nine more checkpoints have 45 MB


def test_folders_are_read_by_the_number_at_the_end_of_their_names(runs, tmp_path):
    run = find_run(runs / "walk", taken=["walk", "walk-2"])
    assert (run.name, run.updates) == ("walk-3", (10, 20, 40))
    other = tmp_path / "hf"
    for name in ("checkpoint-1500", "checkpoint-500", "global_step_7", "notes", ".step-00000009.1"):
        save(runs / "start", other / name, load_file(runs / "start" / "model.safetensors"))
    assert find_run(other).updates == (7, 500, 1500)
    save(runs / "start", other / "again-500", load_file(runs / "start" / "model.safetensors"))
    with pytest.raises(UsageError, match="two checkpoints of update 500"):
        find_run(other)
    for wrong in (tmp_path / "nothing", runs / "start"):
        with pytest.raises(UsageError):
            find_run(wrong)


def test_the_command_says_what_it_costs_runs_and_shows(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = [
        "diff",
        str(runs / "start"),
        "--along",
        str(runs / "walk"),
        "--along",
        str(runs / "straight"),
    ]
    assert run_command([*command, "--dry-run", "--json"], False) == 0
    cost = json.loads(capsys.readouterr().out)
    assert cost["runs"] == {"walk": [10, 20, 40], "straight": [10, 20, 40]}
    assert cost["bytes"] == 7 * sum(
        f.stat().st_size for f in [runs / "start" / "model.safetensors"]
    ) - 7 * 8 - 7 * header(runs / "start")
    assert run_command(command, False) == 0
    told = capsys.readouterr().out
    assert "steps are as long" in told
    assert "straight ~ walk" in told or "walk ~ straight" in told
    folder = next((tmp_path / "runs" / "trajectory").iterdir())
    assert {p.name for p in (folder / "figures").iterdir()} == {
        "along.png",
        "layers.png",
        "cosines.png",
    }
    assert run_command(["show", str(folder)], False) == 0
    for wrong in (["--subspaces"], ["--expect-frozen", "vision"]):
        assert run_command([*command, *wrong], False) == 2
    assert run_command(["diff", "a", "b", "--along", str(runs / "walk")], False) == 2


def test_behaviour_finds_the_checkpoints_by_content_and_the_page_shows_the_way(runs, tmp_path):
    plan = plan_along(runs / "start", [runs / "walk", runs / "straight"])
    folder = run_along(plan, out=tmp_path / "runs")
    contents = load_run(folder).manifest.identity.checkpoints
    for name, stage in (("a", "start"), ("b", "walk@20"), ("c", "no checkpoint of these")):
        identity = {"model": contents.get(stage, "else")}
        row = {"model": name, "method": "image", "task": "all", "value": 0.5, "n": 7}
        with open_run("eval", name, identity, tmp_path / "runs", config={}) as evaluation:
            answer = {"model": name, "method": "image", "task": "t", "sample": "1", "draw": 0}
            evaluation.append([{**answer, "score": 1.0, "error": None}])
            rows = [layer_row(**row, metric=metric) for metric in ("acc@1", "diversity", "format")]
            evaluation.finish(rows, n_requested=1)
    training = runs / "walk"
    (training / "recipe.json").write_text("{}")
    held = {"stage": 0, "step": 9, "update": 9, "held_out": {"acc@1": 0.25}}
    (training / "metrics.jsonl").write_text(json.dumps(held) + "\n")
    (training / "train.json").write_text("{}")
    known = behaviour(load_run(folder), open_runs(tmp_path / "runs", training))
    found = set(zip(known["run"], known["update"], known["source"], known["metric"], strict=True))
    assert found == {
        *(("walk", at, "eval, image", m) for at in (0, 20) for m in ("acc@1", "diversity")),
        *(("straight", 0, "eval, image", m) for m in ("acc@1", "diversity")),
        ("walk", 9, "held out", "acc@1"),
    }
    for name in ("recipe.json", "metrics.jsonl", "train.json"):
        (training / name).unlink()
    last = plan.runs[0].checkpoints[-1]
    compared = run_diff(plan_diff([runs / "start", last]), out=tmp_path / "runs")
    page = open_study(assemble([compared, folder], out=tmp_path / "page"))
    (way,) = (group for group in what(page).groups if group.title == "The way there")
    assert "straightness" in way.finding
    assert len(way.panels) == 5
    for panel in way.panels:
        panel.draw(look.LIGHT)


def header(folder):
    return int.from_bytes((folder / "model.safetensors").read_bytes()[:8], "little")
