"""Scores of replies: against scipy, a sort, sums by hand, and a pass over the whole text; exactly 0
for one model twice.
"""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr
from tiny_processors import tiny_loaded

from franken import tasks
from franken.errors import FrankenError
from franken.forks import divergence
from franken.forks.score import COLUMNS, Models, score_replies
from franken.generate import Prompt, Sampling, encode_prompts, generate
from franken.models import creature
from franken.models.loading import load, wrap

FAMILIES = ["qwen2_5_vl", "qwen3_vl", "gemma3", "internvl", "llava_onevision", "smolvlm", "qwen2"]
DIVERGENCES = ("js", "kl_ab", "kl_ba")


@pytest.fixture(scope="module")
def models(sft_creature):
    """Two that differ, little enough to part at some tokens only."""
    other = load("creature:sft", device="cpu")
    with torch.no_grad():
        torch.manual_seed(0)
        for layer in other.model.get_decoder().layers:
            layer.mlp.down_proj.weight.add_(0.1 * torch.randn(layer.mlp.down_proj.weight.shape))
    return Models(sft_creature, other)


def prompts(n: int, name: str = "count") -> list[Prompt]:
    return [Prompt(i.question, (i.image,), i.id) for i in tasks.get(name).items(n, 3, "test")]


def drawn(loaded, asked, n=2):
    """Replies as (prompt, ids)."""
    rows = generate(loaded, asked, Sampling(n, 1.0, 40, seed=1))
    return [(i, r.ids) for i, row in enumerate(rows) for r in row]


@torch.no_grad()
def whole(loaded, prompt, ids):
    """Log-probabilities after the prompt and each token, by one plain pass over all of it."""
    batch = encode_prompts(loaded, [prompt]).append(ids)
    logits = loaded.model(**batch, use_cache=False).logits[0, -len(ids) - 1 : -1]
    logits[:, loaded.banned_ids] = -1e9
    return torch.log_softmax(logits.double(), -1)


def test_the_mathematics_against_scipy_a_sort_and_sums_by_hand():
    torch.manual_seed(1)
    banned = torch.tensor([2, 7])
    logits = torch.randn(2, 9, 50) * torch.tensor([0.1, 1, 8]).repeat(3)[:, None]
    a, b = (divergence.log_probs(side, banned) for side in logits)
    p, q = a.exp().numpy(), b.exp().numpy()
    assert (p[:, [2, 7]] == 0).all()
    assert np.allclose(p.sum(1), 1)
    assert np.allclose(divergence.js(a, b), jensenshannon(p, q, axis=1) ** 2, atol=1e-13)
    assert np.allclose(divergence.kl(a, b), rel_entr(p, q).sum(1), atol=1e-12)
    by_hand = [-math.fsum(x * math.log(x) for x in row if x > 0) for row in p]
    assert np.allclose(divergence.entropy(a), by_hand, atol=1e-12)
    order = np.argsort(-p, axis=1)
    for token in (0, 3, 49):
        places = [list(row).index(token) + 1 for row in order]
        assert divergence.rank(a, torch.full((9,), token)).tolist() == places


def test_distributions_that_share_nothing_are_log_2_apart_and_equal_ones_0():
    apart = torch.full((2, 4), -5000.0)
    apart[0, 0] = apart[1, 1] = 5000.0
    a, b = (divergence.log_probs(row[None], torch.tensor([3])) for row in apart)
    assert float(divergence.js(a, b)) == pytest.approx(math.log(2))
    assert float(divergence.js(a, a)) == float(divergence.kl(a, a)) == 0.0


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_read_behind_a_prompt_is_what_a_whole_pass_reads(family, monkeypatch):
    from franken.forks import score

    monkeypatch.setattr(score, "AT_ONCE", 5 * 96)  # several chunks
    if family == "qwen2":
        from tiny_processors import tiny_tokenizer

        from franken.models.tiny import tiny

        one, two = (wrap(tiny(family), None, tiny_tokenizer("")) for _ in range(2))
        asked = [Prompt("w3 w4"), Prompt("w8")]
    else:
        one, two = tiny_loaded(family), tiny_loaded(family)
        asked = [
            Prompt("w3 w4", (Image.new("RGB", (56, 28), "red"),)),
            Prompt("w8", (Image.new("RGB", (56, 28), "blue"),)),
        ]
    torch.manual_seed(3)
    with torch.no_grad():
        for weight in two.model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    models = Models(one, two)
    replies = [(0, [11, 12, 13, 14, 15]), (1, [21]), (1, [31, 32, 33])]
    scores = score_replies(models, asked, replies)
    for (number, ids), found in zip(replies, scores, strict=True):
        a, b = (whole(m, asked[number], ids) for m in (one, two))
        said = torch.tensor(ids)
        assert np.allclose(found.js, divergence.js(a, b), atol=1e-5)
        assert np.allclose(found.kl_ab, divergence.kl(a, b), atol=1e-4)
        assert np.allclose(found.logp_b, b[range(len(ids)), said], atol=1e-4)
        assert np.allclose(found.entropy_a, divergence.entropy(a), atol=1e-4)
        assert found.rank_a == divergence.rank(a, said).tolist()
        assert found.top_b == b.argmax(-1).tolist()
        if family == "qwen2":
            assert found.vision_a is None
            continue
        dark = Prompt(asked[number].text, (Image.new("RGB", (56, 28)),))
        blind = whole(two, dark, ids)
        assert np.allclose(found.vision_b, divergence.kl(b, blind), atol=1e-4)
        assert max(found.vision_b) > 0.01


def test_one_model_twice_is_0_everywhere(sft_creature):
    asked = prompts(3) + [Prompt("How many are red?", (), "blind")]
    twin = load("creature:sft", device="cpu")
    scores = score_replies(Models(sft_creature, twin), asked, drawn(sft_creature, asked))
    assert all(value == 0.0 for s in scores for name in DIVERGENCES for value in getattr(s, name))
    assert all(s.rank_a == s.rank_b and s.top_a == s.top_b for s in scores)
    assert all(set(s.top_a_in_b) == {1} for s in scores)
    assert [s.vision_a is None for s in scores] == [False] * 6 + [True] * 2


def test_scores_do_not_depend_on_what_they_are_scored_with(models):
    asked = prompts(3) + prompts(2, "sum")
    replies = drawn(models.a, asked)
    together = score_replies(models, asked, replies)
    for (number, ids), found in zip(replies, together, strict=True):
        alone = score_replies(models, [asked[number]], [(0, ids)])[0]
        assert all(len(getattr(found, name)) == len(ids) for name in COLUMNS)
        assert np.allclose(found.js, alone.js, atol=1e-5)
        assert np.allclose(found.vision_b, alone.vision_b, atol=1e-3)
        assert found.rank_b == alone.rank_b


def test_the_divergences_of_a_s_tokens_add_up_to_the_log_ratio_of_its_sequences(models):
    """The chain rule: E[Σ_t KL_t] = E[log π_a(y) − log π_b(y)] over a's samples."""
    asked = prompts(2) + prompts(2, "sum")
    scores = score_replies(models, asked, drawn(models.a, asked, n=40))
    sums = np.array([sum(s.kl_ab) for s in scores])
    ratios = np.array([sum(s.logp_a) - sum(s.logp_b) for s in scores])
    gaps = ratios - sums  # mean 0 for every prompt, whatever the prompt
    error = gaps.std(ddof=1) / math.sqrt(len(gaps))
    assert sums.mean() > 5 * error, "the two models hardly differ: the test would not see a fault"
    assert abs(gaps.mean()) < 3 * error
    backwards = np.array([sum(s.kl_ba) for s in scores])
    assert abs((backwards - ratios).mean()) > 3 * error  # the other direction is not the same


def test_what_cannot_be_compared_is_refused(models):
    with pytest.raises(FrankenError, match="an empty reply"):
        score_replies(models, prompts(1), [(0, [])])
    small = tiny_loaded("qwen2_5_vl")
    with pytest.raises(FrankenError, match="token by token"):
        score_replies(Models(models.a, small), prompts(1), [(0, [1])])
    processor = creature.build_processor()
    processor.tokenizer.chat_template = processor.chat_template = processor.chat_template.replace(
        "<|im_start|>assistant", "<|im_start|>user"
    )
    other = wrap(models.b.model, processor, processor.tokenizer)
    with pytest.raises(FrankenError, match="as different tokens"):
        score_replies(Models(models.a, other), prompts(1), [(0, [20])])
