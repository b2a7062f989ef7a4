"""Recipes as files: YAML of a model and a list of stages, before it is validated.

    extends: creature-grpo                  another recipe, some of whose keys are set anew
    name: creature-grpo-entropy
    stages.0.entropy_bonus: 0.03            a path, as in --set

A file of the package may also hold several recipes, one for each choice of `variants`; its name and
the comment at its top are then patterns:

    # MUPO with Qwen2.5-VL-{size}.
    name: mupo-{size}
    variants:
      size:
        3B: {model: Qwen/Qwen2.5-VL-3B-Instruct, stages.0.sample_batch: 8}

`{examples}` at the start of a value is the folder of the package's example rows.

Nothing here imports torch: naming recipes costs no more than reading them.
"""

import copy
import itertools
from functools import cache
from importlib import resources
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from franken.errors import UsageError, unknown
from franken.yaml_files import parse_yaml, read_yaml

SYSTEMS = "systems"  # the folder of recipes after published systems
Raw = dict[str, Any]  # a recipe as YAML has it


class _Entry(NamedTuple):
    """A recipe of the package, resolved, and what it says about itself."""

    raw: Raw
    description: str


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(_built_in())


def recipe_groups() -> dict[str, list[str]]:
    """The recipes' names under what they are: the creature's, those of the papers that this project
    follows, published systems.
    """
    systems = resources.files("trainer") / "recipes" / SYSTEMS
    heads = tuple(file.name.removesuffix(".yaml") for file in systems.iterdir())
    groups: dict[str, list[str]] = {"the creature": [], "papers and data": [], "systems": []}
    for name in recipe_names():
        system = name.startswith(heads)
        own = name.startswith("creature")
        groups["systems" if system else "the creature" if own else "papers and data"].append(name)
    return groups


def describe(name: str) -> str:
    """What a built-in recipe says about itself: the first sentence of the comment at its top."""
    return _built_in()[name].description


def read_recipe(path_or_name: str | Path, overrides: tuple[str, ...] = ()) -> Raw:
    """A recipe of a file, or one of the package's by name, with `overrides` (`key=value`) set.
    Raises UsageError.
    """
    path = Path(path_or_name)
    if path.suffix in (".yaml", ".yml"):
        raw = _mapping(read_yaml(path), str(path))
        if "extends" in raw:
            raw = _extended(_raw(str(raw.pop("extends"))), raw)
    else:
        raw = _raw(str(path_or_name))
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise UsageError(
                f"cannot read --set {override}",
                why="it has no =",
                fix="write --set stages.0.steps=5",
            )
        _assign(raw, key, parse_yaml(value, f"--set {override}"), f"--set {override}")
    return raw


def _raw(name: str) -> Raw:
    """A copy of a built-in recipe. Raises UsageError."""
    built_in = _built_in()
    if name not in built_in:
        raise unknown("recipe", name, recipe_names(), fix="give a .yaml file")
    return copy.deepcopy(built_in[name].raw)


@cache
def _built_in() -> dict[str, _Entry]:
    """The package's recipes by name: files as they are, then variants, then those that extend."""
    entries: dict[str, _Entry] = {}
    waiting: list[_Entry] = []
    folder = resources.files("trainer") / "recipes"
    files = [*folder.iterdir(), *(folder / SYSTEMS).iterdir()]
    for file in sorted((f for f in files if f.is_file()), key=lambda f: f.name):
        text = file.read_text()
        text = text.replace("{examples}", str(resources.files("trainer") / "examples"))
        raw = _mapping(parse_yaml(text, file.name), file.name)
        comment = takewhile(lambda line: line.startswith("#"), text.splitlines())
        description = " ".join(line.lstrip("# ") for line in comment).split(". ")[0].rstrip(".")
        if "extends" in raw:
            waiting.append(_Entry(raw, description))
        else:
            entries |= {e.raw["name"]: e for e in _variants(raw, description)}
    while waiting:  # a base may extend another
        ready = [entry for entry in waiting if entry.raw["extends"] in entries]
        assert ready, f"nothing to extend for {[entry.raw['name'] for entry in waiting]}"
        waiting = [entry for entry in waiting if entry not in ready]
        for raw, description in ready:
            base = copy.deepcopy(entries[raw.pop("extends")].raw)
            entries[raw["name"]] = _Entry(_extended(base, raw), description)
    return entries


def _variants(raw: Raw, description: str) -> list[_Entry]:
    """One entry for every choice along the axes of `variants`; the recipe itself where there are
    none.
    """
    axes: dict[str, dict[str, Raw]] = raw.pop("variants", {})
    if not axes:
        return [_Entry(raw, description)]
    entries = []
    for choice in itertools.product(*axes.values()):
        words = dict(zip(axes, choice, strict=True))
        variant = copy.deepcopy(raw)
        for axis, option in words.items():
            variant = _extended(variant, copy.deepcopy(axes[axis][option]))
        variant["name"] = raw["name"].format(**words).lower()
        entries.append(_Entry(variant, description.format(**words)))
    return entries


def _extended(base: Raw, changes: Raw) -> Raw:
    """The base with keys, which may be paths, set anew."""
    for path, value in changes.items():
        _assign(base, str(path), value, str(path))
    return base


def _mapping(raw: object, source: str) -> Raw:
    if not isinstance(raw, dict):
        raise UsageError(
            f"{source} is not a recipe", why="a recipe is a mapping with name, model and stages"
        )
    return raw


def _assign(raw: Raw, path: str, value: object, source: str) -> None:
    """Set `stages.0.steps` of a recipe. Raises UsageError that names the `source` of the path."""
    at: Any = raw
    *parents, last = path.split(".")
    try:
        for key in parents:
            at = at[int(key)] if isinstance(at, list) else at[key]
        at[int(last) if isinstance(at, list) else last] = value
    except (KeyError, IndexError, ValueError, TypeError) as e:
        raise UsageError(f"{source} points nowhere", why=f"the recipe has no {path}") from e
