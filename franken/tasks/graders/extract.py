"""Reading the answer out of a reply.

The answer is the text of the first `<answer>` element, else the last `\\boxed{}` (braces nest),
else the last non-empty line. A reply is well-formed when it is one `<think>` element followed by
one `<answer>` element, and nothing else.

From a sentence (`narrow`), the answer is what stands after the last mark of an answer ("the answer
is …"); nothing is ever searched for inside of it, so that no substring can pass for an answer.
"""

import re

WELL_FORMED = re.compile(
    r"\s*<think>(?P<think>.*?)</think>\s*<answer>(?P<answer>.*?)</answer>\s*", re.DOTALL
)
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
MARK = re.compile(
    r"\b(?:answer|result|solution|choice|option)(?:\s+(?:here|to (?:the|this) (?:question|problem)))?\s*"
    r"(?:\bis\b(?:\s+therefore|\s+thus)?|\bwould be\b|\bshould be\b|[:=→]|\*\*\s*:?)\s*:?"
    r"(?!\s*not\b)",
    re.IGNORECASE,
)
DENIED = re.compile(
    r"(?:\b(?:not|never|neither|nor|rather than|instead of|(?:no )?(?:less|more|fewer) than|cannot)\b|n['’]t\b)"
    r"(?:[^,.;:()]|[.,](?=\d)|(?<=\s)\(\w{1,2}\))*",
    re.IGNORECASE,
)
MARKUP = re.compile(r"\*\*|__|`|\\\(|\\\)|\\\[|\\\]|\$")
TEXT = re.compile(r"\\(?:text|mathrm|textbf|mathbf|textit|mbox|operatorname)\s*\{([^{}]*)\}")
LATEX_SPACE = re.compile(r"\\[,;:! ]|\\quad|\\qquad|~|\u00a0|\u202f")


def extract(reply: str) -> str | None:
    """The answer text of a reply, or None when there is none."""
    tagged = re.search(r"<answer>(.*?)</answer>", reply, re.DOTALL)
    if tagged:
        return tagged.group(1).strip()
    boxed = last_boxed(reply)
    if boxed is not None:
        return boxed
    lines = [line.strip() for line in reply.splitlines() if line.strip()]
    return lines[-1] if lines else None


def unfinished(reply: str) -> bool:
    """Whether the reasoning was opened and never closed, and nothing marks an answer: the last line
    is mid-thought.
    """
    return (
        "<think>" in reply
        and "</think>" not in reply
        and "<answer>" not in reply
        and last_boxed(reply) is None
    )


def reasoning(reply: str) -> str:
    """The text between the think tags, or an empty string."""
    found = re.search(r"<think>(.*?)</think>", reply, re.DOTALL)
    return found.group(1).strip() if found else ""


def is_well_formed(reply: str) -> bool:
    """Whether the reply is exactly one think element and one answer element."""
    return bool(WELL_FORMED.fullmatch(reply)) and all(reply.count(tag) == 1 for tag in TAGS)


def last_boxed(reply: str) -> str | None:
    """The content of the last `\\boxed{}` that is closed; None without one."""
    start = reply.rfind("\\boxed{")
    if start < 0:
        return None
    depth = 0
    for end in range(start + len("\\boxed"), len(reply)):
        depth += {"{": 1, "}": -1}.get(reply[end], 0)
        if depth == 0:
            return reply[start + len("\\boxed{") : end].strip()
    return None


def normalise(answer: str) -> str:
    """Case, surrounding space and a closing full stop carry no meaning."""
    return " ".join(answer.lower().split()).strip().rstrip(".!;,")


def plain(text: str) -> str:
    """An answer without what only sets it: tags, a box, markdown, dollars of LaTeX, `\\text{}`,
    LaTeX spaces.

    A dollar before a digit outside of paired LaTeX dollars is money; it carries no number either,
    and goes too.
    """
    inner = extract(text) if "<answer>" in text or "\\boxed{" in text else text
    bare = TEXT.sub(r" \1 ", (inner or "").replace("\\$", ""))
    return " ".join(LATEX_SPACE.sub(" ", MARKUP.sub("", bare)).split())


def narrow(text: str) -> str:
    """What stands after the last mark of an answer; the whole text when nothing marks one."""
    marks = list(MARK.finditer(text))
    return text[marks[-1].end() :].strip(" :") if marks else text


def affirmed(text: str) -> str:
    """A text without what it denies: "7, not 8" says 7, and "not 7" says nothing."""
    return DENIED.sub(" ", text)
