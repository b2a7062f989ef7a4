"""Changes of a safetensors file, each of which makes it one that must be refused."""

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from attacks.parts import BIG, ODD, SINGLE, Change, Parts
from franken.models.creature import creature_path


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


def random_bytes(p: Parts) -> None:
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
