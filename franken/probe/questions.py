"""Text questions from one local file, in the layouts of GSM8K and MATH-500: for ablations, which need no image.

GSM8K: `question` and `answer`, the result after `####`. MATH-500: `problem` and `answer`. One JSON object a line.
"""

import json
from pathlib import Path
from typing import Any

from franken.errors import FrankenError, UsageError
from franken.tasks import Item, Pair

INSTRUCTION = "Please solve the problem and put the final answer in one \\boxed{}.\n\n"
NO_IMAGE = "the question has no image"


def load_questions(file: Path) -> list[Pair]:
    """Every line as a Pair that swaps count as ineligible; a line without question or answer carries an error.

    Raises UsageError without the file, FrankenError on a line that is not JSON.
    """
    if not file.is_file():
        raise UsageError(f"there is no {file}", why="a file of questions is needed", fix="check --data")
    pairs = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as e:
            raise FrankenError(f"{file.name}, line {number} is not JSON", why=str(e), fix="repair the line") from e
        pairs.append(_pair(row if isinstance(row, dict) else {}, file.stem, number))
    return pairs


def _pair(row: dict[str, Any], task: str, number: int) -> Pair:
    key = str(row.get("id", row.get("unique_id", f"{task}-{number}")))
    question, answer = row.get("question", row.get("problem")), row.get("answer")
    error = None
    if not isinstance(question, str) or answer is None:
        error = "the line has no question and answer (or problem and answer)"
    gold = str(answer).rsplit("####", 1)[-1].strip()
    gold = gold.replace(",", "") if gold.replace(",", "").lstrip("-").isdigit() else gold
    item = Item(key, task, f"{INSTRUCTION}{question}", gold, error=error)
    return Pair(key, task, task, item, item, ineligible=None if error else NO_IMAGE, error=error)
