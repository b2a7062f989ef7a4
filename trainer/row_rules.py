"""What a stage does about rows of its data that it cannot train on."""

from dataclasses import dataclass, field

from franken.generate.native import Prompt, Refused, encode_prompts
from franken.models.loading import Loaded
from franken.tasks import Item
from franken.tasks.look import look
from franken.tasks.sources import canonical
from trainer.collectives import all_reduce_sum
from trainer.data import Conversation
from trainer.evaluate import prompts_of
from trainer.public import Report, is_here
from trainer.recipe import Recipe
from trainer.stages import AskingStage

CHECKED = 200  # rows of a stage's data that are read before it starts


def failing_rows(recipe: Recipe) -> dict[str, dict[str, int]]:
    """Why rows of a recipe's data fail, by source, with how many of the first ones do; of sources
    that are here.
    """
    sources = [stage.data for stage in recipe.stages if isinstance(stage, AskingStage)]
    here = dict.fromkeys(data for data in sources if data and is_here(data))
    found = {data: look(canonical(data), shown=0, checked=CHECKED).errors for data in here}
    return {data: errors for data, errors in found.items() if errors}


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
        """The same of the first question of a conversation."""
        return self._obstacle(Prompt(conversation.turns[0][0], tuple(conversation.images)))

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
