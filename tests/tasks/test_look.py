"""`franken tasks look`: rows as they will be asked, on the terminal, as JSON and as a page."""

import json
from html.parser import HTMLParser

import pytest
from PIL import Image

from franken.cli import run_command
from franken.tasks.look import look, short_reason
from franken.tasks.look_page import page
from franken.tasks.sources import canonical


@pytest.fixture
def table(tmp_path):
    Image.new("RGB", (56, 56), "red").save(tmp_path / "a.png")
    frames = [Image.new("L", (8, 8), shade) for shade in (0, 200)]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    rows = [
        {"question": "Is <image> as <image>?", "gold": "yes", "images": ["a.png", "a.png"]},
        {"question": "<script>alert(1)</script>", "gold": ["a", "b"], "images": []},
        {"question": "Moves?", "gold": "no", "images": ["two.gif"]},
        {"question": "x", "gold": "1", "images": ["none.png"]},
        {"question": "x", "gold": "1", "images": ["nor this.png"]},
        {"question": ["x"], "gold": "1", "images": []},
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_what_was_found(table):
    found = look(canonical(table), shown=3)
    assert (found.size, found.checked, len(found.items)) == (6, 6, 3)
    assert found.columns == {"question": "question", "answer": "gold", "images": "images"}
    assert found.errors == {
        "an image cannot be read: it is missing": 2,
        "the question is a list, not a text": 1,
    }
    assert found.example == {
        "an image cannot be read: it is missing": 3,
        "the question is a list, not a text": 5,
    }
    assert found.types == {"yes_no": 2, "word": 1}
    assert found.images == {0: 1, 1: 1, 2: 1}
    assert found.notes == {"the first of several frames shown": 1}
    assert found.lengths["pixels of an image"].most == 56 * 56


def test_rows_that_are_not_checked_are_not_counted(table):
    found = look(canonical(table), shown=4, checked=1)
    assert (found.checked, len(found.items), found.errors) == (1, 4, {})


def test_reasons_are_counted_without_what_is_of_one_row():
    assert short_reason("3 <image> marks for 2 images") == "… <image> marks for … images"
    assert (
        short_reason("a/b.png lies outside the data folder")
        == "an image lies outside the data folder"
    )
    assert short_reason("the answer 'x' is none") == "the answer … is none"


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_the_page_is_self_contained_and_escaped(table):
    text = page(look(canonical(table)))
    tags = Tags()
    tags.feed(text)
    assert "script" not in {tag for tag, _ in tags.found}
    assert "&lt;script&gt;" in text
    images = [attrs["src"] for tag, attrs in tags.found if tag == "img"]
    assert len(images) == 3
    assert all(source.startswith("data:image/png;base64,") for source in images)
    assert "http" not in text
    first = text[text.index("rows-0") : text.index("rows-1")]
    is_at, as_at, mark = first.index("Is "), first.index(" as "), first.index("<img")
    assert is_at < mark < as_at < first.rindex("<img")


def test_from_the_command_line(table, tmp_path, capsys):
    html = tmp_path / "pages" / "look.html"
    words = ["tasks", "look", str(table), "--n", "1", "--html", str(html)]
    assert run_command([*words, "--model", "creature:sft", "--json"], False) == 3
    told = json.loads(capsys.readouterr().out)
    assert told["items"][0]["question"] == "Is <image> as <image>?"
    assert told["items"][0]["images"] == [[56, 56], [56, 56]]
    assert told["lengths"]["tokens of a prompt"]["most"] > 10
    assert html.exists()
    assert run_command(words, False) == 3
    said = capsys.readouterr().out
    assert "→ yes" in said
    assert "3 of the first 6 fail" in said
    assert run_command(["tasks", "look", str(table), "--check", "2"], False) == 0


def test_a_built_in_layout_and_image_pairs(tmp_path):
    (tmp_path / "x.jsonl").write_text(json.dumps({"question": "How many?", "answer": "#### 7"}))
    found = look(canonical(f"gsm8k={tmp_path / 'x.jsonl'}"))
    assert (found.layout, found.settings["reads"]) == ("gsm8k", "last number mark")
