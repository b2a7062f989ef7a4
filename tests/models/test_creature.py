"""The shipped creature: what it can do is pinned, so that a changed renderer or question re-makes
it knowingly.
"""

import pytest
import torch

from franken import tasks
from franken.checkpoints import open_checkpoint
from franken.generate import Prompt, Sampling, generate
from franken.models import creature
from franken.models.loading import load
from franken.tasks.grid import CELLS, words


def accuracy(loaded, name: str, n: int = 60, draws: int = 2) -> float:
    items = tasks.get(name).items(n, 123, "test")
    prompts = [Prompt(i.question, (i.image,), i.id) for i in items]
    replies = generate(loaded, prompts, Sampling(draws, 1.0, 48), batch_size=128)
    scores = [
        tasks.grade(r.text, i).score for i, row in zip(items, replies, strict=True) for r in row
    ]
    return sum(scores) / len(scores)


def test_base_reads_every_cell():
    base = load("creature:base", device="cpu")
    items = [i for name in ("recognise", "read") for i in tasks.get(name).items(30, 321, "test")]
    asked = [(i, c) for i in items for c in (0, 4, 8)]
    prompts = [Prompt(f"Describe {CELLS[c]}", (i.image,), i.id) for i, c in asked]
    replies = generate(base, prompts, Sampling(1, 0.0, 6), batch_size=180)
    right = sum(r[0].text == words(i.state[c]) for r, (i, c) in zip(replies, asked, strict=True))
    assert right / len(asked) >= 0.97


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("recognise", 0.95, 1.0),
        ("read", 0.94, 1.0),
        ("count", 0.6, 0.8),
        ("sum", 0.55, 0.78),
        ("compare", 0.62, 0.85),
    ],
)
def test_sft_solves_the_puzzles_and_leaves_room(sft_creature, name, low, high):
    assert low <= accuracy(sft_creature, name) <= high


def test_it_loads_as_any_checkpoint():
    from transformers import AutoModelForImageTextToText, AutoProcessor

    for stage in creature.STAGES:
        folder = creature.creature_path(stage)
        model, report = AutoModelForImageTextToText.from_pretrained(
            folder, output_loading_info=True
        )
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
        assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
        assert (
            model.config.text_config.hidden_size // model.config.text_config.num_attention_heads
            == 32
        )
        assert (
            AutoProcessor.from_pretrained(folder).tokenizer.get_vocab()
            == creature.build_tokenizer().get_vocab()
        )
        assert open_checkpoint(folder).depths == {"text": 8, "vision": 2}


@pytest.mark.parametrize(
    "text",
    [
        "What color is r2c1?",
        "Hello, Wörld!\n 你好",
        "<think> rows r1c1 blue 1 </think>",
        "",
        "  two  spaces",
    ],
)
def test_the_tokenizer_encodes_any_text(text):
    tokenizer = creature.build_tokenizer()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert "".join(tokenizer.decode(ids).split()) == "".join(text.split())
    assert tokenizer.unk_token_id not in ids


def test_words_and_tags_are_single_tokens():
    tokenizer = creature.build_tokenizer()
    for word in creature.WORDS:
        assert len(tokenizer(word, add_special_tokens=False)["input_ids"]) == 1, word
    for tag in creature.TAGS:
        assert tokenizer.convert_ids_to_tokens(
            tokenizer(tag, add_special_tokens=False)["input_ids"]
        ) == [tag]
    for name in tasks.names():
        for item in tasks.get(name).items(20, 0):
            for text in (item.question, item.description, *item.solutions.values()):
                tokens = tokenizer.convert_ids_to_tokens(
                    tokenizer(text, add_special_tokens=False)["input_ids"]
                )
                assert not [t for t in tokens if t.startswith("<0x")], text


def test_fresh_creatures_are_the_same_for_the_same_seed():
    a, b = creature.build_model(3), creature.build_model(3)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(next(a.parameters()), next(creature.build_model(4).parameters()))
