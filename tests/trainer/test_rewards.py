"""Every reward against cases worked out by hand, and what happens when one fails."""

import math
import re
import time
from dataclasses import replace

import pytest
import torch

from franken import plugins, tasks
from franken.errors import UsageError
from franken.generate.native import Response
from franken.runs.training import Update
from franken.tasks import Item
from trainer.diagnostics import hacked, reward_metrics
from trainer.recipe import load_recipe, parse_recipe
from trainer.rewards import REWARDS, RewardError, RewardSettings, score
from trainer.rewards.designs import sentence_score, sentences
from trainer.rewards.fidelity import f1
from trainer.templates import DEFAULT, TEMPLATES

ONE, TWO, THREE = math.tanh(1), math.tanh(2), math.tanh(3)
SEVEN = Item("seven", "count", "How many?", "7")
CLOCK = Item("noon", "clock", "When?", "11:58")
FULL = (
    "<image description> {d} </image description><think> {t} </think><rethink> {r} "
    "</rethink><answer> {a} </answer>"
)


def reply(text, logprobs=()):
    return Response(text, [], list(logprobs), False)


def pays_for(name):
    return REWARDS.get(name).template or DEFAULT


def paid(name, text, item=SEVEN, options=None, logprobs=()):
    one = reply(text, logprobs)
    settings = RewardSettings(pays_for(name), {name: options or {}})
    return score([[one]], [item], [[tasks.grading.grade_item(text, item)]], [name], settings).item()


def full(d="It is. So.", t="A. B. C.", r="a", a="7"):
    return FULL.format(d=d, t=t, r=r, a=a)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("One. Two! Three?", ["one", "two", "three"]),
        ("a; b\nc", ["a", "b", "c"]),
        ("3.5 is more than 3.4.", ["3.5 is more than 3.4"]),
        ("Same.  same. SAME", ["same", "same", "same"]),
        ("see <visual> red </visual> there", ["see red there"]),
    ],
)
def test_sentences(text, found):
    assert sentences(text) == found


def test_the_sentence_term_rewards_distinct_and_charges_repeated_ones():
    assert sentence_score("a. b") == pytest.approx(TWO)
    assert sentence_score("a. a") == pytest.approx(ONE - ONE)
    assert sentence_score("a. b. a. a") == pytest.approx(TWO - TWO)
    assert sentence_score("a. a. a") < 0
    assert sentence_score("") == 0


RIGHT, WRONG = "<think> a </think><answer> 7 </answer>", "<think> a </think><answer> 6 </answer>"
CASES = [
    ("accuracy", RIGHT, 1),
    ("accuracy", WRONG, 0),
    ("accuracy", "<answer> 7 </answer>", 0),
    ("correct", "<answer> 7 </answer>", 1),
    ("correct", WRONG, 0),
    ("format", WRONG, 1),
    ("format", "7", 0),
    ("only_accuracy", "so it is <answer> 7 </answer>", 1),
    ("only_accuracy", "7", 0),
    ("only_accuracy", "<answer> 7 </answer><answer> 7 </answer>", 0),
    ("vanilla", RIGHT, 0.1 * ONE + 0.9),
    ("vanilla", "<think> a. a </think><answer> 6 </answer>", 0),
    ("vanilla", "<think> a. b. c <answer> 7 </answer>", 0.9),
    ("mixture", full(), 0.06 * TWO + 0.06 * THREE + 0.08 * ONE + 0.8),
    ("mixture", full(a="1"), 0.06 * (TWO + THREE) + 0.08 * ONE),
    ("mixture", RIGHT, 0.06 * ONE + 0.8),
    ("continuous", full(d="", t="", r=""), 0.8),
    ("continuous", full(d="", t="", r="", a="5"), 0.8 / 3),
    ("continuous", full(d="", t="", r="", a="1"), 0),
    ("continuous", full(d="", t="", r="", a="red"), 0),
    (
        "visual_fusion",
        "<think> a <visual> r. s </visual> </think><answer> 7 </answer>",
        0.1 * ONE + 0.1 * TWO + 0.8,
    ),
    (
        "visual_fusion",
        "<visual> r </visual><think> a </think><answer> 7 </answer>",
        0.1 * ONE + 0.8,
    ),
    ("no_accuracy", full(a="99"), 0.3 * (TWO + THREE + ONE) + 0.1),
    ("no_accuracy", "7", 0),
    ("router", WRONG, 0.5),
    ("router", RIGHT, 1),
    ("router", "6", 0),
    ("repetition", "a b c d", 0),
    ("repetition", "a b c a b c", -0.25),
    ("repetition", "a b", 0),
]


@pytest.mark.parametrize(("name", "text", "value"), CASES)
def test_rewards_by_hand(name, text, value):
    assert paid(name, text) == pytest.approx(value, abs=1e-6)


def test_every_reward_has_a_case():
    assert set(REWARDS.names()) == {name for name, _, _ in CASES} | {
        "fidelity",
        "confidence",
        *("exact", "hierarchical", "explained"),  # test_system_parts.py
    }
    assert {pays_for(name) for name in REWARDS.names()} == set(TEMPLATES)
    assert all(REWARDS.get(name).summary for name in REWARDS.names())


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("11:58", 1),
        ("12:58", 0.5 * 0.8 + 0.5),
        ("1:58", 0.5 * 0.6 + 0.5),
        ("2:58", 0.5),
        ("11:48", 0.5 + 0.5 * 0.5),
        ("11:47", 0.5),
        ("12:03", 0.5 * 0.8 + 0.5 * 0.75),
        ("5:30", 0),
        ("noon", 0),
    ],
)
def test_partial_credit_of_clocks(said, value):
    text = full(d="", t="", r="", a=said)
    assert paid("continuous", text, CLOCK) == pytest.approx(0.8 * value)


def test_options_reach_their_reward():
    assert paid("repetition", "a a a", options={"n": 1}) == pytest.approx(-2 / 3)
    half = [math.log(0.5)] * 4
    assert paid("confidence", RIGHT, logprobs=half) == pytest.approx(0.5)
    assert paid("confidence", WRONG, logprobs=half) == pytest.approx(-0.5)
    assert paid("confidence", RIGHT, logprobs=[0.0]) == pytest.approx(0.9)
    assert paid("confidence", WRONG, logprobs=[-9.0]) == pytest.approx(-0.2)
    assert paid("confidence", RIGHT, logprobs=half, options={"high": 0.3}) == pytest.approx(0.3)


GRID = next(i for i in tasks.get("count").items(20, 0) if i.description.count("empty") == 2)
CELLS = re.split(r" (?=r\dc\d)", GRID.description)


def test_fidelity_is_f1_counted_by_hand():
    true = CELLS
    assert len(true) == 9
    assert f1(GRID.description, GRID) == 1
    assert f1(" ".join(reversed(true)), GRID) == 1
    assert f1(" ".join(true[:3]), GRID) == pytest.approx(2 * 3 / (3 + 9))
    wrong = "blue square" if true[0] != "r1c1 blue square" else "red circle"
    assert f1(" ".join([f"r1c1 {wrong}", *true[1:4]]), GRID) == pytest.approx(2 * 3 / (4 + 9))
    assert f1("", GRID) == f1("what a nice picture", GRID) == 0


def test_fidelity_cannot_be_raised_by_repeating_or_by_listing_everything():
    some = " ".join(CELLS[:4])
    assert f1(f"{some} {some} {some}", GRID) == pytest.approx(f1(some, GRID))
    everything = " ".join(
        f"{slot} {colour} {kind}"
        for slot in tasks.get("count").facts(GRID.state)
        for colour in ("red", "green", "blue", "yellow")
        for kind in ("circle", "square", "triangle")
    )
    assert f1(everything, GRID) < 0.2
    assert f1(f"{GRID.description} {everything}", GRID) < 0.2


def test_fidelity_reads_the_other_puzzles_by_their_own_parser():
    item = tasks.get("rotting_kiwi").items(1, 0)[0]
    assert f1(item.description, item) == 1
    changed = item.description[:-1] + ("r" if item.description[-1] != "r" else "f")
    assert f1(changed, item) == pytest.approx(2 * 8 / 18)


def test_fidelity_pays_nothing_without_its_section_and_refuses_rows_without_facts():
    text = (
        f"<image description> {GRID.description} </image description><think> a </think><answer> 1 "
        "</answer>"
    )
    assert paid("fidelity", text, GRID) == 1
    assert paid("fidelity", GRID.description, GRID) == 0
    with pytest.raises(RewardError) as failed:
        paid("fidelity", text, SEVEN)
    assert "seven has no facts" in failed.value.why


def bad(replies, rows, context):
    for one in replies:
        if "boom" in one.text:
            raise ZeroDivisionError("by zero")
    return [0.0] * len(replies)


def slow(replies, rows, context):
    time.sleep(30)


def crowd(replies, rows, context):
    if len(replies) > 1:
        raise ValueError("too many")
    return [0.0]


def leaves(replies, rows, context):
    raise SystemExit


def missing(replies, rows, context):
    return [0.0]


def endless(replies, rows, context):
    return [float("nan")] * len(replies)


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)  # `leaves` ends its thread
@pytest.mark.parametrize(
    ("name", "timeout", "says"),
    [
        ("bad", 60, "reply 1: 'boom'"),
        ("crowd", 60, "on all 3 replies together"),
        ("leaves", 60, "it ended the thread"),
        ("slow", 0.1, "no answer within"),
        ("missing", 60, "no number"),
        ("endless", 60, "no number"),
    ],
)
def test_a_reward_that_fails_names_the_sample(name, timeout, says, monkeypatch):
    monkeypatch.setitem(plugins._own["reward"], name, globals()[name])
    group = [reply("fine"), reply("boom"), reply("boom")]
    grades = [[tasks.grade(r.text, SEVEN) for r in group]]
    with pytest.raises(RewardError) as failed:
        score([group], [SEVEN], grades, [name], RewardSettings(DEFAULT, {}, timeout))
    assert "seven" in str(failed.value)
    assert says in f"{failed.value} {failed.value.why}"


def test_your_own_reward_by_its_import_name(monkeypatch, tmp_path):
    (tmp_path / "my_rewards.py").write_text(
        "def length(replies, rows, context):\n    return [len(r.text) for r in replies]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert paid("my_rewards:length", "four") == 4
    with pytest.raises(UsageError, match="cannot import"):
        REWARDS.get("my_rewards:width")
    with pytest.raises(UsageError, match="unknown reward"):
        REWARDS.get("acuracy")


def test_options_are_checked_against_what_the_reward_declares():
    raw = load_recipe("creature-grpo").model_dump(mode="json")
    stage = raw["stages"][0]
    for options, word in (
        ({"repetition": {"m": 2}}, "repetition does not read m, it reads n"),
        ({"repetition": {"n": 0}}, "greater than or equal to 1"),
        ({"correct": {"n": 2}}, "it has no parameters"),
    ):
        with pytest.raises(UsageError) as caught:
            parse_recipe({**raw, "stages": [{**stage, "reward_options": options}]})
        assert word in caught.value.why


def test_choosing_a_reward_chooses_the_template():
    raw = load_recipe("creature-grpo").model_dump(mode="json")

    def shape(**changes):
        stage = raw["stages"][0] | changes
        return parse_recipe(raw | {"stages": [stage]}).stages[0].shape

    assert shape() == DEFAULT
    assert shape(rewards={"mixture": 1.0}) == "describe-think-rethink-answer"
    assert shape(rewards={"fidelity": 0.5, "accuracy": 0.5}) == "describe-think-answer"
    assert shape(rewards={"accuracy": 1.0}, template="answer") == "answer"
    with pytest.raises(UsageError) as refused:
        shape(rewards={"mixture": 1.0, "vanilla": 1.0})
    assert "different templates" in refused.value.why
    with pytest.raises(UsageError):
        shape(template="think")


def test_metrics_tell_groups_that_differ_in_format_only():
    right = torch.tensor([[True, True], [True, False], [False, False]])
    format_, correct = torch.tensor([[1.0, 0], [1, 1], [1, 1]]), right.float()
    rewards = torch.stack([format_, correct], -1)
    texts = [[RIGHT, "7"], [RIGHT, WRONG], [WRONG, WRONG]]
    found = reward_metrics(
        ["format", "correct"], rewards, rewards.sum(-1), right, texts, TEMPLATES[DEFAULT]
    )
    assert found["format_only_groups"] == pytest.approx(1 / 3)
    assert found["corr_correct"] == pytest.approx(1)
    flat = torch.stack([format_.flatten(), correct.flatten()])
    assert found["corr_format"] == pytest.approx(torch.corrcoef(flat)[0, 1].item())
    assert found["tags"] == pytest.approx(5 / 6)
    assert found["sentences"] == pytest.approx(5 / 6)
    constant = reward_metrics(
        ["format"], torch.ones(1, 2, 1), torch.ones(1, 2), right[:1], texts[:1], TEMPLATES[DEFAULT]
    )
    assert "corr_format" not in constant


def test_the_watch_finds_a_reward_that_rises_while_correctness_falls():
    noise = torch.Generator().manual_seed(0)

    def log(reward, correct, n=60):
        late = (torch.arange(n) - 30).clamp(min=0) / 30
        columns = [
            slope * late + 0.02 * torch.randn(n, generator=noise) for slope in (reward, correct)
        ]
        return [
            Update.model_validate(
                {"update": i + 1, "reward": columns[0][i].item(), "correct": columns[1][i].item()}
            )
            for i in range(n)
        ]

    spans = hacked(log(0.5, -0.5))
    assert len(spans) == 1
    assert spans[0][1] == 60
    assert 11 <= spans[0][0] <= 31
    assert hacked(log(0.5, 0.5)) == hacked(log(0, 0)) == []
    still = {"reward": 1.0, "correct": 1.0}
    assert hacked([Update.model_validate({"update": i, **still}) for i in range(50)]) == []


def test_equal_scores_do_not_depend_on_who_else_is_in_the_group():
    texts = [RIGHT, WRONG, full(), "7", "<answer> 7 </answer>"]
    group = [reply(t, [-0.1]) for t in texts]
    item = replace(GRID, answer="7")
    for name in REWARDS.names():
        grades = [[tasks.grading.grade_item(t, item) for t in texts]]
        whole = score([group], [item], grades, [name], RewardSettings(pays_for(name), {}))
        alone = [
            score([[one]], [item], [[grade]], [name], RewardSettings(pays_for(name), {})).item()
            for one, grade in zip(group, grades[0], strict=True)
        ]
        assert whole.flatten().tolist() == alone, name
