"""The command line in process: exit codes, JSON, errors that say what, why and how."""

import json
import shutil
import subprocess
import sys

import pytest

from franken.cli import run_command
from franken.models.tiny import TINY_FAMILIES, save_tiny

FEW = ["--tasks", "read", "--samples", "4", "--n", "2", "--k", "1,2", "--device", "cpu"]


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    code = run_command([str(a) for a in arguments], False)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_diff_prints_tables_and_json(capsys, tmp_path):
    folders = [
        save_tiny(tmp_path / name, "qwen2_5_vl", seed)
        for seed, name in enumerate(("base", "sft", "rl"))
    ]
    code, out, _ = run(capsys, "diff", *folders, "--out", tmp_path / "runs")
    assert code == 0
    assert "‖Δ‖ / ‖W‖" in out
    code, out, _ = run(capsys, "diff", *folders, "--out", tmp_path / "runs", "--json")
    found = json.loads(out)
    assert {r["method"] for r in found["layers"]} == {"base→sft", "sft→rl", "base→rl"}
    assert found["manifest"]["n_failed"] == 0
    code, out, _ = run(capsys, "diff", *folders, "--dry-run", "--json")
    assert json.loads(out)["tensors"] == 69


def test_a_diff_with_unmatched_tensors_exits_3(capsys, tmp_path):
    a, b = (
        save_tiny(tmp_path / "a", "qwen2", layers=3),
        save_tiny(tmp_path / "b", "qwen2", layers=2),
    )
    assert run(capsys, "diff", a, b, "--out", tmp_path / "runs")[0] == 3


def test_merge_dry_run_then_merge(capsys, tmp_path):
    code, out, _ = run(
        capsys, "merge", "creature:base", "creature:sft", "--layers", "2-4", "--dry-run"
    )
    assert code == 0
    assert "text layers 2..3 (2 of 8) from creature-sft" in out
    hybrid = tmp_path / "hybrid"
    code, out, _ = run(
        capsys,
        "merge",
        "creature:base",
        "creature:sft",
        "--layers",
        "2-4",
        "--out",
        hybrid,
        "--json",
    )
    assert (code, json.loads(out)["verified"]) == (0, True)
    assert (hybrid / "franken_merge.json").exists()
    assert (
        run(capsys, "merge", "creature:base", "creature:sft", "--layers", "2-5", "--out", hybrid)[0]
        == 2
    )


TWO = ("creature:base", "creature:sft")


@pytest.mark.parametrize(
    ("arguments", "made_of"),
    [
        ([*TWO, "--layers", "2-4"], {"copy of creature-sft": 24}),
        ([*TWO, "--layers", "2-4", "--components", "attn"], {"copy of creature-sft": 14}),
        ([*TWO, "--layers", "2-4", "--alpha", "0.5"], {"linear of base, creature-sft": 24}),
        (
            [*TWO, "--layers", "2-5", "--alpha", "0,1"],
            {"copy of creature-sft": 12, "linear of base, creature-sft": 12},
        ),
        ([*TWO, "--take", "vision,projector"], {"copy of creature-sft": 30}),
        ([*TWO, "--graft", "creature-sft:late,vision:0"], {"copy of creature-sft": 48}),
        (["S=creature:base", "R=creature:sft", "--splice", "S:R:S"], {"copy of R": 36}),
        (
            [*TWO, "--layers", "3", "--method", "slerp", "--param", "t=0.5"],
            {"slerp of base, creature-sft": 12},
        ),
        (
            [*TWO, "--layers", "3", "--method", "nuslerp", "--param", "weight=1"],
            {"nuslerp of base, creature-sft": 12},
        ),
        (
            [
                *TWO,
                "O=creature:sft",
                "--layers",
                "3",
                "--method",
                "ties",
                "--param",
                "weight=1",
                "--relative-to",
                "O",
            ],
            None,
        ),
        (["creature:sft", "--layers", "3", "--noise", "0.5", "--seed", "4"], {"noise of base": 12}),
    ],
)
def test_what_the_options_of_merge_plan(capsys, arguments, made_of):
    code, out, err = run(capsys, "merge", *arguments, "--dry-run", "--json")
    if made_of is None:
        assert (code, "ties does not take" in err) == (2, True)
        return
    assert code == 0
    found: dict[str, int] = {}
    for row in json.loads(out)["tensors"]:
        names = ", ".join(s["checkpoint"] for s in row["sources"])
        found[f"{row['method']} of {names}"] = found.get(f"{row['method']} of {names}", 0) + 1
    assert {k: v for k, v in found.items() if k != "copy of base"} == made_of


def test_merge_by_recipe_allows_what_it_says_and_loads(capsys, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "base: creature:base\ndonors: {rl: creature:sft}\nallow: [dtype]\nrules: [{from: rl, "
        "layers: 2-4}]\n"
    )
    code, out, _ = run(
        capsys, "merge", "--recipe", recipe, "--out", tmp_path / "hybrid", "--verify", "load"
    )
    assert code == 0
    assert "128 tensors, every one verified" in out
    a, b = save_tiny(tmp_path / "a", "mistral"), save_tiny(tmp_path / "b", "llama")
    code, _, err = run(capsys, "merge", a, b, "--layers", "1", "--dry-run")
    assert (code, "--allow architecture" in err) == (2, True)
    code, out, _ = run(
        capsys, "merge", a, b, "--layers", "1", "--dry-run", "--allow", "architecture"
    )
    assert (code, "allowed: b: architecture" in out) == (0, True)


def test_merge_tells_its_methods(capsys):
    code, out, _ = run(capsys, "merge", "--list-methods", "--json")
    methods = {m["name"]: m for m in json.loads(out)["methods"]}
    own = {"copy", "noise", "keep", "drop", "extrapolate"}
    assert (code, len(methods)) == (0, 20 + len(own))
    assert own <= methods.keys()
    assert methods["dare_ties"]["paper"] == "https://arxiv.org/abs/2311.03099"
    assert "breadcrumbs_ties" in run(capsys, "merge", "--list-methods")[1]


def test_a_merge_that_is_not_what_was_planned_exits_4(capsys, tmp_path, monkeypatch):
    from franken.merge import run as merge_run

    monkeypatch.setattr(
        merge_run, "_write_shard", lambda path, made, progress: shutil.copy(made[0].file, path)
    )
    code, _, err = run(capsys, "merge", *TWO, "--layers", "2-4", "--out", tmp_path / "hybrid")
    assert (code, "is not what was planned" in err) == (4, True)
    assert [p.name for p in tmp_path.iterdir()] == ["hybrid.FAILED"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["merge", "nowhere", "creature:sft", "--layers", "1"], 2, "no checkpoint at"),
        (["merge", "creature:base", "creature:sft", "--layers", "7-9"], 2, "8 layers"),
        (["merge", "creature:base", "creature:sft", "--layers", "1"], 2, "--out"),
        (["merge", "creature:base", "creature:sft"], 2, "nothing to merge"),
        (["merge", "--recipe", "none.yaml"], 2, "cannot read none.yaml"),
        (["merge", "creature:base", "--recipe", "none.yaml"], 2, "--recipe says it all"),
        (
            ["merge", "creature:base", "creature:sft", "--layers", "1", "--verify", "hope"],
            2,
            "unknown --verify",
        ),
        (
            ["merge", "creature:base", "creature:sft", "--layers", "1", "--method", "tie"],
            2,
            "did you mean 'ties'",
        ),
        (["diff", "creature:base"], 2, "diff takes"),
        (["diff", "creature:base", "creature:sft", "--parts", "txt"], 2, "did you mean 'text'"),
        (["diff", "creature:base", "creature:sft", "--subspaces"], 2, "two updates"),
        (["diff", "creature:base", "creature:sft", "--layers", "7-9"], 2, "8 layers"),
        (
            ["diff", "creature:base", "creature:sft", "--expect-frozen", "head"],
            2,
            "matches nothing",
        ),
        (["diff", "creature:base", "creature:sft", "--spectra", "--device", "cuda:x"], 2, "cuda"),
        (["probe", "creature:sft", "--method", "swop"], 2, "did you mean 'swap'"),
        (["probe", "creature:sft", "--tasks", "raed"], 2, "did you mean 'read'"),
        (["eval", "creature:rl"], 2, "RL is run live"),
        (["eval", "creature:sft", "--k", "1,x"], 2, "whole numbers"),
        (["train", "creature-lr"], 2, "did you mean 'creature-rl'"),
        (["train"], 2, "no recipe"),
        (["freeze-train", "creature-rl", "--freeze", "text:7-9"], 2, "8 layers"),
        (["diff", "--no-such-option"], 2, "No such option"),
        (["no-such-command"], 2, "No such command"),
    ],
)
def test_wrong_input_says_what_and_how(capsys, arguments, code, words):
    found, out, err = run(capsys, *arguments)
    assert found == code
    assert words in err
    assert "Traceback" not in err


def test_probe_on_a_few_pairs(capsys, tmp_path):
    arguments = [
        "probe",
        "creature:sft",
        "--tasks",
        "read",
        "--samples",
        2,
        "--layers",
        "3-5",
        "--out",
        tmp_path,
        "--device",
        "cpu",
    ]
    code, out, _ = run(capsys, *arguments, "--dry-run", "--json")
    assert json.loads(out)["answers"] == 12
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    assert "swap-single change_rate" in out
    assert "12 requested, 12 ok, 0 failed" in out


def test_eval_on_a_few_puzzles(capsys, tmp_path):
    arguments = ["eval", "creature:sft", *FEW, "--out", tmp_path]
    code, out, _ = run(capsys, *arguments, "--json")
    assert code == 0
    assert {"acc@1", "acc@2", "greedy"} <= {r["metric"] for r in json.loads(out)["layers"]}


def test_train_and_freeze_train(capsys, tmp_path):
    small = [
        "--set",
        "stages.0.steps=1",
        "--set",
        "stages.0.prompts=2",
        "--set",
        "stages.0.group=2",
        "--set",
        "stages.0.eval_every=null",
    ]
    code, out, err = run(capsys, "train", "creature-rl", "--out", tmp_path / "rl", *small)
    assert code == 0
    assert "trained checkpoint" in out
    assert "grpo 1/1" in err
    code, out, _ = run(
        capsys,
        "freeze-train",
        "creature-rl",
        "--freeze",
        "early",
        "--out",
        tmp_path / "frozen",
        *small,
    )
    assert code == 0
    assert "bit-identical" in out
    code, out, _ = run(
        capsys, "freeze-train", "creature-rl", "--freeze", "early", "--dry-run", "--json"
    )
    table = json.loads(out)["stages"][0]["table"]
    assert {r["layer"] for r in table if r["frozen"] and r["part"] == "text"} == {0, 1}
    assert run(capsys, "train", "creature-rl", "--out", tmp_path / "rl")[0] == 2
    assert json.loads(run(capsys, "train", "--list", "--json")[1])["recipes"]
    assert json.loads(run(capsys, "train", "creature-rl", "--show")[1])["name"] == "creature-rl"


def test_an_interrupt_is_130(capsys, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("franken.diff.plan.plan_diff", stop)
    code, _, err = run(capsys, "diff", "creature:base", "creature:sft")
    assert code == 130
    assert "goes on from here" in err


def test_doctor_passes_on_every_family(capsys):
    code, out, _ = run(capsys, "doctor", "--json")
    assert code == 0
    assert [f["family"] for f in json.loads(out)["families"] if f["ok"]] == list(TINY_FAMILIES)


def test_the_installed_command_answers():
    result = subprocess.run(
        [sys.executable, "-m", "franken.cli", "--help"], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0
    assert "freeze-train" in result.stdout


def test_diff_expects_frozen_layers(capsys, tmp_path):
    a = save_tiny(tmp_path / "a", "qwen2", 0)
    b = save_tiny(tmp_path / "b", "qwen2", 1)
    for same in (True, False):
        code, out, err = run(
            capsys,
            "diff",
            a,
            a if same else b,
            "--expect-frozen",
            "text:0-2",
            "--out",
            tmp_path / "runs",
        )
        assert code == (0 if same else 4)
        assert ("tensors are bit-identical" in out) == same
        assert ("have moved" in err) != same
    assert (
        run(capsys, "diff", a, b, "--expect-frozen", "vision", "--out", tmp_path / "runs")[0] == 2
    )


def test_diff_draws_what_it_measured(capsys, tmp_path):
    folders = [
        save_tiny(tmp_path / name, "qwen2_5_vl", seed)
        for seed, name in enumerate(("base", "sft", "rl"))
    ]
    code, out, _ = run(
        capsys, "diff", *folders, "--spectra", "--subspaces", "--out", tmp_path / "runs"
    )
    figures = {p.stem for p in tmp_path.rglob("figures/*.png")}
    assert figures == {
        "energy",
        "unchanged",
        "components",
        "spectrum-surface",
        "spectra-by-third",
        "ranks",
        "subspaces",
    }
    assert all(name in out for name in figures)
    assert run(capsys, "diff", *folders[:2], "--no-figures", "--out", tmp_path / "bare")[0] == 0
    assert not list((tmp_path / "bare").rglob("*.png"))


def test_diff_says_what_it_would_cost(capsys, tmp_path):
    a, b = (save_tiny(tmp_path / name, "qwen2", seed) for seed, name in enumerate("ab"))
    code, out, _ = run(
        capsys,
        "diff",
        a,
        b,
        "--spectra",
        "--parts",
        "text",
        "--components",
        "mlp",
        "--dry-run",
        "--json",
    )
    found = json.loads(out)
    assert (code, found["tensors"], found["not comparable"]) == (0, 9, {})
    assert found["bytes"] == 2 * 9 * 32 * 48 * 4
    assert found["about seconds"] >= 0
    assert not list(tmp_path.rglob("run.json"))


def test_merge_sweep_in_small(capsys, tmp_path):
    arguments = [
        "merge-sweep",
        *TWO,
        "--window",
        6,
        "--stride",
        2,
        "--controls",
        1,
        "--tasks",
        "read",
        "--samples",
        2,
        "--n",
        2,
    ]
    arguments += ["--max-new-tokens", 8, "--device", "cpu", "--seed", 1]
    code, out, _ = run(capsys, *arguments, "--dry-run", "--json")
    assert json.loads(out)["hybrids"].keys() == {"window-0-6", "window-2-8", "random-6-1"}
    assert json.loads(out)["answers"] == 5 * 2 * 3
    code, out, _ = run(capsys, *arguments, "--out", tmp_path, "--json")
    found = json.loads(out)
    assert (code, found["manifest"]["n_requested"]) == (0, 5)
    assert {r["method"] for r in found["layers"]} == {"donor", "window", "random"}
    assert len(list(tmp_path.glob("merge-sweep/*/figures/gain.png"))) == 1
    code, _, err = run(capsys, "merge-sweep", *TWO, "--window", 8)
    assert (code, "too wide" in err) == (2, True)


def test_eval_side_by_side(capsys, tmp_path):
    arguments = [
        "eval",
        "creature:base",
        "creature:sft",
        *FEW,
        "--out",
        tmp_path,
        "--arms",
        "image,black",
        "--label",
        "base",
        "--label",
        "sft",
        "--trained",
        "read",
    ]
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    for word in (
        "sft - base",
        "M_vis",
        "maj@2",
        "level: new state",
        "sft, not base: solved greedily",
        "coverage.png",
    ):
        assert word in out
    again = [*arguments[:-4], "--label", "base"]
    assert run(capsys, *again)[0] == 2
