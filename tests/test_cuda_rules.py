"""Every verb and every way of training under a GPU's rules, on a machine without one: no tensor of
the CPU meets one of the GPU, and the results are those of the CPU.
"""

import math
from copy import deepcopy
from dataclasses import replace
from functools import partial

import pytest
import torch
from cuda_rules import DEVICE, OnGpu, cuda_rules, on_gpu, on_gpus

from franken import tasks
from franken.evaluate.run import run_eval
from franken.generate import native
from franken.generate.native import Prompt, Sampling, generate
from franken.models import loading
from franken.models.loading import load
from franken.probe import run as probe_run
from franken.probe.plan import plan_probe
from franken.runs import load_run
from trainer import packing, sft_packing
from trainer.freeze import apply_freeze
from trainer.grpo import grpo_step
from trainer.recipe import parse_recipe
from trainer.sft import sft_step

WAITS = 5  # the host's, a decoded token: one reads which rows ended, transformers' masks the others


@pytest.fixture(scope="module")
def sft_creature():
    """A model of its own: what other tests hang on the modules of the shared one, a copy of them
    would lead back to the CPU.
    """
    return load("creature:sft", device="cpu")


@pytest.fixture(autouse=True)
def dense_masks(monkeypatch):
    """FlexAttention is a kernel of its own; packed rows use the dense mask, as on the CPU."""
    hidden = packing.packed_hidden
    dense = lambda loaded, inputs, segments, flex=None: hidden(loaded, inputs, segments, False)  # noqa: E731
    for module in (packing, sft_packing):
        monkeypatch.setattr(module, "packed_hidden", dense)


def prompts_of(count):
    items = tasks.get("sum").items(count, 0, split="test")
    return [Prompt(item.question, (item.image,), item.id) for item in items]


def test_the_rules():
    cpu = torch.arange(6.0).view(2, 3)
    with cuda_rules() as gpu:
        there = cpu.to("cuda:0")
        assert (there.device, there.is_cuda) == (DEVICE, True)
        assert torch.zeros(2, device=DEVICE).device == DEVICE
        with pytest.raises(RuntimeError, match="same device"):
            there + cpu
        with pytest.raises(RuntimeError, match="same device"):
            cpu[torch.tensor([0], device=DEVICE)]
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        assert not gpu.waits.total()
        assert (there[[1]] + torch.tensor(1.0)).cpu().tolist() == [[4.0, 5.0, 6.0]]
        before = gpu.waits.total()
        assert there.sum().item() == 15
        assert len(there[there > 2]) == 3
        assert gpu.waits.total() == before + 2
        leaf = torch.ones(3, device=DEVICE).requires_grad_()
        (leaf * there).sum().backward()
        assert isinstance(leaf.grad, OnGpu)
        assert leaf.grad.cpu().tolist() == [3.0, 5.0, 7.0]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_sampling(sft_creature, temperature):
    prompts, sampling = prompts_of(3), Sampling(2, temperature, 20, 0)
    expected = generate(sft_creature, prompts, sampling)
    with cuda_rules() as gpu:
        found = generate(on_gpu(sft_creature), prompts, sampling)
    assert [r.ids for group in found for r in group] == [r.ids for g in expected for r in g]
    tokens = max(len(r.ids) for group in found for r in group)
    assert gpu.waits.total() <= WAITS * tokens + 20


def test_uniforms_of_the_cpu_are_refused(sft_creature, monkeypatch):
    """The fault that would have ended all sampling on a GPU is seen."""
    monkeypatch.setattr(
        native, "decode", lambda loaded, *a: DECODE(loaded, *a[:4], torch.rand(1, 9), *a[5:])
    )
    with cuda_rules(), pytest.raises(RuntimeError, match="same device"):
        generate(on_gpu(sft_creature), prompts_of(1), Sampling(1, 1.0, 9, 0))


DECODE = native.decode
RL = {"kind": "grpo", "prompts": 2, "group": 6, "max_new_tokens": 24, "lr": 1e-4, "steps": 1}
RL |= {"tasks": {"sum": 1.0}, "freeze": ["vision", "projector"]}
WAYS = {
    "padded": {},
    "packed": {"packed": True, "entropy_bonus": 0.01},
    "mupo": {"packed": True, "advantage": {"name": "mupo", "clusters": 2, "min_size": 2}},
    "inner steps": {"inner_steps": 2, "importance": "token_truncate", "micro_rows": 5},
    "the tower trains": {"freeze": []},
    "gdpo": {"advantage": "gdpo", "loss": "gspo"},
}


@pytest.mark.parametrize("way", WAYS)
def test_rl_steps(sft_creature, way):
    stage = parse_recipe(
        {"name": "x", "model": "creature:sft", "stages": [{**RL, **WAYS[way]}]}
    ).stages[0]

    def step(loaded):
        apply_freeze(loaded.model, stage.freeze)
        norm = lambda: float(sum(p.grad.norm() ** 2 for p in grads(loaded.model)))  # noqa: E731
        metrics = grpo_step(loaded, stage, norm, None, seed=3, step=0)
        return {k: v for k, v in metrics.items() if not k.endswith("seconds")}

    try:
        expected = step(sft_creature)
    finally:
        sft_creature.model.zero_grad()
        sft_creature.model.requires_grad_(True)
    with cuda_rules():
        found = step(on_gpu(sft_creature))
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert math.isfinite(expected["grad_norm"])


def grads(model):
    return [p for p in model.parameters() if p.grad is not None]


def own(loaded):
    """A copy, since the lens takes the model apart."""
    return replace(loaded, model=deepcopy(loaded.model))


@pytest.mark.parametrize(
    "method", ["swap", "zero", "mean", "noise", "mean-mlp", "patch", "attention", "lens"]
)
def test_probes(sft_creature, method, tmp_path, monkeypatch):
    plan = plan_probe(
        "creature:sft",
        methods=[method],
        task_names=["count"],
        samples=2,
        layers="2-3",
        max_new_tokens=8,
    )
    monkeypatch.setattr(probe_run, "load", lambda *a, **k: own(sft_creature))
    expected = load_run(probe_run.run_probe(plan, out=tmp_path / "cpu")).samples
    monkeypatch.setattr(probe_run, "load", lambda *a, **k: on_gpu(own(sft_creature)))
    with cuda_rules():
        found = load_run(probe_run.run_probe(plan, out=tmp_path / "gpu")).samples
    same_rows(found, expected)


def same_rows(found, expected):
    for column in ("sample", "layer", "output", "baseline", "error"):
        assert found[column].astype(str).tolist() == expected[column].astype(str).tolist()


CARDS = [0, 0, 0, 1, 1, 1, 2, 2]


def test_cards_may_not_meet(sft_creature):
    with cuda_rules():
        one, other = (torch.ones(2, device=f"cuda:{card}") for card in (0, 1))
        with pytest.raises(RuntimeError, match="same device"):
            one + other
        with pytest.raises(RuntimeError, match="same device"):
            one[torch.tensor([0], device="cuda:1")]
        assert (one + other.to("cuda:0")).device == DEVICE
        assert other.sum().device == torch.device("cuda", 1)
        spread = on_gpus(sft_creature, CARDS)
        held = {str(p.device) for p in spread.model.parameters()}
        assert held == {"cuda:0", "cuda:1", "cuda:2"}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_sampling_over_three_cards(sft_creature, temperature):
    prompts, sampling = prompts_of(3), Sampling(2, temperature, 20, 0)
    expected = generate(sft_creature, prompts, sampling)
    with cuda_rules():
        found = generate(on_gpus(sft_creature, CARDS), prompts, sampling)
    assert [r.ids for group in found for r in group] == [r.ids for g in expected for r in g]


def test_probes_over_three_cards(sft_creature, tmp_path, monkeypatch):
    methods = ["swap-suffix", "zero", "mean", "patch-residual", "attention", "lens"]
    plan = plan_probe(
        "creature:sft",
        methods=methods,
        task_names=["count"],
        samples=1,
        layers="2-4",
        max_new_tokens=8,
    )
    monkeypatch.setattr(probe_run, "load", lambda *a, **k: own(sft_creature))
    expected = load_run(probe_run.run_probe(plan, out=tmp_path / "cpu")).samples
    monkeypatch.setattr(probe_run, "load", lambda *a, **k: on_gpus(own(sft_creature), CARDS))
    with cuda_rules():
        found = load_run(probe_run.run_probe(plan, out=tmp_path / "gpus")).samples
    same_rows(found, expected)
    assert found["error"].isna().all()


def test_an_evaluation(sft_creature, tmp_path, monkeypatch):
    ask = partial(run_eval, ["creature:sft"], tasks=["read"], samples=2, n=2, k=(1,))
    ask = partial(ask, max_new_tokens=6, arms="image,text,black")
    (expected,) = ask(out=tmp_path / "cpu", device="cpu")
    monkeypatch.setattr(loading, "load", lambda *a, **k: on_gpu(sft_creature))
    with cuda_rules():
        (found,) = ask(out=tmp_path / "gpu", device="cpu")
    texts = [load_run(f).samples["output"].tolist() for f in (expected, found)]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("packed", [False, True])
def test_supervised_steps(sft_creature, packed):
    sft = {"kind": "sft", "steps": 1, "batch": 3, "lr": 1e-3, "packed": packed}
    sft |= {"tasks": {"read": 1.0, "count": 1.0}, "freeze": ["vision"]}
    stage = parse_recipe({"name": "x", "model": "creature:sft", "stages": [sft]}).stages[0]

    def step(loaded):
        apply_freeze(loaded.model, stage.freeze)
        optimizer = torch.optim.AdamW([p for p in loaded.model.parameters() if p.requires_grad])
        before = sum(p.detach().double().sum().item() for p in loaded.model.parameters())

        def apply():
            optimizer.step()
            return 0.0

        metrics = sft_step(loaded, stage, apply, seed=3, step=0)
        after = sum(p.detach().double().sum().item() for p in loaded.model.parameters())
        return {**metrics, "moved": after - before}

    expected = step(own(sft_creature))
    with cuda_rules():
        found = step(on_gpu(own(sft_creature)))
    assert found == pytest.approx(expected, rel=1e-3)
    assert expected["moved"] != 0
