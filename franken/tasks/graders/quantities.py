"""Whole numbers and numbers: which answers are equal to the right one."""

from fractions import Fraction

from franken.tasks.graders.numbers import Quantity, Reading, in_base, read_number
from franken.tasks.graders.verdict import Verdict, decide, refuse

PERCENT = Fraction(1, 100)
EXACT = Fraction(1, 10**12)  # relative: what a float's digits may lose
CLOSED = 4  # decimals of a right answer that a closed form (\\sqrt{17}) may meet; π is not 3.14
DEGREES = ({"angle", "celsius"}, {"angle", "fahrenheit"})  # "20 degrees" may be either
DIGITS = 3  # decimals from which on a decimal may stand for a fraction that has no last one


def compare_integer(text: str, gold: str) -> Verdict:
    """Whole numbers, exactly. 7.0 and seven are 7; 7.5 is not, and 0.25 is never 25."""
    right = right_number(gold)
    reading = read_number(text)
    if reading.number is None:
        return refuse(reading.why)
    is_right = _same_value(reading.number, right, Fraction(0))
    return decide(is_right, str(reading.number), str(right), f"{reading.rule}, exact")


def compare_number(text: str, gold: str, tolerance: float = 0.0) -> Verdict:
    """Numbers: equal, or within `tolerance` (relative), or equal once rounded to the digits of the
    right answer.

    A fraction that has no last decimal may be written with three decimals or more.

    A percent sign is a unit: 25 % is right for 25, for 25 % and for 0.25; but 0.25 is not right for
    25. Units that are known on both sides are converted; one that only one side has is ignored.
    """
    right = right_number(gold)
    reading = read_number(text)
    if reading.irrational is not None and right.decimals >= CLOSED:
        near = abs(reading.irrational - right.value) * 2 * 10**right.decimals <= 1
        return decide(near, text, str(right), "math-verify, rounded to the digits of the right one")
    if reading.number is None:
        return refuse(reading.why)
    return compare_quantities(reading.number, right, tolerance, reading.rule)


def right_number(gold: str) -> Quantity:
    """The number that a right answer is. Raises ValueError when it is none."""
    reading: Reading = read_number(gold)
    if reading.number is None:
        raise ValueError(f"the right answer {gold!r} is not a number")
    return reading.number


def compare_quantities(
    number: Quantity, right: Quantity, tolerance: float = 0.0, rule: str = "numeral"
) -> Verdict:
    """Two numbers by the rules of `compare_number`."""
    given = number.decimals + 2 * number.percent
    if not tolerance and given >= DIGITS and _endless(right.value):  # 0.333 for 1/3
        near = abs(_ratio(number) - _ratio(right)) * 2 * 10**given <= 1
        return decide(near, str(number), str(right), f"{rule}, rounded to its own digits")
    if tolerance:
        slack, how = Fraction(tolerance) * abs(right.value), f"within {tolerance:g}"
    elif right.decimals:
        slack, how = Fraction(1, 2 * 10**right.decimals), "rounded to the digits of the right one"
    else:
        slack, how = abs(right.value) * EXACT, "equal"
    return decide(_same_value(number, right, slack), str(number), str(right), f"{rule}, {how}")


def _ratio(number: Quantity) -> Fraction:
    return number.value * (PERCENT if number.percent else 1)


def _endless(value: Fraction) -> bool:
    """Whether a number has no last decimal."""
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest > 1


def _same_value(said: Quantity, right: Quantity, slack: Fraction) -> bool:
    (unit, value), (other, truth) = in_base(said), in_base(right)
    if unit and other and {unit, other} in DEGREES:
        return abs(said.value - right.value) <= slack
    if unit and other and unit != other:
        return False
    if unit and other:
        factor = truth / right.value if right.value else Fraction(1)
        return abs(value - truth) <= slack * abs(factor)
    scaled = said.percent and not right.percent
    candidates = [] if scaled and 0 < abs(right.value) < 1 else [(said.value, right.value, slack)]
    if scaled:  # 25 % for 0.25; but 0.25 % is not 0.25, while for 25 the sign is only the unit
        candidates.append((said.value * PERCENT, right.value, slack))
    if right.percent and not said.percent:  # 0.25 for 25 %
        candidates.append((said.value, right.value * PERCENT, slack * PERCENT))
    return any(abs(a - b) <= s for a, b, s in candidates)
