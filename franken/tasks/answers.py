"""Options and right answers as tables write them.

Options are a list, a list as text, letters with texts, a column each. The right answer is a letter,
a text, an index, several of these, or any one of a list of accepted texts.
"""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from franken.errors import FrankenError
from franken.tasks.graders.compare import LONGEST, compare, infer_type
from franken.tasks.graders.options import LETTERS, right_options
from franken.tasks.graders.reply import extract, last_boxed
from franken.tasks.values import is_missing, kind_of, number_text, text_of

LABEL = re.compile(r"(?:^|(?<=[\s,;(]))\(?([A-Z])[:.)]\s*(?=\S)")
LABELS = 400  # that are looked at in one text
INDEX = {"index from 0": 0, "index from 1": 1}
UNSURE = ("as is", "tagged")  # ways of writing under which digits may be a text or an index


@dataclass(frozen=True)
class Gold:
    """The right answer and others that are as right."""

    text: str
    others: tuple[str, ...] = ()
    kind: str = ""


def options_of(value: object, longest: int) -> tuple[str, ...]:
    """The texts of a cell's options; none where it has none. Raises FrankenError."""
    if is_missing(value) or value == "":
        return ()
    if isinstance(value, str):
        value = _listed(value)
    if isinstance(value, Mapping):
        value = _from_map(value)
    if not isinstance(value, list | tuple):
        raise FrankenError(f"the options are a {kind_of(value)}, not a list")
    if len(value) > len(LETTERS):
        raise FrankenError(f"{len(value)} options are more than there are letters")
    texts = [_option(option, longest) for option in value]
    while texts and not texts[-1]:  # columns that this row does not use
        texts.pop()
    if "" in texts:
        raise FrankenError(f"option {LETTERS[texts.index('')]} is empty")
    return tuple(texts)


def _option(value: object, longest: int) -> str:
    if isinstance(value, bool):
        return str(value)
    text = text_of(value, "an option", longest)
    return re.sub(r"^\(?[A-Z]\)?[.:)]\s+", "", text).strip()


def _listed(text: str) -> object:
    if text.strip().startswith(("[", "{")):
        for read in (json.loads, ast.literal_eval):
            try:
                return read(text.strip())
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
        raise FrankenError(f"the options {text[:80]!r} are no list")
    found = list(options_in(text))
    if not found:
        raise FrankenError(f"the options {text[:80]!r} list no letters A, B, …")
    return found


def _from_map(options: Mapping[str, object]) -> object:
    """`{"A": …, "B": …}`, or the labels and texts of ARC."""
    texts = options.get("text")
    if isinstance(texts, list | tuple):
        return texts
    kept = {key: value for key, value in options.items() if not is_missing(value)}
    if not all(isinstance(key, str) for key in kept):
        raise FrankenError("the options have names that are no letters")
    names = [key.strip("().: ").upper() for key in sorted(kept)]
    if names != list(LETTERS[: len(names)]):
        raise FrankenError(f"the options are called {', '.join(names)[:80]}, not A, B, …")
    return [kept[key] for key in sorted(kept)]


def options_in(text: str) -> tuple[str, ...]:
    """The options that a text lists as A, B, C, … in order ("A. 3; B. 4", "Choices: A:2 B:3"); none
    when the letters have gaps.
    """
    labels = list(LABEL.finditer(text))[-LABELS:]
    cuts: list[re.Match[str]] = []
    for start in (i for i, m in enumerate(labels) if m[1] == "A"):
        chain = [labels[start]]
        for match in labels[start + 1 :]:
            if len(chain) < len(LETTERS) and match[1] == LETTERS[len(chain)]:
                chain.append(match)
        cuts = chain if len(chain) >= len(cuts) else cuts
    if len(cuts) < 2:
        return ()
    ends = [*(m.start() for m in cuts[1:]), len(text)]
    return tuple(
        text[m.end() : end].strip().rstrip(",;").strip() for m, end in zip(cuts, ends, strict=True)
    )


def gold_of(value: object, reads: str, options: Sequence[str]) -> Gold:
    """A cell's right answer; of options, by letter. Raises FrankenError where it holds none."""
    if is_missing(value) or value == "" or value == []:
        raise FrankenError("the row has no answer")
    if isinstance(value, bool):
        yes = "yes" if value else "no"
        return Gold(
            _letters([str(value)], options) if options else yes, kind="" if options else "yes_no"
        )
    if isinstance(value, str) and reads == "any of" and value.strip().startswith("["):
        value = _listed(value)
    if isinstance(value, list | tuple):
        return _several(value, options)
    text = text_of(value, "the answer", LONGEST * 100)
    if not text:
        raise FrankenError("the row has no answer")
    text = _as_written(text, reads, options)
    if options and isinstance(value, int | float | Decimal) and not _is_option(text, options):
        text = _by_index(text, 0, options)
    if options and reads in UNSURE and _is_unsure(text, options):
        raise FrankenError(
            f"the answer {text!r} is the text of one option, and counted from 0 another one: "
            "say reads=text or reads=index from 0"
        )
    noisy = isinstance(value, float) and f"{value:.15g}" != text
    return Gold(text, (f"{value:.15g}",) if noisy and not options else ())


def _several(values: Sequence[object], options: Sequence[str]) -> Gold:
    """A list: all right options, the numbers of one answer, or texts any of which is right."""
    if options:
        return Gold(_letters([text_of(v, "an answer", LONGEST) for v in values], options))
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) == len(values) > 1:
        return Gold(f"[{', '.join(number_text(v) for v in numbers)}]")
    texts = [text for v in values if (text := text_of(v, "an answer", LONGEST))]
    if not texts:
        raise FrankenError("the row has no answer")
    return Gold(texts[0], tuple(dict.fromkeys(t for t in texts[1:] if t != texts[0])))


def _letters(texts: Sequence[str], options: Sequence[str]) -> str:
    try:
        right = frozenset().union(*(right_options(text, options) for text in texts))
    except ValueError as e:
        raise FrankenError(str(e)) from e
    return ", ".join(sorted(right))


def _as_written(text: str, reads: str, options: Sequence[str]) -> str:
    if reads == "zero or one":
        known = {"0": "no", "1": "yes"}.get(text)
        if known is None:
            raise FrankenError(f"the answer {text[:80]!r} is neither 0 nor 1")
        return known
    if reads == "last number mark":
        if "####" not in text:
            raise FrankenError("the answer has no ####")
        return text.rpartition("####")[2].strip()
    if reads in INDEX and options:
        return _by_index(text, INDEX[reads], options)
    if reads == "tagged" and "<answer>" in text:
        return extract(text) or ""
    if reads in ("boxed", "tagged") and "\\boxed" in text:
        boxed = last_boxed(text)
        if boxed is None:
            raise FrankenError("the answer has no closed \\boxed{}")
        return boxed
    return text


def _by_index(text: str, base: int, options: Sequence[str]) -> str:
    place = int(text) - base if re.fullmatch(r"\d{1,3}", text) else -1
    if not 0 <= place < len(options):
        raise FrankenError(
            f"the answer {text[:80]!r} is no index from {base} of {len(options)} options"
        )
    return LETTERS[place]


def _is_option(text: str, options: Sequence[str]) -> bool:
    try:
        return bool(right_options(text, options))
    except ValueError:
        return False


def _is_unsure(text: str, options: Sequence[str]) -> bool:
    return (
        re.fullmatch(r"\d{1,2}", text) is not None
        and text in options
        and int(text) < len(options)
        and options[int(text)] != text
    )


def how_digits_are_meant(rows: Sequence[tuple[object, Sequence[str]]]) -> str:
    """`text` or `index from 0` where the answers of a table, each with its options, can only be one
    of them; empty where they may be either, or are no digits.
    """
    digits = [(str(a), o) for a, o in rows if o and re.fullmatch(r"\d{1,3}", str(a))]
    if not digits or len(digits) < len(rows):
        return "text" if digits else ""
    texts = all(answer in options for answer, options in digits)
    indices = all(int(answer) < len(options) for answer, options in digits)
    return {(True, False): "text", (False, True): "index from 0"}.get((texts, indices), "")


def settled(gold: Gold, kind: str, options: Sequence[str]) -> tuple[str, str]:
    """(answer, type): letters for options, and a type under which the right answer is right.

    Raises FrankenError where there is none.
    """
    if len(gold.text) > LONGEST and kind != "box":
        raise FrankenError(f"an answer of {len(gold.text)} characters cannot be compared")
    if kind == "option":
        return _letters([gold.text], options), kind
    try:
        answer_type = kind or gold.kind or infer_type(gold.text)
        if compare(gold.text, gold.text, answer_type).score == 1:
            return gold.text, answer_type
    except ValueError as e:
        if kind:
            raise FrankenError(str(e)) from e
    if kind:
        raise FrankenError(f"the answer {gold.text[:80]!r} cannot be read as {kind}")
    return gold.text, "expression"
