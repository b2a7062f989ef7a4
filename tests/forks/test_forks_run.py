"""A run: every reply is a row, a resumed one ends in the same numbers, one model twice parts
nowhere, stored replies are scored, and summaries are what a hand counts.
"""

import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest

from franken.cli import run_command
from franken.errors import FrankenError, UsageError
from franken.evaluate.run import run_eval
from franken.forks import run as running
from franken.forks.controls import RULES
from franken.forks.plan import Budget, cost, parse_budget, plan_forks
from franken.forks.run import run_forks
from franken.forks.stored import Told, tokenised
from franken.forks.summary import token_table, top_share
from franken.runs import load_run

MODELS = ("creature:base", "creature:sft")
FEW = {"tasks": ["read", "sum"], "samples": 3, "draws": 2, "max_new_tokens": 12, "seed": 1}
LISTS = ("ids", "pieces", "kinds", "js", "kl_ab", "entropy_b", "rank_a", "top_b", "vision_a")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    plan = plan_forks(*MODELS, labels=["base", "sft"], **FEW)
    return plan, run_forks(plan, out=tmp_path_factory.mktemp("forks"), device="cpu")


def test_every_reply_is_a_row(done):
    plan, folder = done
    run = load_run(folder)
    rows = run.samples
    assert len(rows) == plan.n_requested == cost(plan)["replies"] == 2 * 6 * 2 * (1 + len(RULES))
    assert (run.manifest.n_ok, run.manifest.n_failed) == (len(rows), 0)
    assert set(rows["method"]) == {"own", *RULES}
    own = rows[rows["method"] == "own"]
    for _, row in own.iterrows():
        assert {len(row[name]) for name in LISTS} == {row["tokens"]}
    crossed = rows[rows["method"] != "own"]
    assert crossed["js"].isna().all()
    assert crossed["places"].map(lambda x: (np.diff(x) > 0).all()).all()
    forks = crossed[crossed["method"] == "forks"].set_index(["model", "sample", "draw"])
    for rule in ("random", "elsewhere", "entropy"):
        own_rule = crossed[crossed["method"] == rule].set_index(["model", "sample", "draw"])
        assert (own_rule["places"].map(len) <= forks["places"].map(len)).all(), rule
    assert run.manifest.identity.models == plan.identity["models"]


def test_what_was_interrupted_goes_on_to_the_same_numbers(done, tmp_path, monkeypatch):
    plan, folder = done
    monkeypatch.setattr(running, "CHUNK", 2)

    class Stopped(Exception):
        pass

    def stop(have, total, what):
        if have > 0.6 * total:
            raise Stopped

    with pytest.raises(Stopped):
        run_forks(plan, out=tmp_path, device="cpu", batch_size=4, progress=stop)
    (begun,) = (tmp_path / "forks").iterdir()
    assert not (begun / "run.json").exists()
    again = run_forks(plan, out=tmp_path, device="cpu", batch_size=4)
    assert again == begun
    one, two = (load_run(f).layers for f in (folder, again))
    keys = ["model", "method", "component", "task", "metric"]
    both = one.merge(two, on=keys, how="outer", suffixes=("", "_2"))
    assert len(both) == len(one) == len(two)
    far = ~np.isclose(both["value"], both["value_2"], rtol=1e-4, atol=1e-4, equal_nan=True)
    assert not far.any(), both.loc[far, [*keys, "value", "value_2"]].to_string()
    (again / "run.json").unlink()
    shutil.rmtree(again)
    assert run_forks(plan, out=folder.parents[1], device="cpu") == folder  # complete: as it is


def test_one_model_twice_parts_nowhere(tmp_path):
    plan = plan_forks("creature:sft", "creature:sft", labels=["a", "b"], **FEW)
    rows = load_run(run_forks(plan, out=tmp_path, device="cpu"))
    own = rows.samples[rows.samples["method"] == "own"]
    assert all(value == 0 for name in ("js", "kl_ab", "kl_ba") for x in own[name] for value in x)
    assert all(x.sum() > 0 for x in own["vision_a"])
    by_method = {
        m: r.set_index(["model", "sample", "draw"])["output"]
        for m, r in rows.samples.groupby("method")
    }
    for rule in RULES:
        assert by_method[rule].equals(by_method["own"].loc[by_method[rule].index])
    layers = rows.layers[rows.layers["task"] == "all"]
    of = layers[layers["component"] == "all"].set_index(["model", "method", "metric"])["value"]
    assert of["a", "own", "fork_share"] == 0
    assert of["a", "own", "log_ratio a reply"] == 0
    assert math.isnan(of["a", "forks", "recovered"])  # there is no gain to have a share of
    assert of["b", "forks", "gain"] == 0


def test_summaries_are_what_a_hand_counts(done):
    plan, folder = done
    run = load_run(folder)
    tokens = token_table(run.samples, plan.threshold)
    own = run.samples[run.samples["method"] == "own"]
    assert len(tokens) == own["tokens"].sum()
    layers = run.layers
    value = layers.set_index(["model", "method", "component", "task", "metric"])["value"]
    mine = tokens[(tokens["model"] == "sft") & (tokens["task"] == "sum")]
    shares = [float((g["js"] > 0.1).mean()) for _, g in mine.groupby("sample")]
    assert value["sft", "own", "all", "sum", "fork_share"] == pytest.approx(np.mean(shares))
    sums = mine.groupby(["sample", "draw"])["js"].sum().groupby("sample").mean()
    assert value["sft", "own", "all", "sum", "js a reply"] == pytest.approx(sums.mean())
    first = mine[mine["kinds"] == "opening"]["js"].sum() / mine["js"].sum()
    assert value["sft", "own", "opening", "sum", "share_of_js"] == pytest.approx(first)
    kinds = [k for k in mine["kinds"].unique()]
    of_kinds = [value["sft", "own", k, "sum", "share_of_tokens"] for k in kinds]
    assert sum(of_kinds) == pytest.approx(1)
    tenths = mine[mine["tenth"] == 1]
    by_hand = np.mean([g["fork"].mean() for _, g in tenths.groupby("sample")])
    assert value["sft", "own", "tenth 1", "sum", "fork_share"] == pytest.approx(by_hand)
    assert set(tokens["tenth"]) <= set(range(1, 11))
    assert (tokens[tokens["place"] == 0]["before"] == "").all()
    crossed = run.samples[run.samples["model"] == "base"].set_index("method")
    places = crossed.loc["forks", "places"].map(len).groupby(crossed.loc["forks", "task"]).mean()
    assert value["base", "forks", "all", "all", "places a reply"] == pytest.approx(places.mean())
    right = own["score"].astype(float).gt(0.5).groupby([own["model"], own["task"]]).mean()
    gain = right["sft"].mean() - right["base"].mean()
    assert value["base", "own", "all", "all", "gain of the other"] == pytest.approx(gain)


def test_the_top_tokens_have_what_sorting_says():
    rng = np.random.default_rng(0)
    values, units = rng.exponential(1.0, 400), np.repeat(np.arange(40).astype(str), 10)
    ranked = np.sort(values)[::-1]
    for percent, count in ((1, 4), (5, 20), (50, 200)):
        found = top_share(values, units, percent)
        assert found.value == pytest.approx(ranked[:count].sum() / values.sum())
        assert found.low < found.value < found.high
    assert top_share(values, units, 0.625).value == pytest.approx(
        (ranked[:2].sum() + 0.5 * ranked[2]) / values.sum()
    )
    assert math.isnan(top_share(np.zeros(10), units[:10], 5).value)


def test_the_interval_of_the_top_covers_at_its_level():
    """Divergences of a prompt go together: the exponential's mean varies from prompt to prompt."""
    rng = np.random.default_rng(1)
    units = np.repeat(np.arange(50).astype(str), 20)

    def drawn(prompts):
        return rng.exponential(np.repeat(rng.gamma(2.0, 0.5, prompts), 20))

    truth = top_share(drawn(20000), np.repeat(np.arange(20000), 20), 10).value
    found = [top_share(drawn(50), units, 10) for _ in range(600)]
    assert 0.92 < np.mean([low <= truth <= high for _, low, high in found]) < 0.98


def test_stored_replies_are_scored(tmp_path):
    few = {"tasks": ["read"], "samples": 3, "n": 2, "k": [1], "seed": 4, "device": "cpu"}
    folders = run_eval(list(MODELS), **few, out=tmp_path)
    plan = plan_forks(*MODELS, stored=folders, rules=[], samples=2, draws=2)
    assert (plan.seed, plan.tasks, plan.n_requested) == (4, ("read",), 8)
    run = load_run(run_forks(plan, out=tmp_path, device="cpu"))
    assert set(run.samples["method"]) == {"stored"}
    evaluated = pd.concat([load_run(f).samples for f in folders])
    texts = evaluated.set_index(["model", "sample", "draw"])["output"]
    for _, row in run.samples.iterrows():
        assert row["output"] == texts[row["model"], row["sample"], row["draw"]]
        assert len(row["js"]) == len(row["ids"])
    assert "tokenised anew" in run.manifest.warnings[0]
    assert (run.layers["method"] == "stored").all()
    greedy = plan_forks(*MODELS, stored=folders[:1], rules=[], draws=1, temperature=0.0)
    assert greedy.n_requested == 3


def test_stored_text_that_does_not_come_back_is_a_failed_reply(sft_creature):
    tokenizer = sft_creature.tokenizer
    ids = tokenised(tokenizer, Told("x", 0, "<think> rows", False, None))
    assert ids[-1] == tokenizer.eos_token_id
    cut = tokenised(tokenizer, Told("x", 0, "<think> rows", True, None))
    assert ids[:-1] == cut
    with pytest.raises(FrankenError, match="an empty reply"):
        tokenised(tokenizer, Told("x", 0, "", False, None))
    with pytest.raises(FrankenError, match="does not come back"):
        tokenised(tokenizer, Told("x", 0, "rows <|im_end|> cols", False, None))


def test_what_failed_is_a_row(tmp_path, done):
    table = tmp_path / "mine.jsonl"
    rows = [
        {"question": "How many are red?", "answer": "2"},
        {"question": "How many are blue?", "answer": "3", "image": "gone.png"},
    ]
    table.write_text("\n".join(map(json.dumps, rows)))
    plan = plan_forks(*MODELS, data=table, draws=1, rules=["forks"], max_new_tokens=6)
    run = load_run(run_forks(plan, out=tmp_path, device="cpu"))
    failed = run.samples[run.samples["error"].notna()]
    assert len(run.samples) == plan.n_requested == 8
    assert len(failed) == run.manifest.n_failed == 4
    assert failed["error"].str.contains("missing").all()
    assert set(failed["method"]) == {"own", "forks"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rules": ["fork"]}, "forks"),
        ({"threshold": 0.7}, "no token can be a fork"),
        ({"threshold": 0.0}, "no token can be a fork"),
        ({"temperature": 0.0}, "4 draws at temperature 0"),
        ({"budget": "5 tokens"}, "cannot read the budget"),
        ({"budget": "0"}, "cannot read the budget"),
        ({"budget": "200%"}, "cannot read the budget"),
        ({"labels": ["a", "a"]}, "two models have one name"),
        ({"draws": 0}, "--draws"),
        ({"tasks": ["cuont"]}, "count"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(options, said):
    with pytest.raises(UsageError) as e:
        plan_forks(*MODELS, **options)
    assert said in f"{e.value.what} {e.value.why} {e.value.fix}"


def test_runs_of_something_else_are_refused(done, tmp_path):
    folder = done[1]
    with pytest.raises(UsageError, match="holds no replies of a checkpoint"):
        plan_forks(*MODELS, stored=[folder])
    few = {"tasks": ["read"], "samples": 1, "n": 1, "k": [1], "device": "cpu", "max_new_tokens": 4}
    sft, base = run_eval([MODELS[1], MODELS[0]], **few, out=tmp_path)
    (blind,) = run_eval([MODELS[1]], **few, out=tmp_path, arms="blind")
    (other,) = run_eval([MODELS[1]], **{**few, "seed": 3}, out=tmp_path)
    with pytest.raises(UsageError, match="replies of another model"):
        plan_forks(MODELS[0], MODELS[0], labels=["a", "b"], stored=[sft])
    with pytest.raises(UsageError, match="no replies to the image"):
        plan_forks(*MODELS, stored=[blind])
    with pytest.raises(UsageError, match="ask different questions"):
        plan_forks(*MODELS, stored=[base, other])
    with pytest.raises(UsageError, match="two runs of one model"):
        plan_forks(*MODELS, stored=[sft, sft])


def test_budgets():
    assert parse_budget("") == Budget()
    assert parse_budget("3").of(100) == 3
    assert [parse_budget("5%").of(n) for n in (4, 100, 1000)] == [1, 5, 50]
    assert parse_budget("").of(10) > 10**6


def test_the_command_line(tmp_path, capsys):
    line = ["forks", *MODELS, "--tasks", "read", "--samples", "2", "--draws", "1", "--rules"]
    line += ["forks,random", "--max-new-tokens", "10", "--device", "cpu", "--out", str(tmp_path)]
    assert run_command([*line, "--dry-run", "--json"], False) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["prompts"], told["replies"], told["scored"], told["crossed"]) == (2, 12, 4, 8)
    assert told["memory_mib"] > 5
    assert not list(tmp_path.iterdir())
    assert run_command(line, False) == 0
    said = capsys.readouterr().out
    for words in ("every token", "by kind of sentence", "tokens of the other", "12 requested"):
        assert words in said
    assert (next((tmp_path / "forks").iterdir()) / "figures" / "forks.png").exists()
    assert run_command([*line, "--json"], False) == 0
    shown = json.loads(capsys.readouterr().out)
    assert {"folder", "manifest", "layers"} == set(shown)
    assert run_command(["show", shown["folder"], "--table", "forks"], False) == 0
    assert "every token" in capsys.readouterr().out
    assert run_command(["show", shown["folder"]], False) == 0
    capsys.readouterr()


def test_nothing_but_failures(tmp_path):
    table = tmp_path / "mine.jsonl"
    table.write_text(json.dumps({"question": "Red?", "answer": "2", "image": "gone.png"}))
    plan = plan_forks(*MODELS, data=table, draws=1)
    run = load_run(run_forks(plan, out=tmp_path, device="cpu"))
    assert run.manifest.n_failed == len(run.samples) == plan.n_requested == 10
    assert run.layers["value"].isna().all()
