"""Supervised stages: worked solutions of puzzles, or lessons (trainer/creature/lessons.py).

A batch is a pure function of (stage seed, step), so that a resumed run sees the same data as an
uninterrupted one. Which of a puzzle's strategies is shown is drawn uniformly, or by the stage's
weights: the model learns what is shown, and RL may choose among it.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from franken import tasks
from franken.errors import check_known
from franken.models.loading import Loaded
from franken.tasks.puzzle import child_rng, draw_state, make_item
from trainer.algorithms.groups import Metrics
from trainer.collectives import all_reduce_sum, on_every_process
from trainer.creature.lessons import LESSONS
from trainer.data import Batch, Conversation, encode
from trainer.distributed import local_slice
from trainer.evaluate import asked_with, request_of
from trainer.optimizer import backpropagate
from trainer.public import public_conversations
from trainer.row_rules import RowRules
from trainer.sft_packing import backward as packed_backward
from trainer.sft_packing import pack_examples
from trainer.stages import Mixture, SftStage, Strategies, View
from trainer.templates import DEFAULT, TEMPLATES, Template, instruction, template, write
from trainer.towers import in_step


def sft_step(
    loaded: Loaded,
    stage: SftStage,
    optimizer_step: Callable[[], float],
    *,
    seed: int,
    step: int,
    progress: float = 0.0,
) -> Metrics:
    """One supervised update (`trainer.steps.StageStep`). Raises FrankenError where the loss is not
    finite.
    """
    rules = RowRules(loaded, stage)
    if stage.data:
        batch = encode(loaded, _rows(stage, rules, seed=seed, step=step))
    else:
        batch = next_batch(
            loaded,
            stage.tasks,
            stage.batch,
            seed=seed,
            step=step,
            shape=template(stage.template),
            instruct=stage.instruct,
            mine=local_slice(stage.batch),
            view=stage.view,
            strategies=stage.strategies,
        )
    counts = rules.counts()
    if stage.packed:
        rows = pack_examples(loaded, batch, stage.token_budget)
        return {**packed_backward(loaded, rows), "grad_norm": optimizer_step(), **counts}
    (part, metrics), zero = in_step(loaded, batch.inputs, lambda: loss(loaded, batch))
    backpropagate(part + zero, step)
    return {**metrics, "grad_norm": optimizer_step(), **counts}


def _rows(stage: SftStage, rules: RowRules, *, seed: int, step: int) -> list[Conversation]:
    """This rank's rows of a step."""
    mine = local_slice(stage.batch)
    return on_every_process(
        lambda: public_conversations(
            stage.data,
            mine.stop - mine.start,
            seed=seed,
            step=step,
            first=mine.start,
            width=stage.batch,
            held_out=stage.held_out,
            ask=request_of(stage),
            max_pixels=stage.max_pixels,
            check=rules.obstacle_to_learning,
            skipped=rules.skipped,
        )
    )


def next_batch(
    loaded: Loaded,
    mixture: Mixture,
    size: int,
    *,
    seed: int,
    step: int,
    shape: Template = TEMPLATES[DEFAULT],
    instruct: bool = False,
    mine: slice = slice(None),
    view: View = "image",
    strategies: Strategies | None = None,
) -> Batch:
    """The batch of one step. `mixture` weighs puzzles and lesson kinds by name; solutions are
    written in `shape`.

    `mine` cuts it to the examples of this rank.
    """
    ask = f"{instruction(shape)}\n" if instruct else ""
    places = range(step * size, (step + 1) * size)[mine]
    return encode(
        loaded,
        [
            conversation(
                mixture, seed=seed, index=i, shape=shape, ask=ask, view=view, strategies=strategies
            )
            for i in places
        ],
    )


def conversation(
    mixture: Mixture,
    *,
    seed: int,
    index: int,
    shape: Template = TEMPLATES[DEFAULT],
    ask: str = "",
    view: View = "image",
    strategies: Strategies | None = None,
) -> Conversation:
    """The `index`-th example of a stream: a puzzle in a `view`, with one worked solution, or a
    lesson about a grid.
    """
    rng = child_rng("sft", seed, index)
    name = rng.choices(list(mixture), list(mixture.values()))[0]
    if name in LESSONS:
        return LESSONS[name](rng)
    puzzle = tasks.get(name)
    state = draw_state(puzzle, rng, "train")
    item = make_item(puzzle, "", state, puzzle.ask(state, rng), rng.getrandbits(32))
    shares = (strategies or {}).get(name)
    if shares is None:
        strategy = rng.choice(sorted(item.solutions))
    else:
        check_known(f"strategy of {name}", list(shares), sorted(item.solutions))
        strategy = rng.choices(list(shares), list(shares.values()))[0]
    asked = asked_with(ask, item, view)
    image = asked.images[0] if asked.images else None
    return Conversation(image, [(asked.text, write(shape, item, strategy))])


def loss(loaded: Loaded, batch: Batch) -> tuple[Tensor, Metrics]:
    """Weighted mean cross-entropy over supervised tokens of all ranks; only their logits are made.

    Returns this rank's part of the scalar to differentiate, and `{"loss", "token_accuracy",
    "tokens"}` of all ranks.
    """
    hidden = loaded.model.model(**batch.inputs, use_cache=False).last_hidden_state[:, :-1]
    targets = batch.labels[:, 1:]
    supervised = targets >= 0
    logits = loaded.family.logits(loaded.model, hidden[supervised]).float()
    wanted = targets[supervised]
    weights = batch.weights[:, None].expand_as(targets)[supervised]
    per_token = F.cross_entropy(logits, wanted, reduction="none")
    own = float((batch.weights * supervised.sum(1)).sum())
    part = (per_token * weights).sum() / all_reduce_sum([own])[0]
    hits = int((logits.argmax(-1) == wanted).sum())
    loss, right, tokens = all_reduce_sum([part.item(), hits, wanted.numel()])
    return part, {"loss": loss, "token_accuracy": right / tokens, "tokens": tokens}
