"""Where in a reply its answer stands. What the answer means is the affair of its type.

Behind the reasoning (`</think>`, also when the chat template opened it), in this order: the
`<answer>` element; the last `\\boxed{}` (with those that are listed beside it); a JSON object with
one answer; what follows a mark ("the answer is", "Answer:", 答案); the last line; the first line,
when it is nothing but an answer and an explanation follows. Several `<answer>` elements or boxes
that differ are no answer, unless the last one is said to be it ("so", "rather", "in the end").
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from franken.tasks.graders.spelling import normalise, plain, tidy

LONGEST = 50_000  # characters of a reply, behind its reasoning, that are read
THINK = re.compile(r"<(/?)(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
ANSWER = re.compile(r"<answer>((?:(?!<answer>).)*?)(?:</answer>|\Z)", re.IGNORECASE | re.DOTALL)
DISPLAYED = re.compile(r"\\\[((?:(?!\\\[).)*?)\\\]|\$\$((?:(?!\$\$).)*?)\$\$", re.DOTALL)
ALIGNED = re.compile(
    r"\\begin\{(align|aligned|gather|gathered|split|eqnarray|equation)\*?\}(.*?)\\end\{\1\*?\}",
    re.DOTALL,
)
BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s*\{|<\|begin_of_box\|>")
BRACE = re.compile(r"(?<!\\)[{}]")
LISTED = re.compile(
    r"[\s,;&$~.]*(?:\\\(|\\\)|\\quad|\\qquad|\\,|\\text\{|\}|\b(?:and|or|und|oder)\b|和|或"
    r"|[A-Za-z](?:_\{?\w{1,5}\}?)?\s*=|"
    r"[\s,;&$~])*"
)
REPLACED = re.compile(
    r"\b(?:rather|actually|instead|wait|no|correct\w*|final\w*|in the end|so|thus|therefore|hence|"
    r"answer|then|finally|result)\b|所以|因此|最终|答案",
    re.IGNORECASE,
)
KEYS = (
    "answer",
    "final_answer",
    "finalanswer",
    "final answer",
    "choice",
    "option",
    "selected_option",
    "letter",
    "result",
    "prediction",
    "value",
    "label",
    "response",
    "output",
)
FENCE = re.compile(r"```[\w+-]*[ \t]*\n?(.*?)(?:```|\Z)", re.DOTALL)
CUT_OFF = re.compile(r"(?:\A|\n)\s*\{\s*\"[\w ]{1,30}\"\s*:[^}]*\Z")
RULE = re.compile(r"[\s\-*_=#~`>|.\[\]\\$]*")
MARK = re.compile(
    r"(?:\b(?:(?:the|my|our|final|correct|right|best)\s+)*(?:answer|ans|result|solution|choice"
    r"|option)s?\b"
    r"(?:\s+(?:here|to (?:the|this) (?:question|problem)))?\s*"
    r"(?:(?<!this answer )(?:\bis\b(?:\s+therefore|\s+thus)?|\bare\b|\bwould be\b|\bshould be\b"
    r"|\bmust be\b)|[:=→]|"
    r"\*\*\s*:?|(?<=\bans)\.)\s*:?|"
    r"(?:最终|正确|参考)?(?:答案\]?|结果|选项)(?:应该|应)?\s*(?:是|为|选)?\s*:?|(?:故|因此|所以"
    r"|应)?(?<!不)选(?:择)?\s*:?(?=\s*[(\[]?[A-Za-z]\b))"
    r"(?!\s*(?:not\b|不))",
    re.IGNORECASE,
)
DENIED = re.compile(
    r"(?:\b(?:not(?! only\b)|never|neither|nor|rather than|instead of|(?:no )?(?:less|more"
    r"|fewer) than|cannot)\b|n['’]t\b|不是|而非|不选)"
    r"(?:(?!\s(?:but|而是)\b)(?:[^,.;:()]|[.,](?=\d)|(?<=\s)\(\w{1,2}\)))*(?:\s(?:but|而是)\s)?",
    re.IGNORECASE,
)
EMPTIED = re.compile(r"[,;]?\s*\(\s*\)|[,;]\s*(?=[.!]?\s*$)")
CONCLUDES = re.compile(
    r"\b(?:so|thus|therefore|hence|total|answer|finally|final|result|conclusion|altogether"
    r"|actually|wait|no)\b|=|所以|因此",
    re.IGNORECASE,
)
SENTENCE = re.compile(
    r"(?<=[.!?])\s+(?=[A-Z\"'(\u4e00-\u9fff])|(?<=\S)\s+(?=(?:Therefore|Thus|Hence|So)\b)"
)
ENDED = re.compile(  # what stands behind a reply's end
    r"<\|(?:im_start|im_end|endoftext|eot_id|end_of_text|end)\|>|</s>|<end_of_turn>"
)
PLEASANTRY = re.compile(r"(?:I hope (?:it|this) is correct|I hope this helps)[.!]?", re.IGNORECASE)


class Place(NamedTuple):
    """A part of a reply that may be its answer, and where it stands."""

    text: str
    where: str  # box, json, mark, line, last sentence, first line
    tagged: bool = False
    final: bool = False  # marked as the final answer


class Ambiguous(NamedTuple):
    """A reply that gives several answers in one place."""

    reason: str


def body(reply: str) -> str:
    """What stands behind the reasoning; an empty text when it never ended."""
    marks = list(THINK.finditer(reply))
    if not marks:
        return reply
    return reply[marks[-1].end() :] if marks[-1][1] else reply[: marks[-1].start()] * _closed(marks)


def _closed(marks: list[re.Match[str]]) -> bool:
    return any(mark[1] for mark in marks)


def unfinished(reply: str) -> bool:
    """Whether the reasoning was opened and never closed, and nothing marks an answer: the last line
    is mid-thought.
    """
    marks = list(THINK.finditer(reply))
    return (
        bool(marks)
        and not _closed(marks)
        and not ANSWER.search(reply)
        and not any(True for _ in _boxes(reply))
    )


def places(reply: str, longest: int = LONGEST, *, whole: bool = False) -> list[Place] | Ambiguous:
    """The parts of a reply that may be its answer, the most explicit first. In a tag, a box or JSON
    the answer stands alone; only where there is none the text is searched. `whole` leaves JSON,
    fences and lines as they are, for answers that are objects.
    """
    text = body(reply)
    if not text.strip() or (THINK.search(text) and not _explicit(text)):
        text = reply if _explicit(reply) else text
    if len(text) > longest:  # without an end: an answer is at the end, if there is one
        text = text[-longest:].partition(" ")[2]
    text = PLEASANTRY.sub("", ENDED.split(tidy(text), maxsplit=1)[0])
    text = ALIGNED.sub(_in_one_line, text)
    tags = list(dict.fromkeys(m[1].strip() for m in ANSWER.finditer(text)))
    if len({normalise(plain(tag)) for tag in tags}) > 1:
        return Ambiguous("several <answer> elements that differ")
    inside = _inside(tags[0] if tags else text, whole)
    if not tags or isinstance(inside, Ambiguous):
        return inside
    return [place._replace(tagged=True) for place in inside]


def _in_one_line(match: re.Match[str]) -> str:
    """An aligned environment: a chain of equal signs as its first and last sides, else its rows as
    a list.
    """
    rows = [row.strip() for row in re.split(r"\\\\", match[2]) if row.strip()]
    if all(row.startswith("&") for row in rows[1:]):
        rows = [f"{rows[0].partition('&')[0]} {rows[-1].rpartition('&')[2]}"] if rows else []
    return ", ".join(" ".join(row.replace("&", "").split()) for row in rows)


def _explicit(text: str) -> bool:
    return bool(ANSWER.search(text)) or any(True for _ in _boxes(text))


def _inside(text: str, whole: bool) -> list[Place] | Ambiguous:
    """The places of a text without tags."""
    boxed = _last_box(text)
    if isinstance(boxed, Ambiguous):
        return boxed
    after = []
    if boxed is not None:
        after = [p for p in _marked(text[boxed[1] :]) if re.match(r"\W*\S", p.text)]
        return [Place(boxed[0], "box"), *after]
    if whole:
        marks = [text[mark.end() :].strip(" :*") for mark in MARK.finditer(text)][-4:]
        return [*(Place(t, "mark") for t in reversed(marks)), Place(text.strip(), "text")]
    fenced = FENCE.findall(text)
    for piece in [text, *reversed(fenced)]:
        value = _json_answer(piece)
        if value is not None:
            return [Place(value, "json")]
    if CUT_OFF.search(text):
        return Ambiguous("the JSON object is cut off")
    text = FENCE.sub(lambda m: m[1] if m[1].strip() else " ", text)
    return [*_marked(text), *_lines(text)]


def _boxes(text: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, content) of every box that is closed."""
    end = 0
    for match in BOX.finditer(text):
        if match.start() < end:
            continue
        if match[0].startswith("<"):
            close = text.find("<|end_of_box|>", match.end())
            if close >= 0:
                end = close + len("<|end_of_box|>")
                yield match.start(), end, text[match.end() : close].strip()
            continue
        close = _closing(text, match.end())
        if close is None:
            return  # nor can any box that follows be closed outside of it
        end = close + 1
        yield match.start(), end, text[match.end() : close].strip()


def _closing(text: str, start: int) -> int | None:
    depth = 1
    for brace in BRACE.finditer(text, start):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return brace.start()
    return None


def last_boxed(reply: str) -> str | None:
    """The content of the last `\\boxed{}` that is closed; None without one."""
    contents = [content for _, _, content in _boxes(reply)]
    return contents[-1] if contents else None


def _last_box(text: str) -> tuple[str, int] | Ambiguous | None:
    """The content of the last box, with those listed beside it, and where it ends."""
    boxes = list(_boxes(text))
    if not boxes:
        return None
    contents, start = [boxes[-1][2]], boxes[-1][0]
    for before, end, content in reversed(boxes[:-1]):
        between = text[end:start]
        same = normalise(plain(content)) == normalise(plain(contents[0]))
        if not same:
            if REPLACED.search(between):
                break
            if not LISTED.fullmatch(between):
                return Ambiguous(f"several boxes that differ: {content!r} and {contents[0]!r}")
            contents.insert(0, content)
        start = before
    return ", ".join(contents), boxes[-1][1]


def _json_answer(text: str) -> str | None:
    """The answer in a JSON object that names one, `{"choice": "B"}`; None when it is no such
    object.
    """
    text = text.strip()
    if not (text.startswith("{") and text.endswith("}")):
        return None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = _single_quoted(text)
    if not isinstance(content, dict):
        return None
    named = {str(key).lower(): value for key, value in content.items()}
    keys = [key for key in KEYS if key in named] or (list(named) if len(named) == 1 else [])
    value = named[keys[0]] if keys else None
    if isinstance(value, list) and all(isinstance(v, str | int | float) for v in value):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if isinstance(value, str | int | float) else None


def _single_quoted(text: str) -> object:
    """A flat object in Python's quotes."""
    pairs = re.findall(r"'(\w[\w ]{0,30})'\s*:\s*(?:'([^'{}]*)'|(-?\d[\d.]*))", text[:2000])
    return {key: quoted or number for key, quoted, number in pairs}


def _marked(text: str) -> list[Place]:
    """What follows the marks of an answer, the last mark first, up to the end of its line."""
    marked = []
    for mark in reversed(list(MARK.finditer(text))[-8:]):
        rest = text[mark.end() :].lstrip(" *_:\t")
        line, _, below = rest.partition("\n")
        if RULE.fullmatch(line):
            line = next((one for one in below.split("\n") if not RULE.fullmatch(one)), "")
        if len(line) > 200 and "\\begin" not in line:  # a paragraph: its first sentence
            line = SENTENCE.split(line)[0]
        if line.strip():
            final = "final" in mark[0].lower() or "最终" in mark[0]
            marked.append(Place(_display(line, rest), "mark", final=final))
    return marked


def _display(line: str, rest: str) -> str:
    """Display mathematics of several lines is one: `\\[`, `$$` and environments go on to their
    end.
    """
    for open_, close in (("\\[", "\\]"), ("$$", "$$"), ("\\begin{", "\\end{")):
        start = line.rfind(open_)
        if start >= 0 and close not in line[start + len(open_) :]:
            end = rest.find(close, start + len(open_))
            if end >= 0:
                tail = rest[end:].partition("\n")[0]
                return " ".join((rest[:end] + tail).split("\n"))
    return line


def _lines(text: str) -> list[Place]:
    """The last line and the first, or the sentences of the only one."""
    text = DISPLAYED.sub(_joined, text)
    lines = [line.strip() for line in text.split("\n") if not RULE.fullmatch(line)]
    if not lines:
        lines = [text.strip()] if text.strip() else []
    if len(lines) == 1:
        sentences = SENTENCE.split(lines[0])
        if len(sentences) == 1:
            return [Place(lines[0], "line")]
        return [
            Place(lines[0], "line"),
            Place(sentences[-1], "last sentence"),
            Place(sentences[0], "first line"),
        ]
    return [Place(lines[-1], "line"), Place(lines[0], "first line")] if lines else []


def _joined(match: re.Match[str]) -> str:
    return f"${' '.join((match[1] or match[2] or '').split())}$"


def extract(reply: str) -> str | None:
    """The answer text of a reply, or None when there is none."""
    start = reply.find("<answer>")
    end = reply.find("</answer>", start)
    if 0 <= start < end and reply.find("<answer>", start + 1) < 0 and "</think>" not in reply[end:]:
        return reply[start + len("<answer>") : end].strip()  # the usual reply
    candidates = places(reply)
    if isinstance(candidates, Ambiguous):
        tags = [m[1].strip() for m in ANSWER.finditer(reply)]
        return tags[0] if tags else last_boxed(reply)
    if candidates and candidates[0].tagged:
        tags = [m[1].strip() for m in ANSWER.finditer(body(reply) or reply)]
        return tags[0] if tags else candidates[0].text
    explicit = [p for p in candidates if p.where in ("box", "json")]
    lines = [p for p in candidates if p.where in ("line", "last sentence")] or candidates
    chosen = explicit or lines
    return chosen[0].text if chosen else None


def right_text(gold: str) -> str:
    """The answer in a right answer that comes with its solution, `… so $\\boxed{5}$`."""
    if "\\boxed" not in gold and "<answer>" not in gold:
        return gold
    candidates = places(gold)
    if isinstance(candidates, Ambiguous):
        return ", ".join(content for _, _, content in _boxes(gold))
    return candidates[0].text if candidates else gold


def reasoning(reply: str) -> str:
    """The text between the think tags, or an empty string; the first tag may be the template's."""
    thought, closed, _ = reply.partition("</think>")
    if not closed:
        return ""
    return thought[
        thought.find("<think>") + len("<think>") if "<think>" in thought else 0 :
    ].strip()


def opened(reply: str, first: str = "think") -> str:
    """The reply with the opening tag of its first section: chat templates open `<think>`, so that
    replies begin inside of it.
    """
    return f"<think>{reply}" if first == "think" and "<think>" not in reply else reply


def has_sections(reply: str, tags: Sequence[str], *, lead: bool = False) -> bool:
    """Whether an `opened` reply is these sections (`<tag> … </tag>`), each once and in order, and
    nothing else; `lead` lets text stand before them.
    """
    if any(reply.count(f"<{tag}>") != 1 or reply.count(f"</{tag}>") != 1 for tag in tags):
        return False
    sections = r"\s*".join(rf"<{re.escape(tag)}>.*?</{re.escape(tag)}>" for tag in tags)
    return bool(re.fullmatch(rf"{'.*?' if lead else ''}\s*{sections}\s*", reply, re.DOTALL))


def is_well_formed(reply: str) -> bool:
    """Whether the reply is exactly one think element, whose opening tag may be the template's, and
    one answer element.
    """
    return has_sections(opened(reply), ("think", "answer"))


def narrow(text: str) -> str:
    """What stands after the last mark of an answer; the whole text when nothing marks one."""
    marks = list(MARK.finditer(text))
    return text[marks[-1].end() :].strip(" :") if marks else text


def affirmed(text: str) -> str:
    """A text without what it denies: "7, not 8" says 7, and "not 7" says nothing."""
    return EMPTIED.sub("", DENIED.sub(" ", text))
