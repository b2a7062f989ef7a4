"""Templates: what is well-formed, what counts as a section, and that SFT writes what rewards
read.
"""

import re

import pytest

from franken import tasks
from franken.errors import UsageError
from franken.models import creature
from franken.tasks.grading import is_well_formed
from trainer.templates import (
    DEFAULT,
    TEMPLATES,
    agreed,
    instruction,
    section,
    template,
    thought,
    well_formed,
    write,
)

ITEM = tasks.get("count").items(1, 0)[0]
THINK = TEMPLATES[DEFAULT]
FULL = TEMPLATES["describe-think-rethink-answer"]
VISUAL = TEMPLATES["visual-think-answer"]


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ("<think> a </think>", "a"),
        ("<think></think>", ""),
        ("no tag", None),
        ("<think> a", None),
        ("a </think>", None),
        ("</think> a <think>", None),
        ("<think> a </think><think> b </think>", None),
        ("<think> <think> a </think>", None),
    ],
)
def test_a_section_is_opened_once_and_closed_once(reply, text):
    assert section(reply, "think") == text


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_writes_what_it_calls_well_formed(name):
    shape = template(name)
    for strategy in ITEM.solutions:
        reply = write(shape, ITEM, strategy)
        assert well_formed(reply, shape)
        assert tasks.grade(reply, ITEM).score == 1
        said = tasks.get("count").strategy(f"<think> {thought(reply, shape)} </think>")
        assert said == (strategy if shape.sections else "none")
        others = [t for t in TEMPLATES.values() if t.sections != shape.sections and not t.bare]
        assert not any(well_formed(reply, other) for other in others)


def test_the_default_is_what_grading_calls_well_formed():
    replies = [
        "<think> a </think><answer> 1 </answer>",
        " <think>\na</think> \n <answer>1</answer> ",
        "<answer> 1 </answer>",
        "<think> a </think> so <answer> 1 </answer>",
        "<think> a <answer> 1 </answer></think>",
        "<think> a </think>",
        "<think> a </think><answer> 1 </answer><answer> 1 </answer>",
        " a </think><answer> 1 </answer>",  # the chat template opened it
        "a <think> b </think><answer> 1 </answer>",
        "a </think></think><answer> 1 </answer>",
    ]
    verdicts = [well_formed(reply, THINK) for reply in replies]
    assert verdicts == [is_well_formed(reply) for reply in replies]
    assert verdicts == [True, True, False, False, False, False, False, True, False, False]


def test_order_and_nesting_count():
    right = (
        "<image description> d </image description><think> t </think><rethink> r "
        "</rethink><answer> a </answer>"
    )
    assert well_formed(right, FULL)
    swapped = (
        "<think> t </think><image description> d </image description><rethink> r "
        "</rethink><answer> a </answer>"
    )
    assert not well_formed(swapped, FULL)
    assert well_formed("<think> a <visual> v </visual> b </think><answer> 1 </answer>", VISUAL)
    assert well_formed("a <visual> v </visual> b </think><answer> 1 </answer>", VISUAL)
    assert not well_formed("<visual> v </visual><think> a </think><answer> 1 </answer>", VISUAL)
    assert not well_formed("<think> a </think><answer> <visual> v </visual> </answer>", VISUAL)


def test_rethink_is_another_strategy():
    reply = write(FULL, ITEM, "rows")
    assert section(reply, "rethink") == ITEM.solutions["scan"]
    assert section(reply, "image description") == ITEM.description


def test_the_request_names_every_tag_and_the_creature_has_tokens_for_them():
    vocabulary = creature.build_tokenizer().get_vocab()
    for shape in TEMPLATES.values():
        asked = set(re.findall(r"<([a-z ]+)>", instruction(shape)))
        assert set(shape.tags) <= asked
        assert all(f"<{tag}>" in vocabulary for tag in shape.tags)


def test_rewards_must_agree_on_their_template():
    assert agreed(["", ""]) == DEFAULT
    assert agreed(["", "answer"]) == "answer"
    with pytest.raises(ValueError, match="different templates"):
        agreed(["answer", DEFAULT])
    with pytest.raises(UsageError, match="unknown template"):
        template("thinking")
