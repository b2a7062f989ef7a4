"""Checkpoints survive full disks and damage: what is there is whole, and what is not whole is never
loaded.
"""

import errno
import json
import os
import resource
import signal
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText

from franken.errors import FrankenError, UsageError
from trainer import checkpoint_files, loop, state
from trainer.recipe import parse_recipe


def recipe(**changes):
    stage = {
        "kind": "sft",
        "steps": 3,
        "batch": 2,
        "lr": 1e-3,
        "tasks": {"read": 1.0},
        "save_every": 1,
    }
    stage |= {"freeze": ["vision", "projector"], **changes.pop("stage", {})}
    return parse_recipe(
        {"name": "t", "model": "creature:sft", "device": "cpu", "stages": [stage], **changes}
    )


def trained(out, updates, wide=4):
    """Checkpoints of a small model after 1 … `updates` updates; returns model and optimiser."""
    torch.manual_seed(0)
    model = torch.nn.Linear(wide, wide)
    optimizer = torch.optim.AdamW(model.parameters())
    for update in range(1, updates + 1):
        model(torch.ones(1, wide)).sum().backward()
        optimizer.step()
        state.save_state(out, model, optimizer, state.Position(0, update, update))
    return model, optimizer


def everything(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("at", ["save_model", "torch.save", "json", "rename", "mkdir", "sync"])
def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch, at):
    model, optimizer = trained(tmp_path, 2)
    before = everything(tmp_path)
    broken = {
        "save_model": (state, "save_model"),
        "torch.save": (torch, "save"),
        "json": (Path, "write_text"),
        "rename": (os, "replace"),
        "mkdir": (Path, "mkdir"),
        "sync": (os, "fsync"),
    }[at]
    with monkeypatch.context() as patch:
        patch.setattr(*broken, full)
        with pytest.raises(FrankenError) as caught:
            state.save_state(tmp_path, model, optimizer, state.Position(0, 3, 3))
    assert "step-00000003 could not be written" in caught.value.what
    assert "No space left" in caught.value.why
    assert "step-00000002" in caught.value.fix
    assert everything(tmp_path) == before
    assert not list((tmp_path / "state").glob(".*"))
    assert state.last_whole(tmp_path) == tmp_path / "state" / "step-00000002"


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_the_system_refuses_more_bytes_in_the_middle_of_a_file(tmp_path, share):
    """No injected exception: the kernel stops the writes of safetensors (written first) and of
    torch.save (twice as large).
    """
    model, optimizer = trained(tmp_path, 1, wide=300)
    before = everything(tmp_path)
    largest = (tmp_path / "state" / "step-00000001" / "optimizer.pt").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(largest * share), hard))
    try:
        with pytest.raises(FrankenError, match="could not be written"):
            state.save_state(tmp_path, model, optimizer, state.Position(0, 2, 2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("name", [*state.FILES, "state.json"])
@pytest.mark.parametrize("how", ["cut", "empty", "missing", "flipped"])
def test_a_damaged_checkpoint_is_never_loaded(tmp_path, caplog, name, how):
    trained(tmp_path, 2)
    file = tmp_path / "state" / "step-00000002" / name
    data = file.read_bytes()
    if how == "missing":
        file.unlink()
    elif how == "flipped":
        at = data.index(b'"sha256": "') + 12 if name == "state.json" else len(data) // 2
        file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    else:
        file.write_bytes(data[: len(data) // 2 if how == "cut" else 0])
    assert state.last_whole(tmp_path) == tmp_path / "state" / "step-00000001"
    assert "step-00000002 is damaged" in caplog.text
    assert (name if how != "flipped" else "") in caplog.text
    assert state.finished(tmp_path) == [tmp_path / "state" / "step-00000001"]


def test_what_killed_runs_left_behind_goes(tmp_path):
    trained(tmp_path, 1)
    for rest in (".step-00000002.77", ".step-00000001.gone"):
        (tmp_path / "state" / rest).mkdir()
        (tmp_path / "state" / rest / "model.safetensors").write_bytes(b"x")
    (tmp_path / ".metrics.jsonl.77").write_text("x")
    state.last_whole(tmp_path)
    assert [p.name for p in (tmp_path / "state").iterdir()] == ["step-00000001"]
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


def test_a_run_killed_while_it_claimed_its_folder_can_start_again(tmp_path):
    (tmp_path / ".recipe.json.77").write_text("{")
    loop.run_train(recipe(stage={"steps": 1}), tmp_path)
    assert not (tmp_path / ".recipe.json.77").exists()


def test_other_errors_of_the_system_keep_their_name(tmp_path):
    with pytest.raises(FileNotFoundError), checkpoint_files.failed_writes_told(tmp_path):
        (tmp_path / "nothing").read_text()


def test_a_run_whose_disk_fills_up_goes_on_when_there_is_room(tmp_path, monkeypatch):
    whole = loop.run_train(recipe(), tmp_path / "whole")
    saves = []

    def fills_up(model, path):
        saves.append(path)
        full() if len(saves) == 2 else save_model(model, path)

    save_model = state.save_model
    with monkeypatch.context() as patch:
        patch.setattr(state, "save_model", fills_up)
        with pytest.raises(FrankenError, match="could not be written"):
            loop.run_train(recipe(), tmp_path / "cut")
    assert [p.name for p in (tmp_path / "cut" / "state").iterdir()] == ["step-00000001"]
    log = tmp_path / "cut" / "metrics.jsonl"
    log.write_text(
        log.read_text() + '{"stage": 0, "update": 3, "held_out": {"acc@1": 0.5}'
    )  # a line cut off
    found = loop.run_train(recipe(), tmp_path / "cut")
    assert (found / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert [json.loads(line)["update"] for line in log.read_text().splitlines()] == [1, 2, 3]


def test_a_disk_that_is_full_at_the_export_says_so(tmp_path, monkeypatch):
    from transformers import PreTrainedModel

    with monkeypatch.context() as patch:
        patch.setattr(PreTrainedModel, "save_pretrained", full)
        with pytest.raises(FrankenError, match="cannot be written") as caught:
            loop.run_train(recipe(), tmp_path)
    assert "step-00000003" in caught.value.fix
    assert not (tmp_path / "train.json").exists()
    assert loop.run_train(recipe(), tmp_path).name == "final"


def test_the_best_checkpoints_stay_beside_the_last(tmp_path):
    model, optimizer = trained(tmp_path, 0)
    for update, (stage, value) in enumerate(
        [(0, 0.9), (1, 0.2), (1, 0.5), (1, 0.5), (1, 0.1), (1, 0.3)], 1
    ):
        position, score = state.Position(stage, update, update), state.Score(stage, value)
        state.save_state(tmp_path, model, optimizer, position, score=score, last=1, best=2)
    assert [f.name[-1] for f in state.finished(tmp_path)] == [
        "3",
        "4",
        "6",
    ]  # stage 0 does not compare
    assert [f.name[-1] for f in state.ranked(tmp_path)] == ["3", "4", "6"]
    (tmp_path / "state" / "step-00000003" / "model.safetensors").write_bytes(b"")
    assert state.best_whole(tmp_path).name[-1] == "4"


@pytest.mark.parametrize("export", ["best", "last"])
def test_the_export_is_the_checkpoint_that_the_recipe_asks_for(tmp_path, monkeypatch, export):
    scores = iter([0.1, 0.7, 0.3, 0.2])
    monkeypatch.setattr(loop, "quick_look", lambda *_, **__: {"acc@1": 0.0, "acc@4": next(scores)})
    stage = {"steps": 4, "eval_every": 1, "save_every": 4, "lr": 1e-2}
    seen = {}

    def observe(position, loaded):
        seen[position.updates] = {n: p.detach().clone() for n, p in loaded.model.named_parameters()}

    kept = recipe(stage=stage, keep={"last": 1, "best": 1}, export=export)
    final = loop.run_train(kept, tmp_path, observe=observe)
    wanted = 2 if export == "best" else 4
    assert json.loads((tmp_path / "train.json").read_text())["exported_update"] == wanted
    assert [f.name[-1] for f in state.finished(tmp_path)] == ["2", "4"]
    found = AutoModelForImageTextToText.from_pretrained(final)
    parameters = dict(found.named_parameters())
    assert all(torch.equal(parameters[n], p) for n, p in seen[wanted].items())
    assert any(not torch.equal(seen[2][n], seen[4][n]) for n in parameters)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"export": "best"}, "keep"),
        ({"export": "best", "keep": {"best": 1}}, "eval_every"),
        ({"keep": {"lasst": 1}}, "did you mean last"),
    ],
)
def test_a_best_that_cannot_be_known_is_refused(changes, word):
    with pytest.raises(UsageError) as caught:
        recipe(**changes)
    assert word in caught.value.why
