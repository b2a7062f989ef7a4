"""A quick look at held-out questions while training: acc@1 and acc@4 with sampling at temperature
one.
"""

from collections.abc import Sequence

from franken import tasks
from franken.generate.native import Prompt, Sampling, generate
from franken.models.loading import Loaded
from franken.stats import acc_at_k
from franken.tasks import Item
from franken.tasks.marks import blind
from trainer.algorithms.groups import Metrics
from trainer.creature.align import AlignStage
from trainer.creature.lessons import LESSONS
from trainer.data import Conversation
from trainer.held_out_loss import held_out_loss
from trainer.public import held_out_conversations, held_out_items
from trainer.recipe import AnyStage
from trainer.stages import AskingStage, GrpoStage, SftStage, View
from trainer.templates import instruction, template

ITEMS_PER_TASK = 16
DRAWS = 4
SEED = 77
ANSWER_TOKENS = 64  # of a stage that does not say


def quick_look(loaded: Loaded, stage: AnyStage) -> Metrics:
    """`{"acc@1", "acc@4"}` of a stage's held-out questions, always the same ones, asked as the
    stage asks.

    Of puzzles, macro averages over tasks with `acc@1/<task>` beside them; of data, the mean over
    its `held_out` rows; of supervised data, `held_out_loss`. Empty where a stage has neither.
    """
    if isinstance(stage, AlignStage):
        return {}
    if isinstance(stage, SftStage) and stage.held_out:
        return held_out_loss(loaded, _held_out_replies(stage), stage.batch)
    if isinstance(stage, GrpoStage) and stage.held_out:
        by_task = {"": held_out_rows(stage)}
    else:
        by_task = {n: tasks.get(n).items(ITEMS_PER_TASK, SEED, "test") for n in puzzles_of(stage)}
    if not by_task:
        return {}
    accuracy = {name: _accuracy(loaded, stage, items) for name, items in by_task.items()}
    first, fourth = (sum(column) / len(column) for column in zip(*accuracy.values(), strict=True))
    return {
        "acc@1": first,
        "acc@4": fourth,
        **{f"acc@1/{name}": value for name, (value, _) in accuracy.items() if name},
    }


def held_out_rows(stage: GrpoStage) -> list[Item]:
    """A stage's held-out questions, by its rules for images and bad rows."""
    skip = stage.on_bad_row == "skip"
    return held_out_items(stage.data, stage.held_out, stage.max_pixels, skip=skip)


def _held_out_replies(stage: SftStage) -> list[Conversation]:
    return held_out_conversations(
        stage.data,
        stage.held_out,
        ask=request_of(stage),
        max_pixels=stage.max_pixels,
        skip=stage.on_bad_row == "skip",
    )


def puzzles_of(stage: AskingStage) -> list[str]:
    """The puzzles that a stage trains on, lessons left out."""
    return [name for name in stage.tasks if name not in LESSONS]


def prompts_of(stage: AskingStage, items: Sequence[Item]) -> list[Prompt]:
    """Questions as the stage asks them."""
    request = request_of(stage)
    return [asked_with(request, item, stage.view) for item in items]


def request_of(stage: AskingStage) -> str:
    """What a stage puts before every question: its template's request, where it instructs, on a
    line of its own.
    """
    shape = template(stage.shape if isinstance(stage, GrpoStage) else stage.template)
    return f"{instruction(shape)}\n" if stage.instruct else ""


def asked_with(request: str, item: Item, view: View = "image") -> Prompt:
    """A question after a request, with all its images or its description, as `view` says; the words
    of `franken.evaluate.arms.prompt_for`.
    """
    shown = (item.image, *item.more_images) if item.image and view in ("image", "both") else ()
    described = item.description if view in ("text", "both") else ""
    question = item.question if shown or not item.image else blind(item.question)
    return Prompt(request + " ".join(filter(None, (described, question))), shown, item.id)


def longest_answer(stage: AskingStage) -> int:
    """New tokens that an answer may have when a stage is evaluated."""
    return stage.max_new_tokens if isinstance(stage, GrpoStage) else ANSWER_TOKENS


def _accuracy(loaded: Loaded, stage: AskingStage, items: Sequence[Item]) -> tuple[float, float]:
    sampling = Sampling(DRAWS, 1.0, longest_answer(stage), SEED)
    replies = generate(loaded, prompts_of(stage, items), sampling)
    right = [
        sum(tasks.grade(r.text, i).score == 1 for r in rs)
        for i, rs in zip(items, replies, strict=True)
    ]
    one, four = (sum(acc_at_k(DRAWS, count, k) for count in right) / len(right) for k in (1, 4))
    return one, four
