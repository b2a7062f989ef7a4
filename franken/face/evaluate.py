"""`franken.evaluate`: how good models are, how varied, and whether they need the image."""

from collections.abc import Sequence
from pathlib import Path

from franken.checkpoints import open_checkpoint
from franken.evaluate.compare import compare_runs
from franken.evaluate.run import run_eval
from franken.evaluate.source import labels_of
from franken.generate.engine import hosted_name
from franken.runs import RunSet, load_run


def evaluate(
    *models: str | Path,
    tasks: Sequence[str] = (),
    samples: int = 100,
    n: int = 4,
    k: Sequence[int] = (1, 4),
    arms: Sequence[str] = ("image",),
    data: str | Path | None = None,
    labels: Sequence[str] | None = None,
    trained: Sequence[str] = (),
    embedder: str = "hashing",
    seed: int = 0,
    max_new_tokens: int = 64,
    engine: str = "native",
    endpoint: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    out: str | Path = "runs",
) -> RunSet:
    """Evaluate checkpoints side by side, paired by prompt; the same call resumes.

    >>> few = {"tasks": ["read"], "samples": 2, "n": 1, "k": [1]}
    >>> runs = franken.evaluate("creature:base", "creature:sft", **few)
    >>> list(runs.answers())
    ['creature-base', 'creature-sft']
    >>> table = runs.layers("compare")
    >>> "creature-sft - creature-base" in set(table["model"])
    True

    `samples` held-out puzzles of each of `tasks` (all without any), or of `data`; each answered
    greedily and `n` times at temperature 1, in every arm. The result holds a run of `eval` a model
    and their comparison. Raises UsageError for options that cannot be, FrankenError for checkpoints
    that cannot be read.
    """
    names = [str(model) for model in models]
    labels = labels_of(names, labels)
    for name in names:
        if hosted_name(name, engine) is None:
            open_checkpoint(name)  # before any work: a missing one is known at once
    folders = run_eval(
        names,
        tasks=tasks or None,
        samples=samples,
        n=n,
        k=k,
        arms=arms,
        seed=seed,
        out=Path(out),
        device=device,
        dtype=dtype,
        data=data,
        labels=labels,
        max_new_tokens=max_new_tokens,
        engine=engine,
        endpoint=endpoint,
    )
    compared = compare_runs(
        folders, out=Path(out), embedder=embedder, device=device, trained=trained, seed=seed
    )
    return RunSet(Path(out), [load_run(folder) for folder in (*folders, compared)])
