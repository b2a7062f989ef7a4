"""The door for checkpoints, attacked: whatever a folder holds is opened soundly or refused with a
reason.

`FIXED` are single changes of a sound checkpoint, each of which was once read as sound, ended in a
traceback or hung; the strategies make more of their kinds. Nothing but FrankenError may be raised,
and what is accepted must be what safetensors itself reads, shape for shape.
"""

import json
import math
import os
import shutil
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from franken.checkpoints import open_checkpoint
from franken.diff.plan import plan_diff
from franken.errors import FrankenError
from franken.evaluate.source import Source
from franken.merge.options import recipe_from_options
from franken.merge.plan import open_all, plan_merge
from franken.models.tiny import save_tiny
from franken.probe.plan import plan_probe

EXAMPLES = int(os.environ.get("FRANKEN_FUZZ", "60"))  # `make fuzz` raises it
FUZZ = settings(
    max_examples=EXAMPLES, deadline=10_000, suppress_health_check=list(HealthCheck), database=None
)
UP, NORM = "model.layers.1.mlp.up_proj.weight", "model.norm.weight"
Q, EMBED = "model.layers.0.self_attn.q_proj.weight", "model.embed_tokens.weight"


class Folder:
    """A checkpoint that can be taken apart: its header as a dictionary, its data, its config."""

    def __init__(self, path: Path) -> None:
        self.path, self.file = path, path / "model.safetensors"
        whole = self.file.read_bytes()
        length = struct.unpack("<Q", whole[:8])[0]
        self.header, self.data = json.loads(whole[8 : 8 + length]), whole[8 + length :]
        self.config = json.loads((path / "config.json").read_text())

    def write(self, header: bytes | None = None, data: bytes | None = None, length=None) -> None:
        text = json.dumps(self.header).encode() if header is None else header
        size = struct.pack("<Q", len(text) if length is None else length % 2**64)
        self.file.write_bytes(size + text + (self.data if data is None else data))
        (self.path / "config.json").write_text(json.dumps(self.config))


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    root = tmp_path_factory.mktemp("originals")
    save_tiny(root / "one", "qwen2")
    save_tiny(root / "other", "qwen2", 1)
    save_tiny(root / "shards", "qwen2", max_shard_size="30KB")
    return root


@pytest.fixture
def folder(originals, tmp_path):
    shutil.copytree(originals / "one", tmp_path / "attacked")
    return Folder(tmp_path / "attacked")


@pytest.fixture
def fresh(originals, tmp_path_factory):
    """A sound checkpoint again and again, for each example of a strategy."""

    def make():
        path = tmp_path_factory.mktemp("fuzz") / "attacked"
        shutil.copytree(originals / "one", path)
        return Folder(path)

    return make


def accepted_or_refused(call, *arguments):
    """What `call` returns; None where it raised a FrankenError that says what and why."""
    try:
        return call(*arguments)
    except FrankenError as e:
        complete = bool(e.what and e.why)
    assert complete
    return None


def merged(base: Path, donor: Path) -> None:
    recipe = recipe_from_options([str(base), str(donor)], layers="0-2", allow="dtype")
    plan_merge(recipe, open_all(recipe))


VERBS = {  # what each does with a checkpoint before it touches a byte
    "diff": lambda attacked, sound: plan_diff((attacked, sound)),
    "diff, reversed": lambda attacked, sound: plan_diff((sound, attacked)),
    "merge into": merged,
    "merge from": lambda attacked, sound: merged(sound, attacked),
    "probe": lambda attacked, _: plan_probe(
        str(attacked), methods=["zero"], task_names=["read"], samples=1
    ),
    "eval": lambda attacked, _: Source(str(attacked), "cpu", "auto").identity(),
}


def every_verb(attacked: Path, sound: Path) -> None:
    """Raises what the first verb does that refuses."""
    for verb in VERBS.values():
        verb(attacked, sound)


def refused(attacked: Path, sound: Path) -> None:
    """Every verb gives the same error; it must say what, why and how to fix it."""
    told = set()
    for name, verb in VERBS.items():
        with pytest.raises(FrankenError) as caught:
            verb(attacked, sound)
        assert caught.value.why, name
        assert caught.value.fix, name
        told.add(caught.value.what)
    assert len(told) == 1  # one door


def of(name, **changes):
    return lambda f: f.header[name].update(changes)


def shape(name, change):
    return lambda f: f.header[name].update(shape=change(f.header[name]["shape"]))


def shift(f):
    f.header[UP]["data_offsets"] = [at + 4 for at in f.header[UP]["data_offsets"]]


def rename(old, new):
    return lambda f: f.header.update({new: f.header.pop(old)})


def twin(f):  # layers.03 beside layers.3
    f.header["model.layers.01.mlp.up_proj.weight"] = dict(
        f.header[UP], data_offsets=[len(f.data), len(f.data) + 48 * 32 * 4]
    )
    f.data += f.data[: 48 * 32 * 4]


def set_config(**changes):
    return lambda f: f.config.update(changes)


FIXED = {
    "permuted": shape(UP, lambda s: s[::-1]),
    "permuted attention": shape("model.layers.0.self_attn.k_proj.weight", lambda s: s[::-1]),
    "permuted embedding": shape(EMBED, lambda s: s[::-1]),
    "flattened": shape(UP, lambda s: [s[0] * s[1]]),
    "flattened in every layer": lambda f: [
        i.update(shape=[48 * 32]) for n, i in f.header.items() if n.endswith("up_proj.weight")
    ],
    "one axis more": shape(NORM, lambda s: [1, *s]),
    "negative": shape(UP, lambda s: [-s[0], -s[1]]),
    "a negative axis": shape(UP, lambda s: [-s[0], s[1]]),
    "wraps in 64 bits": of(UP, shape=[2**32, 2**32]),
    "wraps to its size": of(UP, shape=[2**63, 2, 48 * 32]),
    "zero times too much": of(UP, shape=[0, 2**62, 2**62]),
    "true as an axis": of(UP, shape=[True, 48 * 32]),
    "a float as an axis": of(UP, shape=[48.0, 32]),
    "a text as a shape": of(UP, shape="48x32"),
    "a list as a type": of(UP, dtype=["F32"]),
    "an unknown type": of(UP, dtype="F31"),
    "a type of the same size": of(UP, dtype="F64"),
    "an unknown field": of(UP, stride=[1, 2]),
    "a missing field": lambda f: f.header[UP].pop("dtype"),
    "a list instead of a tensor": lambda f: f.header.update({UP: [1, 2]}),
    "nothing instead of a tensor": lambda f: f.header.update({UP: None}),
    "one offset": of(UP, data_offsets=[0]),
    "three offsets": of(UP, data_offsets=[0, 6144, 6144]),
    "negative offsets": of(UP, data_offsets=[-6144, 0]),
    "offsets that run back": of(UP, data_offsets=[6144, 0]),
    "offsets past the end": of(UP, data_offsets=[2**62, 2**62 + 6144]),
    "offsets as texts": of(UP, data_offsets=["0", "6144"]),
    "shifted": shift,
    "overlapping": lambda f: f.header[UP].update(data_offsets=f.header[Q]["data_offsets"]),
    "a hole": lambda f: f.header.pop(UP),
    "metadata of numbers": lambda f: f.header.update(__metadata__={"format": 1}),
    "metadata as a list": lambda f: f.header.update(__metadata__=["pt"]),
    "a layer in two digits": rename(UP, "model.layers.01.mlp.up_proj.weight"),
    "a layer in other digits": rename(UP, "model.layers.١.mlp.up_proj.weight"),
    "a layer twice": twin,
    "a layer too many": rename(UP, "model.layers.7.mlp.up_proj.weight"),
    "a layer without end": rename(UP, f"model.layers.{10**30}.mlp.up_proj.weight"),
    "a negative layer": rename(UP, "model.layers.-1.mlp.up_proj.weight"),
    "another spelling of one that is there": lambda f: f.header.update(
        {"model.language_model.norm.weight": f.header[NORM]}
    ),
    "no name": rename(UP, ""),
    "a name with a NUL": rename(UP, UP + "\0"),
    "half a surrogate": rename(UP, UP + "\ud800"),
    "a name without end": rename(UP, "model.layers.1.mlp." + "x" * 100_000),
    "fewer layers than the config": set_config(num_hidden_layers=5),
    "more layers than the config": set_config(num_hidden_layers=2),
    "no layers": set_config(num_hidden_layers=0),
    "layers as a text": set_config(num_hidden_layers="3"),
    "layers without end": set_config(num_hidden_layers=10**18),
    "a list as a model type": set_config(model_type=["qwen2"]),
    "a number as a model type": set_config(model_type=7),
    "no model type": lambda f: f.config.pop("model_type"),
    "an unknown model type": set_config(model_type="qwen99"),
    "a list as text_config": set_config(text_config=[1]),
    "a text as vision_config": set_config(vision_config="x"),
    "a number as rope": set_config(rope_parameters=1e6),
    "tied as a text": set_config(tie_word_embeddings="yes"),
    "hidden size as a list": set_config(hidden_size=[32]),
    "other weights": set_config(transformers_weights="other.safetensors"),
}


@pytest.mark.parametrize("name", FIXED)
def test_single_changes_are_refused(folder, originals, name):
    FIXED[name](folder)
    folder.write()
    refused(folder.path, originals / "other")


def _header(f):
    return json.dumps(f.header).encode()


RAW = {
    "a header one byte short": lambda f: f.write(_header(f) + b" ", length=len(_header(f))),
    "a header one byte long": lambda f: f.write(length=len(_header(f)) + 1),
    "a header cut in the middle": lambda f: f.write(length=len(_header(f)) // 2),
    "a header of nearly all memory": lambda f: f.write(length=-1),
    "a header longer than the file": lambda f: f.write(length=10**9),
    "a byte too many": lambda f: f.write(data=f.data + b"\0"),
    "a byte too few": lambda f: f.write(data=f.data[:-1]),
    "no data": lambda f: f.write(data=b""),
    "a key twice": lambda f: f.write(
        _header(f)[:-1] + b", " + json.dumps({NORM: f.header[NORM]}).encode()[1:]
    ),
    "a field twice": lambda f: f.write(_header(f).replace(b'"dtype"', b'"dtype": "F16", "dtype"')),
    "spaces before the header": lambda f: f.write(b"  " + _header(f)),
    "a list as header": lambda f: f.write(b"[1, 2]"),
    "a number as header": lambda f: f.write(b"7"),
    "no header": lambda f: f.write(b""),
    "lists without end": lambda f: f.write(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "objects without end": lambda f: f.write(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "a number without end": lambda f: f.write(b'{"a": ' + b"9" * 100_000 + b"}"),
    "no UTF-8": lambda f: f.write(_header(f).replace(b"norm", b"n\xffrm")),
    "no number": lambda f: f.write(_header(f).replace(b"[32]", b"[NaN]")),
    "an empty file": lambda f: f.file.write_bytes(b""),
    "seven bytes": lambda f: f.file.write_bytes(b"1234567"),
    "another format": lambda f: f.file.write_bytes(b"PK\x03\x04" + b"\0" * 1000),
    "config: a list": lambda f: (f.path / "config.json").write_text("[]"),
    "config: nothing": lambda f: (f.path / "config.json").write_text(""),
    "config: null": lambda f: (f.path / "config.json").write_text("null"),
    "config: too deep": lambda f: (f.path / "config.json").write_text("[" * 9999 + "]" * 9999),
    "config: deep": lambda f: (f.path / "config.json").write_text(
        '{"model_type": "qwen2", "a": ' + "[" * 500 + "]" * 500 + "}"
    ),
    "config: infinite": lambda f: (f.path / "config.json").write_text(
        '{"model_type": "qwen2", "rope_theta": 1e999}'
    ),
    "config: NaN": lambda f: (f.path / "config.json").write_text(
        '{"model_type": "qwen2", "rope_theta": NaN}'
    ),
    "config: latin-1": lambda f: (f.path / "config.json").write_bytes(b'{"model_type": "\xe9"}'),
    "config: a folder": lambda f: (
        (f.path / "config.json").unlink(),
        (f.path / "config.json").mkdir(),
    ),
    "an adapter beside the model": lambda f: (f.path / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "base_model_name_or_path": "x"}'
    ),
    "weights as a folder": lambda f: (f.file.unlink(), f.file.mkdir()),
    "weights as a pipe": lambda f: (f.file.unlink(), os.mkfifo(f.file)),
    "weights as a device": lambda f: (f.file.unlink(), f.file.symlink_to("/dev/zero")),
    "config as a pipe": lambda f: (
        (f.path / "config.json").unlink(),
        os.mkfifo(f.path / "config.json"),
    ),
    "weights elsewhere": lambda f: (
        f.file.rename(f.path.parent / "elsewhere.safetensors"),
        f.file.symlink_to(f.path.parent / "elsewhere.safetensors"),
    ),
    "a link to nowhere": lambda f: (f.file.unlink(), f.file.symlink_to(f.path / "nowhere")),
    "a link to itself": lambda f: (f.file.unlink(), f.file.symlink_to(f.file)),
}


@pytest.mark.parametrize("name", RAW)
def test_broken_files_are_refused(folder, originals, name):
    RAW[name](folder)
    refused(folder.path, originals / "other")


def _index(path: Path, change) -> None:
    file = path / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    file.write_text(json.dumps(change(index) or index))


def _first(path: Path) -> Path:
    return sorted(path.glob("model-*.safetensors"))[0]


def _through_a_link(path: Path) -> None:
    shard = _first(path)
    (path.parent / "outside").mkdir()
    shard.rename(path.parent / "outside" / shard.name)
    shard.symlink_to(path.parent / "outside" / shard.name)


def _through_a_folder(path: Path) -> None:
    (path.parent / "outside").mkdir()
    shutil.move(_first(path), path.parent / "outside" / "a.safetensors")
    (path / "in").symlink_to(path.parent / "outside")
    _index(
        path,
        lambda i: i["weight_map"].update(
            {n: "in/a.safetensors" for n, s in i["weight_map"].items() if "00001-" in s}
        ),
    )


SHARDS = {
    "a shard through a link": _through_a_link,
    "a shard through a linked folder": _through_a_folder,
    "a shard as a pipe": lambda p: (s := _first(p), s.unlink(), os.mkfifo(s)),
    "a missing shard": lambda p: _first(p).unlink(),
    "one file beside the shards": lambda p: shutil.copy(
        p.parent / "originals" / "model.safetensors", p
    ),
    "no map": lambda p: _index(p, lambda i: {"metadata": {}}),
    "a list as map": lambda p: _index(p, lambda i: {"weight_map": [1]}),
    "an empty map": lambda p: _index(p, lambda i: {"weight_map": {}}),
    "numbers as shards": lambda p: _index(p, lambda i: {"weight_map": {UP: 1}}),
    "lists as shards": lambda p: _index(p, lambda i: {"weight_map": {UP: ["a"]}}),
    "an index as a list": lambda p: (p / "model.safetensors.index.json").write_text("[]"),
    "an absolute path": lambda p: _index(
        p, lambda i: {"weight_map": dict.fromkeys(i["weight_map"], "/etc/passwd")}
    ),
    "the folder above": lambda p: _index(
        p, lambda i: {"weight_map": dict.fromkeys(i["weight_map"], "..")}
    ),
    "no name": lambda p: _index(p, lambda i: {"weight_map": dict.fromkeys(i["weight_map"], "")}),
    "a NUL": lambda p: _index(p, lambda i: {"weight_map": dict.fromkeys(i["weight_map"], "a\0")}),
    "a name too long": lambda p: _index(
        p, lambda i: {"weight_map": dict.fromkeys(i["weight_map"], "a" * 5000)}
    ),
    "a tensor in the wrong shard": lambda p: _index(
        p, lambda i: i["weight_map"].update({NORM: _first(p).name})
    ),
    "a tensor that no shard holds": lambda p: _index(
        p, lambda i: i["weight_map"].update({"model.layers.0.more": _first(p).name})
    ),
    "a tensor that is not listed": lambda p: _index(p, lambda i: i["weight_map"].pop(NORM) and i),
}


@pytest.mark.parametrize("name", SHARDS)
def test_broken_indexes_are_refused(originals, tmp_path, name):
    shutil.copytree(originals / "shards", tmp_path / "attacked")
    (tmp_path / "originals").symlink_to(originals / "one")
    SHARDS[name](tmp_path / "attacked")
    refused(tmp_path / "attacked", originals / "other")


def test_links_inside_the_folder_and_in_the_hub_cache_are_read(originals, tmp_path):
    cache = tmp_path / "models--a--b"
    shutil.copytree(originals / "one", cache / "snapshots" / "0123")
    (cache / "blobs").mkdir()
    for file in list((cache / "snapshots" / "0123").iterdir()):
        file.rename(cache / "blobs" / f"hash-of-{file.name}")
        file.symlink_to(f"../../blobs/hash-of-{file.name}")
    assert open_checkpoint(cache / "snapshots" / "0123").tensors
    shutil.copytree(originals / "one", tmp_path / "plain")
    (tmp_path / "plain" / "model.safetensors").rename(tmp_path / "plain" / "weights")
    (tmp_path / "plain" / "model.safetensors").symlink_to("weights")
    (tmp_path / "linked").symlink_to(tmp_path / "plain")
    assert open_checkpoint(tmp_path / "linked").tensors


def test_a_donor_that_is_wrong_where_nothing_is_taken_is_refused(tmp_path):
    for name in ("base", "donor"):
        save_tiny(tmp_path / name, "qwen2_5_vl")
    donor = Folder(tmp_path / "donor")
    (patches,) = [name for name in donor.header if "patch_embed" in name]
    shape(patches, lambda s: [math.prod(s)])(donor)
    donor.write()
    for pair in (("base", "donor"), ("donor", "base")):
        with pytest.raises(FrankenError, match="contradict each other"):
            merged(*(tmp_path / name for name in pair))


@pytest.mark.parametrize("name", [".hybrid.partial", ".final", ".step-00000040", ".step-1.gone"])
def test_what_is_being_written_is_not_opened(originals, tmp_path, name):
    shutil.copytree(originals / "one", tmp_path / name)
    refused(tmp_path / name, originals / "other")
    assert open_checkpoint(tmp_path / name, finished=False).tensors


NUMBERS = st.one_of(
    st.integers(-3, 5000), st.sampled_from([2**31, 2**32, 2**63 - 1, 2**63, 2**64, 10**30])
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def check_against_safetensors(path: Path) -> None:
    """What is opened is what the library opens, with the same names and shapes."""
    opened = accepted_or_refused(open_checkpoint, path)
    if opened is None:
        return
    with safe_open(path / "model.safetensors", "numpy") as library:
        names = library.keys()
        shapes = {name: tuple(library.get_slice(name).get_shape()) for name in names}
    assert shapes == {entry.name: entry.shape for entry in opened.tensors.values()}


@FUZZ
@given(data=st.data())
def test_any_change_of_a_header_is_refused_or_read_as_safetensors_does(fresh, data):
    folder = fresh()
    for _ in range(data.draw(st.integers(1, 2))):
        name = data.draw(st.sampled_from(sorted(folder.header)))
        field = data.draw(st.sampled_from(["dtype", "shape", "data_offsets", "more", ""]))
        value = data.draw(st.one_of(VALUES, st.lists(NUMBERS, max_size=4)))
        if field and isinstance(folder.header[name], dict):
            folder.header[name] = {**folder.header[name], field: value}
        else:
            folder.header[name] = value
    folder.write()
    check_against_safetensors(folder.path)


@FUZZ
@given(at=st.integers(0, 4000), byte=st.integers(0, 255), count=st.integers(1, 3))
def test_any_bytes_in_a_header_are_refused_or_read_as_safetensors_does(fresh, at, byte, count):
    folder = fresh()
    whole = bytearray(folder.file.read_bytes())
    whole[at : at + count] = bytes([byte]) * count
    folder.file.write_bytes(whole)
    check_against_safetensors(folder.path)


@FUZZ
@given(data=st.data())
def test_any_config_is_refused_or_read(originals, fresh, data):
    folder = fresh()
    for _ in range(data.draw(st.integers(1, 3))):
        key = data.draw(st.one_of(st.sampled_from(sorted(folder.config)), st.text(max_size=20)))
        folder.config[key] = data.draw(VALUES)
    folder.write()
    accepted_or_refused(every_verb, folder.path, originals / "other")


@FUZZ
@given(content=VALUES, name=st.sampled_from(["weight_map", "metadata"]))
def test_any_index_is_refused_or_read(originals, tmp_path_factory, content, name):
    path = tmp_path_factory.mktemp("index") / "attacked"
    shutil.copytree(originals / "shards", path)
    _index(path, lambda i: {**i, name: content})
    accepted_or_refused(open_checkpoint, path)
