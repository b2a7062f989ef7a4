"""Replies of an evaluation that exists, to be scored instead of drawn: `--from RUN`.

An evaluation keeps the text of a reply and not its tokens, whichever engine drew it. The text is
tokenised anew, with the end token where the reply was not cut off; a text that does not come back
from its tokens is a failed row. The tokens may be others than were drawn, where a text has several
spellings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from franken.errors import FrankenError, UsageError
from franken.evaluate.metrics import GREEDY
from franken.forks.rows import ARM
from franken.runs import LoadedRun, load_run

if TYPE_CHECKING:
    import pandas as pd


class Told(NamedTuple):
    """A stored reply: which draw of which prompt, what it says, and whether it was cut off; or why
    there is none.
    """

    sample: str
    draw: int
    output: str
    truncated: bool
    error: str | None


class Asked(NamedTuple):
    """The questions of an evaluation."""

    tasks: tuple[str, ...]
    samples: int
    seed: int
    data: str | None


@dataclass(frozen=True)
class Stored:
    """An evaluation of one of the two models: `side` 0 is a, 1 is b."""

    run: LoadedRun
    side: int
    asked: Asked

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self.run.folder

    @property
    def tasks(self) -> tuple[str, ...]:
        """Its tasks; none where its data has them."""
        return self.asked.tasks

    @property
    def samples(self) -> int:
        """Prompts per task."""
        return self.asked.samples

    @property
    def seed(self) -> int:
        """By which its questions were drawn."""
        return self.asked.seed

    @property
    def data(self) -> str | None:
        """Where its questions are from; None for puzzles."""
        return self.asked.data

    def chosen(self, prompts: Sequence[str], draws: int, temperature: float) -> list[Told]:
        """The replies to some prompts: the greedy one at temperature 0, else the first `draws`."""
        rows = self._rows()
        wanted = [GREEDY] if temperature == 0 else list(range(draws))
        rows = rows[rows["sample"].isin(list(prompts)) & rows["draw"].isin(wanted)]
        place = {sample: number for number, sample in enumerate(prompts)}
        told = [
            Told(
                str(row["sample"]),
                int(row["draw"]),
                row["output"] or "",
                bool(row["truncated"]),
                row["error"] or row["ineligible"],
            )
            for row in _records(rows)
        ]
        return sorted(told, key=lambda t: (place[t.sample], t.draw))

    def _rows(self) -> pd.DataFrame:
        rows = self.run.answers("method", "sample", "draw", "output", "truncated", "error")
        return rows[rows["method"] == ARM]


def _records(rows: pd.DataFrame) -> list[Mapping[str, Any]]:
    columns = ["sample", "draw", "output", "truncated", "error", "ineligible"]
    table = rows[columns].astype(object)
    return table.where(table.notna(), None).to_dict("records")  # pyright: ignore[reportReturnType] - columns have names


def read_stored(folder: Path, contents: Sequence[str]) -> Stored:
    """An evaluation of one of the two models with these content hashes. Raises UsageError for a run
    of something else, FrankenError for one that is not finished.
    """
    run = load_run(folder)
    if run.verb != "eval" or run.graft is not None:
        raise UsageError(
            f"{folder} holds no replies of a checkpoint",
            why=f"it is a run of {run.verb}{' of a hybrid' if run.graft else ''}",
            fix="give a run folder of franken eval",
        )
    if run.content not in contents:
        raise UsageError(
            f"{folder} holds replies of another model",
            why=f"it evaluated {next(iter(run.manifest.models.values()), run.label)}",
            fix="give evaluations of the two models that are compared",
        )
    config = run.manifest.config
    if ARM not in config.arms or config.samples is None:
        raise UsageError(
            f"{folder} holds no replies to the image",
            why=f"its arms are {', '.join(config.arms)}",
            fix="evaluate with --arms image",
        )
    tasks = tuple(config.tasks or ())
    asked = Asked(tasks, config.samples, config.seed, config.data)
    return Stored(run, contents.index(run.content), asked)


def tokenised(tokenizer: Any, told: Told) -> list[int]:
    """A stored reply as tokens. Raises FrankenError for an empty one, and for a text that its
    tokens do not give back.
    """
    ids = list(tokenizer(told.output, add_special_tokens=False)["input_ids"])
    if not ids:
        raise FrankenError("an empty reply has no tokens to score")
    again = tokenizer.decode(ids, skip_special_tokens=True)
    if "".join(again.split()) != "".join(told.output.split()):
        raise FrankenError("the stored text does not come back from its tokens")
    return ids if told.truncated else [*ids, tokenizer.eos_token_id]
