"""The shape of a reply: which sections it has, in which order, and how a worked solution is written
in it.

A section is `<tag> text </tag>`. A section that is missing, opened twice, never closed or out of
its section counts as not there (`section` returns None): what the reward paper (arXiv 2601.00215)
leaves open is decided so for all rewards.

A reward and its template belong together (`trainer.rewards`): what is paid for must be what SFT
showed.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from franken.errors import check_known
from franken.tasks import Item
from franken.tasks.graders.reply import has_sections, opened

DESCRIPTION = "image description"
PURPOSE = {
    DESCRIPTION: "say what the image shows",
    "think": "reason about the question",
    "visual": "inside the reasoning, what you see",
    "rethink": "check the reasoning in another way",
    "answer": "only the answer",
}


@dataclass(frozen=True)
class Template:
    """Sections in their order; none where the reply is the answer alone. `inside` maps a section to
    those that stand within it. `bare`: reasoning has no tag.
    """

    name: str
    sections: tuple[str, ...]
    inside: dict[str, tuple[str, ...]] = field(default_factory=dict)
    bare: bool = False

    @property
    def tags(self) -> tuple[str, ...]:
        """All tags, those within others included."""
        return (*self.sections, *(tag for tags in self.inside.values() for tag in tags))


TEMPLATES = {
    t.name: t
    for t in (
        Template("think-answer", ("think", "answer")),
        Template("answer", ("answer",), bare=True),
        Template("direct", ()),
        Template("describe-think-answer", (DESCRIPTION, "think", "answer")),
        Template("describe-think-rethink-answer", (DESCRIPTION, "think", "rethink", "answer")),
        Template("visual-think-answer", ("think", "answer"), inside={"think": ("visual",)}),
    )
}
DEFAULT = "think-answer"


def template(name: str) -> Template:
    """A template by name. Raises UsageError."""
    check_known("template", [name], TEMPLATES)
    return TEMPLATES[name]


def section(reply: str, tag: str) -> str | None:
    """The text of a section that is opened once and closed once after that; None otherwise."""
    if reply.count(f"<{tag}>") != 1 or reply.count(f"</{tag}>") != 1:
        return None
    match = re.search(rf"<{re.escape(tag)}>(.*?)</{re.escape(tag)}>", reply, re.DOTALL)
    return match.group(1).strip() if match else None


def well_formed(reply: str, shape: Template) -> bool:
    """Whether the reply is the template's sections in order and nothing else (but for reasoning
    that has no tag). The chat template may have opened a first `<think>`.
    """
    if not shape.sections:
        return bool(reply.strip()) and "<" not in reply
    reply = opened(reply, shape.sections[0])
    return has_sections(reply, shape.sections, lead=shape.bare) and all(
        section(reply, tag) is not None and section(section(reply, outer) or "", tag) is not None
        for outer, tags in shape.inside.items()
        for tag in tags
    )


def write(shape: Template, item: Item, strategy: str) -> str:
    """A worked solution in the shape of the template, for SFT.

    The reasoning is the solution by `strategy`; what is looked at (`visual`) and described is the
    item's description, and `rethink` is the solution by the next strategy, where the item has
    several.
    """
    if not shape.sections:
        return item.answer
    chain = item.solutions[strategy]
    text = {
        DESCRIPTION: item.description,
        "think": chain,
        "answer": item.answer,
        "rethink": _other(item, strategy),
    }
    if "visual" in shape.inside.get(
        "think", ()
    ):  # the strategy's word stays first: it names the reasoning
        word, _, rest = chain.partition(" ")
        text["think"] = f"{word} <visual> {item.description} </visual> {rest}".strip()
    written = "".join(f"<{tag}> {text[tag]} </{tag}>" for tag in shape.sections)
    return f"{chain} {written}" if shape.bare else written


def _other(item: Item, strategy: str) -> str:
    names = sorted(item.solutions)
    return item.solutions[names[(names.index(strategy) + 1) % len(names)]]


def thought(reply: str, shape: Template) -> str:
    """The reasoning of a reply without its tags: the think section, or what stands before the first
    tag.
    """
    if not shape.sections:
        return ""
    text = reply.partition("<")[0] if shape.bare else section(reply, "think") or ""
    return " ".join(re.sub(r"</?[a-z ]+>", " ", text).split())


def instruction(shape: Template) -> str:
    """The request for this shape, to stand before a question. (Our own words; the paper's prompts
    are not public.)
    """
    if not shape.sections:
        return "Reply with the answer alone."
    parts = [f"<{tag}> {PURPOSE[tag]} </{tag}>" for tag in shape.sections]
    within = [
        f"Within <{outer}> put <{tag}> {PURPOSE[tag]} </{tag}>."
        for outer, tags in shape.inside.items()
        for tag in tags
    ]
    lead = (
        "Reason first, then write"
        if shape.bare
        else "Reply with exactly these sections, in this order:"
    )
    return " ".join([f"{lead} {' '.join(parts)}.", *within])


def agreed(names: Sequence[str]) -> str:
    """The one template that several need ("" needs none). Raises ValueError when they differ."""
    wanted = sorted({name for name in names if name})
    if len(wanted) > 1:
        raise ValueError(f"these rewards need different templates: {', '.join(wanted)}")
    return wanted[0] if wanted else DEFAULT
