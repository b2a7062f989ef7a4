"""The directions of imports, drawn from the source; and that help needs nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEVELS = [
    {"errors"},
    {"plugins"},
    {"layers", "names", "contents"},
    {"stats", "lock", "checkpoints", "selection"},
    {"runs", "adapters"},
    {"models"},
    {"tasks"},
    {"generate"},
    {"probe", "diff", "merge", "evaluate"},
    {"study", "report", "doctor"},
    {"trainer"},
    {"console"},
    {"cli"},
]
RANK = {name: rank for rank, names in enumerate(LEVELS) for name in names}
SIDEWAYS = {("evaluate", "merge"), ("study", "report"), ("layers", "errors")}


def room(module: str) -> str:
    parts = module.split(".")
    return "trainer" if parts[0] == "trainer" else parts[1] if len(parts) > 1 else "errors"


def arrows():
    for file in sorted([*ROOT.glob("franken/**/*.py"), *ROOT.glob("trainer/**/*.py")]):
        source = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [
                    f"{node.module}.{a.name}" if node.module == "franken" else node.module
                    for a in node.names
                ]
            elif isinstance(node, ast.Import):
                names = [a.name for a in node.names]
            else:
                continue
            for name in names:
                if name.split(".")[0] in ("franken", "trainer") and name != "franken":
                    yield source, name, node.col_offset


def test_imports_run_downwards_only():
    upwards = []
    for source, target, column in arrows():
        a, b = room(source), room(target)
        lazily_resolved = (a, b) == (
            "checkpoints",
            "models",
        ) and column > 0  # creature:base, asked for by name only
        if a != b and (a, b) not in SIDEWAYS and not lazily_resolved and RANK[b] >= RANK[a]:
            upwards.append(f"{source} imports {target}")
    assert not upwards


def test_every_room_has_a_level():
    assert {room(source) for source, _, _ in arrows()} <= set(RANK)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["merge", "creature:base", "creature:sft", "--layers", "2-4", "--dry-run"],
        ["merge", "creature:base", "creature:sft", "--layers", "2-4", "--out", "OUT"],
        ["diff", "creature:base", "creature:sft", "--dry-run"],
    ],
)
def test_light_commands_import_nothing_heavy(arguments, tmp_path):
    arguments = [str(tmp_path / "out") if a == "OUT" else a for a in arguments]
    code = (
        "import sys; from franken.cli import run_command; code = run_command(sys.argv[1:], False);"
        "heavy = {'torch', 'transformers', 'mergekit', 'pandas'} & set(sys.modules); print(heavy, file=sys.stderr);"
        "sys.exit(code or bool(heavy))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr


def test_no_prints_and_no_network_hosts_in_the_library():
    for file in [*ROOT.glob("franken/**/*.py"), *ROOT.glob("trainer/**/*.py")]:
        calls = [n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Call)]
        prints = [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]
        assert not prints or file.name == "console.py" or file.parent.name == "cli", file
