"""Rows with no image, one and several in the same steps: SFT and RL, packed and not, on one process
and two, killed and resumed; with bad rows among them, which are counted and replaced.
"""

import json
import signal
import socket
from contextlib import suppress

import pytest
import torch
from PIL import Image
from processes import start as start_process
from safetensors.torch import load_file
from test_distributed import one_of_two

from franken.errors import FrankenError
from franken.generate.native import Sampling, encode_prompts, generate
from franken.tasks.sources import canonical, open_stream
from trainer.data import Conversation, encode
from trainer.evaluate import asked_with
from trainer.loop import run_train
from trainer.plan import memory_plan
from trainer.public import public_conversations, public_items
from trainer.recipe import parse_recipe
from trainer.sft import loss

SFT = {"kind": "sft", "steps": 2, "batch": 4, "lr": 1e-4, "freeze": ["vision"]}
GRPO = {
    "kind": "grpo",
    "steps": 2,
    "prompts": 4,
    "group": 3,
    "max_new_tokens": 6,
    "lr": 1e-3,
    "freeze": ["vision"],
    "entropy_bonus": 0.01,
}
COMMON = {"data": "rows.jsonl", "on_bad_row": "skip", "save_every": 1, "seed": 3}
STAGES = [
    {**SFT, **COMMON},
    {**SFT, **COMMON, "packed": True, "token_budget": 200, "freeze": []},
    {**GRPO, **COMMON, "max_pixels": 84 * 84, "micro_rows": 5},
    {**GRPO, **COMMON, "packed": True, "token_budget": 300, "freeze": []},
]


def write_rows(folder):
    for i in range(4):
        size = (84, 84) if i < 3 else (168, 168)
        Image.new("RGB", size, (60 * i, 0, 200)).save(folder / f"{i}.png")
    rows = [
        {"question": "Add 1 2", "answer": "3", "images": []},
        {"question": "<image>How many are red?", "answer": "1", "images": ["0.png"]},
        {"question": "Is <image> as <image> ?", "answer": "no", "images": ["1.png", "2.png"]},
        {"question": "Describe", "answer": "red", "images": ["2.png", "3.png"]},
        {"question": "How many?", "answer": "2", "images": ["none.png"]},
        {"question": "<image>How many?", "answer": "2", "images": ["0.png", "1.png"]},
        {"question": "Which is red? <image>", "answer": "2", "images": ["3.png"]},
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "rows.jsonl")


def recipe_on(data, sharding="none"):
    stages = [{**stage, "data": data} for stage in STAGES]
    common = {"name": "x", "model": "creature:sft", "device": "cpu", "sharding": sharding}
    return parse_recipe({**common, "stages": stages})


def train(data, out, until=0, sharding="none"):
    """Run to the end; with `until`, stop as ctrl-C does, after that update."""

    def stop(line):
        if line.update.update == until:
            signal.raise_signal(signal.SIGINT)

    with suppress(KeyboardInterrupt):
        run_train(recipe_on(data, sharding), out, report=stop)


def two_ranks(number, port, data, folder):
    torch.set_num_threads(1)
    with one_of_two(number, port):
        train(data, folder / "two")
        train(data, folder / "sharded", sharding="fsdp")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixture")
    data = write_rows(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [start_process(folder / f"said-{n}", two_ranks, n, port, data, folder) for n in (0, 1)]
    train(data, folder / "one")
    for until in (3, 6):
        train(data, folder / "killed", until)
    train(data, folder / "killed")
    assert [rank.wait() for rank in ranks] == [0, 0], "\n".join(rank.stderr for rank in ranks)
    return folder


def final(out):
    return load_file(out / "final" / "model.safetensors")


def lines(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_resumed_run_is_one_that_nobody_killed(folder):
    one, killed = final(folder / "one"), final(folder / "killed")
    assert all(torch.equal(one[name], killed[name]) for name in one)
    for a, b in zip(lines(folder / "one"), lines(folder / "killed"), strict=True):
        assert (a["loss"], a["skipped_rows"]) == (b["loss"], b["skipped_rows"])


@pytest.mark.parametrize("way", ["two", "sharded"])
def test_two_processes_train_as_one(folder, way):
    """Sharded, a process without images in a pass runs the tower beside one that has some."""
    for a, b in zip(lines(folder / "one"), lines(folder / way), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4, abs=1e-5)
        assert a["skipped_rows"] == b["skipped_rows"]
    one, two = final(folder / "one"), final(folder / way)
    assert max((one[n].float() - two[n].float()).abs().max().item() for n in one) < 1e-3


def test_bad_rows_are_counted_and_never_asked(folder):
    data = str(folder / "rows.jsonl")
    assert sum(line["skipped_rows"] for line in lines(folder / "one")) > 0
    skipped = []
    for step in range(5):
        found = public_items(
            data, 7, seed=0, step=step, skipped=lambda row, why: skipped.append((row, why))
        )
        assert len(found) == 7
        assert not any(item.error for item in found)
    assert {row for row, _ in skipped} == {4, 5}
    assert {why for _, why in skipped} >= {"1 <image> marks for 2 images"}
    with pytest.raises(FrankenError, match="row [45] of"):
        public_items(data, 7, seed=0, step=0)


def test_the_same_rows_on_any_number_of_processes(folder):
    data, silent = str(folder / "rows.jsonl"), lambda row, why: None
    whole = public_items(data, 6, seed=1, step=2, skipped=silent)
    halves = [
        item
        for first in (0, 3)
        for item in public_items(data, 3, seed=1, step=2, first=first, width=6, skipped=silent)
    ]
    assert [item.id for item in whole] == [item.id for item in halves]


def test_loss_of_a_mixed_batch_is_the_model_s_own_forward(folder, sft_creature):
    data = str(folder / "rows.jsonl")
    rows = public_conversations(data, 7, seed=0, step=0, skipped=lambda row, why: None)
    assert {len(row.images) for row in rows} >= {0, 1, 2}
    with torch.no_grad():
        together = loss(sft_creature, encode(sft_creature, rows))[1]
        total = tokens = 0.0
        for row in rows:
            alone = encode(sft_creature, [row])
            logits = sft_creature.model(**alone.inputs, use_cache=False).logits[0, :-1].float()
            wanted = alone.labels[0, 1:]
            logp = logits.log_softmax(-1)[torch.arange(len(wanted)), wanted.clamp(min=0)]
            total -= float(logp[wanted >= 0].sum())
            tokens += int((wanted >= 0).sum())
    assert together["loss"] == pytest.approx(total / tokens, rel=1e-4)


def test_sampled_log_probabilities_are_the_model_s_own(folder, sft_creature):
    items = public_items(
        str(folder / "rows.jsonl"), 5, seed=0, step=0, skipped=lambda row, why: None
    )
    prompts = [asked_with("", item) for item in items]
    replies = generate(sft_creature, prompts, Sampling(1, 1.0, 5, 0))
    banned = sft_creature.banned_ids
    for prompt, (reply,) in zip(prompts, replies, strict=True):
        batch = encode_prompts(sft_creature, [prompt])
        start = batch.tokens
        with torch.no_grad():
            model = sft_creature.model
            logits = model(**batch.append(reply.ids), use_cache=False).logits[0].double()
        logits[:, banned] = -torch.inf
        own = logits.log_softmax(-1)[start - 1 : start - 1 + len(reply.ids)]
        expected = own[torch.arange(len(reply.ids)), torch.tensor(reply.ids)]
        assert torch.allclose(torch.tensor(reply.logprobs).double(), expected, atol=1e-4)


def test_the_prompt_is_the_same_for_training_and_sampling(folder, sft_creature):
    items = public_items(
        str(folder / "rows.jsonl"), 5, seed=0, step=0, skipped=lambda row, why: None
    )
    for item in items:
        asked = encode_prompts(sft_creature, [asked_with("", item)]).input_ids[0].tolist()
        shown = Conversation(item.image, [(item.question, "3")], more_images=item.more_images)
        assert encode(sft_creature, [shown]).inputs.input_ids[0].tolist()[: len(asked)] == asked


def test_conversations_keep_all_their_turns(tmp_path):
    Image.new("RGB", (84, 84)).save(tmp_path / "a.png")
    turns = [("human", "<image>\nWhat?"), ("gpt", "A."), ("human", "Why?"), ("gpt", "So.")]
    row = {"image": "a.png", "conversations": [{"from": w, "value": t} for w, t in turns]}
    late = {**row, "conversations": row["conversations"][:3]}
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(late) + "\n")
    good, bad = open_stream(canonical(tmp_path / "x.jsonl")).converse([0, 1])
    assert good.turns == (("What?", "A."), ("Why?", "So."))
    assert len(good.images) == 1
    assert bad.error == "the row has no answer"


def test_long_prompts_and_large_images_are_bounded(folder, sft_creature):
    from trainer.row_rules import RowRules

    data = str(folder / "rows.jsonl")
    stage = recipe_on(data).stages[2].model_copy(update={"max_prompt_tokens": 20})
    rules = RowRules(sft_creature, stage)
    found = public_items(
        data, 7, seed=0, step=0, check=rules.obstacle, max_pixels=900, skipped=rules.skipped
    )
    assert all(encode_prompts(sft_creature, [asked_with("", i)]).tokens <= 20 for i in found)
    assert any("tokens, more than 20" in why for _, why in rules.bad)
    small = public_items(data, 7, seed=0, step=0, max_pixels=900, skipped=lambda row, why: None)
    assert all(image.width <= 30 for i in small if (image := i.image))


def test_the_plan_refuses_fewer_prompts_than_processes(folder):
    plan = memory_plan(recipe_on(str(folder / "rows.jsonl")), memory=80, processes=8)
    assert not plan.fits
    assert "stage 2: 4 prompts for 8 processes: one would have none" in plan.problems
    assert "--set stages.2.prompts=8" in plan.changes
    assert "--set stages.0.batch=8" in plan.changes


def test_bad_rows_are_told_before_anything_runs(folder, tmp_path, capsys):
    import yaml

    from franken.cli import run_command

    file = tmp_path / "x.yaml"
    data = str(folder / "rows.jsonl")
    file.write_text(yaml.safe_dump(recipe_on(data).model_dump(mode="json")))
    for way in ("--dry-run", "--plan"):
        run_command(["train", str(file), way], False)
        said = capsys.readouterr().out
        assert f"rows of {data}, 2 fail:" in said
        assert "1  an image cannot be read: it is missing" in said
    words = ["eval", "creature:sft", "--data", data, "--dry-run", "--json"]
    assert run_command(words, False) == 0
    assert json.loads(capsys.readouterr().out)["rows that fail"] == {
        "an image cannot be read: it is missing": 1,
        "… <image> marks for … images": 1,
    }
