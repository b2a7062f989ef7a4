"""`franken tasks …`: the puzzles, and the public benchmark they come from."""

from pathlib import Path
from typing import Annotated

import typer

from franken.cli.options import Columns, Json, Questions, Seed
from franken.cli.pages import of_tasks
from franken.console import print_object, print_table, print_verdicts
from franken.outputs import output_file

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Puzzles with ground truth: check, list, look.",
)

Task = Annotated[str, typer.Argument(help="A task's name; `franken tasks list` has them all.")]
Split = Annotated[str, typer.Option(help="train or test; no state is in both.")]


@app.command(epilog=of_tasks("verify"))
def verify(
    folder: Annotated[
        Path,
        typer.Argument(
            help="A folder of AlgoPuzzleVQA's <type>.json files; images are not needed."
        ),
    ],
    json: Json = False,
) -> int:
    """Solve the benchmark's rows from state and question, and compare with its answers.
    Disagreement is data: exit 0.

    Exit code 3 when some row could not be judged; `ours` is null there, and `why` says what is
    wrong with it.
    """
    from franken.tasks.algopuzzlevqa import files, load
    from franken.tasks.algopuzzlevqa import verify as verify_rows

    verdicts = {name: verify_rows(load(path)) for name, path in files(folder).items()}
    if json:
        print_object({"tasks": verdicts}, json)
    else:
        print_verdicts(verdicts)
    return (
        3
        if any(row["ours"] is None for task in verdicts.values() for row in task["disagree"])
        else 0
    )


@app.command("list", epilog=of_tasks("list"))
def list_tasks(json: Json = False) -> int:
    """Every built-in task: what it asks, and how it can be solved."""
    from franken.tasks.catalogue import catalogue

    rows = catalogue()
    if json:
        return print_object({"tasks": rows}, json)
    print_table(
        ["task", "what is asked", "strategies"],
        [[t["task"], t["about"], ", ".join(t["strategies"])] for t in rows],
    )
    print(
        "\nThe eighteen puzzle types take NAME[:LEVEL][@SIZE][+choice]: clock:3, maze:2@168, "
        "n_queens+choice."
    )
    return 0


@app.command(epilog=of_tasks("show"))
def show(
    task: Task,
    index: Annotated[int, typer.Option(min=0, help="Which item.")] = 0,
    split: Split = "train",
    seed: Seed = 0,
    pairs: Annotated[int, typer.Option(min=0, help="Pairs to count facts over.")] = 100,
    json: Json = False,
) -> int:
    """One item in full: question, answer, description, facts, solutions; and which facts its image
    pairs flip.
    """
    from franken.tasks.catalogue import shown, split_named

    item = shown(task, index=index, split=split_named(split), seed=seed, pairs=pairs)
    if json:
        return print_object(item, json)
    for key in ("task", "question", "answer", "description"):
        print(f"{key:12} {item[key]}")
    print_table(["fact", "value"], [[k, v] for k, v in item["facts"].items()])
    print_table(["strategy", "solution"], [[k, v] for k, v in item["solutions"].items()])
    flips = ", ".join(f"{fact} {n}" for fact, n in item["pairs"]["facts"].items())
    print(
        f"{item['pairs']['n']} pairs, {item['pairs']['ineligible']} of them ineligible; they "
        f"flip: {flips}"
    )
    return 0


@app.command(epilog=of_tasks("render"))
def render(
    task: Task,
    n: Annotated[int, typer.Option("--n", min=1, max=400, help="How many items.")] = 12,
    out: Annotated[Path | None, typer.Option(help="The PNG; TASK.png by default.")] = None,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Pairs that differ in one fact, side by side.")
    ] = False,
    split: Split = "train",
    seed: Seed = 0,
    columns: Annotated[int, typer.Option(min=1, max=20, help="Items in a row.")] = 4,
    json: Json = False,
) -> int:
    """A contact sheet of a task: pictures, questions and answers."""
    from franken import tasks
    from franken.tasks.catalogue import split_named
    from franken.tasks.contact_sheet import contact_sheet, pair_sheet

    puzzle, side = tasks.get(task), split_named(split)
    named = f"{task.replace(':', '-').replace('@', '-').replace('+', '-')}.png"
    file = output_file(out or Path(named))
    sheet = (
        pair_sheet(puzzle.pairs(n, seed, side))
        if pairs
        else contact_sheet(puzzle.items(n, seed, side), columns=columns)
    )
    sheet.save(file, "PNG")
    if json:
        return print_object({"task": task, "file": str(file), "size": list(sheet.size)}, json)
    print(file)
    return 0


@app.command(epilog=of_tasks("look"))
def look(
    data: Annotated[str, typer.Argument(help="What --data takes: a file, a folder, a benchmark.")],
    columns: Columns = "",
    shown: Annotated[int, typer.Option("--n", min=0, help="Rows to show in full.")] = 5,
    check: Annotated[int, typer.Option(min=1, help="Rows to read for counts and lengths.")] = 1000,
    model: Annotated[
        str, typer.Option(help="Count tokens with this checkpoint's tokenizer and processor.")
    ] = "",
    html: Annotated[Path | None, typer.Option(help="Write a page with the images as well.")] = None,
    json: Json = False,
) -> int:
    """A data set as a model will be asked it: the first rows, which column was taken for what, why
    rows fail, and how long they are.

    Exit code 3 when some row that was checked fails.
    """
    from franken.cli.tasks_look import print_look, summary
    from franken.tasks.look import look as look_at
    from franken.tasks.look_page import page
    from franken.tasks.sources import canonical

    html = output_file(html) if html is not None else None
    tokens = None
    if model:
        from franken.generate.lengths import token_counter

        tokens = token_counter(model)
    found = look_at(canonical(data, columns), shown=shown, checked=check, tokens=tokens)
    if html is not None:
        html.write_text(page(found), encoding="utf-8")
    if json:
        print_object({**summary(found), "html": str(html) if html else None}, json)
    else:
        print_look(found)
        print(*([html] if html else []))
    return 3 if found.errors else 0


@app.command(epilog=of_tasks("baselines"))
def baselines(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="TASK", help="Tasks; all by default.")
    ] = None,
    samples: Annotated[
        int, typer.Option(min=1, help="Questions to learn from, and as many to be asked.")
    ] = 200,
    seed: Seed = 0,
    data: Questions = None,
    columns: Columns = "",
    json: Json = False,
) -> int:
    """What guessing scores: chance, the most frequent answer, and what the question alone gives
    away.
    """
    from franken.tasks.baselines import cross_fitted, default_names, of_tasks
    from franken.tasks.sources import canonical, load_tasks

    if data is None:
        rows = of_tasks(names or default_names(), samples, seed)
    else:
        rows = cross_fitted(load_tasks(names or (), samples, seed, canonical(data, columns)))
    if json:
        return print_object({"baselines": [row._asdict() for row in rows]}, json)
    body = [
        [
            r.task,
            r.answer_type,
            r.baseline,
            f"{r.value:.3f} [{r.low:.2f} {r.high:.2f}]",
            r.n,
            r.says or "",
        ]
        for r in rows
    ]
    print_table(["task", "answer", "baseline", "accuracy [95 % interval]", "n", "says"], body)
    return 0
