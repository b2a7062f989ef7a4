"""Checkpoints: a sound creature with one thing changed, against diff, merge, probe and eval.

Every change of a header, index or configuration makes a checkpoint that must be refused by all of
them; changes of what lies beside the weights are refused by the verbs that load a model, or read.
Which tensor and which numbers are changed is drawn.
"""

import json
import math
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from attacks.harness import Case, Words

from franken.models.creature import creature_path

SINGLE, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
BIG = (2**31, 2**32 + 1, 2**63 - 1, 2**63, 2**64, 10**30)
ODD = (None, True, -1, 1.5, "x", [], [1], {}, {"a": 1}, 10**30, "\0", float("1e308"))
VERBS = {
    "diff": "diff creature:base {0} --no-figures --out runs",
    "diff, reversed": "diff {0} creature:base --no-figures --out runs",
    "merge into": "merge {0} creature:base --layers 2-4 --out hybrid",
    "merge from": "merge creature:base {0} --layers 2-4 --out hybrid",
    "probe": "probe {0} --method zero --tasks read --samples 1 --layers 0-1 --no-figures",
    "eval": "eval {0} --tasks read --samples 1 --n 1 --k 1 --max-new-tokens 2 --no-compare",
}
LOADING = ("probe", "eval")


class Parts:
    """A copy of a sound checkpoint, taken apart: header, data and configuration."""

    def __init__(self, path: Path, rng: Random) -> None:
        self.path, self.rng = path, rng
        whole = (path / SINGLE).read_bytes()
        length = struct.unpack("<Q", whole[:8])[0]
        self.header, self.data = json.loads(whole[8 : 8 + length]), whole[8 + length :]
        self.header.pop("__metadata__", None)
        self.config = json.loads((path / CONFIG).read_text())

    def tensor(self, containing: str = "") -> str:
        """A tensor of the decoder or the tower, drawn."""
        return self.rng.choice([n for n in sorted(self.header) if containing in n])

    def matrix(self) -> str:
        """A matrix of a layer that is not square."""
        shapes = {n: i["shape"] for n, i in self.header.items()}
        names = [n for n, s in shapes.items() if len(s) == 2 and s[0] != s[1] and ".layers." in n]
        return self.rng.choice(sorted(names))

    def text(self) -> bytes:
        """The header as JSON."""
        return json.dumps(self.header).encode()

    def write(
        self, header: bytes | None = None, data: bytes | None = None, length: int | None = None
    ) -> None:
        """Put it together again, with another header, data or stated length."""
        text = self.text() if header is None else header
        size = struct.pack("<Q", (len(text) if length is None else length) % 2**64)
        (self.path / SINGLE).write_bytes(size + text + (self.data if data is None else data))
        (self.path / CONFIG).write_text(json.dumps(self.config))


Change = Callable[[Parts], object]


def cases(seed: int) -> Iterator[Case]:
    """All of them, drawn anew by `seed`."""
    for kind, change in {**HEADERS, **BYTES}.items():
        draws = 12 if kind.startswith("any") else 3 if kind in DRAWN else 1
        for verb in VERBS:
            for draw in range(draws):
                yield _case(kind, change, verb, f"{seed}/{kind}/{verb}/{draw}")
    for kind, change in CONFIGS.items():
        for verb in VERBS:
            yield _case(kind, change, verb, f"{seed}/{kind}/{verb}")
    for kind, change in SHARDED.items():
        for verb in VERBS:
            yield _case(kind, change, verb, f"{seed}/{kind}/{verb}", shards=True)
    for kind, change in BESIDE.items():
        for verb in LOADING:
            yield _case(kind, change, verb, f"{seed}/{kind}/{verb}", expected="any")
    for number in range(60):
        verb = sorted(VERBS)[number % len(VERBS)]
        yield _case(f"random bytes {number}", _random_bytes, verb, f"{seed}/bytes/{number}")


def _case(kind, change, verb, seed, *, shards=False, expected="refused") -> Case:
    def prepare(folder: Path) -> Words:
        path = folder / "attacked"
        shutil.copytree(creature_path("sft"), path)
        if shards:
            split(path)
            change(Shards(path, Random(seed)))
        else:
            parts = Parts(path, Random(seed))
            change(parts)
        return VERBS[verb].format(path).split()

    return Case("checkpoints", f"{kind} × {verb} ({seed.rpartition('/')[2]})", prepare, expected)


def _of(field: str, value: Callable[[Parts, list[int]], object]) -> Change:
    """Change a field of a drawn tensor's entry."""

    def change(p: Parts) -> None:
        info = p.header[p.matrix()]
        info[field] = value(p, list(info[field]) if isinstance(info[field], list) else info[field])
        p.write()

    return change


def _any_shape(value: Callable[[list[int]], list[int]]) -> Change:
    """Change the shape of any tensor that the change makes another of."""

    def change(p: Parts) -> None:
        shapes = {n: i["shape"] for n, i in p.header.items()}
        names = [n for n in sorted(shapes) if value(shapes[n]) != shapes[n]]
        info = p.header[p.rng.choice(names)]
        info["shape"] = value(info["shape"])
        p.write()

    return change


def _rename(new: Callable[[Parts, str], str]) -> Change:
    def change(p: Parts) -> None:
        name = p.matrix()
        p.header[new(p, name)] = p.header.pop(name)
        p.write()

    return change


def _overlap(p: Parts) -> None:
    a, b = p.rng.sample([n for n in sorted(p.header) if n.endswith("up_proj.weight")][:8], 2)
    p.header[a]["data_offsets"] = p.header[b]["data_offsets"]
    p.write()


def _shift(p: Parts) -> None:
    info, by = p.header[p.tensor(".layers.")], p.rng.choice([-8, -4, -1, 1, 4, 8])
    info["data_offsets"] = [at + by for at in info["data_offsets"]]
    p.write()


def _shift_all(p: Parts) -> None:
    for info in p.header.values():
        info["data_offsets"] = [at + 4 for at in info["data_offsets"]]
    p.write(data=p.data + b"\0\0\0\0")


def _swap_shapes(p: Parts) -> None:
    for info in p.header.values():
        if len(info["shape"]) == 2 and info["shape"][0] == 3 * info["shape"][1]:
            info["shape"] = info["shape"][::-1]
    p.write()


def _twin(p: Parts) -> None:
    name = p.tensor("layers.3.")
    start, stop = p.header[name]["data_offsets"]
    other = name.replace("layers.3.", p.rng.choice(["layers.03.", "layers.٣.", "layers.3_."]))
    size = len(p.data)
    p.header[other] = {**p.header[name], "data_offsets": [size, size + stop - start]}
    p.write(data=p.data + p.data[start:stop])


def _one_layer_less(p: Parts) -> None:
    kept = {n: i for n, i in p.header.items() if ".layers.5." not in n}
    data, at = b"", 0
    for info in sorted(kept.values(), key=lambda i: i["data_offsets"]):
        start, stop = info["data_offsets"]
        data += p.data[start:stop]
        info["data_offsets"] = [at, at + stop - start]
        at += stop - start
    p.header = kept
    p.write(data=data)


def _key_twice(p: Parts) -> None:
    name = p.tensor()
    again = json.dumps({name: p.header[p.tensor()]}).encode()[1:]
    p.write(p.text()[:-1] + b", " + again)


def _axes(p: Parts, s: list[int]) -> list[int]:
    huge = p.rng.choice(BIG)
    return p.rng.choice([[huge, huge], [0, huge], [huge, 0, huge], [2**32, 2**32, *s]])


OTHER_DIGITS = ("٠١٢٣٤٥٦٧٨٩", "०१२३४५६७८९", "０１２３４５６７８９")


def _digits(p: Parts, name: str) -> str:
    digits = p.rng.choice(OTHER_DIGITS)
    head, _, tail = name.partition(".layers.")
    return f"{head}.layers.{digits[int(tail[0])]}{tail[1:]}"


HEADERS: dict[str, Change] = {
    "shape permuted": _of("shape", lambda p, s: s[::-1]),
    "shape flattened": _of("shape", lambda p, s: [s[0] * s[1]]),
    "shape with one axis more": _of("shape", lambda p, s: [1, *s]),
    "shape with another split": _of("shape", lambda p, s: [s[0] * 2, s[1] // 2]),
    "shape negative": _of("shape", lambda p, s: [-s[0], -s[1]]),
    "shape with a negative axis": _of("shape", lambda p, s: [s[0], -s[1]]),
    "any shape permuted": _any_shape(lambda s: s[::-1]),
    "any shape flattened": _any_shape(lambda s: [math.prod(s)]),
    "any shape with one axis more": _any_shape(lambda s: [*s, 1]),
    "shape off by one": _of("shape", lambda p, s: [s[0] + p.rng.choice([-1, 1]), s[1]]),
    "shape that wraps": _of("shape", _axes),
    "shape of odd values": _of("shape", lambda p, s: [p.rng.choice(ODD[:7]), s[1]]),
    "shape that is none": _of("shape", lambda p, s: p.rng.choice(ODD)),
    "all matrices turned": _swap_shapes,
    "dtype unknown": _of("dtype", lambda p, s: p.rng.choice(["F31", "f32", "F32 ", "", "BF8"])),
    "dtype of another size": _of("dtype", lambda p, s: p.rng.choice(["F64", "BF16", "I8", "F4"])),
    "dtype that is none": _of("dtype", lambda p, s: p.rng.choice(ODD)),
    "offsets that are none": _of("data_offsets", lambda p, s: p.rng.choice(ODD)),
    "offsets reversed": _of("data_offsets", lambda p, s: s[::-1]),
    "offsets negative": _of("data_offsets", lambda p, s: [-x - 1 for x in s]),
    "offsets huge": _of("data_offsets", lambda p, s: [x + p.rng.choice(BIG) for x in s]),
    "offsets of floats": _of("data_offsets", lambda p, s: [float(x) for x in s]),
    "offsets too many": _of("data_offsets", lambda p, s: [*s, s[-1]]),
    "overlapping": _overlap,
    "shifted": _shift,
    "all shifted": _shift_all,
    "a hole": lambda p: (p.header.pop(p.tensor(".layers.")), p.write()),
    "an entry that is none": lambda p: (
        p.header.update({p.tensor(): p.rng.choice(ODD)}),
        p.write(),
    ),
    "an unknown field": lambda p: (p.header[p.tensor()].update(stride=[1]), p.write()),
    "a field missing": lambda p: (
        p.header[p.tensor()].pop(p.rng.choice(["dtype", "shape", "data_offsets"])),
        p.write(),
    ),
    "a key twice": _key_twice,
    "a layer twice": _twin,
    "a layer missing": _one_layer_less,
    "a layer in other digits": _rename(_digits),
    "a layer with zeros": _rename(lambda p, n: n.replace(".layers.", ".layers.0")),
    "a layer too far": _rename(lambda p, n: n.replace(".layers.", ".layers.9")),
    "a layer with a sign": _rename(lambda p, n: n.replace(".layers.", ".layers.-")),
    "a layer without end": _rename(lambda p, n: n.replace(".layers.", ".layers." + "9" * 400)),
    "a name with a NUL": _rename(lambda p, n: n + "\0"),
    "a name with a line": _rename(lambda p, n: n + "\nmodel.norm.weight"),
    "a name without end": _rename(lambda p, n: n + "x" * 10**6),
    "half a surrogate": _rename(lambda p, n: n + "\udc80"),
    "metadata of numbers": lambda p: (p.header.update(__metadata__={"a": 1}), p.write()),
    "metadata as a list": lambda p: (p.header.update(__metadata__=[1]), p.write()),
}


def _replaced_by(make: Callable[[Path], object]) -> Change:
    def change(p: Parts) -> None:
        (p.path / SINGLE).unlink()
        make(p.path / SINGLE)

    return change


def _outside(file: Path) -> None:
    shutil.copy(creature_path("sft") / SINGLE, file.parents[1] / "elsewhere.safetensors")
    file.symlink_to(file.parents[1] / "elsewhere.safetensors")


def _hardly_memory(p: Parts) -> None:
    """A header that is 31 MB of names: memory and time must stay bounded."""
    many = {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(300_000)}
    p.header = {**many, **p.header}
    p.write()


BYTES: dict[str, Change] = {
    "a header one byte short": lambda p: p.write(p.text() + b" ", length=len(p.text())),
    "a header one byte long": lambda p: p.write(length=len(p.text()) + 1),
    "a header cut": lambda p: p.write(length=p.rng.randrange(1, len(p.text()))),
    "a header of all memory": lambda p: p.write(length=p.rng.choice([-1, 2**62, 2**40])),
    "a header longer than the file": lambda p: p.write(length=10**8),
    "bytes too many": lambda p: p.write(data=p.data + b"\0" * p.rng.randrange(1, 9)),
    "bytes too few": lambda p: p.write(data=p.data[: -p.rng.randrange(1, 9)]),
    "half the data": lambda p: p.write(data=p.data[: len(p.data) // 2]),
    "a field twice": lambda p: p.write(p.text().replace(b'"dtype"', b'"dtype": "F16", "dtype"')),
    "spaces before": lambda p: p.write(b" " * p.rng.randrange(1, 9) + p.text()),
    "bytes behind": lambda p: p.write(p.text() + b"{}"),
    "a list": lambda p: p.write(b"[]"),
    "lists without end": lambda p: p.write(b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"),
    "a number without end": lambda p: p.write(b'{"a": ' + b"9" * 200_000 + b"}"),
    "no UTF-8": lambda p: p.write(p.text().replace(b"norm", b"n\xffrm")),
    "another format": _replaced_by(lambda f: f.write_bytes(b"PK\3\4" + bytes(10**4))),
    "empty": _replaced_by(lambda f: f.write_bytes(b"")),
    "a pipe": _replaced_by(os.mkfifo),
    "a device": _replaced_by(lambda f: f.symlink_to("/dev/zero")),
    "an endless device": _replaced_by(lambda f: f.symlink_to("/dev/urandom")),
    "a folder": _replaced_by(lambda f: f.mkdir()),
    "a link outside": _replaced_by(_outside),
    "a link to itself": _replaced_by(lambda f: f.symlink_to(f)),
    "a link to nothing": _replaced_by(lambda f: f.symlink_to("nothing")),
    "a file of the kernel": _replaced_by(lambda f: f.symlink_to("/proc/self/maps")),
    "a header of many names": _hardly_memory,
}
DRAWN = {
    *("shape that wraps", "shape of odd values", "shape that is none", "dtype unknown", "shifted"),
    *("dtype of another size", "dtype that is none", "offsets that are none", "overlapping"),
    *("an entry that is none", "a key twice", "a layer twice", "a layer in other digits"),
    *("any shape permuted", "any shape flattened", "any shape with one axis more"),
    *("a header cut", "shape permuted", "shape flattened"),
}


def _random_bytes(p: Parts) -> None:
    """Bytes of the header overwritten. What still says the same is changed further."""
    text, before = bytearray(p.text()), json.loads(p.text())
    while True:
        at = p.rng.randrange(len(text))
        text[at] = p.rng.randrange(256)
        try:
            if _same_but_names(json.loads(bytes(text)), before):
                continue
        except ValueError:
            pass
        break
    p.write(bytes(text))


def _same_but_names(one: object, other: dict[str, object]) -> bool:
    """A tensor under another name may be another tensor, which diff lists."""
    if not isinstance(one, dict) or len(one) != len(other):
        return False
    infos = [json.dumps(v, sort_keys=True) for v in one.values()]
    return sorted(infos) == sorted(json.dumps(v, sort_keys=True) for v in other.values())


def _config(*path: str, value: Callable[[Parts], object]) -> Change:
    def change(p: Parts) -> None:
        place = p.config
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = value(p)
        p.write()

    return change


def _config_text(text: bytes) -> Change:
    return lambda p: (p.path / CONFIG).write_bytes(text)


def _config_as(make: Callable[[Path], object]) -> Change:
    return lambda p: ((p.path / CONFIG).unlink(), make(p.path / CONFIG))


def _adapter(p: Parts) -> None:
    said = {"peft_type": "LORA", "base_model_name_or_path": "x", "r": 1, "lora_alpha": 1}
    (p.path / "adapter_config.json").write_text(json.dumps(said))


LAYERS = ("text_config", "num_hidden_layers")
CONFIGS: dict[str, Change] = {
    "config: layers too few": _config(*LAYERS, value=lambda p: p.rng.randrange(1, 8)),
    "config: layers too many": _config(*LAYERS, value=lambda p: p.rng.randrange(9, 99)),
    "config: layers without end": _config(*LAYERS, value=lambda p: p.rng.choice(BIG)),
    "config: layers of odd kind": _config(*LAYERS, value=lambda p: p.rng.choice(["8", [8], 8.5])),
    "config: no layers": _config(*LAYERS, value=lambda p: 0),
    "config: tower too deep": _config("vision_config", "depth", value=lambda p: 3),
    "config: tower of odd depth": _config("vision_config", "depth", value=lambda p: "2"),
    "config: heads as text": _config("text_config", "num_attention_heads", value=lambda p: "3"),
    "config: width as list": _config("text_config", "hidden_size", value=lambda p: [96]),
    "config: negative vocabulary": _config("text_config", "vocab_size", value=lambda p: -1),
    "config: model type a list": _config("model_type", value=lambda p: ["qwen2_5_vl"]),
    "config: model type a number": _config("model_type", value=lambda p: 1),
    "config: model type unknown": _config("model_type", value=lambda p: "qwen2_6_vl"),
    "config: model type without end": _config("model_type", value=lambda p: "q" * 10**5),
    "config: text a list": _config("text_config", value=lambda p: [1]),
    "config: vision a text": _config("vision_config", value=lambda p: "x"),
    "config: rope a number": _config("text_config", "rope_parameters", value=lambda p: 5),
    "config: tied as text": _config("tie_word_embeddings", value=lambda p: "true"),
    "config: other weights": _config("transformers_weights", value=lambda p: "../x.safetensors"),
    "config: empty": _config_text(b""),
    "config: null": _config_text(b"null"),
    "config: a list": _config_text(b"[{}]"),
    "config: cut": _config_text(b'{"model_type": "qwen2_5_vl", '),
    "config: deep": _config_text(b"[" * 10**5),
    "config: latin-1": _config_text('{"model_type": "é"}'.encode("latin-1")),
    "config: UTF-16": _config_text('{"model_type": "qwen2_5_vl"}'.encode("utf-16")),
    "config: twice": _config_text(b'{"model_type": "qwen2_5_vl", "model_type": "qwen2"}'),
    "config: infinite": _config_text(b'{"model_type": "qwen2_5_vl", "x": 1e999}'),
    "config: a pipe": _config_as(os.mkfifo),
    "config: a folder": _config_as(Path.mkdir),
    "config: a device": _config_as(lambda f: f.symlink_to("/dev/zero")),
    "config: outside": _config_as(lambda f: f.symlink_to(creature_path("base") / CONFIG)),
    "config: absent": _config_as(lambda f: None),
    "an adapter beside the weights": _adapter,
}


class Shards:
    """A checkpoint in two shards and an index."""

    def __init__(self, path: Path, rng: Random) -> None:
        self.path, self.rng = path, rng
        self.index = json.loads((path / INDEX).read_text())
        self.map: dict[str, object] = self.index["weight_map"]

    def write(self) -> None:
        """Write the index."""
        (self.path / INDEX).write_text(json.dumps(self.index))

    def put(self, shard: object) -> None:
        """Say that a drawn tensor is in `shard`."""
        self.map[self.rng.choice(sorted(self.map))] = shard
        self.write()


def split(path: Path) -> None:
    """Make two shards of a single file."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(path / SINGLE)
    names, where = sorted(tensors), {}
    for number, chosen in enumerate((names[::2], names[1::2])):
        shard = f"model-0000{number + 1}-of-00002.safetensors"
        save_file({name: tensors[name] for name in chosen}, path / shard, {"format": "pt"})
        where |= dict.fromkeys(chosen, shard)
    (path / SINGLE).unlink()
    total = sum(t.nbytes for t in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (path / INDEX).write_text(json.dumps(index))


ONE = "model-00001-of-00002.safetensors"


def _shard_as(make: Callable[[Path], object]) -> Callable[[Shards], object]:
    return lambda s: ((s.path / ONE).unlink(), make(s.path / ONE))


def _through_a_link(s: Shards) -> None:
    (s.path / ONE).rename(s.path.parent / ONE)
    (s.path / ONE).symlink_to(s.path.parent / ONE)


def _through_a_folder(s: Shards) -> None:
    (s.path.parent / "outside").mkdir()
    (s.path / ONE).rename(s.path.parent / "outside" / ONE)
    (s.path / "in").symlink_to(s.path.parent / "outside")
    s.index["weight_map"] = {n: f"in/{ONE}" if v == ONE else v for n, v in s.map.items()}
    s.write()


def _second_copy(s: Shards) -> None:
    shutil.copy(s.path / ONE, s.path / "model-00003-of-00002.safetensors")
    s.map.update({f"{name}.x": "model-00003-of-00002.safetensors" for name in list(s.map)[:1]})
    s.write()


def _index_as(content: object) -> Callable[[Shards], object]:
    return lambda s: (s.path / INDEX).write_text(json.dumps(content))


SHARDED: dict[str, Callable[[Shards], object]] = {
    "shard: through a link": _through_a_link,
    "shard: through a linked folder": _through_a_folder,
    "shard: absent": _shard_as(lambda f: None),
    "shard: a pipe": _shard_as(os.mkfifo),
    "shard: a device": _shard_as(lambda f: f.symlink_to("/dev/zero")),
    "shard: empty": _shard_as(lambda f: f.write_bytes(b"")),
    "shard: the other one": _shard_as(
        lambda f: shutil.copy(f.with_name(ONE.replace("00001", "00002", 1)), f)
    ),
    "index: a number": lambda s: s.put(1),
    "index: a list": lambda s: s.put([ONE]),
    "index: an absolute path": lambda s: s.put("/etc/passwd"),
    "index: the folder above": lambda s: s.put(f"../{ONE}"),
    "index: a folder": lambda s: s.put("."),
    "index: no name": lambda s: s.put(""),
    "index: a NUL": lambda s: s.put(f"{ONE}\0"),
    "index: too long": lambda s: s.put("a" * 5000),
    "index: the wrong shard": lambda s: s.put(ONE.replace("00001", "00003")),
    "index: more than there is": lambda s: (s.map.update({"model.more": ONE}), s.write()),
    "index: less than there is": lambda s: (s.map.pop(sorted(s.map)[3]), s.write()),
    "index: no map": _index_as({"metadata": {}}),
    "index: an empty map": _index_as({"weight_map": {}}),
    "index: a list as map": _index_as({"weight_map": [ONE]}),
    "index: null": _index_as(None),
    "index: deep": lambda s: (s.path / INDEX).write_text('{"a":' * 10**5),
    "index: a pipe": lambda s: ((s.path / INDEX).unlink(), os.mkfifo(s.path / INDEX)),
    "a copy of a shard": _second_copy,
    "one file beside the shards": lambda s: shutil.copy(creature_path("base") / SINGLE, s.path),
}


def _beside(name: str, content: bytes) -> Change:
    return lambda p: (p.path / name).write_bytes(content)


def _in_json(name: str, **changes: object) -> Change:
    def change(p: Parts) -> None:
        content = json.loads((p.path / name).read_text())
        (p.path / name).write_text(json.dumps({**content, **changes}))

    return change


LOOPS = {
    "loop": "{% for i in range(10**9) %}{% for j in range(10**9) %}x{% endfor %}{% endfor %}",
    "growth": "{% set ns = namespace(a='x') %}{% for i in range(60) %}{% set ns.a = ns.a + ns.a %}"
    "{% endfor %}{{ ns.a }}",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "a power": "{{ 9 ** 9 ** 9 }}",
    "a long text": "{{ 'x' * 10 ** 10 }}",
    "a walk outside": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "an error": "{{ raise_exception('no') }}",
    "an unknown name": "{{ nobody.knows }}",
    "no template": "{% for %}",
    "nothing": "",
    "the images dropped": "{{ messages[0].role }}",
    "images without end": "{% for i in range(999) %}<|image_pad|>{% endfor %}",
    "sorted without end": "{{ range(99999999) | list | sort | join }}",
}
BESIDE: dict[str, Change] = {
    **{f"template: {k}": _beside("chat_template.jinja", v.encode()) for k, v in LOOPS.items()},
    "template: no UTF-8": _beside("chat_template.jinja", b"\xff\xfe{{"),
    "template: large": _beside("chat_template.jinja", b"x" * (2 << 20)),
    "template: a pipe": lambda p: (
        (p.path / "chat_template.jinja").unlink(),
        os.mkfifo(p.path / "chat_template.jinja"),
    ),
    **{
        f"{name}: {kind}": _beside(name, content)
        for name in (
            *("tokenizer.json", "tokenizer_config.json", "generation_config.json"),
            "processor_config.json",
        )
        for kind, content in {
            "empty": b"",
            "null": b"null",
            "a list": b"[1, 2]",
            "cut": b'{"a": [',
            "no UTF-8": b'{"a": "\xff"}',
            "another's": b'{"model": {"vocab": {}}, "image_processor": {}, "eos_token_id": "x"}',
        }.items()
    },
    "tokenizer: odd vocabulary": _in_json("tokenizer.json", model={"type": "BPE", "vocab": [1]}),
    "tokenizer: another model": _in_json("tokenizer.json", model={"type": "X", "vocab": {}}),
    "tokenizer: no added tokens": _in_json("tokenizer.json", added_tokens=[]),
    "tokenizer: a class of its own": _in_json(
        "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.E", None]}
    ),
    "tokenizer: special token a number": _in_json("tokenizer_config.json", eos_token=7),
    "tokenizer: no end": _in_json("tokenizer_config.json", eos_token=None),
    "processor: a class of its own": _in_json(
        "processor_config.json", auto_map={"AutoProcessor": "evil.E"}
    ),
    "processor: pixels without end": _in_json(
        "processor_config.json",
        image_processor={
            "image_processor_type": "Qwen2VLImageProcessor",
            "min_pixels": 10**12,
            "max_pixels": 10**13,
            "size": {"shortest_edge": 10**12, "longest_edge": 10**13},
        },
    ),
    "processor: no patch": _in_json(
        "processor_config.json",
        image_processor={"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 0},
    ),
    "generation: ends that are none": _in_json("generation_config.json", eos_token_id=[None, "x"]),
    "generation: negative length": _in_json("generation_config.json", max_new_tokens=-5),
    "config: heads that do not divide": _config(
        "text_config", "num_attention_heads", value=lambda p: 7
    ),
    "config: no heads": _config("text_config", "num_attention_heads", value=lambda p: 0),
    "config: unknown activation": _config("text_config", "hidden_act", value=lambda p: "x"),
    "config: rope without end": _config(
        "text_config", "rope_parameters", value=lambda p: {"rope_type": "x", "rope_theta": 0}
    ),
    "config: image token outside": _config("image_token_id", value=lambda p: 10**9),
    "config: end outside": _config("text_config", "eos_token_id", value=lambda p: 10**9),
    "config: patches of no size": _config("vision_config", "patch_size", value=lambda p: 0),
    "config: code": _config("auto_map", value=lambda p: {"AutoConfig": "evil.C"}),
}
