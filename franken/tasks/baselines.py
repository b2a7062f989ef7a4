"""What guessing scores, task by task and format by format: nobody may pass a task without looking
and go unnoticed.

Every baseline is blind: it sees the question and the options, never the image or the description.
What it needs to know it learns from the train split, and it is scored on the test split by the
task's own grader.

    chance      a uniform guess among the options, or among the answers that the train split has
    majority    the most frequent answer (in multiple choice: the most frequent letter)
    question    the most frequent answer to this question; to questions that differ in numbers only;
                to any
    words       naive Bayes over the question's words (multinomial; scikit-learn)
    rank        multiple choice only: the option at the rank, in sorted order, that is right most
                often

In multiple choice `question` and `words` choose among the options the one whose text was right most
often. `chance` has the interval of what a guesser would score on as many questions.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from franken.stats import rate
from franken.tasks import Item, every_name, get, grade
from franken.tasks.graders.compare import infer_type
from franken.tasks.graders.numbers import read_numbers
from franken.tasks.graders.options import LETTERS, right_options
from franken.tasks.puzzle import child_rng
from franken.tasks.puzzles import suite

STRATEGIES = ("chance", "majority", "question", "words", "rank")
LISTED = re.compile(r"(?m)^\s*\(?[A-Z][).:]\s.*$")
Predict = Callable[[Item], str]


class Row(NamedTuple):
    """One baseline of one task in one answer format; `value` is an accuracy, `says` the one answer
    that it gives, if it is one.
    """

    task: str
    answer_type: str
    baseline: str
    value: float
    low: float
    high: float
    n: int
    n_train: int
    says: str | None


def baselines(train: Sequence[Item], test: Sequence[Item]) -> list[Row]:
    """All baselines of every task and answer type among the test items. Items with an error carry
    no answer and are left out.
    """
    rows: list[Row] = []
    for task, kind in dict.fromkeys(map(_format, filter(_usable, test))):
        fit, held = (
            [i for i in items if _usable(i) and _format(i) == (task, kind)]
            for items in (train, test)
        )
        for name in STRATEGIES:
            choice = all(i.options for i in held)
            if (name == "rank" and not choice) or (not fit and not (name == "chance" and choice)):
                continue  # nothing to rank, or nothing to learn from
            right, says = _score(name, fit, held)
            rows.append(Row(task, kind, name, *rate(right, len(held)), len(held), len(fit), says))
    return rows


def cross_fitted(items: Sequence[Item]) -> list[Row]:
    """The same for items without splits: each half, by the hash of the id, is scored by what the
    other half taught.
    """
    halves: tuple[list[Item], list[Item]] = ([], [])
    for item in items:
        halves[child_rng("half", item.id).getrandbits(1)].append(item)
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for train, test in (halves, halves[::-1]):
        for row in baselines(train, test):
            groups.setdefault(row[:3], []).append(row)
    rows = []
    for key, parts in groups.items():
        n, right = sum(p.n for p in parts), round(sum(p.n * p.value for p in parts))
        says = parts[0].says if len({p.says for p in parts}) == 1 else None
        rows.append(Row(*key, *rate(right, n), n, sum(p.n_train for p in parts), says))
    return rows


def of_tasks(names: Sequence[str], samples: int, seed: int) -> list[Row]:
    """The baselines of built-in tasks: `samples` items of the train split teach, as many of the
    test split are asked.
    """
    rows = []
    for name in names:
        puzzle = get(name)
        rows += baselines(puzzle.items(samples, seed, "train"), puzzle.items(samples, seed, "test"))
    return rows


def default_names() -> list[str]:
    """Every built-in task, open and as multiple choice where it has that."""
    return [
        form
        for name in every_name()
        for form in ([name, f"{name}+choice"] if name in suite.NAMES else [name])
    ]


def _usable(item: Item) -> bool:
    return item.error is None and bool(item.question) and bool(item.answer)


def _format(item: Item) -> tuple[str, str]:
    if item.options:
        return item.task, "option"
    kind = item.answer_type or infer_type(item.answer)
    return item.task, "number" if kind == "integer" and not item.answer_type else kind


def _score(name: str, train: Sequence[Item], test: Sequence[Item]) -> tuple[float, str | None]:
    """(how many are right, the answer given if it is always the same)."""
    if name == "chance":
        return _chance(train, test), None
    makers = {"majority": _majority, "question": _by_question, "words": _by_words, "rank": _by_rank}
    predict = makers[name](train)
    answers = [predict(item) for item in test]
    right = sum(grade(f"<answer>{a}</answer>", i).score for a, i in zip(answers, test, strict=True))
    return right, answers[0] if len(set(answers)) == 1 else None


def _chance(train: Sequence[Item], test: Sequence[Item]) -> float:
    known = {i.answer for i in train}
    return sum(
        1 / len(i.options) if i.options else (i.answer in known) / max(1, len(known)) for i in test
    )


def _truth(item: Item) -> str:
    """The right answer as text: of multiple choice the text behind the letter."""
    if not item.options:
        return item.answer
    letters = sorted(right_options(item.answer, item.options))
    return item.options[LETTERS.index(letters[0])]


def _most(counts: Counter[str]) -> str:
    """The most frequent; of equals the first in alphabetical order, so that the order of items does
    not matter.
    """
    return min(counts, key=lambda key: (-counts[key], key))


def _among(counts: Counter[str], item: Item, fallback: Counter[str]) -> str:
    """The likeliest answer that can be given: any, or of the options the one that was right most
    often.
    """
    if not item.options:
        return _most(counts or fallback)
    ranked = sorted(
        range(len(item.options)),
        key=lambda k: (-counts[item.options[k]], -fallback[item.options[k]], k),
    )
    return LETTERS[ranked[0]]


def _majority(train: Sequence[Item]) -> Predict:
    says = _most(Counter(i.answer for i in train))
    return lambda item: says


def _by_question(train: Sequence[Item]) -> Predict:
    overall = Counter(map(_truth, train))
    exact: dict[str, Counter[str]] = {}
    masked: dict[str, Counter[str]] = {}
    for item in train:
        stem = _stem(item)
        exact.setdefault(stem, Counter())[_truth(item)] += 1
        masked.setdefault(_mask(stem), Counter())[_truth(item)] += 1

    def predict(item: Item) -> str:
        stem = _stem(item)
        known = exact.get(stem) or masked.get(_mask(stem)) or overall
        return _among(known, item, masked.get(_mask(stem)) or overall)

    return predict


def _by_words(train: Sequence[Item]) -> Predict:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB

    words = CountVectorizer(token_pattern=r"(?u)\w+", ngram_range=(1, 2))
    counts: Any = words.fit_transform(map(_stem, train))
    model: Any = MultinomialNB(alpha=0.1).fit(counts, list(map(_truth, train)))

    def predict(item: Item) -> str:
        scores = dict(
            zip(
                model.classes_,
                model.predict_log_proba(words.transform([_stem(item)]))[0],
                strict=True,
            )
        )
        if not item.options:
            return str(max(scores, key=scores.__getitem__))
        return LETTERS[
            max(
                range(len(item.options)),
                key=lambda k: (scores.get(item.options[k], -float("inf")), -k),
            )
        ]

    return predict


def _by_rank(train: Sequence[Item]) -> Predict:
    ranks = Counter(_ranked(item).index(_truth(item)) for item in train)
    best = min(ranks, key=lambda r: (-ranks[r], r))
    return lambda item: LETTERS[item.options.index(_ranked(item)[min(best, len(item.options) - 1)])]


def _ranked(item: Item) -> list[str]:
    numbers = [read_numbers(option) for option in item.options]
    if all(len(n) == 1 for n in numbers):
        values = {option: n[0].value for option, n in zip(item.options, numbers, strict=True)}
        return sorted(item.options, key=values.__getitem__)
    return sorted(item.options)


def _stem(item: Item) -> str:
    """The question without its list of options."""
    return " ".join(
        (LISTED.sub("", item.question) if item.options else item.question).lower().split()
    )


def _mask(question: str) -> str:
    return re.sub(r"\d+", "#", question)
