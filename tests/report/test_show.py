"""`franken show`: the numbers of the run, in every format; the papers' tables against tests made by
hand.
"""

import io
import json
import re

import pandas as pd
import pytest

from franken.cli import run_command
from franken.evaluate.metrics import compare_samples
from franken.report.tables.kinds import KINDS, tables
from franken.report.tables.measurements import Measurements, to_csv
from franken.report.tables.table import Table, escape, to_latex
from franken.runs import layer_row, load_run, open_run, open_runs
from franken.stats import holm


@pytest.fixture(scope="module")
def study(make_study, tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("shown"), failed=True, samples=6)


def show(capsys, *arguments: object) -> tuple[int, str, str]:
    code = run_command(["show", *map(str, arguments)], False)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def layout(measurements: Measurements) -> tuple[list[str], list[list[object]]]:
    made = measurements.table()
    return list(made.heads), [list(row) for row in made.rows]


def table(**options) -> Measurements:
    rows = pd.DataFrame(
        [
            {
                "model": "a_b",
                "metric": "acc@1",
                "value": 0.25,
                "ci_low": 0.1,
                "ci_high": 0.5,
                "n": 8,
                "p_adjusted": None,
            },
            {
                "model": "a_b",
                "metric": "kl",
                "value": None,
                "ci_low": None,
                "ci_high": None,
                "n": 0,
                "p_adjusted": None,
            },
            {
                "model": "c&d",
                "metric": "acc@1",
                "value": -1e-17,
                "ci_low": 0.0,
                "ci_high": 0.3,
                "n": 9,
                "p_adjusted": 0.0421,
            },
        ]
    )
    return Measurements("t", "50 % of a_b", rows, ("model",), ("metric",), **options)


def test_cells_show_value_interval_p_and_n_and_null_is_never_0():
    heads, body = layout(table())
    assert heads == ["model", "acc@1", "kl"]
    assert body == [
        ["a_b", "0.250 [0.10, 0.50] n=8", "–"],
        ["c&d", "0.000 [0.00, 0.30] p=.042 n=9", ""],
    ]
    assert layout(table(percent=True))[1][0][1] == "25.0 [10.0, 50.0] n=8"


def test_n_is_a_column_where_rows_share_it_and_in_the_heads_where_columns_do():
    by_row = table().rows.assign(n=[8, 8, 9])
    assert layout(Measurements("t", "", by_row, ("model",), ("metric",)))[0] == [
        "model",
        "acc@1",
        "kl",
        "n",
    ]
    by_column = table().rows.assign(n=[8, 9, 8])
    assert layout(Measurements("t", "", by_column, ("model",), ("metric",)))[0] == [
        "model",
        "acc@1 (n=8)",
        "kl (n=9)",
    ]


def test_a_wide_table_is_turned_on_a_terminal():
    rows = pd.DataFrame(
        [
            {
                "model": f"m{i}",
                "task": "x",
                "value": 0.1,
                "ci_low": None,
                "ci_high": None,
                "n": 1,
                "p_adjusted": None,
            }
            for i in range(12)
        ]
    )
    wide = Measurements("t", "", rows, ("task",), ("model",))
    assert (wide.narrow().down, table().narrow().down) == (("model",), ("model",))
    assert len(layout(wide.narrow())[1]) == 12


def test_latex_is_escaped_and_every_row_has_as_many_cells_as_columns():
    text = to_latex(table().table())
    assert all(
        name in text
        for name in (r"\toprule", r"\midrule", r"\bottomrule", r"a\_b", r"c\&d", r"50 \% of a\_b")
    )
    columns = len(re.search(r"\\begin\{tabular\}\{(\w+)\}", text)[1])  # pyright: ignore[reportOptionalSubscript]
    lines = text[text.index(r"\toprule") :].split(r"\bottomrule")[0].splitlines()
    rows = [line for line in lines if line.endswith(r"\\")]
    assert [len(re.findall(r"(?<!\\)&", row)) for row in rows] == [columns - 1] * 3
    assert escape("→\\{}$") == r"$\to$\textbackslash{}\{\}\$"
    assert not re.search(r"(?<!\\)[%#_&](?![^$]*\$)", re.sub(r"(?m)(?<!\\)&|\\label.*", "", text))
    assert len(re.findall(r"(?<!\\)\{", text)) == len(re.findall(r"(?<!\\)\}", text))


def test_csv_holds_every_number_and_empty_nulls():
    found = pd.read_csv(io.StringIO(to_csv([table()])))
    assert found["value"].isna().tolist() == [False, True, False]
    assert found["p_adjusted"].dropna().tolist() == [0.0421]
    assert list(found.columns[:3]) == ["table", "model", "metric"]


def test_text_that_a_spreadsheet_would_run_is_inert_in_csv_and_numbers_stay_numbers():
    wild = table().rows.assign(model=["=1+1", "@x", "-b"], value=[-0.5, 0.25, 0.5])
    measured = Measurements("+t", "", wild, ("model",), ("metric",))
    found = pd.read_csv(io.StringIO(to_csv([measured])))
    assert found["model"].tolist() == ["'=1+1", "'@x", "'-b"]
    assert found["table"].tolist() == ["'+t"] * 3
    assert found["value"].tolist() == [-0.5, 0.25, 0.5]


def test_heads_that_are_alike_and_braces_stay_in_latex():
    text = to_latex(Table(["a", "a|{0}", "a"], [["1", "[2]", "*"]], "t"))
    assert r"a & a\textbar{}\{0\} & a \\" in text
    assert r"1 & {[2]} & {*} \\" in text


@pytest.mark.parametrize("name", [k.name for k in KINDS])
def test_every_table_says_beforehand_whether_it_can_be_made(study, name):
    found = open_runs(study)
    kind = next(k for k in KINDS if k.name == name)
    assert bool(kind.make(found)) == kind.able(found)
    for made in kind.make(found):
        heads, body = layout(made)
        assert body
        assert {len(row) for row in body} == {len(heads)}
        assert to_latex(made.table()).count(r"\\") == len(body) + 1


def test_a_run_shows_the_rows_of_its_summary(study, capsys):
    run = load_run(next((study / "runs" / "eval").glob("sft-*")))
    code, out, _ = show(capsys, run.folder, "--json")
    rows = pd.DataFrame(json.loads(out)["tables"][0]["rows"])
    stored = run.layers[run.layers["task"] == "all"]
    assert code == 0
    assert rows["value"].tolist() == pytest.approx(stored["value"].tolist())
    code, out, _ = show(capsys, run.folder, "--table", "tasks", "--csv")
    assert len(pd.read_csv(io.StringIO(out))) == len(run.layers) - len(stored)


def test_hybrids_are_paired_with_their_parent_and_corrected_over_the_row(study):
    (made,) = tables(open_runs(study), "hybrids")
    order = list(dict.fromkeys(made.rows["model"]))
    assert order[:2] == ["base", "sft"]
    assert order[-1] == "rl"
    assert "SFT:RL:RL" in order
    answers = open_runs(study).answers()
    others = [m for m in order if m != "sft"]
    p = [
        compare_samples(answers["sft"], answers[m]).set_index("task")["p"]["count"] for m in others
    ]
    mine = made.rows[made.rows["task"] == "count"].set_index("model")["p_adjusted"]
    assert mine[others].tolist() == pytest.approx(holm(p))


def test_models_with_other_numbers_of_draws_are_other_tables_of_acc_at_k(tmp_path):
    for name, tries in (("a", (1, 0)), ("b", (1, 0, 0, 0))):
        run = open_run("eval", name, {"m": name}, tmp_path, config={})
        run.append(
            [
                {
                    "model": name,
                    "method": "image",
                    "task": task,
                    "sample": "s",
                    "draw": i,
                    "score": float(ok),
                    "answer": str(i),
                    "error": None,
                    "ineligible": None,
                }
                for task in ("t", "u")
                for i, ok in enumerate(tries)
            ]
        )
        run.finish([], n_requested=1)
    four, two = tables(open_runs(tmp_path), "acc@k")
    assert layout(four) == (
        ["model", "t", "u", "average"],
        [["b", "25.0/100.0", "25.0/100.0", "25.0/100.0"]],
    )
    assert layout(two)[1] == [["a", "50.0/100.0", "50.0/100.0", "50.0/100.0"]]


def test_failed_samples_are_said_with_the_reason(study, capsys):
    code, out, err = show(capsys, study, "--table", "acc@k")
    assert code == 0
    assert "acc@1/acc@4" in out
    assert re.search(r"rl-\w+: \d+ of \d+ failed: ", err)


def test_wrong_names_get_a_guess_and_what_can_be_shown(study, capsys, tmp_path):
    code, out, err = show(capsys, study, "--table", "hybrid")
    assert (code, out) == (2, "")
    assert "did you mean 'hybrids'?" in err
    assert "this folder can show summary, tasks, hybrids" in err
    code, _, err = show(capsys, next((study / "runs" / "diff").iterdir()), "--table", "hybrids")
    assert code == 2
    assert "it can show summary, tasks" in err
    assert show(capsys, tmp_path)[0] == 2
    assert show(capsys, tmp_path / "gone")[0] == 2
    assert show(capsys, study, "--csv", "--latex")[0] == 2


def test_a_comparison_is_measures_then_paired_differences_then_the_rest(tmp_path):
    run = open_run("compare", "a-b", {"x": 1}, tmp_path, config={"models": ["a", "b"]})
    names = ("a", "b", "b - a", "baseline")
    run.finish(
        [
            layer_row(model=m, method="image", task="all", metric="acc@1", value=0.5, n=4)
            for m in names
        ],
        n_requested=0,
    )
    found = tables(open_runs(tmp_path))
    assert [(t.name, list(t.rows["model"])) for t in found] == [
        ("compare", ["a", "b"]),
        ("compare differences", ["b - a"]),
        ("compare beside", ["baseline"]),
    ]


@pytest.mark.parametrize(
    ("components", "shown"),
    [
        (["all", "image", "all, head 0"], ["all"]),
        (["image", "image, head 0"], ["image"]),
        (["image, head 0"], ["image, head 0"]),
    ],
)
def test_heads_are_shown_only_where_there_is_nothing_above_them(tmp_path, components, shown):
    run = open_run("probe", "m", {"x": 1}, tmp_path, config={})
    run.finish(
        [
            layer_row(
                model="m",
                method="patch",
                layer=0,
                component=c,
                task="t",
                metric="restored",
                value=0.5,
                n=3,
            )
            for c in components
        ],
        n_requested=0,
    )
    (made,) = tables(open_runs(tmp_path))
    assert made.rows["component"].tolist() == shown


def test_a_damaged_study_is_refused(tmp_path, capsys):
    (tmp_path / "study.json").write_text("{")
    code, _, err = show(capsys, tmp_path)
    assert code == 1
    assert "is damaged" in err


def test_an_unfinished_run_is_named_and_left_out(tmp_path, capsys):
    done = open_run("probe", "m", {"x": 1}, tmp_path, config={})
    done.finish(
        [layer_row(model="m", method="zero", layer=0, task="t", metric="x", value=0.5, n=3)],
        n_requested=3,
    )
    open_run("probe", "m", {"x": 2}, tmp_path, config={}).append([{"sample": "a", "error": None}])
    code, _, err = show(capsys, tmp_path)
    assert code == 0
    assert "not finished and left out: m-" in err
    code, _, err = show(capsys, next(f.parent for f in tmp_path.rglob("parts")))
    assert code == 2
    assert "nothing to show" in err
    assert "1 run(s) in it are not finished" in err


def test_the_same_model_asked_twice_is_told_apart(tmp_path):
    row = {
        "model": "rl",
        "method": "image",
        "task": "t",
        "sample": "s",
        "draw": -1,
        "score": 1.0,
        "error": None,
    }
    for x in (1, 2):
        run = open_run("eval", "rl", {"x": x}, tmp_path, config={})
        run.append([row])
        run.finish([], n_requested=1)
    assert all(name.startswith("rl (rl-") for name in open_runs(tmp_path).answers())
    assert len(open_runs(tmp_path).answers()) == 2


def test_a_freeze_study_shows_its_arms(tmp_path, capsys):
    row = {
        "kind": "freeze",
        "arm": "late",
        "layers": "text:5-8",
        "control": False,
        "metric": "acc@1",
        "value": 0.97,
        "low": 0.95,
        "high": 0.98,
        "minus_none": 0.001,
        "minus_none_low": -0.01,
        "minus_none_high": 0.011,
        "seeds": 3,
        "n": 200,
        "minus_start": 0.14,
        "minus_start_low": 0.11,
        "minus_start_high": 0.16,
    }
    pd.DataFrame([row, row | {"kind": "", "arm": "none", "layers": ""}]).to_csv(
        tmp_path / "summary.csv", index=False
    )
    code, out, _ = show(capsys, tmp_path, "--table", "freezing")
    assert code == 0
    assert "97.0 [95.0, 98.0]" in out
    (made,) = tables(open_runs(tmp_path))
    assert layout(made)[1][0] == [
        "late",
        "text:5-8",
        "freeze",
        "97.0 [95.0, 98.0]",
        "0.1 [-1.0, 1.1]",
        "14.0 [11.0, 16.0]",
        "200",
    ]
    assert layout(made)[1][1][4] == ""  # plain RL is not compared with itself


def test_training_runs_show_their_last_look_and_rewards(tmp_path):
    folder = tmp_path / "rl"
    folder.mkdir()
    (folder / "train.json").write_text("{}")
    stage = {"kind": "grpo", "rewards": {"accuracy": 1.0, "format": 0.1}}
    (folder / "recipe.json").write_text(
        json.dumps({"recipe": {"stages": [{"kind": "sft"}, stage]}})
    )
    lines = [
        {"update": 1, "held_out": {"acc@1": 0.2}},
        {"update": 2, "held_out": {"acc@1": 0.5}},
        {"update": 3},
    ]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (made,) = tables(open_runs(tmp_path), "designs")
    assert layout(made) == (
        ["run", "rewards", "acc@1"],
        [["rl", "1 accuracy + 0.1 format", "50.0"]],
    )
