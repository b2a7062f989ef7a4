"""How fast puzzles come: items a second on one core, picture, question, answer and worked solutions
included.

    python benchmarks/puzzles.py [--seconds 1] [TASK ...]

Training draws its puzzles live, so a step must not wait for them. CPU time, one process; the best
of three rounds.
"""

import argparse
import sys
import time

from franken import tasks
from franken.tasks.puzzles import suite

WARM_UP = 5


def main() -> int:
    """Print a Markdown table of every task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", help="all at their smallest picture by default")
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU time of a round")
    options = parser.parse_args()
    print("| task | picture | items a second |\n|---|---|---|")
    for name in options.tasks or everything():
        item = tasks.get(name).items(1, 0)[0]
        rate = max(items_per_second(name, options.seconds) for _ in range(3))
        print(f"| {name} | {item.image.width if item.image else 0} px | {rate:.0f} |", flush=True)
    return 0


def everything() -> list[str]:
    """The grid's tasks, and every type at level 1 and its smallest picture."""
    smallest = [f"{name}@{suite.puzzle(name).module.SMALLEST}" for name in suite.NAMES]
    return [*tasks.names(), *smallest]


def items_per_second(name: str, seconds: float) -> float:
    """Items drawn for about `seconds` of CPU time, per second of it. Every item is a new one."""
    puzzle = tasks.get(name)
    puzzle.items(WARM_UP, 1)
    began, drawn = time.process_time(), 0
    while (spent := time.process_time() - began) < seconds:
        puzzle.items(20, 1000 + drawn)
        drawn += 20
    return drawn / spent


if __name__ == "__main__":
    sys.exit(main())
