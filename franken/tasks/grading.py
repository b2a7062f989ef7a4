"""Reading the answer out of a reply, and judging it.

The answer is the text of the first `<answer>` element, else the last `\\boxed{}`, else the last non-empty line. A verdict
always says why. Well-formed means: one `<think>` element followed by one `<answer>` element, and nothing else.
"""

import re

from franken.tasks.puzzle import Grade

WELL_FORMED = re.compile(r"\s*<think>(?P<think>.*?)</think>\s*<answer>(?P<answer>.*?)</answer>\s*", re.DOTALL)
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")


def extract(reply: str) -> str | None:
    """The answer text of a reply, or None when there is none."""
    tagged = re.search(r"<answer>(.*?)</answer>", reply, re.DOTALL)
    if tagged:
        return tagged.group(1).strip()
    boxed = _last_boxed(reply)
    if boxed is not None:
        return boxed
    lines = [line.strip() for line in reply.splitlines() if line.strip()]
    return lines[-1] if lines else None


def reasoning(reply: str) -> str:
    """The text between the think tags, or an empty string."""
    found = re.search(r"<think>(.*?)</think>", reply, re.DOTALL)
    return found.group(1).strip() if found else ""


def is_well_formed(reply: str) -> bool:
    """Whether the reply is exactly one think element and one answer element."""
    return bool(WELL_FORMED.fullmatch(reply)) and all(reply.count(tag) == 1 for tag in TAGS)


def normalise(answer: str) -> str:
    """Case, surrounding space and a closing full stop carry no meaning."""
    return " ".join(answer.lower().split()).strip().rstrip(".!;,")


def grade_exact(reply: str, gold: str) -> Grade:
    """Exact match of the extracted answer after `normalise`; numbers are compared as numbers."""
    answer = extract(reply)
    formed = is_well_formed(reply)
    if answer is None:
        return Grade(0.0, "no answer", None, formed)
    said, right = normalise(answer), normalise(gold)
    if said == right or _same_number(said, right):
        return Grade(1.0, f"{said!r} is right", answer, formed)
    return Grade(0.0, f"said {said!r}, right is {right!r}", answer, formed)


def _same_number(a: str, b: str) -> bool:
    return bool(NUMBER.fullmatch(a) and NUMBER.fullmatch(b)) and float(a) == float(b)


def _last_boxed(reply: str) -> str | None:
    start = reply.rfind("\\boxed{")
    if start < 0:
        return None
    depth = 0
    for end in range(start + len("\\boxed"), len(reply)):
        depth += {"{": 1, "}": -1}.get(reply[end], 0)
        if depth == 0:
            return reply[start + len("\\boxed{") : end].strip()
    return None
