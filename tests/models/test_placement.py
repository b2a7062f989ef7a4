"""A model that is spread over devices is the same model: probes, evaluations and hybrids give the
same rows, with layers in memory and on disk.
"""

import json

import pytest
import torch

from franken.cli import run_command
from franken.devices import Share, layers_of, parse_device, parse_devices
from franken.errors import UsageError
from franken.merge.graft import graft
from franken.merge.plan import open_all, plan_merge
from franken.merge.recipe import Recipe, Rule, checked
from franken.models import creature
from franken.models.loading import load, pick_device
from franken.models.placement import device_map, places_of, waiting_weights
from franken.models.tiny import tiny
from franken.probe.controls import weights_digest
from franken.runs import load_run


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("cpu", [Share("cpu")]),
        ("cuda:0+cuda:1", [Share("cuda:0"), Share("cuda:1")]),
        ("cuda:1=1.5GiB+cpu+disk", [Share("cuda:1", 3 * 2**29), Share("cpu"), Share("disk")]),
        ("cpu=2MB+disk", [Share("cpu", 2_000_000), Share("disk")]),
    ],
)
def test_devices_as_they_are_written(text, shares):
    assert parse_device(text) == tuple(shares)


@pytest.mark.parametrize(
    "text",
    ["", "tpu", "cuda:x", "cpu+cuda:0", "disk", "cpu+cpu", "cuda+cuda:1", "cpu=2XB", "disk=1GB"],
)
def test_what_is_no_device(text):
    with pytest.raises(UsageError):
        parse_device(text)
    with pytest.raises(UsageError):
        parse_devices(f"cpu,{text}")


def test_a_card_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="no CUDA device"):
        load("creature:sft", device="cuda:0+cpu")
    assert pick_device("cpu=1GiB+disk") == torch.device("cpu")


def test_layers_follow_each_other_and_cards_share_alike(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda card: (10**8, 10**8))
    model = tiny("qwen2_5_vl", layers=8)
    layers = model.get_decoder().layers
    even = device_map(model, layers, (Share("cuda:0"), Share("cuda:1")))
    assert {even["model.visual"], even["lm_head"]} == {0}
    assert places_of(even).count("cuda:1") >= 4
    assert places_of(even) == sorted(places_of(even))
    per_layer = sum(p.numel() * 4 for p in layers[0].parameters())
    whole = sum(p.numel() * 4 for p in model.parameters())
    some = whole - 5 * per_layer + 2000  # buffers
    filled = device_map(
        model, layers, (Share("cuda:0", some), Share("cpu", 2 * per_layer), Share("disk"))
    )
    assert places_of(filled) == ["cuda:0"] * 3 + ["cpu"] * 2 + ["disk"] * 3
    assert layers_of(places_of(filled)) == "cuda:0 layers 0..2, cpu layers 3..4, disk layers 5..7"
    with pytest.raises(UsageError, match="have room"):
        device_map(model, layers, (Share("cuda:0", some), Share("cpu", per_layer)))
    with pytest.raises(UsageError, match="cuda:0 has room"):
        device_map(model, layers, (Share("cuda:0", per_layer), Share("disk")))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A creature that is not the shipped one."""
    folder = tmp_path_factory.mktemp("other") / "other"
    creature.save(creature.build_model(1), folder)
    return str(folder)


@pytest.fixture(scope="module")
def spread_creature():
    loaded = load("creature:sft", device=SOME)
    assert loaded.where == "cpu layers 0..2, disk layers 3..7"
    return loaded


SOME = "cpu=3MB+disk"
ASK = ["--tasks", "read", "--samples", "1", "--max-new-tokens", "10", "--json"]


def rows(capsys, command):
    assert run_command(command, debug=True) == 0
    said = json.loads(capsys.readouterr().out)
    (folder,) = [said["folder"]] if "folder" in said else said["runs"]
    return load_run(folder)


def test_a_probe_gives_the_same_rows(tmp_path, capsys):
    methods = "swap-suffix,zero,patch-residual,attention"
    command = [
        "probe",
        "creature:sft",
        "--no-figures",
        "--method",
        methods,
        "--layers",
        "2-4",
        *ASK,
    ]
    whole = rows(capsys, [*command, "--device", "cpu", "--out", str(tmp_path / "whole")])
    spread = rows(capsys, [*command, "--device", SOME, "--out", str(tmp_path / "spread")])
    assert spread.manifest.device == "cpu layers 0..2, disk layers 3..7"
    assert spread.samples.equals(whole.samples)
    assert spread.samples["error"].isna().all()
    assert spread.samples["changed"].any()


def test_the_lens_is_the_models_own(tmp_path, capsys):
    command = ["probe", "creature:sft", "--no-figures", "--method", "lens", "--layers", "2-4", *ASK]
    whole = rows(capsys, [*command, "--device", "cpu", "--out", str(tmp_path / "whole")])
    spread = rows(capsys, [*command, "--device", SOME, "--out", str(tmp_path / "spread")])
    assert set(spread.samples["lens"]) == {"own norm and head"}
    assert spread.samples["rank_gold"].tolist() == whole.samples["rank_gold"].tolist()


def test_hybrids_are_evaluated_over_memory_and_disk(tmp_path, capsys, other):
    command = ["eval", "creature:sft", "--graft", f"mixed={other}:2-5", "--n", "2", "--k", "1"]
    command += [*ASK, "--no-compare"]
    whole = rows(capsys, [*command, "--device", "cpu", "--out", str(tmp_path / "whole")])
    spread = rows(capsys, [*command, "--device", SOME, "--out", str(tmp_path / "spread")])
    assert spread.samples.equals(whole.samples)


def test_grafts_go_where_the_weights_wait_and_are_undone(spread_creature, other):
    loaded, plain = spread_creature, load("creature:sft", device="cpu")
    rules = [Rule(("d0",), "text:2-4"), Rule(("d0",), "text:5", method="linear", alpha=(0.3,))]
    recipe = checked(Recipe("creature:sft", {"d0": other}, tuple(rules)))
    plan = plan_merge(recipe, open_all(recipe))
    before = weights_digest(loaded)
    assert before == weights_digest(plain)
    donated = {}
    with pytest.raises(RuntimeError, match="inside"), graft(loaded.model, plan, donated=donated):
        with graft(plain.model, plan):
            assert weights_digest(loaded) == weights_digest(plain) != before
        raise RuntimeError("inside")
    assert weights_digest(loaded) == before
    assert not any("layers.3" in key for key in donated)  # layers on disk stay there


def test_what_needs_the_model_on_one_device_refuses(tmp_path, spread_creature):
    assert waiting_weights(spread_creature.model)
    command = ["probe", "creature:sft", "--method", "zero", "--engine", "nnsight", *ASK]
    with pytest.raises(UsageError, match="nnsight engine runs on one device"):
        run_command([*command, "--device", SOME, "--out", str(tmp_path)], debug=True)
    command = ["train", "creature-sft", "--out", str(tmp_path / "run"), "--set", f"device={SOME}"]
    with pytest.raises(UsageError, match="training on"):
        run_command(command, debug=True)
