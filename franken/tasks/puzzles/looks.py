"""Which steps of a worked solution only say what the picture shows, and whether they say it
rightly.

A `look` is such a statement, cut out of a step and written in one form: `clock 6:45`, `t1 yellow`,
`r2c3 fresh`. True are the facts of the state, and whatever the right solutions say in looks. A look
that is not true is misread. Where all are true, a wrong chain is a wrong inference only if there
was nothing left to misread silently: some types say all that they use before they reason (`WHOLE`);
in the others a wall that is walked through, or a kiwi that is left out, may be either.
"""

import re
from collections.abc import Iterable, Iterator

from franken.tasks.puzzle import Facts

CELL = r"(r\d+c\d+)"
LISTED = re.compile(r"((?:rotten|white) are) (.+)")  # lists whose order says nothing

# Type → (how a step begins that looks, what it looks at, how the look is written).
LOOKS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "board_tile": (("row ", r"(row \d+ has \d+ dark and \d+ light)", r"\1"),),
    "calendar": (("", r"^(\w+ 1 is a \w+)$", r"\1"),),
    "chain_link": (("", r"^(\d+ open and closed .+|\d+ open \d+ closed segments)$", r"\1"),),
    "checker_move": (("start is |end is ", r"(.+)", r"\1"),),
    "clock": (("the clock shows ", r"(\d+:\d+)$", r"clock \1"),),
    "colour_hue": (("A holds ", r"(.+)", r"\1"),),
    "map": (("white are ", r"(.+)", r"\1"), ("", r"^(\w touches .+) and may be ", r"\1")),
    "maze": (("enter at ", r"(.+)", r"\1"), ("", CELL, r"\1 empty")),
    "move_box": (("person ", r"(.+)", r"\1"), ("push |after ", CELL, r"\1 floor")),
    "n_queens": (("rows .* are free$", r"(.+)", r"\1"), ("", rf"is hit by {CELL}", r"queen \1")),
    "number_slide": (("board ", r"(.+)", r"\1"),),
    "rotting_kiwi": (("rotten are ", r"(.+)", r"\1"), ("minute ", CELL, r"\1 fresh")),
    "rubiks_cube": (
        ("the cube is ", r"(.+)", r"\1"),
        ("", r"before \w+ (\w+ r\d+c\d+ [a-z]+)$", r"\1"),
    ),
    "think_dot": (("the toy shows ", r"(.+)", r"\1"), ("", r"^([tmb]\d \w+) gets ", r"\1")),
    "tower_of_hanoi": (("start ", r"(.+)", r"\1"),),
    "water_jugs": (("jugs ", r"(.+) goal", r"\1"),),
    "wheel_of_fortune": (
        ("the arrow is at ", r"(\d+)$", r"arrow \1"),
        ("", r"^(\w+) (?:is drawn from|begins at) (\d+)", r"\1 from \2"),
    ),
    "wood_slide": (("the (?:start|end) is ", r"(.+)", r"\1"),),
}
WHOLE = frozenset(LOOKS) - {"map", "maze", "move_box", "n_queens", "rotting_kiwi"}
CERTAIN = re.compile(
    r"answer .*|[-+*\d ]+ = .*|(?:rows|columns) \d+ to .*|\d+ left and .*"
)  # nothing to see in these


def looks(kind: str, steps: Iterable[str]) -> Iterator[str]:
    """Everything that steps of a type's solution say of the picture, as in `LOOKS`."""
    for step in steps:
        for begins, seen, written in LOOKS[kind]:
            if re.match(begins, step):
                for match in re.finditer(seen, step):
                    yield _in_order(match.expand(written))


def _in_order(look: str) -> str:
    listed = LISTED.fullmatch(look)
    return f"{listed[1]} {' '.join(sorted(listed[2].split()))}" if listed else look


def true_looks(kind: str, facts: Facts, solutions: Iterable[Iterable[str]]) -> set[str]:
    """The facts, `slot value` (also without the number of the slot), and what right solutions
    say.
    """
    said = {look for steps in solutions for look in looks(kind, steps)}
    numberless = {f"{slot.rstrip(' 0123456789')} {value}" for slot, value in facts.items()}
    return said | numberless | {f"{slot} {value}" for slot, value in facts.items()}


def misread(
    kind: str, steps: tuple[str, ...], right: tuple[str, ...], true: set[str], fault: str | None
) -> list[str] | None:
    """The looks of a wrong solution that are not true; none when its fault is an inference; None
    where that is open.

    `right` is the right solution by the same strategy, `true` from `true_looks`, `fault` what
    `Module.check` says.
    """
    said = dict.fromkeys(looks(kind, steps))
    if wrong := [look for look in said if look not in true]:
        return wrong
    if len(said) < len(set(looks(kind, right))) or not said:
        return None
    faulty = next((step for step in steps if fault and fault.startswith(repr(step))), None)
    return [] if kind in WHOLE or faulty is None or CERTAIN.fullmatch(faulty) else None
