"""What the steps of a study do: verbs of franken, each of which writes its own command line.

A step is its command line: `argv` is what is shown, what runs, and what a stored result is keyed
by. The fields say the same in types, for the estimate of what it takes (franken/study/cost.py).
A word `@STEP` stands for the run folders of another step, which are known once that has run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

READS = "@"  # before the id of a step whose run folders a word stands for


@dataclass(frozen=True, kw_only=True)
class Questions:
    """The options that evaluations and probes share: what is asked, how, and where the run goes."""

    out: str
    tasks: tuple[str, ...]
    samples: int
    seed: int
    data: str | None = None
    max_new_tokens: int = 64
    device: str = "auto"
    dtype: str = "auto"

    @property
    def options(self) -> tuple[str, ...]:
        """As words of the command line."""
        return (
            *(("--tasks", ",".join(self.tasks)) if self.tasks else ()),
            *("--samples", str(self.samples), "--seed", str(self.seed)),
            *(("--data", self.data) if self.data else ()),
            *("--max-new-tokens", str(self.max_new_tokens)),
            *("--device", self.device, "--dtype", self.dtype, "--out", self.out),
        )


@dataclass(frozen=True, kw_only=True)
class Evaluation(Questions):
    """`franken eval`: one model, or one hybrid, `layers` of `donor` in `model`, held in memory."""

    verb: ClassVar = "eval"
    model: str
    label: str
    n: int
    k: tuple[int, ...] = (1,)
    arms: tuple[str, ...] = ("image",)
    batch_size: int = 64
    donor: str = ""
    layers: str = ""

    @property
    def argv(self) -> tuple[str, ...]:
        """The words after `franken`."""
        graft = ("--graft", f"{self.label}={self.donor}:{self.layers}")
        return (
            *(self.verb, self.model, *(graft if self.donor else ("--label", self.label))),
            *("--n", str(self.n), "--k", ",".join(map(str, self.k)), "--arms", ",".join(self.arms)),
            *(*self.options, "--batch-size", str(self.batch_size), "--no-compare"),
        )


@dataclass(frozen=True, kw_only=True)
class Hybrids(Questions):
    """`franken eval`: several hybrids of one model, which is loaded once; `grafts` as `--graft`
    has them.
    """

    verb: ClassVar = "eval"
    model: str
    grafts: tuple[str, ...]
    take: tuple[str, ...] = ()
    n: int
    k: tuple[int, ...] = (1,)
    arms: tuple[str, ...] = ("image",)

    @property
    def argv(self) -> tuple[str, ...]:
        """The words after `franken`."""
        grafts = [word for text in self.grafts for word in ("--graft", text)]
        return (
            *(self.verb, self.model, *grafts),
            *(("--take", ",".join(self.take)) if self.take else ()),
            *("--n", str(self.n), "--k", ",".join(map(str, self.k)), "--arms", ",".join(self.arms)),
            *(*self.options, "--no-compare"),
        )


@dataclass(frozen=True, kw_only=True)
class Probing(Questions):
    """`franken probe`: one model, or one against another."""

    verb: ClassVar = "probe"
    model: str
    methods: tuple[str, ...]
    against: str = ""

    @property
    def argv(self) -> tuple[str, ...]:
        """The words after `franken`."""
        methods = ("--method", ",".join(self.methods))
        against = ("--against", self.against) if self.against else ()
        return self.verb, self.model, *against, *methods, *self.options, "--no-figures"


@dataclass(frozen=True, kw_only=True)
class Forking(Questions):
    """`franken forks`: two stages of one model, `model` the earlier and `other` the later, under
    the study's labels.
    """

    verb: ClassVar = "forks"
    model: str
    other: str
    labels: tuple[str, str]
    draws: int
    batch_size: int = 64

    @property
    def argv(self) -> tuple[str, ...]:
        """The words after `franken`."""
        labels = (word for label in self.labels for word in ("--label", label))
        ends = ("--batch-size", str(self.batch_size), "--no-figures")
        draws = ("--draws", str(self.draws))
        return self.verb, self.model, self.other, *labels, *draws, *self.options, *ends


@dataclass(frozen=True, kw_only=True)
class Cutting(Questions):
    """`franken merge-sweep --along`: parts of the update between two checkpoints, and all of it but
    those, beside random parts.
    """

    verb: ClassVar = "merge-sweep"
    model: str
    donor: str
    n: int
    ranks: tuple[int, ...] = (1, 8)
    shares: tuple[float, ...] = (1.0,)

    @property
    def evaluations(self) -> int:
        """Models that answer: parts kept and dropped, random ones beside them, and both ends."""
        return 4 * (len(self.ranks) + len(self.shares)) + 2

    @property
    def argv(self) -> tuple[str, ...]:
        """The words after `franken`."""
        return (
            *(self.verb, self.model, self.donor, "--along", "rank,top,random"),
            *("--ranks", ",".join(map(str, self.ranks))),
            *("--shares", ",".join(f"{share:g}" for share in self.shares)),
            *("--n", str(self.n), *self.options),
        )


@dataclass(frozen=True)
class Diffing:
    """`franken diff` of two or three checkpoints, on one thread: other lanes have the others."""

    verb: ClassVar = "diff"
    checkpoints: tuple[str, ...]
    spectra: bool
    out: str

    @property
    def argv(self) -> tuple[str, ...]:
        """The words after `franken`."""
        spectra = ("--spectra",) if self.spectra else ()
        ends = ("--jobs", "1", "--out", self.out, "--no-figures")
        return self.verb, *self.checkpoints, *spectra, *ends


@dataclass(frozen=True)
class _Reading:
    """A verb that reads the evaluations that other steps make."""

    steps: tuple[str, ...]

    @property
    def runs(self) -> tuple[str, ...]:
        """A word for each of these steps."""
        return tuple(READS + step for step in self.steps)


@dataclass(frozen=True)
class Comparing(_Reading):
    """`franken eval-compare`."""

    verb: ClassVar = "eval-compare"
    seed: int
    out: str

    @property
    def argv(self) -> tuple[str, ...]:
        """The words after `franken`."""
        return self.verb, *self.runs, "--seed", str(self.seed), "--out", self.out, "--no-figures"


@dataclass(frozen=True)
class Scoring(_Reading):
    """`franken m-scores`."""

    verb: ClassVar = "m-scores"
    parent: str
    donor: str
    random: tuple[str, ...]
    out: str

    @property
    def argv(self) -> tuple[str, ...]:
        """The words after `franken`."""
        random = ("--random", ",".join(self.random)) if self.random else ()
        ends = ("--parent", self.parent, "--donor", self.donor, *random, "--out", self.out)
        return self.verb, *self.runs, *ends


@dataclass(frozen=True)
class Process:
    """A command in a process of its own, such as a training run: its words are known when it
    starts, and `is_done` tells whether it is complete. `verb` and `command` are for its record.
    """

    verb: str
    command: str
    words: Callable[[], list[str]]
    is_done: Callable[[], bool]


Verb = Evaluation | Hybrids | Probing | Forking | Cutting | Diffing | Comparing | Scoring
