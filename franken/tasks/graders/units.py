"""Units behind a number: which are one, which can be converted, which are only words."""

import re
from fractions import Fraction

LENGTHS = {"mm": "1/1000", "cm": "1/100", "dm": "1/10", "m": "1", "km": "1000"}
FACTORS: dict[str, dict[str, str]] = {
    "length": LENGTHS,
    "imperial": {"in": "1", "ft": "12", "yd": "36", "mi": "63360"},
    "mass": {"mg": "1/1000", "g": "1", "kg": "1000", "t": "1000000"},
    "imperial mass": {"oz": "1", "lb": "16"},
    "time": {"ms": "1/1000", "s": "1", "min": "60", "h": "3600", "day": "86400"},
    "volume": {"ml": "1/1000", "cl": "1/100", "l": "1"},
    "angle": {"degrees": "1"},
    "radians": {"rad": "1"},
    "celsius": {"°C": "1"},
    "fahrenheit": {"°F": "1"},
    "kelvin": {"K": "1"},
    "speed": {"m/s": "1", "km/h": "5/18"},
    "mph": {"mph": "1"},
    "resistance": {"Ω": "1", "kΩ": "1000"},
    "voltage": {"V": "1", "mV": "1/1000", "kV": "1000"},
    "current": {"A": "1", "mA": "1/1000"},
    "power": {"W": "1", "kW": "1000"},
    "energy": {"J": "1", "kJ": "1000"},
    "force": {"N": "1"},
    "pressure": {"Pa": "1", "kPa": "1000"},
    "frequency": {"Hz": "1", "kHz": "1000"},
}
UNITS: dict[str, tuple[str, Fraction]] = {
    unit: (dimension, Fraction(factor))
    for dimension, table in FACTORS.items()
    for unit, factor in table.items()
}
UNITS |= {
    f"{unit}{power}": (f"{dimension}^{power}", Fraction(factor) ** int(power))
    for dimension in ("length", "imperial")
    for unit, factor in FACTORS[dimension].items()
    for power in "23"
}
LONG = {
    "mm": "millimeter millimetre",
    "cm": "centimeter centimetre",
    "dm": "decimeter decimetre",
    "m": "meter metre",
    "km": "kilometer kilometre",
    "ft": "foot",
    "in": "inch",
    "yd": "yard",
    "mi": "mile",
    "mg": "milligram",
    "g": "gram gramme",
    "kg": "kilogram",
    "oz": "ounce",
    "t": "tonne",
    "s": "second sec",
    "min": "minute mins",
    "h": "hour hr",
    "ms": "millisecond",
    "l": "liter litre",
    "ml": "milliliter millilitre",
    "degrees": "degree deg",
    "rad": "radian",
    "°C": "℃ celsius",
    "°F": "℉ fahrenheit",
    "K": "kelvin",
    "Ω": "ohm",
    "V": "volt",
    "A": "ampere amp",
    "W": "watt",
    "J": "joule",
    "N": "newton",
    "Pa": "pascal",
    "Hz": "hertz",
}
CHINESE = {
    "毫米": "mm",
    "厘米": "cm",
    "分米": "dm",
    "千米": "km",
    "公里": "km",
    "平方厘米": "cm2",
    "平方米": "m2",
    "立方厘米": "cm3",
    "立方米": "m3",
    "米": "m",
    "千克": "kg",
    "公斤": "kg",
    "克": "g",
    "毫升": "ml",
    "升": "l",
    "小时": "h",
    "分钟": "min",
    "秒": "s",
    "天": "day",
    "摄氏度": "°C",
    "度": "degrees",
}
ALIASES = {
    f"{long}{s}": short
    for short, names in LONG.items()
    for long in names.split()
    for s in ("", "s")
}
ALIASES |= {"feet": "ft", "inches": "in", "days": "day", "°": "degrees", "L": "l", "mL": "ml"}
ALIASES |= {"kmh": "km/h", "kph": "km/h", "ohms": "Ω", "cc": "cm3", "lbs": "lb"}
UNIT = re.compile(
    r"\s*(?:(?:\^?\s*\{?\s*\\circ\s*\}?|°|\\degree\b|\bdegrees?\b)\s*(?:([CF])\b|(celsius"
    r"|fahrenheit))"
    r"|(\^?\s*\{?\s*\\circ\s*\}?|°|\\degree\b)|([℃℉])"
    r"|(\\?Omega\b|Ω|[A-Za-z]+(?:/(?:h|s|hr|sec|hour"
    r"|second)\b)?)\s*(?:\^?\s*\{?\s*([23])\s*\}?(?!\d)|([²³]))?)",
    re.IGNORECASE,
)
SPEEDS = {
    "km/h": re.compile(r"\b(?:km|kilomet(?:er|re)s?) (?:per|an) hour\b", re.IGNORECASE),
    "m/s": re.compile(r"\bmet(?:er|re)s? per second\b", re.IGNORECASE),
    "mph": re.compile(r"\bmiles? (?:per|an) hour\b", re.IGNORECASE),
}
SQUARE = re.compile(r"\s*(square|cubic|sq\.?|cu\.?)\s+([A-Za-z]+)", re.IGNORECASE)
HAN_UNIT = re.compile("|".join(sorted(CHINESE, key=len, reverse=True)))


def short_speed(text: str) -> str:
    """A text in which `kilometers per hour` and its kin are km/h, m/s and mph."""
    for short, spelled in SPEEDS.items():
        text = spelled.sub(short, text)
    return text


def unit_at(text: str, start: int) -> tuple[str | None, int]:
    """The known unit that stands at `start`, and where it ends."""
    han = HAN_UNIT.match(text, start)
    if han:
        return CHINESE[han[0]], han.end()
    spelled = SQUARE.match(text, start)
    match = spelled or UNIT.match(text, start)
    if match is None or not match[0].strip():
        return None, start
    end = match.end()
    if spelled:
        name, power = spelled[2], "2" if spelled[1].lower().startswith("sq") else "3"
    elif match[1] or match[2]:
        return f"°{(match[1] or match[2])[0].upper()}", end
    elif match[3] or match[4]:
        return ("°C" if match[4] == "℃" else "°F" if match[4] else "degrees"), end
    else:
        name, power = match[5], match[6] or {"²": "2", "³": "3", None: ""}[match[7]]
    short = f"{unit_named(name)}{power}"
    a_word = short == "in" and re.match(r"\s+[A-Za-z]", text[end : end + 9])  # 5 in the box
    ratio = text[end : end + 1] == "/"  # km/h is not km
    return (short, end) if short in UNITS and not (a_word or ratio) else (None, start)


def unit_named(name: str) -> str:
    """The short form of a unit's name; the name itself when it is none that is known."""
    if name.lstrip("\\") in ("Omega", "Ω"):
        return "Ω"
    for form in (name, name.lower() if len(name) > 1 else name):  # 5M is no metres
        if form in UNITS:
            return form
        if form in ALIASES:
            return ALIASES[form]
    return name


def base(unit: str, value: Fraction) -> tuple[str, Fraction]:
    """(dimension, value in the base unit)."""
    dimension, factor = UNITS[unit]
    return dimension, value * factor
