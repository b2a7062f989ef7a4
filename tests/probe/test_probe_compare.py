"""Two probes compared: differences by hand, Holm by hand, nothing dropped without a word."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from franken.cli import run_command
from franken.errors import UsageError
from franken.probe.compare import compare_probes, difference_rows
from franken.probe.plan import plan_probe
from franken.probe.run import run_probe
from franken.runs import load_run
from franken.stats import difference, holm, sign_flip_test

METHODS = ["attention", "lens", "zero", "swap-suffix", "patch-attn", "patch-heads-noising"]


def probed(model, out, **kwargs):
    given = {
        "methods": METHODS,
        "task_names": ["read"],
        "samples": 3,
        "layers": "2-4",
        "max_new_tokens": 6,
    }
    return run_probe(plan_probe(model, **given | kwargs), out=out, device="cpu")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    out = tmp_path_factory.mktemp("probes")
    return probed("creature:base", out), probed("creature:sft", out)


def test_attention_shift_is_the_paired_difference(folders, tmp_path):
    run = load_run(compare_probes(*folders, out=tmp_path))
    assert run.label == "creature-base→creature-sft"
    a, b = (
        load_run(f).samples.query("method == 'attention'").sort_values("sample") for f in folders
    )
    shown = run.layers[(run.layers["method"] == "attention") & (run.layers["component"] == "all")]
    p_values = []
    for layer in (2, 3):
        before, after = (t[t["layer"] == layer]["mass"].to_numpy(float) for t in (a, b))
        row = shown[
            (shown["layer"] == layer) & (shown["metric"] == "attention_mass_difference")
        ].iloc[0]
        assert row[["value", "ci_low", "ci_high"]].tolist() == pytest.approx(
            [*difference(before, after, rates=False)]
        )
        assert row["n"] == 3
        p_values.append(sign_flip_test(after - before))
    adjusted = shown[shown["metric"] == "attention_mass_difference"]["p_adjusted"].tolist()
    assert adjusted == pytest.approx(holm(p_values))
    heads = run.layers[run.layers["component"].str.startswith("head")]
    assert len(heads) == 2 * len(a["head_mass"].iloc[0])


def test_every_method_is_compared_and_every_row_is_there(folders, tmp_path):
    run = load_run(compare_probes(*folders, out=tmp_path))
    assert set(run.layers["method"]) == set(METHODS)
    found = set(run.layers["metric"].str.removesuffix("_difference"))
    assert found >= {
        "attention_per_pair",
        "answer_probability",
        "entropy",
        "accuracy_drop",
        "change_rate",
        "restored",
        "lost",
    }
    keys = ["method", "sample", "layer"]
    asked = {tuple(k) for f in folders for k in load_run(f).samples[keys].itertuples(index=False)}
    assert {tuple(k) for k in run.samples[keys].itertuples(index=False)} == asked


def test_a_run_against_itself_differs_in_nothing(folders, tmp_path):
    run = load_run(compare_probes(folders[1], folders[1], out=tmp_path))
    assert (run.layers["value"] == 0).all()
    assert (run.layers["p_adjusted"] == 1).all()


def test_what_only_one_run_measured_is_said(folders, tmp_path):
    fewer = probed("creature:sft", tmp_path, samples=2, methods=["attention"])
    more = probed("creature:sft", tmp_path, samples=3, methods=["attention"])
    run = load_run(compare_probes(fewer, more, out=tmp_path))
    alone = run.samples[run.samples["error"].notna()]
    assert len(alone) == run.manifest.n_failed == 2
    assert set(alone["error"]) == {"only in the second run"}
    assert set(run.layers["n"]) == {2}


def test_other_questions_are_refused(folders, tmp_path):
    other = probed("creature:sft", tmp_path, task_names=["count"], methods=["attention"])
    with pytest.raises(UsageError, match="nothing to compare"):
        compare_probes(folders[0], other, out=tmp_path)
    seeded = probed("creature:sft", tmp_path, seed=3, methods=["attention"])
    with pytest.raises(UsageError, match="nothing to compare|not the same question"):
        compare_probes(folders[0], seeded, out=tmp_path)


def test_holm_runs_over_layers_and_heads_of_one_metric():
    rng = np.random.default_rng(0)
    rows = [
        ("attention", "text", layer, "t", "attention_mass", component, 0.0, rng.normal(shift))
        for layer in range(2)
        for component, shift in (("all", 3), ("head 0", 3), ("head 1", 0))
        for _ in range(12)
    ]
    columns = ["method", "part", "layer", "task", "metric", "component", "first", "second"]
    found = difference_rows("m", pd.DataFrame(rows, columns=columns))
    raw = {
        (r["component"], r["layer"]): sign_flip_test(
            [x[-1] for x in rows if (x[5], x[2]) == (r["component"], r["layer"])]
        )
        for r in found
    }
    for kind in (["all"], ["head 0", "head 1"]):
        members = [(r["component"], r["layer"]) for r in found if r["component"] in kind]
        expected = dict(zip(members, holm([raw[m] for m in members]), strict=True))
        assert {
            (r["component"], r["layer"]): r["p_adjusted"] for r in found if r["component"] in kind
        } == expected


def test_the_command_line(folders, tmp_path, capsys):
    def asked(*arguments):
        code = run_command([*map(str, arguments), "--out", str(tmp_path)], debug=False)
        return code, capsys.readouterr()

    code, said = asked("probe-compare", *folders, "--json")
    found = json.loads(said.out)
    assert code == 0
    assert (Path(found["folder"]) / "figures" / "attention-shift.png").exists()
    assert (
        asked("probe-compare", *folders, "--no-figures")[1].out.count(
            "attention attention_mass_difference"
        )
        == 1
    )
    assert asked("probe-compare", folders[0], tmp_path / "nothing")[0] == 1
    patching = (
        "probe",
        "creature:sft",
        "--method",
        "patch",
        "--tasks",
        "read",
        "--samples",
        2,
        "--layers",
        "3-5",
    )
    code, said = asked(*patching, "--site", "attn", "--no-figures")
    assert code == 0
    assert "patch-attn read: share of the logit difference restored" in said.out
    assert "patch-attn-noising read: share of the logit difference lost" in said.out
    assert "-0.00" not in said.out
    code, said = asked(*patching, "--site", "atn")
    assert code == 2
    assert "did you mean 'attn'" in said.err
