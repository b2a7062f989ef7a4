"""Every verb on mixtures of experts, with a real processor: answers, hybrids, probes, routing, and
the same over memory and disk.
"""

import json

import pytest
import torch
from tiny_processors import tiny_processor

from franken.cli import run_command
from franken.errors import UsageError
from franken.models.tiny import tiny
from franken.runs import load_run

ASK = ["--tasks", "read", "--samples", "2", "--max-new-tokens", "5", "--json"]


def saved(folder, model_type, *, fused=False, change=None):
    """A folder with the tiny model and its processor; `change` adds to a router's row."""
    model = tiny(model_type)
    if change:
        layer, expert = change
        with torch.no_grad():
            model.get_decoder().layers[layer].mlp.gate.weight[expert] *= -1
    model.save_pretrained(folder, save_original_format=not fused)
    tiny_processor(model_type).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("mixtures")
    made = {}
    for model_type in ("qwen3_vl_moe", "qwen3_5_moe"):
        made[model_type] = (
            saved(root / f"{model_type}-one", model_type),
            saved(root / f"{model_type}-two", model_type, fused=True, change=(1, 3)),
        )
    return made


def some_on_disk(model_type):
    """Room for one of three layers; the others are fetched from disk."""
    model = tiny(model_type)
    size = lambda module: sum(p.numel() for p in module.parameters()) * 4  # noqa: E731
    layers = [size(layer) for layer in model.get_decoder().layers]
    return f"cpu={(size(model) - sum(layers[1:]) + 2000) / 1e6:.4f}MB+disk"


def rows(capsys, *command):
    assert run_command(list(command), debug=True) == 0
    said = json.loads(capsys.readouterr().out)
    (folder,) = [said["folder"]] if "folder" in said else said["runs"]
    return load_run(folder)


@pytest.mark.parametrize("model_type", ["qwen3_vl_moe", "qwen3_5_moe"])
def test_answers_and_hybrids(folders, tmp_path, capsys, model_type):
    one, two = folders[model_type]
    draws = ["--n", "3", "--k", "1", "--no-compare", *ASK]
    own = rows(capsys, "eval", one, *draws, "--out", str(tmp_path), "--device", "cpu")
    assert own.samples["error"].isna().all()
    size = some_on_disk(model_type)
    spread = rows(capsys, "eval", one, *draws, "--out", str(tmp_path / "s"), "--device", size)
    assert spread.samples["output"].tolist() == own.samples["output"].tolist()
    if model_type == "qwen3_vl_moe":  # fused in both
        graft = ["eval", one, "--graft", f"x={two}:text:1-2", *draws]
        hybrid = rows(capsys, *graft, "--out", str(tmp_path / "g"), "--device", "cpu")
        apart = rows(capsys, *graft, "--out", str(tmp_path / "h"), "--device", size)
        whole = rows(capsys, "eval", two, *draws, "--out", str(tmp_path / "w"), "--device", "cpu")
        assert hybrid.samples["output"].tolist() == whole.samples["output"].tolist()
        assert apart.samples["output"].tolist() == whole.samples["output"].tolist()


@pytest.mark.parametrize("model_type", ["qwen3_vl_moe", "qwen3_5_moe"])
def test_routing_names_the_planted_router(folders, tmp_path, capsys, model_type):
    one, two = folders[model_type]
    command = ["probe", two, "--against", one, "--method", "routing", *ASK, "--device", "cpu"]
    run = rows(capsys, *command, "--out", str(tmp_path))
    table = run.layers[(run.layers["metric"] == "routing_agreement")]
    table = table[(table["component"] == "all") & (table["task"] == "read")].set_index("layer")
    assert table["value"][1] < 1
    assert table["ci_low"][1] < table["value"][1]
    assert table["n"][1] == 2
    if model_type == "qwen3_vl_moe":
        assert table["n"][0] == 0  # no experts there
        named = {found["layer"]: found["expert"] for found in run.manifest.rerouted}
        assert named[1] == 3
    else:
        assert table["value"][0] == 1
    same = rows(capsys, *command[:2], "--against", two, *command[4:], "--out", str(tmp_path))
    values = same.layers[same.layers["metric"] == "routing_agreement"]["value"].dropna()
    assert (values == 1).all()


def test_probes_of_a_mixture(folders, tmp_path, capsys):
    one, _ = folders["qwen3_vl_moe"]
    methods = "swap-suffix,zero,patch-residual,attention,lens"
    run = rows(
        capsys,
        "probe",
        one,
        "--method",
        methods,
        *ASK,
        "--out",
        str(tmp_path),
        "--device",
        "cpu",
        "--no-figures",
    )
    assert run.manifest.n_failed == 0


def test_routing_needs_experts(tmp_path):
    command = ["probe", "creature:sft", "--against", "creature:base", "--method", "routing"]
    with pytest.raises(UsageError, match="routing is not defined for creature-sft"):
        run_command([*command, "--out", str(tmp_path)], debug=True)
