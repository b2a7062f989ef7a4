"""The benchmark of whole steps: its timers add up, its memory figures are what they say, and the 3B
path is the published one.
"""

import json
import sys
from pathlib import Path

import pytest
import torch

from franken.generate import Prompt, encode_prompts
from trainer import shapes
from trainer.public import public_items

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks import step

NARROW = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
NARROW |= {"num_key_value_heads": 1, "vocab_size": 2048, "tie_word_embeddings": True}
TOWER = {
    "depth": 2,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_heads": 2,
    "fullatt_block_indexes": [1],
}


def rows_of(file):
    rows = json.loads(file.read_text())
    for row in rows:
        assert sum(row[part] for part in step.PARTS) == pytest.approx(row["seconds"], rel=1e-6)
        assert all(
            row[part] > 0 for part in ("sampling", "rewards", "forward", "backward", "optimiser")
        )
        assert 0 <= row["rest"] < row["seconds"]
        assert row["peak"] >= 0.99 * row["held"] > 0
        assert row["grad_norm"] > 0  # every group teaches something
    return rows


def test_a_small_run_on_the_cpu(tmp_path, capsys):
    asked = [
        "--small",
        "--device",
        "cpu",
        "--steps",
        "3",
        "--prompts",
        "2",
        "--group",
        "3",
        "--new-tokens",
        "8",
    ]
    assert step.main([*asked, "--save-every", "2", "--json", str(tmp_path / "rows.json")]) == 0
    rows = rows_of(tmp_path / "rows.json")
    assert [row["checkpoint"] > 0 for row in rows] == [False, True, False]
    shown = capsys.readouterr().out
    assert "the mark grew by" in shown
    assert all(f"| {part} |" in shown for part in step.PARTS)


def test_the_published_shapes_sample_and_train(tmp_path, monkeypatch):
    """The path of the 3B model, its config made narrow: pictures larger than the built-in model's,
    128 wide heads.
    """
    monkeypatch.setitem(shapes.QWEN, step.PUBLISHED, NARROW)
    monkeypatch.setattr(shapes, "TOWER", {**shapes.TOWER, **TOWER})
    asked = [
        "--device",
        "cpu",
        "--steps",
        "2",
        "--prompts",
        "2",
        "--group",
        "4",
        "--new-tokens",
        "6",
        "--side",
        "336",
    ]
    assert (
        step.main(
            [
                *asked,
                "--save-every",
                "0",
                "--freeze",
                "vision,projector",
                "--json",
                str(tmp_path / "r.json"),
            ]
        )
        == 0
    )
    assert len(rows_of(tmp_path / "r.json")) == 2
    loaded = step.build(False, 336, "cpu", torch.float32)
    picture = public_items(str(step.questions(tmp_path, 336, count=1)), 1, seed=0, step=0)[0].image
    encoded = encode_prompts(loaded, [Prompt("How many?", (picture,), "x")])
    assert int(encoded.is_image.sum()) == (336 // 28) ** 2


def test_the_model_has_the_published_size():
    model = step.build(False, 448, "meta", torch.bfloat16).model
    assert sum(p.numel() for p in model.parameters()) == shapes.shapes_of(step.PUBLISHED).parameters
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_growth_is_of_the_last_third_against_the_first():
    assert step.growth([900, 10, 10, 10, 11, 11, 11]) == pytest.approx(0.1)
    assert step.growth([1, *[5] * 99]) == 0
    assert step.growth([7]) == 0


@pytest.mark.gpu
def test_a_few_steps_of_the_3b_model_on_cuda(tmp_path):
    file = tmp_path / "rows.json"
    assert (
        step.main(["--device", "cuda", "--steps", "7", "--save-every", "0", "--json", str(file)])
        == 0
    )
    rows = rows_of(file)
    assert abs(step.growth([row["held"] for row in rows])) < 0.01
