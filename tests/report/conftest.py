"""A study made of invented numbers: run folders as the verbs write them, for the page and the
figures.
"""

import itertools
import os
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock

from franken import stats
from franken import tasks as puzzles
from franken.evaluate.metrics import summarise
from franken.forks.score import COLUMNS
from franken.forks.summary import summarise as summarise_forks
from franken.probe.summary import layer_rows
from franken.runs import Study, layer_row, open_run
from franken.tasks import Item, Pair

TASKS = ["recognise", "read", "count", "sum", "compare"]
DEPTH = 8
SKILL = {"base": 0.03, "sft": 0.62, "rl": 0.73, "control": 0.66}
FROZEN = {"frozen-early": [0, 1], "frozen-middle": [2, 3, 4], "frozen-late": [5, 6, 7]}
HYBRIDS = {
    "SFT:RL:RL": [2, 3, 4, 5, 6, 7],
    "RL:SFT:SFT": [0, 1],
    "SFT:SFT:RL": [5, 6, 7],
    "RL:RL:SFT": [0, 1, 2, 3, 4],
    "SFT:RL:SFT": [2, 3, 4],
    "RL:SFT:RL": [0, 1, 5, 6, 7],
}
RANDOM = {"random-6a": [0, 1, 2, 4, 5, 7], "random-3a": [0, 3, 6]}
INJECTION = (
    "<script>document.title = window.owned = 'owned'</script><img src=x onerror=\"window.owned = "
    '1">'
)


@pytest.fixture(scope="session")
def make_study():
    """make_study(folder, sft=True, extras=True, failed=False, more=False, samples=12) → the folder,
    its runs in it.
    """
    return build


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Path:
    """The folder of a study with failed samples and its page, figures included: all as PNG,
    test_page makes PDFs of some. Drawn by the first worker that asks, for all of them.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = shared / "built"
    with FileLock(f"{folder}.lock"), pytest.MonkeyPatch.context() as patch:
        if not (folder / "index.html").exists():
            from franken.report.page import panels
            from franken.report.page.build import build_page

            patch.setattr(panels, "KINDS", ("png",))
            build_page(build(folder, failed=True, more=True, samples=6))
    return folder


def build(
    folder: Path,
    *,
    sft: bool = True,
    extras: bool = True,
    failed: bool = False,
    more: bool = False,
    samples: int = 12,
) -> Path:
    rng = np.random.default_rng(0)
    parent = "SFT" if sft else "Base"
    models = {m: f"models/{m}" for m in ("base", "sft", "rl") if sft or m != "sft"}
    models |= {"control": "models/control", **{a: f"models/{a}" for a in FROZEN}} if extras else {}
    hybrids = {
        k.replace("SFT", parent): {"pattern": k, "layers": v, "control": False}
        for k, v in HYBRIDS.items()
    }
    hybrids |= {k: {"pattern": "random", "layers": v, "control": True} for k, v in RANDOM.items()}
    steps = []

    def step(what: str, *runs: Path, model: str | None = None) -> None:
        steps.append(
            {
                "id": what,
                "what": what,
                "model": model,
                "command": f"franken {what}",
                "seconds": 3.2,
                "error": None,
                "folders": [str(r.relative_to(folder)) for r in runs],
            }
        )

    for model in models:
        seen = (
            ("image", "blind") if more else ("image", "text", "blind")
        )  # with more, M scores ask for the text
        arms = seen if model in ("base", "sft", "rl") else ("image",)
        skill = SKILL.get(model, 0.69)
        step(
            f"eval {model}",
            fake_eval(folder, model, skill, rng, samples, arms, failed=failed and model == "rl"),
        )
    low, gap = SKILL["sft" if sft else "base"], 0.11 if sft else 0.7
    made = [
        fake_eval(folder, h, low + gap * len(i["layers"]) / DEPTH, rng, samples, ("image",))
        for h, i in hybrids.items()
    ]
    step("eval hybrids", *made)
    for model in (m for m in ("base", "sft", "rl") if m in models):
        run = fake_probe(
            folder, f"checkpoint-of-{model}", rng, samples, failed=failed and model == "rl"
        )
        step(f"probe {model}", run, model=model)
    step("diff", fake_diff(folder, sft, rng))
    if more:
        stages = [m for m in ("base", "sft", "rl") if m in models]
        for model in stages:
            step(
                f"attention {model}",
                fake_attention(folder, f"looks-of-{model}", rng, samples),
                model=model,
            )
        if sft:
            step("stitch rl", fake_stitch(folder, "stitched-rl", rng, samples), model="rl")
        for label in (*stages, *hybrids):
            made = fake_eval(
                folder, label, SKILL.get(label, 0.7), rng, samples, ("text", "black", "black-text")
            )
            step(f"M scores of {label}", made)
        step("forks", fake_forks(folder, ["sft" if sft else "base", "rl"], rng))
        step("diversity", fake_comparison(folder, [*stages, "control"], rng))
    if failed:
        steps.append(
            {
                "id": "eval lost",
                "what": "eval lost",
                "command": "franken eval lost",
                "seconds": 0.1,
                "error": "models/lost is not a checkpoint",
                "folders": [],
            }
        )
    frozen = FROZEN if extras else {}
    Study(
        title="creature",
        models=models,
        depth=DEPTH,
        tasks=TASKS,
        samples=samples,
        seed=0,
        hybrids=hybrids,
        frozen=frozen,
        steps=steps,
        command="franken autopsy base sft rl",
    ).save(folder)
    return folder


@cache
def items(task: str, n: int) -> list[Item]:
    """Drawn once: every model of every study is asked the same."""
    return puzzles.get(task).items(n, 0, split="test")


@cache
def pairs(task: str, n: int) -> list[Pair]:
    return puzzles.get(task).pairs(n, 0)


def fake_eval(folder, model, skill, rng, samples, arms, *, failed=False) -> Path:
    run = open_run(
        "eval",
        model,
        {"m": model, "failed": failed, "arms": arms},
        folder / "runs",
        config={"seed": 0},
        models={},
    )
    if run.is_complete():
        return run.folder
    rows = []
    level = {"image": 1.0, "text": 0.35, "blind": 0.25, "black": 0.2, "black-text": 0.4}
    for arm in arms:
        for t, task in enumerate(TASKS):
            for i, item in enumerate(items(task, samples)):
                hard = np.random.default_rng(100 * t + i).uniform(-0.25, 0.25)
                for draw in range(-1, 4):
                    right = rng.random() < (skill + hard - 0.05 * t) * level[arm]
                    said = item.answer if right else ("0" if i % 5 else INJECTION)
                    way = list(item.solutions)[
                        rng.integers(len(item.solutions)) if model != "rl" else 0
                    ]
                    bad = failed and task == "read" and i == 0
                    rows.append(
                        {
                            "model": model,
                            "method": arm,
                            "task": task,
                            "sample": item.id,
                            "draw": draw,
                            "output": None
                            if bad
                            else f"<think> {item.solutions[way]} </think> <answer> {said} </answer>",
                            "answer": None if bad else said,
                            "gold": item.answer,
                            "score": None if bad else float(right),
                            "reason": None if bad else "as planted",
                            "well_formed": None if bad else True,
                            "strategy": None if bad else way,
                            "truncated": None if bad else False,
                            "error": "image file is truncated" if bad else None,
                            "ineligible": None,
                        }
                    )
    run.append(rows)
    return run.finish(summarise(pd.DataFrame(run.rows()), k=(1, 4)), n_requested=len(rows))


def fake_probe(folder, model, rng, samples, *, failed=False) -> Path:
    identity = {"m": model, "failed": failed}
    config = {"samples": samples, "seed": 0, "tasks": TASKS, "data": None}
    run = open_run("probe", model, identity, folder / "runs", config=config, models={})
    if run.is_complete():
        return run.folder
    rows = []
    for t, task in enumerate(TASKS):
        for i, pair in enumerate(pairs(task, samples)):
            reply = "<think> r1c1 {0} </think> <answer> {0} </answer>"
            baseline, source = (reply.format(x.answer) for x in (pair.target, pair.source))
            bad = "the image cannot be read" if failed and task == "read" and i == 0 else None
            for method in ("swap-suffix", "swap-single", "zero"):
                for layer in range(DEPTH):
                    reach = 1 / (1 + np.exp(1.6 * (layer - 1.2 - 0.7 * t)))
                    chance = {
                        "swap-suffix": 0.93 * reach,
                        "swap-single": 0.25 * reach,
                        "zero": 0.0,
                    }[method]
                    changed = bool(rng.random() < chance)
                    drop = rng.random() < (0.8 if layer in (0, 3) else 0.15)
                    output = (
                        source
                        if changed
                        else baseline
                        if method != "zero" or not drop
                        else INJECTION
                    )
                    rows.append(
                        {
                            "model": model,
                            "method": method,
                            "part": "text",
                            "layer": layer,
                            "task": task,
                            "sample": pair.id,
                            "output": None if bad else output,
                            "baseline": None if bad else baseline,
                            "source_output": None if bad else source,
                            "changed": None if bad else changed,
                            "to_source": None if bad else changed,
                            "score": None if bad else float(output == baseline),
                            "baseline_score": None if bad else 1.0,
                            "reason": None,
                            "error": bad,
                            "ineligible": "both answers agree"
                            if i == 1 and task == "count"
                            else None,
                        }
                    )
    run.append(rows)
    frame = pd.DataFrame(run.rows())
    frame = frame[frame["error"].isna() & frame["ineligible"].isna()]
    layers = []
    for (method, task, layer), g in frame.groupby(["method", "task", "layer"]):
        head = {
            "model": model,
            "method": method,
            "part": "text",
            "layer": layer,
            "task": task,
            "n": len(g),
        }
        if method == "zero":
            rate = float(g["score"].astype(float).mean())
            _, low, high = stats.rate(int(g["score"].sum()), len(g))
            layers.append(
                layer_row(metric="accuracy", value=rate, ci_low=low, ci_high=high, **head)
            )
            layers.append(
                layer_row(
                    metric="accuracy_drop", value=1 - rate, ci_low=1 - high, ci_high=1 - low, **head
                )
            )
        else:
            for metric, column in (
                ("change_rate", "changed"),
                ("flip_to_source_rate", "to_source"),
            ):
                hits = int(g[column].astype(bool).sum())
                _, low, high = stats.rate(int(hits), len(g))
                layers.append(
                    layer_row(metric=metric, value=hits / len(g), ci_low=low, ci_high=high, **head)
                )
    return run.finish(layers, n_requested=len(rows))


def fake_attention(folder, model, rng, samples) -> Path:
    """RL looks at the image 5 points more in the late layers."""
    run = open_run("probe", model, {"m": model}, folder / "runs", config={}, models={})
    if run.is_complete():
        return run.folder
    rows, layers = [], []
    for task in TASKS:
        asked = pairs(task, samples)
        for layer in range(DEPTH):
            more = 0.05 if model.endswith("rl") and layer >= 5 else 0.0
            masses = np.clip(0.2 + more + rng.normal(0, 0.01, len(asked)), 0, 1)
            head = {
                "model": model,
                "method": "attention",
                "part": "text",
                "layer": layer,
                "task": task,
            }
            rows += [
                {
                    **head,
                    "sample": pair.id,
                    "mass": mass,
                    "head_mass": [mass, mass],
                    "n_vision": 9,
                    "baseline": "x",
                    "output": None,
                    "error": None,
                    "ineligible": None,
                }
                for pair, mass in zip(asked, masses, strict=True)
            ]
            for component in ("all", "head 0", "head 1"):
                mean = float(masses.mean())
                ends = {"ci_low": mean - 0.005, "ci_high": mean + 0.005, "n": len(asked)}
                layers.append(
                    layer_row(
                        metric="attention_mass", component=component, value=mean, **ends, **head
                    )
                )
    run.append(rows)
    return run.finish(layers, n_requested=len(rows))


def fake_forks(folder, models, rng) -> Path:
    """Two models that part at the first word, which carries the gain wherever it is taken from."""
    config = {"tasks": TASKS, "samples": 6, "seed": 0, "threshold": 0.1}
    run = open_run("forks", "-".join(models), {}, folder / "runs", config=config, models={})
    pieces = ["<think>", " rows", " r1c1", " red", " 1", "</think>", " 1", "<|im_end|>"]
    kinds = ["format", "opening", "observation", "observation", "inference", "format", "answer"]
    skill = {"own": (0.5, 0.9), "forks": (0.9, 0.5), "random": (0.5, 0.9)}
    skill |= {"entropy": (0.5, 0.7), "elsewhere": (0.9, 0.5)}
    rows = []
    for side, model in enumerate(models):
        for method, rates in skill.items():
            for task, i, draw in itertools.product(TASKS, range(6), range(2)):
                n, tokens = len(pieces), {}
                if method == "own":
                    js = rng.uniform(0, 0.02, n)
                    js[1] = 0.3
                    tokens = {name: rng.random(n).tolist() for name in COLUMNS}
                    tokens |= {"js": js.tolist(), "top_a": [1] * n, "top_b": [2] * n}
                    tokens |= {"pieces": pieces, "kinds": [*kinds, "format"], "ids": list(range(n))}
                else:
                    tokens = {"places": [1], "changed": 1}
                head = {"model": model, "method": method, "task": task, "sample": f"{task}-{i}"}
                score = float(rng.random() < rates[side])
                rest = {"draw": draw, "tokens": n, "score": score, "output": INJECTION}
                rows.append({**head, **rest, **tokens, "error": None, "ineligible": None})
    run.append(rows)
    layers, found = summarise_forks(pd.DataFrame(run.rows()), models, 0.1, lambda token: INJECTION)
    return run.finish(layers, n_requested=len(rows), extra=found)


def fake_stitch(folder, model, rng, samples) -> Path:
    """RL's layers bring it back evenly from below, and its last layers at once."""
    run = open_run("probe", model, {"m": model}, folder / "runs", config={}, models={})
    if run.is_complete():
        return run.folder
    rows = [
        {
            "model": model,
            "method": method,
            "part": "text",
            "layer": layer,
            "task": task,
            "sample": pair.id,
            "restored": (layer + 1) / DEPTH if method == "stitch-below" else 1 - layer / 100,
            "score": float(rng.random() < 0.9),
            "baseline_score": float(rng.random() < 0.5),
            "to_source": True,
            "baseline": "x",
            "output": "y",
            "error": None,
            "ineligible": None,
        }
        for task in TASKS
        for method in ("stitch-below", "stitch-above")
        for layer in range(DEPTH)
        for pair in pairs(task, samples)
    ]
    run.append(rows)
    return run.finish(layer_rows(pd.DataFrame(rows)), n_requested=len(rows))


def fake_comparison(folder, models, rng) -> Path:
    run = open_run(
        "compare", "all", {"models": models}, folder / "runs", config={"models": models}, models={}
    )
    rows, layers = [], []
    for model in models:
        for task in TASKS:
            for i in range(6):
                head = {
                    "model": model,
                    "method": "image",
                    "task": task,
                    "sample": f"{task}-{i}",
                    "error": None,
                }
                rows += [
                    {**head, "metric": m, "value": float(rng.random())}
                    for m in ("diversity", "acc@4")
                ]
        for metric in (
            "first@4",
            "diversity",
            "P(description right)",
            "P(correct | description right)",
            "error: perception",
            "error: algorithm",
            "Pearson diversity ~ acc@4",
        ):
            value = float(rng.uniform(0.1, 0.4))
            ends = {"ci_low": value - 0.05, "ci_high": value + 0.05, "n": 30}
            layers.append(
                layer_row(
                    model=model, method="image", task="all", metric=metric, value=value, **ends
                )
            )
    run.append(rows)
    cloud = pd.DataFrame(
        {"model": models * 5, "x": rng.normal(size=5 * len(models)), "y": 0.0, "right": True}
    )
    cloud.to_parquet(run.folder / "points.parquet")
    return run.finish(layers, n_requested=len(rows))


def fake_diff(folder, sft, rng) -> Path:
    run = open_run("diff", "rl", {"sft": sft}, folder / "runs", config={}, models={})
    if run.is_complete():
        return run.folder
    size = {"base→sft": 0.05, "sft→rl": 0.004, "base→rl": 0.06}
    layers, rows = [], []
    for delta in size if sft else ["base→rl"]:
        for part, depth in (("vision", 2), ("projector", None), ("text", DEPTH)):
            for layer in [None] if depth is None else range(depth):
                rise = 1 + (1.6 * (layer or 0) / DEPTH if part == "text" else 0.0)
                sigma = (
                    [float(np.exp(-0.1 * rise * i)) for i in range(12)] if part == "text" else None
                )
                head = {"method": delta, "part": part, "layer": layer, "error": None}
                rows.append(
                    {**head, "tensor": f"{part}.layers.{layer}.w.weight", "singular_values": sigma}
                )
                for component in ("attn", "mlp", "norm", "all"):
                    head = {
                        "model": "rl",
                        "method": delta,
                        "part": part,
                        "layer": layer,
                        "component": component,
                    }
                    tilt = {"attn": 1.3, "mlp": 0.8, "norm": 0.5, "all": 1.0}[component]
                    value = (
                        size[delta]
                        * rise
                        * tilt
                        * rng.uniform(0.9, 1.1)
                        * (0.02 if part != "text" else 1)
                    )
                    for metric, v in (
                        ("relative_energy", value),
                        ("energy", value * 30),
                        ("unchanged_fraction", 0.0 if part == "text" else 0.9),
                        ("cosine", 0.99),
                        ("effective_rank", 40 * rise * tilt),
                        ("stable_rank", 9 * tilt),
                    ):
                        layers.append(layer_row(metric=metric, value=v, n=1000, **head))
    run.append(rows)
    return run.finish(layers, n_requested=len(rows))
