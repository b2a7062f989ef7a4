"""Rows as people post them: each is the question that a person would read, with its images and its
right answer, or a failed row that says why; none is lost.
"""

import base64
import io
import json
import zipfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from public_data import needs, public

from franken import tasks
from franken.errors import FrankenError, UsageError
from franken.tasks.sources import canonical, load_tasks, open_stream
from trainer.recipe import load_recipe

LETTER = "Answer with the letter of the right option."


def png(size=(8, 6), shade=200):
    file = io.BytesIO()
    Image.new("RGB", size, (shade, 0, 0)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(("a", "b")):
        (tmp_path / f"{name}.png").write_bytes(png((8 + i, 6)))
    return tmp_path


def items_of(folder, *rows, columns="", name="rows.jsonl"):
    file = folder / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_tasks((), 10**6, 0, canonical(file, columns))


def only(folder, row, columns=""):
    (item,) = items_of(folder, row, columns=columns)
    return item


def user(content):
    return [{"role": "user", "content": content}]


A = {"type": "image"}
CONVERSATIONS = {  # row: (question, gold, images)
    "TRL": ({"prompt": user("What is 2+3?"), "solution": "5"}, ("What is 2+3?", "5", 0)),
    "TRL with parts": (
        {"prompt": user([A, {"type": "text", "text": "Dots?"}]), "image": "a.png", "solution": "5"},
        ("Dots?", "5", 1),
    ),
    "OpenAI": (
        {
            "messages": [
                *user(
                    [
                        {"type": "text", "text": "Is "},
                        {"type": "image_url", "image_url": {"url": "a.png"}},
                        {"type": "text", "text": " red?"},
                    ]
                ),
                {"role": "assistant", "content": "yes"},
            ]
        },
        ("Is <image> red?", "yes", 1),
    ),
    "a system message": (
        {"messages": [{"role": "system", "content": "Be brief."}, *user("2+3?")], "answer": "5"},
        ("Be brief.\n\n2+3?", "5", 0),
    ),
    "ms-swift": (
        {"images": ["a.png"], "messages": user("<image>数?"), "solution": "3"},
        ("数?", "3", 1),
    ),
    "verl": (
        {
            "data_source": "x",
            "prompt": user("<image>Find x."),
            "images": ["a.png"],
            "reward_model": {"style": "rule", "ground_truth": "3"},
            "extra_info": {"answer": "4"},
        },
        ("Find x.", "3", 1),
    ),
    "verl, as JSON": (
        {"prompt": json.dumps(user("Find x.")), "reward_model": '{"ground_truth": "3"}'},
        ("Find x.", "3", 0),
    ),
    "ShareGPT, LLaVA, VLM-R1": (
        {
            "image": ["a.png", "b.png"],
            "conversations": [
                {"from": "human", "value": "<image><image>In which is it red?"},
                {"from": "gpt", "value": "first"},
            ],
        },
        ("In which is it red?", "first", 2),
    ),
    "EasyR1": (
        {"problem": "<image>Find x.", "answer": "10", "images": ["a.png"]},
        ("Find x.", "10", 1),
    ),
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_conversations_are_questions(name, folder):
    row, expected = CONVERSATIONS[name]
    item = only(folder, row)
    pictures = [p for p in (item.image, *item.more_images) if p is not None]
    assert item.error is None
    assert (item.question, item.answer, len(pictures)) == expected


def test_a_nested_column_is_named_by_its_path(folder):
    row = {"prompt": user("x?"), "reward_model": {"ground_truth": "3"}, "extra": {"gold": "4"}}
    assert only(folder, row, "answer=extra.gold").answer == "4"
    with pytest.raises(UsageError, match="no column 'other.gold'"):
        only(folder, row, "answer=other.gold")


def named(letters="ABC", **changes):
    return {"question": "q", "options": ["x", "y", "z"], **changes}


ANSWERS = {  # row: (gold, type)
    "a letter": (named(answer="B"), ("B", "option")),
    "a text": (named(answer="z"), ("C", "option")),
    "an index": (named(answer=1), ("B", "option")),
    "an index from 1": (named(answer=1), ("A", "option"), "reads=index from 1"),
    "several letters": (named(answer=["A", "C"]), ("A, C", "option")),
    "several letters in a run": (named(answer="AC"), ("A, C", "option")),
    "several texts": (named(answer=["x", "z"]), ("A, C", "option")),
    "columns": ({"question": "q", "A": "x", "B": "y", "answer": "B"}, ("B", "option")),
    "JSON": ({"question": "q", "options": '["x", "y"]', "answer": "B"}, ("B", "option")),
    "by letter": (
        {"question": "q", "options": {"A": "x", "B": "y"}, "answer": "y"},
        ("B", "option"),
    ),
    "of ARC": (
        {"question": "q", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answer": "B"},
        ("B", "option"),
    ),
    "numbers": ({"question": "q", "options": [3, 34, 27], "answer": 27}, ("C", "option")),
    "a large float": ({"question": "q", "answer": 1234567.0}, ("1234567", "integer")),
    "digits of a float": ({"question": "q", "answer": 123456.789}, ("123456.789", "number")),
    "true": ({"question": "q", "answer": True}, ("yes", "yes_no")),
    "a box": ({"question": "q", "answer": [1, 2, 3, 4]}, ("[1, 2, 3, 4]", "expression")),
    "a tag": ({"question": "q", "solution": "<answer> 3 </answer>"}, ("3", "integer")),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_as_tables_write_them(name, folder):
    row, expected, *columns = ANSWERS[name]
    item = only(folder, row, *columns)
    assert item.error is None
    assert (item.answer, item.answer_type) == expected
    assert tasks.grade(f"<answer>{item.answer}</answer>", item).score == 1


def test_any_accepted_answer_is_right(folder):
    item = only(folder, {"question": "What animal?", "answer": ["dog", "puppy"]})
    scores = [
        tasks.grade(f"<answer>{said}</answer>", item).score for said in ("dog", "puppy", "cat")
    ]
    assert (item.answer, item.accepted, scores) == ("dog", ("puppy",), [1, 1, 0])
    noisy = only(folder, {"question": "q", "answer": 0.1 + 0.2})
    assert tasks.grade("<answer>0.3</answer>", noisy).score == 1


def test_the_table_says_what_digits_mean(folder):
    """`1` beside the options 1, 2, 3 is a text or an index; other rows tell."""

    def row(answer, *options):
        return {"question": "q", "options": list(options), "answer": answer}

    unsure = only(folder, row("1", "1", "2", "3"))
    assert "reads=index from 0" in (unsure.error or "")
    as_text = items_of(folder, row("1", "1", "2", "3"), row("3", "1", "2", "3"))
    assert [item.answer for item in as_text] == ["A", "C"]
    as_index = items_of(folder, row("1", "1", "2", "3"), row("0", "1", "2", "3"))
    assert [item.answer for item in as_index] == ["B", "A"]


FAILED = {
    "a structure as question": (
        {"question": {"a": 1}, "answer": "1"},
        "the question is a structure",
    ),
    "a list as question": ({"question": ["a"], "answer": "1"}, "the question is a list"),
    "a structure as answer": ({"question": "q", "answer": {"a": 1}}, "the answer is a structure"),
    "NaN": ({"question": "q", "answer": float("nan")}, "no answer"),
    "infinity": ({"question": "q", "answer": float("inf")}, "inf is no number"),
    "an index too large": (named(answer=3), "no index from 0"),
    "options of numbers and lists": (
        {"question": "q", "options": [[1]], "answer": "A"},
        "option is",
    ),
    "options as a number": ({"question": "q", "options": 3, "answer": "A"}, "not a list"),
    "options as a word": ({"question": "q", "options": "x", "answer": "A"}, "list no letters"),
    "an empty option": (
        {"question": "q", "options": ["", "y"], "answer": "B"},
        "option A is empty",
    ),
    "an answer beside the options": (named(answer="w"), "none of the options"),
    "two marks, one image": (
        {"question": "<image> or <image>?", "answer": "2", "images": ["a.png"]},
        "2 <image> marks for 1 image",
    ),
    "one mark, two images": (
        {"question": "<image>?", "answer": "2", "images": ["a.png", "b.png"]},
        "1 <image> marks for 2 images",
    ),
    "a mark, no image": ({"question": "<image>x?", "answer": "2", "images": []}, "for 0 images"),
    "a number without its image": (
        {"question": "<image 1>, <image 3>?", "answer": "2", "images": ["a.png", "b.png"]},
        "<image 1>, <image 3> are marked",
    ),
    "a video": ({"question": "<video>What?", "answer": "2"}, "only images can be shown"),
    "two questions": (
        {
            "messages": [*user("a"), {"role": "assistant", "content": "b"}, *user("c")],
            "answer": "1",
        },
        "a conversation of 2 questions",
    ),
    "a tool": ({"messages": [{"role": "tool", "content": "a"}], "answer": "1"}, "a turn of 'tool'"),
    "a part of no kind": ({"messages": user([{"text": "a"}]), "answer": "1"}, "has no type"),
    "NUL": ({"question": "a\0b", "answer": "1"}, "a NUL"),
    "half a character": ({"question": "a\ud800b", "answer": "1"}, "surrogate"),
    "a sign of a template": ({"question": "a<|im_end|>b", "answer": "1"}, "<|im_end|>"),
    "a long question": ({"question": "a" * 100_001, "answer": "1"}, "100001 characters"),
    "an address": ({"question": "q", "answer": "1", "image": "https://x.org/a.png"}, "is fetched"),
    "a way out": ({"question": "q", "answer": "1", "image": "../a.png"}, "outside the data folder"),
    "too many images": ({"question": "q", "answer": "1", "images": ["a.png"] * 33}, "33 images"),
}


@pytest.mark.parametrize("name", FAILED)
def test_what_a_column_should_not_hold_is_the_error_of_its_row(name, folder):
    row, why = FAILED[name]
    sound = {"question": "q", "answer": "1"}
    first, failed, last = items_of(folder, sound, row, sound)
    assert why in (failed.error or "")
    assert not first.error
    assert not last.error
    assert "{" not in failed.question + failed.answer


def test_bounds_are_settings(folder):
    row = {"question": "How many are red?", "answer": "1", "image": "a.png"}
    for columns, why in (
        ("max_characters=9", "17 characters, more than max_characters=9"),
        ("max_image_pixels=47", "8 × 6 is more than max_image_pixels=47"),
        ("max_aspect=1.2", "one side is more than max_aspect=1.2 times the other"),
        ("max_images=0", "1 images are more than max_images=0"),
    ):
        assert why in (only(folder, row, columns).error or "")
    with pytest.raises(UsageError, match="max_images=x is no number"):
        only(folder, row, "max_images=x")


def test_marks_stay_where_they_are(folder):
    def asked(question, **more):
        item = only(
            folder, {"question": question, "answer": "A", "images": ["a.png", "b.png"], **more}
        )
        widths = [image.width for image in (item.image, *item.more_images)]
        return item.question, widths

    assert asked("Is <image> larger than <image>?") == ("Is <image> larger than <image>?", [8, 9])
    assert asked("<image>\n<image>\nA or B?") == ("A or B?", [8, 9])
    assert asked("<image 2> or <image 1>? See <image 2>.") == (
        "<image> or <image>? See [image 1].",
        [9, 8],
    )
    assert asked("Which?", options=["<image>", "<image>"]) == (
        f"Which?\n(A) <image>\n(B) <image>\n{LETTER}",
        [8, 9],
    )


def test_separated_values(folder):
    file = folder / "x.tsv"
    picture = base64.b64encode(png()).decode()
    quoted = '"Which,\nof these?"'
    file.write_text(
        "index\tquestion\tA\tB\tC\tanswer\timage\n"
        f"0\t{quoted}\tcat\tdog\t\tA\t{picture}\n"
        "1\tWhich?\tcat\tdog\n"
        f"2\tWhich?\tcat\tdog\tcow\tC\t{picture[:40]}\n"
    )
    one, short, cut = load_tasks((), 9, 0, canonical(file))
    assert one.question == f"Which,\nof these?\n(A) cat\n(B) dog\n{LETTER}"
    assert (one.answer, one.image.size) == ("A", (8, 6))
    assert "4 cells, and the header 7" in short.error
    assert "cannot be read" in cut.error
    csv = folder / "x.csv"
    pd.DataFrame({"question": ["a,b", 'say "x"'], "answer": [1.0, 2.5]}).to_csv(csv, index=False)
    found = load_tasks((), 9, 0, canonical(csv))
    assert [(i.question, i.answer) for i in found] == [("a,b", "1.0"), ('say "x"', "2.5")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1"])
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv"])
def test_encodings(encoding, kind, tmp_path):
    file = tmp_path / f"x.{kind}"
    row = json.dumps({"question": "où?", "answer": "là"}, ensure_ascii=False)
    text = {
        "jsonl": f"{row}\n{row}\n",
        "json": f"[{row}, {row}]",
        "csv": "question,answer\noù?,là\n",
    }
    file.write_bytes(text[kind].encode(encoding))
    if encoding == "latin-1":
        with pytest.raises(FrankenError, match="not utf-8|not UTF-8|cannot be read"):
            load_tasks((), 9, 0, canonical(file))
    columns = "encoding=latin-1" if encoding == "latin-1" else ""
    items = load_tasks((), 9, 0, canonical(file, columns))
    assert {(item.question, item.answer) for item in items} == {("où?", "là")}
    with pytest.raises(UsageError, match="no encoding"):
        load_tasks((), 9, 0, canonical(file, "encoding=klingon"))


def test_lines_that_are_no_rows_are_failed_rows(tmp_path):
    sound = b'{"question": "q", "answer": "1"}\n'
    bad = [
        b"{broken\n",
        b"[1]\n",
        b'{"question": "\xe9"}\n',
        b'{"a":' * 900 + b"1" + b"}" * 900 + b"\n",
    ]
    (tmp_path / "x.jsonl").write_bytes(sound + b"\n".join(bad) + sound)
    items = load_tasks((), 9, 0, canonical(tmp_path / "x.jsonl"))
    whys = [
        "line 2 is not JSON",
        "line 4 is a list",
        "line 6 is not utf-8",
        "line 8 is not JSON: it",
    ]
    assert len(items) == 6
    assert all(why in item.error for why, item in zip(whys, items[1:5], strict=True))
    assert not items[5].error


def test_images_in_an_archive_beside_the_table(tmp_path):
    import tarfile

    rows = [
        {"question": "q", "answer": "1", "image": f"images/{name}.png"} for name in ("a", "b", "no")
    ]
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("images/a.png", png((3, 4)))
        archive.writestr("../b.png", png())
    a, b, no = items_of(tmp_path, *rows)
    assert a.image.size == (3, 4)
    assert "images/b.png cannot be read: it is missing" in b.error
    assert "missing" in no.error
    other = tmp_path / "other"
    other.mkdir()
    with tarfile.open(other / "images.tar", "w") as archive:
        member = tarfile.TarInfo("b.png")  # without the archive's name in front
        member.size = len(png((5, 4)))
        archive.addfile(member, io.BytesIO(png((5, 4))))
        link = tarfile.TarInfo("a.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
    a, b, _ = items_of(other, *rows)
    assert b.image.size == (5, 4)
    assert "missing" in a.error
    assert sorted(p.name for p in other.iterdir()) == ["images.tar", "rows.jsonl"]
    packed = tmp_path / "packed"
    packed.mkdir()
    (packed / "images.tar.gz").write_bytes(b"")
    assert "images.tar.gz" in items_of(packed, rows[0])[0].error


def test_virl39k_from_a_folder_and_from_the_cache(tmp_path, monkeypatch):
    """As published: one Parquet file, and images.zip beside it (the card of TIGER-Lab/ViRL39K)."""
    snapshot = tmp_path / "datasets--TIGER-Lab--ViRL39K" / "snapshots" / "0"
    snapshot.mkdir(parents=True)
    row = {
        "question": "<image>Which?\nA. 3\nB. 4",
        "answer": "\\boxed{B}",
        "PassRate_32BTrained": 0.5,
        "PassRate_7BBase": 0.2,
        "category": "c",
        "source": "s",
        "qid": "q1",
        "image": ["images/0.png"],
    }
    pd.DataFrame([row]).to_parquet(snapshot / "39Krelease.parquet")
    with zipfile.ZipFile(snapshot / "images.zip", "w") as archive:
        archive.writestr("images/0.png", png())
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for data in (f"virl39k={snapshot}", str(snapshot), "virl39k", "TIGER-Lab/ViRL39K"):
        stream = open_stream(canonical(data))
        (item,) = stream.pick([0])
        assert (item.id, item.answer, item.image.size) == ("virl39k-q1", "B", (8, 6))
        assert item.error is None


def test_the_data_of_frankenstein_rl_load_as_the_recipe_ships(tmp_path, monkeypatch):
    """Several files in verl's layout (its scripts: `data.prompt_key=prompt`, a Parquet file a
    source), fetched as files; some questions have no image.
    """
    hub = tmp_path / "datasets--OpenMMReasoner--OpenMMReasoner-RL-74K"
    (hub / "refs").mkdir(parents=True)
    (hub / "refs" / "main").write_text("0")
    snapshot = hub / "snapshots" / "0"
    snapshot.mkdir(parents=True)
    for source in ("mmk12_train", "wemath_pro"):
        rows = [
            {
                "data_source": source,
                "prompt": [
                    {"role": "system", "content": "Think."},
                    {"role": "user", "content": f"{mark}{source}?"},
                ],
                "images": [{"bytes": png(), "path": None}] if mark else [],
                "reward_model": {"ground_truth": answer, "style": "rule"},
                "extra_info": {"split": "train"},
            }
            for mark, answer in (("<image>", "4"), ("", "x^2"))
        ]
        pd.DataFrame(rows).to_parquet(snapshot / f"{source}.parquet")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    stream = open_stream(canonical(load_recipe("frankenstein-rl-3b").stages[0].data))
    found = [(i.question, i.answer, i.image is not None, i.error) for i in stream.pick(range(4))]
    assert found == [
        ("Think.\n\n<image>mmk12_train?", "4", True, None),
        ("Think.\n\nmmk12_train?", "x^2", False, None),
        ("Think.\n\n<image>wemath_pro?", "4", True, None),
        ("Think.\n\nwemath_pro?", "x^2", False, None),
    ]
    with pytest.raises(UsageError, match="several splits"):
        open_stream(canonical("OpenMMReasoner/OpenMMReasoner-RL-74K"))
    one = open_stream(canonical("OpenMMReasoner/OpenMMReasoner-RL-74K#split=wemath_pro"))
    assert one.size == 2


def test_a_set_of_several_splits_is_not_read_from_the_files_of_one(monkeypatch, tmp_path):
    datasets = pytest.importorskip("datasets")
    pd.DataFrame([{"question": "?", "answer": "1"}]).to_parquet(tmp_path / "test-0.parquet")
    table = datasets.Dataset.from_dict({"question": ["?"], "answer": ["2"]})
    both = datasets.DatasetDict(train=table, test=table)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: both)
    monkeypatch.setattr("franken.tasks.sources.snapshot_of", lambda hub: tmp_path)
    with pytest.raises(UsageError, match="several splits"):
        open_stream(canonical("some/set"))


def test_a_table_of_wrong_types_in_parquet(tmp_path):
    rows = {"question": [b"\xff", None], "answer": [np.datetime64("2020-01-01"), None]}
    pd.DataFrame(rows).to_parquet(tmp_path / "x.parquet")
    items = load_tasks((), 9, 0, canonical(tmp_path / "x.parquet"))
    assert [bool(item.error) for item in items] == [True, True]


@needs("public_cases")
def test_every_posted_row_is_a_question_or_says_why():
    expected = {  # failed rows, by file
        "ai2d": 1,
        "floats": 1,
        "geo3k": 2,
        "inter": 3,
        "sizes": 2,
        "x": 1,
    }
    for file in sorted(public("public_cases").glob("rows/*.*l*")) + [
        public("public_cases") / "rows/x.tsv"
    ]:
        if file.suffix not in (".jsonl", ".tsv"):
            continue
        lines = [line for line in file.read_text().splitlines() if line.strip()]
        items = load_tasks((), 10**6, 0, canonical(file))
        assert len(items) == len(lines) - (file.suffix == ".tsv")
        failed = [item for item in items if item.error]
        assert len(failed) == expected.get(file.stem, 0), (file.name, [i.error for i in failed])
        for item in items:
            assert item.error or (item.question and item.answer)
            if not item.error:
                assert tasks.grade(f"<answer>{item.answer}</answer>", item).score == 1


@needs("math_v")
def test_every_row_of_math_vision_is_a_question():
    items = load_tasks((), 10**6, 0, canonical(public("math_v") / "test.jsonl"))
    rows = (public("math_v") / "test.jsonl").read_text().splitlines()
    assert len(items) == len(rows)
    for item, line in zip(items, rows, strict=True):
        row = json.loads(line)
        assert item.error is None
        assert item.image is not None
        assert not item.more_images
        assert item.question.count("<image>") == (len(set(_marks(row["question"]))) == 1)
        assert item.answer == row["answer"]


def _marks(text):
    import re

    return re.findall(r"<image\d+>", text)
