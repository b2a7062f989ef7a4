"""A packed group against the rows it replaces: log-probabilities, gradients, masks, memory."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from franken.errors import UsageError
from franken.models.batch import ModelBatch
from franken.models.loading import wrap
from franken.models.tiny import IMAGE, tiny, tiny_inputs
from trainer.freeze import apply_freeze
from trainer.masks import block_mask, dense_mask, segments
from trainer.packing import (
    as_rows,
    by_budget,
    chunked_logprobs,
    pack,
    packed_logprobs,
    share_frozen,
    token_mask,
)
from trainer.policy import response_logprobs, take_rows
from trainer.towers import with_features

RESPONSES = [[7, 9, 11, 8], [12], [9, 9, 30, 31, 32, 33], [14, 15]]


class Tokenizer:
    """What the family asks of a tokenizer: nothing is banned beside the vision tokens."""

    eos_token_id = 1

    def get_vocab(self):
        return {}


def encoded(model_type):
    """A tiny model, and two prompts of unequal length, the first one padded on the left."""
    loaded = wrap(tiny(model_type).train(False), None, Tokenizer())
    inputs = tiny_inputs(model_type, 2)
    lead = torch.tensor([[0, 0], [5, 6]])
    ids = torch.cat([lead, inputs["input_ids"]], 1)
    mask = torch.cat([torch.tensor([[0, 0], [1, 1]]), inputs["attention_mask"]], 1)
    given = {**inputs, "input_ids": ids, "attention_mask": mask}
    images = [int("pixel_values" in inputs)] * 2
    return loaded, ModelBatch.of(loaded.model, given, images)


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("prompt", [0, 1])
@pytest.mark.parametrize(
    ("model_type", "features"),
    [
        ("qwen2_5_vl", False),
        ("qwen2_5_vl", True),
        ("qwen3_vl", False),
        ("qwen3_vl", True),
        ("llava_onevision", False),
        ("qwen2", False),
    ],
)
def test_a_packed_group_equals_its_rows(model_type, prompt, features):
    """Log-probabilities, entropies, and the gradients of a weighted sum, with and without a trained
    vision tower.
    """
    loaded, batch = encoded(model_type)
    if features:
        for parameter in loaded.family.seeing(loaded.model):
            parameter.requires_grad_(False)
        batch = with_features(loaded, batch)
        assert "mm_encoder_outputs" in batch
    rows = take_rows(loaded, batch, [prompt] * len(RESPONSES), RESPONSES)
    expected, entropy = response_logprobs(loaded, rows, 0.8)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0))
    (expected * weights * rows.mask).sum().backward()
    wanted = gradients(loaded.model)
    loaded.model.zero_grad()
    packed = pack(loaded, batch, prompt, RESPONSES)
    found, ours = packed_logprobs(loaded, packed, 0.8, chunk=3)
    count = len(RESPONSES)
    assert torch.equal(token_mask(packed, count), rows.mask)
    assert torch.allclose(as_rows(packed, found, count), expected, atol=1e-5, rtol=0)
    assert torch.allclose(as_rows(packed, ours, count), entropy, atol=1e-5, rtol=0)
    (as_rows(packed, found, count) * weights * rows.mask).sum().backward()
    got = gradients(loaded.model)
    assert set(got) == set(wanted)
    for name, gradient in wanted.items():
        assert torch.allclose(got[name], gradient, atol=1e-5, rtol=1e-4), name


def test_the_prompt_is_there_once():
    loaded, batch = encoded("qwen2_5_vl")
    packed = pack(loaded, batch, 0, RESPONSES)
    assert packed.inputs.input_ids.shape == (1, 8 + sum(map(len, RESPONSES)))
    assert len(packed.inputs["pixel_values"]) == 16
    assert packed.inputs.is_image.sum() == 4


def laid_out(lengths, prompt, images=()):
    """The segments of a packed row; `images` are spans of the prompt."""
    owner = [0] * prompt + [j + 1 for j, n in enumerate(lengths) for _ in range(n)]
    place = [*range(prompt), *(prompt + k for n in lengths for k in range(n))]
    seen = [any(start <= i < stop for start, stop in images) for i in range(len(owner))]
    return segments(torch.tensor(owner), torch.tensor(place), torch.tensor(seen))


def naive_mask(lengths, prompt, images=(), window=0):
    """Every sequence written out by itself, with the mask that it would have alone."""
    size = prompt + sum(lengths)
    mask = torch.zeros(size, size, dtype=torch.bool)
    first = prompt
    for n in lengths or [0]:
        own = [*range(prompt), *range(first, first + n)]
        for i, query in enumerate(own):
            for j, key in enumerate(own):
                shared = any(a <= i < b and a <= j < b for a, b in images)
                near = i - j < window if window else True
                mask[query, key] |= (j <= i or shared) and near
        first += n
    return mask


@given(
    st.integers(1, 9),
    st.lists(st.integers(1, 7), min_size=1, max_size=5),
    st.integers(0, 6),
    st.booleans(),
)
def test_the_dense_mask_is_the_rule_written_out(prompt, lengths, window, both_ways):
    images = [(0, prompt // 2), (prompt // 2 + 1, prompt)] if both_ways else []
    of = laid_out(lengths, prompt, [(0, prompt // 2), (prompt // 2 + 1, prompt)])
    found = dense_mask(of, window=window, both_ways=both_ways)[0, 0]
    assert torch.equal(found, naive_mask(lengths, prompt, images, window))


@pytest.mark.parametrize("kind", [{}, {"window": 40, "both_ways": True}])
def test_the_block_mask_is_the_dense_one(kind):
    """Every pair by its rule; and no block is skipped that holds a pair that may be seen."""
    owner = laid_out([140, 200, 22], 150, [(10, 60), (61, 90)])
    blocks, dense = block_mask(owner, **kind), dense_mask(owner, **kind)[0, 0]
    at = torch.arange(len(owner))
    rule = blocks.mask_mod(torch.tensor(0), torch.tensor(0), at[:, None], at[None, :])
    assert torch.equal(rule, dense)
    size = blocks.BLOCK_SIZE[0]
    coarse = blocks.to_dense()[0, 0].bool()
    for i, j in torch.cartesian_prod(
        torch.arange(coarse.shape[0]), torch.arange(coarse.shape[1])
    ).tolist():
        seen = dense[i * size : (i + 1) * size, j * size : (j + 1) * size].any()
        assert bool(coarse[i, j]) == bool(seen), (i, j)
    assert not coarse.all()


@pytest.mark.gpu
def test_flex_attention_equals_sdpa_on_a_gpu():
    loaded, batch = encoded("qwen2_5_vl")
    loaded = replace(loaded, model=loaded.model.cuda(), device=torch.device("cuda"))
    batch = batch.to("cuda")
    packed = pack(loaded, batch, 1, RESPONSES)
    dense, _ = packed_logprobs(loaded, packed, 1.0, flex=False)
    flex, _ = packed_logprobs(loaded, packed, 1.0)
    assert torch.allclose(dense, flex, atol=1e-4)


@pytest.mark.slow  # compiles a kernel
def test_flex_attention_equals_sdpa_on_a_cpu():
    loaded, batch = encoded("qwen2_5_vl")
    packed = pack(loaded, batch, 1, RESPONSES)
    with torch.no_grad():
        dense, _ = packed_logprobs(loaded, packed, 1.0)
        flex, _ = packed_logprobs(loaded, packed, 1.0, flex=True)
    assert torch.allclose(dense, flex, atol=1e-5)
    assert loaded.model.get_decoder().config._attn_implementation == "sdpa"


def test_chunks_do_not_show_and_the_logits_are_never_whole():
    torch.manual_seed(0)
    head = torch.nn.Linear(16, 500, bias=False)
    hidden, targets = torch.randn(40, 16, requires_grad=True), torch.randint(0, 500, (40,))
    sizes = []
    head.register_forward_hook(lambda module, given, made: sizes.append(len(made)))
    logp, entropy = chunked_logprobs(hidden, head, targets, 0.7, [3, 4], chunk=7)
    logp.sum().backward()
    assert max(sizes) == 7
    gradient, hidden.grad = hidden.grad.clone(), None
    logits = (hidden @ head.weight.T / 0.7).index_fill(1, torch.tensor([3, 4]), -1e9)
    whole = torch.distributions.Categorical(logits=logits)
    assert torch.allclose(logp, whole.log_prob(targets), atol=1e-5)
    assert torch.allclose(entropy, whole.entropy(), atol=1e-5)
    assert not entropy.requires_grad
    whole.log_prob(targets).sum().backward()
    assert torch.allclose(gradient, hidden.grad, atol=1e-5)


@given(
    st.integers(1, 50), st.lists(st.integers(1, 40), min_size=1, max_size=20), st.integers(20, 120)
)
def test_token_budgets_hold(prompt, lengths, budget):
    rows = by_budget(prompt, lengths, budget)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    for row in rows:
        assert len(row) == 1 or prompt + sum(lengths[i] for i in row) <= budget
    for one, two in pairwise(
        rows
    ):  # first fit: what opened the second row did not fit into the first
        longest = max(lengths[i] for i in two)
        earlier = [lengths[i] for i in one if lengths[i] >= longest]
        assert prompt + sum(earlier) + longest > budget


def test_frozen_lower_layers_have_no_graph():
    loaded, batch = encoded("qwen2_5_vl")
    inner = loaded.model.model
    layers = loaded.model.get_decoder().layers
    for module in (inner.visual, loaded.model.get_input_embeddings(), layers[0]):
        module.requires_grad_(False)
    needs = []
    hooks = [
        layer.register_forward_hook(
            lambda m, i, o: needs.append((o[0] if isinstance(o, tuple) else o).requires_grad)
        )
        for layer in layers
    ]
    packed_logprobs(loaded, pack(loaded, batch, 0, RESPONSES), 1.0)
    for hook in hooks:
        hook.remove()
    assert needs == [False, True, True]


def test_a_reference_shares_what_is_frozen():
    policy, reference = tiny("qwen2_5_vl"), tiny("qwen2_5_vl")
    policy.model.visual.requires_grad_(False)
    saved = share_frozen(reference, policy)
    assert saved == sum(p.numel() * 4 for p in policy.model.visual.parameters())
    theirs = dict(reference.named_parameters())
    for name, p in policy.named_parameters():
        assert (theirs[name].data_ptr() == p.data_ptr()) == (not p.requires_grad)
    assert share_frozen(reference, policy) == 0
    with torch.no_grad():
        next(policy.get_decoder().parameters()).add_(1)
    policy.get_decoder().requires_grad_(False)
    with pytest.raises(UsageError, match="differs in the reference"):
        share_frozen(reference, policy)


def test_linear_attention_is_refused():
    loaded = wrap(tiny("qwen3_5"), None, Tokenizer())
    batch = ModelBatch.of(loaded.model, tiny_inputs("qwen3_5"), [1])
    with pytest.raises(UsageError, match="cannot be packed") as caught:
        pack(loaded, batch, 0, RESPONSES)
    assert "linear attention" in caught.value.why
    assert "packed: false" in caught.value.fix


GRIDS = [(1, 4, 4), (1, 4, 8), (1, 8, 4)]


def sized(family, frozen=()):
    """Three prompts whose images differ in size, left-padded: the batch as encoded, and with
    features where frozen.
    """
    loaded = wrap(tiny(family), None, None)
    apply_freeze(loaded.model, list(frozen))
    generator = torch.Generator().manual_seed(0)
    words = [torch.randint(2, 60, (3 + i,), generator=generator).tolist() for i in range(3)]
    prompts = [
        [5, *[IMAGE] * (h * w // 4), *tail] for (_, h, w), tail in zip(GRIDS, words, strict=True)
    ]
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    grids = torch.tensor(GRIDS)
    raw = {"input_ids": ids, "attention_mask": mask, "image_grid_thw": grids}
    raw["pixel_values"] = torch.randn(
        int(grids.prod(1).sum()), 3 * 2 * 14 * 14, generator=generator
    )
    return loaded, raw, with_features(loaded, ModelBatch.of(loaded.model, raw, [1, 1, 1]))


def alone(loaded, raw, prompt, response, temperature):
    """A response by itself after its prompt, without padding, with the model's own positions and
    causal mask.
    """
    kept = raw["input_ids"][prompt][raw["attention_mask"][prompt].bool()]
    ids = torch.cat([kept, torch.tensor(response)])[None]
    ends = raw["image_grid_thw"].prod(1).cumsum(0).tolist()
    grid = raw["image_grid_thw"][prompt : prompt + 1]
    pixels = raw["pixel_values"][ends[prompt] - int(grid.prod()) : ends[prompt]]
    kinds = (ids == IMAGE).int()
    output = loaded.model(
        input_ids=ids, pixel_values=pixels, image_grid_thw=grid, mm_token_type_ids=kinds
    )
    banned = torch.tensor(loaded.family.banned_token_ids(loaded.model.config, None))
    logits = (output.logits[0, len(kept) - 1 : -1] / temperature).index_fill(1, banned, -1e9)
    spread = torch.distributions.Categorical(logits=logits)
    return spread.log_prob(torch.tensor(response)), spread.entropy()


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize(
    "frozen", [(), ("vision", "projector"), ("vision", "projector", "embed", "text:0-2")]
)
def test_packed_equals_each_response_alone_for_images_of_every_size(family, frozen):
    """Log-probabilities, entropies and the gradient of both, against the model's own forward."""
    loaded, raw, batch = sized(family, frozen)
    for prompt in range(3):
        weights = torch.linspace(-1, 1, sum(map(len, RESPONSES)))
        packed = pack(loaded, batch, prompt, RESPONSES)
        logp, entropy = packed_logprobs(loaded, packed, 0.7, entropy_grad=True)
        loaded.model.zero_grad()
        ((logp + 0.1 * entropy) * weights).sum().backward()
        together = gradients(loaded.model)
        single = [alone(loaded, raw, prompt, r, 0.7) for r in RESPONSES]
        own, spread = (torch.cat(parts) for parts in zip(*single, strict=True))
        assert torch.allclose(logp, own, atol=1e-5)
        assert torch.allclose(entropy, spread, atol=1e-5)
        loaded.model.zero_grad()
        ((own + 0.1 * spread) * weights).sum().backward()
        apart = gradients(loaded.model)
        assert apart.keys() == together.keys()
        assert len(apart) > 10
        for name, gradient in apart.items():
            assert torch.allclose(together[name], gradient, atol=1e-5, rtol=1e-4), name
