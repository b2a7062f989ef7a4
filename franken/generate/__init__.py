"""How questions are answered: one protocol, and engines that follow it. Engines are imported when
they are used, so that planning a run does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from franken.generate.engine import Engine, Prompt, Response, Sampling

if TYPE_CHECKING:
    from franken.generate.native import Native, encode_prompts, generate

__all__ = ["Engine", "Native", "Prompt", "Response", "Sampling", "encode_prompts", "generate"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("franken.generate.native"), name)
