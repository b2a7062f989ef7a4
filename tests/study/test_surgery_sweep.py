"""Both curves by hand, and on organisms whose update is a part that is known."""

import json

import numpy as np
import pandas as pd
import pytest

from franken import stats
from franken.cli import run_command
from franken.errors import UsageError
from franken.merge.parts import DROP, KEEP, parse_part
from franken.report.figures.surgery import kinds_of
from franken.runs import load_run
from franken.study.surgery import plan_surgery
from franken.study.surgery_rows import Cut, rows_of, verdict

BASE, DONOR = "creature:base", "creature:sft"


def labels(surgery):
    return [cut.label for cut in surgery.cuts]


def test_every_part_is_kept_and_dropped_beside_random_ones():
    surgery = plan_surgery(
        BASE, DONOR, along=["rank", "top", "sign", "random"], ranks=[4], shares=[1], controls=2
    )
    assert labels(surgery) == [
        *("keep sign", "drop sign", "keep rank:4", "keep random-rank:4 #1"),
        *("keep random-rank:4 #2", "drop rank:4", "drop random-rank:4 #1"),
        *("drop random-rank:4 #2", "keep top:1%", "keep random:1% #1", "keep random:1% #2"),
        *("drop top:1%", "drop random:1% #1", "drop random:1% #2"),
    ]
    assert surgery.evaluations == 16
    grafts = [surgery.graft(cut) for cut in surgery.cuts]
    assert [g.keep or g.drop for g in grafts[3:6]] == ["random-rank:4", "random-rank:4", "rank:4"]
    assert [g.draw for g in grafts[3:6]] == [0, 1, 0]
    assert {g.take for g in grafts} == {("all",)}
    some = plan_surgery(BASE, DONOR, along=["norms"], layers="2-4", components=["attn"])
    assert some.graft(some.cuts[0]).layers == "2-4"
    assert some.graft(some.cuts[0]).components == ("attn",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"along": ["random"]}, "names no part"),
        ({"along": ["ranks"]}, "ranks"),
        ({"along": ["rank"], "ranks": [0]}, "--ranks"),
        ({"along": ["top"], "shares": [0.0]}, "percentages"),
        ({"along": ["top"], "layers": "9-12"}, "past the end"),
    ],
)
def test_what_cannot_be_tried_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        plan_surgery(BASE, DONOR, **options)


def by_hand():
    """Rates of four prompts of two tasks: the part brings all of the gain, all but it brings half,
    and a random part a quarter.
    """
    index = pd.MultiIndex.from_tuples(
        [(task, str(i)) for task in "ab" for i in range(6)], names=["task", "sample"]
    )
    base = np.array([0, 0.25, 0, 0.25, 0, 0.25] * 2)
    gain = np.array([0.5, 0.75, 0.25, 0.5, 0.5, 0.5] * 2)
    part = parse_part("rank:1")
    cuts = [
        Cut(KEEP, part, part),
        Cut(KEEP, parse_part("random-rank:1"), part, 0),
        Cut(KEEP, parse_part("random-rank:1"), part, 1),
        Cut(DROP, part, part),
    ]
    shares = [1.0, 0.5, 0.0, 0.5]
    values = {c.label: base + s * gain for c, s in zip(cuts, shares, strict=True)}
    values |= {"base": base, "donor": base + gain}
    return cuts, {name: pd.Series(v, index=index) for name, v in values.items()}


def test_curves_by_hand():
    cuts, values = by_hand()
    rows = pd.DataFrame(rows_of(cuts, values))
    found = rows[rows["task"] == "all"].set_index(["model", "metric"])["value"]
    gain = (values["donor"] - values["base"]).mean()
    assert found["keep rank:1", "gain acc@1"] == pytest.approx(gain)
    assert found["keep rank:1", "recovered"] == pytest.approx(1.0)
    assert found["drop rank:1", "recovered"] == pytest.approx(0.5)
    assert found["rank:1", "redundancy"] == pytest.approx(0.5)  # 1.0 + 0.5 − 1
    assert found["keep rank:1", "over random"] == pytest.approx(0.75 * gain)
    assert found["donor", "gain acc@1"] == pytest.approx(gain)
    assert kinds_of(rows) == ["rank"]
    sides = [values[x].to_numpy() for x in ("base", "donor", "drop rank:1")]
    expected = stats.recovered(*[s[:6] for s in sides], *[s[6:] for s in sides])
    (row,) = rows[(rows["model"] == "drop rank:1") & (rows["metric"] == "recovered")].to_dict(
        "records"
    )
    assert (row["ci_low"], row["ci_high"], row["n"]) == (expected.low, expected.high, 12)
    families = rows[rows["metric"] == "gain acc@1"].groupby(["method", "task"]).size()
    assert families["random, keep", "all"] == 2
    assert verdict(rows) == (
        "Along rank, rank:1 is enough for over half of the gain; none is surely needed for half "
        "of it."
    )


def test_without_a_gain_nothing_is_recovered():
    cuts, values = by_hand()
    values["donor"] = values["base"]
    rows = pd.DataFrame(rows_of(cuts, values))
    assert rows.loc[rows["metric"] == "recovered", "value"].isna().all()
    assert verdict(rows).startswith("The donor shows no sure gain")


def test_a_planted_direction_is_enough_and_needed(tmp_path, capsys):
    """An update of rank 1: that direction alone is the donor, and without it nothing is left."""
    planted = str(tmp_path / "planted")
    assert run_command(["merge", BASE, DONOR, "--keep", "rank:1", "--out", planted], True) == 0
    capsys.readouterr()
    asked = ["--tasks", "read", "--samples", "8", "--n", "2", "--max-new-tokens", "24"]
    words = ["merge-sweep", BASE, planted, "--along", "rank,random", "--ranks", "1", *asked]
    assert run_command([*words, "--dry-run", "--json"], True) == 0
    assert json.loads(capsys.readouterr().out)["models"] == 6
    assert run_command([*words, "--out", str(tmp_path / "runs"), "--json"], True) == 0
    folder = json.loads(capsys.readouterr().out)["folder"]
    rows = load_run(folder).layers
    gains = rows[(rows["metric"] == "gain acc@1") & (rows["task"] == "all")].set_index("model")
    for rank in (1,):
        assert gains.loc[f"keep rank:{rank}", "value"] == gains.loc["donor", "value"]
        assert gains.loc[f"drop rank:{rank}", "value"] == 0.0
        assert gains.loc[f"keep random-rank:{rank} #1", "value"] == pytest.approx(0, abs=0.1)
    assert (tmp_path / "runs" / "surgery").exists()
    assert run_command([*words, "--out", str(tmp_path / "runs"), "--json"], True) == 0  # complete
    assert json.loads(capsys.readouterr().out)["folder"] == folder
    assert run_command([*words, "--scores", "m"], False) == 2
    assert "--along does not go with" in capsys.readouterr().err
    assert run_command(["show", str(tmp_path / "runs")], True) == 0
    assert "surgery" in capsys.readouterr().out
