"""The gallery of replies and TensorBoard: what is said is text, and what is logged is what was
measured.
"""

import json
import sys
import types
from html.parser import HTMLParser

import pytest

from franken.errors import UsageError
from franken.runs.training import Progress, Update
from trainer import tensorboard
from trainer.loop import run_train
from trainer.recipe import load_recipe
from trainer.watch import Card, Look, completions, watcher, write_look

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\" onload='x' {{ 7*7 }}"


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text = [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_a_script_in_a_reply_is_text(tmp_path):
    picture = {"uri": "data:image/png;base64,AAAA", "pixelated": True}
    card = Card(EVIL, EVIL, EVIL, EVIL, EVIL, right=False, image=picture)
    page = write_look(tmp_path, EVIL, Look(0, 1, 1, [card])).read_text()
    parsed = Tags()
    parsed.feed(page)
    assert [a["src"] for tag, a in parsed.tags if tag == "img"] == ["data:image/png;base64,AAAA"]
    assert "script" not in [tag for tag, _ in parsed.tags]
    assert not [a for _, a in parsed.tags if any(name.startswith("on") for name in a)]
    assert parsed.text.count(EVIL) >= 5
    assert "default-src 'none'" in page


def test_a_run_leaves_five_replies_with_images_an_evaluation(tmp_path):
    recipe = load_recipe(
        "creature-rl", ("stages.0.steps=3", "stages.0.prompts=2", "stages.0.group=2")
    )
    recipe = recipe.model_copy(
        update={"stages": (recipe.stages[0].model_copy(update={"eval_every": 2}),)}
    )
    for name, observe in (("seen", watcher(recipe, tmp_path / "seen")), ("unseen", None)):
        run_train(recipe, tmp_path / name, observe=observe)
    looks = [json.loads(f.read_text()) for f in sorted((tmp_path / "seen" / "gallery").iterdir())]
    assert [look["step"] for look in looks] == [2, 3]
    assert all(len(look["cards"]) == 5 and all(c["image"] for c in look["cards"]) for look in looks)
    page = (tmp_path / "seen" / "gallery.html").read_text()
    assert page.count("<img") == 10
    assert "http://" not in page
    logs = [
        [json.loads(x) for x in (tmp_path / n / "metrics.jsonl").read_text().splitlines()]
        for n in ("seen", "unseen")
    ]
    assert [x["loss"] for x in logs[0]] == [x["loss"] for x in logs[1]]  # looking changes nothing


def test_cards_are_graded(sft_creature):
    cards = completions(sft_creature, load_recipe("creature-rl").stages[0])
    assert len({card.id.split("-")[0] for card in cards}) == 5  # a task each
    assert any(card.right for card in cards)
    assert all(card.reply and card.verdict for card in cards)


def test_without_tensorboard_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError) as caught:
        tensorboard.scalars(tmp_path)
    assert "franken-vlm[tensorboard]" in caught.value.fix


def test_tensorboard_gets_the_numbers_of_every_update(monkeypatch, tmp_path):
    written = []

    class Writer:
        def __init__(self, folder, purge_step):
            written.append((folder, purge_step))

        def add_scalar(self, *what):
            written.append(what)

        def flush(self):
            pass

    monkeypatch.setitem(
        sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer)
    )
    report = tensorboard.scalars(tmp_path)
    assert not written  # nothing is opened before the first update
    line = {"stage": 0, "step": 4, "update": 9, "reward": 0.5, "held_out": {"acc@1": 0.25}}
    report(Progress("grpo", Update.model_validate(line), 100, None))
    assert written == [
        (str(tmp_path / "tensorboard"), 9),
        ("reward", 0.5, 9),
        ("held_out/acc@1", 0.25, 9),
    ]
