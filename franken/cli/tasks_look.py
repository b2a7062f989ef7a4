"""A look at a data set, printed."""

from dataclasses import asdict

from franken.console import print_table
from franken.tasks.look import Look, pictures_of


def summary(look: Look) -> dict[str, object]:
    """A look as one object, its images by their sizes."""
    counts = {key: value for key, value in asdict(look).items() if key != "items"}
    items = [
        {
            "id": item.id,
            "task": item.task,
            "question": item.question,
            "answer": item.answer,
            "accepted": list(item.accepted),
            "answer_type": item.answer_type,
            "options": list(item.options),
            "images": [list(picture.size) for picture in pictures_of(item)],
            "error": item.error,
        }
        for item in look.items
    ]
    return {**counts, "items": items}


def print_look(look: Look) -> None:
    """The rows as they are asked, then the counts."""
    for item in look.items:
        sizes = ", ".join(f"{p.width} × {p.height}" for p in pictures_of(item))
        print(f"── {item.id}" + (f"  [{sizes}]" if sizes else ""))
        if item.error:
            print(f"fails: {item.error}")
        else:
            print(item.question)
            gold = " or ".join((item.answer, *item.accepted))
            print(f"→ {gold}   ({item.answer_type or 'graded by its task'})")
        print()
    failed = sum(look.errors.values())
    print(f"{look.size} rows, taken for {look.layout}; {failed} of the first {look.checked} fail")
    held = {**look.columns, **look.settings}
    if held:
        print_table(["what", "column, or how it is read"], list(held.items()))
    if look.errors:
        print_table(
            ["why rows fail", "rows", "first row"],
            [[why, count, look.example[why]] for why, count in look.errors.items()],
        )
    counts = [["answers", kind, n] for kind, n in look.types.items()]
    counts += [["images a row", count, n] for count, n in look.images.items()]
    counts += [["images", note, n] for note, n in look.notes.items()]
    if counts:
        print_table(["of", "", "rows"], counts)
    if look.lengths:
        print_table(
            ["lengths", "least", "median", "most"],
            [
                [of, f"{s.least:.10g}", f"{s.median:.10g}", f"{s.most:.10g}"]
                for of, s in look.lengths.items()
            ],
        )
