"""`franken.probe`: where a model sees, where it reasons."""

from collections.abc import Sequence
from pathlib import Path

from franken.probe.plan import plan_probe
from franken.probe.run import run_probe
from franken.runs import LoadedRun, load_run


def probe(
    model: str | Path,
    *,
    methods: Sequence[str] = ("swap", "zero"),
    against: str | Path | None = None,
    tasks: Sequence[str] = (),
    samples: int = 50,
    part: str = "",
    layers: str = "all",
    data: str | Path | None = None,
    seed: int = 0,
    max_new_tokens: int = 64,
    batch_size: int = 128,
    engine: str = "torch",
    device: str = "auto",
    dtype: str = "auto",
    out: str | Path = "runs",
) -> LoadedRun:
    """Probe a checkpoint layer by layer; the same call resumes.

    >>> few = {"tasks": ["read"], "samples": 2, "layers": "0-2"}
    >>> run = franken.probe("creature:sft", methods=["zero"], **few)
    >>> sorted(set(run.layers["metric"]))
    ['accuracy', 'accuracy_drop', 'change_rate', 'truncated_rate']
    >>> len(run.samples)  # a row a question and layer
    4

    `methods` are those of `franken probe --method`, `against` is the second checkpoint of those
    that compare two; `samples` image pairs of each of `tasks` (all without any), or of `data`.
    `layers` of the result has the rates by layer and task with their 95 % intervals. Raises
    UsageError for anything unknown, VerificationError when a control fails.
    """
    plan = plan_probe(
        str(model),
        methods=methods,
        task_names=tasks,
        samples=samples,
        data=data,
        layers=layers,
        seed=seed,
        max_new_tokens=max_new_tokens,
        dtype=dtype,
        batch_size=batch_size,
        engine=engine,
        part=part,
        against=None if against is None else str(against),
    )
    return load_run(run_probe(plan, out=Path(out), device=device, dtype=dtype))
