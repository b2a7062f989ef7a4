"""Command line and YAML say the same recipes, and refuse what is no recipe."""

import pytest

from franken.errors import UsageError
from franken.merge.options import recipe_from_options
from franken.merge.recipe import Rule
from franken.merge.written import read_recipe

PAIR = ["my/sft", "my/rl"]


@pytest.mark.parametrize(
    ("options", "yaml", "rule"),
    [
        ({"layers": "16-28"}, "{from: rl, layers: 16-28}", Rule(("rl",), "16-28")),
        ({"layers": "16:28"}, "{from: rl, layers: 16:28}", Rule(("rl",), "16:28")),
        ({"layers": "3"}, "{from: rl, layers: 3}", Rule(("rl",), "3")),
        (
            {"layers": "late", "components": "attn,norm"},
            "{from: rl, layers: late, components: [attn, norm]}",
            Rule(("rl",), "late", components=("attn", "norm")),
        ),
        (
            {"layers": "all", "alpha": "0.5"},
            "{from: rl, layers: all, alpha: 0.5}",
            Rule(("rl",), "all", method="linear", alpha=(0.5,)),
        ),
        (
            {"layers": "all", "alpha": "0,0.5,1"},
            "{from: rl, layers: all, alpha: [0, 0.5, 1]}",
            Rule(("rl",), "all", method="linear", alpha=(0, 0.5, 1)),
        ),
        (
            {"take": "vision,head"},
            "{from: rl, take: [vision, head]}",
            Rule(("rl",), take=("vision", "head")),
        ),
        (
            {
                "layers": "1",
                "method": "ties",
                "param": ["density=0.2,0.8", "weight.rl=1", "normalize=false"],
            },
            "{from: rl, layers: 1, method: ties, parameters: {density: [0.2, 0.8], weight: {rl: "
            "1}, normalize: false}}",
            Rule(
                ("rl",),
                "1",
                method="ties",
                parameters={"density": [0.2, 0.8], "weight": {"rl": 1}, "normalize": False},
            ),
        ),
        (
            {"layers": "1", "method": "linear", "param": ["weight.base=1", "weight.rl=3"]},
            "{from: [base, rl], layers: 1, method: linear, parameters: {weight: {base: 1, rl: 3}}}",
            Rule(("base", "rl"), "1", method="linear", parameters={"weight": {"base": 1, "rl": 3}}),
        ),
        (
            {"layers": "1", "method": "nuslerp", "param": ["weight=1"], "relative_to": "sft"},
            "{from: rl, layers: 1, method: nuslerp, parameters: {weight: 1}, relative_to: base}",
            Rule(("rl",), "1", method="nuslerp", parameters={"weight": 1}, relative_to="base"),
        ),
        (
            {"graft": ["rl:text:16-28,vision:0-4,head"]},
            "{from: rl, layers: 'text:16-28,vision:0-4', take: head}",
            Rule(("rl",), "text:16-28,vision:0-4", ("head",)),
        ),
        ({"graft": ["my/rl:late"]}, "{from: rl, layers: late}", Rule(("rl",), "late")),
        (
            {"splice": "sft:rl:rl"},
            "{from: rl, layers: 'middle,late'}",
            Rule(("rl",), "middle,late"),
        ),
        (
            {"splice": "donor:base:donor", "alpha": "0.1"},
            "{from: rl, layers: 'early,late', alpha: 0.1}",
            Rule(("rl",), "early,late", method="linear", alpha=(0.1,)),
        ),
    ],
)
def test_both_spellings_mean_the_same(tmp_path, options, yaml, rule):
    said = recipe_from_options(PAIR, **options, seed=3, allow="dtype,rope")
    assert said.rules == (rule,)
    file = tmp_path / "recipe.yaml"
    file.write_text(
        f"base: my/sft\ndonors: {{rl: my/rl}}\nseed: 3\nallow: [dtype, rope]\nrules:\n  - {yaml}\n"
    )
    assert read_recipe(file) == said


def test_noise_needs_no_donor():
    assert recipe_from_options(["m"], layers="3-5", noise=0.5).rules == (
        Rule(("base",), "3-5", method="noise", parameters={"ratio": 0.5}),
    )


def test_checkpoints_are_called_by_their_folder_or_as_told(tmp_path):
    recipe = recipe_from_options(
        ["creature:base", "A=creature:sft", "x/rl", "y/rl"], graft=["A:1", "rl:2", "rl-2:3"]
    )
    assert recipe.base == "creature:base"
    assert dict(recipe.donors) == {"A": "creature:sft", "rl": "x/rl", "rl-2": "y/rl"}
    assert [r.inputs for r in recipe.rules] == [("A",), ("rl",), ("rl-2",)]
    assert recipe_from_options(["b", "creature:sft"], graft=["creature:sft:2-4"]).rules[
        0
    ].inputs == ("creature-sft",)
    odd = tmp_path / "a=b"
    odd.mkdir()
    assert recipe_from_options(["m", str(odd)], layers="1").donors == {"a-b": str(odd)}


@pytest.mark.parametrize(
    ("checkpoints", "options", "words"),
    [
        ([], {"layers": "1"}, "no checkpoint"),
        (PAIR, {}, "nothing to merge"),
        (["a"], {"layers": "1"}, "0 donors"),
        (["a", "b", "c"], {"layers": "1"}, "2 donors"),
        (PAIR, {"graft": ["rl"]}, "cannot read --graft"),
        ([*PAIR, "my/other"], {"graft": ["rl:1"]}, "other gives nothing"),
        (PAIR, {"graft": ["lr:1"]}, "unknown checkpoint"),
        (PAIR, {"splice": "sft:rl"}, "three thirds|cannot read --splice"),
        (PAIR, {"splice": "sft:sft:sft"}, "base itself"),
        (PAIR, {"layers": "1", "components": "atn"}, "unknown component"),
        (PAIR, {"take": "visoin"}, "unknown piece"),
        (PAIR, {"layers": "1", "allow": "ropes"}, "unknown difference"),
        (PAIR, {"layers": "1", "alpha": "2"}, "out of range"),
        (PAIR, {"layers": "1", "alpha": "half"}, "not a number"),
        (
            PAIR,
            {"layers": "1", "method": "slerp", "alpha": "0.5"},
            "alpha does not belong to slerp",
        ),
        (PAIR, {"layers": "1", "method": "ties", "param": ["density"]}, "cannot read --param"),
        (PAIR, {"layers": "1", "noise": 0.5}, "--noise stands alone"),
        (PAIR, {"splice": "sft:rl:rl", "method": "ties"}, "--method goes with"),
        (PAIR, {"layers": "1", "alpha": "0.5", "relative_to": "sft"}, "exclude each other"),
    ],
)
def test_options_that_are_no_recipe_are_refused(checkpoints, options, words):
    with pytest.raises(UsageError) as caught:
        recipe_from_options(checkpoints, **options)
    import re

    assert re.search(words, f"{caught.value.what} {caught.value.why}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("base: a\nrules: [{from: rl, layer: 1}]\ndonors: {rl: b}", "did you mean 'layers'"),
        ("base: a\nrules: [{from: rl, layers: 1}]", "checkpoint of this recipe"),
        ("base: a\nrules: []", "rules"),
        ("base: a\ndonors: {base: c}\nrules: [{from: base, layers: 1}]", "a donor is called base"),
        ("base: a\ndonors: {rl: b}\nrules: [{from: rl}]", "names no tensors"),
        ("base: [a", "not YAML"),
        ("rules: [{from: rl, layers: 1}]", "base: Field required"),
    ],
)
def test_yaml_that_is_no_recipe_is_refused(tmp_path, text, words):
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_recipe(file)
    assert words in f"{caught.value.what} {caught.value.why} {caught.value.fix}"


def test_a_recipe_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot read"):
        read_recipe(tmp_path / "none.yaml")
