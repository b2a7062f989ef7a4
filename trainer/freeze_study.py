"""Was it necessary? One recipe with different layers frozen, and beside it merging of the very same
layers.

For every set S of decoder layers, over the same seeds, puzzles and samples:

    freeze S    RL with S frozen: what RL reaches when S may not move
    train S     instead of it, RL in which nothing but S trains: what S reaches alone
    revert S    RL's end with S put back to the start: what RL loses without its change of S
    graft S     the start with RL's S: what RL's change of S does alone

The Frankenstein paper (arXiv 2602.12395, section 5 and appendix F) reports the first without seeds
and the others of one model; here random sets of as many layers stand beside the thirds, and every
difference is paired by seed and puzzle.

    out/train/<arm>-<seed>/           the training runs, with the proof that frozen tensors stayed
    out/merges/<arm>-<seed>.parquet   what the two hybrids of an arm answered
    out/summary.csv                   means, differences and intervals
    out/cost.csv                      trained parameters and CPU seconds an update
    out/layers.csv, correlations.csv  of single layers that train alone (trainer/layer_worth.py)
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from franken.checkpoints import open_checkpoint
from franken.errors import UsageError
from franken.evaluate.embed import Embed, embedder
from franken.layers import THIRDS, parse_ranges, thirds
from franken.merge.graft import graft
from franken.merge.options import recipe_from_options
from franken.merge.plan import open_all, plan_merge
from franken.models.loading import load
from franken.runs import TrainingRun, write_parquet
from franken.study.hybrids import Hybrid
from franken.study.sweep import random_sets
from trainer.evaluate import request_of
from trainer.layer_worth import layer_worth
from trainer.recipe import Recipe, with_trained
from trainer.stages import GrpoStage
from trainer.study import Look, look_at, run_study, summarise, write_summary

NONE, START = "none", "start"
KINDS = ("freeze", "train", "revert", "graft")
EACH = "each"
Report = Callable[[str], None]


def plan_arms(
    names: Sequence[str], depth: int, *, seed: int = 0, layers: str = "", trained: bool = False
) -> list[Hybrid]:
    """The arms by name, plain RL first: `early`, `middle`, `late`, a range as `2-5`, `each` (every
    layer on its own, or every one of `layers`), `random:N` (sets as large as the middle third),
    `complement` (all but one third, for each third). They are frozen, or `trained` alone.
    Raises UsageError."""
    if layers and EACH not in names:
        raise UsageError("--layers belongs to --arms each", fix="name the ranges in --arms")
    bounds = thirds(depth)
    planned = [Hybrid(NONE, ())]
    for name in names:
        if name == EACH:
            ranges = parse_ranges(layers or "all", {"text": depth})
            chosen = sorted({layer for r in ranges for layer in r.layers})
            planned += [Hybrid(f"layer-{layer}", (layer,)) for layer in chosen]
        elif name in THIRDS:
            planned.append(Hybrid(name, tuple(range(*bounds[name]))))
        elif name == "complement":
            for third in THIRDS:
                others = tuple(x for x in range(depth) if x not in range(*bounds[third]))
                planned.append(Hybrid(f"all-but-{third}", others))
        elif name.partition(":")[0] == "random":
            planned += _random_arms(name, depth, len(range(*bounds["middle"])), seed)
        elif name != NONE:
            ranges = parse_ranges(name, {"text": depth})
            planned.append(
                Hybrid(name, tuple(sorted({layer for r in ranges for layer in r.layers})))
            )
    for arm in planned:
        if len(arm.layers) == depth and not trained:
            raise UsageError(
                f"{arm.label} freezes the whole decoder", why="nothing of it would train"
            )
    labels = [arm.label for arm in planned]
    if len(set(labels)) < len(labels) or len(planned) == 1:
        raise UsageError(
            "--arms names nothing, or an arm twice",
            fix="write early,middle,late,random:3,complement",
        )
    return planned


def run_freeze_study(
    recipe: Recipe,
    arms: Sequence[Hybrid],
    seeds: Sequence[int],
    out: Path,
    *,
    items: int = 40,
    trained: bool = False,
    report: Report | None = None,
) -> pd.DataFrame:
    """Train what is missing, merge, and write the tables. Returns the summary; the same call
    resumes. The layers of an arm are frozen, or the only ones that are `trained`.

    The recipe must be one RL stage counted in steps. At the end `items` held-out puzzles of each of
    its tasks are asked, or all rows that its data holds out.
    """
    look = _look(recipe, items)
    changed = _alone if trained else _frozen
    recipes = {arm.label: changed(recipe, arm) for arm in arms}
    looks, updates = run_study(
        recipes, seeds, out, look, report=report, keep=(NONE,), starts=(NONE,)
    )
    tables = [looks[(looks["step"] == 0) & (looks["arm"] == NONE)].assign(arm=START)]
    tables += [looks[looks["step"] == look.every]]
    embed = embedder()
    for seed in seeds:
        for arm in arms[1:]:
            tables.append(_merged(recipe, arm, seed, out, look, embed, report))
    answers = pd.concat(tables, ignore_index=True).assign(step=look.every)
    answers.to_parquet(out / "answers.parquet", index=False)
    summary = _summary(answers, arms, "train" if trained else "freeze")
    write_summary(summary, out / "summary.csv")
    write_summary(_cost(arms, seeds, out, updates), out / "cost.csv")
    if trained and any(len(arm.layers) == 1 for arm in arms):
        layer_worth(recipe, arms, seeds, out, answers)
    return summary


def _frozen(recipe: Recipe, arm: Hybrid) -> Recipe:
    stages = [
        stage.model_copy(update={"freeze": (*stage.freeze, *filter(None, arm.ranges.split(",")))})
        for stage in recipe.stages
    ]
    return recipe.model_copy(update={"stages": tuple(stages), "name": f"{recipe.name} {arm.label}"})


def _alone(recipe: Recipe, arm: Hybrid) -> Recipe:
    """Nothing trains but the arm's layers; plain RL is the recipe itself."""
    if not arm.layers:
        return recipe.model_copy(update={"name": f"{recipe.name} {arm.label}"})
    made = with_trained(recipe, (), tuple(arm.ranges.split(",")))
    return made.model_copy(update={"name": f"{recipe.name} {arm.label} alone"})


def _look(recipe: Recipe, items: int) -> Look:
    stage = recipe.stages[0]
    if len(recipe.stages) != 1 or not isinstance(stage, GrpoStage) or stage.steps is None:
        raise UsageError(
            f"{recipe.name} is not one RL stage counted in steps",
            why="arms are compared at equal steps",
        )
    if stage.data and not stage.held_out:
        raise UsageError(
            f"{recipe.name} holds no rows of its data out",
            why="arms are compared on questions that none of them trained on",
            fix=f"--set stages.0.held_out=200 --set stages.0.eval_every={stage.steps}",
        )
    return Look(
        tuple(stage.tasks),
        every=stage.steps,
        items=items,
        max_new_tokens=stage.max_new_tokens,
        data=stage.data,
        held_out=stage.held_out,
        request=request_of(stage),
    )


def _merged(
    recipe: Recipe,
    arm: Hybrid,
    seed: int,
    out: Path,
    look: Look,
    embed: Embed,
    report: Report | None,
) -> pd.DataFrame:
    """What `revert` and `graft` of an arm's layers answer, in memory: no hybrid is written."""
    file = out / "merges" / f"{arm.label}-{seed}.parquet"
    if not file.exists():
        if report:
            report(f"merging {arm.label}, seed {seed}")
        start, end = recipe.model, str(out / "train" / f"{NONE}-{seed}" / "final")
        rows = [_hybrid(start, end, arm, look, embed, recipe).assign(arm=f"graft {arm.label}")]
        rows += [_hybrid(end, start, arm, look, embed, recipe).assign(arm=f"revert {arm.label}")]
        file.parent.mkdir(exist_ok=True)
        write_parquet(pd.concat(rows, ignore_index=True).assign(seed=seed), file)
    return pd.read_parquet(file)


def _hybrid(
    base: str, donor: str, arm: Hybrid, look: Look, embed: Embed, recipe: Recipe
) -> pd.DataFrame:
    recipe_of_hybrid = recipe_from_options([base, donor], layers=arm.ranges)
    loaded = load(base, device=recipe.device, dtype=recipe.dtype)
    with graft(loaded.model, plan_merge(recipe_of_hybrid, open_all(recipe_of_hybrid))):
        return look_at(loaded, look, embed)


def _summary(answers: pd.DataFrame, arms: Sequence[Hybrid], trained: str) -> pd.DataFrame:
    """Every arm and kind: `value`, `minus_none` (what is lost against plain RL) and `minus_start`
    (what is gained).
    """
    names = {NONE: (NONE, ""), START: (START, "")}
    for arm in arms[1:]:
        names |= {arm.label: (arm.label, trained)}
        names |= {f"{kind} {arm.label}": (arm.label, kind) for kind in KINDS[2:]}
    lost = summarise(answers, list(names), baseline=NONE)
    gained = summarise(answers, list(names), baseline=START)
    table = lost.rename(columns={f"minus_{end}": f"minus_none_{end}" for end in ("low", "high")})
    table = table.rename(columns={"minus_baseline": "minus_none"})
    for column, end in (("minus_baseline", ""), ("minus_low", "_low"), ("minus_high", "_high")):
        table[f"minus_start{end}"] = gained[column]
    layers = {arm.label: arm.ranges for arm in arms[1:]}
    control = {arm.label: arm.control for arm in arms}
    table.insert(0, "kind", [names[name][1] for name in table["arm"]])
    table["arm"] = [names[name][0] for name in table["arm"]]
    table.insert(2, "layers", [layers.get(name, "") for name in table["arm"]])
    table.insert(3, "control", [control.get(name, False) for name in table["arm"]])
    return table


def _cost(
    arms: Sequence[Hybrid], seeds: Sequence[int], out: Path, updates: pd.DataFrame
) -> pd.DataFrame:
    """Per arm: parameters that train, bytes of AdamW's two moments, and CPU seconds an update (the
    mean over seeds).
    """
    rows = []
    for arm in arms:
        proof = TrainingRun(out / "train" / f"{arm.label}-{seeds[0]}").proofs[0]
        trained = sum(row.parameters for row in proof.table if not row.frozen)
        mine: pd.DataFrame = (
            updates[updates["arm"] == arm.label].groupby("seed")[["cpu_seconds", "step"]].max()
        )
        seconds = float((mine["cpu_seconds"] / mine["step"]).mean())
        rows.append(
            {
                "arm": arm.label,
                "layers": arm.ranges,
                "trained_parameters": trained,
                "optimizer_bytes": 8 * trained,
                "cpu_seconds_per_update": seconds,
            }
        )
    return pd.DataFrame(rows)


def _random_arms(name: str, depth: int, size: int, seed: int) -> list[Hybrid]:
    count = name.partition(":")[2] or "1"
    if not count.isdecimal() or not 1 <= int(count) <= 20:
        raise UsageError(f"cannot read the arm {name}", fix="write random:3")
    known = [tuple(range(*span)) for span in thirds(depth).values()]
    sets = random_sets(depth, size, int(count), seed=seed, without=known)
    return [Hybrid(f"random-{n}", layers, control=True) for n, layers in enumerate(sets, 1)]


def depth_of(recipe: Recipe) -> int:
    """Text layers of the checkpoint that the recipe starts from."""
    return open_checkpoint(recipe.model).depths["text"]
