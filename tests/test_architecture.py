"""The directions of imports, drawn from the source; and that help needs nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEVELS = [
    {"errors", "distribution"},
    {"plugins", "secrets", "bounds"},
    {"layers", "names", "contents", "devices", "files", "outputs", "yaml_files"},
    {"headers", "configs"},
    {"soundness", "companions", "experts"},
    {"stats", "lock", "checkpoints", "selection"},
    {"runs", "adapters"},
    {"models", "endpoints"},
    {"tasks"},
    {"generate"},
    {"probe", "diff", "merge", "evaluate", "forks"},
    {"organisms"},
    {"study", "report", "doctor"},
    {"trainer"},
    {"console"},
    {"cli", "face"},
    {"franken"},
]
RANK = {name: rank for rank, names in enumerate(LEVELS) for name in names}
SIDEWAYS = {
    ("evaluate", "merge"),
    ("merge", "diff"),
    ("forks", "evaluate"),
    ("study", "report"),
    ("layers", "errors"),
}
"""Arrows between rooms of one level. `franken` is the package itself, `face` its public functions:
they stand beside the command line, and `franken` finds them by name when they are used."""
CYCLES_ALLOWED = {
    "franken.probe.methods": "`probe --dry-run` plans without torch: a method imports what it runs"
}
"""Packages whose imports inside functions may close a circle, each with its light path."""


def room(module: str) -> str:
    parts = [part for part in module.split(".") if part != "__init__"]
    return "trainer" if parts[0] == "trainer" else parts[1] if len(parts) > 1 else "franken"


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


def modules() -> dict[str, Path]:
    """Module name → its file; a package is called by its name."""
    files = [*ROOT.glob("franken/**/*.py"), *ROOT.glob("trainer/**/*.py")]
    names = {file: file.relative_to(ROOT).with_suffix("").parts for file in files}
    return {".".join(p[:-1] if p[-1] == "__init__" else p): file for file, p in names.items()}


def imports_of(node: ast.AST, known, *, local=False):
    """(module, whether inside a function) of every import, those for type checkers left out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.ImportFrom) and child.module:
            for alias in child.names:
                full = f"{child.module}.{alias.name}"
                yield full if full in known else child.module, local
        elif isinstance(child, ast.Import):
            yield from ((alias.name, local) for alias in child.names)
        inside = local or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        yield from imports_of(child, known, local=inside)


def import_graph(files: dict[str, Path]) -> dict[str, dict[str, bool]]:
    """Module → what it imports, packages around that included → whether only inside functions."""

    def packages(name: str) -> set[str]:
        parts = name.split(".")
        return {".".join(parts[:n]) for n in range(1, len(parts))}

    graph: dict[str, dict[str, bool]] = {name: {} for name in files}
    for name, file in files.items():
        for target, local in imports_of(ast.parse(file.read_text()), files):
            around = {target, *packages(target)} - {name, *packages(name)}
            for module in around & files.keys():
                graph[name][module] = graph[name].get(module, True) and local
    return graph


def hidden_cycles(graph: dict[str, dict[str, bool]]) -> list[tuple[str, str]]:
    """Imports inside functions that would close a circle if every import stood at the top."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            fresh = graph.get(todo.pop(), {}).keys() - seen
            seen |= fresh
            todo += fresh
        return seen

    local = [(a, b) for a, targets in graph.items() for b, is_local in targets.items() if is_local]
    return [(a, b) for a, b in local if a in reached(b)]


def test_no_import_inside_a_function_hides_a_cycle():
    hidden = [
        f"{a} imports {b}, which imports it again"
        for a, b in hidden_cycles(import_graph(modules()))
        if a.rpartition(".")[0] not in CYCLES_ALLOWED
    ]
    assert not hidden, hidden


def test_a_hidden_cycle_is_seen(tmp_path):
    files = {name: tmp_path / f"{name}.py" for name in "abc"}
    files["a"].write_text("import b\n")
    files["b"].write_text("import c\n")
    files["c"].write_text("def late():\n    import a\n\ndef other():\n    import json\n")
    assert hidden_cycles(import_graph(files)) == [("c", "a")]
    files["c"].write_text("if TYPE_CHECKING:\n    import a\n")
    assert hidden_cycles(import_graph(files)) == []


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
        "heavy = {'torch', 'transformers', 'mergekit', 'pandas'} & set(sys.modules);"
        "print(heavy, file=sys.stderr);"
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
