"""Text as LaTeX that math-verify reads rightly: signs by their commands, roots and powers in
braces, units split off.
"""

import re

from franken.tasks.graders.spelling import (
    COMMA_THOUSANDS,
    LATEX_SPACE,
    MARKUP,
    SUBSCRIPTS,
    SUPERSCRIPTS,
    join_thousands,
    tidy,
    unwrap,
)
from franken.tasks.graders.units import unit_named

NAMES = {
    "×": "\\times ",
    "·": "\\cdot ",
    "⋅": "\\cdot ",
    "÷": "/",
    "π": "\\pi ",
    "θ": "\\theta ",
    "α": "\\alpha ",
    "β": "\\beta ",
    "≤": "\\le ",
    "≥": "\\ge ",
    "≠": "\\neq ",
    "≈": "\\approx ",
    "±": "\\pm ",
    "∞": "\\infty ",
    "∪": "\\cup ",
    "∩": "\\cap ",
    "∈": "\\in ",
    "°": "^\\circ ",
    "Ω": "\\Omega ",
    "–": "-",
    "½": "\\frac{1}{2}",
    "¼": "\\frac{1}{4}",
    "¾": "\\frac{3}{4}",
}
COMMANDS = {
    "dfrac": "\\frac",
    "tfrac": "\\frac",
    "cfrac": "\\frac",
    "degree": "^\\circ",
    "left": "",
    "right": "",
    "displaystyle": "",
    "lt": "<",
    "gt": ">",
    "ne": "\\neq",
    "leqslant": "\\le",
    "geqslant": "\\ge",
    "textdegree": "^\\circ",
    "newline": "",
    "varnothing": "\\emptyset",
}
ROOTS = {"√": "\\sqrt", "∛": "\\sqrt[3]", "∜": "\\sqrt[4]"}
ROOT = re.compile(r"([√∛∜])\s*(\d+(?:\.\d+)?|[A-Za-z]|\([^()]{1,80}\)|\{[^{}]{1,80}\})")
CALLED = re.compile(r"\\?(?<![A-Za-z])sqrt\s*\(([^()]{1,80})\)")
OVER = re.compile(r"\{([^{}]{1,80}?)\\over(?![A-Za-z])([^{}]{1,80})\}")
COMMAND = re.compile(r"\\([A-Za-z]+)")
SUPERSCRIPT = re.compile(r"[⁰¹²³⁴-⁹⁺⁻]+")
SUBSCRIPT = re.compile(r"[₀-₉]+")
PERMILLE = re.compile(r"(\d+(?:\.\d+)?)\s*‰")
FUNCTIONS = (
    "sqrt|sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|log|ln|exp|max|min|and|or|inf|pi|mod|gcd|lcm"
)
PROSE = re.compile(  # words; names of points (ABC) are none, nor are subscripts
    rf"(?<![\\A-Za-z])(?!(?:{FUNCTIONS})\b)(?![A-Z]{{2,5}}(?![A-Za-z]))[A-Za-z]{{3,}}"
    rf"|[\u4e00-\u9fff]"
    r"|(?<![\\A-Za-z])(?:[Ii][tsf]|[Ss]o|[Ww]e|[Hh]e|[Oo][fn]|[Aa][ts]|an|[Bb][ey]|[Mm]y|[Tt]o|us"
    r"|[Nn]o|do)"
    r"(?![A-Za-z])|(?<=\d)(?:st|nd|rd|th)(?![A-Za-z])"
)
INDEX = re.compile(r"_\{[^{}]{1,30}\}")
ENVIRONMENT = re.compile(r"\\(?:begin|end)\s*\{[a-z]*\*?\}(?:\{[clr|]*\})?")
SPACED_DIGITS = re.compile(r"\d\s+\d")
BASED = re.compile(r"\d\s*_")
EVERYDAY = (
    "units?|dollars?|cents?|euros?|pounds?|yuan|rupees?|people|persons?|students?|apples?|days?"
    "|weeks?"
    "|months?|years?|minutes?|mins?|hours?|hrs?|seconds?|secs?|meters?|metres?|centimeters?"
    "|centimetres?|"
    "kilometers?|kilometres?|millimeters?|millimetres?|inch(?:es)?|feet|foot|ft|yards?|miles?|mph"
    "|kmph|"
    "grams?|kilograms?|kg|mg|lbs?|liters?|litres?|ml|cm|mm|dm|km|degrees?|deg|radians?|rad|ohms?"
    "|volts?|"
    "watts?|joules?|newtons?|hertz|hz|pascals?|kelvins?|celsius|fahrenheit|tons?|tonnes?|acres?"
    "|points?|"
    "marks?|times|ways|percent|coins?|books?|boxes|miles per hour|m/s|km/h|cm/s"
)
WORD_UNIT = re.compile(
    rf"(?<=[\w}})\]\s])\s*(?<![\\A-Za-z])((?:(?:square|cubic|sq|cu)\.?\s+)?(?:{EVERYDAY})"
    r"(?:\s*(?:/|per)\s*[A-Za-z]{1,12})?(?:\s*\^\s*\{?\s*[23]\s*\}?|[23])?)\s*\.?\s*$",
    re.IGNORECASE,
)
LETTER_UNIT = re.compile(
    r"(?:(?<=[\d})\]])|(?<=\\pi))\s+((?:[mgshlNJWVAKCLT]|Pa|Hz)(?:/s"
    r"|/h)?(?:\s*\^\s*\{?\s*[23]\s*\}?)?)\s*\.?\s*$"
)
SIGN_UNIT = re.compile(r"\s*(\\Omega|(?:\^\s*\{?\s*\\circ\s*\}?)\s*[CFK]?|[℃℉])\s*\.?\s*$")
SET_TEXT = re.compile(
    r"\\(?:text(?:bf|it|rm|normal)?|mathrm|mbox)\s*\{\s*([A-Za-z][A-Za-z .²³/^23]*)\s*\}\s*"
    r"(\^\s*\{?\s*[23]\s*\}?)?\s*\.?\s*$"
)


def to_latex(text: str) -> str:
    """A text as one line of LaTeX, without dollars and markdown."""
    bare = join_thousands(tidy(text)).replace("\\$", "")
    bare = LATEX_SPACE.sub(" ", MARKUP.sub("", unwrap(bare)))
    bare = PERMILLE.sub(r"\\frac{\1}{1000}", bare)
    bare = ROOT.sub(lambda m: f"{ROOTS[m[1]]}{{{m[2].strip('(){}')}}}", bare)
    bare = SUPERSCRIPT.sub(lambda m: f"^{{{''.join(SUPERSCRIPTS[c] for c in m[0])}}}", bare)
    bare = SUBSCRIPT.sub(lambda m: f"_{{{''.join(SUBSCRIPTS[c] for c in m[0])}}}", bare)
    for sign, name in NAMES.items():
        bare = bare.replace(sign, name)
    bare = COMMAND.sub(lambda m: COMMANDS.get(m[1], m[0]), bare).replace("\\%", "%")
    bare = CALLED.sub(r"\\sqrt{\1}", OVER.sub(r"\\frac{\1}{\2}", bare))
    bare = re.sub(r"(?<![\\A-Za-z])pi(?![A-Za-z])", r"\\pi ", bare)
    for sign, name in (("!=", "\\neq "), ("<=", "\\le "), (">=", "\\ge ")):
        bare = bare.replace(sign, name)
    bare = re.sub(r"_(\w)\s+(?=[\d\\(A-Za-z])", r"_{\1} ", bare)
    if not re.search(r"[\[({]\s*-?\d", COMMA_THOUSANDS.sub("", bare)) and ", " not in bare:
        bare = COMMA_THOUSANDS.sub(lambda m: m[0].replace(",", ""), bare)
    bare = re.sub(r"(?<=[{(])\s+|\s+(?=[})])", "", bare)
    return " ".join(bare.split()).strip(" .;,")


def is_mathematics(latex: str) -> bool:
    """Whether a text is mathematics alone: no words but names of functions, no digits side by side
    and no numerals of a base, all of which math-verify would multiply out.
    """
    bare, _ = split_unit(ENVIRONMENT.sub(" ; ", latex))
    return (
        bool(re.search(r"[\dA-Za-z\\]", bare))
        and not PROSE.search(INDEX.sub("", bare))
        and not SPACED_DIGITS.search(bare.replace("&", ";").replace("\\\\", ";"))
        and not BASED.search(bare)
    )


def split_unit(latex: str) -> tuple[str, str]:
    """(what stands before the unit at the end, the unit's short name or an empty string)."""
    for pattern in (SIGN_UNIT, WORD_UNIT, LETTER_UNIT):
        match = pattern.search(latex)
        if match and latex[: match.start()].strip(" ({["):
            return latex[: match.start()].strip(), _short(match[1])
    return latex, ""


def _short(unit: str) -> str:
    """One name for a unit; `units` says nothing."""
    text = re.sub(r"[\s{}.]", "", unit.lower() if len(unit) > 2 else unit)
    power = (
        "2" if text.startswith(("square", "sq")) else "3" if text.startswith(("cub", "cu")) else ""
    )
    text = re.sub(r"^(?:square|cubic|sq|cu(?=[^b]))", "", text)
    if text.rstrip("s") in ("unit", "") or re.fullmatch(r"units?\^?[23]?", text):
        return ""
    if "\\circ" in text:
        return (
            f"°{text[-1].upper()}" if text[-1].upper() in "CFK" and text[-1] != "c" else "degrees"
        )
    match = re.fullmatch(r"(.*?)\^?([23])?", text)
    name, digit = (match[1], match[2] or power) if match else (text, power)
    short = unit_named("Omega" if name == "\\omega" else name)
    return f"{short.rstrip('s') if short == name and len(short) > 3 else short}{digit}"
