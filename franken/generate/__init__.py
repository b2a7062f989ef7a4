"""How questions are answered: one protocol, a native engine."""

from franken.generate.native import Prompt, Response, Sampling, encode_prompts, generate

__all__ = ["Prompt", "Response", "Sampling", "encode_prompts", "generate"]
