"""Routing agreement of two mixtures: a naive loop, one model twice, and what was planted."""

import pandas as pd
import pytest
import torch
from hand_built import hand_built

from franken.errors import UsageError
from franken.models.creature import build_tokenizer
from franken.models.loading import wrap
from franken.models.tiny import save_tiny, tiny
from franken.probe import routing
from franken.probe.methods import get
from franken.probe.plan import plan_probe
from franken.probe.routing import agreement_of, chosen_experts, routing_agreement

MIXTURES = ("qwen3_vl_moe", "qwen3_5_moe")


def model_with(model_type, name=None, at=None, by=0.0):
    model = tiny(model_type)
    if name:
        with torch.no_grad():
            model.get_decoder().get_parameter(name)[at] += by
    return model


def batch_of(model_type):
    return hand_built(model_type).append([7, 8, 9])


@torch.no_grad()
def naive(model, batch, layer, k=2):
    """The experts of every token, one by one, from the router's input."""
    inputs, chosen = [], []
    gate = model.get_decoder().layers[layer].mlp.gate
    handle = gate.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    model(**batch, use_cache=False)
    handle.remove()
    for token in inputs[0].reshape(-1, 32):
        scores = [float(token @ gate.weight[expert]) for expert in range(4)]
        chosen.append(set(sorted(range(4), key=lambda e: -scores[e])[:k]))
    return chosen


@pytest.mark.parametrize("model_type", MIXTURES)
def test_agreement_is_that_of_a_naive_loop(model_type):
    models = [tiny(model_type, seed) for seed in (0, 1)]
    batch = batch_of(model_type)
    image = batch.is_image[0]
    reply = torch.arange(batch.tokens) >= batch.tokens - 3
    one, two = (chosen_experts(model, batch) for model in models)
    assert list(one) == ([1, 2] if model_type == "qwen3_vl_moe" else [0, 1, 2])
    for layer in one:
        sets = [naive(model, batch, layer) for model in models]
        same = [a == b for a, b in zip(*sets, strict=True)]
        found = agreement_of(one[layer], two[layer], 4, image=image, reply=reply)
        assert found.agreement == pytest.approx(sum(same) / len(same))
        assert 0 < found.agreement < 1
        shared = [len(a & b) / 2 for a, b in zip(*sets, strict=True)]
        assert found.overlap == pytest.approx(sum(shared) / len(shared))
        assert found.agreement_reply == pytest.approx(sum(same[-3:]) / 3)
        of_image = [s for s, i in zip(same, image.tolist(), strict=True) if i]
        assert found.agreement_image == pytest.approx(sum(of_image) / len(of_image))
        load = [sum(e in chosen for chosen in sets[1]) / len(same) for e in range(4)]
        assert found.load_second == pytest.approx(load)
        assert sum(found.load) == pytest.approx(2)


def planted(monkeypatch, model_type, *change):
    """Agreement of the tiny model with itself, changed."""
    batch, loaded = batch_of(model_type), wrap(tiny(model_type), None, build_tokenizer())
    other = wrap(model_with(model_type, *change), None, build_tokenizer())
    spans = type("Spans", (), {"answer": slice(batch.tokens - 3, batch.tokens)})
    monkeypatch.setattr(routing, "reasoning_batch", lambda *_: (batch, spans))
    return routing_agreement(loaded, other, None, [])


@pytest.mark.parametrize("model_type", MIXTURES)
def test_a_model_agrees_with_itself(monkeypatch, model_type):
    found = planted(monkeypatch, model_type)
    assert {a.agreement for a in found.values()} == {a.overlap for a in found.values()} == {1.0}


def test_an_expert_changes_the_routing_above_it(monkeypatch):
    change = ("layers.1.mlp.experts.down_proj", 2, 3.0)
    found = planted(monkeypatch, "qwen3_vl_moe", *change)
    assert found[1].agreement == 1
    assert found[2].agreement < 1


def test_a_router_changes_its_own_layer_and_its_expert_is_named(monkeypatch):
    """Expert 3 of layer 1 was made to repel what it got: its share of the tokens falls most."""
    weight = tiny("qwen3_vl_moe").get_decoder().layers[1].mlp.gate.weight.detach()
    change = ("layers.1.mlp.gate.weight", 3, -2 * weight[3])
    found = planted(monkeypatch, "qwen3_vl_moe", *change)
    assert found[1].agreement < 1
    columns = {name: getattr(found[1], name) for name in ("load", "load_second")}
    row = {"method": "routing", "layer": 1, "error": None, "ineligible": None} | columns
    (named,) = get("routing").results(pd.DataFrame([row]))["rerouted"]
    assert (named["layer"], named["expert"]) == (1, 3)


def test_routing_is_refused_for_models_without_experts():
    with pytest.raises(UsageError, match="routing is not defined for creature-sft"):
        plan_probe("creature:sft", methods=["routing"], against="creature:base", samples=1)


def test_checkpoints_in_two_layouts_are_of_one_architecture(tmp_path):
    split = save_tiny(tmp_path / "split", "qwen3_5_moe")
    fused = save_tiny(tmp_path / "fused", "qwen3_5_moe", 1, original_names=False)
    plan = plan_probe(split, methods=["routing"], against=fused, samples=1, task_names=["read"])
    assert plan.against is not None
