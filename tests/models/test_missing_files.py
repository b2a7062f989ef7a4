"""A checkpoint without what it takes to ask it is refused by every verb that would ask it."""

import shutil

import pytest

from franken.cli import run_command
from franken.models.creature import WEIGHTS

MISSING = {
    "tokenizer.json": "has no tokenizer",
    "tokenizer_config.json": "has no settings of its tokenizer",
    "processor_config.json": "has no image processor",
    "chat_template.jinja": "the chat template",
}
VERBS = {
    "eval": ["eval", "MODEL", "--tasks", "count", "--samples", "1"],
    "probe": ["probe", "MODEL", "--tasks", "count", "--samples", "1", "--method", "zero"],
    "train": ["train", "creature-rl", "--set", "model=MODEL", "--set", "stages.0.steps=1"],
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", MISSING)
def test_a_missing_file_is_named(verb, name, tmp_path, capsys):
    shutil.copytree(WEIGHTS / "sft", tmp_path / "model")
    (tmp_path / "model" / name).unlink()
    words = [word.replace("MODEL", str(tmp_path / "model")) for word in VERBS[verb]]
    assert run_command([*words, "--out", str(tmp_path / "out")], False) == 1
    said = capsys.readouterr().err
    assert MISSING[name] in said
    assert "fix: " in said
    assert name in said


def test_weights_can_be_compared_and_merged_without_a_tokenizer(tmp_path, capsys):
    shutil.copytree(WEIGHTS / "sft", tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").unlink()
    words = ["diff", str(tmp_path / "model"), "creature:sft", "--out", str(tmp_path), "--json"]
    assert run_command(words, False) == 0
