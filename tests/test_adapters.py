"""LoRA adapters against PEFT itself: what it saves is read, and the sum is what it merges."""

import json

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from franken.adapters import open_adapter
from franken.checkpoints import open_checkpoint
from franken.diff.plan import plan_diff
from franken.diff.run import DiffOptions, run_diff
from franken.diff.values import opened
from franken.errors import FrankenError, UsageError
from franken.models.tiny import save_tiny, tiny
from franken.names import canonical
from franken.runs import load_run

TARGETS = r".*language_model.*\.(q_proj|down_proj|embed_tokens)"


def trained_adapter(folder, model_type="qwen2_5_vl", **settings):
    """An adapter with random factors, as PEFT saves it; returns the weights that PEFT merges it
    into.
    """
    options = {
        "r": 4,
        "lora_alpha": 6,
        "target_modules": TARGETS,
        "modules_to_save": ["lm_head"],
    } | settings
    torch.manual_seed(1)
    model = get_peft_model(tiny(model_type), LoraConfig(**options, init_lora_weights=False))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "modules_to_save" in name:
                parameter.mul_(2)
    model.save_pretrained(folder)
    merged = model.merge_and_unload()
    return {canonical(n, model_type): p.detach().numpy() for n, p in merged.named_parameters()}


def values_of(checkpoint, key):
    with opened(checkpoint.tensors[key], checkpoint.updates.get(key)) as values:
        whole = values.floats(0, values.size).reshape(values.shape).copy()
        middle = values.bits(5, values.size - 3).view(np.float32).copy()
    assert np.array_equal(middle, whole.reshape(-1)[5:-3])
    return whole


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"alpha_pattern": {"mlp.down_proj": 40}, "rank_pattern": {"q_proj": 2}},
    ],
)
def test_an_adapter_is_what_peft_merges(tmp_path, settings):
    base = open_checkpoint(save_tiny(tmp_path / "base", "qwen2_5_vl"))
    merged = trained_adapter(tmp_path / "lora", **settings)
    adapted = open_adapter(tmp_path / "lora", base)
    assert len(adapted.updates) == 3 + 3 + 1
    for key in base.tensors:
        assert values_of(adapted, key) == pytest.approx(merged[key], rel=1e-5, abs=1e-6), key
    moved = [
        k for k in base.tensors if not np.array_equal(values_of(base, k), values_of(adapted, k))
    ]
    assert set(moved) == {*adapted.updates, "text.lm_head.weight"}


def test_an_adapter_stands_for_its_model_in_a_diff(tmp_path):
    save_tiny(tmp_path / "base", "qwen2_5_vl", max_shard_size="60KB")
    merged = trained_adapter(tmp_path / "lora")
    plan = plan_diff([tmp_path / "base", tmp_path / "lora"])
    assert not plan.problems
    run = load_run(run_diff(plan, out=tmp_path / "runs", options=DiffOptions(spectra=True)))
    rows = run.samples.set_index("tensor")
    key = "text.layers.1.self_attn.q_proj.weight"
    before = values_of(open_checkpoint(tmp_path / "base"), key)
    assert rows.loc[key, "energy"] == pytest.approx(np.linalg.norm(merged[key] - before), rel=1e-4)
    assert rows.loc[key, "topk_energy"] == pytest.approx(1.0)
    assert rows.loc[key, "numerical_rank"] == 4
    assert rows.loc["text.layers.1.mlp.up_proj.weight", "unchanged_fraction"] == 1.0


def test_two_adapters_of_one_base(tmp_path):
    save_tiny(tmp_path / "base", "qwen2_5_vl")
    trained_adapter(tmp_path / "sft")
    trained_adapter(tmp_path / "rl", lora_alpha=12)
    plan = plan_diff([tmp_path / name for name in ("base", "sft", "rl")])
    rows = load_run(run_diff(plan, out=tmp_path / "runs")).samples.set_index(["method", "tensor"])
    key = "text.layers.0.mlp.down_proj.weight"
    assert rows.loc[("base→rl", key), "energy"] == pytest.approx(
        2 * rows.loc[("base→sft", key), "energy"], rel=1e-4
    )
    assert rows.loc[("sft→rl", key), "delta_cosine"] == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora"])
def test_adapters_of_moved_base_weights_are_refused(tmp_path, start):
    """PEFT subtracts what such factors start with from the base: added to the base itself they are
    wrong.
    """
    base = open_checkpoint(save_tiny(tmp_path / "base", "qwen2_5_vl"))
    targets = r".*language_model.*\.(q_proj|down_proj)"
    config = LoraConfig(r=4, target_modules=targets, init_lora_weights=start)
    model = get_peft_model(tiny("qwen2_5_vl"), config)
    model.save_pretrained(tmp_path / "moved")
    with pytest.raises(UsageError, match="relative to other weights") as caught:
        open_adapter(tmp_path / "moved", base)
    assert start in caught.value.why
    with pytest.raises(UsageError, match="relative to other weights"):
        plan_diff([tmp_path / "base", tmp_path / "moved"])


def test_a_converted_pissa_adapter_is_plain_lora(tmp_path):
    """The fix that the refusal names: PEFT's conversion, after which the sum is the model that was
    trained.
    """
    base = open_checkpoint(save_tiny(tmp_path / "base", "qwen2_5_vl"))
    targets = r".*language_model.*\.(q_proj|down_proj)"
    config = LoraConfig(r=4, lora_alpha=4, target_modules=targets, init_lora_weights="pissa")
    model = get_peft_model(tiny("qwen2_5_vl"), config)
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(tmp_path / "start")
    model.peft_config["default"].init_lora_weights = "pissa"
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(0.1)
    model.save_pretrained(
        tmp_path / "plain", path_initial_model_for_weight_conversion=str(tmp_path / "start")
    )
    adapted = open_adapter(tmp_path / "plain", base)
    merged = {
        canonical(n, "qwen2_5_vl"): p.detach().numpy()
        for n, p in model.merge_and_unload().named_parameters()
    }
    assert adapted.updates
    for key in adapted.updates:
        assert values_of(adapted, key) == pytest.approx(merged[key], rel=1e-4, abs=1e-4)


def test_what_is_not_plain_lora_is_refused(tmp_path):
    base = open_checkpoint(save_tiny(tmp_path / "base", "qwen2_5_vl"))
    trained_adapter(tmp_path / "dora", use_dora=True, target_modules=r".*language_model.*q_proj")
    with pytest.raises(UsageError, match="not plain LoRA"):
        open_adapter(tmp_path / "dora", base)
    trained_adapter(tmp_path / "lora")
    with pytest.raises(UsageError, match="does not fit"):
        open_adapter(
            tmp_path / "lora",
            open_checkpoint(save_tiny(tmp_path / "short", "qwen2_5_vl", layers=2)),
        )
    with pytest.raises(UsageError, match="LoRA adapter"):
        plan_diff([tmp_path / "lora", tmp_path / "base"])
    with pytest.raises(UsageError, match="LoRA adapter"):
        open_checkpoint(tmp_path / "lora")
    settings = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    (tmp_path / "lora" / "adapter_config.json").write_text(
        json.dumps(settings | {"peft_type": "LOHA"})
    )
    with pytest.raises(UsageError, match="not plain LoRA"):
        open_adapter(tmp_path / "lora", base)
    (tmp_path / "lora" / "adapter_model.safetensors").unlink()
    with pytest.raises(FrankenError, match=r"no adapter_model"):
        open_adapter(tmp_path / "lora", base)


def test_an_adapter_is_a_donor_of_a_merge(tmp_path):
    """All of it makes the model that PEFT merges; one layer of it, that layer of it; in memory as
    on disk.
    """
    from franken.checkpoints import read_array
    from franken.merge.graft import graft
    from franken.merge.options import recipe_from_options
    from franken.merge.plan import open_all, plan_merge
    from franken.merge.run import run_merge

    base = save_tiny(tmp_path / "base", "qwen2_5_vl")
    merged = trained_adapter(tmp_path / "lora")
    for name, options in (
        ("all", {"layers": "all", "take": "embed,head"}),
        ("one", {"layers": "1"}),
    ):
        recipe = recipe_from_options([str(base), str(tmp_path / "lora")], **options)
        plan = plan_merge(recipe, open_all(recipe))
        result = open_checkpoint(run_merge(plan, tmp_path / name))
        own = open_checkpoint(base)
        for key, entry in result.tensors.items():
            expected = (
                merged[key]
                if name == "all" or entry.place.layer == 1
                else read_array(own.tensors[key])
            )
            if entry.place.part == "vision":
                expected = read_array(own.tensors[key])
            assert read_array(entry) == pytest.approx(expected, rel=1e-5, abs=1e-6), key
        model = tiny("qwen2_5_vl")
        with graft(model, plan):
            for memory, parameter in model.named_parameters():
                entry = result.tensors[canonical(memory, "qwen2_5_vl")]
                assert torch.equal(parameter, torch.tensor(read_array(entry)))
