"""Mathematics, read and compared by math-verify in a process of its own.

math-verify limits its time by `signal.alarm`: whole seconds, the main thread alone, and powerless
while C multiplies integers. Here the limit is on a helper process (`symbolic.py`), which the kernel
ends after `grader_seconds` of processor time: that works in threads, in data loaders and under
torchrun, and no verdict depends on how busy the machine is. The helper starts at the first
expression; numerals are read without it. Replies are remembered, since the samples of one prompt
repeat each other.
"""

import atexit
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections import OrderedDict
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, TypedDict

from franken.bounds import limit, said

SPARE = 4.3  # seconds by the clock, over the processor time after which the helper ends itself
STARTING = 120.0  # what the helper's imports may take
LONGEST = 300  # characters of an expression that is worked out
REMEMBERED = 4096
HUGE = re.compile(
    r"\^\s*[{(]*\s*\d+\s*[)}]*\s*\^|\^\s*[{(]*\s*\d{4,}|\d{4,}\s*!|!\s*!|\d{60,}"
)  # sympy would try


class Request(TypedDict, total=False):
    """One line to the helper."""

    op: str
    gold: str
    answer: str
    text: str


class Reply(TypedDict, total=False):
    """One line from the helper."""

    ready: int
    same: bool
    kind: str
    value: str
    why: str


class Value(NamedTuple):
    """The rational number that a text is, or why it is none; `irrational` is a value to thirty
    digits.
    """

    number: Fraction | None
    why: str
    irrational: Fraction | None = None


def is_same(answer: str, gold: str) -> tuple[bool, str]:
    """Whether two expressions in LaTeX are equal, and why not where there is more to say."""
    problem = _too_large(answer) or _too_large(gold)
    if problem:
        return False, problem
    reply = _ask({"op": "same", "gold": gold, "answer": answer})
    return bool(reply.get("same")), reply.get("why", "")


def evaluate(text: str) -> Value:
    """The rational number that an expression in LaTeX is."""
    problem = _too_large(text)
    if problem:
        return Value(None, problem)
    reply = _ask({"op": "value", "text": text})
    if reply.get("kind") == "number":
        top, _, bottom = reply.get("value", "").partition("/")
        if len(top) + len(bottom) > 2 * LONGEST:
            return Value(None, "it is too large to be worked out")
        return Value(Fraction(int(top), int(bottom)), "")
    digits = reply.get("value")
    return Value(None, reply.get("why", ""), Fraction(digits) if digits else None)


def _late() -> Reply:
    why = f"it takes too long to work out ({said('grader_seconds')} of processor time)"
    return {"same": False, "kind": "late", "why": why}


def _too_large(text: str) -> str:
    too_large = HUGE.search(text) or len(text) > LONGEST
    return f"{text[:80]!r} is too large to be worked out" if too_large else ""


class _Helper:
    """The helper process of this process."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("symbolic.py")
        # -P: the script's folder must not shadow the standard library's `numbers`.
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # an interrupt at the terminal is the caller's affair
        )
        self.lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.child = 0
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(b"")

    def ask(self, request: Request) -> Reply | None:
        """The reply, or None when there is none in time; then the child is killed."""
        assert self.process.stdin is not None
        if not self.child:
            self.child = self._receive(STARTING).get("ready", 0)
        seconds = limit("grader_seconds")
        self.process.stdin.write(json.dumps(request | {"seconds": seconds}).encode() + b"\n")
        self.process.stdin.flush()
        try:
            reply = self._receive(seconds + SPARE)
        except queue.Empty:
            os.kill(self.child, getattr(signal, "SIGKILL", signal.SIGTERM))
            self.child = 0
            return None
        if "ready" in reply:  # the child ended over the request, and here is the next one
            self.child = reply["ready"]
            return _late()
        return reply

    def _receive(self, seconds: float) -> Reply:
        line = self.lines.get(timeout=seconds)
        if not line:
            raise BrokenPipeError("the process that runs math-verify has ended")
        return json.loads(line)

    def close(self) -> None:
        """End it: its input ends."""
        if self.process.stdin is not None:
            self.process.stdin.close()


_lock = threading.Lock()
_remembered: OrderedDict[str, Reply] = OrderedDict()
_helper: _Helper | None = None
_owner = 0  # the process that the helper belongs to: a fork must not share its pipes


def _ask(request: Request) -> Reply:
    global _helper, _owner
    key = json.dumps(request)
    with _lock:
        if key in _remembered:
            _remembered.move_to_end(key)
            return _remembered[key]
        if _helper is None or _owner != os.getpid():
            _helper, _owner = _Helper(), os.getpid()
            atexit.register(_helper.close)
        try:
            reply = _helper.ask(request)
        except (BrokenPipeError, queue.Empty):  # killed from outside
            _helper = None
            return {"same": False, "kind": "unreadable", "why": "math-verify did not start"}
        if reply is None:
            return _late()
        _remembered[key] = reply
        if len(_remembered) > REMEMBERED:
            _remembered.popitem(last=False)
        return reply


def _after_fork() -> None:
    """A forked process must not wait for a lock that a thread of its parent held."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
