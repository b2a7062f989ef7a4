"""docs/troubleshooting.md quotes errors as they are printed: each must be in the source, or the
page has rotted.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"
FOREIGN = "## Not franken's words"


def templates(node: ast.expr | None) -> set[str]:
    """What an expression can print, with `…` for everything that is filled in; both branches of a
    condition.
    """
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return {node.value}
    if isinstance(node, ast.JoinedStr):
        return {
            re.sub(
                r"…+",
                "…",
                "".join(v.value if isinstance(v, ast.Constant) else "…" for v in node.values),
            )
        }
    if isinstance(node, ast.IfExp):
        return templates(node.body) | templates(node.orelse)
    return set()


def calls_of(*names: str) -> Iterator[ast.Call]:
    """Every call of these functions in franken and trainer."""
    files = [path for package in ("franken", "trainer") for path in (ROOT / package).rglob("*.py")]
    nodes = (node for path in files for node in ast.walk(ast.parse(path.read_text())))
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
            yield node


def printed() -> set[str]:
    """The first words of every error that franken and trainer raise by name."""
    calls = calls_of(
        *("FrankenError", "UsageError", "VerificationError", "RewardError", "Unusable", "Refused")
    )
    told = {text for call in calls if call.args for text in templates(call.args[0])}
    return told | {f"unknown {what} …" for what in unknown_kinds()}


def unknown_kinds() -> set[str]:
    """What `unknown` and `check_known` say is not known, by the first words of their calls."""
    return {text for call in calls_of("unknown", "check_known") for text in templates(call.args[0])}


def symptoms() -> list[str]:
    own = PAGE.read_text().partition(FOREIGN)[0]
    return re.findall(r"^### `(.+)`$", own, re.M)


def test_every_symptom_is_one_that_the_code_prints():
    assert sorted(set(symptoms()) - printed()) == []


def test_the_page_is_a_page_of_errors():
    found = symptoms()
    assert len(found) == len(set(found)) >= 30
    own, _, foreign = PAGE.read_text().partition(FOREIGN)
    assert own.count("\n### ") == len(found), "a heading without backticks"
    assert all(
        word in foreign
        for word in ("torchvision", "out of memory", "No space left", "MPS", "OFFLINE")
    )
    entries = re.split(r"^### .+$", own, flags=re.M)[1:]
    assert all(len(entry.split("##")[0].split()) >= 5 for entry in entries), (
        "an entry without a cause or a fix"
    )


def test_a_symptom_that_nobody_prints_is_seen():
    assert templates(ast.parse('f"no {a}{b} in {c}"').body[0].value) == {"no … in …"}  # pyright: ignore
    assert templates(ast.parse('"x" if a else f"y {a}"').body[0].value) == {"x", "y …"}  # pyright: ignore
    assert "no checkpoint in …" not in printed()
