"""What is written: bit for bit what was planned, complete, proven; and nothing that looks finished
when it is not.
"""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time

import pytest
import torch
from constant_models import folders, plan, values
from safetensors.torch import load_file, save_file

from franken.checkpoints import open_checkpoint, read_array, read_bytes
from franken.errors import FrankenError, UsageError, VerificationError
from franken.merge import run as merge_run
from franken.merge import verify as merge_verify
from franken.merge.plan import plan_layers
from franken.merge.recipe import Rule
from franken.merge.run import pieces, run_merge
from franken.merge.written import read_recipe
from franken.models.tiny import save_tiny, tiny

MIDDLE = Rule(("d0",), "1")


def random_pair(tmp_path, **kwargs):
    return [
        str(save_tiny(tmp_path / n, "qwen2_5_vl", i, **kwargs))
        for i, n in enumerate(("base", "donor"))
    ]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("shards", [None, "40KB"])
def test_transplants_are_bit_exact_and_load(tmp_path, tied, shards):
    made = random_pair(tmp_path, tied=tied, **({"max_shard_size": shards} if shards else {}))
    base, donor = map(open_checkpoint, made)
    result = open_checkpoint(
        run_merge(plan(made, Rule(("d0",), "0,2", ("projector",))), tmp_path / "hybrid")
    )
    for key, entry in result.tensors.items():
        place = entry.place
        source = (
            donor
            if (place.part == "text" and place.layer in (0, 2)) or place.part == "projector"
            else base
        )
        assert read_bytes(entry) == read_bytes(source.tensors[key])
        assert entry.file.name == base.tensors[key].file.name
    from transformers import Qwen2_5_VLForConditionalGeneration

    _, report = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        result.folder, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]


@pytest.mark.parametrize("tied", [False, True])
def test_all_layers_and_all_the_rest_of_b_make_b(tmp_path, tied):
    made = random_pair(tmp_path, tied=tied, max_shard_size="40KB")
    everything = ("vision", "projector", "embed", "norm", "head")
    result = open_checkpoint(
        run_merge(plan(made, Rule(("d0",), "all", everything)), tmp_path / "hybrid")
    )
    donor = open_checkpoint(made[1])
    assert {k: read_bytes(e) for k, e in result.tensors.items()} == {
        k: read_bytes(e) for k, e in donor.tensors.items()
    }


def test_other_names_shards_and_types_fit_when_allowed(tmp_path):
    base, donor = tmp_path / "base", tmp_path / "donor"
    tiny("qwen2_5_vl", 0).to(torch.bfloat16).save_pretrained(base, max_shard_size="40KB")
    tiny("qwen2_5_vl", 1).save_pretrained(donor, save_original_format=False)
    made = [str(base), str(donor)]
    with pytest.raises(UsageError) as caught:
        plan(made, MIDDLE)
    assert "dtype: text.layers.1" in caught.value.why
    assert "--allow dtype" in caught.value.fix
    planned = plan(made, MIDDLE, allow=frozenset({"dtype"}))
    result = open_checkpoint(run_merge(planned, tmp_path / "hybrid"))
    for key, entry in result.tensors.items():
        assert entry.dtype == "BF16"
        if (entry.place.part, entry.place.layer) == ("text", 1):
            expected = (
                torch.tensor(read_array(open_checkpoint(donor).tensors[key]))
                .to(torch.bfloat16)
                .float()
            )
            assert torch.equal(torch.tensor(read_array(entry)), expected)
    record = json.loads((result.folder / "franken_merge.json").read_text())
    assert "dtype" in record["allowed"]["d0"][0]


def test_a_shard_of_one_source_is_one_stretch(tmp_path):
    made = random_pair(tmp_path, max_shard_size="40KB")
    planned = plan(made, MIDDLE)
    shards = dict(pieces(planned.base, planned.rows))
    own = [
        parts
        for shard, parts in shards.items()
        if not any(r.changed for r in planned.rows if r.target.file == shard)
    ]
    assert own
    assert all(len(parts) == 1 and parts[0].length == parts[0].file.stat().st_size for parts in own)
    for shard, parts in shards.items():
        assert sum(p.length for p in parts) == shard.stat().st_size
    several = sum(r.changed for r in planned.rows)
    taken = [
        p for parts in shards.values() for p in parts if p.file and p.file.parent.name == "donor"
    ]
    assert 0 < len(taken) < several / 2


def test_the_shipped_creature_brings_all_its_files_along(tmp_path):
    base, donor = open_checkpoint("creature:base"), open_checkpoint("creature:sft")
    planned = plan_layers(base, donor, "2-4")
    heard = []
    out = run_merge(planned, tmp_path / "hybrid", verify_load=True, progress=heard.append)
    for name in (
        "tokenizer.json",
        "processor_config.json",
        "chat_template.jinja",
        "generation_config.json",
        "config.json",
    ):
        assert (out / name).read_bytes() == (base.folder / name).read_bytes()
    shard = base.folder / "model.safetensors"
    assert (
        sum(heard) == shard.stat().st_size + base.nbytes
    )  # written, header included, and verified
    stamp = (out / "model.safetensors").stat().st_mtime_ns
    assert run_merge(planned, out).samefile(out)
    assert (out / "model.safetensors").stat().st_mtime_ns == stamp
    with pytest.raises(UsageError, match="something else"):
        run_merge(plan_layers(base, donor, "2-5"), out)


def test_the_record_and_the_card_tell_how_to_make_it_again(tmp_path):
    import hashlib

    made = folders(tmp_path)
    out = run_merge(
        plan(made, Rule(("d0",), "1-3", method="linear", alpha=(0.25, 0.75)), seed=3),
        tmp_path / "hybrid",
    )
    record = json.loads((out / "franken_merge.json").read_text())
    result = open_checkpoint(out)
    assert {t["tensor"] for t in record["tensors"]} == {e.name for e in result.tensors.values()}
    for row in record["tensors"]:
        entry = next(e for e in result.tensors.values() if e.name == row["tensor"])
        assert row["sha256"] == hashlib.sha256(read_bytes(entry)).hexdigest()
    card = (out / "README.md").read_text()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(card.split("```yaml\n")[1].split("```")[0])
    from franken.merge.plan import open_all, plan_merge

    again = read_recipe(recipe)
    run_merge(plan_merge(again, open_all(again)), tmp_path / "again")
    assert values(tmp_path / "again") == values(out)


def test_a_finished_hybrid_that_lost_something_is_found_out(tmp_path):
    base, donor = open_checkpoint("creature:base"), open_checkpoint("creature:sft")
    out = run_merge(plan_layers(base, donor, "2-4"), tmp_path / "hybrid")
    (out / "processor_config.json").unlink()
    with pytest.raises(VerificationError, match="processor_config"):
        run_merge(plan_layers(base, donor, "2-4"), out)
    (out / "franken_merge.json").write_text("{")
    with pytest.raises(UsageError, match="something else"):
        run_merge(plan_layers(base, donor, "2-4"), out)


def test_what_comes_along_is_what_a_model_needs(tmp_path):
    made = folders(tmp_path)
    kept = (
        "tekken.json",
        "tokenizer.model",
        "vocab.txt",
        "additional_chat_templates/rag.jinja",
        "LICENSE",
        "preprocessor_config.json",
    )
    left = (
        "modeling_x.py",
        "tokenizer_x.py",
        "optimizer.pt",
        "trainer_state.json",
        "README.md",
        "notes.txt",
    )
    for name in (*kept, *left):
        (tmp_path / "base" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "base" / name).write_text("{}")
    out = run_merge(plan(made, MIDDLE), tmp_path / "hybrid")
    assert all((out / name).read_text() == "{}" for name in kept)
    assert not any((out / name).exists() and (out / name).read_text() == "{}" for name in left)


def test_processor_files_that_are_missing_fail_verification(tmp_path, monkeypatch):
    base, donor = open_checkpoint("creature:base"), open_checkpoint("creature:sft")
    real = merge_run.shutil.copyfile
    monkeypatch.setattr(
        merge_run.shutil,
        "copyfile",
        lambda a, b: None if a.name == "processor_config.json" else real(a, b),
    )
    with pytest.raises(VerificationError, match=r"processor_config\.json is missing"):
        run_merge(plan_layers(base, donor, "2-4"), tmp_path / "hybrid")


@pytest.mark.parametrize("rule", [MIDDLE, Rule(("d0",), "1", method="linear", alpha=(0.5,))])
def test_a_wrong_byte_is_found_wherever_it_is(tmp_path, monkeypatch, rule):
    made = folders(tmp_path)
    write = merge_run._write_shard
    names = [r.target for r in plan(made, rule).rows]
    for n, target in enumerate((names[0], names[-1], next(t for t in names if t.place.layer == 1))):

        def corrupt(path, made_of, progress, at=target.stop - 1):
            write(path, made_of, progress)
            data = bytearray(path.read_bytes())
            data[at] ^= 1
            path.write_bytes(data)

        monkeypatch.setattr(merge_run, "_write_shard", corrupt)
        out = tmp_path / f"hybrid{n}"
        with pytest.raises(VerificationError) as caught:
            run_merge(plan(made, rule), out)
        assert caught.value.exit_code == 4
        assert target.name in caught.value.what
        assert not out.exists()
        assert target.name in (tmp_path / f"hybrid{n}.FAILED" / "FAILED.txt").read_text()


def test_a_hybrid_that_does_not_load_fails_verification(tmp_path):
    made = folders(tmp_path)  # no tokenizer beside it
    with pytest.raises(VerificationError, match="does not load"):
        run_merge(plan(made, MIDDLE), tmp_path / "hybrid", verify_load=True)
    assert not (tmp_path / "hybrid").exists()


@pytest.mark.parametrize("kind", ["copied", "blended", "cast"])
def test_a_hybrid_never_holds_what_is_not_finite(tmp_path, kind):
    """An infinity of the donor, a sum beyond the type, a value that only the wider type holds."""
    save_tiny(tmp_path / "base", "qwen2_5_vl", value=1.0)
    save_tiny(tmp_path / "donor", "qwen2_5_vl", value=1.0)
    if kind != "copied":
        tiny("qwen2_5_vl").to(torch.float16).save_pretrained(tmp_path / "base")
    file = tmp_path / "donor" / "model.safetensors"
    tensors = load_file(file)
    name = next(n for n in tensors if "layers.1.mlp.up" in n and "visual" not in n)
    tensors[name][3, 4] = float("inf") if kind == "copied" else 1e6
    save_file(tensors, file, metadata={"format": "pt"})
    rule = {"copied": Rule(("d0",), "1"), "cast": Rule(("d0",), "1")}.get(
        kind, Rule(("d0",), "1", method="linear", alpha=(0.5,))
    )
    made = plan([str(tmp_path / "base"), str(tmp_path / "donor")], rule, allow=frozenset({"dtype"}))
    with pytest.raises(FrankenError, match="up_proj"):
        run_merge(made, tmp_path / "hybrid")
    assert {p.name for p in tmp_path.iterdir()} == {"base", "donor"}


def test_a_folder_with_other_things_is_refused(tmp_path):
    made = folders(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="something else"):
        run_merge(plan(made, MIDDLE), tmp_path / "full")
    (tmp_path / "empty").mkdir()
    assert run_merge(plan(made, MIDDLE), tmp_path / "empty")


@pytest.mark.parametrize("after", [0, 3, 9])
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")]
)
def test_an_interrupt_or_a_full_disk_leaves_nothing(tmp_path, monkeypatch, error, after):
    made = folders(tmp_path, max_shard_size="40KB")
    copy, calls = os.copy_file_range, []

    def stop(*args):
        calls.append(args)
        if len(calls) > after:
            raise error
        return copy(*args)

    monkeypatch.setattr(os, "copy_file_range", stop)
    with pytest.raises((KeyboardInterrupt, FrankenError)) as caught:
        run_merge(plan(made, MIDDLE), tmp_path / "hybrid")
    if isinstance(caught.value, FrankenError):
        assert "the disk is full" in caught.value.what
        assert "KiB are missing" in caught.value.what
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "donor0"]


def test_too_little_space_is_said_before_anything_is_written(tmp_path, monkeypatch):
    made = folders(tmp_path)
    monkeypatch.setattr(
        merge_run.shutil, "disk_usage", lambda path: type("U", (), {"free": 1024})()
    )
    with pytest.raises(FrankenError, match="KiB are missing"):
        run_merge(plan(made, MIDDLE), tmp_path / "hybrid")
    assert not list(tmp_path.glob("*hybrid*"))


def test_a_limit_on_file_sizes_says_how_much_is_missing(tmp_path):
    """A true failure of write(2): the kernel refuses to let the file grow."""
    made = folders(tmp_path)
    planned = plan(made, MIDDLE)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (planned.base.nbytes // 2, before[1]))
    try:
        with pytest.raises(FrankenError, match="KiB are missing"):
            run_merge(planned, tmp_path / "hybrid")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.glob("*hybrid*"))


def test_a_small_file_system_that_fills_up_says_how_much_is_missing(tmp_path, monkeypatch):
    made = folders(tmp_path, max_shard_size="40KB")
    planned = plan(made, MIDDLE)
    small = tmp_path / "small"
    small.mkdir()
    half = planned.base.nbytes // 2
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={half}", "tmpfs", str(small)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a file system is not allowed here")
    try:
        with pytest.raises(FrankenError, match="KiB are missing"):
            run_merge(planned, small / "hybrid")  # seen beforehand
        assert not list(small.iterdir())
        usage = merge_run.shutil.disk_usage
        looks = iter(
            [type("U", (), {"free": 1 << 40})()]
        )  # the first look is wrong, as when others fill the disk
        monkeypatch.setattr(
            merge_run.shutil, "disk_usage", lambda path: next(looks, None) or usage(path)
        )
        with pytest.raises(FrankenError, match="KiB are missing") as caught:
            run_merge(planned, small / "hybrid")
        assert isinstance(caught.value.__cause__, OSError)
        assert not list(small.iterdir())
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EOPNOTSUPP, None])
def test_where_the_kernel_does_not_copy_files_are_read_and_written(tmp_path, monkeypatch, number):
    def refuse(*args):
        raise OSError(number, "not here")

    if number is None:
        monkeypatch.delattr(os, "copy_file_range")
    else:
        monkeypatch.setattr(os, "copy_file_range", refuse)
    made = random_pair(tmp_path)
    result = open_checkpoint(run_merge(plan(made, MIDDLE), tmp_path / "hybrid"))
    donor = open_checkpoint(made[1])
    key = "text.layers.1.mlp.up_proj.weight"
    assert read_bytes(result.tensors[key]) == read_bytes(donor.tensors[key])


def test_a_killed_merge_leaves_nothing_finished_and_the_next_one_finishes(tmp_path):
    """Killed without a chance to clean up, at moments spread over the whole of it."""
    made = folders(tmp_path, max_shard_size="40KB")
    script = (
        "import sys, time, os\n"
        "from franken.cli import run_command\n"
        "copy = os.copy_file_range\n"
        "def slow(*a):\n"
        "    time.sleep(0.02)\n"
        "    return copy(*a)\n"
        "os.copy_file_range = slow\n"
        "print('ready', flush=True)\n"
        "sys.exit(run_command(sys.argv[1:], False))\n"
    )
    out = tmp_path / "hybrid"
    command = [
        sys.executable,
        "-c",
        script,
        "merge",
        made[0],
        made[1],
        "--layers",
        "1",
        "--out",
        str(out),
        "--json",
    ]
    for delay in (0.15, 0.4):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        deadline = time.monotonic() + 20
        while not list(tmp_path.glob(".hybrid.partial/*")) and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not out.exists()
        assert [p.name for p in tmp_path.glob(".hybrid.partial")] == [".hybrid.partial"]
    run_merge(plan_layers(open_checkpoint(made[0]), open_checkpoint(made[1]), "1"), out)
    assert not list(tmp_path.glob(".hybrid.partial"))
    assert {k for k, v in values(out).items() if v == 2} == {
        k for k in values(out) if k.startswith("text.layers.1.")
    }


def test_comparing_spans_more_than_one_stride(tmp_path, monkeypatch):
    monkeypatch.setattr(merge_verify, "STRIDE", 64)
    made = random_pair(tmp_path)
    assert run_merge(plan(made, MIDDLE), tmp_path / "hybrid")
