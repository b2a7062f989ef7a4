"""What the rules of a recipe make of every tensor, on every family: the base is 1, the donor 2, a
second donor 4.
"""

import pytest
from constant_models import folders, plan, values

from franken.checkpoints import open_checkpoint
from franken.errors import UsageError
from franken.layers import thirds
from franken.merge.described import summarise
from franken.merge.options import recipe_from_options
from franken.merge.plan import plan_layers
from franken.merge.recipe import Rule
from franken.merge.run import run_merge
from franken.models.tiny import save_tiny
from franken.models.tiny_configs import CONFIGS

MULTIMODAL = [
    name for name in CONFIGS if name not in ("qwen2", "qwen3", "llama", "mistral", "gemma3_text")
]


def check(made, expected, out, *rules, **kwargs):
    """Merge for real, and compare every tensor's value with `expected(place)`."""
    result = open_checkpoint(run_merge(plan(made, *rules, **kwargs), out))
    found = values(result)
    assert set(found) == set(open_checkpoint(made[0]).tensors)
    for key, value in found.items():
        assert value == expected(result.tensors[key].place), key


@pytest.mark.parametrize("model_type", CONFIGS)
def test_every_recipe_on_every_family(tmp_path, model_type):
    made = folders(tmp_path, model_type, donors=2)
    towers = model_type in MULTIMODAL

    def in_layer(place, part, *layers):
        return place.part == part and place.layer in layers

    rules = [
        ("layers", [Rule(("d0",), "1")], lambda p: 2 if in_layer(p, "text", 1) else 1),
        (
            "mlp",
            [Rule(("d0",), "0-2", components=("mlp",))],
            lambda p: 2 if in_layer(p, "text", 0, 1) and p.component == "mlp" else 1,
        ),
        (
            "splice",
            [Rule(("d0",), "middle"), Rule(("d1",), "late")],
            lambda p: 2 if in_layer(p, "text", 1) else 4 if in_layer(p, "text", 2) else 1,
        ),
        (
            "alpha",
            [Rule(("d0",), "1-3", method="linear", alpha=(0.5,))],
            lambda p: 1.5 if in_layer(p, "text", 1, 2) else 1,
        ),
        (
            "gradient",
            [Rule(("d0",), "all", method="linear", alpha=(0.0, 1.0))],
            lambda p: 1 + p.layer / 2 if in_layer(p, "text", 0, 1, 2) else 1,
        ),
        (
            "tasks",
            [Rule(("d0", "d1"), "0-1", method="task_arithmetic", parameters={"weight": 0.5})],
            lambda p: 3 if in_layer(p, "text", 0) else 1,
        ),
        (
            "embed",
            [Rule(("d0",), take=("embed", "norm", "head"))],
            lambda p: 2 if p.part == "text" and p.layer is None else 1,
        ),
    ]
    if towers:
        rules += [
            (
                "tower",
                [Rule(("d0",), "vision:1-2")],
                lambda p: 2 if in_layer(p, "vision", 1) else 1,
            ),
            (
                "both",
                [Rule(("d0",), "vision:0,text:2"), Rule(("d1",), "vision:1")],
                lambda p: (
                    2
                    if in_layer(p, "vision", 0) or in_layer(p, "text", 2)
                    else 4
                    if in_layer(p, "vision", 1)
                    else 1
                ),
            ),
            (
                "eyes",
                [Rule(("d0",), take=("vision", "projector"))],
                lambda p: 1 if p.part == "text" else 2,
            ),
        ]
    for name, given, expected in rules:
        check(made, expected, tmp_path / name, *given)


def test_splices_of_the_command_line_are_the_papers(tmp_path):
    base, one, two = folders(tmp_path, "qwen2", donors=2, layers=7)
    recipe = recipe_from_options(
        [f"SFT={base}", f"RL={one}", f"other={two}"], splice="SFT:RL:other"
    )
    assert [(r.inputs, r.layers) for r in recipe.rules] == [
        (("RL",), "middle"),
        (("other",), "late"),
    ]
    bounds = thirds(7)
    assert bounds == {"early": (0, 2), "middle": (2, 4), "late": (4, 7)}
    recipe = recipe_from_options([f"SFT={base}", f"RL={one}"], splice="RL:SFT:RL")
    assert [(r.inputs, r.layers) for r in recipe.rules] == [(("RL",), "early,late")]


@pytest.mark.parametrize(
    ("decoder", "model_type"),
    [
        ("qwen2", "qwen2_5_vl"),
        ("qwen2", "qwen2_vl"),
        ("qwen2", "llava_onevision"),
        ("qwen2", "internvl"),
        ("qwen3", "qwen3_vl"),
        ("llama", "llava"),
        ("llama", "idefics3"),
        ("mistral", "llava_next"),
        ("mistral", "mistral3"),
        ("gemma3_text", "gemma3"),
    ],
)
def test_a_text_model_gives_layers_to_a_vlms_decoder(tmp_path, decoder, model_type):
    made = [
        str(save_tiny(tmp_path / "vlm", model_type, value=1.0)),
        str(save_tiny(tmp_path / "llm", decoder, value=2.0)),
    ]
    allow = frozenset({"rope"})  # the tiny models do not agree on a theta
    check(
        made,
        lambda p: 2 if (p.part, p.layer) == ("text", 1) else 1,
        tmp_path / "out",
        Rule(("d0",), "1"),
        allow=allow,
    )
    with pytest.raises(UsageError, match="does not fit"):
        plan(made, Rule(("d0",), "vision:1"), allow=allow)


def test_a_task_vector_from_a_text_model_lands_in_a_vlm(tmp_path):
    """origin + (VLM − origin) + (math − origin): what merging a reasoner into a VLM means."""
    made = [
        str(save_tiny(tmp_path / name, kind, value=value))
        for name, kind, value in (
            ("vlm", "qwen2_5_vl", 1.5),
            ("math", "qwen2", 3.0),
            ("plain", "qwen2", 1.0),
        )
    ]
    rule = Rule(
        ("base", "d0"),
        "0-2",
        method="task_arithmetic",
        parameters={"weight": 1.0},
        relative_to="d1",
    )
    check(
        made,
        lambda p: 3.5 if (p.part, p.layer) in (("text", 0), ("text", 1)) else 1.5,
        tmp_path / "out",
        rule,
    )


def test_gradients_and_parameters_of_single_inputs(tmp_path):
    made = folders(tmp_path, "qwen2", donors=2, layers=5)
    rule = Rule(
        ("d0", "d1"),
        "0-5",
        method="task_arithmetic",
        parameters={"weight": {"d0": [0, 1, 0], "d1": 0.25}, "lambda": [2, 1]},
    )
    rows = {r.target.place.layer: r for r in plan(made, rule).rows if r.method != "copy"}
    assert [rows[i].parameters["weight"] for i in range(5)] == [
        {"d0": w, "d1": 0.25} for w in (0.0, 0.5, 1.0, 0.5, 0.0)
    ]
    assert [rows[i].parameters["lambda"] for i in range(5)] == [2, 1.75, 1.5, 1.25, 1]
    single = plan(made, Rule(("d0",), "2", method="linear", alpha=(0.25, 0.75))).rows
    assert {tuple(r.parameters["weight"]) for r in single if r.changed} == {
        (0.25, 0.75)
    }  # as in mergekit: the last


def test_shares_of_nothing_and_all_are_exact_copies(tmp_path):
    made = folders(tmp_path, "qwen2")
    rows = plan(made, Rule(("d0",), "0-3", method="linear", alpha=(0.0, 1.0))).rows
    by_layer = {row.target.place.layer: (row.method, row.sources[0].name) for row in rows}
    assert by_layer == {
        0: ("copy", "base"),
        1: ("linear", "base"),
        2: ("copy", "d0"),
        None: ("copy", "base"),
    }


def test_the_plan_is_grouped_and_whole(tmp_path):
    made = folders(tmp_path, "qwen2_5_vl")
    whole = plan(made, Rule(("d0",), "1-3", components=("attn",)))
    grouped = summarise(whole.rows)
    assert (
        sum(g.tensors for g in grouped) == len(whole.rows) == len(open_checkpoint(made[0]).tensors)
    )
    assert sum(g.bytes for g in grouped) == open_checkpoint(made[0]).nbytes
    taken = [g for g in grouped if g.made_of == "d0"]
    assert [(g.part, g.layers, g.components) for g in taken] == [("text", "1..2", "attn")]
    row = next(r for r in whole.to_dict()["tensors"] if r["sources"][0]["checkpoint"] == "d0")
    assert {
        "tensor",
        "part",
        "layer",
        "component",
        "method",
        "parameters",
        "dtype",
        "bytes",
    } <= set(row)


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ([Rule(("d0",), "0-2"), Rule(("d1",), "1")], "two rules claim"),
        (
            [
                Rule(("d0",), "0", components=("attn",)),
                Rule(("d1",), "0", method="linear", alpha=(0.5,)),
            ],
            "two rules claim",
        ),
        ([Rule(("d0",), "0-9")], "past the end"),
        ([Rule(("d0",), take=("vision",))], "no vision"),
        ([Rule(("d0", "d1"), "0")], "copy takes one input"),
        ([Rule(("d0", "d1"), "0", method="slerp", parameters={"t": 0.5})], "slerp does not take"),
        ([Rule(("d0",), "0", method="slerp")], "slerp needs t"),
        ([Rule(("d0",), "0", method="slerp", parameters={"t": "much"})], "no value for t"),
        (
            [Rule(("d0",), "0", method="ties", parameters={"weight": 1, "densty": 0.5})],
            "no parameter 'densty'",
        ),
        (
            [Rule(("d0",), "0", method="ties", parameters={"weight": {"d1": 1}})],
            "weight is given for",
        ),
        (
            [
                Rule(
                    ("d0",), "0", method="ties", parameters={"weight": 1, "normalize": {"d0": True}}
                )
            ],
            "one number",
        ),
        ([Rule(("d0",), "0", method="linaer", parameters={"weight": 1})], "unknown merge method"),
        (
            [Rule(("d0",), "0", method="linear", parameters={"weight": 1}, relative_to="base")],
            "not relative",
        ),
        (
            [Rule(("d0",), "0", method="linear", alpha=(0.5,), parameters={"normalize": True})],
            "exclude each other",
        ),
        ([Rule(("d0", "d1"), "0", method="linear", alpha=(0.5,))], "one donor"),
        (
            [Rule(("d0",), take=("embed",), method="linear", alpha=(0.2, 0.5))],
            "no value for text.embed",
        ),
        ([Rule(("base",), "0", method="noise")], "noise needs a ratio"),
        ([Rule(("base",), "0", method="noise", parameters={"ratio": 1.5})], "noise needs a ratio"),
    ],
)
def test_recipes_that_cannot_be_are_refused(tmp_path, rules, words):
    made = folders(tmp_path, "qwen2", donors=2)
    with pytest.raises(UsageError, match=words) as caught:
        plan(made, *rules)
    assert caught.value.why or caught.value.fix


def test_tied_embeddings_come_as_one(tmp_path):
    made = folders(tmp_path, "qwen2", tied=True)
    check(
        made,
        lambda p: 2 if p.component == "embed" else 1,
        tmp_path / "a",
        Rule(("d0",), take=("embed", "head")),
    )
    with pytest.raises(UsageError, match="no head of its own") as caught:
        plan(made, Rule(("d0",), take=("head",)))
    assert "tied" in caught.value.why


def test_plan_layers_is_the_recipe_of_one_range(tmp_path):
    base, donor = (open_checkpoint(f) for f in folders(tmp_path))
    changed = [row for row in plan_layers(base, donor, "1").rows if row.changed]
    assert {(r.target.place.part, r.target.place.layer) for r in changed} == {("text", 1)}
    assert {r.method for r in plan_layers(base, donor, "1", alpha=0.5).rows} == {"copy", "linear"}
