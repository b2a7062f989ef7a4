"""The committed notebooks: run to the end, small, and nothing in them or in their stored runs tells
of a machine.

That they still run is checked by nbmake (`make test`); here only what is committed is read.
"""

import json
import re
import socket
from pathlib import Path

import pytest

ANALYSES = Path(__file__).parents[1] / "analyses"
NOTEBOOKS = sorted(ANALYSES.glob("*.ipynb"))
HEAVY = "07"  # the only one that may import torch: a kernel takes twenty seconds for it
PATH = re.compile(
    r"(?<![\w.:/<*])/(?:home|root|tmp|work|Users|mnt|srv|opt|usr|var|workspace|private|data|content)/|[A-Z]:\\\\|file://"
)


def texts(node) -> list[str]:
    """All strings in a notebook or manifest, pictures left out."""
    if isinstance(node, str):
        return [node]
    if isinstance(node, dict):
        return [
            t for key, value in node.items() if not key.startswith("image/") for t in texts(value)
        ]
    return [t for item in node for t in texts(item)] if isinstance(node, list) else []


def tells(text: str) -> str | None:
    """What in a text names a machine: an absolute path, this host, this checkout, this home."""
    found = PATH.search(text)
    names = [
        n
        for n in (socket.gethostname(), str(Path.home()), str(ANALYSES.parent))
        if len(n) > 5 and n != "localhost"
    ]
    return found[0] if found else next((n for n in names if n in text), None)


def test_the_guard_itself_sees_paths():
    assert tells("saved to /home/ann/x.png")
    assert tells("FileNotFoundError: '/tmp/a'")
    assert not tells("../../../rl, runs/eval/sft, https://example.org/home/x, and/or")


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: n.name)
def test_a_notebook_was_run_to_the_end_and_is_small(notebook):
    cells = json.loads(notebook.read_text())["cells"]
    code = [c for c in cells if c["cell_type"] == "code"]
    assert notebook.stat().st_size < 400_000
    assert [c["execution_count"] for c in code] == list(range(1, len(code) + 1))
    assert not [o for c in code for o in c["outputs"] if o["output_type"] == "error"]
    assert not [o for c in code for o in c["outputs"] if o.get("name") == "stderr"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: n.name)
def test_a_notebook_says_question_method_finding_and_limits(notebook):
    prose = "\n".join(
        "".join(c["source"])
        for c in json.loads(notebook.read_text())["cells"]
        if c["cell_type"] == "markdown"
    )
    for heading in ("**Question.**", "**Method.**", "## The finding", "## What not to conclude"):
        assert heading in prose
    assert re.search(r"arXiv \d{4}\.\d{5}", prose)
    assert re.match(r"# \d\d · ", prose)
    assert len(re.findall(r"(?m)^# ", prose)) == 1


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: n.name)
def test_a_notebook_imports_nothing_heavy_and_reads_franken_runs(notebook):
    source = "\n".join(
        "".join(c["source"])
        for c in json.loads(notebook.read_text())["cells"]
        if c["cell_type"] == "code"
    )
    if not notebook.name.startswith(HEAVY):
        assert not re.search(r"import (torch|transformers|nnsight|transformer_lens)", source)
        assert "FRANKEN_RUNS" in source


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: n.name)
def test_a_notebook_tells_nothing_of_the_machine(notebook):
    for text in texts(json.loads(notebook.read_text())):
        assert not tells(text), text[:200]


def test_the_stored_runs_are_small_complete_and_tell_nothing_of_the_machine():
    import pandas as pd

    from franken.runs import load_runs

    stored = ANALYSES / "runs"
    assert sum(f.stat().st_size for f in stored.rglob("*") if f.is_file()) < 3_000_000
    assert {"probe", "diff", "eval", "merge-sweep"} <= set(load_runs(stored)["verb"])
    for file in stored.rglob("*.json"):
        for text in texts(json.loads(file.read_text())):
            assert not tells(text), (file.name, text)
    for file in stored.rglob("*.parquet"):
        table = pd.read_parquet(file)
        for column in table.select_dtypes(["object", "string"]):
            for text in {t for t in table[column].dropna() if isinstance(t, str)}:
                assert not tells(text), (file.name, text)
