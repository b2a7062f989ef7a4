"""M scores over evaluations that exist: counted by hand, gains paired with the parent, and nothing
left out unsaid.
"""

import pandas as pd
import pytest

from franken.errors import FrankenError
from franken.runs import load_run, open_run
from franken.study.scores import run_scores

RIGHT = {  # label → arm → right answers of prompts a, b, c, d
    "sft": {"image": "1100", "text": "1000", "black": "0000", "black-text": "1000"},
    "rl": {"image": "1110", "text": "1100", "black": "1000", "black-text": "1110"},
    "RL 0-3": {"image": "1111", "text": "1111", "black": "0000", "black-text": "1100"},
    "half": {"image": "1100"},
    "random-3a": {"image": "0000", "text": "0000", "black": "0000", "black-text": "0000"},
}
HYBRIDS = ("RL 0-3", "random-3a")


def evaluation(folder, label, arms):
    graft = {"label": label, "donor": "rl", "layers": "0-3"} if label in HYBRIDS else None
    config = {"graft": graft}
    run = open_run("eval", label, {"label": label, "arms": list(arms)}, folder, config=config)
    run.append(
        [
            {
                "model": label,
                "method": arm,
                "task": "read",
                "sample": s,
                "draw": -1,
                "score": float(RIGHT[label][arm][i]),
                "error": None,
                "ineligible": None,
            }
            for arm in arms
            for i, s in enumerate("abcd")
        ]
    )
    return run.finish([], n_requested=4)


@pytest.fixture
def scored(tmp_path):
    runs = [
        evaluation(tmp_path, label, arms)
        for label in RIGHT
        if label != "half"
        for arms in (["image"], ["text", "black", "black-text"])
    ]
    runs.append(evaluation(tmp_path, "half", ["image"]))
    return load_run(run_scores(runs, parent="sft", donor="rl", random=["random-3a"], out=tmp_path))


def test_scores_and_gains_are_those_counted_by_hand(scored):
    rows = scored.layers[scored.layers["task"] == "read"].set_index(["model", "metric"])["value"]
    assert rows["sft"].to_dict() == {"M_vis": 0.5, "M_v2r": 0.25, "M_rea": 0.25}
    assert rows["RL 0-3"].drop(["gain M_vis", "gain M_v2r", "gain M_rea"]).to_dict() == {
        "M_vis": 1.0,
        "M_v2r": 0.5,
        "M_rea": 1.0,
    }
    assert rows["rl", "gain M_vis"] == 0.0
    assert rows["rl", "gain M_v2r"] == 0.5
    assert rows["RL 0-3", "gain M_rea"] == 0.75
    assert scored.manifest.band["gain M_vis"]["read"].low == -0.5


def test_what_cannot_be_scored_is_a_warning(scored):
    assert scored.manifest.warnings == [
        "half: no M score can be had: the run's arms are image",
    ]
    assert len(scored.samples) == 4 * 3 * 4


def test_no_answer_counts_twice(tmp_path):
    one = evaluation(tmp_path, "sft", ["image", "text"])
    more = evaluation(tmp_path, "sft", ["text", "black", "black-text"])
    for runs, said in (([one, one], "one run is given twice"), ([one, more], "the same answers")):
        with pytest.raises(FrankenError, match=said):
            run_scores(runs, parent="sft", donor="sft", out=tmp_path)


def test_a_table_that_holds_an_answer_twice_is_damaged(tmp_path):
    folder = evaluation(tmp_path, "sft", ["image", "text"])
    file = folder / "samples.parquet"
    rows = pd.read_parquet(file)
    pd.concat([rows, rows[:1]]).to_parquet(file)
    with pytest.raises(FrankenError, match="is damaged") as caught:
        _ = load_run(folder).samples
    assert "two of its rows have one model, method, task, sample, draw" in caught.value.why


def test_a_table_that_holds_a_measurement_twice_is_damaged(scored):
    file = scored.folder / "layers.parquet"
    rows = pd.read_parquet(file)
    pd.concat([rows, rows[-1:]]).to_parquet(file)
    with pytest.raises(FrankenError, match="is damaged"):
        _ = load_run(scored.folder).layers
