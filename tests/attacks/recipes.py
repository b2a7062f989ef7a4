"""Recipes of training and merging, as files and as options: refused before any work, or planned."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from attacks.harness import Case, Expected, Words

TRAIN = "train {0} --dry-run"
MERGE = "merge --recipe {0} --dry-run"
STAGES = ("creature-rl", "creature-grpo")
ODD = (".inf", "-.inf", ".nan", "1e999", "-1", "0", "null", "x", "[1]", "{a: 1}", "2020-13-45")
ODD += ("9" * 400, "0x", "!!python/object:os.system x", "1_000_000_000_000", "''", "-0.0")
KEYS = ("lr", "temperature", "prompts", "clip", "steps", "seed", "group", "betas.0", "warmup")
KEYS += ("freeze", "reward", "advantage", "loss", "kind", "tasks", "held_out", "max_new_tokens")


def cases(seed: int) -> Iterator[Case]:
    """Drawn values in drawn places, files, patterns, merge recipes."""
    rng = Random(f"{seed}/recipes")
    for number in range(60):
        key, value = rng.choice(KEYS), rng.choice(ODD)
        words = ["train", rng.choice(STAGES), "--dry-run", "--set", f"stages.0.{key}={value}"]
        yield Case("recipes", f"{number}: {key}={value[:30]}", _always(words), "any")
    for name, content in FILES.items():
        yield _file(f"train: {name}", TRAIN, content, "refused")
        yield _file(f"merge: {name}", MERGE, content, "refused")
    for name, make in PLACES.items():
        for line in (TRAIN, MERGE):
            yield Case("recipes", f"{line.split()[0]}: {name}", _placed(make, line))
    for pattern in PATTERNS:
        words = ["train", "creature-rl", "--dry-run", "--freeze", f"re:{pattern}"]
        yield Case("recipes", f"--freeze re:{pattern[:30]}", _always(words))
        words = ["diff", "creature:base", "creature:sft", "--dry-run"]
        words += ["--expect-frozen", f"re:{pattern}"]
        yield Case("recipes", f"--expect-frozen re:{pattern[:30]}", _always(words))
    for name, text in MERGES.items():
        yield _file(f"merge: {name}", MERGE, text.encode(), "refused")
    for words in OPTIONS:
        yield Case("recipes", f"merge {' '.join(words)}"[:60], _always(["merge", *PAIR, *words]))


def _always(words: Words) -> Callable[[Path], Words]:
    return lambda folder: words


def _file(name: str, line: str, content: bytes, expected: Expected) -> Case:
    def prepare(folder: Path) -> Words:
        (folder / "r.yaml").write_bytes(content)
        return line.format(folder / "r.yaml").split()

    return Case("recipes", name, prepare, expected)


def _placed(make: Callable[[Path], object], line: str) -> Callable[[Path], Words]:
    def prepare(folder: Path) -> Words:
        make(folder / "r.yaml")
        return line.format(folder / "r.yaml").split()

    return prepare


PAIR = ("creature:base", "creature:sft", "--dry-run")
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
FILES = {
    "nothing": b"",
    "a list": b"- 1\n- 2\n",
    "a number": b"7",
    "no YAML": b"a: [",
    "tabs": b"\ta:\t- b",
    "a tag": b"a: !!python/object/apply:os.system [x]",
    "another tag": b"a: !nobody x",
    "laughs": LAUGHS.encode(),
    "itself": b"a: &a [*a]",
    "deep": b"a: " + b"[" * 50_000,
    "large": b"a: " + b"x" * (3 << 20),
    "no UTF-8": b"a: \xff\xfe",
    "a NUL": b"a: \0",
    "UTF-16": "stages: []".encode("utf-16"),
    "two documents": b"a: 1\n---\nb: 2\n",
    "a key twice": b"stages: []\nstages: []\n",
    "a key that is a list": b"[1, 2]: 3\n",
    "no stages": b"stages: []\n",
    "stages as a text": b"stages: x\n",
    "stages of numbers": b"stages: [1, 2]\n",
    "an unknown kind": b"stages: [{kind: magic}]\n",
    "extends itself": b"extends: ./r.yaml\n",
    "extends what is not there": b"extends: nowhere\n",
    "a merge key": b"<<: [1]\nstages: []\n",
}
PLACES: dict[str, Callable[[Path], object]] = {
    "absent": lambda p: None,
    "a pipe": os.mkfifo,
    "a folder": lambda p: p.mkdir(),
    "a device": lambda p: p.symlink_to("/dev/zero"),
    "a link to itself": lambda p: p.symlink_to(p),
}
PATTERNS = ("(", "[", "\\", "(?P<a", "(a+)+" * 6 + "$x", "(.|[a-z._])+[A-Z]", "(" * 600 + ")" * 600)
PATTERNS += (".{999999999}", "((((w{900}){900}){900}){900})", "(?<=.*)x", "x" * 5000, "(?R)", "*")
BASE = "base: creature:base\ndonors: {sft: creature:sft}\n"
MERGES = {
    "no rules": BASE,
    "rules as a text": BASE + "rules: x\n",
    "rules of numbers": BASE + "rules: [1]\n",
    "an unknown key": BASE + "rules: [{from: sft, layers: 0-2, colour: red}]\n",
    "an unknown donor": BASE + "rules: [{from: nobody, layers: 0-2}]\n",
    "layers outside": BASE + "rules: [{from: sft, layers: 6-99}]\n",
    "layers reversed": BASE + "rules: [{from: sft, layers: 5-2}]\n",
    "layers as a list": BASE + "rules: [{from: sft, layers: [0, 2]}]\n",
    "layers without end": BASE + "rules: [{from: sft, layers: 0-999999999999999}]\n",
    "layers in other digits": BASE + "rules: [{from: sft, layers: ٠-٢}]\n",
    "an alpha that is none": BASE + "rules: [{from: sft, layers: 0-2, alpha: .nan}]\n",
    "an infinite alpha": BASE + "rules: [{from: sft, layers: 0-2, alpha: .inf}]\n",
    "an alpha as a text": BASE + "rules: [{from: sft, layers: 0-2, alpha: half}]\n",
    "an unknown method": BASE + "rules: [{from: [sft], layers: 0-2, method: magic}]\n",
    "a parameter that is none": BASE
    + "rules: [{from: [base, sft], layers: 0-2, method: ties, parameters: {density: .nan}}]\n",
    "an unknown parameter": BASE
    + "rules: [{from: [base, sft], layers: 0-2, method: ties, parameters: {colour: 1}}]\n",
    "a base as a list": "base: [1]\ndonors: {}\nrules: []\n",
    "donors as a list": "base: creature:base\ndonors: [creature:sft]\nrules: [{from: x}]\n",
    "a seed that is none": BASE + "rules: [{from: sft, layers: 0-2}]\nseed: x\n",
    "a difference that is none": BASE + "rules: [{from: sft, layers: 0-2}]\nallow: [everything]\n",
    "a place twice": BASE + "rules: [{from: sft, layers: 0-2}, {from: sft, layers: 1-3}]\n",
    "a donor that is the folder above": "base: creature:base\ndonors: {a: ..}\nrules: [{from: a}]\n",
}
OPTIONS = (
    ("--layers", "x"),
    ("--layers", "0-2", "--alpha", "nan"),
    ("--layers", "0-2", "--alpha", "inf"),
    ("--layers", "0-2", "--alpha", "1e400"),
    ("--layers", "0-2", "--method", "slerp", "--param", "t"),
    ("--layers", "0-2", "--method", "slerp", "--param", "t=nan"),
    ("--layers", "0-2", "--method", "ties", "--param", "density=1e999"),
    ("--layers", "-1-2"),
    ("--layers", "9" * 5000),
    ("--layers", "0-2,0-2,x"),
    ("--graft", "creature:sft:"),
    ("--graft", ":" * 5000),
    ("--splice", "a:b"),
    ("--take", "everything"),
    ("--layers", "0-2", "--components", "brain"),
    ("--layers", "0-2", "--allow", "all"),
    ("--layers", "0-2", "--relative-to", "nobody"),
)
