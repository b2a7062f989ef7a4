"""A picture that the model's processor refuses is a failed row of its own, in every verb, and never
the end of a run.
"""

import json

import pytest
from PIL import Image

from franken.bounds import bounded
from franken.cli import run_command
from franken.errors import FrankenError
from franken.evaluate.run import run_eval
from franken.generate.native import Prompt, Refused, Sampling, encode_prompts, generate, refusal
from franken.probe.plan import plan_probe
from franken.probe.run import run_probe
from franken.runs import load_run
from franken.tasks.sources import canonical
from trainer.loop import run_train
from trainer.public import public_items
from trainer.recipe import parse_recipe
from trainer.row_rules import RowRules

WHY = "the processor refuses it: absolute aspect ratio must be smaller than 200, got 250.0"
COLUMNS = "max_aspect=1000"  # beyond franken's own bound, which is that of the processor


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("refused")
    sizes = {"good": (84, 84), "long": (250, 1), "fine": (56, 84)}
    for name, size in sizes.items():
        Image.new("RGB", size, "red").save(folder / f"{name}.png")
    rows = [
        {"id": name, "question": "How many are red?", "answer": "1", "image": f"{name}.png"}
        for name in sizes
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return canonical(folder / "rows.jsonl", COLUMNS)


def test_only_the_prompt_itself_is_refused(sft_creature):
    good, long = (Image.new("RGB", size) for size in ((84, 84), (250, 1)))
    prompts = [Prompt("A", (good,), "a"), Prompt("B", (long,), "b"), Prompt("C", (), "c")]
    first, second, third = generate(sft_creature, prompts, Sampling(2, 1.0, 3, 0))
    assert [r.error for r in second] == [WHY, WHY]
    assert not any(r.error for r in [*first, *third])
    alone = generate(sft_creature, prompts[:1], Sampling(2, 1.0, 3, 0))[0]
    assert [r.ids for r in alone] == [r.ids for r in first]
    assert [refusal(sft_creature, p) for p in prompts] == [None, WHY, None]
    with pytest.raises(Refused, match="the processor refuses a prompt"):
        encode_prompts(sft_creature, prompts)


def test_eval_and_probe_keep_it_as_a_failed_row(data, tmp_path):
    options = {"n": 1, "k": (1,), "max_new_tokens": 3, "device": "cpu"}
    (folder,) = run_eval(["creature:sft"], data=data, out=tmp_path, **options)
    errors = (
        load_run(folder).samples.groupby("sample")["error"].agg(lambda found: set(found.dropna()))
    )
    assert errors["rows-long"] == {WHY}
    assert errors.drop("rows-long").map(lambda found: not found).all()
    plan = plan_probe("creature:sft", methods=["zero"], data=data, layers="0", max_new_tokens=3)
    samples = load_run(run_probe(plan, out=tmp_path, device="cpu")).samples.set_index("sample")
    assert samples["error"].dropna().to_dict() == {"rows-long": WHY}
    assert len(samples) == 3


def test_training_names_it_or_asks_another_row(data, sft_creature, tmp_path):
    stage = {"kind": "grpo", "data": data, "steps": 1, "prompts": 3, "group": 2, "lr": 1e-4}
    stage |= {"max_new_tokens": 3}

    def recipe(**changes):
        stages = [{**stage, **changes}]
        return parse_recipe(
            {"name": "x", "model": "creature:sft", "device": "cpu", "stages": stages}
        )

    with pytest.raises(FrankenError, match="row 1 of") as caught:
        run_train(recipe(), tmp_path / "stops")
    assert caught.value.why == WHY
    rules = RowRules(sft_creature, recipe(on_bad_row="skip").stages[0])
    items = public_items(data, 3, seed=0, step=0, check=rules.obstacle, skipped=rules.skipped)
    assert {item.id for item in items} == {"rows-good", "rows-fine"}
    assert set(rules.bad) == {(1, WHY)}


def test_a_text_beyond_the_bound_is_a_row_that_is_skipped(sft_creature, tmp_path):
    rows = [{"question": "How many? " * n, "answer": "1"} for n in (1, 40, 2)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    stage = {"kind": "grpo", "data": str(tmp_path / "rows.jsonl"), "steps": 1, "prompts": 3}
    stage |= {"group": 2, "lr": 1e-4, "on_bad_row": "skip"}
    recipe = parse_recipe({"name": "x", "model": "creature:sft", "stages": [stage]})
    rules = RowRules(sft_creature, recipe.stages[0])
    with bounded(["prompt_tokens=30"]):
        items = public_items(
            stage["data"], 3, seed=0, step=0, check=rules.obstacle, skipped=rules.skipped
        )
    assert all(len(item.question) < 30 for item in items)
    (row, why), *_ = rules.bad
    assert row == 1
    assert "more than prompt_tokens=30" in why


def test_the_dry_run_of_a_probe_counts_rows_that_cannot_be_read(tmp_path, capsys):
    Image.new("RGB", (84, 84)).save(tmp_path / "a.png")
    rows = [{"question": "?", "answer": "1", "image": f"{name}.png"} for name in "abc"]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["probe", "creature:sft", "--method", "zero", "--data", str(tmp_path / "rows.jsonl")]
    assert run_command([*words, "--dry-run", "--json"], False) == 0
    failing = json.loads(capsys.readouterr().out)["rows that fail"]
    assert failing == {"an image cannot be read: it is missing": 2}
