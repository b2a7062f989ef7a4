"""How much is written in a section: the sentence term that the six designs of arXiv 2601.00215
share.

    score = tanh(number of distinct sentences) − tanh(number of repeated ones)

The paper does not say what a sentence is. Here: what stands between line breaks, semicolons, and
full stops, question or exclamation marks that end a word; compared in lower case, single-spaced,
without closing punctuation. A repeated one is every copy after the first, counted within its
section. A section that is not there (see `trainer.templates.section`) scores 0. Note that the term
saturates at three sentences: it asks for a few distinct sentences, not for length.
"""

import math
import re

from trainer.templates import section

ENDS = re.compile(r"[\n;]+|(?<=\w)[.!?]+(?=\s|$)")


def sentences(text: str) -> list[str]:
    """The sentences of a text, normalised; tags are not part of them."""
    pieces = ENDS.split(re.sub(r"</?[a-z ]+>", " ", text))
    plain = (" ".join(piece.lower().split()).strip(" .!?,") for piece in pieces)
    return [sentence for sentence in plain if sentence]


def sentence_score(text: str) -> float:
    """tanh(distinct) − tanh(repeated), in (−1, 1)."""
    found = sentences(text)
    distinct = len(set(found))
    return math.tanh(distinct) - math.tanh(len(found) - distinct)


def section_score(reply: str, tag: str) -> float:
    """`sentence_score` of a section; 0 where it is not there."""
    text = section(reply, tag)
    return 0.0 if text is None else sentence_score(text)
