"""One spelling for what is written in many: full-width forms, TeX that only sets text, markdown,
thousands separators, signs in words. Nothing here decides what an answer means.
"""

import re

FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
SIGNS = {
    **FULL_WIDTH,
    0xFFE5: "¥",
    0x3000: " ",  # ideographic space
    0x00A0: " ",
    0x2009: " ",
    0x202F: " ",
    **dict.fromkeys((0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF, 0x200E, 0x200F), None),
    ord("。"): ". ",
    ord("、"): ", ",
    ord("【"): "[",
    ord("】"): "]",
    ord("「"): '"',
    ord("」"): '"',
    ord("“"): '"',
    ord("”"): '"',
    ord("‘"): "'",
    ord("’"): "'",
    ord("−"): "-",
    ord("﹣"): "-",
    **dict.fromkeys(map(ord, "✓✔✅☑\ufe0f"), None),
    0x2126: "Ω",  # the ohm sign
    ord("∶"): ":",
    ord("∕"): "/",
    ord("⁄"): "/",
}
SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-", strict=True))
SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True))
MARKUP = re.compile(r"\*\*|__|`|\\\(|\\\)|(?<!\\)\\\[|\\\]|\$")
POWER = re.compile(r"(?<=\d)\*\*(?=-?\d)")  # 10**-9, which is no bold type
EMPHASIS = re.compile(r"(?<![\w*)\]}])\*(?=[^\s*])([^*]+)(?<=\S)\*(?![\w*(\[{])")
HEADING = re.compile(r"^#{1,6} ")
TEXT = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|sc|normal|up)?|math(?:rm|bf|it|sf|tt|cal)|mbox|operatorname|bm|"
    r"boldsymbol)\s*\{([^{}]*)\}"
)
LATEX_SPACE = re.compile(r"(?<!\\)(?:\\[,;:! ]|\\quad|\\qquad|\\enspace|\\thinspace)|~")
TEX_THOUSANDS = re.compile(
    r"(?<![\d.,])([1-9]\d{0,2})((?:\s?(?:\{\s*,\s*\}|,?\s?\\!|(?<!,)\\[,;: ]|~)\s?\d{3})+)(?!\d)"
)
COMMA_THOUSANDS = re.compile(r"(?<![\d.,(\[{])([1-9]\d{0,2})((?:,\d{3})+)(?![\d,])")
SIGN_WORD = re.compile(
    r"\b(?:negative|minus)[ -]+(?=[\d.\\¼-¾⅐-⅞]|(?:zero|one|two|three|four|five|six|seven|eight"
    r"|nine|ten"
    r"|eleven|twelve|\w+teen|twenty|\w{3,5}ty)\b)",
    re.IGNORECASE,
)


def tidy(text: str) -> str:
    """A text with one code point for each sign: full-width, CJK punctuation, quotes, minus."""
    return POWER.sub("^", text.translate(SIGNS))


def normalise(answer: str) -> str:
    """Case, surrounding space and a closing full stop carry no meaning."""
    return " ".join(answer.lower().split()).strip().rstrip(".!;,")


def plain(text: str) -> str:
    """An answer without what only sets it: markdown, dollars of LaTeX, `\\text{}`, LaTeX spaces.

    A dollar before a digit outside of paired LaTeX dollars is money; it carries no number either,
    and goes too.
    """
    bare = join_thousands(tidy(text)).replace("\\$", "").replace("\\colon", ":")
    bare = LATEX_SPACE.sub(" ", MARKUP.sub("", unwrap(bare)))
    return EMPHASIS.sub(r"\1", HEADING.sub("", " ".join(bare.split())))


def unwrap(text: str) -> str:
    """`\\text{}` and its kin replaced by what they hold, one inside another too."""
    for _ in range(4):
        inner = TEXT.sub(r" \1 ", text)
        if inner == text:
            break
        text = inner
    return text


def join_thousands(text: str) -> str:
    """`1{,}000`, `1\\,000`, `11,\\!111` → 1000, 11111. A comma with a space behind it is a list."""
    return TEX_THOUSANDS.sub(lambda m: m[1] + re.sub(r"\D", "", m[2]), text)


def sign_in_digits(text: str) -> str:
    """`negative 3`, `minus three`, `负3` → `-3`, `-three`."""
    return re.sub(r"负\s*(?=\d)", "-", SIGN_WORD.sub("-", text))
