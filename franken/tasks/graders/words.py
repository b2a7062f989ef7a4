"""Words, and yes or no."""

import re

from franken.tasks.graders.reply import narrow
from franken.tasks.graders.spelling import normalise
from franken.tasks.graders.verdict import Verdict, decide, refuse

SUBJECT = re.compile(
    r"^(?:so |thus |therefore |hence )?,? ?(?:it|this|that|these|they|the [a-z ]{1,40}?)(?:'s| is"
    r"| are| was) "
)
LEAD = re.compile(r"^(?:so|thus|therefore|hence|finally)\b,?\s*", re.IGNORECASE)
ARTICLE = re.compile(r"^(?:an?|the) (?=\S)")
NO_MATTER = re.compile(r"[\u2010-\u2015]")  # hyphens and dashes are one
SPACED = re.compile(r"(?<=\d)\s*([-:/.])\s*(?=\d)")
YES, NO = {"yes", "true"}, {"no", "false"}
ALONE = re.compile(r"(?:(yes|yeah|yep|correct)|no|nope|incorrect)\W*", re.IGNORECASE)
HAN = {"是": "yes", "是的": "yes", "对": "yes", "正确": "yes", "有": "yes"}
HAN |= {"不是": "no", "否": "no", "不": "no", "不对": "no", "错误": "no", "没有": "no"}
FOLLOWS_YES_NO = re.compile(
    r"(?:it|there|the|this|that|these|those|he|she|they|because|since|as|we|i|you|both|neither)"
)
SAID = re.compile(
    r"['\"(\[]*(yes|no|true|false)\b['\")\]]*\s*([/,.;:!?—–-]?)\s*(\w*)", re.IGNORECASE
)


def compare_word(text: str, gold: str) -> Verdict:
    """Words: the whole answer, or all that follows its mark or its subject ("the colour is red");
    articles, quotes, and spaces inside of dates and ranges do not count.
    """
    right = word_of(gold)
    for reading in readings(text):
        if word_of(reading) == right:
            return Verdict(1.0, f"{reading!r} is right", reading, right, "spelling")
    return decide(False, normalise(text), right, "spelling")


def readings(text: str) -> list[str]:
    """The texts that a sentence may give as its answer: itself, after its mark, after its
    subject.
    """
    rest = LEAD.sub("", narrow(text)).strip()
    lowered = normalise(rest)
    subject = SUBJECT.sub("", lowered)
    return list(dict.fromkeys([text.strip(), rest, lowered, subject]))


def word_of(text: str) -> str:
    """A word or phrase without case, article, quotes and end marks."""
    bare = normalise(NO_MATTER.sub("-", text)).strip("'\"“”‘’?() []{}").rstrip(".!;,:")
    return SPACED.sub(r"\1", ARTICLE.sub("", bare))


def compare_yes_no(text: str, gold: str) -> Verdict:
    """Yes or no (true, false) as the first word of the answer, unless both are said or the word
    means something else.
    """
    right = read_yes_no(gold)
    if right is None:
        raise ValueError(f"the right answer {gold!r} is neither yes nor no")
    answer = read_yes_no(text)
    if answer is None:
        return refuse(f"neither yes nor no in {text!r}")
    return decide(answer == right, answer, right, "yes or no")


def read_yes_no(text: str) -> str | None:
    """`yes` or `no`, or None: "no idea" and "yes and no" are neither."""
    for reading in readings(text):
        han = HAN.get(re.split(r"[,.;!\s]", reading)[0])
        if han:
            return han
        if alone := ALONE.fullmatch(reading):
            return "yes" if alone[1] else "no"
        match = SAID.match(reading)
        if not match:
            continue
        word, mark, follower = match[1].lower(), match[2], match[3].lower()
        if (mark == "/" or follower in ("and", "or")) or (
            not mark and follower and not FOLLOWS_YES_NO.fullmatch(follower)
        ):
            return None
        if follower in (NO if word in YES else YES) or (mark == "." and follower.isdigit()):
            return None  # "No. 5" is a number
        return "yes" if word in YES else "no"
    return None
