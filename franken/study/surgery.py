"""`franken merge-sweep --along rank,top,random`: how little of the update is enough, and how little
is needed?

For every size of a part of the update (`franken.merge.parts`: the R leading directions of every
matrix, the P % of elements that changed most) two hybrids answer the same questions as the base and
the donor: the base with that part alone, and the donor without it. A part that recovers the gain is
enough; one whose absence loses it is needed; where both hold the gain the update is redundant, and
"dominant" is not "necessary". Random parts of equal size stand beside both curves.

Everything happens in memory, as in `franken.study.sweep`; a matrix is decomposed once for all
ranks.

Source: rank, arXiv 2510.00553; elements, arXiv 2505.11711. Neither runs the complement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from franken.checkpoints import fingerprint, open_checkpoint
from franken.errors import UsageError, check_known, check_positive
from franken.evaluate.graft import Graft
from franken.evaluate.metrics import per_prompt
from franken.evaluate.run import plan_eval, run_eval
from franken.merge.claims import pieces_of
from franken.merge.parts import DROP, KEEP, NULL_OF, WHOLE, Part
from franken.merge.plan import plan_layers
from franken.merge.recipe import EVERYTHING
from franken.runs import LoadedRun, load_run, open_run
from franken.study.surgery_rows import METRIC, RANDOM, Cut, rows_of
from franken.study.sweep import counted
from franken.tasks.sources import contents

VERB = "surgery"
ALONG = ("rank", "top", *WHOLE, RANDOM)
RANK_SIZES, SHARE_SIZES = (1, 4, 16), (0.1, 1.0, 10.0)
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Surgery:
    """Everything that is tried: `cuts` of the update of `layers` and `components` (every tensor
    where both are empty).
    """

    base: str
    donor: str
    layers: str
    components: tuple[str, ...]
    cuts: tuple[Cut, ...]
    take: tuple[str, ...]

    @property
    def evaluations(self) -> int:
        """How many models answer: the hybrids, the base, and the donor."""
        return len(self.cuts) + 2

    def graft(self, cut: Cut) -> Graft:
        """The hybrid, as it is evaluated."""
        take = () if self.layers else (EVERYTHING,)
        kept, dropped = (str(cut.part) if cut.how == how else "" for how in (KEEP, DROP))
        return Graft(
            cut.label,
            self.donor,
            self.layers,
            take,
            keep=kept,
            drop=dropped,
            components=self.components,
            draw=cut.draw,
        )


def plan_surgery(
    base: str,
    donor: str,
    *,
    along: Sequence[str],
    ranks: Sequence[int] = RANK_SIZES,
    shares: Sequence[float] = SHARE_SIZES,
    controls: int = 1,
    layers: str = "",
    components: Sequence[str] = (),
    allow: Sequence[str] = (),
) -> Surgery:
    """The hybrids, from the headers alone. `shares` are in percent; `controls` random parts of each
    size, if `along` names them.

    Raises UsageError for sizes that cannot be and for checkpoints that differ in a way that is not
    in `allow`.
    """
    check_known("--along", along, ALONG)
    parts = [Part(kind) for kind in along if kind in WHOLE]
    parts += [Part("rank", float(r)) for r in sorted(set(ranks))] if "rank" in along else []
    parts += [Part("top", p / 100) for p in sorted(set(shares))] if "top" in along else []
    if not parts:
        raise UsageError(
            "--along names no part of the update",
            "random parts stand beside others",
            "write --along rank,top,random",
        )
    for rank in ranks:
        check_positive("--ranks", rank)
    if not all(0 < share <= 100 for share in shares):
        raise UsageError("--shares are percentages", "above 0, up to 100", "write --shares .1,1,10")
    check_positive("--controls", controls)
    one, two = open_checkpoint(base), open_checkpoint(donor)
    take = pieces_of(one)
    plan_layers(one, two, "all", take=take, allow=allow)
    if components and not layers:
        layers = "all"
    cuts = [
        cut
        for part in parts
        for how in (KEEP, DROP)
        for cut in (
            Cut(how, part, part),
            *(_nulls(how, part, controls) if RANDOM in along else ()),
        )
    ]
    made = Surgery(base, donor, layers, tuple(components), tuple(cuts), take)
    if layers:
        plan_layers(one, two, layers, allow=allow)
    return made


def _nulls(how: str, part: Part, controls: int) -> list[Cut]:
    """Random parts of equal size; kinds without one have none."""
    kind = NULL_OF.get(part.kind)
    return [Cut(how, Part(kind, part.size), part, draw) for draw in range(controls) if kind]


def run_surgery(
    surgery: Surgery,
    *,
    out: Path,
    tasks: Sequence[str] | None = None,
    samples: int = 100,
    n: int = 4,
    k: Sequence[int] = (1,),
    seed: int = 0,
    max_new_tokens: int = 64,
    data: Path | str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    progress: Progress | None = None,
) -> Path:
    """Evaluate all of it; the run folder. Evaluations that are complete are not repeated.

    layers.parquet holds, for every hybrid (`method` keep or drop, `component` the part) and task,
    `gain acc@1` over the base, paired, with p Holm-adjusted over the hybrids that are no nulls; and
    over all tasks `recovered`, the share of the donor's gain, `over random` (keep) and `below
    random` (drop), the paired difference from the mean of the random parts of equal size; and, by
    part, `redundancy`: what the part and all but it recover together, over 1.
    """
    models = [open_checkpoint(surgery.base), open_checkpoint(surgery.donor)]
    plan = plan_eval(
        tasks=tasks,
        samples=samples,
        n=n,
        k=k,
        seed=seed,
        max_new_tokens=max_new_tokens,
        data=data,
    )
    questions = asdict(plan)
    identity = {
        "eval": questions,
        "contents": contents(plan.data) if plan.data else None,
        "models": [fingerprint(m) for m in models],
        "cuts": [[cut.label, str(cut.beside)] for cut in surgery.cuts],
        "layers": surgery.layers,
        "components": list(surgery.components),
        "dtype": dtype,
    }
    ends = {"base": surgery.base, "donor": surgery.donor}
    label = f"{models[0].name}-{models[1].name}"
    with open_run(VERB, label, identity, out, config=questions, models=ends) as run:
        if run.is_complete():
            return run.folder
        whole = Graft("donor", surgery.donor, "text:all", surgery.take)
        grafts = [None, whole, *map(surgery.graft, surgery.cuts)]
        folders = run_eval(
            [surgery.base],
            labels=["base"],
            grafts=grafts,
            out=out,
            **questions,
            device=device,
            dtype=dtype,
            progress=counted(progress, len(grafts)),
        )
        results = [load_run(folder) for folder in folders]
        labels = ["base", "donor", *(cut.label for cut in surgery.cuts)]
        known = {row["model"] for row in run.rows()}
        run.append(
            [
                _row(label, result)
                for label, result in zip(labels, results, strict=True)
                if label not in known
            ]
        )
        by_label = dict(zip(labels, results, strict=True))
        values = {label: per_prompt(result.samples, METRIC) for label, result in by_label.items()}
        return run.finish(rows_of(surgery.cuts, values), n_requested=len(results))


def _row(label: str, result: LoadedRun) -> dict[str, object]:
    failed = result.manifest.n_failed
    return {
        "model": label,
        "eval": result.folder.name,
        "error": f"{failed} answers failed" if failed else None,
    }
