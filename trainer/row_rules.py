"""What a stage does about rows of its data that it cannot train on."""

from collections import Counter
from dataclasses import dataclass, field

from franken.generate.native import Prompt, Refused, encode_prompts
from franken.models.loading import Loaded
from franken.tasks import Item
from franken.tasks.look import look, short_reason
from franken.tasks.marks import MARK
from franken.tasks.sources import canonical, open_stream
from trainer.collectives import all_reduce_sum
from trainer.data import Conversation
from trainer.evaluate import prompts_of
from trainer.public import Report, is_here
from trainer.recipe import Recipe
from trainer.stages import AskingStage, SftStage

CHECKED = 200  # rows of a stage's data that are read before it starts
AT_ONCE = 64  # of them in memory


def failing_rows(recipe: Recipe) -> dict[str, dict[str, int]]:
    """Why rows of a recipe's data fail, by source, with how many of the first ones do; of sources
    that are here.
    """
    found: dict[str, dict[str, int]] = {}
    for stage in recipe.stages:
        if not isinstance(stage, AskingStage) or not stage.data or not is_here(stage.data):
            continue
        if isinstance(stage, SftStage):
            found[stage.data] = _failing_conversations(stage.data)
        elif stage.data not in found:
            found[stage.data] = look(canonical(stage.data), shown=0, checked=CHECKED).errors
    return {data: errors for data, errors in found.items() if errors}


def _failing_conversations(data: str) -> dict[str, int]:
    stream = open_stream(canonical(data))
    errors: Counter[str] = Counter()
    for first in range(0, min(CHECKED, stream.size), AT_ONCE):
        rows = range(first, min(first + AT_ONCE, CHECKED, stream.size))
        errors.update(short_reason(said.error) for said in stream.converse(rows) if said.error)
    return dict(errors.most_common())


@dataclass
class RowRules:
    """The rules of one step on one rank, and the rows that it skipped."""

    loaded: Loaded | None
    stage: AskingStage
    bad: list[tuple[int, str]] = field(default_factory=list)

    def obstacle(self, item: Item) -> str | None:
        """Why the stage cannot ask a question: the processor refuses it, or it is too long, its
        images' tokens included.
        """
        return self._obstacle(prompts_of(self.stage, [item])[0])

    def obstacle_to_learning(self, conversation: Conversation) -> str | None:
        """The same of the first question of a conversation, its images and the system's words."""
        questions = [question for question, _ in conversation.turns]
        images = conversation.images
        later = sum(question.count(MARK) for question in questions[1:]) if images else 0
        first = "\n\n".join(filter(None, (conversation.system, questions[0])))
        shown = tuple(images[: len(images) - later])
        return self._obstacle(Prompt(first, shown)) or next(
            (
                why
                for image in images[len(shown) :]
                if (why := self._obstacle(Prompt("", (image,))))
            ),
            None,
        )

    def _obstacle(self, prompt: Prompt) -> str | None:
        most = self.stage.max_prompt_tokens
        if self.loaded is None:
            return None
        try:
            tokens = encode_prompts(self.loaded, [prompt]).tokens
        except Refused as e:
            return f"the processor refuses it: {e.why}"
        if not most:
            return None
        return f"its prompt has {tokens} tokens, more than {most}" if tokens > most else None

    @property
    def skipped(self) -> Report | None:
        """Where skipped rows are counted; None where a bad row stops the run."""
        if self.stage.on_bad_row == "stop":
            return None
        return lambda row, why: self.bad.append((row, why))

    def counts(self) -> dict[str, float]:
        """The step's metric, over all ranks."""
        if self.stage.on_bad_row == "stop" or not self.stage.data:
            return {}
        return {"skipped_rows": all_reduce_sum([float(len(self.bad))])[0]}
