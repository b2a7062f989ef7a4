"""`franken.forks`: where two models part, token by token, and what those places carry."""

from collections.abc import Sequence
from pathlib import Path

from franken.forks.controls import RULES
from franken.forks.plan import plan_forks
from franken.forks.run import run_forks
from franken.outputs import output_folder
from franken.runs import LoadedRun, load_run


def forks(
    a: str | Path,
    b: str | Path,
    *,
    tasks: Sequence[str] = (),
    samples: int = 50,
    draws: int = 4,
    temperature: float = 1.0,
    threshold: float = 0.1,
    budget: str = "",
    rules: Sequence[str] = RULES,
    stored: Sequence[str | Path] = (),
    labels: Sequence[str] | None = None,
    data: str | Path | None = None,
    seed: int = 0,
    max_new_tokens: int = 64,
    batch_size: int = 64,
    device: str = "auto",
    dtype: str = "auto",
    out: str | Path = "runs",
) -> LoadedRun:
    """Compare two stages of one model, a the earlier, on the replies of both; the same call
    resumes.

    >>> few = {"tasks": ["read"], "samples": 2, "draws": 1}
    >>> run = franken.forks("creature:base", "creature:sft", rules=["forks"], **few)
    >>> sorted(set(run.samples["method"]))
    ['forks', 'own']
    >>> reply = run.samples.iloc[0]
    >>> len(reply["js"]) == len(reply["ids"]) == len(reply["vision_a"])
    True
    >>> rows = run.layers
    >>> value = rows[(rows["metric"] == "fork_share") & (rows["component"] == "all")]["value"]
    >>> bool(value.between(0, 1).all())
    True

    A token is a fork where the Jensen–Shannon divergence of the two next-token distributions is
    above `threshold` (nats). `rules` are those of cross-sampling, at most `budget` places a reply
    (`"1"`, `"5%"`); none only scores. `stored` are run folders of evaluations whose replies are
    scored. `samples` of the result has a row a reply with lists over its tokens, `layers` the
    summary. Raises UsageError for options that cannot be.
    """
    plan = plan_forks(
        str(a),
        str(b),
        labels=labels,
        tasks=tasks,
        samples=samples,
        draws=draws,
        temperature=temperature,
        threshold=threshold,
        budget=budget,
        rules=rules,
        stored=stored,
        seed=seed,
        max_new_tokens=max_new_tokens,
        data=data,
    )
    folder = run_forks(
        plan, out=output_folder(Path(out)), device=device, dtype=dtype, batch_size=batch_size
    )
    return load_run(folder)
