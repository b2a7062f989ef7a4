"""`franken forks`' scores of 200 replies against two naive passes a token.

The naive way is what one writes first: for every token of every reply, both models read the prompt
and what was said so far, and their two distributions are compared. Ours reads a prompt once and its
replies whole behind it, and with a black image too, which the naive way leaves out: so it does
twice as much. Both compare in double precision over the whole vocabulary, and what they find is
compared first. Processor seconds, alternating in one process on one thread.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.processes import setting
from franken import tasks
from franken.forks import divergence
from franken.forks.score import Models, Reply, score_replies
from franken.generate import Prompt, Sampling, encode_prompts, generate
from franken.models.loading import load

TASKS = ("read", "count", "sum", "compare")
ALLOWED = 1e-4  # nats, between the two ways: single precision in the models


@torch.no_grad()
def naive(models: Models, prompts: list[Prompt], replies: list[Reply]) -> list[list[float]]:
    """JS of every token; the other numbers are computed as well."""
    banned, found = models.banned, []
    for number, ids in replies:
        row = []
        for t, token in enumerate(ids):
            a, b = (
                divergence.log_probs(
                    m.model(**encode_prompts(m, [prompts[number]]).append(ids[:t])).logits[:, -1],
                    banned,
                )
                for m in (models.a, models.b)
            )
            said = torch.tensor([token])
            for p, q in ((a, b), (b, a)):
                divergence.kl(p, q), divergence.entropy(p)
                divergence.rank(p, said), divergence.rank(q, p.argmax(-1))
            row.append(float(divergence.js(a, b)))
        found.append(row)
    return found


def ours(models: Models, prompts: list[Prompt], replies: list[Reply]) -> list[list[float]]:
    """JS of every token, beside all that `franken forks` stores."""
    return [scores.js for scores in score_replies(models, prompts, replies)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--first", default="creature:base")
    parser.add_argument("--second", default="creature:sft")
    parser.add_argument("--replies", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    models = Models(load(options.first, device="cpu"), load(options.second, device="cpu"))
    each = -(-options.replies // (4 * len(TASKS)))
    items = [i for name in TASKS for i in tasks.get(name).items(each, 0, "test")]
    prompts = [Prompt(i.question, i.pictures, i.id) for i in items]
    drawn = generate(models.b, prompts, Sampling(4, 1.0, 48))
    replies = [(i, r.ids) for i, row in enumerate(drawn) for r in row][: options.replies]
    tokens = sum(len(ids) for _, ids in replies)
    seconds: dict[str, list[float]] = {"naive": [], "ours": []}
    for _ in range(options.rounds):
        found = {}
        for name, way in (("naive", naive), ("ours", ours)):
            began = time.process_time()
            found[name] = way(models, prompts, replies)
            seconds[name].append(time.process_time() - began)
        gaps = [
            abs(x - y)
            for a, b in zip(found["naive"], found["ours"], strict=True)
            for x, y in zip(a, b, strict=True)
        ]
        assert max(gaps) < ALLOWED, max(gaps)
    ratios = [a / b for a, b in zip(seconds["naive"], seconds["ours"], strict=True)]
    print(f"{setting('torch', 'transformers')}, one thread, fp32\n")
    print("| replies | tokens | CPU s naive | CPU s ours | times (range) |")
    print("|---|---|---|---|---|")
    middle = {name: statistics.median(of) for name, of in seconds.items()}
    print(
        f"| {len(replies)} | {tokens} | {middle['naive']:.1f} | {middle['ours']:.2f} | "
        f"{statistics.median(ratios):.0f} ({min(ratios):.0f}-{max(ratios):.0f}) |"
    )


if __name__ == "__main__":
    main()
