"""Replies after public issues of evaluation kits, trainers and math-verify.

A false "right" pays a model for a wrong answer, so there must be none; a careful false "wrong" may
happen in few of them. What differs is written out: `pytest -s`.
"""

import json
import sys

from public_data import needs, public

from franken.tasks.grading import grade_typed

DIFFERENT = 0.03  # the share of the replies that may miss their score


@needs("public_cases")
def test_replies_of_public_reports():
    lines = (public("public_cases") / "graders.jsonl").read_text("utf-8").splitlines()
    cases = [json.loads(line) for line in lines]
    wrong, right = [], []  # replies that are falsely called so
    for case in cases:
        named = case["type"] if case["given_type"] else ""
        grade = grade_typed(case["reply"], case["gold"], named, case["options"])
        if grade.score != case["expected"]:
            line = f"{case['group']}: {case['gold']!r}, reply {case['reply']!r}: {grade.reason}\n"
            (right if grade.score > case["expected"] else wrong).append(line)
    sys.stdout.writelines(right + wrong)
    assert cases
    assert not right
    assert len(wrong) <= DIFFERENT * len(cases)
