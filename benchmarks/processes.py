"""Whole processes measured one after the other, in alternating runs: wall time, CPU time, peak
memory, and their ratios.
"""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Cost:
    """What a process took: seconds and MiB."""

    wall: float
    cpu: float
    peak: float


def measure(command: Sequence[str]) -> Cost:
    """Run a command to its end; its output is dropped. Raises CalledProcessError when it fails."""
    environment = {
        k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"
    }  # nobody compiles at every start
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
    )
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    if status:
        raise subprocess.CalledProcessError(status, command, stderr=errors)
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def alternate(
    arms: Mapping[str, Sequence[str]], repeats: int, before: Callable[[], None] | None = None
) -> dict[str, list[Cost]]:
    """Run every arm once per round. `before` is called ahead of each."""
    costs: dict[str, list[Cost]] = {name: [] for name in arms}
    for number in range(repeats):
        for name, command in arms.items():
            if before:
                before()
            costs[name].append(measure(command))
            print(f"round {number + 1}, {name}: {costs[name][-1]}", file=sys.stderr, flush=True)
    return costs


def ratio_table(costs: Mapping[str, Sequence[Cost]], ours: str) -> str:
    """Markdown: medians, and the median, smallest and largest ratio of paired runs to `ours`."""
    lines = [
        "| | wall s | CPU s | peak MiB | wall, times ours (range) | CPU, times ours |",
        "|---|---|---|---|---|---|",
    ]
    for name, runs in costs.items():
        wall = [run.wall / own.wall for run, own in zip(runs, costs[ours], strict=True)]
        cpu = [run.cpu / own.cpu for run, own in zip(runs, costs[ours], strict=True)]
        middle = Cost(
            *(
                statistics.median(getattr(run, field) for run in runs)
                for field in ("wall", "cpu", "peak")
            )
        )
        lines.append(
            f"| {name} | {middle.wall:.1f} | {middle.cpu:.1f} | {middle.peak:.0f} | "
            f"{statistics.median(wall):.1f} ({min(wall):.1f}-{max(wall):.1f}) | "
            f"{statistics.median(cpu):.1f} |"
        )
    return "\n".join(lines)


def setting(*packages: str) -> str:
    """One line: cores, processor, memory, Python, packages, date."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{len(os.sched_getaffinity(0))} cores of {_processor()}, {memory:.0f} GiB, Linux; Python "
        f"{platform.python_version()}, {versions}; {time.strftime('%Y-%m-%d')}"
    )


def rise(work: Callable[[], object], repeats: int) -> dict[str, Any]:
    """CPU seconds of each repetition after a first one, and how far they raised this process's
    memory, MiB.
    """
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts from here
    before = memory("VmRSS")
    seconds = []
    for _ in range(repeats + 1):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return {"seconds": seconds[1:], "peak": memory("VmHWM") - before}


def apart(
    file: str, arms: Sequence[str], shape: Sequence[int], repeats: int
) -> dict[str, tuple[float, float]]:
    """Each arm of a benchmark in a process of its own: median CPU seconds and MiB, as `rise` prints
    them in JSON.
    """
    found = {}
    for arm in arms:
        command = [sys.executable, file, "--repeats", str(repeats), "--arm", arm, *map(str, shape)]
        said = json.loads(
            subprocess.run(command, check=True, capture_output=True, text=True).stdout
        )
        found[arm] = (statistics.median(said["seconds"]), said["peak"])
    return found


def memory(field: str) -> float:
    """A line of this process's status, MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def own_peak() -> float:
    """Peak memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _processor() -> str:
    with open("/proc/cpuinfo") as opened:
        return next(
            (line.split(":")[1].strip() for line in opened if line.startswith("model name")),
            "an unknown processor",
        )
