"""Generation against transformers' own, and samples that do not depend on their batch."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from franken import tasks
from franken.errors import UsageError
from franken.generate import Native, Prompt, Sampling, encode_prompts, generate, native
from franken.generate.engine import raw_ids
from franken.generate.native import batch_order, draws, pick
from franken.models.loading import load, wrap
from franken.models.tiny import tiny, tiny_batch


def prompts(n: int, name: str = "count") -> list[Prompt]:
    return [Prompt(i.question, (i.image,), i.id) for i in tasks.get(name).items(n, 3, "test")]


@torch.no_grad()
def test_greedy_equals_transformers(sft_creature):
    asked = prompts(4) + prompts(3, "sum")
    ours = generate(sft_creature, asked, Sampling(1, 0.0, 40))
    for prompt, row in zip(asked, ours, strict=True):
        batch = dict(encode_prompts(sft_creature, [prompt]))
        del batch["position_ids"]
        sft_creature.model.model.rope_deltas = None
        batch["mm_token_type_ids"] = (
            batch["input_ids"] == sft_creature.model.config.image_token_id
        ).int()
        whole = sft_creature.model.generate(**batch, max_new_tokens=40, do_sample=False)
        assert row[0].ids == whole[0, batch["input_ids"].shape[1] :].tolist()


def test_samples_do_not_depend_on_the_batch(sft_creature):
    asked = prompts(5) + prompts(5, "read")
    together = generate(sft_creature, asked, Sampling(4, 1.0, 40, seed=1), batch_size=64)
    apart = [generate(sft_creature, [p], Sampling(4, 1.0, 40, seed=1))[0] for p in reversed(asked)][
        ::-1
    ]
    assert [[r.ids for r in row] for row in together] == [[r.ids for r in row] for row in apart]
    first = generate(sft_creature, asked, Sampling(1, 1.0, 40, seed=1))
    assert [row[0].ids for row in first] == [row[0].ids for row in together]
    other = generate(sft_creature, asked, Sampling(4, 1.0, 40, seed=2))
    assert [[r.ids for r in row] for row in other] != [[r.ids for r in row] for row in together]


def test_random_models_never_say_image_tokens(fresh_creature):
    replies = generate(fresh_creature, prompts(4), Sampling(8, 2.0, 24))
    banned = set(
        fresh_creature.family.banned_token_ids(
            fresh_creature.model.config, fresh_creature.tokenizer
        )
    )
    assert not banned & {t for row in replies for r in row for t in r.ids}
    assert all(
        r.truncated == (r.ids[-1] != fresh_creature.tokenizer.eos_token_id)
        for row in replies
        for r in row
    )


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


def test_n_samples_equal_n_runs_of_one(sft_creature):
    asked = prompts(4) + prompts(4, "sum") + [Prompt("How many", (), "short")]
    together = generate(sft_creature, asked, Sampling(4, 1.0, 40, seed=1), batch_size=16)
    for i in range(4):
        alone = generate(sft_creature, asked, Sampling(1, 1.0, 40, seed=1, first=i), batch_size=3)
        assert [row[0].ids for row in alone] == [row[i].ids for row in together]
        for one, many in zip(alone, together, strict=True):
            assert np.allclose(one[0].logprobs, many[i].logprobs, atol=1e-4)
    assert len({tuple(r.ids) for r in together[0]}) > 1


def test_unexpanded_ids_are_the_text(sft_creature):
    item = tasks.get("count").items(1, 3, "test")[0]
    two = Prompt(item.question, (item.image, item.image.resize((140, 84))), "two")
    asked = [*prompts(3), two, Prompt("How many red", (), "blind")]
    as_ids = [
        Prompt(
            "", p.images, p.key, tuple(raw_ids(sft_creature.processor, sft_creature.tokenizer, p))
        )
        for p in asked
    ]
    marks = [p.ids.count(sft_creature.model.config.image_token_id) for p in as_ids]
    assert marks == [1, 1, 1, 2, 0]
    ours, theirs = encode_prompts(sft_creature, as_ids), encode_prompts(sft_creature, asked)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    drawn, expected = (generate(sft_creature, ps, Sampling(2, 1.0, 20)) for ps in (as_ids, asked))
    assert drawn == expected
    alone = encode_prompts(sft_creature, [asked[0]]).input_ids[0].tolist()
    assert drawn[0][1].prompt_ids == alone


def test_placeholders_that_do_not_match_the_images_are_refused(sft_creature):
    seeing = prompts(1)[0]
    ids = raw_ids(sft_creature.processor, sft_creature.tokenizer, seeing)
    with pytest.raises(UsageError, match="1 image placeholders for 2"):
        generate(sft_creature, [Prompt("", seeing.images * 2, "", tuple(ids))], Sampling())


def whole_text(loaded, ids):
    return loaded.tokenizer.decode([t for t in ids if t not in loaded.tokenizer.all_special_ids])


@pytest.mark.parametrize("stop", [("</think>",), (" total", " so"), ("r2c", "l 4"), ("☃",)])
def test_stop_strings_end_a_sample_where_its_text_first_has_one(sft_creature, stop):
    asked = prompts(6)
    free = generate(sft_creature, asked, Sampling(4, 1.0, 40))
    stopped = generate(sft_creature, asked, Sampling(4, 1.0, 40, stop=stop))
    for a, b in zip(
        [r for row in free for r in row], [r for row in stopped for r in row], strict=True
    ):
        ends = [
            t
            for t in range(1, len(a.ids) + 1)
            if any(s in whole_text(sft_creature, a.ids[:t]) for s in stop)
        ]
        assert b.ids == (a.ids[: ends[0]] if ends else a.ids)
        assert b.text == min((a.text.split(s)[0] for s in stop), key=len).strip()
        assert b.finish == ("stop" if ends else a.finish)
    said = sum(len(r.ids) for row in stopped for r in row)
    assert said < sum(len(r.ids) for row in free for r in row) or stop == ("☃",)


def test_stop_strings_in_bytes_and_spaces(fresh_creature):
    free = [r for row in generate(fresh_creature, prompts(3), Sampling(8, 2.0, 40)) for r in row]
    stop = tuple(r.text[12:15] for r in free[:4])
    stopped = [
        r
        for row in generate(fresh_creature, prompts(3), Sampling(8, 2.0, 40, stop=stop))
        for r in row
    ]
    for a, b in zip(free, stopped, strict=True):
        ends = [
            t
            for t in range(1, len(a.ids) + 1)
            if any(s in whole_text(fresh_creature, a.ids[:t]) for s in stop)
        ]
        assert b.ids == (a.ids[: ends[0]] if ends else a.ids)
    assert any(len(b.ids) < len(a.ids) for a, b in zip(free, stopped, strict=True))


def test_stop_ids_end_a_sample(sft_creature):
    end = sft_creature.tokenizer.convert_tokens_to_ids("</think>")
    free = generate(sft_creature, prompts(4), Sampling(2, 1.0, 40))
    stopped = generate(sft_creature, prompts(4), Sampling(2, 1.0, 40, stop_ids=(end,)))
    for a, b in zip(
        [r for row in free for r in row], [r for row in stopped for r in row], strict=True
    ):
        assert b.ids == (a.ids[: a.ids.index(end) + 1] if end in a.ids else a.ids)
        assert b.text == a.text.split("</think>")[0].strip()
        assert not b.truncated


def test_batches_are_by_length_only_where_it_saves():
    assert list(batch_order([5, 5, 5, 5], 2)) == [0, 1, 2, 3]
    assert list(batch_order([20, 21, 20, 21], 2)) == [0, 1, 2, 3]
    assert list(batch_order([10, 90, 10, 90], 2)) == [1, 3, 0, 2]


def test_long_and_short_prompts_come_back_in_order(sft_creature):
    asked = [
        p
        for pair in zip(prompts(4), [Prompt("What", (), f"{i}") for i in range(4)], strict=True)
        for p in pair
    ]
    heard = []
    drawn = Native(sft_creature, batch_size=4).generate(
        asked, Sampling(2, 1.0, 12), on_batch=heard.append
    )
    assert sum(heard) == len(asked)
    for prompt, row in zip(asked, drawn, strict=True):
        assert [r.ids for r in row] == [
            r.ids for r in generate(sft_creature, [prompt], Sampling(2, 1.0, 12))[0]
        ]


def test_random_numbers_are_where_the_logits_are(monkeypatch):
    """Those on the CPU cannot be indexed by the rows of another device. `meta` stands for one."""

    class Reached(Exception):
        pass

    def decode(loaded, cache, logits, mask, last, uniforms, sampling):
        raise Reached(uniforms.device.type)

    monkeypatch.setattr(native, "decode", decode)
    model = tiny("qwen2")

    def elsewhere(**_):
        return SimpleNamespace(logits=torch.zeros(1, 1, 96, device="meta"))

    elsewhere.config = model.config
    loaded = replace(wrap(model, None, None), model=elsewhere)
    with pytest.raises(Reached, match="meta"):
        native.sample(loaded, tiny_batch(model), ["a"], Sampling(2, 1.0, 3))


@pytest.mark.gpu
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_gpu_says_what_the_cpu_says(sft_creature, temperature):
    on_gpu = load("creature:sft", device="cuda")
    sampling = Sampling(3, temperature, 40, seed=1)
    ours, theirs = (generate(x, prompts(4), sampling) for x in (on_gpu, sft_creature))
    assert [[r.ids for r in row] for row in ours] == [[r.ids for r in row] for row in theirs]
