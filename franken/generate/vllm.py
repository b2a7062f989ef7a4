"""vLLM as an engine: the same prompts, bans, seeds and answers as the native one, at serving speed.

It is given un-expanded ids with the images: vLLM expands every image placeholder itself, and ids
that are expanded already are expanded twice, which is a known way to empty or garbled samples (TRL
issues 6294 and 6401). Image, video and turn markers have a bias of minus infinity, and
log-probabilities are those of the distribution that was sampled from. Each sample is a request of
its own with a seed of its own; the prefix cache shares the prefill. Greedy answers equal the native
engine's (benchmarks/results/vllm.md); sampled ones are as reproducible, but drawn by vLLM's
generator, thus others.

Needs the extra `vllm`. Left out: weights that change under it (a trainer must also reset the
prefix, multimodal and encoder caches), several devices.
"""

import gc
import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from franken.checkpoints import open_checkpoint
from franken.distribution import with_extra
from franken.errors import FrankenError, UsageError
from franken.generate.engine import (
    Prompt,
    Response,
    Sampling,
    raw_ids,
    read_sample,
    sample_names,
    short_seed,
)

VISION_THETA = 10000.0  # what vLLM turns image patches by, whatever the checkpoint says
HOTTEST = 2.0
# Unless the user has set them: no call that nobody asked for, nothing on the standard output.
SETTINGS = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_LOGGING_LEVEL": "WARNING",
}


class VisionRotation:
    """Joins vLLM's worker: gives a vision tower of the Qwen family the rotary base of its
    checkpoint.
    """

    def set_vision_theta(self, theta: float) -> bool:
        """Whether this model's tower has such a thing. Its tables are rewritten in place, so that
        compiled code sees them.
        """
        visual = getattr(cast(Any, self).model_runner.model, "visual", None)
        rotation = getattr(visual, "rotary_pos_emb", None)
        if visual is None or rotation is None or not hasattr(rotation, "cos_sin_cache"):
            return False
        rotation.base = theta
        rotation.cos_sin_cache.copy_(rotation._compute_cos_sin_cache())
        getattr(visual, "_rope_by_thw_cache", {}).clear()  # filled by vLLM's own first run
        return True


@dataclass
class VLLM:
    """The engine for a checkpoint folder. `max_model_len` bounds prompt and answer together
    (default: the model's own).

    Raises UsageError where vLLM is not installed, FrankenError for a folder that is no checkpoint.
    """

    folder: str | Path
    dtype: str = "auto"
    max_model_len: int | None = None
    options: dict[str, Any] = field(default_factory=dict)  # further arguments of vllm.LLM
    max_images: int = 4

    def __post_init__(self) -> None:
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        from transformers import AutoProcessor, AutoTokenizer, GenerationConfig

        from franken.models.families import family_of
        from franken.models.loading import pick_dtype

        checkpoint = open_checkpoint(self.folder)
        seeing = "vision_config" in checkpoint.config
        where = str(checkpoint.folder)
        reader: Any = AutoProcessor if seeing else AutoTokenizer
        self.processor = reader.from_pretrained(where, local_files_only=True) if seeing else None
        self.tokenizer = (
            self.processor.tokenizer
            if self.processor
            else reader.from_pretrained(where, local_files_only=True)
        )
        self.llm: Any = _library().LLM(
            where,
            dtype=pick_dtype(self.dtype, checkpoint.config),
            max_model_len=self.max_model_len,
            logprobs_mode="processed_logprobs",
            load_format="safetensors",
            limit_mm_per_prompt={"image": self.max_images} if seeing else {},
            worker_extension_cls=f"{__name__}.{VisionRotation.__name__}",
            **self.options,
        )
        if seeing:
            self._rotate_images(checkpoint.config["vision_config"])
        config = self.llm.llm_engine.model_config.hf_config
        self.banned = family_of(config.model_type).banned_token_ids(config, self.tokenizer)
        self.ends = _end_ids(GenerationConfig, where) | {self.tokenizer.eos_token_id}

    def generate(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        *,
        on_batch: Callable[[int], None] | None = None,
    ) -> list[list[Response]]:
        """`[len(prompts)][n]` responses. A prompt that vLLM will not take is a response with its
        reason.
        """
        sampling.check()
        if any(p.images for p in prompts) and self.processor is None:
            raise UsageError(
                f"{self.folder} cannot see", "it is a text-only model", "use --arms text or blind"
            )
        asked = [self.request(p) for p in prompts]
        wanted = [
            (i, self.parameters(name, sampling))
            for i, p in enumerate(prompts)
            for name in sample_names(p.key, sampling)
        ]
        found = self._outputs(
            [asked[i] for i, _ in wanted], [parameters for _, parameters in wanted]
        )
        rows = [self._response(output, sampling) for output in found]
        if on_batch:
            on_batch(len(prompts))
        return [rows[i : i + sampling.n] for i in range(0, len(rows), sampling.n)]

    def request(self, prompt: Prompt) -> dict[str, Any]:
        """A prompt as vLLM takes it: un-expanded ids, and the images."""
        asked: dict[str, Any] = {
            "prompt_token_ids": raw_ids(self.processor, self.tokenizer, prompt)
        }
        if prompt.images:
            asked["multi_modal_data"] = {"image": [i.convert("RGB") for i in prompt.images]}
        return asked

    def parameters(self, name: str, sampling: Sampling) -> Any:
        """vLLM's sampling parameters for one sample. Raises UsageError for what vLLM does not
        sample.
        """
        if sampling.temperature > HOTTEST:
            raise UsageError(
                f"temperature {sampling.temperature:g} is too high",
                f"vLLM's highest is {HOTTEST:g}",
            )
        return _library().SamplingParams(
            temperature=sampling.temperature,
            max_tokens=sampling.max_new_tokens,
            seed=short_seed(name, sampling.seed) if sampling.temperature > 0 else None,
            stop=list(sampling.stop),
            stop_token_ids=list(sampling.stop_ids),
            logprobs=0,
            logit_bias=dict.fromkeys(self.banned, -float("inf")),
        )

    def close(self) -> None:
        """Give the device's memory back."""
        self.llm.llm_engine.engine_core.shutdown()
        del self.llm
        gc.collect()

    def _rotate_images(self, vision: dict[str, Any]) -> None:
        """vLLM keeps the tower's rotation for all models of a process: it is set whether or not it
        is the usual one.
        """
        theta = float((vision.get("rope_parameters") or vision).get("rope_theta", VISION_THETA))
        if (
            not all(self.llm.collective_rpc("set_vision_theta", args=(theta,)))
            and theta != VISION_THETA
        ):
            raise FrankenError(
                f"vLLM cannot serve {self.folder}",
                f"its vision tower rotates with base {theta:g}, vLLM's with {VISION_THETA:g}",
                "use --engine native",
            )

    def _outputs(self, asked: Sequence[dict[str, Any]], parameters: Sequence[Any]) -> list[Any]:
        """vLLM's outputs; the reason in place of one it refuses. One refusal spoils a call, which
        is then made in halves.
        """
        try:
            return self.llm.generate(list(asked), list(parameters), use_tqdm=False)
        except _refusals() as e:
            if len(asked) == 1:
                return [" ".join(str(e).split())]
        half = len(asked) // 2
        return self._outputs(asked[:half], parameters[:half]) + self._outputs(
            asked[half:], parameters[half:]
        )

    def _response(self, output: Any, sampling: Sampling) -> Response:
        if isinstance(output, str):
            return Response("", [], [], False, error=output)
        drawn = output.outputs[0]
        ids = list(drawn.token_ids)
        logprobs = [step[token].logprob for step, token in zip(drawn.logprobs, ids, strict=True)]
        ends = self.ends | set(sampling.stop_ids)
        return read_sample(
            self.tokenizer, ids, logprobs, ends, sampling.stop, list(output.prompt_token_ids)
        )


def _library() -> Any:
    """The package, which this file shares its name with."""
    try:
        return importlib.import_module("vllm")
    except ImportError as e:
        raise UsageError(
            "vLLM is not installed", str(e), f"{with_extra('vllm')}, or use --engine native"
        ) from e


def _refusals() -> tuple[type[Exception], ...]:
    """What vLLM raises for a request it will not take: its own class, once a ValueError."""
    return ValueError, getattr(
        importlib.import_module("vllm.exceptions"), "VLLMClientError", ValueError
    )


def _end_ids(configuration: Any, folder: str) -> set[int]:
    """What the checkpoint's generation settings call an end, if it has them."""
    if not (Path(folder) / "generation_config.json").exists():
        return set()
    ids = configuration.from_pretrained(folder, local_files_only=True).eos_token_id
    return set(ids if isinstance(ids, list) else [ids]) - {None}
