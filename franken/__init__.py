"""What does RL really change in a vision-language model? Probe, diff, merge, freeze, train.

    franken.load("creature:sft")                            a checkpoint in memory
    franken.probe("creature:sft", samples=20)               where it sees, where it reasons
    franken.diff("base", "sft", "rl")                       what training changed
    franken.forks("sft", "rl", samples=20)                  where two models part, token by token
    franken.merge("sft", "rl", layers="16-28", out="h")     a hybrid, every tensor verified
    franken.evaluate("sft", "rl", tasks=["count"])          how good, how varied, from what
    franken.train("creature-rl", "runs/rl")                 SFT, GRPO, MUPO
    franken.load_runs("runs")                               all that was measured, as one table

They are what the command line does, without its printing, and give run folders as objects. Nothing
is imported before it is used. `franken.probe`, `diff`, `merge`, `evaluate` and `forks` are packages
and can be called: `franken.diff(...)` compares, `franken.diff.metrics` is a module; their help is
that of `franken.face`.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from inspect import Signature, signature
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from franken.face.diff import diff as diff
    from franken.face.evaluate import evaluate as evaluate
    from franken.face.forks import forks as forks
    from franken.face.merge import merge as merge
    from franken.face.probe import probe as probe
    from franken.face.train import train as train
    from franken.models.loading import load as load
    from franken.runs.runset import load_runs as load_runs

FACE = {
    "load": "franken.models.loading",
    "probe": "franken.face.probe",
    "diff": "franken.face.diff",
    "merge": "franken.face.merge",
    "evaluate": "franken.face.evaluate",
    "forks": "franken.face.forks",
    "train": "franken.face.train",
    "load_runs": "franken.runs.runset",
}
"""Public function → the module that has it."""
PACKAGES = ("probe", "diff", "merge", "evaluate", "forks")
"""The public functions whose name is that of a package."""


def _function(name: str) -> Callable[..., object]:
    return getattr(import_module(FACE[name]), name)


class _Verb(ModuleType):
    """A package that can be called as the public function of its name."""

    def __call__(self, *arguments: object, **options: object) -> object:
        return _function(self.__name__.rpartition(".")[2])(*arguments, **options)

    @property
    def __signature__(self) -> Signature:
        return signature(_function(self.__name__.rpartition(".")[2]))


class _Franken(ModuleType):
    """This package: it finds its public functions when they are first used.

    The import system binds a package as an attribute of its parent once it is imported, so that
    `franken.diff` would be the function before and the package afterwards. It is the package
    always, made callable.
    """

    def __getattr__(self, name: str) -> object:
        if name in PACKAGES:
            return import_module(f"franken.{name}")
        if name in FACE:
            return _function(name)
        raise AttributeError(f"module 'franken' has no attribute {name!r}")

    def __setattr__(self, name: str, value: object) -> None:
        if name in PACKAGES and isinstance(value, ModuleType):
            value.__class__ = _Verb
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *FACE})


sys.modules[__name__].__class__ = _Franken
