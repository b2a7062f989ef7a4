"""Supervised stages: worked solutions of puzzles, or the lessons that make the creature's Base.

A batch is a pure function of (stage seed, step), so that a resumed run sees the same data as an
uninterrupted one. Which of a puzzle's strategies is shown is drawn uniformly: the model learns them
all, and RL may choose.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from franken import tasks
from franken.tasks import lessons
from franken.tasks.puzzle import child_rng, draw_state, make_item, split_of
from trainer.data import Batch, Conversation, encode
from trainer.distributed import total
from trainer.templates import DEFAULT, TEMPLATES, Template, instruction, write

LESSON_KINDS = ("caption", "tally", "early-dialogue", "dialogue")
DIALOGUE_WEIGHT = 2.0


def next_batch(
    loaded: Any,
    mixture: Mapping[str, float],
    size: int,
    *,
    seed: int,
    step: int,
    shape: Template = TEMPLATES[DEFAULT],
    instruct: bool = False,
    mine: slice = slice(None),
) -> Batch:
    """The batch of one step. `mixture` weighs puzzles and lesson kinds by name; solutions are
    written in `shape`.

    `mine` cuts it to the examples of this rank.
    """
    ask = f"{instruction(shape)}\n" if instruct else ""
    places = range(step * size, (step + 1) * size)[mine]
    return encode(
        loaded, [conversation(mixture, seed=seed, index=i, shape=shape, ask=ask) for i in places]
    )


def conversation(
    mixture: Mapping[str, float],
    *,
    seed: int,
    index: int,
    shape: Template = TEMPLATES[DEFAULT],
    ask: str = "",
) -> Conversation:
    """The `index`-th example of a stream: a puzzle with one worked solution, or a lesson about a
    grid.
    """
    rng = child_rng("sft", seed, index)
    name = rng.choices(list(mixture), list(mixture.values()))[0]
    if name in LESSON_KINDS:
        return _lesson(name, rng)
    puzzle = tasks.get(name)
    state = draw_state(puzzle, rng, "train")
    item = make_item(puzzle, "", state, puzzle.ask(state, rng), rng.getrandbits(32))
    solution = write(shape, item, rng.choice(sorted(item.solutions)))
    return Conversation(item.image, [(ask + item.question, solution)])


def loss(model: Any, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """Weighted mean cross-entropy over supervised tokens of all ranks; only their logits are made.

    Returns this rank's part of the scalar to differentiate, and `{"loss", "token_accuracy",
    "tokens"}` of all ranks.
    """
    hidden = model.model(**batch.inputs, use_cache=False).last_hidden_state[:, :-1]
    targets = batch.labels[:, 1:]
    supervised = targets >= 0
    logits = model.get_output_embeddings()(hidden[supervised]).float()
    wanted = targets[supervised]
    weights = batch.weights[:, None].expand_as(targets)[supervised]
    per_token = F.cross_entropy(logits, wanted, reduction="none")
    own = float((batch.weights * supervised.sum(1)).sum())
    part = (per_token * weights).sum() / total([own])[0]
    hits = int((logits.argmax(-1) == wanted).sum())
    loss, right, tokens = total([part.item(), hits, wanted.numel()])
    return part, {"loss": loss, "token_accuracy": right / tokens, "tokens": tokens}


def _lesson(name: str, rng: Any) -> Conversation:
    while True:
        grid = lessons.lesson_grid(rng)
        if split_of(lessons.world.describe(grid)) == "train":
            break
    shares = lessons.EARLY_SHARES if name == "early-dialogue" else lessons.LATE_SHARES
    kind = "dialogue" if name.endswith("dialogue") else name
    turns = lessons.lesson(kind, grid, rng, shares)
    image = lessons.world.render(grid, rng.getrandbits(32))
    return Conversation(image, turns, DIALOGUE_WEIGHT if kind == "dialogue" else 1.0)
