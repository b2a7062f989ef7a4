"""Rows that share: swaps and ablations of a batch against one at a time, and against hand-written
ones.
"""

import pytest
import torch
from spelled import ABLATIONS, ablations_of, swap_sets

from franken import tasks
from franken.errors import UsageError
from franken.generate import Prompt, Sampling, encode_prompts, generate
from franken.models.hooks import edit
from franken.probe import ablate as ablation
from franken.probe.ablate import Ablation, ablate, calibrate
from franken.probe.methods import get as get_method
from franken.probe.scores import parting, same_answer
from franken.probe.swap import encode_pair, stackable, swapped_answers, swapped_batch
from franken.tasks import Item

DEPTH = 8


def prompts(name: str, count: int = 4) -> list[tuple[Prompt, Prompt]]:
    pairs = tasks.get(name).pairs(count, 0)
    return [
        tuple(Prompt(i.question, (i.image,), i.id) for i in (p.target, p.source)) for p in pairs
    ]


def weights(loaded) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}


def unchanged(loaded, before) -> bool:
    now = loaded.model.state_dict()
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in loaded.model.modules())
    return all(torch.equal(now[k], v) for k, v in before.items()) and hooks == 0


def test_pairs_of_one_batch_answer_as_alone_and_in_small_batches(sft_creature):
    asked = prompts("read")
    encoded = [encode_pair(sft_creature, *pair) for pair in asked]
    same = [pair for pair in encoded if stackable(encoded[0], pair)]
    assert len(same) > 1
    sets = [
        frozenset(),
        *swap_sets("suffix", range(DEPTH), DEPTH),
        *swap_sets("single", range(DEPTH), DEPTH),
    ]
    together = swapped_batch(sft_creature, same, sets, 30)
    alone = [swapped_batch(sft_creature, [pair], sets, 30)[0] for pair in same]
    small = swapped_batch(sft_creature, same, sets, 30, batch_size=5)
    ids = [
        [[row.answer.ids for row in answers] for answers in rows]
        for rows in (together, alone, small)
    ]
    assert ids[0] == ids[1] == ids[2]
    assert len({tuple(row) for row in ids[0][0]}) > 1


def test_the_model_is_as_before_also_after_an_exception(sft_creature, monkeypatch):
    before = weights(sft_creature)
    decoder = sft_creature.model.get_decoder().config
    implementation = decoder._attn_implementation
    target, source = prompts("sum", 1)[0]
    swapped_answers(
        sft_creature, target, source, swap_sets("single", range(DEPTH), DEPTH), max_new_tokens=4
    )
    ablate(sft_creature, target, get_method("zero").at(range(DEPTH)), max_new_tokens=4)
    assert unchanged(sft_creature, before)

    def fail(*_, **__):
        raise RuntimeError("in the middle")

    monkeypatch.setattr("franken.probe.swap.decode_rows", fail)
    monkeypatch.setattr(ablation, "decode_rows", fail)
    with pytest.raises(RuntimeError, match="middle"):
        swapped_answers(sft_creature, target, source, [frozenset([1])], max_new_tokens=4)
    with pytest.raises(RuntimeError, match="middle"):
        ablate(sft_creature, target, [Ablation(1)], max_new_tokens=4)
    assert unchanged(sft_creature, before)
    assert decoder._attn_implementation == implementation


@torch.no_grad()
def by_hand(loaded, prompt, change, steps):
    """The whole row anew for every token, without a cache, under hooks that `change` makes from the
    row's length.
    """
    batch = encode_prompts(loaded, [prompt])
    banned = loaded.family.banned_token_ids(loaded.model.config, loaded.tokenizer)
    positions, said = batch["position_ids"], []
    while len(said) < steps:
        row = dict(batch)
        row["input_ids"] = torch.cat(
            [batch["input_ids"], torch.tensor([said], dtype=torch.long)], 1
        )
        row["attention_mask"] = torch.ones_like(row["input_ids"])
        row["position_ids"] = torch.cat(
            [positions, positions[..., -1:] + torch.arange(1, len(said) + 1)], -1
        )
        with edit(change(row["input_ids"].shape[1])):
            logits = loaded.model(**row, use_cache=False).logits[0, -1]
        logits[banned] = -torch.inf
        said.append(int(logits.argmax()))
        if said[-1] == loaded.tokenizer.eos_token_id:
            break
    return said


@pytest.mark.parametrize("method", ABLATIONS, ids=lambda method: method.name)
def test_ablations_equal_those_written_by_hand(sft_creature, method):
    layers = loaded_layers = sft_creature.family.decoder_layers(sft_creature.model)
    asked = [target for target, _ in prompts("read", 3)]
    calibration = calibrate(sft_creature, asked[1:], range(DEPTH), seed=5)
    rows = ablate(
        sft_creature,
        asked[0],
        method.at(range(DEPTH)),
        max_new_tokens=12,
        calibration=calibration,
    )
    assert rows[0].ids == generate(sft_creature, [asked[0]], Sampling(1, 0.0, 12))[0][0].ids
    for layer in (0, 3, 7):
        key = method.site, layer
        module = {
            "layer": layers[layer],
            "attention": layers[layer].self_attn,
            "mlp": loaded_layers[layer].mlp,
        }[key[0]]
        table = ablation.replacements([Ablation(layer, method.kind, key[0])], calibration, 100)

        def change(length, module=module, key=key, table=table):
            def replaced(output, context):
                kept = context.input if key[0] == "layer" else torch.zeros_like(output)
                return kept + sum(t[:length] for t in table.values())

            return {module: replaced}

        assert rows[layer + 1].ids == by_hand(sft_creature, asked[0], change, 12)


def test_calibration_is_the_mean_and_spread_of_what_a_site_adds(sft_creature):
    asked = [target for target, _ in prompts("sum", 2)]
    calibration = calibrate(sft_creature, asked, [2])
    layers = sft_creature.family.decoder_layers(sft_creature.model)
    added = {"layer": [], "attention": [], "mlp": []}
    with torch.no_grad():
        for prompt in asked:
            with edit(
                {
                    layers[2]: lambda o, c: added["layer"].append((o - c.input)[0]) or o,
                    layers[2].self_attn: lambda o, c: added["attention"].append(o[0]) or o,
                    layers[2].mlp: lambda o, c: added["mlp"].append(o[0]) or o,
                }
            ):
                sft_creature.model(**encode_prompts(sft_creature, [prompt]))
    for site, values in added.items():
        rows = torch.cat(values)
        assert torch.allclose(calibration.mean[site, 2], rows.mean(0), atol=1e-5)
        assert torch.allclose(calibration.spread[site, 2], rows.std(0, unbiased=False), atol=1e-4)


def test_noise_is_seeded_and_ablations_do_not_depend_on_the_batch(sft_creature):
    asked = [target for target, _ in prompts("sum", 2)]
    methods = ablations_of(range(DEPTH))
    seeds = [calibrate(sft_creature, asked, range(DEPTH), seed=s) for s in (0, 0, 1)]
    rows = [
        ablate(sft_creature, asked[0], methods, max_new_tokens=10, calibration=c) for c in seeds
    ]
    small = ablate(
        sft_creature, asked[0], methods, max_new_tokens=10, calibration=seeds[0], batch_size=4
    )
    ids = [[r.ids for r in answers] for answers in (*rows, small)]
    assert ids[0] == ids[1] == ids[3]
    assert ids[0] != ids[2]


def test_wrong_ablations(sft_creature):
    with pytest.raises(UsageError, match="unknown method"):
        get_method("zer")
    with pytest.raises(UsageError, match="calibration"):
        ablate(sft_creature, prompts("read", 1)[0][0], get_method("mean").at([0]), max_new_tokens=2)
    with pytest.raises(UsageError, match="calibrate"):
        calibrate(sft_creature, [], [0])


@torch.no_grad()
def test_the_distributions_are_those_after_what_both_answers_share(sft_creature):
    target, source = next(p for p in prompts("sum", 6) if p[0].images != p[1].images)
    loaded = sft_creature
    plain, other = (generate(loaded, [p], Sampling(1, 0.0, 40))[0][0].ids for p in (target, source))
    place = parting(plain, other)
    assert place
    sets = [frozenset(), frozenset(range(DEPTH)), frozenset([3])]
    rows = swapped_batch(loaded, [encode_pair(loaded, target, source)], sets, 40, measure=True)[0]
    logp = []
    for prompt in (target, source):
        batch = dict(encode_prompts(loaded, [prompt]))
        positions = batch["position_ids"]
        batch["input_ids"] = torch.cat([batch["input_ids"], torch.tensor([plain[:place]])], 1)
        batch["attention_mask"] = torch.ones_like(batch["input_ids"])
        batch["position_ids"] = torch.cat(
            [positions, positions[..., -1:] + torch.arange(1, place + 1)], -1
        )
        logp.append(loaded.model(**batch).logits[0, -1])
    banned = torch.tensor(loaded.family.banned_token_ids(loaded.model.config, loaded.tokenizer))
    allowed = torch.ones(len(logp[0]), dtype=torch.bool)
    allowed[banned] = False
    p, q = (torch.distributions.Categorical(logits=x[allowed]) for x in logp)
    assert rows[0].kl == pytest.approx(0.0, abs=1e-6)
    assert rows[1].kl == pytest.approx(float(torch.distributions.kl_divergence(p, q)), rel=1e-3)
    for row, x in zip(rows, logp, strict=False):
        assert row.logit_difference == pytest.approx(
            float(x[plain[place]] - x[other[place]]), rel=1e-3
        )
    assert rows[0].logit_difference > 0 > rows[1].logit_difference


def test_answers_are_compared_as_their_task_does():
    def item(task, **state):
        return Item("i", task, "?", "", state=state)

    box = item("grounding", iou_threshold=0.5)
    assert same_answer("0,0,10,10", "[0, 0, 10, 9]", box)
    assert not same_answer("0,0,10,10", "20,20,30,30", box)
    assert not same_answer("0,0,10,10", "0,0,10,9", item("grounding", iou_threshold=0.95))
    assert not same_answer("0,0,10,10", "there is none", box)
    assert same_answer("There are 3 items.", "3", item("counting"))
    assert not same_answer("There are 3 items.", "There are 13 items.", item("counting"))
    assert same_answer("Yes, it is.", "yes", item("recognition"))
    assert not same_answer("Yes.", "No, it is not.", item("recognition"))
    assert same_answer("Word.", "word", item("ocr"))
    assert not same_answer("word", "words", item("ocr"))
    assert parting([1, 2, 3], [1, 2, 4]) == 2
    assert parting([1, 2], [1, 2]) is None
    assert parting([1, 2], [1, 2, 3]) == 2
