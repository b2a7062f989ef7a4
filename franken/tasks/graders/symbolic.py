"""The process in which math-verify runs: one JSON line in, one out. It is started as a script, by
`mathematics.py`, and imports nothing of franken.

A comparison can take for ever, and neither a signal nor a thread can stop a multiplication of huge
integers in C: only ending the process can. So a parent that has imported sympy once forks a child
that answers; the kernel ends the child when a request has used up its processor time, and the next
one is there in milliseconds. The address space is bounded, so that a tower of powers is an error
and not the machine's end.

Requests are `{"op": "same", "gold": …, "answer": …}` and `{"op": "value", "text": …}`, in LaTeX
without dollars, with the `seconds` that they may take.
"""

# sympy makes its classes and their attributes while it runs:
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportOptionalMemberAccess=false

import json
import logging
import os
import signal
import sys
from itertools import product
from typing import TypedDict

import sympy
from latex2sympy2_extended.logic import And
from math_verify import LatexExtractionConfig, parse, verify
from sympy.core.function import AppliedUndef

MEMORY = 4 * 2**30  # bytes of address space
SECONDS = 0.7  # of processor time where a request names none: no busy machine changes a verdict
DIGITS = 30  # in which exact values are told apart
SAMPLES = tuple(sympy.Rational(n, 7) for n in (11, 17, 23, 29, 31, 37, 41, 43))  # for symbols
EXACT, ROUNDED = sympy.Float("1e-24"), sympy.Float("1e-5")  # relative differences that are none
UNEVALUATED = (sympy.Sum, sympy.Product, sympy.Integral, sympy.Limit, sympy.Derivative)
CONFIG = [LatexExtractionConfig(boxed_match_priority=-1)]
WARMING = (
    ("\\frac{1}{2}", "0.5"),
    ("x^2+2\\sqrt{2}", "(x)^2+\\sqrt{8}"),
    ("\\sin x + \\log_2 3", "\\sin x + \\frac{\\ln 3}{\\ln 2}"),
    ("\\pm 3", "\\{3, -3\\}"),
    ("4\\pi \\times 10^{-7}", "3"),
    ("2x+4y-3=0", "y=-\\frac{1}{2}x+\\frac{3}{4}"),
    ("x \\in [-2,7]", "-2 \\le x \\le 7"),
    ("(1, 2) \\cup (3, \\infty)", "(1, 2)"),
    ("\\frac{1}{\\sqrt{n}}", "\\sqrt{1/n}"),
    ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{bmatrix}1&2\\\\3&5\\end{bmatrix}"),
)
Node = sympy.Basic | sympy.MatrixBase


class Reply(TypedDict, total=False):
    """What goes back: the verdict of `same`, or the kind and value of `value`."""

    same: bool
    why: str
    kind: str
    value: str


def read(text: str) -> Node | None:
    """The expression that a LaTeX text is, or None when math-verify cannot read it."""
    # No limit of its own: that is a signal, one second at the least, and does not stop C.
    results = parse(f"${text}$", CONFIG, "no_fallback", parsing_timeout=None)
    return results[0] if results and not isinstance(results[0], str) else None


def same(gold: str, answer: str) -> Reply:
    """Whether two expressions are equal. What math-verify calls equal must also have equal
    values.
    """
    right, said = read(gold), read(answer)
    if right is None:
        return {"same": False, "why": "the right answer cannot be read as mathematics"}
    if said is None:
        return {"same": False, "why": "it cannot be read as mathematics"}
    unsolved = is_unsolved(said)
    if unsolved and not isinstance(right, sympy.core.relational.Relational | And):
        return {"same": False, "why": unsolved}
    if not verify(right, said, allow_set_relation_comp=True, timeout_seconds=None):
        return {"same": equal_where_real(right, said), "why": ""}
    if differ(right, said):
        return {"same": False, "why": "equal only once rounded"}
    return {"same": True, "why": ""}


def is_unsolved(node: Node) -> str:
    """Why an equation gives no answer: `2x = 14` is not 14, while `x = 7`, `AB = 7` and `3 + 4 =
    7` are; empty when it gives one.
    """
    first = node._unsorted_args[0] if isinstance(node, And) else node
    if not isinstance(first, sympy.Eq):
        return ""
    left = first.lhs
    if not getattr(left, "free_symbols", None) and not left.has(AppliedUndef):
        last = node._unsorted_args[-1] if isinstance(node, And) else node
        right = last.rhs
        different = not getattr(right, "free_symbols", None) and differ(left, right)
        return "its two sides differ" if different else ""
    parts = sympy.Mul.make_args(left) if isinstance(left, sympy.Mul) else (left,)
    numbers = any(part.is_number for part in parts)
    powers = any(isinstance(p, sympy.Pow) and p.exp.is_number and p.exp != -1 for p in parts)
    sums = any(isinstance(part, sympy.Add) for part in parts)
    return "an equation that is not solved" if numbers or powers or sums else ""


def differ(a: Node, b: Node) -> bool:
    """Whether two objects that math-verify takes to be equal have clearly different values: it
    chops and rounds at fixed decimals, where 1e-20 and 1e-21 are one.
    """
    a, b = assigned(a), assigned(b)
    if isinstance(a, sympy.MatrixBase) and isinstance(b, sympy.MatrixBase):
        return a.shape == b.shape and any(map(differ, a, b))
    containers = (sympy.Tuple, sympy.FiniteSet, sympy.Interval, sympy.Union)
    if isinstance(a, containers) and isinstance(b, containers):
        ordered = isinstance(a, sympy.Tuple | sympy.Interval) and type(a) is type(b)
        left, right = (list(x.args) if ordered else sorted(x.args, key=_order) for x in (a, b))
        return len(left) == len(right) and any(map(differ, left, right))
    if not isinstance(a, sympy.Expr) or not isinstance(b, sympy.Expr):
        return False
    names = sorted(a.free_symbols | b.free_symbols, key=str)
    if names and (a.has(*UNEVALUATED) or b.has(*UNEVALUATED)):
        return False
    try:
        at = dict(zip(names, SAMPLES, strict=False))
        x, y = (sympy.N(value.subs(at).doit(), DIGITS) for value in (a, b))
        if not (x.is_number and y.is_number and x.is_finite and y.is_finite):
            return False
        allowed = ROUNDED if a.has(sympy.Float) or b.has(sympy.Float) else EXACT
        return bool(abs(x - y) > allowed * max(abs(x), abs(y)))
    except (TypeError, ValueError, AttributeError, ArithmeticError):
        return False  # no value to compare: math-verify's word stands


def equal_where_real(a: Node, b: Node) -> bool:
    """Whether two formulas are equal wherever both are real: sqrt(1/n) and 1/sqrt(n), which differ
    for negative n, where neither is; but not |x| and x.
    """
    if not isinstance(a, sympy.Expr) or not isinstance(b, sympy.Expr):
        return False
    names = sorted(a.free_symbols | b.free_symbols, key=str)
    if not names or a.free_symbols != b.free_symbols or len(names) > 3:
        return False
    if not (a.has(sympy.Pow) and b.has(sympy.Pow)):
        return False
    try:
        for signs in product((1, -1), repeat=len(names)):
            at = {n: s * v for n, s, v in zip(names, signs, SAMPLES, strict=False)}
            x, y = (sympy.N(node.subs(at), DIGITS) for node in (a, b))
            real = x.is_real and y.is_real
            if real and abs(x - y) > EXACT * max(abs(x), abs(y)):
                return False
            if not real and (x.is_real or y.is_real):
                return False
        positive = {n: sympy.Dummy(str(n), positive=True) for n in names}
        return sympy.simplify(a.subs(positive) - b.subs(positive)) == 0
    except (TypeError, ValueError, AttributeError, ArithmeticError):
        return False


def assigned(node: Node) -> Node:
    """The right side of an assignment."""
    return node.rhs if isinstance(node, sympy.Eq) and node.lhs.is_Symbol else node


def _order(node: Node) -> tuple[float, str]:
    try:
        return float(sympy.re(sympy.N(assigned(node)))), str(node)
    except (TypeError, ValueError, AttributeError):
        return 0.0, str(node)


def value(text: str) -> Reply:
    """The one real number that a text is, exactly (`n/d`), or what it is instead."""
    node = read(text)
    if node is None:
        return {"kind": "unreadable", "why": "it cannot be read as mathematics"}
    unsolved = is_unsolved(node)
    if unsolved:
        return {"kind": "equation", "why": unsolved}
    if isinstance(node, And) and all(isinstance(p, sympy.Eq) for p in node._unsorted_args):
        parts = node._unsorted_args
        chained = all(one.rhs == two.lhs for one, two in zip(parts, parts[1:], strict=False))
        node = parts[-1].rhs if chained else node
    node = node.rhs if isinstance(node, sympy.Eq) else node
    if isinstance(node, sympy.FiniteSet) and len(node) == 1:
        node = node.args[0]
    if not isinstance(node, sympy.Expr):
        return {"kind": "several", "why": "it is not one number"}
    node = node.doit()
    if node.free_symbols or node.has(AppliedUndef):
        return {"kind": "formula", "why": "a formula, not a number"}
    if node.has(sympy.oo, sympy.zoo, sympy.nan):
        return {"kind": "infinite", "why": "it is not finite"}
    if not node.is_Rational and not node.is_Float:
        node = sympy.simplify(node)
    if node.is_real is False or not (node.is_Rational or node.is_Float):
        digits = str(sympy.N(node, DIGITS)) if node.is_real else ""
        return {"kind": "irrational", "why": "not a rational number", "value": digits}
    exact = node if node.is_Rational else sympy.Rational(str(node))
    return {"kind": "number", "value": f"{exact.p}/{exact.q}"}


def answer(line: bytes) -> Reply:
    """The reply to one request. What sympy cannot do, it says by all kinds of exceptions."""
    request = json.loads(line)
    try:
        if request["op"] == "same":
            return same(request["gold"], request["answer"])
        return value(request["text"])
    except MemoryError:
        why = "it is too large to be worked out"
    except Exception as e:  # noqa: BLE001 - a process boundary: sympy raises anything
        why = f"sympy cannot work it out ({type(e).__name__})"
    return {"same": False, "kind": "unreadable", "why": why}


def serve() -> None:
    """Answer requests until the input ends."""
    send({"ready": os.getpid()})
    for line in sys.stdin.buffer:
        limit(json.loads(line).get("seconds", SECONDS))
        reply = answer(line)
        limit(0)
        send(reply)


def limit(seconds: float) -> None:
    """Let the kernel end this process after so much processor time; 0 lifts the limit. The signal
    has no handler, because one would have to wait for C to come back.
    """
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def send(message: Reply | dict[str, int]) -> None:
    """One line to the other side."""
    sys.stdout.buffer.write(json.dumps(message).encode() + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Import once, then let children answer: whenever one is killed, fork the next."""
    logging.disable(logging.CRITICAL)
    sys.set_int_max_str_digits(0)
    try:
        import resource

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, hard))
    except (ImportError, ValueError, OSError):
        pass  # not everywhere
    for gold, said in WARMING:
        same(gold, said)  # fills the tables of parser and solver, which every child inherits
    if not hasattr(os, "fork"):
        serve()
        return
    while True:
        child = os.fork()
        if not child:
            serve()
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:  # its input ended: so does ours
            return


if __name__ == "__main__":
    main()
