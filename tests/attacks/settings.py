"""Changes of config.json, each of which makes a checkpoint that must be refused, and of what lies
beside the weights, which the verbs that load a model refuse or read.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

from attacks.parts import BIG, CONFIG, Change, Parts
from franken.models.creature import creature_path


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
