"""Cross-sampling: never and always are the two models' own samples token for token; rules take what
they say; a naive loop agrees.
"""

import numpy as np
import pytest
import torch

from franken import tasks
from franken.errors import FrankenError
from franken.forks import divergence
from franken.forks.cross import (
    always,
    at_places,
    cross_sample,
    never,
    where_they_part,
    where_unsure,
)
from franken.generate import Prompt, Sampling, encode_prompts, generate
from franken.generate.engine import sample_names
from franken.generate.native import draws
from franken.models.loading import load

DRAWN = Sampling(2, 1.0, 40, seed=5)


def prompts(n: int, name: str = "count") -> list[Prompt]:
    return [Prompt(i.question, (i.image,), i.id) for i in tasks.get(name).items(n, 3, "test")]


@pytest.fixture(scope="module")
def base():
    return load("creature:base", device="cpu")


@pytest.fixture(scope="module")
def asked():
    return prompts(3) + prompts(3, "sum")


def ids(rows) -> list[list[int]]:
    """Of responses, or of crossed replies."""
    return [getattr(x, "response", x).ids for row in rows for x in row]


def crossed(writer, other, asked, rule, budget=99, sampling=DRAWN):
    rows = [budget] * (len(asked) * sampling.n) if isinstance(budget, int) else budget
    return cross_sample(writer, other, asked, sampling, rule, rows)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_never_and_always_are_the_models_own_samples(sft_creature, base, asked, temperature):
    sampling = Sampling(1 if temperature == 0 else 2, temperature, 40, seed=5)
    own, theirs = (generate(m, asked, sampling) for m in (sft_creature, base))
    assert ids(own) != ids(theirs)
    first = crossed(sft_creature, base, asked, never, sampling=sampling)
    second = crossed(sft_creature, base, asked, always, sampling=sampling)
    assert ids(first) == ids(own)
    assert ids(second) == ids(theirs)
    assert all(not c.places and not c.changed for row in first for c in row)
    assert all(c.places == list(range(len(c.response.ids))) for row in second for c in row)
    for mine, its in zip(first, own, strict=True):
        assert np.allclose(mine[0].response.logprobs, its[0].logprobs, atol=1e-5)
        assert mine[0].response.text == its[0].text


def test_a_budget_of_none_is_never_and_of_one_is_one_place(sft_creature, base, asked):
    assert ids(crossed(sft_creature, base, asked, always, 0)) == ids(
        crossed(sft_creature, base, asked, never)
    )
    once = crossed(sft_creature, base, asked, where_they_part(0.05), 1)
    assert {len(c.places) for row in once for c in row} == {1}


def test_fixed_places_are_taken_in_each_row(sft_creature, base, asked):
    wanted = [{0}, {1, 2}, set(), {3}] * 3
    rows = crossed(sft_creature, base, asked, at_places(wanted))
    found = [set(c.places) for row in rows for c in row]
    assert found == [
        {p for p in places if p < len(c.response.ids)}
        for places, c in zip(wanted, [c for row in rows for c in row], strict=True)
    ]
    assert ids(rows)[2] == ids(crossed(sft_creature, base, asked, never))[2]


@torch.no_grad()
def test_a_rule_reads_what_both_models_say_of_the_mixed_reply(sft_creature, base):
    """Every token again, by whole passes over what had been written before it."""
    item = prompts(1, "sum")[0]
    one, wanted = Sampling(1, 1.0, 16, seed=2), 0.2
    (row,) = crossed(sft_creature, base, [item], where_they_part(wanted), sampling=one)
    said, taken = row[0].response.ids, row[0].places
    assert taken
    assert len(taken) < len(said)
    uniforms = draws(sample_names(item.key, one), 16, one.seed)[0]
    banned = sft_creature.banned_ids
    changed = 0
    for t, token in enumerate(said):
        a, b = (
            divergence.log_probs(
                m.model(**encode_prompts(m, [item]).append(said[:t])).logits[0, -1:], banned
            )
            for m in (sft_creature, base)
        )
        assert (float(divergence.js(a, b)) > wanted) == (t in taken)
        mine, its = (
            int(torch.searchsorted(p.exp().cumsum(-1)[0], uniforms[t], right=True)) for p in (a, b)
        )
        assert token == (its if t in taken else mine)
        changed += t in taken and mine != its
    assert row[0].changed == changed


def test_where_the_writer_is_unsure_is_its_own_entropy(sft_creature, base, asked):
    rows = len(asked) * DRAWN.n
    sure = crossed(sft_creature, base, asked, where_unsure([50.0] * rows))
    assert all(not c.places for row in sure for c in row)
    all_of = crossed(sft_creature, base, asked, where_unsure([-1.0] * rows))
    assert ids(all_of) == ids(generate(base, asked, DRAWN))
    some = crossed(sft_creature, sft_creature, asked, where_unsure([0.3] * rows))
    places = [c.places for row in some for c in row]
    assert any(places)
    assert ids(some) == ids(generate(sft_creature, asked, DRAWN))  # its own tokens, taken or not


def test_models_that_read_a_prompt_differently_are_refused(sft_creature):
    from franken.models import creature
    from franken.models.loading import wrap

    processor = creature.build_processor()
    template = processor.chat_template.replace("<|im_start|>assistant", "<|im_start|>user")
    processor.tokenizer.chat_template = processor.chat_template = template
    other = wrap(sft_creature.model, processor, processor.tokenizer)
    with pytest.raises(FrankenError, match="as different tokens"):
        crossed(sft_creature, other, prompts(1), never)
