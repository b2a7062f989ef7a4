"""Each difference between two checkpoints is named, refused, and let through by its own word;
spellings are no difference.
"""

import json
from pathlib import Path

import pytest
from constant_models import folders, plan

from franken.errors import UsageError
from franken.merge.fit import differences
from franken.merge.plan import open_all
from franken.merge.recipe import DIFFERENCES, Recipe, Rule
from franken.models.creature import build_processor
from franken.models.tiny import save_tiny


def read(path):
    return json.loads(Path(path).read_text())


def write(path, said):
    Path(path).write_text(json.dumps(said))


def edit(folder, file, **changes):
    """Change a JSON file; `text_config__x` is x inside text_config."""
    path = f"{folder}/{file}"
    said = read(path)
    for key, value in changes.items():
        at = said
        *outer, last = key.split("__")
        for name in outer:
            at = at[name]
        at[last] = value
    write(path, said)


def processors(tmp_path):
    made = folders(tmp_path)
    for folder in made:
        build_processor().save_pretrained(folder)
    return made


def more_tokens(folder):
    whole = read(f"{folder}/tokenizer.json")
    whole["added_tokens"].append({**whole["added_tokens"][-1], "id": 5000, "content": "<plan>"})
    write(f"{folder}/tokenizer.json", whole)


CHANGES = {
    "config": (lambda f: edit(f, "config.json", text_config__rms_norm_eps=1e-3), "rms_norm_eps"),
    "rope": (
        lambda f: edit(f, "config.json", text_config__rope_parameters__rope_theta=5e5),
        "rope_theta is 10000.0",
    ),
    "vocab": (lambda f: edit(f, "config.json", text_config__vocab_size=97), "vocab_size is 96"),
    "tokenizer": (
        more_tokens,
        "1 token differs, for example '<plan>': None in the base, 5000 in the donor",
    ),
    "processor": (
        lambda f: edit(f, "processor_config.json", image_processor__patch_size=7),
        "patch_size",
    ),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_difference_is_refused_by_name_and_let_through_by_its_word(tmp_path, kind):
    made = processors(tmp_path)
    plan(made, Rule(("d0",), "1"))
    change, words = CHANGES[kind]
    change(made[1])
    with pytest.raises(UsageError) as caught:
        plan(made, Rule(("d0",), "1"))
    assert f"{kind}: " in caught.value.why
    assert words in caught.value.why
    assert caught.value.fix == f"--allow {kind} merges them all the same"
    with pytest.raises(UsageError):
        plan(made, Rule(("d0",), "1"), allow=frozenset(DIFFERENCES) - {kind})
    allowed = plan(made, Rule(("d0",), "1"), allow=frozenset({kind})).allowed
    assert [d.kind for d in allowed["d0"]] == [kind]


def test_depth_and_architecture_are_differences_and_missing_layers_no_matter_of_taste(tmp_path):
    base = str(save_tiny(tmp_path / "base", "mistral", value=1.0))
    deeper = str(save_tiny(tmp_path / "deeper", "mistral", value=2.0, layers=4))
    llama = str(save_tiny(tmp_path / "llama", "llama", value=2.0))
    assert plan([base, deeper], Rule(("d0",), "1"), allow=frozenset({"depth"}))
    assert plan([base, llama], Rule(("d0",), "1"), allow=frozenset({"architecture"}))
    for other, kind, words in (
        (deeper, "depth", "3 layers in the base and 4"),
        (llama, "architecture", "mistral"),
    ):
        with pytest.raises(UsageError) as caught:
            plan([base, other], Rule(("d0",), "1"))
        assert kind in caught.value.fix
        assert words in caught.value.why
    with pytest.raises(UsageError) as caught:
        plan([deeper, base], Rule(("d0",), "3"), allow=frozenset(DIFFERENCES))
    assert "the donor has no text.layers.3" in caught.value.why
    qwen3 = str(save_tiny(tmp_path / "qwen3", "qwen3", value=2.0))
    with pytest.raises(UsageError, match="does not fit") as caught:
        plan([base, qwen3], Rule(("d0",), "1"), allow=frozenset(DIFFERENCES))
    assert "the base has no text.layers.1.self_attn.k_norm" in caught.value.why


def test_a_donor_is_compared_where_it_gives_something(tmp_path):
    made = folders(tmp_path)
    edit(made[1], "config.json", vision_config__window_size=56)
    assert plan(made, Rule(("d0",), "1"))
    with pytest.raises(UsageError) as caught:
        plan(made, Rule(("d0",), "vision:1"))
    assert "vision window_size" in caught.value.why
    edit(made[1], "config.json", vision_config__window_size=112, tie_word_embeddings=True)
    assert plan(made, Rule(("d0",), "1"))
    with pytest.raises(UsageError) as caught:
        plan(made, Rule(("d0",), take=("embed",)))
    assert "tie_word_embeddings" in caught.value.why


def test_flat_and_nested_old_and_new_spellings_are_no_difference(tmp_path):
    """Qwen2.5-VL as published: text settings at the top, rope_theta beside rope_scaling."""
    made = folders(tmp_path)
    path = f"{made[1]}/config.json"
    said = read(path)
    text = said.pop("text_config")
    rope = text.pop("rope_parameters")
    said = {**text, **said, "rope_theta": int(rope["rope_theta"])}
    said["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    write(path, said)
    assert plan(made, Rule(("d0",), "1")).allowed == {}
    edit(made[1], "config.json", rope_theta=1_000_000)
    with pytest.raises(UsageError, match="does not fit"):
        plan(made, Rule(("d0",), "1"))


def test_a_window_counts_only_where_it_is_used(tmp_path):
    made = folders(tmp_path, "qwen2")
    for folder, width in zip(made, (32768, 4096), strict=True):
        edit(folder, "config.json", use_sliding_window=False, sliding_window=width)
    assert plan(made, Rule(("d0",), "1"))
    for folder in made:
        edit(folder, "config.json", use_sliding_window=True)
    with pytest.raises(UsageError) as caught:
        plan(made, Rule(("d0",), "1"))
    assert "sliding_window is 32768" in caught.value.why


def test_old_processor_files_are_compared_with_new_ones(tmp_path):
    made = processors(tmp_path)
    new = read(f"{made[1]}/processor_config.json")["image_processor"]
    write(f"{made[1]}/preprocessor_config.json", new)
    (tmp_path / "donor0" / "processor_config.json").unlink()
    assert plan(made, Rule(("d0",), "1"))
    edit(made[1], "preprocessor_config.json", image_mean=[0.5, 0.5, 0.5])
    with pytest.raises(UsageError) as caught:
        plan(made, Rule(("d0",), "1"))
    assert "image_mean" in caught.value.why


def test_every_kind_of_difference_can_be_met(tmp_path):
    """No word of --allow is a dead letter."""
    met = {*CHANGES, "depth", "architecture", "tied", "dtype"}
    assert met == set(DIFFERENCES)
    base, donor = open_all(
        Recipe(*(f := folders(tmp_path))[:1], {"d": f[1]}, (Rule(("d",), "1"),))
    ).values()
    assert differences(base, donor, list(base.tensors)) == []
