"""`franken doctor`: what is installed, what it runs on, and which model families work here."""

import os
import platform
import time
from typing import TypedDict

import torch

from franken.distribution import clashes
from franken.errors import FrankenError
from franken.models.families import family_of
from franken.models.hooks import edit
from franken.models.tiny import TINY_FAMILIES, tiny, tiny_inputs
from franken.models.tokens import token_map
from franken.names import place
from franken.runs import PACKAGES, provenance


class SelfTest(TypedDict):
    """How a family fared."""

    family: str
    ok: bool
    result: str


class Examination(TypedDict):
    """What `franken doctor` prints."""

    versions: dict[str, str | int | None]
    families: list[SelfTest]


def examine() -> Examination:
    """Versions and devices, and a self-test per family: forward, an edit at every layer, a place
    for every tensor.
    """
    found = provenance()
    versions = {"python": platform.python_version(), "franken": found["franken"]}
    versions |= {name: found["packages"][name] for name in PACKAGES}
    if told := clashes():
        versions["clash"] = "; ".join(told)
    versions |= {
        "cpus": os.cpu_count(),
        "torch threads": torch.get_num_threads(),
        "cuda": ", ".join(map(torch.cuda.get_device_name, range(torch.cuda.device_count())))
        or "none",
    }
    return {
        "versions": versions,
        "families": [self_test(model_type) for model_type in TINY_FAMILIES],
    }


@torch.no_grad()
def self_test(model_type: str) -> SelfTest:
    """Build a tiny random model, run it, change every layer's output, and see that it comes back as
    it was.
    """
    began = time.perf_counter()
    try:
        model, inputs = tiny(model_type), tiny_inputs(model_type)
        for name, _ in model.named_parameters():
            place(name, model_type)
        spans = token_map(inputs["input_ids"], model.config)[0]
        before = model(**inputs).logits
        for layer in family_of(model_type).decoder_layers(model):
            with edit({layer: lambda hidden, _: hidden + 1.0}):
                if torch.equal(model(**inputs).logits, before):
                    raise FrankenError("an edit changed nothing")
        if not torch.equal(model(**inputs).logits, before):
            raise FrankenError("an edit was not undone")
    except (FrankenError, RuntimeError, ValueError, KeyError, AttributeError) as e:
        return {"family": model_type, "ok": False, "result": f"{type(e).__name__}: {e}"}
    seconds = time.perf_counter() - began
    return {
        "family": model_type,
        "ok": True,
        "result": f"ok, {len(spans.images)} image(s), {seconds:.1f} s",
    }
