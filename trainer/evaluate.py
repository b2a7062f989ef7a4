"""A quick look at held-out puzzles while training: acc@1 and acc@4 with sampling at temperature one."""

from collections.abc import Iterable

from franken import tasks
from franken.generate.native import Prompt, Sampling, generate
from franken.models.loading import Loaded
from franken.stats import acc_at_k
from trainer.sft import LESSON_KINDS

ITEMS_PER_TASK = 16
DRAWS = 4
SEED = 77


def quick_look(loaded: Loaded, names: Iterable[str], *, max_new_tokens: int = 64) -> dict[str, float]:
    """`{"acc@1", "acc@4", "acc@1/<task>"}`; macro averages over tasks, always on the same held-out puzzles."""
    scores: dict[str, float] = {}
    firsts, fourths = [], []
    for name in (n for n in names if n not in LESSON_KINDS):
        items = tasks.get(name).items(ITEMS_PER_TASK, SEED, "test")
        prompts = [Prompt(i.question, (i.image,) if i.image else (), i.id) for i in items]
        replies = generate(loaded, prompts, Sampling(DRAWS, 1.0, max_new_tokens, SEED))
        right = [sum(tasks.grade(r.text, i).score == 1 for r in rs) for i, rs in zip(items, replies, strict=True)]
        firsts.append(sum(acc_at_k(DRAWS, c, 1) for c in right) / len(right))
        fourths.append(sum(acc_at_k(DRAWS, c, 4) for c in right) / len(right))
        scores[f"acc@1/{name}"] = firsts[-1]
    if not firsts:
        return {}
    return {"acc@1": sum(firsts) / len(firsts), "acc@4": sum(fourths) / len(fourths), **scores}
