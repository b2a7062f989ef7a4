"""Two processes train as one: the same loss and weights to rounding; sharded checkpoints move
between numbers of processes.

All runs of two processes happen in one pair of them (`two_ranks`), forked from a server that has
imported what they need.
"""

import errno
import json
import os
import shutil
import signal
import socket
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from processes import start as start_process
from safetensors.torch import load_file
from torch.distributed.checkpoint import filesystem
from torch.distributed.fsdp import fully_shard

from franken import tasks
from franken.checkpoints import open_checkpoint
from franken.errors import FrankenError, UsageError, VerificationError
from franken.models.loading import load
from trainer import sharded_state
from trainer.checkpoint_files import Position
from trainer.collectives import check_replicas
from trainer.distributed import is_main_process, process_group, rank, world_size
from trainer.loop import run_train
from trainer.recipe import parse_recipe
from trainer.watch import watcher

GRPO = {
    "kind": "grpo",
    "steps": 1,
    "prompts": 3,
    "group": 4,
    "max_new_tokens": 24,
    "lr": 1e-4,
    "tasks": {"sum": 1.0},
    "advantage": {"scale": "batch"},
    "beta": 0.05,
    "entropy_bonus": 0.01,
    "freeze": ["vision", "early"],
    "micro_rows": 5,
    "seed": 4,
    "temperature": 0.6,
    "filter": "accuracy",
    "refill": 1,
    "save_every": 1,
}
SFT = {
    "kind": "sft",
    "steps": 1,
    "batch": 3,
    "lr": 1e-4,
    "tasks": {"read": 1.0, "count": 1.0},
    "freeze": ["vision"],
}
MUPO = {
    **GRPO,
    "advantage": {"name": "mupo", "partition": "random", "clusters": 2, "min_size": 2},
    "beta": 0.0,
    "group": 6,
    "packed": True,
    "inner_steps": 2,
    "entropy_bonus": 0.0,
    "temperature": 1.0,
    "filter": "none",
}
STAGES = [
    GRPO,
    {**SFT, "packed": True, "token_budget": 120},
    {**SFT, "eval_every": 1},
    MUPO,
    {"kind": "align", "steps": 1, "batch": 3, "lr": 1e-4, "freeze": ["vision"]},
]
SHARDED = {"sharding": "fsdp"}
RUNS = {
    "whole": ({}, STAGES),
    "sharded": ({**SHARDED, "activation_checkpointing": True}, STAGES),
    "lora": (
        {"lora": {"rank": 2, "alpha": 4, "targets": ["text:2-5.attn"]}},
        [
            {
                **MUPO,
                "lr": 1e-3,
                "tasks": {},
                "data": "rows.jsonl",
                "held_out": 2,
                "eval_every": 1,
                "entropy_bonus": 0.01,
            }
        ],
    ),
    "mixed": (
        {**SHARDED, "precision": "bf16-mixed"},
        [SFT, {**GRPO, "filter": "none", "kl_in": "reward"}],
    ),
}
RUNS["sharded-lora"] = ({**SHARDED, **RUNS["lora"][0]}, RUNS["lora"][1])


def train(run, out, *, until=0):
    """Run to the end; with `until`, stop as ctrl-C on one process does, after that update."""
    options, stages = RUNS[run]
    stages = [
        {**stage, "data": str(out.parent / stage["data"])} if "data" in stage else stage
        for stage in stages
    ]
    recipe = parse_recipe(
        {"name": run, "model": "creature:sft", "device": "cpu", **options, "stages": stages}
    )

    def stop(now):
        if now.update.update == until:
            signal.raise_signal(signal.SIGINT)

    with suppress(KeyboardInterrupt):
        run_train(recipe, out, report=stop, observe=watcher(recipe, out))
    assert (out / "train.json").exists() != bool(until)


@contextmanager
def one_of_two(number, port):
    """What torchrun tells its processes."""
    told = {
        "RANK": number,
        "LOCAL_RANK": number,
        "WORLD_SIZE": 2,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    os.environ |= {name: str(value) for name, value in told.items()}
    with process_group():
        assert rank() == number
        yield
    for name in told:
        del os.environ[name]


def two_ranks(number, ports, folder):
    torch.set_num_threads(1)
    with one_of_two(number, ports[0]):
        train("whole", folder / "two", until=2)
        train("whole", folder / "two")
        train("sharded", folder / "moving", until=2)
        train("mixed", folder / "mixed")
        train("sharded-lora", folder / "sharded-lora")
        full_disk(folder / "full", number)
        permuted_rows(number)
    if number == 0:  # goes on alone, while the other waits for it to be back
        train("sharded", folder / "moving", until=3)
    with one_of_two(number, ports[1]):
        train("sharded", folder / "moving")


def full_disk(out, number):
    """One rank cannot write: both hear of it, and what was there stays."""
    model = torch.nn.Linear(4, 4)
    fully_shard(model)
    first = sharded_state.save(out, model, None, Position(updates=1))
    broken = patch.object(
        filesystem.FileSystemWriter,
        "write_data",
        side_effect=OSError(errno.ENOSPC, "no space is left"),
    )
    with broken if number else nullcontext(), pytest.raises(FrankenError) as caught:
        sharded_state.save(out, model, None, Position(updates=2))
    assert caught.value.what == "checkpoint step-00000002 could not be written"
    assert "no space" in caught.value.why
    assert "step-00000001" in caught.value.fix
    assert [path.name for path in first.parent.iterdir()] == [first.name]


def permuted_rows(number):
    """Replicas of the same bits pass; the same rows in another order, whose sums agree, do not."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 4)
    check_replicas(model)
    if number:
        with torch.no_grad():
            model.weight.copy_(model.weight.flip(0))
    with pytest.raises(VerificationError):
        check_replicas(model)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    with (folder / "rows.jsonl").open("w") as rows:
        for item in tasks.get("sum").items(6, 5, "test"):
            assert item.image
            item.image.save(folder / f"{item.id}.png")
            rows.write(
                json.dumps(
                    {"question": item.question, "answer": item.answer, "image": f"{item.id}.png"}
                )
                + "\n"
            )
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    ranks = [
        start_process(folder / f"said-{number}", two_ranks, number, ports, folder)
        for number in (0, 1)
    ]
    train("whole", folder / "one")
    train("lora", folder / "lora")
    assert [rank.wait() for rank in ranks] == [0, 0], [rank.stderr for rank in ranks]
    return folder


def weights(out):
    return load_file(out / "final" / "model.safetensors")


def start():
    return load_file(open_checkpoint("creature:sft").folder / "model.safetensors")


def lines(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def apart(a, b):
    """How far two runs' weights are from each other, as a share of how far the first has moved."""
    one, two, before = weights(a), weights(b), start()
    assert set(one) == set(two) == set(before)
    norm = {n: float((one[n] - before[n]).norm()) for n in one}
    return sum(float((one[n] - two[n]).norm()) for n in one) / sum(norm.values())


# Rounding: sums run in another order, so losses differ by a few float32 steps of their largest
# terms (1e-6 of themselves is
# seen); Adam divides a gradient by its own size, which turns that into 1e-4 of the way a run has
# moved, seen over five updates.
REL, ABS = 2e-5, 1e-6
WEIGHTS = 2e-3


@pytest.mark.parametrize(
    ("alone", "other"), [("one", "two"), ("one", "moving"), ("lora", "sharded-lora")]
)
def test_two_processes_equal_one(runs, alone, other):
    """`two` was interrupted and went on; `moving` was sharded over two, then one, then two;
    adapters train on rows of a table.
    """
    one, two = lines(runs / alone), lines(runs / other)
    assert [line["update"] for line in two] == list(range(1, len(one) + 1))
    for a, b in zip(one, two, strict=True):
        held_out = a.pop("held_out", None)
        assert b.pop("held_out", None) == held_out
        assert {**b, "cpu_seconds": 0} == pytest.approx({**a, "cpu_seconds": 0}, rel=REL, abs=ABS)
        assert a["grad_norm"] > 0
    assert apart(runs / alone, runs / other) < WEIGHTS
    assert json.loads((runs / other / "train.json").read_text())["processes"] == 2
    (looked,) = (runs / other / "gallery").iterdir()  # one evaluation, written by one process
    assert len(json.loads(looked.read_text())["cards"]) == (5 if alone == "one" else 2)


def test_the_filter_draws_what_one_process_draws(runs):
    for run in ("one", "two", "moving"):
        first = lines(runs / run)[0]
        assert [first[name] for name in ("groups", "tried", "all_right", "all_wrong")] == [
            2,
            5,
            3,
            0,
        ], run


@pytest.mark.parametrize("run", ["one", "two", "moving", "mixed", "sharded-lora"])
def test_what_is_frozen_stays_and_the_export_is_complete(runs, run):
    load(str(runs / run / "final"), device="cpu")  # raises for a missing key
    after, before = weights(runs / run), start()
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved
    assert not any("visual.blocks" in name for name in moved)
    assert any("visual.blocks" in name for name in after)
    for proof in json.loads((runs / run / "freeze.json").read_text()).values():
        assert proof["verified"]["bit_identical"]
        assert proof["verified"]["tensors"] > 0


def test_adapters_alone_have_moved(runs):
    after, before = weights(runs / "sharded-lora"), start()
    assert (
        sum(not torch.equal(after[name], before[name]) for name in after) == 12
    )  # q, k, v, o of three layers


def test_mixed_precision_updates_float32_weights(runs):
    after, before = weights(runs / "mixed"), start()
    moved = [after[name] for name in after if not torch.equal(after[name], before[name])]
    assert all(w.dtype == torch.float32 for w in after.values())
    assert any((w.bfloat16().float() != w).any() for w in moved)  # more than bfloat16 can hold


@pytest.mark.parametrize("harm", ["cut", "changed", "lost", "unfinished"])
def test_a_harmed_sharded_checkpoint_is_never_taken(runs, tmp_path, harm):
    shutil.copytree(runs / "moving" / "shards", tmp_path / "shards")
    last = sharded_state.last_whole(tmp_path)
    assert last
    assert last.name == "step-00000005"
    (tmp_path / "shards" / ".step-00000006").mkdir()  # a writer was killed
    file = next(last.glob("__1_*.distcp"))
    data = file.read_bytes()
    if harm == "cut":
        file.write_bytes(data[: len(data) // 2])
    elif harm == "changed":
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif harm == "lost":
        file.unlink()
    else:
        (last / "state.json").unlink()
    assert sharded_state.last_whole(tmp_path) == last.with_name("step-00000004")
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["step-00000004"]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"precision": "bf16-mixed"}, "sharding: fsdp"),
        ({"sharding": "fsdp", "precision": "bf16-mixed", "dtype": "bf16"}, "fp32"),
        ({"sharding": "fsdp", "model": "creature:new"}, "creature:new"),
        ({"sharding": "fsdp", "keep": {"best": 1}}, "keep.best"),
    ],
)
def test_what_does_not_go_together_is_refused(options, word):
    with pytest.raises(UsageError) as caught:
        parse_recipe({"name": "x", "model": "creature:sft", "stages": [SFT], **options})
    assert word in caught.value.why


def test_one_of_torchruns_processes_speaks(monkeypatch):
    monkeypatch.setenv("RANK", "3")  # of someone else: alone, it means nothing
    assert (rank(), world_size(), is_main_process()) == (0, 1, True)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    assert (rank(), is_main_process()) == (0, False)
    monkeypatch.setenv("RANK", "0")
    assert is_main_process()
