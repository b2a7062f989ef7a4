"""The probe methods: every file of this folder, and what plugins register. A name is read here and
nowhere else.

A file ends in `register("probe", name, method)` for each spelling of its method, as a plugin does;
importing this package runs them all. In a name, what follows a colon is the method's argument:
`swap-window:3`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence

from franken import plugins
from franken.errors import check_known, unknown
from franken.probe.measured import Measured
from franken.probe.method import Method

with plugins.built_in():
    for _file in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{_file.name}")


def every() -> list[Method]:
    """All methods in the order of registration, each once: those with an argument have none yet."""
    return [_as_method(name) for name in plugins.names("probe")]


def parse(names: Sequence[str], sites: Sequence[str] = ("residual",)) -> tuple[Method, ...]:
    """The methods of some names, each once. Shorthands are spelled out: `swap` is suffix and
    single, `patch` both directions at each of `sites`; what follows a colon holds for each of
    them. Raises UsageError for what is unknown.
    """
    shorthands = {type(m).short: type(m) for m in every()}
    possible = tuple(dict.fromkeys(site for kind in shorthands.values() for site in kind.sites))
    check_known("site", sites, possible)
    spelled: list[str] = []
    for name in names:
        stem, colon, argument = name.partition(":")
        kind = shorthands.get(stem)
        every_one = kind.spelled(sites) if kind else ()
        spelled += [f"{one}{colon}{argument}" for one in every_one] or [name]
    return tuple(get(name) for name in dict.fromkeys(spelled))


def get(name: str) -> Method:
    """The method of one name. Raises UsageError for one that there is not."""
    stem, _, argument = name.partition(":")
    if stem in plugins.names("probe"):
        return _as_method(stem).given(argument)
    methods = every()
    shorthands = dict.fromkeys(type(m).short for m in methods if type(m).spelled(type(m).sites))
    known = list(dict.fromkeys([*(m.example for m in methods), *shorthands]))
    raise unknown("method", name, known)


def defined(linear: int, shared: int) -> list[str]:
    """Names, short where there are short ones, of the built-in methods that are defined for a model
    of which so many layers have linear attention and so many share keys and values.
    """
    names = {
        type(m).short if type(m).spelled(("residual",)) else type(m).short or m.name: m
        for m in every()
        if not (m.needs_second or m.calibrated or m.obstacle(linear, shared))
    }
    return sorted("zero" if name == "ablation" else name for name in names)


def of_rows(name: str) -> Method:
    """The method that a run's rows name. Those of a plugin that is not loaded are read as the
    simple form, whose rows say what was measured.
    """
    known = name.partition(":")[0] in plugins.names("probe")
    return get(name) if known else Measured(name)


def by_class(methods: Sequence[Method]) -> list[list[Method]]:
    """Methods that run, and are drawn, together: those of one class, in the order given."""
    groups: dict[type[Method], list[Method]] = {}
    for method in methods:
        groups.setdefault(type(method), []).append(method)
    return list(groups.values())


def _as_method(name: str) -> Method:
    thing = plugins.find("probe", name)
    return thing if isinstance(thing, Method) else Measured(name, thing)
