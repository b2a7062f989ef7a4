"""The loop of `franken forks`: both models write, both read all replies, and then each writes with
the other's tokens at some places. Every reply is a row, resumable.

No reply depends on what it was drawn with, so a run that was interrupted goes on and ends in the
same numbers. Crossed replies come after all scored ones: a control goes by the forks of its own
reply, and by those of others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from franken.errors import FrankenError
from franken.evaluate.arms import prompt_for
from franken.evaluate.source import Source
from franken.forks.controls import (
    ELSEWHERE,
    ENTROPY,
    FORKS,
    RANDOM,
    Draw,
    Forked,
    least_entropy,
    places_of_another,
    random_places,
)
from franken.forks.plan import ForkPlan
from franken.forks.rows import ARM, OWN, STORED, ForkRow, crossed_row, lost_row, scored_row
from franken.forks.stored import tokenised
from franken.generate.engine import Sampling
from franken.runs import Run, open_run

if TYPE_CHECKING:
    from franken.forks.cross import Rule
    from franken.forks.score import Models
    from franken.generate.engine import Prompt
    from franken.tasks import Item

CHUNK = 16  # prompts between two writes: what an interrupt can lose
Progress = Callable[[int, int, str], None]
Key = tuple[str, str, str, int]  # model, method, sample, draw
ANEW = "stored replies were tokenised anew: their tokens may be others than were drawn"


def run_forks(
    plan: ForkPlan,
    *,
    out: Path,
    device: str = "auto",
    dtype: str = "auto",
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Path:
    """Run or resume; returns the run's folder. A complete run is returned as it is, without loading
    anything.
    """
    sources = [Source(str(c.folder), device, dtype) for c in plan.checkpoints]
    identity = {**plan.identity, "dtype": dtype, "device": device.split(":")[0]}
    config = {**plan.config, "device": device, "dtype": dtype, "batch_size": batch_size}
    models = dict(zip(plan.labels, (s.folder for s in sources), strict=True))
    label = "-".join(plan.labels)
    with open_run("forks", label, identity, out, config=config, models=models) as run:
        if run.is_complete():
            return run.folder
        from franken.forks.score import Models
        from franken.forks.summary import summarise

        loaded = Models(sources[0].loaded(), sources[1].loaded())
        loaded.check()
        work = _Work(plan, run, loaded, batch_size, progress)
        work.do()
        import pandas as pd

        samples = pd.DataFrame(run.rows())
        layers, results = summarise(samples, plan.labels, plan.threshold, _words(loaded))
        return run.finish(
            layers,
            n_requested=plan.n_requested,
            warnings=[ANEW] if plan.stored else [],
            extra=results,
        )


def _words(models: Models) -> Callable[[int], str]:
    return lambda token: str(models.a.tokenizer.decode([token], skip_special_tokens=False)).strip()


class _Reply(NamedTuple):
    """A reply that is to be scored: whose, how it was made, and its tokens; or why it is lost."""

    side: int
    method: str
    draw: int
    text: str = ""
    ids: Sequence[int] = ()
    truncated: bool = False
    error: str | None = None


class _Work:
    """One run while it goes on."""

    def __init__(
        self,
        plan: ForkPlan,
        run: Run,
        models: Models,
        batch_size: int,
        progress: Progress | None,
    ) -> None:
        self.plan, self.run, self.models, self.batch_size = plan, run, models, batch_size
        self.progress = progress
        self.have: set[Key] = {_key(row) for row in run.rows()}
        self.total = plan.n_requested
        prompts = [item.id for item in plan.questions.items]
        self.told = [
            (stored.side, told)
            for stored in plan.stored
            for told in stored.chosen(prompts, plan.draws, plan.temperature)
        ]

    def do(self) -> None:
        """All that is missing."""
        for items in self._chunks(CHUNK):
            self._score(items)
        rows = self.run.rows()
        for side in (0, 1):
            for rule in self.plan.rules:
                self._cross(side, rule, rows)
                rows = self.run.rows() if rule == FORKS else rows

    def _chunks(self, size: int) -> Iterator[list[Item]]:
        items = self.plan.questions.items
        for start in range(0, len(items), size):
            yield items[start : start + size]

    def _store(self, rows: Sequence[ForkRow], what: str) -> None:
        fresh = [row for row in rows if _key(row) not in self.have]
        self.run.append(fresh)
        self.have |= {_key(row) for row in fresh}
        if self.progress:
            self.progress(len(self.have), self.total, what)

    # scoring

    def _score(self, items: Sequence[Item]) -> None:
        plan, ids = self.plan, {item.id for item in items}
        wanted = [
            (plan.labels[side], STORED, told.sample, told.draw)
            for side, told in self.told
            if told.sample in ids
        ]
        if plan.samples_own:
            wanted += [
                (label, OWN, i.id, draw)
                for label in plan.labels
                for i in items
                for draw in range(plan.draws)
            ]
        if all(key in self.have for key in wanted):
            return
        seen = plan.questions.seen(items)
        obstacles = {item.id: _obstacle(item) for item in seen}
        usable = [item for item in seen if obstacles[item.id] is None]
        prompts = [prompt_for(item, ARM) for item in usable]
        replies: dict[str, list[_Reply]] = {item.id: [] for item in seen}
        self._add_stored(replies)
        if plan.samples_own:
            self._add_own(usable, prompts, replies)
            for item in seen:
                if error := obstacles[item.id]:
                    replies[item.id] += [
                        _Reply(side, OWN, d, error=error)
                        for side in (0, 1)
                        for d in range(plan.draws)
                    ]
        self._store(self._scored(seen, usable, prompts, replies), "scoring")

    def _add_stored(self, replies: dict[str, list[_Reply]]) -> None:
        tokenizer = self.models.a.tokenizer
        for side, told in self.told:
            if told.sample not in replies:
                continue
            reply = _Reply(side, STORED, told.draw, told.output, (), told.truncated, told.error)
            if not told.error:
                try:
                    reply = reply._replace(ids=tokenised(tokenizer, told))
                except FrankenError as e:
                    reply = reply._replace(error=e.what)
            replies[told.sample].append(reply)

    def _add_own(
        self,
        items: Sequence[Item],
        prompts: Sequence[Prompt],
        replies: dict[str, list[_Reply]],
    ) -> None:
        from franken.generate.native import generate

        for side, loaded in enumerate((self.models.a, self.models.b)):
            drawn = generate(loaded, prompts, self._sampling(), batch_size=self.batch_size)
            for item, responses in zip(items, drawn, strict=True):
                replies[item.id] += [
                    _Reply(side, OWN, draw, r.text, r.ids, r.truncated, r.error)
                    for draw, r in enumerate(responses)
                ]

    def _scored(
        self,
        items: Sequence[Item],
        usable: Sequence[Item],
        prompts: Sequence[Prompt],
        replies: dict[str, list[_Reply]],
    ) -> list[ForkRow]:
        from franken.forks.score import score_replies

        number = {item.id: i for i, item in enumerate(usable)}
        good = [
            (item, reply) for item in usable for reply in replies[item.id] if reply.error is None
        ]
        scores = score_replies(
            self.models,
            prompts,
            [(number[item.id], list(reply.ids)) for item, reply in good],
            batch_size=self.batch_size,
        )
        labels, tokenizer = self.plan.labels, self.models.a.tokenizer
        rows = [
            scored_row(
                labels[r.side],
                r.method,
                item,
                r.draw,
                r.text,
                r.ids,
                r.truncated,
                found,
                tokenizer,
            )
            for (item, r), found in zip(good, scores, strict=True)
        ]
        return rows + [
            lost_row(labels[r.side], r.method, item, r.draw, r.error or str(_obstacle(item)))
            for item in items
            for r in replies[item.id]
            if r.error is not None or item.id not in number
        ]

    # crossing

    def _sampling(self) -> Sampling:
        plan = self.plan
        return Sampling(plan.draws, plan.temperature, plan.max_new_tokens, plan.seed)

    def _cross(self, side: int, rule: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """One model writes, with the other's tokens where a rule says."""
        from franken.forks.cross import cross_sample

        plan, writer = self.plan, self.plan.labels[side]
        pair = (self.models.a, self.models.b) if side == 0 else (self.models.b, self.models.a)
        own = {_draw(r): r for r in rows if r["model"] == writer and r["method"] == OWN}
        forked = _forked(own, rows, writer, "entropy_b" if side else "entropy_a")
        what = f"{writer} with the other's tokens: {rule}"
        for items in self._chunks(max(1, self.batch_size // plan.draws)):
            keys = [(writer, rule, i.id, d) for i in items for d in range(plan.draws)]
            if all(key in self.have for key in keys):
                continue
            draws = {i.id: [(i.task, i.id, d) for d in range(plan.draws)] for i in items}
            errors = {
                i.id: next((own[d]["error"] for d in draws[i.id] if own[d]["error"]), None)
                for i in items
            }
            usable = plan.questions.seen([i for i in items if errors[i.id] is None])
            stored = [
                lost_row(writer, rule, i, d, str(errors[i.id]))
                for i in items
                if errors[i.id]
                for d in range(plan.draws)
            ]
            if usable:
                rows_of = [d for i in usable for d in draws[i.id]]
                decides, budgets = self._rule(rule, rows_of, own, forked)
                prompts = [prompt_for(item, ARM) for item in usable]
                drawn = cross_sample(*pair, prompts, self._sampling(), decides, budgets)
                stored += [
                    crossed_row(writer, rule, item, draw, crossed)
                    for item, replies in zip(usable, drawn, strict=True)
                    for draw, crossed in enumerate(replies)
                ]
            self._store(stored, what)

    def _rule(
        self,
        rule: str,
        draws: Sequence[Draw],
        own: Mapping[Draw, Mapping[str, Any]],
        forked: Mapping[Draw, Forked],
    ) -> tuple[Rule, list[int]]:
        """What decides, and how many places each row may have."""
        from franken.forks.cross import at_places, where_they_part, where_unsure

        if rule == FORKS:
            budgets = [self.plan.budget.of(len(own[draw]["ids"])) for draw in draws]
            return where_they_part(self.plan.threshold), budgets
        counts, seed = [len(forked[draw].places) for draw in draws], self.plan.seed
        if rule == ENTROPY:
            return where_unsure([least_entropy(forked[draw]) for draw in draws]), counts
        if rule == RANDOM:
            return at_places([random_places(seed, d, forked[d]) for d in draws]), counts
        assert rule == ELSEWHERE
        return at_places([places_of_another(seed, d, forked) for d in draws]), counts


def _forked(
    own: Mapping[Draw, Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    writer: str,
    entropy: str,
) -> dict[Draw, Forked]:
    """What the controls go by, of every draw that has its forks. `entropy`: the writer's column."""
    found: dict[Draw, Forked] = {}
    for row in rows:
        if row["model"] != writer or row["method"] != FORKS or row["error"] is not None:
            continue
        before = own[_draw(row)]
        places = [int(place) for place in row["places"]]
        unsure = [float(value) for value in before[entropy]]
        found[_draw(row)] = Forked(len(before["ids"]), unsure, places)
    return found


def _obstacle(item: Item) -> str | None:
    """Why an item cannot be asked."""
    return item.error or (None if item.question else "the item has no question")


def _draw(row: Mapping[str, Any]) -> Draw:
    return str(row["task"]), str(row["sample"]), int(row["draw"])


def _key(row: Mapping[str, Any]) -> Key:
    return str(row["model"]), str(row["method"]), str(row["sample"]), int(row["draw"])
