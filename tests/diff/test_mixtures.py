"""Mixtures of experts: one expert is one matrix in whichever way a file holds it, the fused update
is the sum of its experts', and the expert that was changed is the one that is named.
"""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from franken.checkpoints import open_checkpoint, read_array
from franken.diff.plan import plan_diff
from franken.diff.run import DiffOptions, run_diff
from franken.diff.summary import mixture_table, sentences
from franken.errors import FrankenError
from franken.experts import slot_of
from franken.models.tiny import save_tiny, tiny
from franken.names import Place, canonical, place
from franken.runs import load_run

MIXTURES = ("qwen3_vl_moe", "qwen3_5_moe")


def stored(folder, model, *, split):
    model.save_pretrained(folder, save_original_format=split)
    return folder


def exchanged(folder, model):
    """As Qwen3-VL-MoE was published: the last two axes of the experts exchanged."""
    stored(folder, model, split=False)
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if ".experts." in name:
            tensors[name] = tensor.transpose(1, 2).contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def changed(model_type, changes):
    """The tiny model with weights of some parameters moved."""
    model = tiny(model_type)
    with torch.no_grad():
        for name, at, by in changes:
            model.get_decoder().get_parameter(name)[at] += by
    return model


def test_names_of_experts_and_routers():
    deep = "model.language_model.layers.2.mlp."
    for name, expected in {
        "gate.weight": Place("text", 2, "router"),
        "shared_expert_gate.weight": Place("text", 2, "router"),
        "shared_expert.up_proj.weight": Place("text", 2, "mlp"),
        "gate_proj.weight": Place("text", 2, "mlp"),
        "experts.gate_up_proj": Place("text", 2, "mlp"),
        "experts.13.down_proj.weight": Place("text", 2, "mlp", 13),
    }.items():
        assert place(deep + name, "qwen3_5_moe") == expected
    with pytest.raises(FrankenError, match="unknown tensor"):
        place("model.language_model.layers.2.mlp.experts.03.down_proj.weight", "qwen3_5_moe")


@pytest.mark.parametrize("model_type", MIXTURES)
@pytest.mark.parametrize("layout", ["split", "fused", "exchanged"])
def test_every_matrix_of_every_expert_is_found_by_its_bytes(tmp_path, model_type, layout):
    model = tiny(model_type)
    write = exchanged if layout == "exchanged" else stored
    more = {} if layout == "exchanged" else {"split": layout == "split"}
    checkpoint = open_checkpoint(write(tmp_path / "x", model, **more))
    held = {canonical(n, model_type): p for n, p in model.named_parameters()}
    seen = 0
    for key, entry in checkpoint.matrices.items():
        slot = slot_of(key)
        if slot is None:
            assert ".experts." not in key
            continue
        expected = slot.of(held[slot.fused]).detach()
        if layout == "exchanged":
            expected = expected.T
        assert entry.place == Place("text", int(key.split(".")[2]), "mlp", slot.expert)
        assert np.array_equal(read_array(entry), expected.numpy())
        seen += entry.nbytes
    assert seen == sum(4 * p.numel() for key, p in held.items() if ".experts." in key) > 0
    assert sum(e.nbytes for e in checkpoint.matrices.values()) == checkpoint.nbytes


@pytest.mark.parametrize("model_type", MIXTURES)
def test_the_expert_that_was_changed_is_named(tmp_path, model_type, capsys):
    planted = [("layers.1.mlp.experts.down_proj", 2, 0.25)]
    base = stored(tmp_path / "base", tiny(model_type), split=True)
    rl = stored(tmp_path / "rl", changed(model_type, planted), split=False)
    run = load_run(run_diff(plan_diff([base, rl]), out=tmp_path))
    moved = run.samples[run.samples["delta"] > 0]
    assert moved[["layer", "component", "expert"]].values.tolist() == [[1, "mlp", 2]]
    one = {(m.method, m.layer): m for m in run.manifest.mixtures}["base→rl", 1]
    assert (one.expert, one.share, one.unmoved, one.router) == (2, 1.0, 3, 0.0)
    said = sentences(run)
    assert (
        "base→rl: expert 2 of layer 1 moved most, 100.0% of ‖Δ‖² of that layer's experts; 25.0% "
        "would be its share" in said
    )
    assert "base→rl: no router moved" in said
    rows = {row[1]: row for row in mixture_table(run)[1]}
    assert rows["1"][6:] == ["2", "100.0%", "3 of 4"]
    assert rows["2"][6:] == ["-", "-", "4 of 4"]


def test_router_drift_is_the_routers(tmp_path):
    planted = [("layers.2.mlp.gate.weight", slice(None), 0.5)]
    base = stored(tmp_path / "base", tiny("qwen3_vl_moe"), split=True)
    rl = stored(tmp_path / "rl", changed("qwen3_vl_moe", planted), split=True)
    run = load_run(run_diff(plan_diff([base, rl], components=["router"]), out=tmp_path))
    assert set(run.samples["component"]) == {"router"}
    energy = run.layers[(run.layers["metric"] == "energy") & (run.layers["component"] == "router")]
    weight = tiny("qwen3_vl_moe").get_decoder().layers[2].mlp.gate.weight
    moved = dict(zip(energy["layer"], energy["value"], strict=True))
    assert moved == {1: 0.0, 2: pytest.approx(0.5 * weight.numel() ** 0.5, rel=1e-6)}


def test_experts_add_up_to_the_fused_update_and_have_spectra_of_their_own(tmp_path):
    folders = [
        stored(tmp_path / str(seed), tiny("qwen3_5_moe", seed), split=seed == 1) for seed in (0, 1)
    ]
    options = DiffOptions(spectra=True)
    run = load_run(run_diff(plan_diff(folders, layers="1-2"), out=tmp_path, options=options))
    experts = run.samples[run.samples["expert"].notna()]
    one, two = (tiny("qwen3_5_moe", seed).get_decoder().layers[1].mlp.experts for seed in (0, 1))
    for name, pieces in {"gate_up_proj": ["gate", "up"], "down_proj": ["down"]}.items():
        update = (getattr(two, name) - getattr(one, name)).detach().double()
        own = experts[experts["tensor"].str.contains("|".join(f"{p}_proj" for p in pieces))]
        assert own["delta"].sum() == pytest.approx(float((update**2).sum()), rel=1e-7)
    update = (two.down_proj - one.down_proj).detach()[3].double()
    row = experts[experts["tensor"].str.endswith("experts.3.down_proj.weight")].iloc[0]
    sigma = torch.linalg.svdvals(update)
    assert row["spectral_norm"] == pytest.approx(float(sigma[0]), rel=1e-5)
    assert row["nuclear_norm"] == pytest.approx(float(sigma.sum()), rel=1e-5)
    assert experts["effective_rank"].notna().all()
    assert json.loads(run.manifest.model_dump_json())["mixtures"][0]["experts"] == 4


def test_checkpoints_of_two_layouts_that_cannot_be_paired_are_named(tmp_path):
    folders = [
        stored(tmp_path / "a", tiny("qwen3_vl_moe"), split=False),
        exchanged(tmp_path / "b", tiny("qwen3_vl_moe")),
    ]
    plan = plan_diff(folders)
    assert {key for key in plan.problems if ".experts." in key} == set(plan.problems)
    assert any("not in" in why for why in plan.problems.values())
    assert not any(".experts." in key for key in plan.tensors)


def test_diff_of_experts_on_the_command_line(tmp_path, capsys):
    from franken.cli import run_command

    folders = [str(save_tiny(tmp_path / str(n), "qwen3_vl_moe", n)) for n in (0, 1)]
    command = ["diff", *folders, "--out", str(tmp_path / "runs")]
    assert run_command(command, debug=True) == 0
    out = capsys.readouterr().out
    assert "experts: median" in out
    assert "moved most" in out
