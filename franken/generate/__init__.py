"""How questions are answered: one protocol, and engines that follow it."""

from franken.generate.engine import Engine, Prompt, Response, Sampling
from franken.generate.native import Native, encode_prompts, generate

__all__ = ["Engine", "Native", "Prompt", "Response", "Sampling", "encode_prompts", "generate"]
