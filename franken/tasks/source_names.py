"""How a source of questions is named: one text, so that a run can record it and ask the same
questions again.

    NAME                a benchmark of `franken.tasks.layouts` (mathvista, gsm8k, …) from the local
                        cache of the hub
    NAME=PATH           the same from a local file or folder of Parquet, CSV, TSV, JSONL or JSON
    PATH                a folder of image pairs (*/data.jsonl) or of AlgoPuzzleVQA (<type>.json), or
                        a table whose columns are recognised
    PATH+choice         AlgoPuzzleVQA with its options shown: the answer is a letter, the tasks are
                        clock+choice, …
    OWNER/NAME          any data set of the hub, from the local cache
    …#question=prompt,answer=gold      with a column map (see `Layout`); `split=` and `config=`
                                       choose among several
"""

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import yaml

from franken.contents import of_path
from franken.errors import UsageError
from franken.tasks import algopuzzlevqa_items
from franken.tasks.layouts import BENCHMARKS, Layout, layout_named, layout_of

CHOICE = "+choice"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class Source(NamedTuple):
    """A parsed source: what it is called, a local path or a hub id, the layout as far as it is
    known, and what the column map says over the one that is recognised.
    """

    name: str
    path: Path | None
    hub: str
    split: str
    config: str
    layout: Layout | None
    choice: bool = False
    columns: Mapping[str, str] = MappingProxyType({})


def canonical(data: str | Path, columns: str = "") -> str:
    """The text that names a source, with absolute paths and the column map (`a=b,c=d` or a YAML
    file) inside.

    Raises UsageError when nothing of that name exists.
    """
    text = str(data)
    if "://" in text:
        why = "data are files, or a set of the hub by its name"
        raise UsageError(f"no data {text!r}", why, "download it, and give --data its folder")
    base, _, inline = text.partition("#")
    pairs = {**_pairs(inline), **(_column_map(columns) if columns else {})}
    name, equals, path = base.partition("=")
    if _with_choice(base):
        base = f"{_existing(base.removesuffix(CHOICE))}{CHOICE}"
    elif equals:
        layout_named(name)
        base = f"{name.lower()}={_existing(path)}"
    elif Path(base).exists():
        base = str(Path(base).resolve())
    elif base.lower() in BENCHMARKS:
        base = base.lower()
    elif not HUB_ID.fullmatch(base):
        raise UsageError(
            f"no data {base!r}",
            f"it is no path, no hub id, and no benchmark ({', '.join(BENCHMARKS)})",
            "check --data",
        )
    layout_of(pairs)
    return base + ("#" + ",".join(f"{k}={v}" for k, v in sorted(pairs.items())) if pairs else "")


def parse(spec: str) -> Source:
    """The source that a canonical text names."""
    base, _, inline = spec.partition("#")
    pairs = _pairs(inline)
    if _with_choice(base):
        folder = Path(base.removesuffix(CHOICE))
        return Source(folder.name, folder, "", "", "", None, choice=True)
    name, _, path = base.partition("=") if "=" in base else ("", "", base)
    if name or Path(path).exists():
        layout = layout_of(pairs, layout_named(name)) if name else None
        split = pairs.get("split", "")
        return Source(name or Path(path).stem, Path(path), "", split, "", layout, columns=pairs)
    name = (
        base
        if base in BENCHMARKS
        else next((n for n, b in BENCHMARKS.items() if b.hub == base), "")
    )
    layout = layout_of(pairs, BENCHMARKS[name]) if name else None
    split, config = (layout or layout_of(pairs)).split, (layout or layout_of(pairs)).config
    known = BENCHMARKS[base].hub if base in BENCHMARKS else base
    called = name or base.rpartition("/")[2]
    return Source(called, None, known, split, config, layout, columns=pairs)


def contents(spec: str) -> str | None:
    """A fingerprint of what a local source holds, which a run is known by; None for one of the hub,
    known by its name.

    Of a folder every file counts; of a file that names images elsewhere, the file alone.
    """
    path = parse(spec).path
    return of_path(path) if path is not None else None


def _existing(path: str) -> Path:
    if not Path(path).exists():
        raise UsageError(f"no data in {path!r}", "there is no such file or folder", "check --data")
    return Path(path).resolve()


def _pairs(text: str) -> dict[str, str]:
    """`a=b,c=d` as a map."""
    pieces = [p for p in text.split(",") if p.strip()]
    for piece in pieces:
        if "=" not in piece:
            raise UsageError(
                f"{piece!r} names no column",
                "a map is written question=COLUMN,answer=COLUMN",
                "check --columns",
            )
    return {key.strip(): value.strip() for key, _, value in (p.partition("=") for p in pieces)}


def _column_map(columns: str) -> dict[str, str]:
    """A column map from the command line: pairs, or a YAML file of the same keys."""
    if not columns.endswith((".yaml", ".yml")):
        return _pairs(columns)
    try:
        content = yaml.safe_load(Path(columns).read_text())
    except (OSError, yaml.YAMLError) as e:
        raise UsageError(f"{columns} cannot be read", str(e), "check --columns") from e
    if not isinstance(content, dict) or not all(
        isinstance(v, str | int | float) for v in content.values()
    ):
        raise UsageError(
            f"{columns} is no column map",
            "it should map keys to column names",
            "write question: COLUMN",
        )
    return {str(k): str(v) for k, v in content.items()}


def _with_choice(base: str) -> bool:
    """Whether a source asks for the options of AlgoPuzzleVQA; a path that ends in the same letters
    is that path.
    """
    folder = base.removesuffix(CHOICE)
    return (
        folder != base and not Path(base).exists() and algopuzzlevqa_items.is_folder(Path(folder))
    )
