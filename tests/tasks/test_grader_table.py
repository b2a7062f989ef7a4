"""The graders against hand-written cases: gold answer, reply, right or wrong.

`+` lines must score 1, `-` lines 0. Lines under "reference" are extraction errors of the reference
implementation.
"""

import pytest

from franken.tasks.grading import ANSWER_TYPES, grade_typed

ANIMALS = ("a dog", "cats", "red", "24", "25")
LETTERS = ("B", "A")
LONG = tuple(f"text {i}" for i in range(10))

INTEGER = (
    r"""
+ | 7 | 7
+ | 7 | <think>3+4</think><answer>7</answer>
+ | 7 | <answer> 7 </answer> I am sure it is not 8.
+ | 7 | \boxed{7}
+ | 7 | First \boxed{3}, and in the end \boxed{7}.
+ | 7 | \boxed{\text{7}}
+ | 7 | There are many.
+ The answer is 7.
+ | 7 | 7.0
+ | 7 | +7
+ | 7 | seven
+ | 7 | Seven apples
+ | 7 | There are seven of them.
+ | 21 | twenty-one
+ | 7 | **7**
+ | 7 | $7$
+ | 7 | \(7\)
+ | 7 | 3 + 4 = 7
+ | 7 | The sum of 3 and 4: the answer is 7
+ | 7 | Final answer: 7
+ | 7 | The answer is: **7**
+ | 7 | x = 7
+ | 7 | <answer>7 apples</answer>
+ | -7 | -7
+ | -7 | −7
+ | 1234 | 1,234
+ | 1234 | 1 234
+ | 1234 | $1,234
+ | 1,234 | 1234
+ | 0 | zero
+ | 12 | \frac{24}{2}
+ | 7 | 14/2
+ | 7 | There is one mark: answer: 7
+ | 7 | The answer is 7, not 8.
+ | 7 | It is 7 (not 8).
+ | 100 | one hundred
+ | 36 | three dozen
+ | 2000000 | 2 million
- | 1 | one hundred
- | 2 | 2 million
- | 25 | 2,5
- | 25 | 2 5
- | 7 | 3 apples and 4 pears
- | 7 | The answer is not 7
- | 7 | I don't think it is 7.
- | 7 | fewer than 7
- | 7 | not 0.7
- | 7 | 8
- | 7 | 17
- | 7 | 71
- | 7 | 7.5
- | 7 | -7
- | 7 | 0.7
- | 7 | 7 or 8
- | 7 | between 6 and 8
- | 7 | 3 red and 7 blue
- | 7 | <answer></answer>
- | 7 | <answer>many</answer>
- | 7 | <answer>8</answer> 7
- | 7 | \boxed{8} so 7
- | 7 | 7x
- | 7 | 2x + 7
- | 7 | 7\pi
- | 7 | \sqrt{7}
- | 7 | 3 x 7
- | 7 | r7c7
- | 7 | seventeen
- | 10 | 10_8
- | 7 | <think>so far I have 7
- | 7 | someone
- | 12 | 1,2
""",
    (),
)

INTEGER_REFERENCE = (
    r"""
- | 25 | 0.25
- | 25 | <answer>0.25</answer>
- | 25 | \boxed{0.25}
- | 25 | .25
- | 5 | 0.5
- | 5 | 15
- | 3 | 3.14
- | 100 | 1.00
- | 2 | answer: 1/2
""",
    (),
)

NUMBER = (
    r"""
+ | 0.25 | 0.25
+ | 0.25 | .25
+ | 0.25 | 1/4
+ | 0.25 | \frac{1}{4}
+ | 0.25 | \frac14
+ | 0.25 | ¼
+ | 0.25 | 25%
+ | 0.25 | 25\%
+ | 25% | 25%
+ | 25% | 25 percent
+ | 25% | 0.25
+ | 25% | 25
+ | 25 | 25%
+ | 0.33 | 1/3
+ | 0.33 | 0.3333
+ | 1.45 | 1.4523
+ | 2.5 | 2 1/2
+ | 2.5 | 2½
+ | 3.5 | 7/2
+ | 1/3 | 2/6
+ | 1200 | 1.2e3
+ | 1200 | 1.2 \times 10^3
+ | 1200 | 1.2 × 10^3
+ | 0.0012 | 1.2 \times 10^{-3}
+ | 1200.5 | 1,200.5
+ | 5 cm | 5
+ | 5 | 5 cm
+ | 5 cm | 5 centimeters
+ | 5 cm | 0.05 m
+ | 5 cm | 50 mm
+ | 30 | 30°
+ | 30 | 30^\circ
+ | 30° | 30 degrees
+ | 2 h | 120 minutes
+ | 9 cm^2 | 9 square centimetres
+ | 9 cm² | The area is 9 cm^2.
+ | 3.50 | $3.50
+ | 3.14 | \approx 3.14
+ | 3.14 | π ≈ 3.1416
+ | -0.5 | -1/2
+ | -0.5 | -\frac{1}{2}
+ | 0.5 | <answer>The ratio is 0.5</answer>
+ | 1/3 | 0.333
+ | 1/3 | 0.33333...
+ | 1/3 | 33.3%
+ | 2/3 | 0.6667
- | 2/3 | 0.666
- | 1/3 | 0.33
- | 1/3 | 0.334
- | 1/4 | 0.251
- | 0.25 | 0.26
- | 0.25 | 0.2
- | 0.25 | 25
- | 0.33 | 0.3
- | 0.33 | 0.34
- | 5 | 5.2
- | 25 | 0.25
- | 25% | 2.5
- | 0.25 | 0.25%
- | 5 cm | 5 m
- | 5 cm | 5 cm^2
- | 5 cm | 5 kg
- | 2.5 | 2 or 1/2
- | 0.5 | 1
- | 0.5 | 5
- | 1200 | 1,2
- | 1/3 | 3/1
- | 1/3 | 1/0
- | 3.14 | \pi
- | 3.14 | it is 3, or 3.14
- | 3 | 1 234 3
""",
    (),
)

CLOCK = (
    r"""
+ | 2:43 | 2:43
+ | 2:43 | 02:43
+ | 2:43 | 14:43
+ | 2:43 | 2:43 PM
+ | 2:43 | 2.43
+ | 2:43 | The time is 2:43.
+ | 2:43 | <answer>2:43</answer>
+ | 2:43 | \boxed{2:43}
+ | 0:37 | 12:37
+ | 12:37 | 0:37
+ | 2:30 | half past two
+ | 2:45 | quarter to three
+ | 12:45 | a quarter to 1
+ | 2:15 | a quarter past 2
+ | 2:10 | ten past two
+ | 1:50 | ten minutes to two
+ | 2:00 | 2 o'clock
+ | 2:00 | two o'clock
+ | 2:00 | 2 pm
+ | 2:43 PM | 14:43
+ | 14:43 | 2:43 pm
+ | 2:43 AM | 2:43 a.m.
+ | 2:43:10 | 2:43:10
+ | 2:43 | It was 2:00, so the answer is 2:43
- | 2:43 | It is not 2:43
- | 2:43 | 2:34
- | 2:43 | 3:43
- | 2:43 | 12:43
- | 2:43 | 2:4
- | 2:43 | 243
- | 2:43 | 2 43
- | 2:43 | 2:43 or 3:43
- | 2:43 | 2:75
- | 2:43 | 2:43:10
- | 2:43 PM | 2:43 AM
- | 14:43 | 2:43 am
- | 12:30 AM | 12:30 PM
- | 14:43 | 2:43
- | 2:30 | half past three
- | 2:43 | late
""",
    (),
)

WORD = (
    r"""
+ | red | red
+ | red | Red.
+ | red | RED
+ | red | "red"
+ | red | **red**
+ | red | <answer>red</answer>
+ | red | \boxed{\text{red}}
+ | red | The answer is red.
+ | red | The colour is red.
+ | red | It is red.
+ | red | So, the final answer is: red
+ | a dog | dog
+ | dog | a dog
+ | dog | The dog
+ | New York | new  york
+ | Tuesday | The day is Tuesday.
+ | Tuesday | Therefore, it's Tuesday
- | red | blue
- | red | reddish
- | red | a red and a blue one
- | red | red or blue
- | red | dark red
- | New York | York
- | dog | dogs and cats
- | red | The colour is not red.
- | red | The answer is not red.
- | red |
- | red | <answer></answer>
""",
    (),
)

WORD_REFERENCE = (
    r"""
- | red | not red
- | red | It is not red
- | red | coloured
- | cat | category
- | no | nothing
- | on | none
- | left | the object that is left of the cube
""",
    (),
)

YES_NO = (
    r"""
+ | yes | yes
+ | Yes | Yes.
+ | yes | Yes, because both sides match.
+ | yes | yes it is
+ | yes | <answer>Yes</answer>
+ | yes | The answer is yes.
+ | yes | **Yes**
+ | yes | True
+ | no | No
+ | no | no.
+ | no | No, there is none.
+ | no | No there isn't
+ | no | false
+ | no | \boxed{\text{No}}
+ | yes | Yes - it does
- | yes | no
- | no | yes
- | yes | Yes and no
- | yes | yes/no
- | yes | yes or no
- | no | No idea
- | no | I do not know
- | no | not sure
- | no | There is no dog.
- | no | nothing
- | yes | yesterday
- | no | north
- | no | No one knows
- | yes | not yes
""",
    (),
)

OPTION = (
    r"""
+ | B | B
+ | B | b
+ | B | (B)
+ | B | B.
+ | B | B)
+ | B | [B]
+ | B | B:
+ | B | (B) cats
+ | B | B. cats
+ | B | B: cats
+ | B | B - cats
+ | B | Option B
+ | B | option (B)
+ | B | Choice B is correct.
+ | B | The answer is B
+ | B | The answer is (B).
+ | B | The answer is: B. cats
+ | B | The correct answer is B because there are two.
+ | B | the correct option is **B**
+ | B | Answer: B
+ | B | <answer>B</answer>
+ | B | <think>A or C?</think><answer>(B)</answer>
+ | B | \boxed{B}
+ | B | \boxed{\text{B}}
+ | B | \boxed{\text{(B)}}
+ | B | cats
+ | B | The animals are cats.
+ | B | I choose option B
+ | B | So it must be (B), I think.
+ | cats | B
+ | (B) | B
+ | B. cats | B
+ | A | A
+ | A | a
+ | A | The answer is A.
+ | A | (A)
+ | A | a dog
+ | A | A dog
+ | A | A, because it barks
+ | A | The answer is A, because it barks
+ | A | dog
+ | C | The colour is red.
+ | D | 24
+ | D | 24.0
+ | D | The answer is 24
+ | D | D. 24
+ | B | The answer is B, not C.
+ | B | B (cats)
+ | B | Thus B
+ | B | It's B
+ | B | I'd go with B
+ | B | answer (b)
+ | B | Hence, (B)
+ | B | Based on the image, the answer is B) cats
+ | D | The answer is 24, which is option D
- | D | The answer is 25, which is right
- | B | B (red)
- | B | A
- | B | C
- | B | It is not (B).
- | B | I would not choose B
- | B | The answer is not B.
- | B | B is wrong.
- | B | B or C
- | B | (B) or (C)
- | B | Both (B) and (C) fit.
- | B | B. 24
- | B | F
- | B | cats and red
- | B | dog
- | B | not cats
- | B | I do not know
- | B | Be careful.
- | B | The answer is blue
- | D | 25
- | D | 240
- | D | 0.24
- | B |
""",
    ANIMALS,
)

OPTION_REFERENCE = (
    r"""
- | A | A cat is in the picture.
- | A | A cat
- | A | The answer is a cat.
- | A | The answer is A cat
- | A | a tree
- | A | answer (a cat)
- | A | A man and a woman
- | A | An option is missing
- | C | credit
- | C | coloured
- | D | 124
- | E | 0.25
- | A | This is a dogma.
""",
    ANIMALS,
)

OPTION_BARE = (
    r"""
+ | A, C | A, C
+ | A, C | C and A
+ | C | C
+ | C | The answer is C.
- | A, C | A
- | A | A, C
- | I | I think so.
- | I | I cannot see it
""",
    (),
)

OPTION_OF_LETTERS = (
    r"""
+ | A | A
+ | A | (A)
- | B | A
""",
    LETTERS,
)

OPTION_OF_FORMULAS = (
    r"""
+ | A | 145°
+ | A | 145
+ | A | 145^\circ
+ | A | The angle is 145 degrees.
+ | C | 2√3
+ | C | 2\sqrt{3}
+ | C | $2\sqrt{3}$
+ | D | 1/2
+ | D | 0.5
- | A | 35
- | C | 2
- | C | 3
- | C | 2√5
- | D | 1/3
""",
    ("145°", "35°", "2√{3}", "$\\frac{1}{2}$"),
)

OPTION_TEN = (
    r"""
+ | J | J
+ | J | text 9
+ | I | The answer is I.
+ | I | (I)
- | J | K
- | I | I believe it is hard to say.
""",
    LONG,
)

EXPRESSION = (
    r"""
+ | 2\sqrt{2} | \sqrt{8}
+ | \frac{1}{2} | 0.5
+ | \frac{1}{2} | 1/2
+ | \frac{\pi}{2} | \dfrac{\pi}{2}
+ | \frac{\pi}{2} | π/2
+ | 2\pi | 2π
+ | x^2+2x+1 | (x+1)^2
+ | 5 | x=5
+ | x=5 | 5
+ | p-q | -(q-p)
+ | (1,2) | (1, 2)
+ | \left( 3, \frac{\pi}{2} \right) | (3, \frac{\pi}{2})
+ | \{1,2\} | 2, 1
+ | 2\sqrt{3} | \boxed{2\sqrt{3}}
+ | 2\sqrt{3} | <answer>$2\sqrt{3}$</answer>
+ | 2\sqrt{3} | The answer is $2\sqrt{3}$.
+ | \frac{1}{2} | \boxed{\frac{1}{2}}
+ | 10_8 | 10_8
+ | 2\sqrt{3} | 2sqrt(3)
+ | \begin{pmatrix}1\\2\end{pmatrix} | \begin{pmatrix}1\\2\end{pmatrix}
+ | 3x | 3 x
- | 2\sqrt{2} | 2\sqrt{3}
- | 2\sqrt{2} | 2
- | 2\pi | 2
- | 2\pi | \pi
- | (1,2) | (2,1)
- | (1,2) | [1,2]
- | 10_8 | 10
- | x^2+1 | x^2
- | \frac{1}{2} | 2
- | \frac{1}{2} | \frac{2}{1}
- | p-q | q-p
- | 25\pi | 0.25\pi
- | 2\sqrt{3} | I do not know
- | [2, 7] | [7, 2]
- | 3x | 3
""",
    (),
)

BOX = (
    r"""
+ | 10,10,20,20 | [10, 10, 20, 20]
+ | 10,10,20,20 | <answer>[10, 11, 20, 20]</answer>
+ | 10,10,20,20 | {"bbox_2d": [10, 10, 20, 20], "label": "cat 3"}
+ | 10,10,20,20 | [{"bbox_2d": [10, 10, 20, 20]}]
+ | 10,10,20,20 | <box>(10,10),(20,20)</box>
+ | [[0,0,10,10],[20,20,30,30]] | [[20,20,30,30],[0,0,10,10]]
+ | 10,10,20,20 | 10.0 10.0 20.0 20.5
- | 10,10,20,20 | [10, 10, 20, 30]
- | 10,10,20,20 | [10, 10, 20]
- | 10,10,20,20 | [30, 30, 40, 40]
- | 10,10,20,20 | [20, 20, 10, 10]
- | 10,10,20,20 | [10,10,20,20],[0,0,1,1]
- | [[0,0,10,10],[20,20,30,30]] | [[0,0,10,10]]
- | [[0,0,10,10],[20,20,30,30]] | [[0,0,10,10],[0,0,10,10]]
- | 10,10,20,20 | nowhere
""",
    (),
)

RATIO = (
    r"""
+ | 3:4 | 3:4
+ | 3:4 | 3 : 4
+ | 3:4 | The ratio is 3:4.
+ | 3:4 | 3 to 4
+ | 3:4 | \boxed{3:4}
+ | 1:2:3 | 1 : 2 : 3
+ | 9:45 | quarter to ten
+ | 9:45 | 9:45 am
+ | 1.5:2 | 1.5 : 2
- | 3:4 | 6:8
- | 3:4 | 4:3
- | 3:4 | 3
- | 3:4 | 3:4:5
- | 3:4 | 3:4 or 4:3
- | 1:20 | 13:20
- | 16:9 | 16:10
- | 9:45 | quarter past ten
""",
    (),
)

TABLES = {
    "ratio": [RATIO],
    "integer": [INTEGER, INTEGER_REFERENCE],
    "number": [NUMBER],
    "clock": [CLOCK],
    "word": [WORD, WORD_REFERENCE],
    "yes_no": [YES_NO],
    "expression": [EXPRESSION],
    "box": [BOX],
    "option": [
        OPTION,
        OPTION_REFERENCE,
        OPTION_BARE,
        OPTION_OF_LETTERS,
        OPTION_OF_FORMULAS,
        OPTION_TEN,
    ],
}


def cases():
    for kind, tables in TABLES.items():
        for table, options in tables:
            entries = (
                table.strip("\n").replace("\n+ The answer is 7.", "\\nThe answer is 7.").split("\n")
            )
            for entry in entries:
                sign, gold, reply = (part.strip() for part in entry.split("|", 2))
                yield kind, gold, reply.replace("\\nThe", "\nThe"), float(sign == "+"), options


CASES = list(cases())


@pytest.mark.parametrize(("kind", "gold", "reply", "score", "options"), CASES)
def test_case(kind, gold, reply, score, options):
    grade = grade_typed(reply, gold, kind, options)
    assert grade.score == score, grade.reason
    assert grade.reason


def test_the_table_is_long_and_covers_every_type():
    assert len(set(CASES)) >= 200
    assert {kind for kind, *_ in CASES} == set(ANSWER_TYPES)
    for kind in ANSWER_TYPES:
        assert {score for k, _, _, score, _ in CASES if k == kind} == {0.0, 1.0}
