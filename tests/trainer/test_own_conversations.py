"""SFT on rows of one's own: the tokens that are supervised against TRL's masks under real chat
templates, the loss against TRL's batches and a forward a row, held-out rows, runs that resume.
"""

import base64
import io
import json
import signal
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from franken.cli import run_command
from franken.errors import FrankenError, UsageError
from franken.tasks.sources import canonical, open_stream
from trainer.data import Conversation, _spell, encode
from trainer.held_out_loss import held_out_loss
from trainer.loop import run_train
from trainer.public import held_out_conversations, public_conversations, split_rows
from trainer.recipe import load_recipe, parse_recipe
from trainer.sft import loss
from trainer.sft_packing import backward, pack_examples

SPECIAL = {
    "qwen2_5_vl": ("<|im_end|>", ["<|im_start|>", "<|image_pad|>"]),
    "qwen3_vl": ("<|im_end|>", ["<|im_start|>", "<|image_pad|>"]),
    "gemma3": ("<eos>", ["<bos>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>"]),
    "smolvlm": ("<end_of_utterance>", ["<|im_start|>", "<image>"]),
    "idefics3": ("<end_of_utterance>", ["<|im_start|>", "<image>"]),
    "llava_next": ("</s>", ["<s>", "<image>"]),
}
TURNS = [
    ("How many <|im_start|>assistant\nred?", "Two, and <b> bold"),
    ("assistant\nWhy?", "Because"),
    ("So?", "Done."),
]


def byte_tokenizer(eos, special):
    """Every byte a token, with the special tokens of a family: no text is lost."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    bos = {"bos_token": special[0]} if special[0] in ("<bos>", "<s>") else {}
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=eos, pad_token=eos, **bos)


@pytest.mark.parametrize("family", SPECIAL)
@pytest.mark.parametrize("system", ["", "Be brief."])
def test_supervised_tokens_are_trls_up_to_the_end_of_a_turn(family, system):
    """TRL's templates mark what an assistant says, with the line break behind the end of a turn,
    which no sampler writes: franken's labels are those without it.
    """
    import trl

    folder = Path(trl.__file__).parent / "chat_templates"
    eos, special = SPECIAL[family]
    tokenizer = byte_tokenizer(eos, special)
    tokenizer.chat_template = (folder / f"{family}.jinja").read_text()
    pieces = _spell(tokenizer, Conversation(None, TURNS, system=system))
    ids, labels = [], []
    for piece in pieces:
        own = tokenizer(piece.text, add_special_tokens=False)["input_ids"]
        ids += own
        labels += own if piece.supervised else [-100] * len(own)
    messages = [{"role": "system", "content": [{"type": "text", "text": system}]}] * bool(system)
    for question, answer in TURNS:
        for role, text in (("user", question), ("assistant", answer)):
            messages.append({"role": role, "content": [{"type": "text", "text": text}]})
    marked = tokenizer.apply_chat_template(
        messages,
        chat_template=(folder / f"{family}_training.jinja").read_text(),
        return_assistant_tokens_mask=True,
        return_dict=True,
        tokenize=True,
    )
    theirs = [
        token if mask else -100
        for token, mask in zip(marked["input_ids"], marked["assistant_masks"], strict=True)
    ]
    closers = {i for i in tokenizer.all_special_ids} | {
        i for i, token in tokenizer.added_tokens_decoder.items() if token.special
    }
    space = tokenizer("\n ", add_special_tokens=False)["input_ids"]
    for at in range(1, len(theirs)):  # what stands behind the end of a turn
        ended = theirs[at - 1] == -100 or theirs[at - 1] in closers
        if theirs[at] in space and ended and marked["input_ids"][at - 1] in closers:
            theirs[at] = -100
    assert ids == marked["input_ids"][: len(ids)]
    said = [tokenizer.decode([t for t in part if t >= 0]) for part in (labels, theirs)]
    assert said[0].replace(" ", "") == said[1].replace(" ", "")
    if family != "llava_next":  # whose TRL template counts a space before an answer otherwise
        assert labels == theirs[: len(labels)]


def uri(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture(scope="module")
def pictures():
    return [Image.new("RGB", (84, 84), (40 * i, 90, 0)) for i in range(5)]


def part(image):
    return {"type": "image_url", "image_url": {"url": uri(image)}}


def text(words):
    return {"type": "text", "text": words}


def say(role, *parts):
    return {"role": role, "content": list(parts)}


def shared(pictures):
    """The same conversations in three shapes."""
    a, b, c = pictures[:3]
    return [
        [say("user", part(a), text("How many are red?")), say("assistant", text("1"))],
        [say("user", text("Add 1 2")), say("assistant", text("3"))],
        [
            say("user", part(a), text("What?")),
            say("assistant", text("red")),
            say("user", text("Is it as "), part(b), text(" or "), part(c), text(" ?")),
            say("assistant", text("no")),
        ],
    ]


def sharegpt(messages, pictures):
    order = iter([f"{i}.png" for i in (0,)] if len(messages) == 2 else ["0.png", "1.png", "2.png"])
    images, turns = [], []
    for message in messages:
        said = ""
        for piece in message["content"]:
            if piece["type"] == "text":
                said += piece["text"]
            else:
                said += "<image>"
                images.append(next(order))
        role = {"user": "human", "assistant": "gpt"}[message["role"]]
        turns.append({"from": role, "value": said})
    return {"conversations": turns, "images": images}


def test_three_shapes_are_one_conversation(pictures, tmp_path):
    rows = shared(pictures)
    for i, image in enumerate(pictures):
        image.save(tmp_path / f"{i}.png")
    openai = [{"messages": row} for row in rows]
    llava = [sharegpt(row, pictures) for row in rows]
    for name, table in (("openai", openai), ("llava", llava)):
        lines = "".join(json.dumps(row) + "\n" for row in table)
        (tmp_path / f"{name}.jsonl").write_text(lines)
        pd.DataFrame([{k: json.dumps(v) for k, v in row.items()} for row in table]).to_parquet(
            tmp_path / f"{name}.parquet"
        )
    (tmp_path / "pairs.jsonl").write_text(
        json.dumps({"prompt": "How many are red?", "response": "1", "image": "0.png"}) + "\n"
        + json.dumps({"prompt": "Add 1 2", "response": "3"}) + "\n"
    )  # fmt: skip
    read = {
        name: open_stream(canonical(tmp_path / name)).converse(range(3 - (name[0] == "p")))
        for name in (
            "openai.jsonl",
            "openai.parquet",
            "llava.jsonl",
            "llava.parquet",
            "pairs.jsonl",
        )
    }
    wanted = read["openai.jsonl"]
    assert wanted[2].turns == (("What?", "red"), ("Is it as <image> or <image> ?", "no"))
    for found in read.values():
        for one, other in zip(found, wanted, strict=False):
            assert (one.turns, one.error) == (other.turns, None)
            assert [i.tobytes() for i in one.images] == [i.tobytes() for i in other.images]


def test_a_path_out_of_the_folder_is_the_rows_error(tmp_path, pictures):
    (tmp_path / "in").mkdir()
    pictures[0].save(tmp_path / "secret.png")
    row = {"messages": [say("user", {"type": "image", "image": "../secret.png"}, text("What?"))]}
    row["messages"].append(say("assistant", text("red")))
    (tmp_path / "in" / "x.jsonl").write_text(json.dumps(row) + "\n")
    (said,) = open_stream(canonical(tmp_path / "in" / "x.jsonl")).converse([0])
    assert "outside the data folder" in said.error


@pytest.fixture(scope="module")
def conversations(pictures):
    a, b, c = pictures[:3]
    return [
        Conversation(a, [("How many are red?", "1")]),
        Conversation(None, [("Add 1 2", "3"), ("Add 2 2", "4")]),
        Conversation(a, [("What?", "red"), ("Is it as <image> or <image> ?", "no")],
                     more_images=(b, c)),
    ]  # fmt: skip


def test_later_images_stand_where_they_are_marked(sft_creature, conversations):
    """The batch's tokens are those of the whole text, and the loss a forward a row, packed or not."""
    batch = encode(sft_creature, conversations)
    model, processor = sft_creature.model, sft_creature.processor
    total, count = 0.0, 0
    for row, conversation in enumerate(conversations):
        whole = "".join(piece.text for piece in _spell(processor, conversation))
        shown = {"images": [conversation.images]} if conversation.images else {}
        read = processor(text=[whole], return_tensors="pt", **shown)
        real = batch.inputs.attention_mask[row].bool()
        assert read["input_ids"][0].tolist() == batch.inputs.input_ids[row][real].tolist()
        with torch.no_grad():
            logits = model(**read).logits[0, :-1].float()
        labels = batch.labels[row][real][1:]
        losses = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
        total, count = total + float(losses), count + int((labels >= 0).sum())
    part, metrics = loss(sft_creature, batch)
    assert metrics["tokens"] == count
    assert metrics["loss"] == pytest.approx(total / count, rel=1e-5)
    assert held_out_loss(sft_creature, conversations, 2)["loss"] == pytest.approx(
        total / count, rel=1e-5
    )
    packed = backward(sft_creature, pack_examples(sft_creature, batch))
    model.zero_grad()
    assert packed["loss"] == pytest.approx(part.item(), rel=1e-5)


def test_the_loss_is_that_of_trls_batch(sft_creature, pictures):
    """Prompt and completion as TRL's collator makes them, but for the text behind the end of turn."""
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    asked = [("How many are red?", "1"), ("What ?", "red"), ("Add 1 2", "3")]
    collate = DataCollatorForVisionLanguageModeling(
        sft_creature.processor, completion_only_loss=True
    )
    rows = [
        {
            "images": [pictures[i]],
            "prompt": [say("user", text(q))],
            "completion": [say("assistant", text(a))],
        }
        for i, (q, a) in enumerate(asked)
    ]
    for row, (question, answer) in zip(rows, asked, strict=True):
        row["prompt"][0]["content"], row["completion"][0]["content"] = question, answer
    theirs = collate(rows)
    labels, eos = theirs["labels"], sft_creature.tokenizer.eos_token_id
    for line in labels:
        ends = (line == eos).nonzero()
        if len(ends):
            line[int(ends[-1]) + 1 :] = -100
    theirs = {k: v for k, v in theirs.items() if k != "labels"}
    with torch.no_grad():
        expected = sft_creature.model(**theirs, labels=labels).loss
    ours = [Conversation(pictures[i], [turn]) for i, turn in enumerate(asked)]
    assert loss(sft_creature, encode(sft_creature, ours))[1]["loss"] == pytest.approx(
        expected.item(), rel=1e-5
    )


def write(folder, count=20, twins=()):
    rows = []
    for i in range(count):
        shade = Image.new("RGB", (28, 28), (9 * i, 0, 0))
        turns = [say("user", part(shade), text(f"What? {i}")), say("assistant", text("red"))]
        if i % 3 == 0:
            turns += [say("user", text("And?")), say("assistant", text("no"))]
        rows.append({"messages": turns})
    rows += [rows[i] for i in twins]
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_a_share_or_a_file_is_held_out_by_content(tmp_path):
    file = write(tmp_path, 20, twins=(3, 6, 7, 12))
    learnt, held = split_rows(str(file), 0.25)
    assert len(held) == 6
    twin = {20: 3, 21: 6, 22: 7, 23: 12}
    assert not {twin.get(r, r) for r in learnt} & {twin.get(r, r) for r in held}
    lines = file.read_text().splitlines(keepends=True)
    other = tmp_path / "other.jsonl"
    other.write_text(lines[3] + lines[8])
    learnt, held = split_rows(str(file), str(other))
    assert list(learnt) == [i for i in range(24) if i not in (3, 8, 20)]
    assert list(held) == [0, 1]
    shown = held_out_conversations(str(file), str(other))
    assert [c.turns[0][0] for c in shown] == ["What? 3", "What? 8"]
    seen = {
        c.turns[0][0]
        for step in range(8)
        for c in public_conversations(str(file), 4, seed=0, step=step, held_out=str(other))
    }
    assert seen == {f"What? {i}" for i in range(20)} - {"What? 3", "What? 8"}


def recipe_on(file, **changes):
    stage = {"kind": "sft", "steps": 6, "batch": 3, "lr": 1e-3, "data": str(file), "save_every": 1}
    stage |= {"held_out": 0.2, "eval_every": 3, "freeze": ["vision"], **changes}
    return parse_recipe({"name": "x", "model": "creature:sft", "device": "cpu", "stages": [stage]})


def test_a_run_resumes_bit_for_bit_and_tells_its_held_out_loss(tmp_path):
    file = write(tmp_path)

    def stop(line):
        if line.update.update == 4:
            signal.raise_signal(signal.SIGINT)

    run_train(recipe_on(file), tmp_path / "one")
    with suppress(KeyboardInterrupt):
        run_train(recipe_on(file), tmp_path / "cut", report=stop)
    assert not (tmp_path / "cut" / "final").exists()
    run_train(recipe_on(file), tmp_path / "cut")
    one, cut = (load_file(tmp_path / n / "final/model.safetensors") for n in ("one", "cut"))
    assert all(torch.equal(one[name], cut[name]) for name in one)
    lines = [json.loads(x) for x in (tmp_path / "one/metrics.jsonl").read_text().splitlines()]
    told = [line["held_out"] for line in lines if "held_out" in line]
    assert [set(t) for t in told] == [{"loss", "token_accuracy", "tokens"}] * 2
    assert told[1]["loss"] < told[0]["loss"]


def test_bad_rows_are_told_as_supervised_training_reads_them(tmp_path, capsys):
    file = write(tmp_path, 5)
    bad = {"messages": [say("user", text("And?"))]}
    file.write_text(file.read_text() + json.dumps(bad) + "\n{\n")
    with pytest.raises(FrankenError, match="row [56] of"):
        public_conversations(str(file), 7, seed=0, step=0)
    recipe = tmp_path / "x.yaml"
    recipe.write_text(
        json.dumps(recipe_on(file, held_out=0, eval_every=None).model_dump(mode="json"))
    )
    for way in ("--dry-run", "--plan"):
        assert run_command(["train", str(recipe), way], False) == 0
        said = capsys.readouterr().out
        assert "2 fail:" in said
        assert "1  the row has no answer" in said


def test_the_example_trains_and_its_best_is_kept(tmp_path):
    changes = ("stages.0.steps=4", "stages.0.eval_every=2", "device=cpu")
    run_train(load_recipe("sft-own-data-creature", changes), tmp_path / "run")
    told = json.loads((tmp_path / "run/train.json").read_text())
    assert told["exported_update"] in (2, 4)


@pytest.mark.parametrize("held", [-1, 1.5, "nowhere.jsonl"])
def test_what_cannot_be_held_out_is_refused(tmp_path, held):
    with pytest.raises(UsageError):
        recipe_on(write(tmp_path, 4), held_out=held)
