"""What an autopsy does, step by step: settings in, steps out. Nothing is loaded, nothing runs.

Every stage is evaluated and probed, the weights are compared, the hybrids are evaluated. Around
that, optional: other arms, attention from reasoning to vision, activation patching (asked for with
`patch`), RL beside what it started from token by token, the M scores of stages and hybrids, and how
varied answers are. Steps read each other's run folders by the ids of the steps that make them
(`Step.reads`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from franken.errors import check_known
from franken.runs.record import Study
from franken.study.steps import Step
from franken.study.verbs import (
    Comparing,
    Cutting,
    Diffing,
    Evaluation,
    Forking,
    Probing,
    Scoring,
    Verb,
)

# what can be left out, in the order in which a budget gives it up, and what is lost with it
OPTIONAL = {
    "patch": "activation patching",
    "surgery": "how little of RL's update is enough, and how little is needed",
    "scores": "M_vis, M_v2r and M_rea of stages and hybrids",
    "stitch": "which layers of RL bring its answers back in SFT",
    "attention": "attention from reasoning to vision, layer by layer",
    "forks": "where in their replies RL and what it started from part, and what that carries",
    "diversity": "how varied answers are, and whether that goes with success",
    "arms": "evaluations without the image: perception or reasoning",
    "spectra": "singular values of the updates",
}
SWITCHES = (*OPTIONAL, "probe", "diff", "hybrids")
M_ARMS = ("text", "black", "black-text")  # with the image's, what the M scores are made from
SWAPS = ("swap-suffix", "swap-single", "zero")
PATCHES = ("patch-residual", "patch-residual-noising")
STITCHES = ("stitch-below", "stitch-above")


@dataclass(frozen=True)
class Settings:
    """How much to measure. `samples`: prompts per task in evaluations; `probe_samples`: image pairs
    per task.

    Attention and patching look at one pair at a time and never at more pairs than the probe:
    `attention_samples`, `patch_samples`, `stitch_samples`. `surgery_samples`: prompts per task of
    the parts of the update; `score_samples`: of the M scores, by default all `samples`;
    `fork_samples` and `fork_draws`: prompts per task and replies of each model that are compared
    token by token.
    `controls`: random layer sets of each size beside the hybrids; `without`: names of `SWITCHES`
    that are switched off; `dropped`: of `OPTIONAL` those that a budget gave up.
    """

    tasks: tuple[str, ...] = ()
    samples: int = 100
    n: int = 4
    k: tuple[int, ...] = (1, 4)
    probe_samples: int = 40
    attention_samples: int = 20
    patch_samples: int = 10
    surgery_samples: int = 40
    stitch_samples: int = 10
    score_samples: int | None = None
    fork_samples: int = 20
    fork_draws: int = 2
    arm_draws: int = 2
    controls: int = 2
    seed: int = 0
    data: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    max_new_tokens: int = 64
    batch_size: int = 64
    without: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    patch: bool = False

    def on(self, name: str) -> bool:
        """Whether this part of the study runs."""
        return name not in (*self.without, *self.dropped) and (name != "patch" or self.patch)

    def sizes(self) -> dict[str, object]:
        """How much is measured, as study.json keeps it."""
        names = ("samples", "probe_samples", "n", "k", "arm_draws", "controls", "max_new_tokens")
        values: dict[str, object] = {name: getattr(self, name) for name in names}
        values["k"] = list(self.k)
        kinds = [kind for kind in ("attention", "patch", "stitch") if self.on(kind)]
        scored = {"score_samples": self.scored()} if self.on("scores") else {}
        scored |= {"fork_samples": self.forked()} if self.on("forks") else {}
        if self.on("surgery"):
            scored["surgery_samples"] = min(self.samples, self.surgery_samples)
        return values | scored | {f"{kind}_samples": self.pairs(kind) for kind in kinds}

    def scored(self) -> int:
        """Prompts per task in the arms that only the M scores need."""
        return min(self.samples, self.score_samples or self.samples)

    def forked(self) -> int:
        """Prompts per task that two stages are compared on token by token."""
        return min(self.samples, self.fork_samples)

    def pairs(self, kind: str) -> int:
        """Image pairs per task of `probe`, `attention`, `patch` or `stitch`."""
        wanted = {"attention": self.attention_samples, "patch": self.patch_samples}
        wanted["stitch"] = self.stitch_samples
        return min(self.probe_samples, wanted.get(kind, self.probe_samples))


def check_switches(names: Sequence[str]) -> tuple[str, ...]:
    """The names of `--without`. Raises UsageError for one that cannot be switched off."""
    fix = "evaluations of the stages always run"
    check_known("part of an autopsy", names, SWITCHES, fix=fix)
    return tuple(dict.fromkeys(names))


def study_steps(study: Study, s: Settings, out: Path, before: Sequence[Step]) -> list[Step]:
    """All steps of a study in the order of its page, which come after those that make its
    checkpoints, `before`.
    """
    make = _Maker(study, s, str(out / "runs"), before)
    steps = [make.evaluation(label) for label in study.models]
    if s.on("arms"):
        steps += [make.arms(label) for label in study.stages]
    if s.on("probe"):
        steps += [make.probe(label, "probe", SWAPS, 9.0) for label in study.stages]
    if s.on("diff"):
        steps.append(make.diff())
    steps += [make.hybrid(number, label) for number, label in enumerate(study.hybrids)]
    if s.on("attention"):
        steps += [make.probe(label, "attention", ("attention",), 4.0) for label in study.stages]
    if s.on("patch"):
        steps += [make.probe(label, "patch", PATCHES, 9.0) for label in study.stages]
    if s.on("stitch") and "sft" in study.stages:
        steps.append(make.probe("rl", "stitch", STITCHES, 6.0, against="sft"))
    if s.on("forks"):
        steps.append(make.forks())
    if s.on("scores"):
        steps += [make.score_arms(label) for label in study.stages]
        steps += [make.hybrid_arms(number, label) for number, label in enumerate(study.hybrids)]
        steps.append(make.scores(steps))
    if s.on("surgery"):
        steps.append(make.surgery())
    if s.on("diversity"):
        steps.append(make.diversity())
    return steps


@dataclass(frozen=True)
class _Maker:
    study: Study
    s: Settings
    runs: str
    before: Sequence[Step]

    def evaluation(self, label: str) -> Step:
        does = self._eval(label, self.s.n, ("image",), k=self.s.k)
        return self._step(f"eval-{label}", f"evaluate {label}", does, label, 3.0)

    def arms(self, label: str) -> Step:
        does = self._eval(label, self.s.arm_draws, ("text", "blind"))
        what = f"evaluate {label} without the image"
        return self._step(f"arms-{label}", what, does, label, 2.0, kind="arms")

    def score_arms(self, label: str) -> Step:
        """What the M scores need beside the image arm and, where that step runs, the text arm."""
        arms = tuple(a for a in M_ARMS if a != "text" or not self.s.on("arms"))
        does = self._eval(label, 1, arms, samples=self.s.scored())
        what = f"evaluate {label} with black images"
        return self._step(f"m-{label}", what, does, label, 2.0, kind="scores")

    def hybrid(self, number: int, label: str) -> Step:
        does = self._eval(label, self.s.n, ("image",), k=self.s.k)
        return self._step(f"hybrid-{number}", f"evaluate the hybrid {label}", does, label, 3.0)

    def hybrid_arms(self, number: int, label: str) -> Step:
        does = self._eval(label, 1, M_ARMS, samples=self.s.scored())
        what = f"evaluate the hybrid {label} without the image"
        return self._step(f"m-hybrid-{number}", what, does, label, 2.0, kind="scores")

    def probe(
        self, label: str, kind: str, methods: tuple[str, ...], weight: float, against: str = ""
    ) -> Step:
        s = self.s
        does = Probing(
            model=self.study.models[label],
            methods=methods,
            against=self.study.models[against] if against else "",
            tasks=tuple(self.study.tasks),
            samples=s.pairs(kind),
            seed=s.seed,
            data=s.data,
            max_new_tokens=s.max_new_tokens,
            device=s.device,
            dtype=s.dtype,
            out=self.runs,
        )
        what = {"attention": "attention of", "stitch": f"stitch {against} and"}.get(kind, kind)
        optional = "" if kind == "probe" else kind
        step = self._step(f"{kind}-{label}", f"{what} {label}", does, label, weight, kind=optional)
        twins = (f"{kind}-{twin}" for twin in self._twins(label))
        if against:  # the second checkpoint is as much its input as the first
            step = replace(step, inputs=(*step.inputs, self.study.models[against]))
            twins = self._after(against)
        return replace(step, needs=(*step.needs, *twins))

    def diff(self) -> Step:
        stages = self.study.stages
        paths = tuple(self.study.models[label] for label in stages)
        does = Diffing(paths, self.s.on("spectra"), self.runs)
        return Step("diff", "compare the weights", does, None, paths, self._after(*stages))

    def forks(self) -> Step:
        """RL beside what it started from, token by token."""
        s, labels = self.s, (self.study.parent, "rl")
        paths = tuple(self.study.models[label] for label in labels)
        does = Forking(
            model=paths[0],
            other=paths[1],
            labels=labels,
            draws=s.fork_draws,
            tasks=tuple(self.study.tasks),
            samples=s.forked(),
            seed=s.seed,
            data=s.data,
            max_new_tokens=s.max_new_tokens,
            batch_size=s.batch_size,
            device=s.device,
            dtype=s.dtype,
            out=self.runs,
        )
        what = f"where {labels[0]} and rl part"
        return Step("forks", what, does, None, paths, self._after(*labels), 2.0, "forks")

    def surgery(self) -> Step:
        """Parts of RL's update, alone and left out."""
        s, labels = self.s, (self.study.parent, "rl")
        paths = tuple(self.study.models[label] for label in labels)
        does = Cutting(
            model=paths[0],
            donor=paths[1],
            n=s.arm_draws,
            tasks=tuple(self.study.tasks),
            samples=min(s.samples, s.surgery_samples),
            seed=s.seed,
            data=s.data,
            max_new_tokens=s.max_new_tokens,
            device=s.device,
            dtype=s.dtype,
            out=self.runs,
        )
        what = "try parts of RL's update"
        return Step("surgery", what, does, None, paths, self._after(*labels), 4.0, "surgery")

    def scores(self, steps: Sequence[Step]) -> Step:
        """The M scores of everything that answered in the arms that they need."""
        labels = (*self.study.stages, *self.study.hybrids)
        evaluations = tuple(s.id for s in steps if s.verb == Evaluation.verb and s.model in labels)
        random = tuple(label for label, hybrid in self.study.hybrids.items() if hybrid.control)
        does = Scoring(evaluations, self.study.parent, "rl", random, self.runs)
        return Step("scores", "M scores", does, weight=0.1, kind="scores")

    def diversity(self) -> Step:
        labels = [x for x in self.study.models if x in (*self.study.stages, "control")]
        does = Comparing(tuple(f"eval-{label}" for label in labels), self.s.seed, self.runs)
        what = "how varied the answers are"
        return Step("diversity", what, does, weight=0.2, kind="diversity")

    def _eval(
        self,
        label: str,
        n: int,
        arms: tuple[str, ...],
        *,
        k: tuple[int, ...] = (1,),
        samples: int | None = None,
    ) -> Evaluation:
        """Of a checkpoint, or of the hybrid of that name."""
        s, hybrid = self.s, self.study.hybrids.get(label)
        return Evaluation(
            model=self.study.models[self.study.parent if hybrid else label],
            label=label,
            donor=self.study.models["rl"] if hybrid else "",
            layers=hybrid.ranges if hybrid else "",
            n=n,
            k=k,
            arms=arms,
            tasks=tuple(self.study.tasks),
            samples=s.samples if samples is None else samples,
            seed=s.seed,
            data=s.data,
            max_new_tokens=s.max_new_tokens,
            batch_size=s.batch_size,
            device=s.device,
            dtype=s.dtype,
            out=self.runs,
        )

    def _step(
        self, name: str, what: str, does: Verb, label: str, weight: float, kind: str = ""
    ) -> Step:
        made_of = (self.study.parent, "rl") if label in self.study.hybrids else (label,)
        inputs = tuple(self.study.models[x] for x in made_of)
        return Step(name, what, does, label, inputs, self._after(*made_of), weight, kind)

    def _twins(self, label: str) -> list[str]:
        """Earlier stages that are the same checkpoint: their probe is this one's too."""
        stages, models = self.study.stages, self.study.models
        return [x for x in stages[: stages.index(label)] if models[x] == models[label]]

    def _after(self, *labels: str) -> tuple[str, ...]:
        return tuple(step.id for label in labels for step in self.before if step.model == label)
