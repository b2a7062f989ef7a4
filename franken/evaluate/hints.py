"""Aids beside a question: what a worked solution knows, given away in parts; and whether to think.

SPARKLE (arXiv 2506.04723) asks on which axis a model is weak: give it the plan, the knowledge, or
the chain of subproblems, and see which one helps. Here all three come from the solvers' own steps,
so that they are right:

    plan           a worked solution without its values: which steps, over what, in which order
    facts          the facts of the image that the solution uses
    subquestions   what it looks up, as questions

The plan and the sub-questions hold no number, no value of a fact and no answer. Where the answer is
how many moves it takes, the length of the plan tells it: there the plan is the solution, and the
arm shows whether it is followed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from franken import tasks as puzzles
from franken.errors import UsageError
from franken.tasks.puzzle import Facts

if TYPE_CHECKING:
    from franken.tasks import Item, Puzzle

HINTS = ("plan", "facts", "subquestions")
INSTRUCTIONS = {
    "think": "Think step by step between <think> and </think>, then answer between <answer> and "
    "</answer>.",
    "no-think": "Do not think; answer at once between <answer> and </answer>.",
}
AIDS: tuple[str, ...] = (*HINTS, *INSTRUCTIONS)


def puzzle_of(item: Item) -> Puzzle | None:
    """The puzzle an item was made from, which can say more about it; None for an item of public
    data.
    """
    if item.state is None or item.query is None:
        return None
    try:
        return puzzles.get(item.task)
    except UsageError:
        return None


def instruction(aid: str) -> str:
    """The sentence behind the question that asks to think, or not to; empty for other aids."""
    return INSTRUCTIONS.get(aid, "")


def hint(item: Item, aid: str) -> str | None:
    """The text of a hint; None for an item without worked solutions or facts, and for aids that are
    no hints.
    """
    puzzle = puzzle_of(item)
    if puzzle is None or aid not in HINTS or not item.solutions:
        return None
    facts = puzzle.facts(item.state)
    chain = next(iter(item.solutions.values()))
    slots = needed_slots(chain, facts)
    if aid == "facts":
        return " ".join(f"{slot} {facts[slot]}" for slot in slots)
    if aid == "subquestions":
        return " ".join(f"What is {slot}?" for slot in slots)
    return without_values(chain, facts, item.answer)


def needed_slots(chain: str, facts: Facts) -> list[str]:
    """The slots that a worked solution names, in its order; all of them where it names none."""
    words = list(dict.fromkeys(re.findall(r"[\w,.()\[\]-]+", chain)))
    named = [word for word in words if word in facts]
    return named or list(facts)


def without_values(chain: str, facts: Facts, answer: str) -> str:
    """A chain of thought without the words of facts, numbers, and the answer; names of slots stay,
    but for the answer's.
    """
    values = {word for value in facts.values() for word in value.lower().split()} | set(
        answer.lower().split()
    )
    words = chain.split()
    end = len(answer.split())
    if words[-end:] == answer.split():
        words = words[:-end]
    return " ".join(
        w
        for w in words
        if w in facts or not (w.lower().strip(";,.") in values or re.search(r"[\d_/]", w))
    )
