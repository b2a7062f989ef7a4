"""The templates of docs/extending.md: each is loaded as a user loads it, and does its work on the
creature.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch

from franken import plugins, tasks
from franken.cli import run_command
from franken.errors import FrankenError, UsageError
from franken.tasks.baselines import default_names
from franken.tasks.puzzle import split_of

TEMPLATES = Path(__file__).parents[2] / "docs" / "templates"


@pytest.fixture(autouse=True)
def _forget():
    yield
    plugins.forget()


def franken(capsys, name: str, *arguments: str) -> dict:
    """What `franken --plugin NAME.py … --json` prints."""
    assert (
        run_command(["--plugin", str(TEMPLATES / f"{name}.py"), *arguments, "--json"], False) == 0
    )
    return json.loads(capsys.readouterr().out)


def test_a_task(capsys, tmp_path):
    given = (
        "creature:sft",
        "--tasks",
        "empties",
        "--samples",
        "4",
        "--n",
        "2",
        "--k",
        "1",
        "--out",
        str(tmp_path),
    )
    found = franken(capsys, "task", "eval", *given)
    assert found["manifest"]["n_failed"] == 0
    puzzle = tasks.get("empties")
    assert "empties" in tasks.every_name()
    assert "empties" not in tasks.names(), "never asked by default"
    for item in puzzle.items(20, 0, "train"):
        assert puzzle.parse(item.description) == item.state
        assert int(item.answer) == list(item.state).count(None)
        assert split_of(item.description) == "train"
        assert (
            puzzle.grade(
                f"<think>{item.solutions['scan']}</think><answer>{item.answer}</answer>", item
            ).score
            == 1.0
        )
    for pair in puzzle.pairs(20, 0, "test"):
        assert pair.target.answer != pair.source.answer
        assert sum(a != b for a, b in zip(pair.target.state, pair.source.state, strict=True)) == 1
    assert [row["task"] for row in franken(capsys, "task", "tasks", "list")["tasks"]][
        -1
    ] == "empties"
    assert "empties" in default_names()
    assert all(tasks.get(name) for name in default_names())


@torch.no_grad()
def test_a_probe(capsys, tmp_path):
    from franken.generate.native import encode_prompts
    from franken.models.loading import load
    from franken.probe.session import prompt_of

    given = (
        "creature:sft",
        "--method",
        "growth",
        "--tasks",
        "read",
        "--samples",
        "2",
        "--out",
        str(tmp_path),
    )
    found = franken(capsys, "probe", "probe", *given, "--no-figures")
    rows = {row["layer"]: row for row in found["layers"] if row["metric"] == "growth"}
    assert sorted(rows) == list(range(8))
    assert {row["n"] for row in rows.values()} == {2}
    loaded = load("creature:sft", device="cpu")
    expected = []
    for pair in tasks.get("read").pairs(2, 0, "test"):
        batch = encode_prompts(loaded, [prompt_of(pair.target)])
        states = loaded.model(**batch, output_hidden_states=True).hidden_states
        expected.append(
            [
                float(b[0, -1].norm() / a[0, -1].norm())
                for a, b in zip(states, states[1:], strict=False)
            ]
        )
    other = franken(capsys, "probe", "probe", "creature:base", *given[1:], "--no-figures")
    compared = franken(
        capsys, "probe", "probe-compare", found["folder"], other["folder"], "--out", str(tmp_path)
    )
    after = {row["layer"]: row["value"] for row in other["layers"] if row["metric"] == "growth"}
    for row in compared["layers"]:
        if row["metric"] == "growth_difference":
            assert row["value"] == pytest.approx(after[row["layer"]] - rows[row["layer"]]["value"])
    assert "growth_difference" in {row["metric"] for row in compared["layers"]}
    for layer in range(7):  # the last hidden state that transformers gives is behind the final norm
        assert rows[layer]["value"] == pytest.approx(sum(e[layer] for e in expected) / 2, rel=1e-4)


@torch.no_grad()
def test_a_probe_method_is_one_file(capsys, tmp_path):
    """Its names, cost, rows, controls, estimates, figure and comparison, from the file alone."""
    from franken.generate.native import encode_prompts
    from franken.models.hooks import edit, identity_layer
    from franken.models.loading import load
    from franken.probe.session import prompt_of

    methods = ("--method", "damp,damp:1", "--tasks", "read", "--samples", "2", "--layers", "5,7")
    given = (*methods, "--max-new-tokens", "8", "--device", "cpu")
    planned = franken(capsys, "probe_method", "probe", "creature:sft", *given, "--dry-run")
    assert planned["methods"] == ["damp", "damp:1"]
    assert planned["forwards"] == 2 * (
        8 + 2 * (1 + 2)
    )  # a reply; and with each, plain and 2 layers
    out = ("--out", str(tmp_path))
    run = franken(capsys, "probe_method", "probe", "creature:sft", *given, *out)
    assert run["manifest"]["n_failed"] == 0
    value = {(r["method"], r["metric"], r["layer"]): r["value"] for r in run["layers"]}
    assert value["damp:1", "reply_kept", 5] == 1
    assert value["damp:1", "probability_lost", 7] == pytest.approx(0, abs=1e-6)
    loaded = load("creature:sft", device="cpu")
    lost = []
    for pair in tasks.get("read").pairs(2, 0, "test"):
        batch = encode_prompts(loaded, [prompt_of(pair.target)])
        plain = loaded.model(**batch).logits[0, -1].softmax(-1)
        with edit({loaded.family.decoder_layers(loaded.model)[7]: identity_layer}):
            skipped = loaded.model(**batch).logits[0, -1].softmax(-1)
        lost.append(float(plain.max() - skipped[plain.argmax()]))
    assert value["damp", "probability_lost", 7] == pytest.approx(sum(lost) / 2, abs=1e-5)
    figures = Path(run["folder"]) / "figures"
    assert {path.stem for path in figures.glob("*.png")} == {"damp", "damp-1"}
    other = franken(capsys, "probe_method", "probe", "creature:base", *given, *out, "--no-figures")
    folders = (run["folder"], other["folder"])
    compared = franken(capsys, "probe_method", "probe-compare", *folders, *out)
    assert {"reply_kept_difference", "probability_lost_difference"} == {
        row["metric"] for row in compared["layers"]
    }


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("reward", "rewards", "{brief: 1.0}"),
        ("advantage", "advantage", "{name: median, floor: 0.01}"),
        ("loss", "loss", "{name: tempered, tau: 0.5}"),
    ],
)
def test_a_reward_an_advantage_and_a_loss(name, key, value, capsys, tmp_path):
    small = [
        f"stages.0.{k}={v}" for k, v in {"steps": 1, "prompts": 2, "group": 4, key: value}.items()
    ]
    options = [word for pair in small for word in ("--set", pair)]
    run = tmp_path / "run"
    franken(capsys, name, "train", "creature-rl", "--out", str(run), *options)
    [line, *_] = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert "reward_brief" in line if name == "reward" else "reward_accuracy" in line
    assert (run / "final" / "model.safetensors").exists()


def test_the_advantage_by_hand():
    from types import SimpleNamespace

    plugins.use(TEMPLATES / "advantage.py")
    median = plugins.find("advantage", "median")
    assert median is not None
    rewards = torch.tensor([[[0.0], [1.0], [1.0]], [[2.0], [2.0], [2.0]]])
    found = median(rewards, SimpleNamespace(total=lambda r: r[..., 0]))
    assert torch.allclose(found, torch.tensor([[-3.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))


def test_a_family(capsys, tmp_path):
    from transformers import Olmo2Config, Olmo2ForCausalLM

    from franken.checkpoints import open_checkpoint

    creature = open_checkpoint("creature:sft").folder
    size = json.loads((creature / "config.json").read_text())["text_config"]["vocab_size"]
    shape = {
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
    }
    config = Olmo2Config(vocab_size=size, hidden_size=32, intermediate_size=64, **shape)
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        Olmo2ForCausalLM(config).save_pretrained(tmp_path / name)
        for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            if (creature / file).exists():
                shutil.copy(creature / file, tmp_path / name)
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    assert run_command(["diff", one, two, "--dry-run"], False) != 0
    capsys.readouterr()
    out = str(tmp_path / "runs")
    changed = franken(capsys, "family", "diff", one, two, "--out", out, "--no-figures")
    assert {row["layer"] for row in changed["layers"] if row["layer"] is not None} == {0, 1, 2}
    franken(
        capsys, "family", "merge", one, two, "--layers", "1-2", "--out", str(tmp_path / "hybrid")
    )
    given = (
        str(tmp_path / "hybrid"),
        "--arms",
        "text",
        "--tasks",
        "read",
        "--samples",
        "2",
        "--n",
        "1",
        "--k",
        "1",
    )
    asked = franken(capsys, "family", "eval", *given, "--out", out, "--max-new-tokens", "4")
    assert asked["manifest"]["n_failed"] == 0


def test_runs_are_known_by_their_plugins(capsys, tmp_path):
    given = (
        "creature:sft",
        "--method",
        "growth",
        "--tasks",
        "read",
        "--samples",
        "1",
        "--out",
        str(tmp_path),
    )
    first = franken(capsys, "probe", "probe", *given, "--no-figures")
    plugins.forget()
    changed = tmp_path / "probe.py"
    changed.write_text(
        (TEMPLATES / "probe.py").read_text().replace('{"growth": value}', '{"growth": 2 * value}')
    )
    assert (
        run_command(["probe", *given, "--no-figures", f"--plugin={changed}", "--json"], False) == 0
    )
    second = json.loads(capsys.readouterr().out)
    assert first["folder"] != second["folder"]
    assert second["layers"][0]["value"] == pytest.approx(2 * first["layers"][0]["value"])


def test_plugins_that_cannot_be_used(tmp_path, capsys):
    file = tmp_path / "mine.py"
    begin = "from franken.plugins import register\n"
    for text, words in (
        ("import no_such_module", "ModuleNotFoundError"),
        (begin + 'register("zap", "x", 1)', "unknown kind"),
        (begin + 'register("reward", "x", 1)', "not a function"),
    ):
        file.write_text(text)
        with pytest.raises(FrankenError, match="failed") as told:
            plugins.use(file)
        assert words in told.value.why
    with pytest.raises(UsageError, match="no plugin"):
        plugins.use(tmp_path / "none.py")
    assert run_command(["doctor", "--plugin"], False) == 2
    assert "--plugin without a value" in capsys.readouterr().err
    file.write_text(begin + 'register("task", "count", 1)')
    plugins.use(file)
    with pytest.raises(UsageError, match="built-in"):
        tasks.get("count")


def test_workers_learn_of_plugins(monkeypatch):
    import os

    plugins.use(TEMPLATES / "reward.py")
    handed = os.environ[plugins.VARIABLE]
    plugins.forget()
    monkeypatch.setenv(plugins.VARIABLE, handed)
    plugins.use_named()
    assert plugins.names("reward") == ["brief"]
    assert plugins.identity()["plugins"]


def test_every_template_is_in_the_page():
    page = (TEMPLATES.parent / "extending.md").read_text()
    for file in TEMPLATES.glob("*.py"):
        assert f"templates/{file.name}" in page
