"""Generation against transformers' own, and samples that do not depend on their batch."""

import pytest
import torch

from franken import tasks
from franken.errors import UsageError
from franken.generate import Prompt, Sampling, encode_prompts, generate
from franken.generate.native import draws, pick


def prompts(n: int, name: str = "count") -> list[Prompt]:
    return [Prompt(i.question, (i.image,), i.id) for i in tasks.get(name).items(n, 3, "test")]


@torch.no_grad()
def test_greedy_equals_transformers(sft_creature):
    asked = prompts(4) + prompts(3, "sum")
    ours = generate(sft_creature, asked, Sampling(1, 0.0, 40))
    for prompt, row in zip(asked, ours, strict=True):
        batch = encode_prompts(sft_creature, [prompt])
        del batch["position_ids"]
        sft_creature.model.model.rope_deltas = None
        batch["mm_token_type_ids"] = (batch["input_ids"] == sft_creature.model.config.image_token_id).int()
        whole = sft_creature.model.generate(**batch, max_new_tokens=40, do_sample=False)
        assert row[0].ids == whole[0, batch["input_ids"].shape[1] :].tolist()


def test_samples_do_not_depend_on_the_batch(sft_creature):
    asked = prompts(5) + prompts(5, "read")
    together = generate(sft_creature, asked, Sampling(4, 1.0, 40, seed=1), batch_size=64)
    apart = [generate(sft_creature, [p], Sampling(4, 1.0, 40, seed=1))[0] for p in reversed(asked)][::-1]
    assert [[r.ids for r in row] for row in together] == [[r.ids for r in row] for row in apart]
    first = generate(sft_creature, asked, Sampling(1, 1.0, 40, seed=1))
    assert [row[0].ids for row in first] == [row[0].ids for row in together]
    other = generate(sft_creature, asked, Sampling(4, 1.0, 40, seed=2))
    assert [[r.ids for r in row] for row in other] != [[r.ids for r in row] for row in together]


def test_random_models_never_say_image_tokens(fresh_creature):
    replies = generate(fresh_creature, prompts(4), Sampling(8, 2.0, 24))
    banned = set(fresh_creature.family.banned_token_ids(fresh_creature.model.config, fresh_creature.tokenizer))
    assert not banned & {t for row in replies for r in row for t in r.ids}
    assert all(r.truncated == (r.ids[-1] != fresh_creature.tokenizer.eos_token_id) for row in replies for r in row)


def test_tags_survive_decoding(sft_creature):
    reply = generate(sft_creature, prompts(1), Sampling(1, 0.0, 48))[0][0].text
    assert reply.startswith("<think>")
    assert reply.endswith("</answer>")


def test_picking_follows_the_distribution():
    logits = torch.tensor([[1.0, 2.0, 0.5, 3.0]])
    banned = torch.tensor([3])
    uniforms = torch.linspace(0, 1, 20001, dtype=torch.float64)[:-1]
    tokens, logprobs = pick(logits.expand(20000, -1).clone(), banned, 0.7, uniforms)
    expected = torch.softmax(torch.tensor([1.0, 2.0, 0.5]) / 0.7, 0)
    shares = torch.bincount(tokens, minlength=4) / 20000
    assert torch.allclose(shares[:3], expected, atol=1e-3)
    assert shares[3] == 0
    assert torch.allclose(logprobs.exp(), expected[tokens], atol=1e-6)


def test_draws_depend_on_their_key_alone():
    assert torch.equal(draws(["a", "b"], 5, 0)[1], draws(["b"], 5, 0)[0])
    assert not torch.equal(draws(["a"], 5, 0), draws(["a"], 5, 1))
    assert torch.equal(draws(["a"], 9, 0)[:, :5], draws(["a"], 5, 0))


def test_nothing_to_sample_is_refused(fresh_creature):
    with pytest.raises(UsageError):
        generate(fresh_creature, [], Sampling(0))
