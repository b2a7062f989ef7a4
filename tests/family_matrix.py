"""What franken does with every family, through its real processor: prompts with one and with two
images, tall, wide, tiny and of mixed sizes in a batch, through every operation.

An operation is a function that raises AssertionError where its result is not what an independent
way gives (the model's own plain forward pass, or a control of franken's own), and UsageError where
it is not defined for the family, which `UNDEFINED` says beforehand. tests/test_families.py runs
them all; `make families` writes the page's table (docs/families.md), and what it measures into
benchmarks/results/families.md.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tiny_processors import CASES, Case, tiny_loaded
from torch.nn import functional as F

from franken.checkpoints import open_checkpoint, read_array
from franken.diff.plan import plan_diff
from franken.diff.run import run_diff
from franken.errors import UsageError
from franken.generate import Prompt, Sampling, encode_prompts, generate
from franken.merge.graft import graft
from franken.merge.plan import open_all, plan_merge
from franken.merge.recipe import Recipe, Rule, checked
from franken.merge.run import run_merge
from franken.models.loading import Loaded, load, saved_tensors
from franken.models.tiny import tiny
from franken.probe import controls
from franken.probe.groups import SITES
from franken.probe.lens import own_lens
from franken.probe.swap import encode_pair, swapped_batch
from franken.runs import load_run
from trainer import sft, sft_packing
from trainer.data import Conversation, encode
from trainer.freeze import apply_freeze
from trainer.packing import pack, packed_logprobs
from trainer.policy import response_logprobs, take_rows, token_logprobs
from trainer.policy_update import Weighted, update_policy
from trainer.rollout import Batch
from trainer.stages import GrpoStage
from trainer.towers import with_features

TALL, WIDE, TINY, SMALL = (28, 112), (84, 28), (9, 7), (28, 28)
SIZES = {  # of the images of every prompt, by how many there are; 0 is of mixed numbers
    0: [(TALL,), (SMALL, WIDE), (TINY,)],
    1: [(TALL,), (TINY,), (WIDE,)],
    2: [(TALL, TINY), (SMALL, WIDE), (TINY, TINY)],
}
RESPONSES = [[17, 9, 11, 8], [12], [9, 9, 30, 31, 32, 33]]
TEMPERATURE = 0.8
CLOSE = {"atol": 1e-4, "rtol": 0}


def picture(size: tuple[int, int], seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))


def asked(text: str, sizes: Sequence[tuple[int, int]], seed: int = 0) -> Prompt:
    images = tuple(picture(size, 10 * seed + i) for i, size in enumerate(sizes))
    return Prompt(text, images, f"{text} {seed}")


@dataclass
class Subject:
    """A case under test, with so many images a prompt, or one and two (0)."""

    case: Case
    loaded: Loaded
    images: int = 0

    @cached_property
    def prompts(self) -> list[Prompt]:
        """Of mixed sizes, and one without an image among them."""
        drawn = [
            asked(f"w{10 + n} w{20 + n}", sizes, n) for n, sizes in enumerate(SIZES[self.images])
        ]
        return [*drawn[:2], Prompt("w40 w41 w42", (), "text alone"), *drawn[2:]]

    @cached_property
    def pairs(self) -> list[tuple[Prompt, Prompt]]:
        """The same question about other pictures of the same sizes."""
        seeing = [prompt for prompt in self.prompts if prompt.images]
        return [
            (p, replace(p, images=tuple(picture(i.size, 90 + n) for n, i in enumerate(p.images))))
            for p in seeing
        ]


def own_inputs(loaded: Loaded, prompt: Prompt, ids: Sequence[int] = ()) -> dict[str, torch.Tensor]:
    """What the processor alone returns for a prompt, with text tokens behind it: no padding, no
    batch, nothing of franken's.
    """
    content = [*({"type": "image"} for _ in prompt.images), {"type": "text", "text": prompt.text}]
    for entry, image in zip(content, prompt.images, strict=False):
        entry["image"] = image
    encoded = dict(
        loaded.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
    )
    more = torch.tensor([list(ids)], dtype=torch.long)
    for name in ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"):
        if name in encoded:
            text_token = torch.full_like(more, name == "attention_mask")
            behind = more if name == "input_ids" else text_token
            encoded[name] = torch.cat([encoded[name], behind.to(encoded[name].dtype)], 1)
    return encoded


def own_logits(loaded: Loaded, prompt: Prompt, ids: Sequence[int] = ()) -> torch.Tensor:
    """The model's plain forward pass over them: `[tokens, vocabulary]`."""
    if hasattr(loaded.model.model, "rope_deltas"):
        loaded.model.model.rope_deltas = None
    return loaded.model(**own_inputs(loaded, prompt, ids), use_cache=False).logits[0]


def own_logprobs(loaded: Loaded, prompt: Prompt, response: Sequence[int]) -> torch.Tensor:
    """Of a response, by that forward pass, under the sampling distribution."""
    logits = own_logits(loaded, prompt, response)[-len(response) - 1 : -1]
    banned = loaded.banned_ids.tolist()
    return token_logprobs(logits, torch.tensor(response), TEMPERATURE, banned)[0]


@torch.no_grad()
def padded(subject: Subject) -> float:
    """Log-probabilities in padded rows are those of the plain forward pass. The largest
    difference.
    """
    loaded, prompts = subject.loaded, subject.prompts
    batch, far = encode_prompts(loaded, prompts), 0.0
    for i, rows, ours in _padded_rows(subject, batch):
        for response, found in zip(rows, ours, strict=True):
            plain = own_logprobs(loaded, prompts[i], response)
            far = max(far, float((found[: len(response)] - plain).abs().max()))
    assert far < CLOSE["atol"]
    return far


@torch.no_grad()
def packed(subject: Subject) -> float:
    """Log-probabilities in packed rows are those of the plain forward pass. The largest
    difference.
    """
    loaded, prompts = subject.loaded, subject.prompts
    batch, far = encode_prompts(loaded, prompts), 0.0
    for i, prompt in enumerate(prompts):
        rows = RESPONSES[i % 2 :]
        found, _ = packed_logprobs(loaded, pack(loaded, batch, i, rows), TEMPERATURE, chunk=5)
        plain = torch.cat([own_logprobs(loaded, prompt, response) for response in rows])
        far = max(far, float((found - plain).abs().max()))
    assert far < CLOSE["atol"]
    return far


def _padded_rows(subject: Subject, batch) -> Iterator[tuple[int, list[list[int]], torch.Tensor]]:
    for i in range(batch.rows):
        rows = RESPONSES[i % 2 :]
        taken = take_rows(subject.loaded, batch, [i] * len(rows), rows)
        yield i, rows, response_logprobs(subject.loaded, taken, TEMPERATURE)[0]


@torch.no_grad()
def evaluate(subject: Subject) -> None:
    """Greedy answers in a batch are those of a loop over the plain forward pass."""
    loaded, steps = subject.loaded, 3
    for prompt, (answer,) in zip(
        subject.prompts,
        generate(loaded, subject.prompts, Sampling(1, 0.0, steps)),
        strict=True,
    ):
        ids: list[int] = []
        for _ in answer.ids:
            logits = own_logits(loaded, prompt, ids)[-1].clone()
            logits[loaded.banned_ids] = -torch.inf
            ids.append(int(logits.argmax()))
        assert ids == answer.ids, prompt.key


def swap(subject: Subject) -> None:
    """Nothing swapped is the plain answer, everything the source's, an image with itself nothing;
    and the answer's distribution depends on the image.
    """
    assert controls.check_swaps(subject.loaded, subject.pairs, 3) == []
    pair = encode_pair(subject.loaded, *subject.pairs[0])
    everything = frozenset(range(len(subject.loaded.family.decoder_layers(subject.loaded.model))))
    sets = [frozenset(), everything, frozenset([0])]
    plain, source, _ = swapped_batch(subject.loaded, [pair], sets, 2, measure=True)[0]
    assert abs(plain.kl) < 1e-6
    assert source.kl > 1e-6


def zero(subject: Subject) -> None:
    """Nothing ablated is the plain answer, a layer ablated a layer skipped."""
    for layer, prompt in enumerate(subject.prompts[:2], 1):
        assert controls.check_ablations(subject.loaded, [prompt], layer, 3) == []


def patch(subject: Subject) -> None:
    """Everything patched is the clean run, nothing patched the corrupt one."""
    sites = [site for site in SITES if site != "heads" or subject.case.name != "Qwen3.5"]
    assert controls.check_patching(subject.loaded, subject.pairs[:2], sites) == []


def attention(subject: Subject) -> None:
    """What is given to the image and to the rest is one."""
    assert controls.check_attention(subject.loaded, subject.prompts[:2]) == []


def lens(subject: Subject) -> None:
    """At the last layer it reads the model's own logits."""
    lens = own_lens(subject.loaded.model)
    assert controls.check_lens(subject.loaded, lens, subject.prompts[:2]) == []


def conversations(subject: Subject) -> list[Conversation]:
    """One of two turns and one of text alone among them."""
    twice = [("w12", "w32"), ("w13 w14", "w33 w34 w35")]
    turns = [[("w10 w11", "w30 w31")], twice, [("w15", "w36")]]
    seeing = [p.images for p in subject.prompts if p.images]
    rows = [
        Conversation(images[0], spoken, 1.0 + n, images[1:])
        for n, (spoken, images) in enumerate(zip(turns, seeing, strict=True))
    ]
    return [rows[0], Conversation(None, [("w16 w17", "w37 w38")], 0.5), *rows[1:]]


def train_sft(subject: Subject) -> None:
    """Loss and gradient of a batch are those of every conversation alone; the update lowers it."""
    loaded, rows = subject.loaded, conversations(subject)
    with trainable(loaded):
        batch = encode(loaded, rows)
        loss, metrics = sft.loss(loaded, batch)
        loss.backward()
        together = gradient(loaded)
        losses, weights = [], 0.0
        for row in rows:
            alone = encode(loaded, [row])
            labels = alone.labels[0]
            start = int((labels >= 0).nonzero()[0])
            question = replace(Prompt(row.turns[0][0], tuple(row.images)), key="")
            ids = alone.inputs.input_ids[0]
            begun = own_inputs(loaded, question)["input_ids"].shape[1]
            assert torch.equal(own_inputs(loaded, question)["input_ids"][0], ids[:begun])
            assert start >= begun
            logits = own_logits(loaded, question, ids[begun:].tolist())[:-1]
            wanted = labels[1:]
            each = F.cross_entropy(logits[wanted >= 0], wanted[wanted >= 0], reduction="none")
            losses.append(each.sum() * row.weight)
            weights += row.weight * len(each)
        expected = sum(losses) / weights
        assert abs(metrics["loss"] - expected.item()) < 1e-4
        expected.backward()
        assert_close(together, gradient(loaded))
        step(loaded, together)
        assert sft.loss(loaded, batch)[1]["loss"] < metrics["loss"]


def train_sft_packed(subject: Subject) -> None:
    """Packed conversations have the loss and the gradient of padded ones."""
    loaded = subject.loaded
    with trainable(loaded):
        batch = encode(loaded, conversations(subject))
        loss, metrics = sft.loss(loaded, batch)
        loss.backward()
        wanted = gradient(loaded)
        found = sft_packing.backward(loaded, sft_packing.pack_examples(loaded, batch, 60))
        assert abs(found["loss"] - metrics["loss"]) < 1e-4
        assert_close(gradient(loaded), wanted)


def train_rl(subject: Subject, freeze: Sequence[str] = (), *, packed: bool = False) -> None:
    """The gradient of an update is that of every sampled answer alone, by the plain forward pass,
    times its advantage.
    """
    loaded, prompts = subject.loaded, subject.prompts
    given = {"steps": 1, "lr": 1e-3, "tasks": {"count": 1.0}, "group": 2, "packed": packed}
    stage = GrpoStage(kind="grpo", micro_rows=3, temperature=TEMPERATURE, **given)
    groups = generate(loaded, prompts, Sampling(2, TEMPERATURE, 4, 1))
    advantages = torch.tensor([[1.0, -0.5], [0.25, -1.0], [2.0, 1.0], [-1.0, 0.5]])
    with trainable(loaded, freeze):
        encoded = with_features(loaded, encode_prompts(loaded, prompts))
        batch = Batch(encoded, groups)
        lengths = batch.lengths()
        tokens = int(lengths.sum())
        weights = torch.full_like(advantages, 1 / tokens)
        samples = Weighted(batch, advantages, lengths, weights, tokens, True)
        found: list[torch.Tensor] = []
        update_policy(loaded, stage, lambda: found.append(gradient(loaded)) or 0.0, None, samples)
        for prompt, row, scale in zip(prompts, groups, advantages.tolist(), strict=True):
            for answer, advantage in zip(row, scale, strict=True):
                logprobs = own_logprobs(loaded, prompt, answer.ids)
                said = torch.tensor(answer.logprobs)
                assert torch.allclose(said, logprobs.detach(), **CLOSE)  # the sampler's own
                (-advantage * logprobs.sum() / tokens).backward()
        assert_close(found[0], gradient(loaded))


def train_rl_packed(subject: Subject) -> None:
    """The same behind a frozen tower, every group as one row."""
    train_rl(subject, ["vision", "projector"], packed=True)


def frozen_tower(subject: Subject) -> None:
    """The tower runs once, and what it made is all that later passes read."""
    loaded = subject.loaded
    with trainable(loaded, ["vision", "projector"]):
        batch = encode_prompts(loaded, subject.prompts)
        known = with_features(loaded, batch, at_once=2)
        assert known.images.pixel_values is None
        runs: list[object] = []
        blocks = loaded.family.vision_blocks(loaded.model)
        handle = blocks[0].register_forward_hook(lambda *_: runs.append(None))
        for i, rows, ours in _padded_rows(subject, known):
            for response, found in zip(rows, ours, strict=True):
                assert not runs
                plain = own_logprobs(loaded, subject.prompts[i], response)
                assert len(runs) == bool(subject.prompts[i].images)
                runs.clear()
                assert torch.allclose(found[: len(response)], plain, **CLOSE), (i, response)
        handle.remove()


@contextmanager
def saved(subject: Subject) -> Iterator[list[Path]]:
    """Two checkpoints of the case, with its processor, as they lie on a disk."""
    folder = Path(tempfile.mkdtemp())
    case = subject.case
    try:
        for seed in (0, 1):
            model = tiny(case.model_type, seed, text=case.text)
            with torch.no_grad():
                for name, buffer in saved_tensors(model):
                    if name.endswith("layer_scalar"):
                        buffer.fill_(1.0 - 0.1 * seed)
            model.save_pretrained(folder / str(seed))
            subject.loaded.processor.save_pretrained(folder / str(seed))
        yield [folder / "0", folder / "1"]
    finally:
        shutil.rmtree(folder)


def diff(subject: Subject) -> None:
    """Every tensor is compared, and the energy of a decoder layer is that of its tensors."""
    with saved(subject) as folders:
        run = load_run(run_diff(plan_diff([*map(str, folders)]), out=folders[0].parent / "runs"))
        held = [name for name, _ in saved_tensors(subject.loaded.model)]
        one, two = (open_checkpoint(folder).tensors for folder in folders)
        assert len(one) == len(held)
        own = [name for name in one if name.startswith("text.layers.1.")]
        wanted = sum(float(((read_array(one[n]) - read_array(two[n])) ** 2).sum()) for n in own)
        layers = run.layers
        row = layers[(layers["part"] == "text") & (layers["layer"] == 1)]
        row = row[(row["component"] == "all") & (row["metric"] == "energy")]
        assert abs(row["value"].item() ** 2 - wanted) < 1e-4 * wanted


@torch.no_grad()
def merge(subject: Subject) -> None:
    """A hybrid loads with its processor and answers as the same hybrid in memory does."""
    with saved(subject) as folders:
        recipe = checked(Recipe(str(folders[0]), {"d": str(folders[1])}, (Rule(("d",), "1"),)))
        plan = plan_merge(recipe, open_all(recipe))
        hybrid = load(run_merge(plan, folders[0].parent / "hybrid"), device="cpu")
        base = load(folders[0], device="cpu")
        prompt = subject.prompts[0]
        before = own_logits(base, prompt)
        with graft(base.model, plan):
            assert torch.equal(own_logits(base, prompt), own_logits(hybrid, prompt))
        assert torch.equal(own_logits(base, prompt), before)
        assert not torch.allclose(own_logits(hybrid, prompt), before)


@contextmanager
def trainable(loaded: Loaded, freeze: Sequence[str] = ()) -> Iterator[None]:
    """The model with these parts frozen; its weights are put back."""
    before = {name: p.detach().clone() for name, p in loaded.model.named_parameters()}
    if freeze:
        apply_freeze(loaded.model, freeze)
    try:
        yield
    finally:
        loaded.model.requires_grad_(True)
        loaded.model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, parameter in loaded.model.named_parameters():
                parameter.copy_(before[name])


def gradient(loaded: Loaded) -> dict[str, torch.Tensor]:
    """By name, and gone from the model."""
    found = {n: p.grad.clone() for n, p in loaded.model.named_parameters() if p.grad is not None}
    loaded.model.zero_grad(set_to_none=True)
    return found


def assert_close(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    """Equal to rounding, as one vector; of the same weights, but for those of no effect."""
    zeros = {name: torch.zeros_like(value) for name, value in (found | wanted).items()}
    one, two = (torch.cat([(zeros | x)[n].flatten() for n in zeros]) for x in (found, wanted))
    assert two.norm() > 1e-3
    assert (one - two).norm() < 1e-3 * two.norm()


def step(loaded: Loaded, found: dict[str, torch.Tensor]) -> None:
    """A little downhill."""
    norm = torch.cat([value.flatten() for value in found.values()]).norm()
    with torch.no_grad():
        for name, parameter in loaded.model.named_parameters():
            if name in found:
                parameter -= 0.02 * found[name] / norm


OPERATIONS: dict[str, Callable[[Subject], float | None]] = {
    "diff": diff,
    "merge": merge,
    "eval": evaluate,
    "swap": swap,
    "zero": zero,
    "patch": patch,
    "lens": lens,
    "attention": attention,
    "SFT": train_sft,
    "RL": train_rl,
    "padded = plain": padded,
    "packed = plain": packed,
    "SFT packed": train_sft_packed,
    "RL packed": train_rl_packed,
    "frozen tower": frozen_tower,
}
PACKED = ("packed = plain", "SFT packed", "RL packed")
LINEAR, SHARED = "linear attention", "read the keys and values of lower ones"
UNDEFINED = {  # and a part of the reason that is given
    "Qwen3.5": dict.fromkeys(("swap", *PACKED), LINEAR),
    "Gemma 4, small": dict.fromkeys(("swap", "patch"), SHARED),
}
PARTLY = {
    ("Qwen3.5", "patch"): "yes, not `heads`",
    ("Qwen3.5", "attention"): "yes, in layers that have it",
}
COLUMNS = {  # of the page's table, and the operations that it stands for
    **{name: (name,) for name in ("diff", "merge", "eval", "swap", "zero", "patch", "lens")},
    "attention": ("attention",),
    "SFT": ("SFT",),
    "RL": ("RL", "padded = plain"),
    "packed": PACKED,
    "frozen tower": ("frozen tower",),
}


def refusal(case: Case, operation: str) -> str | None:
    """A part of the reason why it is not defined for a case; None where it is."""
    return UNDEFINED.get(case.name, {}).get(operation)


def table() -> str:
    """The page's table: what is defined for which model."""
    lines = [
        "| | `model_type` | " + " | ".join(COLUMNS) + " |",
        "|---|---|" + "---|" * len(COLUMNS),
    ]
    for case in CASES:
        cells = []
        for column, operations in COLUMNS.items():
            assert len({refusal(case, o) is None for o in operations}) == 1
            said = PARTLY.get((case.name, column), "yes")
            cells.append("-" if refusal(case, operations[0]) else said)
        lines.append(f"| {case.name} | `{case.model_type}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def measured() -> Iterator[str]:
    """A table of what every operation says of every case, with one and with two images a prompt:
    raises where one fails.
    """
    pairs = [(column, n) for column in ("padded = plain", "packed = plain") for n in (1, 2)]
    yield "| | " + " | ".join(f"{c}, {n} image{'s' * (n > 1)}" for c, n in pairs) + " | others |"
    yield "|---|" + "---|" * (len(pairs) + 1)
    for case in CASES:
        loaded, found, passed = tiny_loaded(case), {}, 0
        for name, operation in OPERATIONS.items():
            for images in (1, 2):
                if reason := refusal(case, name):
                    _refused(operation, Subject(case, loaded, images), reason)
                    continue
                found[name, images] = operation(Subject(case, loaded, images))
                passed += found[name, images] is None
        cells = [f"{found[pair]:.1e}" if pair in found else "refused" for pair in pairs]
        yield f"| {case.name} | " + " | ".join(cells) + f" | {passed} agree |"


def _refused(operation: Callable[[Subject], float | None], subject: Subject, reason: str) -> None:
    said = ""
    try:
        operation(subject)
    except UsageError as e:
        said = e.why
    assert reason in said, f"{subject.case.name} is not refused"


HEAD = """# Every family through its real processor

`make families`: tiny random models (3 layers, 32 features, fp32) of every family, each with the processor class of its family, and prompts with one or two
tall, wide and tiny pictures in a batch. The columns are the largest difference of any token's log-probability from the model's own plain forward pass over what
the processor alone returns, without padding; 1e-4 would fail. *Others* counts the operations (twice each, with one and two images) whose results agree with an
independent way: [tests/family_matrix.py](../../tests/family_matrix.py).
"""


def main(root: Path) -> None:
    """Write both tables."""
    results = root / "benchmarks" / "results" / "families.md"
    results.write_text(HEAD + "\n" + "\n".join(measured()) + "\n")
    page = root / "docs" / "families.md"
    before, mark, rest = page.read_text().partition("| | `model_type`")
    _, _, after = (mark + rest).partition("\n\n")
    page.write_text(before + table() + "\n\n" + after)


if __name__ == "__main__":
    main(Path(__file__).parents[1])
