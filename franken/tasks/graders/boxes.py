"""Bounding boxes: read from JSON, lists and the models' own marks, compared by intersection over
union.
"""

import ast
import json
import math
import re

import numpy as np

from franken.tasks.graders.reply import FENCE
from franken.tasks.graders.verdict import Verdict, refuse

IOU = 0.5
Box = tuple[float, float, float, float]
NUMERAL = re.compile(r"(?<![\w.])[-+]?\d{1,300}(?:\.\d{1,300})?(?![\w])")
FOUR = r"\s*,\s*".join([r"([-+]?\d{1,30}(?:\.\d{1,30})?)"] * 4)
LIST = re.compile(rf"[\[(]\s*{FOUR}\s*[\])]")
CORNERS = re.compile(
    r"\(\s*([-+]?[\d.]{1,30})\s*,\s*([-+]?[\d.]{1,30})\s*\)\s*,?\s*\(\s*([-+]?[\d.]{1,30})\s*,\s*"
    r"([-+]?[\d.]{1,30})\s*\)"
)
LOOSE = re.compile(r"[-+\d.,;:()\[\]{}<>/|\s]*")
NAMES = re.compile(  # what may stand beside bare numbers: tags, keys, coordinates by name
    r"</?\w{1,20}>|<\|\w{1,20}\|>|\"?(?<!\w)\w{0,20}box\w{0,10}\"?|\b[xywh][12]?\b|\band\b|="
)
KEYS = re.compile(r"(?:bbox|box|bounding)\w*|coordinates?|rect\w*", re.IGNORECASE)


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes (x1, y1, x2, y2), in [0, 1]."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    overlap = max(0.0, width) * max(0.0, height)
    union = _area(a) + _area(b) - overlap
    return overlap / union if union > 0 else 0.0


def _area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def read_boxes(text: str) -> list[Box] | None:
    """Boxes (x1, y1, x2, y2) from JSON or Python objects (`bbox_2d`), lists of four, corners in
    parentheses, or bare numbers in fours; None when it is not fours.
    """
    fenced = [piece for piece in FENCE.findall(text) if piece.strip()]
    for piece in [text, *reversed(fenced)]:
        content = _parsed(piece.strip())
        if content is not None:
            return _fours(_numbers_in(content))
    lists = LIST.findall(text) or CORNERS.findall(text)
    if lists:
        try:
            return _fours([float(x) for four in lists for x in four])
        except ValueError:
            return None
    words = NAMES.sub(" ", text)
    if not LOOSE.fullmatch(words):
        return None
    return _fours([float(x) for x in NUMERAL.findall(text)])


def _parsed(text: str) -> dict[str, object] | list[object] | None:
    """JSON, or Python's spelling of it: an object or a list; None when the text is neither."""
    if text[:1] not in ("[", "{"):
        return None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):  # no JSON, too long a number, or brackets too deep
        if "'" not in text or len(text) > 10_000 or text.count("[") + text.count("{") > 200:
            return None
        try:
            content = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    return content if isinstance(content, dict | list) else None


def _fours(numbers: list[float]) -> list[Box] | None:
    if not numbers or len(numbers) % 4 or not all(map(math.isfinite, numbers)):
        return None
    fours = (numbers[i : i + 4] for i in range(0, len(numbers), 4))
    return [(a, b, c, d) for a, b, c, d in fours]


def _numbers_in(content: object) -> list[float]:
    """The numbers of an object: of the keys that name a box, if any does; labels carry none."""
    if isinstance(content, dict):
        named = [value for key, value in content.items() if KEYS.fullmatch(str(key))]
        values = named or [
            v for key, v in content.items() if key not in ("label", "score", "confidence")
        ]
        return [x for value in values for x in _numbers_in(value)]
    if isinstance(content, list | tuple):
        return [x for value in content for x in _numbers_in(value)]
    if isinstance(content, str):
        return [float(x) for four in LIST.findall(content) for x in four]
    if isinstance(content, bool) or not isinstance(content, int | float):
        return []
    try:
        return [float(content)]
    except OverflowError:
        return [math.inf]


def compare_boxes(text: str, gold: str, threshold: float = IOU) -> Verdict:
    """Every right box is met by one of the said ones with an IoU above the threshold, one to one,
    and none is left over.
    """
    right = read_boxes(gold)
    if right is None:
        raise ValueError(f"the right answer {gold!r} is not a box")
    boxes = read_boxes(text)
    if boxes is None:
        return refuse(f"{len(NUMERAL.findall(text))} numbers are not a box")
    if len(boxes) != len(right):
        reason = f"{len(boxes)} boxes, there are {len(right)}"
        return Verdict(0.0, reason, text, gold, "boxes are counted")
    from scipy.optimize import linear_sum_assignment

    overlaps = np.array([[iou(a, b) for b in right] for a in boxes])
    met = overlaps > threshold
    rows, columns = linear_sum_assignment(met + overlaps / (1 + len(right)), maximize=True)
    lowest = float(overlaps[rows, columns].min())
    reason = f"IoU {lowest:.2f} against {threshold}"
    return Verdict(float(met[rows, columns].all()), reason, text, gold, f"IoU above {threshold:g}")
