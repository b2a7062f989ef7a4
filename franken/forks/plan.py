"""What `franken forks` will do, resolved before a model is loaded, and what it will take."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypedDict

from franken import tasks as puzzles
from franken.checkpoints import Checkpoint, fingerprint, open_checkpoint
from franken.errors import UsageError, check_known, check_positive
from franken.evaluate.source import labels_of
from franken.forks.controls import FORKS, RULES
from franken.forks.stored import Stored, read_stored
from franken.tasks.questions import Questions, questions_of
from franken.tasks.sources import canonical, contents

MOST = 0.6931471805599453  # log 2, the largest JS
PASSES = 4  # over a reply: two models, each with the image and without
PROMPT_TOKENS = 512  # taken for a prompt; the true number is known once an image is processed


@dataclass(frozen=True)
class Budget:
    """At most how many tokens of the other model a reply may take: a number, a share of the
    writer's own reply (rounded, at least one), or both None: as many as there are.
    """

    count: int | None = None
    share: float | None = None

    def of(self, length: int) -> int:
        """For a reply whose own length is this."""
        if self.share is not None:
            return max(1, round(self.share * length))
        return self.count if self.count is not None else 1 << 30


def parse_budget(text: str) -> Budget:
    """`3`, `5%`, or nothing. Raises UsageError."""
    if not text:
        return Budget()
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%|(\d+)", text.strip())
    if found and found[2] and int(found[2]) > 0:
        return Budget(count=int(found[2]))
    if found and found[1] and 0 < float(found[1]) <= 100:
        return Budget(share=float(found[1]) / 100)
    raise UsageError(
        f"cannot read the budget {text!r}",
        "it bounds how many tokens of a reply may be the other model's",
        "write --budget 3 for a number of tokens, --budget 5% for a share of them",
    )


@dataclass(frozen=True)
class ForkPlan:
    """Everything that is resolved: `checkpoints` and `labels` of a and b, what is asked, how
    replies are drawn, from which JS on (nats) a token is a fork, and the rules of cross-sampling.
    """

    checkpoints: tuple[Checkpoint, Checkpoint]
    labels: tuple[str, str]
    tasks: tuple[str, ...]
    samples: int
    draws: int
    temperature: float
    threshold: float
    budget: Budget
    rules: tuple[str, ...]
    seed: int
    max_new_tokens: int
    data: str | None
    stored: tuple[Stored, ...] = ()

    @property
    def samples_own(self) -> bool:
        """Whether the models write replies of their own: to be scored, or to be crossed."""
        return bool(self.rules) or not self.stored

    @cached_property
    def questions(self) -> Questions:
        """The questions, those of the stored replies where there are some."""
        if not self.stored:
            return questions_of(self.tasks, self.samples, self.seed, self.data)
        first = self.stored[0]
        asked = questions_of(first.tasks, first.samples, first.seed, first.data)
        kept, seen = [], dict.fromkeys((item.task for item in asked.items), 0)
        for item in asked.items:
            seen[item.task] += 1
            if seen[item.task] <= self.samples and (not self.tasks or item.task in self.tasks):
                kept.append(item)
        return Questions(kept, asked.seen)

    @property
    def n_requested(self) -> int:
        """Rows that the run will hold."""
        prompts = [item.id for item in self.questions.items]
        stored = sum(len(s.chosen(prompts, self.draws, self.temperature)) for s in self.stored)
        own = 2 * len(prompts) * self.draws
        return stored + own * (self.samples_own + len(self.rules))

    @property
    def identity(self) -> Mapping[str, object]:
        """Everything that changes the numbers."""
        return {
            "models": [fingerprint(checkpoint) for checkpoint in self.checkpoints],
            **self.config,
            "contents": contents(self.data) if self.data else None,
            "stored": [stored.folder.name for stored in self.stored],
        }

    @property
    def config(self) -> Mapping[str, object]:
        """The resolved options."""
        return {
            "labels": list(self.labels),
            "tasks": list(self.tasks),
            "samples": self.samples,
            "draws": self.draws,
            "temperature": self.temperature,
            "threshold": self.threshold,
            "budget": self.budget.count if self.budget.share is None else f"{self.budget.share:%}",
            "rules": list(self.rules),
            "seed": self.seed,
            "max_new_tokens": self.max_new_tokens,
            "data": self.data,
        }


def plan_forks(
    a: str,
    b: str,
    *,
    labels: Sequence[str] | None = None,
    tasks: Sequence[str] = (),
    samples: int = 50,
    draws: int = 4,
    temperature: float = 1.0,
    threshold: float = 0.1,
    budget: str = "",
    rules: Sequence[str] = RULES,
    stored: Sequence[Path | str] = (),
    seed: int = 0,
    max_new_tokens: int = 64,
    data: Path | str | None = None,
) -> ForkPlan:
    """Resolve and check the options; a is the earlier model. Raises UsageError for what cannot be,
    FrankenError for checkpoints and runs that cannot be read.
    """
    checkpoints = (open_checkpoint(a), open_checkpoint(b))
    names = labels_of([a, b], labels)
    check_known("rule", rules, RULES, fix="--rules none only scores")
    counts = {"--samples": samples, "--draws": draws, "--max-new-tokens": max_new_tokens}
    for what, number in counts.items():
        check_positive(what, number)
    if not 0 < threshold < MOST:
        raise UsageError(
            f"no token can be a fork at --threshold {threshold:g}",
            why="JS divergences lie between 0 and log 2 = 0.693 nats",
            fix="0.1 is usual",
        )
    if temperature < 0 or (temperature == 0 and draws > 1):
        raise UsageError(
            f"{draws} draws at temperature {temperature:g}",
            why="greedy replies are all the same, and no temperature is negative",
            fix="--draws 1 --temperature 0 is greedy",
        )
    chosen = tuple(name for name in RULES if name in (*rules, *([FORKS] if rules else [])))
    read = tuple(read_stored(Path(run), [fingerprint(c) for c in checkpoints]) for run in stored)
    _check_together(read)
    names_of_tasks = tuple(dict.fromkeys(tasks))
    if read:
        first = read[0]
        check_known("task", names_of_tasks, first.tasks or names_of_tasks)
        seed, data = first.seed, first.data
        names_of_tasks = names_of_tasks or first.tasks
    elif data is None:
        names_of_tasks = names_of_tasks or tuple(puzzles.names())
        for name in names_of_tasks:
            puzzles.get(name)
    return ForkPlan(
        checkpoints=checkpoints,
        labels=(names[0], names[1]),
        tasks=names_of_tasks,
        samples=samples,
        draws=draws,
        temperature=temperature,
        threshold=threshold,
        budget=parse_budget(budget),
        rules=chosen,
        seed=seed,
        max_new_tokens=max_new_tokens,
        data=canonical(data) if data else None,
        stored=read,
    )


def _check_together(stored: Sequence[Stored]) -> None:
    for other in stored[1:]:
        if other.asked != stored[0].asked:
            raise UsageError(
                f"{stored[0].folder.name} and {other.folder.name} ask different questions",
                why="their tasks, samples, seed or data differ",
                fix="give runs of one evaluation",
            )
    if len({s.side for s in stored}) < len(stored):
        raise UsageError(
            "two runs of one model", "its replies would count twice", "give one run a model"
        )


class ForkCost(TypedDict):
    """`forwards` are passes over a batch, decoding steps counted to the longest reply; `scored`
    replies are read whole, by two models with the image and without. `memory_mib`: both models'
    weights, and the keys and values of a batch for prompts of `PROMPT_TOKENS` tokens.
    """

    models: list[str]
    prompts: int
    replies: int
    scored: int
    crossed: int
    forwards: int
    memory_mib: int


def cost(plan: ForkPlan, batch_size: int = 64) -> ForkCost:
    """What the plan takes."""
    prompts = len(plan.questions.items)
    own = 2 * prompts * plan.draws if plan.samples_own else 0
    crossed = 2 * prompts * plan.draws * len(plan.rules)
    scored = plan.n_requested - crossed
    steps = plan.max_new_tokens
    batches = -(-prompts // max(1, batch_size // plan.draws))
    decoding = batches * steps * ((2 if own else 0) + 2 * 2 * len(plan.rules))
    return {
        "models": list(plan.labels),
        "prompts": prompts,
        "replies": plan.n_requested,
        "scored": scored,
        "crossed": crossed,
        "forwards": decoding + PASSES * -(-scored // batch_size),
        "memory_mib": round(
            sum(_bytes(c, batch_size, PROMPT_TOKENS + steps) for c in plan.checkpoints) / 2**20
        ),
    }


def _bytes(checkpoint: Checkpoint, rows: int, tokens: int) -> int:
    """Weights, keys and values in fp32, and the logits of a step."""
    config = checkpoint.config
    text = config.get("text_config") or config
    hidden, heads = text.get("hidden_size", 1), text.get("num_attention_heads", 1)
    width = text.get("head_dim") or hidden // heads
    kv = 2 * 4 * text.get("num_key_value_heads", heads) * width * checkpoint.depths["text"]
    return checkpoint.nbytes + rows * (tokens * kv + 4 * text.get("vocab_size", 1))
