"""The figures of evaluations: all of them from a full comparison, and whatever there is from a bare
one.
"""

from franken.evaluate.compare import compare_runs
from franken.evaluate.run import run_eval
from franken.report.figures.answers import tints
from franken.report.figures.comparison import draw_eval

OPTIONS = {"tasks": ["read", "count"], "samples": 3, "max_new_tokens": 8, "device": "cpu"}


def test_a_full_comparison_has_four_figures(tmp_path):
    folders = run_eval(
        ["creature:base", "creature:sft"],
        labels=["base", "sft"],
        arms="image,text,black,describe",
        n=2,
        k=(1, 2),
        out=tmp_path,
        **OPTIONS,
    )
    made = draw_eval(compare_runs(folders, out=tmp_path))
    assert [p.stem for p in made] == ["coverage", "perception", "diversity", "shape"]
    assert all(p.stat().st_size > 10_000 for p in made)


def test_one_model_one_arm_and_one_draw_are_drawn_too(tmp_path):
    folders = run_eval(["creature:sft"], arms="blind", n=1, k=(1,), out=tmp_path, **OPTIONS)
    made = draw_eval(compare_runs(folders, out=tmp_path))
    assert [p.stem for p in made] == ["coverage", "perception", "shape"]


def test_models_keep_the_colours_of_their_stage_and_differ():
    found = tints(["creature-base", "creature-sft", "my-rl", "other-rl", "nameless"])
    assert len(set(found.values())) == 5
    assert found["creature-sft"] == tints(["SFT"])["SFT"]
