"""The autopsy of random creatures: every step runs, nothing runs twice, what breaks is named."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from franken.cli import worker
from franken.errors import FrankenError, UsageError
from franken.models import creature
from franken.runs import open_study, read_study
from franken.study import autopsy, lanes
from franken.study.autopsy import Settings, plan_autopsy, run_autopsy
from franken.study.cost import study_costs
from franken.study.steps import Step
from franken.study.verbs import Process

TINY = Settings(
    tasks=("recognise", "read"),
    samples=2,
    n=2,
    k=(1, 2),
    probe_samples=2,
    arm_draws=1,
    controls=1,
    device="cpu",
    max_new_tokens=3,
    without=("spectra", "attention", "stitch", "forks", "surgery", "scores", "diversity"),
)


class InProcess:
    """A worker that does its steps here: importing torch in a process of its own would take longer
    than all of them.
    """

    asked: list[list[str]] = []

    def __init__(self, *_):
        pass

    def alive(self):
        return True

    def do(self, argv):
        InProcess.asked.append(argv)
        try:
            return lanes.Done(tuple(worker.do(json.loads(json.dumps(argv)))))
        except FrankenError as e:
            return lanes.Done(error=e.what)

    def close(self):
        pass


@pytest.fixture(autouse=True)
def in_process(monkeypatch):
    InProcess.asked = []
    monkeypatch.setattr(lanes, "_Worker", InProcess)


@pytest.fixture
def undrawn(monkeypatch):
    """No page: drawing it takes longer than the steps."""
    from franken.report.page import build as page

    monkeypatch.setattr(page, "build_page", lambda folder: folder / "index.html")


@pytest.fixture(scope="module")
def stages(tmp_path_factory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("stages")
    for seed, name in enumerate(("base", "sft", "rl", "control", "frozen-late")):
        creature.save(creature.build_model(seed), root / name)
    return {p.name: str(p) for p in root.iterdir()}


def test_a_whole_autopsy_and_again(stages, tmp_path, request, unrasterised):
    extra = {"control": stages["control"], "frozen-late": stages["frozen-late"]}
    options = {"out": tmp_path / "study", "settings": TINY, "extra_models": extra, "jobs": 1}
    page = run_autopsy(stages["base"], stages["sft"], stages["rl"], **options)
    study = read_study(page.parent)
    assert not [s for s in study.steps if s.error]
    assert study.frozen == {"frozen-late": [5, 6, 7]}
    kinds = [s.id.split("-")[0] for s in study.steps]
    assert {k: kinds.count(k) for k in kinds} == {
        "eval": 5,
        "arms": 3,
        "probe": 3,
        "diff": 1,
        "hybrid": 8,
    }
    assert all((page.parent / f / "run.json").exists() for s in study.steps for f in s.folders)
    assert len(InProcess.asked) == 20
    request.getfixturevalue("undrawn")
    assert run_autopsy(stages["base"], stages["sft"], stages["rl"], **options) == page
    assert len(InProcess.asked) == 20


def test_every_optional_part_runs_and_reads_what_others_measured(stages, tmp_path, undrawn):
    import dataclasses

    import pandas as pd

    from franken.evaluate.mscores import m_scores

    extra = {"frozen-0-3": stages["frozen-late"]}
    settings = dataclasses.replace(
        TINY, without=("spectra",), patch=True, tasks=("recognise",), probe_samples=1
    )
    page = run_autopsy(
        stages["base"],
        None,
        stages["rl"],
        out=tmp_path / "s",
        settings=settings,
        extra_models=extra,
        jobs=1,
    )
    study = read_study(page.parent)
    assert not [s for s in study.steps if s.error]
    kinds = [s.id.rsplit("-", 1)[0] for s in study.steps if s.optional]
    assert {k: kinds.count(k) for k in kinds} == {
        "arms": 2,
        "attention": 2,
        "patch": 2,
        "m": 2,
        "m-hybrid": len(study.hybrids),
        "forks": 1,
        "surgery": 1,
        "scores": 1,
        "diversity": 1,
    }
    layers = {label: hybrid.layers for label, hybrid in study.hybrids.items()}
    assert (layers["RL 0..2"], layers["RL 3..7"]) == ([0, 1, 2], [3, 4, 5, 6, 7])
    found = open_study(page.parent)
    assert set(found.samples("probe")["method"]) >= {"swap-suffix", "attention", "patch-residual"}
    assert set(found.samples("forks")["model"]) == {"base", "rl"}
    layers: pd.DataFrame = found.layers("scores")
    for label in ("base", "rl", "RL 0..2"):
        by_hand = m_scores(found.samples("eval", label))
        for score in ("M_vis", "M_v2r", "M_rea"):
            row = layers[
                (layers["model"] == label)
                & (layers["metric"] == score)
                & (layers["task"] == "recognise")
            ]
            assert row["value"].item() == by_hand[score].mean()
    gains = layers[layers["metric"] == "gain M_rea"]
    assert set(gains["method"]) == {"hybrid", "random", "donor"}
    (compared,) = [r for r in found.runs if r.verb == "compare"]
    assert set(compared.manifest.config.models) == {"base", "rl"}
    asked = len(InProcess.asked)
    run_autopsy(
        stages["base"],
        None,
        stages["rl"],
        out=tmp_path / "s",
        settings=settings,
        extra_models=extra,
        jobs=1,
    )
    assert len(InProcess.asked) == asked


def test_what_is_switched_off_is_named_and_unknown_switches_are_refused(stages, tmp_path):
    import dataclasses

    off = dataclasses.replace(
        TINY,
        without=("hybrids", "probe", "diff", "arms", "diversity", "scores", "forks", "surgery"),
    )
    study, steps = plan_autopsy(stages["base"], None, stages["rl"], out=tmp_path, settings=off)
    assert {s.id.split("-")[0] for s in steps} == {"eval", "attention"}
    assert {x.id for x in study.left_out} == set(off.without)
    with pytest.raises(UsageError, match="unknown part of an autopsy"):
        settings = dataclasses.replace(TINY, without=("atention",))
        plan_autopsy(stages["base"], None, stages["rl"], out=tmp_path, settings=settings)


def test_without_sft_the_base_is_the_parent(stages, tmp_path):
    study, steps = plan_autopsy(stages["base"], None, stages["rl"], out=tmp_path, settings=TINY)
    assert study.parent == "base"
    assert list(study.hybrids)[0] == "Base:RL:RL"
    hybrid = next(s for s in steps if s.id == "hybrid-0")
    start = f"franken eval {stages['base']} --graft Base:RL:RL={stages['rl']}:text:2-8 "
    assert hybrid.command.startswith(start)


def test_what_breaks_is_on_the_page_and_the_rest_is_done(stages, tmp_path, unrasterised):
    import shutil

    broken = tmp_path / "control"
    shutil.copytree(stages["control"], broken)
    file = next(broken.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(FrankenError):
        plan_autopsy(
            stages["base"],
            None,
            stages["rl"],
            out=tmp_path,
            settings=TINY,
            extra={"control": str(broken)},
        )
    process = Process("train", "", lambda: ["true"], lambda: True)
    train = Step("train", "train", process, model="control")
    page = run_autopsy(
        stages["base"],
        None,
        stages["rl"],
        out=tmp_path / "study",
        settings=TINY,
        jobs=1,
        before=[train],
        extra_models={"control": str(broken)},
    )
    failed = [s for s in read_study(page.parent).steps if s.error]
    assert [s.id for s in failed] == ["eval-control"]
    assert "evaluate control failed" in page.read_text()


def test_refusals_come_before_anything_is_written(stages, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds something else"):
        run_autopsy(stages["base"], None, stages["rl"], out=tmp_path, settings=TINY)
    with pytest.raises(UsageError, match="unknown task"):
        run_autopsy(
            stages["base"],
            None,
            stages["rl"],
            out=tmp_path / "x",
            settings=Settings(tasks=("raed",)),
        )
    for label in ("rl", "sft", "base", "", "Base:RL:RL", "random-6a"):
        with pytest.raises(UsageError, match="--extra"):
            plan_autopsy(
                stages["base"],
                None,
                stages["rl"],
                out=tmp_path / "x",
                settings=TINY,
                extra={label: stages["sft"]},
            )
    with pytest.raises(UsageError, match="cannot read the layer range"):
        extra = {"frozen-lately": stages["sft"]}
        run_autopsy(
            stages["base"],
            None,
            stages["rl"],
            out=tmp_path / "x",
            settings=TINY,
            extra_models=extra,
        )
    assert [p.name for p in tmp_path.iterdir()] == ["note.txt"]


def test_models_of_another_shape_are_refused(stages, tmp_path):
    from franken.models.tiny import save_tiny

    other = tmp_path / "other"
    save_tiny(other, "qwen2_5_vl")
    with pytest.raises(UsageError, match="not the same architecture"):
        plan_autopsy(stages["base"], None, str(other), out=tmp_path / "x", settings=TINY)


def test_a_folder_keeps_to_its_study(stages, tmp_path, undrawn):
    out = tmp_path / "study"
    run_autopsy(stages["base"], None, stages["rl"], out=out, settings=TINY, jobs=1)
    with pytest.raises(UsageError, match="holds another study"):
        run_autopsy(stages["base"], None, stages["sft"], out=out, settings=TINY, jobs=1)


def test_the_worker_knows_the_verbs_of_franken_alone():
    with pytest.raises(FrankenError, match="ended with exit code 2"):
        worker.do(["juggle"])


def test_default_lanes_follow_the_size_of_the_checkpoints(stages, tmp_path, monkeypatch):
    from franken.study import autopsy

    study, _ = plan_autopsy(stages["base"], None, stages["rl"], out=tmp_path, settings=TINY)
    assert autopsy.default_jobs(study) == 2
    monkeypatch.setattr(autopsy, "SMALL", 1000)
    assert autopsy.default_jobs(study) == 1
    assert Path(study.models["rl"]).is_absolute()


def test_a_budget_is_recorded_kept_when_resumed_and_what_it_drops_is_named(
    stages, tmp_path, monkeypatch, undrawn
):
    import dataclasses

    from franken.study import autopsy

    settings = dataclasses.replace(TINY, tasks=("recognise",), samples=40, controls=0)
    off = ("diversity", "hybrids", "probe", "diff", "attention", "spectra")
    settings = dataclasses.replace(settings, without=off)

    def seconds(steps, done, rates, memory):
        return sum(s.does.samples * (1 + 9 * bool(s.kind)) for s in steps if s.verb == "eval")

    monkeypatch.setattr(autopsy, "lines", seconds)
    monkeypatch.setattr(
        autopsy, "totals", lambda found, jobs: SimpleNamespace(seconds=float(found))
    )
    options = {"out": tmp_path / "s", "settings": settings, "budget": "4m", "jobs": 1}
    study = read_study(run_autopsy(stages["base"], None, stages["rl"], **options).parent)
    assert study.budget
    assert study.budget.chosen["samples"] == study.samples == study.sizes["samples"] < 40
    assert study.notes == study.budget.notes
    assert {x.id: x.why for x in study.left_out}["diversity"] == "switched off with --without"
    assert {x.id: x.why for x in study.left_out}["scores"] == "to fit the budget"
    monkeypatch.setattr(
        autopsy, "totals", lambda found, jobs: SimpleNamespace(seconds=1.0)
    )  # now all of it would fit
    asked = len(InProcess.asked)
    again = read_study(run_autopsy(stages["base"], None, stages["rl"], **options).parent)
    assert again.samples == study.samples
    assert len(InProcess.asked) == asked


def test_an_overrun_leaves_out_optional_steps_that_have_not_started(tmp_path, monkeypatch):
    import sys

    started = []

    def step(name, kind=""):
        def words():
            started.append(name)
            return [sys.executable, "-c", ""]

        return Step(name, name, Process("x", "", words, lambda: name in started), kind=kind)

    def outcomes(budget):
        started.clear()
        found = lanes.run_steps(
            [step("a"), step("b", "arms"), step("c")], folder=tmp_path, jobs=1, budget=budget
        )
        return {o.step.id: (bool(o.left_out), o.error) for o in found}

    assert outcomes(0.0) == {"a": (False, None), "b": (True, None), "c": (False, None)}
    assert outcomes(1000.0)["b"] == (False, None)


def test_two_autopsies_in_one_folder_are_refused_and_a_stop_gives_it_back(
    stages, tmp_path, monkeypatch
):
    from franken.study import autopsy

    def meanwhile(*_, **__):
        with pytest.raises(UsageError, match="is in use"):
            run_autopsy(
                stages["base"], None, stages["rl"], out=tmp_path / "s", settings=TINY, jobs=1
            )
        raise KeyboardInterrupt

    monkeypatch.setattr(autopsy, "run_steps", meanwhile)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_autopsy(
                stages["base"], None, stages["rl"], out=tmp_path / "s", settings=TINY, jobs=1
            )
    assert read_study(tmp_path / "s").steps == []
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_the_command_line_says_what_failed_and_ends_with_3(stages, tmp_path, capsys):
    """Images that cannot be read are failed samples of a study that is otherwise whole."""
    from franken.cli import run_command
    from franken.runs import Study, open_run
    from franken.runs.record import LeftOut, StepRecord

    run = open_run("eval", "rl", {"x": 1}, tmp_path / "s" / "runs", config={})
    row = {
        "model": "rl",
        "method": "image",
        "task": "read",
        "sample": "a",
        "draw": -1,
        "error": "no image",
    }
    asked = (
        "score",
        "ineligible",
        "strategy",
        "well_formed",
        "truncated",
        "answer",
        "output",
        "gold",
        "reason",
    )
    run.append([row | dict.fromkeys(asked)])
    folder = run.finish([], n_requested=1).relative_to(tmp_path / "s").as_posix()
    step = StepRecord(
        id="eval-rl",
        what="evaluate rl",
        verb="eval",
        seconds=1.0,
        model="rl",
        folders=[folder],
    )
    study = Study(
        title="t",
        models={"rl": "r"},
        depth=8,
        tasks=["read"],
        samples=1,
        seed=0,
        steps=[step],
        notes=["small"],
        left_out=[LeftOut(id="arms", what="arms", why="switched off")],
    )
    study.save(tmp_path / "s")
    assert run_command(["report", str(tmp_path / "s")], debug=True) == 3
    said = capsys.readouterr()
    assert f"failed: 1 samples of {Path(folder).name}" in said.err
    assert "note: small" in said.err
    assert "left out: arms: switched off" in said.err
    assert "the page:" in said.out


def test_a_dry_run_prints_the_costs_and_writes_nothing(stages, tmp_path, capsys):
    from franken.cli import run_command

    command = [
        "autopsy",
        stages["base"],
        stages["rl"],
        "--out",
        str(tmp_path / "s"),
        "--tasks",
        "recognise",
        "--samples",
    ]
    command += ["3", "--probe-samples", "2", "--without", "scores,diversity", "--device", "cpu"]
    assert run_command([*command, "--dry-run", "--json"], debug=True) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["total"]["calls"] == sum(s["calls"] for s in said["steps"])
    assert {s["how"] for s in said["steps"]} == {"computed", "timed on these files"}
    assert "Gflop/s" in said["how"]
    assert run_command([*command, "--dry-run"], debug=True) == 0
    assert "evaluate base" in capsys.readouterr().out
    with pytest.raises(UsageError, match="no study fits"):
        run_command([*command, "--dry-run", "--budget", "0.001s"], debug=True)
    assert not (tmp_path / "s").exists()


def test_a_frozen_label_must_say_what_its_run_froze(tmp_path):
    def row(layer, frozen):
        return {
            "part": "text",
            "layer": layer,
            "component": "attn",
            "frozen": frozen,
            "tensors": 1,
            "parameters": 1,
        }

    def stage(*frozen):
        return {"table": [row(layer, layer in frozen) for layer in range(8)]}

    final = tmp_path / "run" / "final"
    final.mkdir(parents=True)
    (tmp_path / "run" / "freeze.json").write_text(
        json.dumps({"0": stage(0, 1, 5, 6), "1": stage(0, 1, 5)})
    )
    assert autopsy._frozen({"frozen-0-2,5-6": str(final)}, 8) == {"frozen-0-2,5-6": [0, 1, 5]}
    with pytest.raises(UsageError, match="not what that run froze") as e:
        autopsy._frozen({"frozen-late": str(final)}, 8)
    assert "frozen-0-2,5-6" in e.value.fix
    assert e.value.why.endswith("says text layers [0, 1, 5]")
    (tmp_path / "run" / "freeze.json").write_text(json.dumps({"0": stage()}))
    with pytest.raises(UsageError, match="not what that run froze") as e:
        autopsy._frozen({"frozen-late": str(final)}, 8)
    assert e.value.why.endswith("says text layers none")
    assert "a run with frozen layers" in e.value.fix


def test_only_labels_that_begin_with_frozen_name_layers(tmp_path):
    labels = {label: str(tmp_path / label) for label in ("control", "late", "0-3", "unfrozen-late")}
    assert autopsy._frozen(labels, 8) == {}
    named = {"frozen-late": str(tmp_path / "x"), "frozen-0-2": str(tmp_path / "y")}
    assert autopsy._frozen(named, 8) == {"frozen-late": [5, 6, 7], "frozen-0-2": [0, 1]}


def test_a_checkpoint_beside_itself_is_a_control(stages, tmp_path):
    base, sft, rl = (stages[stage] for stage in ("base", "sft", "rl"))
    study, steps = plan_autopsy(base, sft, sft, out=tmp_path / "o", settings=TINY)
    (note,) = study.notes
    assert note.startswith("sft and rl are the same checkpoint")
    needs = {step.id: step.needs for step in steps}
    assert needs["probe-rl"] == ("probe-sft",)  # one run folder: they may not both write it
    assert needs["probe-sft"] == needs["probe-base"] == ()
    assert plan_autopsy(base, sft, rl, out=tmp_path / "o", settings=TINY)[0].notes == []


def test_rl_is_stitched_to_sft_where_both_are_there(stages, tmp_path):
    base, sft, rl = (stages[stage] for stage in ("base", "sft", "rl"))
    without = tuple(name for name in TINY.without if name != "stitch")
    settings = replace(TINY, without=without, stitch_samples=1)
    _, steps = plan_autopsy(base, sft, rl, out=tmp_path / "o", settings=settings)
    (step,) = (step for step in steps if step.kind == "stitch")
    assert (step.id, step.model, step.what) == ("stitch-rl", "rl", "stitch sft and rl")
    words = step.does.argv
    assert words[:4] == ("probe", str(rl), "--against", str(sft))
    assert "stitch-below,stitch-above" in words
    assert words[words.index("--samples") + 1] == "1"
    assert set(step.inputs) == {str(rl), str(sft)}
    cost = study_costs([step])[step.id]
    assert cost.answers == 2 * 2 * 8  # two orders, one prompt of each task, eight layers
    assert cost.calls > 0
    _, steps = plan_autopsy(base, None, rl, out=tmp_path / "p", settings=settings)
    assert not [step for step in steps if step.kind == "stitch"]
