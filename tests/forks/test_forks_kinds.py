"""Every token has the kind of the sentence that it stands in."""

import pytest

from franken import tasks
from franken.forks.kinds import KINDS, kinds_of, pieces
from franken.tasks import Item


def words(reply: str) -> list[str]:
    """A reply cut before every space."""
    first, *rest = reply.split(" ")
    return [first, *(f" {word}" for word in rest)]


def kinds(item, reply):
    texts = words(reply)
    return dict(zip((f"{i}{t}" for i, t in enumerate(texts)), kinds_of(item, texts), strict=True))


def letters(item, reply) -> str:
    return "".join({"inference": "i"}.get(k, k[0]) for k in kinds_of(item, words(reply)))


def test_a_puzzle_s_own_solutions_say_what_is_seen():
    item = tasks.get("count").items(1, 0, "test")[0]
    reply = "<think> rows r1c1 green 0 r1c2 red 1 total 1 </think> <answer> 1 </answer>"
    found = kinds_of(item, words(reply))
    assert found[:3] == ["format", "opening", "observation"]
    assert found[3:5] == ["observation", "inference"]  # the running count is no look
    assert found[8:10] == ["inference", "inference"]
    assert found[10:] == ["format", "format", "answer", "format"]


def test_digits_are_seen_until_the_chain_concludes():
    item = tasks.get("sum").items(1, 0, "test")[0]
    found = kinds_of(item, words("<think> fwd r2c3 7 r2c1 7 = 14 </think> <answer> 14 </answer>"))
    assert found[1:8] == ["opening", *["observation"] * 4, "inference", "inference"]


@pytest.mark.parametrize("name", ["clock", "maze", "rotting_kiwi", "water_jugs"])
def test_the_looks_of_the_algorithmic_puzzles_are_observations(name):
    item = tasks.get(name).items(1, 0, "test")[0]
    for chain in item.solutions.values():
        texts = words(f"<think> {chain} </think> <answer> {item.answer} </answer>")
        found = kinds_of(item, texts)
        said = "".join(t for t, k in zip(texts, found, strict=True) if k == "observation")
        assert said, chain
        assert "answer" not in said
        assert set(found) == set(KINDS)
    clock = tasks.get("clock").items(1, 0, "test")[0]
    chain = "minutes the clock shows 6:00; that is 360 minutes; answer 5:49"
    assert letters(clock, f"<think> {chain} </think>") == "foooooiiiiiif"


def test_other_data_go_by_words_for_looking():
    item = Item("x", "mathvista", "How long is it?", "4")
    reply = "We look at the image. It is 3 + 1. The chart shows 4. So 4 it is \\boxed{4}"
    found = kinds(item, reply)
    assert found["0We"] == "opening"
    assert found["1 look"] == found["4 image."] == found["11 chart"] == "observation"
    assert found["7 3"] == found["15 4"] == "inference"
    assert found["18 \\boxed{4}"] == "answer"


def test_pieces_are_the_text(sft_creature):
    tokenizer = sft_creature.tokenizer
    text = "<think> rows r1c1 green 0 total 1 </think> <answer> größer </answer>"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    found = pieces(tokenizer, ids)
    assert len(found) == len(ids)
    whole = tokenizer.decode(ids, skip_special_tokens=False)
    assert "".join(found).replace("\ufffd", "").startswith(whole[:40])
    item = tasks.get("count").items(1, 0, "test")[0]
    assert kinds_of(item, found)[:3] == ["format", "opening", "observation"]
    assert kinds_of(item, found)[-1] == "format"
