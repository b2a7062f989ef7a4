"""Virtual hybrids: the model holds what the merged checkpoint would, and its own weights come back
bit for bit.
"""

import pytest
import torch
from constant_models import plan

from franken.checkpoints import open_checkpoint
from franken.errors import UsageError
from franken.merge import graft as merge_graft
from franken.merge.graft import graft
from franken.merge.recipe import Rule
from franken.merge.run import run_merge
from franken.models.tiny import save_tiny, tiny
from franken.models.tiny_configs import CONFIGS


def pair(tmp_path, model_type, **kwargs):
    return [
        str(save_tiny(tmp_path / f"{n}", model_type, i, **kwargs))
        for i, n in enumerate(("base", "donor"))
    ]


def load(folder, model_type, dtype=torch.float32):
    return type(tiny(model_type)).from_pretrained(folder, dtype=dtype)


@pytest.mark.parametrize("model_type", CONFIGS)
def test_a_graft_is_the_merged_checkpoint_and_is_undone(tmp_path, model_type):
    made = pair(tmp_path, model_type)
    towers = "vision_config" in open_checkpoint(made[0]).config
    rules = [Rule(("d0",), "1"), Rule(("d0",), "2", method="linear", alpha=(0.3,))]
    rules += [Rule(("d0",), "vision:0"), Rule(("d0",), take=("projector",))] if towers else []
    planned = plan(made, *rules)
    merged = load(run_merge(planned, tmp_path / "hybrid"), model_type).state_dict()
    model = tiny(model_type, 0)
    before = {n: p.clone() for n, p in model.state_dict().items()}
    places = {n: p.data_ptr() for n, p in model.named_parameters()}
    with pytest.raises(RuntimeError, match="inside"), graft(model, planned) as swapped:
        assert swapped == sum(row.changed for row in planned.rows)
        assert all(torch.equal(merged[n], p) for n, p in model.state_dict().items())
        assert any(not torch.equal(before[n], p) for n, p in model.state_dict().items())
        raise RuntimeError("inside")
    assert all(torch.equal(before[n], p) for n, p in model.state_dict().items())
    assert {n: p.data_ptr() for n, p in model.named_parameters()} == places


def test_random_methods_and_noise_are_the_same_in_memory_and_on_disk(tmp_path):
    made = pair(tmp_path, "qwen2")
    planned = plan(
        made,
        Rule(("d0",), "0", method="dare_linear", parameters={"weight": 1, "density": 0.5}),
        Rule(("base",), "2", method="noise", parameters={"ratio": 0.5}),
        seed=5,
    )
    merged = load(run_merge(planned, tmp_path / "hybrid"), "qwen2").state_dict()
    model = tiny("qwen2", 0)
    with graft(model, planned):
        assert all(torch.equal(merged[n], p) for n, p in model.state_dict().items())
        assert not torch.equal(
            merged["model.layers.2.mlp.up_proj.weight"],
            tiny("qwen2", 0).state_dict()["model.layers.2.mlp.up_proj.weight"],
        )


def test_tied_embeddings_stay_tied(tmp_path):
    made = pair(tmp_path, "qwen2", tied=True)
    model = tiny("qwen2", 0, tied=True)
    with graft(model, plan(made, Rule(("d0",), take=("embed",)))):
        assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
        assert torch.equal(
            model.get_output_embeddings().weight,
            tiny("qwen2", 1, tied=True).get_input_embeddings().weight,
        )


def test_a_model_in_another_type_gets_the_rounded_weights(tmp_path):
    made = pair(tmp_path, "qwen2")
    model = tiny("qwen2", 0).to(torch.bfloat16)
    with graft(model, plan(made, Rule(("d0",), "1"))):
        got = model.model.layers[1].mlp.up_proj.weight
        assert torch.equal(
            got, tiny("qwen2", 1).model.layers[1].mlp.up_proj.weight.to(torch.bfloat16)
        )


def test_a_sweep_reads_each_tensor_of_the_donor_once(tmp_path, monkeypatch):
    made = pair(tmp_path, "qwen2")
    model, donated, reads = tiny("qwen2", 0), {}, []
    real = merge_graft.read_tensor
    monkeypatch.setattr(
        merge_graft, "read_tensor", lambda entry: reads.append(entry.name) or real(entry)
    )
    for layers in ("0-2", "1-3", "0-3"):
        with graft(model, plan(made, Rule(("d0",), layers)), donated=donated):
            pass
    assert (
        len(reads)
        == len(set(reads))
        == sum(row.changed for row in plan(made, Rule(("d0",), "all")).rows)
    )


def test_grafts_that_cannot_be_are_refused(tmp_path):
    made = pair(tmp_path, "qwen2")
    with (
        pytest.raises(UsageError, match="empty"),
        graft(tiny("qwen2"), plan(made, Rule(("base",), "1"))),
    ):
        pass
    with (
        pytest.raises(UsageError, match="no fitting"),
        graft(tiny("qwen2", layers=1), plan(made, Rule(("d0",), "2"))),
    ):
        pass
