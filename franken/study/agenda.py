"""What an autopsy does, step by step: settings in, steps out. Nothing is loaded and nothing runs
here.

Every stage is evaluated and probed, the weights are compared, the hybrids are evaluated. Around
that, optional: other arms, attention from reasoning to vision, activation patching (asked for with
`patch`), the M scores of stages and hybrids, and how varied answers are. Steps read each other's
run folders by the ids of the steps that make them (`Step.reads`).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from franken.errors import UsageError, did_you_mean
from franken.runs.record import Study
from franken.study.steps import Step

# what can be left out, in the order in which a budget gives it up, and what is lost with it
OPTIONAL = {
    "patch": "activation patching",
    "scores": "M_vis, M_v2r and M_rea of stages and hybrids",
    "attention": "attention from reasoning to vision, layer by layer",
    "diversity": "how varied answers are, and whether that goes with success",
    "arms": "evaluations without the image: perception or reasoning",
    "spectra": "singular values of the updates",
}
SWITCHES = (*OPTIONAL, "probe", "diff", "hybrids")
M_ARMS = ("text", "black", "black-text")  # with the image's, what the M scores are made from
SWAPS = ("swap-suffix", "swap-single", "zero")
PATCHES = ("patch-residual", "patch-residual-noising")


@dataclass(frozen=True)
class Settings:
    """How much to measure. `samples`: prompts per task in evaluations; `probe_samples`: image pairs
    per task.

    Attention and patching look at one pair at a time and never at more pairs than the probe:
    `attention_samples`,
    `patch_samples`. `score_samples`: prompts per task of the M scores, by default all `samples`.
    `controls`: random layer
    sets of each size beside the hybrids; `without`: names of `SWITCHES` that are switched off;
    `dropped`: of `OPTIONAL` those that a budget gave up.
    """

    tasks: tuple[str, ...] = ()
    samples: int = 100
    n: int = 4
    k: tuple[int, ...] = (1, 4)
    probe_samples: int = 40
    attention_samples: int = 20
    patch_samples: int = 10
    score_samples: int | None = None
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

    def sizes(self) -> dict[str, Any]:
        """How much is measured, as study.json keeps it."""
        names = ("samples", "probe_samples", "n", "k", "arm_draws", "controls", "max_new_tokens")
        found = {
            name: list(v) if isinstance(v := getattr(self, name), tuple) else v for name in names
        }
        found |= {"score_samples": self.scored()} if self.on("scores") else {}
        return found | {
            f"{kind}_samples": self.pairs(kind) for kind in ("attention", "patch") if self.on(kind)
        }

    def scored(self) -> int:
        """Prompts per task in the arms that only the M scores need."""
        return min(self.samples, self.score_samples or self.samples)

    def pairs(self, kind: str) -> int:
        """Image pairs per task of `probe`, `attention` or `patch`."""
        wanted = {"attention": self.attention_samples, "patch": self.patch_samples}
        return min(self.probe_samples, wanted.get(kind, self.probe_samples))


def check_switches(names: Sequence[str]) -> tuple[str, ...]:
    """The names of `--without`. Raises UsageError for one that cannot be switched off."""
    for name in names:
        if name not in SWITCHES:
            why = did_you_mean(name, SWITCHES) or "evaluations of the stages always run"
            raise UsageError(
                f"--without {name}: no such part of an autopsy",
                why,
                f"choose from {', '.join(SWITCHES)}",
            )
    return tuple(dict.fromkeys(names))


def study_steps(study: Study, s: Settings, out: Path, needs: Mapping[str, str]) -> list[Step]:
    """All steps of a study in the order of its page; `needs` maps a label to the step that makes
    its checkpoint.
    """
    make = _Maker(study, s, str(out / "runs"), needs)
    steps = [make.evaluation(label) for label in study.models]
    steps += [make.arms(label) for label in study.stages if s.on("arms")]
    steps += [
        make.probe(label, "probe", SWAPS, "swap,zero", 9.0)
        for label in study.stages
        if s.on("probe")
    ]
    steps += [make.diff()] if s.on("diff") else []
    steps += [make.hybrid(number, label) for number, label in enumerate(study.hybrids)]
    extra = [
        make.probe(label, "attention", ("attention",), "attention", 4.0) for label in study.stages
    ]
    steps += extra if s.on("attention") else []
    extra = [make.probe(label, "patch", PATCHES, "patch", 9.0) for label in study.stages]
    steps += extra if s.on("patch") else []
    if s.on("scores"):
        steps += [make.score_arms(label) for label in study.stages]
        steps += [make.hybrid_arms(number, label) for number, label in enumerate(study.hybrids)]
        steps += [make.scores(steps)]
    steps += [make.diversity()] if s.on("diversity") else []
    return steps


@dataclass(frozen=True)
class _Maker:
    study: Study
    s: Settings
    runs: str
    needs: Mapping[str, str]

    def evaluation(self, label: str) -> Step:
        ks = ",".join(map(str, self.s.k))
        command = f"franken eval {self._typed(label)} --samples {self.s.samples} --n {self.s.n} --k {ks}{self._on()}"
        args = self._eval(label, self.s.n, ["image"]) | {"k": list(self.s.k)}
        return self._step(f"eval-{label}", f"evaluate {label}", "eval", args, command, label, 3.0)

    def arms(self, label: str) -> Step:
        what, names = f"evaluate {label} without the image", ["text", "blind"]
        command = self._arms_command(self._typed(label), self.s.arm_draws, names, self.s.samples)
        args = self._eval(label, self.s.arm_draws, names)
        return self._step(f"arms-{label}", what, "eval", args, command, label, 2.0, kind="arms")

    def score_arms(self, label: str) -> Step:
        """What the M scores need beside the image arm and, where that step runs, the text arm."""
        names = [a for a in M_ARMS if a != "text" or not self.s.on("arms")]
        what = f"evaluate {label} with black images"
        command = self._arms_command(self._typed(label), 1, names, self.s.scored())
        args = self._eval(label, 1, names) | {"samples": self.s.scored()}
        return self._step(f"m-{label}", what, "eval", args, command, label, 2.0, kind="scores")

    def probe(self, label: str, kind: str, methods: Sequence[str], typed: str, cost: float) -> Step:
        args = {
            **self._shared(),
            "model": self.study.models[label],
            "methods": list(methods),
            "task_names": self.study.tasks,
            "samples": self.s.pairs(kind),
        }
        command = f"franken probe {self._typed(label)} --method {typed} --samples {self.s.pairs(kind)}{self._on()}"
        what = {"probe": "probe", "attention": "attention of", "patch": "patch"}[kind]
        optional = "" if kind == "probe" else kind
        return self._step(
            f"{kind}-{label}", f"{what} {label}", "probe", args, command, label, cost, kind=optional
        )

    def diff(self) -> Step:
        stages = {label: self.study.models[label] for label in self.study.stages}
        spectra = self.s.on("spectra")
        command = " ".join(
            ["franken diff", *map(self._typed, stages), *(["--spectra"] if spectra else [])]
        )
        args = {"checkpoints": stages, "spectra": spectra, "out": self.runs}
        return Step(
            "diff",
            "compare the weights",
            "diff",
            args,
            command,
            None,
            tuple(stages.values()),
            self._after(*stages),
        )

    def hybrid(self, number: int, label: str) -> Step:
        what = f"evaluate the hybrid {label}"
        command = f"franken eval HYBRID --samples {self.s.samples} --n {self.s.n} --k {','.join(map(str, self.s.k))}"
        args = self._grafted(label, self.s.n, ["image"]) | {"k": list(self.s.k)}
        return self._hybrid(f"hybrid-{number}", what, args, f"{command}{self._on()}", label, 3.0)

    def hybrid_arms(self, number: int, label: str) -> Step:
        what = f"evaluate the hybrid {label} without the image"
        command = self._arms_command("HYBRID", 1, M_ARMS, self.s.scored())
        args = self._grafted(label, 1, M_ARMS) | {"samples": self.s.scored()}
        return self._hybrid(f"m-hybrid-{number}", what, args, command, label, 2.0, kind="scores")

    def scores(self, steps: Sequence[Step]) -> Step:
        """The M scores of everything that answered in the arms that they need."""
        labels = [*self.study.stages, *self.study.hybrids]
        groups = {
            label: [s.id for s in steps if s.verb == "eval" and s.model == label]
            for label in labels
        }
        args = {
            "groups": groups,
            "parent": self.study.parent,
            "donor": "rl",
            "hybrids": {
                label: hybrid.model_dump(include={"layers", "ranges", "control"})
                for label, hybrid in self.study.hybrids.items()
            },
            "seed": self.s.seed,
            "out": self.runs,
        }
        reads = tuple(i for ids in groups.values() for i in ids)
        hybrid = " HYBRID" if self.study.hybrids else ""
        command = f"franken eval {self._typed(self.study.parent)} {self._typed('rl')}{hybrid} --samples {self.s.scored()}"
        command += f" --n 1 --k 1 --arms {','.join(('image', *M_ARMS))}"
        return Step(
            "scores",
            "M scores",
            "scores",
            args,
            f"{command}{self._on()}",
            reads=reads,
            cost=0.1,
            kind="scores",
        )

    def diversity(self) -> Step:
        labels = [label for label in self.study.models if label in (*self.study.stages, "control")]
        names = "".join(f" --label {label}" for label in labels)
        command = f"franken eval {' '.join(map(self._typed, labels))}{names} --samples {self.s.samples} --n {self.s.n}"
        command += f" --k {','.join(map(str, self.s.k))}{self._on()}"
        args = {"seed": self.s.seed, "out": self.runs}
        reads = tuple(f"eval-{label}" for label in labels)
        what = "how varied the answers are"
        return Step(
            "diversity", what, "compare", args, command, reads=reads, cost=0.2, kind="diversity"
        )

    def _step(
        self,
        name: str,
        what: str,
        verb: str,
        args: Mapping[str, Any],
        command: str,
        label: str,
        cost: float,
        kind: str = "",
    ) -> Step:
        inputs = (self.study.models[label],)
        return Step(
            name, what, verb, args, command, label, inputs, self._after(label), cost, kind=kind
        )

    def _hybrid(
        self,
        name: str,
        what: str,
        args: Mapping[str, Any],
        command: str,
        label: str,
        cost: float,
        kind: str = "",
    ) -> Step:
        parent, ranges = self.study.parent, self.study.hybrids[label].ranges
        merge = f"franken merge {self._typed(parent)} {self._typed('rl')} --layers {ranges} --out HYBRID; "
        inputs = (self.study.models[parent], self.study.models["rl"])
        return Step(
            name,
            what,
            "eval",
            args,
            merge + command,
            label,
            inputs,
            self._after(parent, "rl"),
            cost,
            kind=kind,
        )

    def _shared(self) -> dict[str, Any]:
        s = self.s
        return {
            "seed": s.seed,
            "device": s.device,
            "dtype": s.dtype,
            "data": s.data,
            "max_new_tokens": s.max_new_tokens,
            "out": self.runs,
        }

    def _eval(self, label: str, n: int, arms: Sequence[str]) -> dict[str, Any]:
        known = self.study.models.get(label)
        return {
            **self._shared(),
            "tasks": list(self.study.tasks),
            "samples": self.s.samples,
            "batch_size": self.s.batch_size,
            "models": [known],
            "labels": [label],
            "n": n,
            "k": [1],
            "arms": list(arms),
        }

    def _grafted(self, label: str, n: int, arms: Sequence[str]) -> dict[str, Any]:
        graft = {
            "label": label,
            "donor": self.study.models["rl"],
            "layers": self.study.hybrids[label].ranges,
        }
        args = self._eval(self.study.parent, n, arms)
        del args["labels"]
        return args | {"grafts": [graft]}

    def _arms_command(self, typed: str, n: int, arms: Sequence[str], samples: int) -> str:
        return f"franken eval {typed} --samples {samples} --n {n} --k 1 --arms {','.join(arms)}{self._on()}"

    def _on(self) -> str:
        text = f" --tasks {','.join(self.study.tasks)}" if self.study.tasks else ""
        text += f" --data {shlex.quote(self.s.data)}" if self.s.data else ""
        return f"{text} --seed {self.s.seed}"

    def _typed(self, label: str) -> str:
        return shlex.quote(self.study.models[label])

    def _after(self, *labels: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.needs[x] for x in labels if x in self.needs))
