"""Mutation testing: one operator, constant, comparison or boolean of a rule is changed at a time,
and the nearest tests must notice.

    python tests/mutate.py [--only stats] [--sample 20] [--seconds 120] [--seed 0]

One process a module imports everything once. A child is forked for each mutant; it forgets the
project's own modules, imports them anew with the mutated source, and runs first the tests that call
the mutated function, then, if those pass, all of the module's tests. Commands that a test starts as
a process of their own run the true source.
"""

import argparse
import ast
import importlib
import importlib.machinery
import importlib.util
import io
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
QUIET = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=no"]
WARM = (  # slow to import, and the same for all
    *("torch", "transformers", "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl"),
    *("scipy.stats", "pandas", "pyarrow.parquet", "hypothesis", "pydantic", "typer"),
)
KILLED, SURVIVED, OVERTIME = "killed", "survived", "overtime"


@dataclass(frozen=True)
class Target:
    """A module, its nearest tests, and the functions that are mutated (all, if none is named)."""

    module: str
    tests: tuple[str, ...]
    only: tuple[str, ...] = ()

    @property
    def file(self) -> Path:
        """Its source."""
        return ROOT / f"{self.module.replace('.', '/')}.py"


def without(file: str, *slow: str) -> tuple[str, ...]:
    """A file's tests but for some that take long and say what others say as well."""
    return (file, *(f"--deselect={file}::{test}" for test in slow))


STATS = without("tests/test_stats.py", "test_intervals_cover_the_truth_as_often_as_they_say")
LOSSES = without("tests/trainer/test_losses.py", "test_the_loss_does_not_depend_on_ranks")
PLANS = (
    *without(
        "tests/merge/test_merge_plan.py",
        "test_every_recipe_on_every_family",
        "test_a_text_model_gives_layers_to_a_vlms_decoder",
    ),
    "tests/merge/test_merge_fit.py",
)
ADVANTAGES = ("tests/trainer/test_advantages.py", "tests/trainer/test_estimators.py")
TARGETS = (
    Target("franken.stats.intervals", STATS),
    Target("franken.stats.significance", STATS),
    Target("franken.stats.draws", (*STATS, "tests/evaluate/test_eval_votes.py")),
    Target("franken.report.verdicts", ("tests/report/test_headlines.py",)),
    Target(
        "franken.report.headlines",
        ("tests/report/test_headlines.py",),
        ("what", "_ratio", "reading_depths", "where"),
    ),
    Target("franken.report.headlines_layer_sets", ("tests/report/test_headlines.py",)),
    Target(
        "franken.report.assemble",
        ("tests/report/test_assemble.py",),
        ("_frozen_labels", "_named_frozen"),
    ),
    Target("franken.diff.metrics", ("tests/diff/test_metrics.py",)),
    Target(
        "franken.evaluate.metrics",
        ("tests/evaluate/test_eval_metrics.py", "tests/evaluate/test_eval_votes.py"),
    ),
    Target("franken.merge.plan", PLANS),
    Target("franken.study.cost", ("tests/study/test_cost.py",)),
    Target("franken.study.budget", ("tests/study/test_budget.py",)),
    Target(
        "franken.study.autopsy",
        (
            "tests/study/test_autopsy.py::test_a_frozen_label_must_say_what_its_run_froze",
            "tests/study/test_autopsy.py::test_only_labels_that_begin_with_frozen_name_layers",
        ),
        ("_frozen", "_check_proof"),
    ),
    Target(
        "franken.probe.cost",
        (
            "tests/probe/test_probe_run.py::test_the_dry_run_counts_activations_and_a_second_copy",
            "tests/probe/test_probe_run.py::test_the_memory_of_a_dry_run_by_hand",
            "tests/probe/test_probe_run.py::test_the_dry_run_counts_the_forwards_that_are_run",
        ),
    ),
    Target("trainer.algorithms.losses", LOSSES),
    Target("trainer.algorithms.corrections", LOSSES),
    *(
        Target(f"trainer.algorithms.{name}", ADVANTAGES)
        for name in ("diversity", "gdpo", "groups", "grpo", "mupo", "passk")
    ),
    Target("trainer.freeze", ("tests/trainer/test_train_spec.py", "tests/trainer/test_lora.py")),
)
NAMED = (  # rules and constants that once could change unnoticed: module, text, replacement
    ("franken.report.headlines_layer_sets", "beats and all(beats)", "beats and any(beats)"),
    ("franken.report.headlines", "alike = all(", "alike = any("),
    ("franken.report.headlines", "p >= ALPHA or not alike", "p >= ALPHA"),
    (
        "franken.stats.significance",
        "(signs @ values) >= observed).sum())\n    return (extreme + 1)",
        "(signs @ values) >= observed).sum())\n    return extreme",
    ),
    ("franken.stats.intervals", "CORRECTION = 0.25", "CORRECTION = 0.5"),
    ("franken.stats.intervals", "CORRECTION = 0.25", "CORRECTION = 0.0"),
    ("franken.stats.intervals", "(ends - a / 2)", "(ends + a / 2)"),
    ("franken.stats.intervals", "np.cbrt(1 + 3 * a", "np.cbrt(1 - 3 * a"),
    ("franken.study.budget", "WORTH = 0.02", "WORTH = 0.2"),
    ("franken.study.budget", "WORTH = 0.02", "WORTH = 0.002"),
    ("franken.study.budget", '"samples": 10,', '"samples": 100,'),
    ("franken.study.cost", "EFFICIENCY = 0.6", "EFFICIENCY = 6.0"),
    ("franken.study.cost", "A_LAYER = 0.2e-3", "A_LAYER = 2e-3"),
    ("franken.study.cost", "A_COMPARED_ANSWER = 2e-3", "A_COMPARED_ANSWER = 2e-2"),
    ("franken.study.cost", "DISK = 1e9", "DISK = 1e10"),
    ("franken.study.cost", "return 2.0 * sum(weights)", "return 20.0 * sum(weights)"),
    ("franken.probe.cost", "/ 2**20)", "/ 2**20 * 10)"),
    ("franken.report.assemble", 'if not label.startswith("frozen-")', "if False"),
    ("franken.study.autopsy", 'if label.startswith("frozen-")', "if True"),
    ("franken.study.autopsy", "if proved != sorted(named)", "if False"),
)

SWAPS: dict[type, type] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt},
    **{ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is},
    **{ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult},
    **{ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult},
    **{ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd},
}
CALLS = {"all": "any", "any": "all", "min": "max", "max": "min", "floor": "ceil", "ceil": "floor"}
CALLS |= {"minimum": "maximum", "maximum": "minimum", "mean": "sum", "sum": "mean"}


@dataclass
class Mutant:
    """A module's source with one change; `function` is where it lies (None at the top)."""

    line: int
    what: str
    source: str
    function: str | None = None
    named: bool = False
    result: str = ""


def mutants(text: str, only: tuple[str, ...], sample: int, seed: int) -> Iterator[Mutant]:
    """A sample of all single changes of a module's source, in random order."""
    count = len(list(_sites(ast.parse(text), only)))
    for index in random.Random(seed).sample(range(count), min(sample, count)):
        tree = ast.parse(text)
        owner, node, change = list(_sites(tree, only))[index]
        before = ast.unparse(node)
        change()
        what = f"{before} → {ast.unparse(node)}"
        yield Mutant(node.lineno, " ".join(what.split())[:150], ast.unparse(tree), owner)


def _sites(tree: ast.Module, only: tuple[str, ...]):
    """(function, node, change in place) of every place that can be mutated; annotations, imports,
    decorators and text are left alone.
    """

    def visit(node: ast.AST, owner: str | None):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            owner = owner or node.name
            children = [*node.args.defaults, *filter(None, node.args.kw_defaults), *node.body]
        elif isinstance(node, ast.AnnAssign):
            children = [node.value] if node.value else []
        elif isinstance(node, ast.Import | ast.ImportFrom):
            children = []
        else:
            children = list(ast.iter_child_nodes(node))
        if not only or owner in only:
            yield from ((owner, node, change) for change in _changes(node))
        for child in children:
            yield from visit(child, owner)

    yield from visit(tree, None)


def _changes(node: ast.AST):
    """What can be done to a node."""

    def to(name: str, value: object):
        return lambda: setattr(node, name, value)

    if isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in SWAPS:
        yield to("op", SWAPS[type(node.op)]())
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        yield to("ops", [SWAPS[type(node.ops[0])](), *node.ops[1:]])
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
        if isinstance(node.op, ast.USub):
            yield to("op", ast.UAdd())
        else:
            yield to("operand", ast.UnaryOp(ast.Not(), node.operand))
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield to("value", not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield to("value", node.value + 1)
    elif isinstance(node, ast.Constant) and isinstance(node.value, float):
        yield to("value", node.value * 10 or 1.0)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
        other = CALLS[node.func.id]
        if node.func.id != "sum":  # the built-in mean does not exist
            yield to("func", ast.Name(other, ast.Load()))
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if other := CALLS.get(node.func.attr):
            yield to("func", ast.Attribute(node.func.value, other, ast.Load()))
    elif isinstance(node, ast.If | ast.IfExp) and isinstance(node.test, ast.Name | ast.Call):
        yield to("test", ast.UnaryOp(ast.Not(), node.test))


class _Mutated(importlib.machinery.SourceFileLoader):
    """Loads a module from given source; all others come from their files."""

    source = ""

    def get_code(self, fullname: str):
        return compile(self.source, self.path, "exec", dont_inherit=True)


class _Finder:
    def __init__(self, target: Target, source: str) -> None:
        self.target, self.source = target, source

    def find_spec(self, name: str, path: object = None, module: object = None):
        if name != self.target.module:
            return None
        loader = _Mutated(name, str(self.target.file))
        loader.source = self.source
        return importlib.util.spec_from_file_location(name, self.target.file, loader=loader)


class _Callers:
    """Which functions of the target each test calls, by name (nested ones by the outermost), and
    how long it takes.
    """

    def __init__(self, target: Target) -> None:
        self.file, self.test = str(target.file), ""
        self.calls: dict[str, set[str]] = {}
        self.seconds: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item):
        self.test, began = item.nodeid, time.monotonic()
        threading.setprofile(self._seen)
        sys.setprofile(self._seen)
        try:
            return (yield)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
            self.seconds[self.test] = time.monotonic() - began

    def _seen(self, frame, event, arg) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename == self.file:
            name = code.co_qualname.split(".<locals>")[0].split(".")[-1]
            self.calls.setdefault(name, set()).add(self.test)


def _forget() -> None:
    """Drop the project's modules, the tests' own among them, so that they are imported anew."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if name.split(".")[0] in ("franken", "trainer") or file.startswith(f"{ROOT}/tests/"):
            del sys.modules[name]


def in_child(target: Target, source: str, tests: list[str], seconds: float) -> str:
    """Run tests against a source in a forked child: how it ended."""
    child = os.fork()
    if child == 0:
        os.setsid()
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        _forget()
        sys.meta_path.insert(0, _Finder(target, source))
        os._exit(0 if pytest.main([*QUIET, *tests]) == pytest.ExitCode.OK else 1)
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return KILLED if status else SURVIVED
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return OVERTIME


def examine(target: Target, chosen: list[Mutant], seconds: float) -> list[Mutant]:
    """Judge mutants of one module, as many as there is time for; the named ones come first. Raises
    AssertionError where its tests fail unmutated.
    """
    callers = _Callers(target)
    began = time.monotonic()
    with redirect_stdout(io.StringIO()):
        code = pytest.main([*QUIET, *target.tests], plugins=[callers])
    assert code == pytest.ExitCode.OK, f"{target.module}: its tests fail without a mutation"
    limit = 30 + 3 * (time.monotonic() - began)
    every = sorted(callers.seconds, key=lambda test: callers.seconds[test])
    same = in_child(target, target.file.read_text(), every, limit)
    assert same == SURVIVED, f"{target.module}: its tests fail in a child without a mutation"
    began = time.monotonic()
    for mutant in chosen:
        if time.monotonic() - began > seconds and not mutant.named:
            break
        near = callers.calls.get(mutant.function or "", set())
        first = [test for test in every if test in near]
        rest = [test for test in every if test not in near]
        mutant.result = SURVIVED
        for tests in filter(None, (first, rest)):
            if mutant.result == SURVIVED:
                mutant.result = in_child(target, mutant.source, tests, limit)
        print(f"{mutant.result:9}{target.module}:{mutant.line} {mutant.what}", flush=True)
    return [m for m in chosen if m.result]


def choose(target: Target, args: argparse.Namespace) -> list[Mutant]:
    """The named mutants of a module, and a sample of all."""
    text = target.file.read_text()
    named = [_named(text, a, b) for module, a, b in NAMED if module == target.module]
    return [*named, *mutants(text, target.only, args.sample, args.seed)]


def _named(text: str, before: str, after: str) -> Mutant:
    assert text.count(before) == 1, f"{before!r} is not in the source just once"
    line = text[: text.index(before)].count("\n") + 1
    return Mutant(line, " ".join(after.split()), text.replace(before, after), named=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", nargs="*", default=[""], help="modules, by part of the name")
    parser.add_argument("--sample", type=int, default=20, help="mutants a module")
    parser.add_argument("--seconds", type=float, default=120, help="for a module, about")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    os.chdir(ROOT)
    for name in WARM:
        importlib.import_module(name)
    survivors = 0
    for target in dict.fromkeys(t for part in args.only for t in TARGETS if part in t.module):
        chosen = choose(target, args)
        if not chosen:
            continue
        reader = os.fork()  # one process a module
        if reader == 0:
            results = [m.result for m in examine(target, chosen, args.seconds)]
            left = results.count(SURVIVED)
            print(
                f"{target.module}: {len(results)} tried, {len(results) - left} killed", flush=True
            )
            os._exit(min(left, 100))
        survivors += os.waitstatus_to_exitcode(os.waitpid(reader, 0)[1])
    print(f"{survivors} survived")


if __name__ == "__main__":
    main()
