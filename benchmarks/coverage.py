"""How often each interval of franken/stats covers the truth: `python benchmarks/coverage.py`.

Rates and paired differences of rates are counted exactly, over all outcomes; the rest is drawn,
with `--draws` samples each (the standard error at 95 % is 0.35 points with 4000). Prints Markdown;
the stored result is benchmarks/results/coverage.md. An interval is named with a `*` where no
interval of its kind can cover less: all that can be seen is a few counts, and every set of them has
either less than 93 % or more than 97 %.
"""

import argparse
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from franken import stats
from franken.stats import Estimate

SIZES = (10, 20, 40, 100)
SLACK = 1e-9
Draw = Callable[[int], Estimate]  # n → the interval of a sample of that size


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=4000)
    draws = parser.parse_args().draws
    rng = np.random.default_rng(0)
    print("# Coverage of the 95 % intervals, in percent\n")
    table("Rates (`rate`, exact)", [(f"{100 * p:g} %", of_rate(p)) for p in RATES])
    table(
        "Paired differences of rates (`difference`, exact): won, lost",
        [(f"{100 * a:g} %, {100 * b:g} %", of_pairs(a, b)) for a, b in PAIRS],
    )
    for title, cases in simulated(rng):
        rows = [
            (name, [drawn(draw, truth, n, draws) for n in SIZES]) for name, truth, draw in cases
        ]
        table(title, rows)


def table(title: str, rows: Sequence[tuple[str, Sequence[float]]]) -> None:
    """A Markdown table: a row a case, a column a size."""
    print(f"## {title}\n")
    print(f"| | {' | '.join(f'n = {n}' for n in SIZES)} |\n|---|{'---|' * len(SIZES)}")
    for name, shares in rows:
        print(f"| {name} | {' | '.join(f'{100 * share:.1f}' for share in shares)} |")
    print()


def drawn(draw: Draw, truth: float, n: int, draws: int) -> float:
    """The share of samples whose interval holds the truth; those without an interval do not
    count.
    """
    known = [e for e in (draw(n) for _ in range(draws)) if not math.isnan(e.low)]
    return float(np.mean([e.low - SLACK <= truth <= e.high + SLACK for e in known]))


RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 0.99)
PAIRS = (
    *((0.0, 0.0), (0.02, 0.02), (0.05, 0.0), (0.05, 0.05), (0.1, 0.0), (0.1, 0.1)),
    *(
        (0.2, 0.1),
        (0.3, 0.0),
        (0.3, 0.1),
        (0.3, 0.3),
        (0.5, 0.2),
        (0.5, 0.5),
        (0.8, 0.1),
        (0.9, 0.0),
    ),
)


def of_rate(p: float) -> list[float]:
    """Exact coverage of `rate` at each size."""
    return [
        sum(
            math.comb(n, x) * p**x * (1 - p) ** (n - x)
            for x in range(n + 1)
            if holds(stats.rate(x, n), p)
        )
        for n in SIZES
    ]


def of_pairs(won: float, lost: float) -> list[float]:
    """Exact coverage of `difference` for 0/1 pairs at each size."""
    return [
        sum(chance for chance, e in all_pairs(n, won, lost) if holds(e, won - lost)) for n in SIZES
    ]


def all_pairs(n: int, won: float, lost: float) -> Iterator[tuple[float, Estimate]]:
    """Every outcome of n pairs that can happen: its probability and its interval."""
    for i in range(n + 1):
        for j in range(n + 1 - i):
            ways = math.comb(n, i) * math.comb(n - i, j)
            chance = ways * won**i * lost**j * max(0.0, 1 - won - lost) ** (n - i - j)
            if chance > 1e-12:
                after = np.repeat([1.0, 0.0, 0.0], [i, j, n - i - j])
                before = np.repeat([0.0, 1.0, 0.0], [i, j, n - i - j])
                yield chance, stats.difference(before, after, rates=True)


def holds(e: Estimate, truth: float) -> bool:
    """Whether the interval holds the truth."""
    return e.low - SLACK <= truth <= e.high + SLACK


def simulated(rng: np.random.Generator) -> Iterator[tuple[str, list[tuple[str, float, Draw]]]]:
    """The other tables: (title, cases), each case with its name, the truth, and how to draw."""

    def shares(mu: float, spread: float, n: int, draws: int = 4) -> np.ndarray:
        """Shares of right draws of n prompts whose difficulties are beta distributed."""
        return rng.binomial(draws, rng.beta(mu * spread, (1 - mu) * spread, n)) / draws

    rates = [
        (
            f"mean {mu:g}, {kind} prompts",
            mu,
            lambda n, mu=mu, s=s: stats.mean_rate(shares(mu, s, n)),
        )
        for mu in (0.02, 0.1, 0.3, 0.5, 0.9)
        for kind, s in (("unlike", 0.7), ("alike", 20.0))
    ]
    yield "Means of 4 draws a prompt (`mean_rate`)", rates
    levels = {
        "tasks alike": np.full(4, 0.3),
        "tasks unlike": np.linspace(0.05, 0.95, 4),
        "high": np.linspace(0.9, 1, 4),
    }
    macro = [
        (name, float(p.mean()), lambda n, p=p: stats.mean_rate(*(rng.random((4, n)) < p[:, None])))
        for name, p in levels.items()
    ]
    yield "Means of 4 tasks of n prompts, one answer each (`mean_rate`)", macro

    def paired(mu: float, gain: float, affected: float) -> Draw:
        """4 draws of each of two models, one of which gains on some of the prompts."""

        def draw(n: int) -> Estimate:
            p = rng.beta(2 * mu, 2 * (1 - mu), n)
            q = np.where(rng.random(n) < affected, np.minimum(1, p + gain), p)
            return stats.difference(rng.binomial(4, p) / 4, rng.binomial(4, q) / 4, rates=True)

        return draw

    def gained(mu: float, gain: float, affected: float) -> float:
        p = np.random.default_rng(1).beta(2 * mu, 2 * (1 - mu), 2_000_000)
        return affected * float((np.minimum(1, p + gain) - p).mean())

    effects = ((0.1, 0.0, 1.0), (0.5, 0.0, 1.0), (0.5, 0.2, 1.0), (0.1, 0.1, 1.0), (0.3, 0.5, 0.2))
    pairs = [
        (
            f"rate {mu:g}, +{gain:g} on {100 * part:g} %",
            gained(mu, gain, part),
            paired(mu, gain, part),
        )
        for mu, gain, part in effects
    ]
    yield "Paired differences of means of 4 draws (`difference`)", pairs

    def tasks(won: np.ndarray, lost: np.ndarray) -> Draw:
        def draw(n: int) -> Estimate:
            u = rng.random((len(won), n))
            up, down = u < won[:, None], u > 1 - lost[:, None]
            sides = [side.astype(float) for pair in zip(down, up, strict=True) for side in pair]
            return stats.difference(*sides, rates=True)

        return draw

    won, lost = np.full(4, 0.2), np.full(4, 0.05)
    several = [
        ("20 % won, 5 % lost in each", 0.15, tasks(won, lost)),
        ("0 to 60 % won, 5 % lost", 0.25, tasks(np.linspace(0, 0.6, 4), lost)),
        ("10 % won, none lost", 0.1, tasks(won / 2, 0 * lost)),
    ]
    yield "Paired differences over 4 tasks of n prompts, one answer each (`difference`)", several
    means: list[tuple[str, float, Draw]] = [
        ("normal", 0.0, lambda n: stats.mean(rng.normal(size=n))),
        ("counts, 1 + Poisson(1.2)", 2.2, lambda n: stats.mean(1 + rng.poisson(1.2, n))),
        ("exponential", 1.0, lambda n: stats.mean(rng.exponential(size=n))),
        ("lognormal, σ = 0.5", math.exp(0.125), lambda n: stats.mean(rng.lognormal(0, 0.5, n))),
        ("lognormal, σ = 1", math.exp(0.5), lambda n: stats.mean(rng.lognormal(0, 1, n))),
        ("t with 4 degrees of freedom", 0.0, lambda n: stats.mean(rng.standard_t(4, n))),
    ]
    yield "Means of any values (`mean`)", means
    two: list[tuple[str, float, Draw]] = [
        (
            "normal, 2 n in the second",
            0.5,
            lambda n: stats.gap(rng.normal(0, 1, n), rng.normal(0.5, 2, 2 * n)),
        ),
        (
            "ratio, lognormal σ = 0.3, 2 n in the second",
            1.5,
            lambda n: stats.ratio(rng.lognormal(0, 0.3, n), 1.5 * rng.lognormal(0, 0.3, 2 * n)),
        ),
    ]
    yield "Two independent samples (`gap`, `ratio`)", two

    def related(rho: float, ranks: bool) -> Draw:
        def draw(n: int) -> Estimate:
            x = rng.normal(size=n)
            y = rho * x + math.sqrt(1 - rho**2) * rng.normal(size=n)
            return stats.correlation(x, y, ranks=ranks)

        return draw

    def partial(n: int) -> Estimate:
        control, x, y = rng.normal(size=(3, n))
        return stats.correlation(x + control, y + control, controls=control[:, None])

    def clustered(n: int) -> Estimate:
        x = np.repeat(rng.normal(size=n), 3) + 0.5 * rng.normal(size=3 * n)
        y = np.repeat(rng.normal(size=n), 3) + 0.5 * rng.normal(size=3 * n)
        return stats.correlation(x, y, units=np.repeat(np.arange(n), 3))

    cases: list[tuple[str, float, Draw]] = [
        *((f"Pearson {rho:g}", rho, related(rho, False)) for rho in (0.0, 0.5, 0.9)),
        *(
            (f"Spearman, Pearson {r:g}", 6 / math.pi * math.asin(r / 2), related(r, True))
            for r in (0.0, 0.5)
        ),
        ("partial, 0", 0.0, partial),
        ("3 rows a prompt, 0", 0.0, clustered),
    ]
    yield "Correlations (`correlation`)", cases

    def crossed(between: float) -> Draw:
        return lambda n: stats.crossed_mean(
            between * rng.normal(size=(5, 1))
            + 0.3 * rng.normal(size=(1, n))
            + rng.normal(size=(5, n))
        )

    seeds = [(f"spread of seeds {s:g}", 0.0, crossed(s)) for s in (0.05, 0.3)]
    yield "Means over 5 seeds and n puzzles (`crossed_mean`)", seeds


if __name__ == "__main__":
    main()
