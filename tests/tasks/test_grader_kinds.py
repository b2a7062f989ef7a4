"""Replies around known failures of answer checkers, kind by kind, each with the score that a person
would give.

A line is `sign | type | gold | reply`: `+` must score 1, `-` 0; the type `.` is to be inferred; `⏎`
is a new line. The kinds are those of reports about evaluation kits and trainers: each has cases
that are easily refused beside such as are easily accepted.
"""

import pytest

from franken.tasks.grading import judge_reply

ANIMALS = ("dog", "cat", "bird", "fish")
NUMBERS = ("3", "4", "5", "6")
LAST = ("5", "7", "All of the above", "Cannot be determined")

PLACES = r"""
+ | integer | 5 | 5⏎⏎There are two red and three blue dots.
+ | integer | 5 | **5**⏎⏎Explanation: I counted the dots.
+ | integer | 5 | 5.⏎There are 2 on the left and 3 on the right.
+ | integer | 5 | 5. There are 2 red dots and 3 blue dots.
+ | integer | 5 | 5 dots⏎⏎2 of them are red and 3 are blue.
+ | integer | 5 | 2 red and 3 blue, so there are 5 dots.
+ | integer | 5 | There are 2 red and 3 blue dots. So the total is 5.
+ | integer | 5 | First I count.⏎There are 5 dots.
+ | integer | 5 | $$⏎5⏎$$
+ | integer | 5 | The sum is⏎\[⏎2 + 3 = 5⏎\]
+ | integer | 5 | \[⏎\boxed{5}⏎\]
+ | integer | 5 | ```⏎5⏎```
+ | integer | 5 | ```text⏎The answer is 5⏎```
+ | integer | 5 | The answer is⏎⏎5
+ | integer | 5 | ### Answer⏎5
+ | integer | 5 | **Final Answer:**⏎⏎5
+ | integer | 5 | **Final Answer**: $5$
+ | integer | 5 | The answer is 5.⏎⏎---
+ | integer | 5 | The answer is 5. I hope it is correct.
+ | integer | 5 | The answer is 5.<|im_end|>
+ | integer | 5 | The answer is 5<|im_end|>⏎<|im_start|>user⏎And 6?
+ | integer | 5 | {"answer": 5}
+ | integer | 5 | {"answer": "5"}
+ | integer | 5 | ```json⏎{"answer": 5}⏎```
+ | integer | 5 | {"reasoning": "2 + 3", "answer": 5}
+ | integer | 5 | {'answer': 5}
+ | integer | 5 | <answer>{"answer": 5}</answer>
+ | integer | 5 | <Answer>5</Answer>
+ | integer | 5 | <ANSWER> 5 </ANSWER>
+ | integer | 5 | 2 and 3</think>5
+ | integer | 5 | 2 and 3 make 5, or 6?⏎</think>⏎⏎5
+ | integer | 5 | so 6</think><answer>5</answer>
+ | integer | 5 | <think>6</think>⏎The answer is 5.
+ | integer | 5 | <thinking>6</thinking>5
+ | integer | 5 | <think>5</think><answer>5
+ | integer | 5 | <|begin_of_box|>5<|end_of_box|>
+ | integer | 5 | \boxed 5
+ | integer | 5 | \boxed{5}⏎⏎\boxed{5}
+ | integer | 5 | \boxed{3} was wrong, so \boxed{5}
+ | integer | 5 | <answer>5</answer><answer>5</answer>
+ | integer | 5 | \boxed{4}. Final Answer: 5
- | integer | 5 | 5⏎6
- | integer | 5 | 5⏎⏎So there are 6 dots.
- | integer | 5 | 6⏎⏎There are 5 dots on the left.
- | integer | 5 | \boxed{5}, \boxed{6}
- | integer | 6 | \boxed{5} or \boxed{6}
- | integer | 5 | \boxed{5}⏎\boxed{6}
- | integer | 6 | \boxed{5}⏎\boxed{6}
- | integer | 6 | \boxed{5} \quad \text{and} \quad \boxed{6}
- | integer | 5 | <answer>5</answer><answer>6</answer>
- | integer | 6 | <answer>5</answer><answer>6</answer>
- | integer | 5 | 5</think>
- | integer | 5 | <think>5</think>
- | integer | 5 | <think>5</think><answer></answer>
- | integer | 5 | <think>5</think><answer>6
- | integer | 5 | <think>so 5
- | integer | 5 | {"answer": 6, "other": 5}
- | integer | 5 | {"count": 4, "size": 5}
- | integer | 5 | \boxed{5}. The answer is 6.
- | integer | 5 | The answer is 6.⏎5
- | integer | 5 | Step 5
- | integer | 5 | 1. Count the dots⏎2. Add them
"""

SIGNS = r"""
+ | integer | -3 | minus 3
+ | integer | -3 | Negative three
+ | integer | -3 | The temperature is minus 3.
+ | integer | -3 | It is negative 3 degrees.
+ | integer | -3 | －3
+ | integer | -3 | - 3
+ | integer | -3 | $-3$
+ | integer | -3 | \boxed{-3}
+ | integer | -3 | 负3
+ | integer | 3 | +3
+ | integer | 3 | positive 3
+ | number | -0.5 | minus 0.5
+ | number | -0.5 | negative \frac{1}{2}
+ | number | -0.5 | -.5
+ | . | -12 | minus twelve
- | integer | 3 | minus 3
- | integer | 3 | minus three
- | integer | 3 | It is negative three.
- | integer | 3 | －3
- | integer | 3 | 负3
- | integer | -3 | 3
- | integer | -3 | three
- | number | 0.5 | negative one half
- | integer | 3 | ∓3
"""

BESIDE = r"""
+ | integer | 120 | 5!
+ | integer | 1000 | 10^3
+ | integer | 1000 | 10^{3}
+ | integer | 100 | 10²
+ | integer | 2 | ∛8
+ | integer | 2 | \sqrt{4}
+ | integer | 2 | √4
+ | integer | 6 | 2 \cdot 3
+ | integer | 6 | 2 × 3 = 6
+ | number | 0.005 | 5‰
+ | number | 0.25 | 1/2²
+ | integer | 5 | |-5|
+ | integer | 5 | AB = 5
+ | integer | 5 | f(2) = 5
+ | integer | 5 | x_1 = 5
+ | integer | 5 | 2 + 3 = 5
+ | integer | 5 | It is equal to 5.
+ | integer | 5 | 5 times
+ | integer | 5 | exactly 5
+ | number | 5 | approximately 5
- | integer | 5 | 5²
- | integer | 5 | 5^2
- | integer | 5 | 5_8
- | integer | 5 | 5₈
- | integer | 5 | 5!!
- | integer | 5 | √5
- | integer | 5 | ∛5
- | integer | 5 | \sqrt{5}
- | integer | 5 | 5i
- | integer | 5 | 5π
- | integer | 5 | 5 + 1
- | integer | 5 | 5 - 1
- | integer | 5 | 5-7
- | integer | 5 | 5–7
- | integer | 7 | 5 to 7
- | integer | 7 | from 5 to 7
- | integer | 5 | < 5
- | integer | 5 | > 5
- | integer | 5 | ≤ 5
- | integer | 5 | \le 5
- | integer | 5 | \geq 5
- | integer | 5 | x < 5
- | integer | 5 | x \leq 5
- | integer | 5 | at least 5
- | integer | 5 | at most 5
- | integer | 5 | more than 5
- | integer | 5 | up to 5
- | integer | 5 | 5 or more
- | integer | 5 | 5+
- | integer | 5 | over 5
- | integer | 5 | almost 5
- | integer | 5 | \pm 5
- | integer | 5 | \pm{5}
- | integer | 5 | 5 ± 1
- | integer | 5 | 5 \pm 1
- | integer | 5 | 5 factorial
- | integer | 5 | 5 squared
- | integer | 5 | twice 5
- | integer | 5 | half of 5
- | integer | 5 | 5 hundred
- | integer | 5 | 5 million
- | integer | 5 | 5 and a half
- | integer | 5 | 5½
- | integer | 5 | 5 thirds
- | integer | 5 | \log 5
- | integer | 5 | \frac{5}{2}
- | integer | 5 | 5/2
- | integer | 5 | 5:30
- | integer | 5 | 5, 6
- | integer | 5 | {5, 6}
- | integer | 5 | (5, 6)
- | integer | 5 | x = 5, y = 6
- | integer | 6 | x = 5, y = 6
- | integer | 6 | x = 5 or x = 6
- | integer | 14 | 2x = 14
- | integer | 25 | x^2 = 25
- | integer | 8 | 3 + 4 = 8
- | integer | 5 | ≈ 5.4
- | integer | 5 | ~ 4 to 6
- | integer | 5 | 5e3
- | integer | 5 | 5e-1
- | integer | 1 | 1 + ∞
- | integer | 5 | 5∞
- | integer | 5 | ¬5
- | integer | 5 | != 5
- | number | 5 | 5‰
- | integer | 5 | 3 out of 5
- | integer | 5 | question 5
- | integer | 5 | divisible by 5
"""

THOUSANDS = r"""
+ | integer | 1000 | 1{,}000
+ | integer | 1000 | $1{,}000$
+ | integer | 1000 | 1\,000
+ | integer | 1000 | 1,\!000
+ | integer | 1000 | \boxed{1{,}000}
+ | integer | 1000 | \boxed{1,000}
+ | integer | 1000 | 1，000
+ | integer | 1234567 | 1,234,567
+ | integer | 1234567 | 1\,234\,567
+ | integer | 1234567 | 1,\!234,\!567
+ | integer | 1234567 | 1 234 567
+ | number | 1234.5 | 1,234.5
+ | number | 1234.5 | $1{,}234.5$
+ | . | 14{,}916 | 14916
+ | . | 14{,}916 | 14,916
+ | . | 1,000,000 | 10^6
+ | expression | 2000\pi | 2{,}000\pi
+ | expression | 2000\pi | 2,000π
+ | expression | (1000, 2) | (1{,}000, 2)
- | integer | 1000 | 1.000
- | integer | 1000 | 1,00
- | integer | 1000 | 10,00
- | integer | 1234 | 12,34
- | integer | 1000 | 1, 000
- | integer | 32349 | 32, 349
- | integer | 1 | 1{,}000
- | integer | 0 | 1{,}000
- | integer | 234 | 1\,234
- | number | 1.2 | 1{,}200
- | expression | (1, 200) | 1{,}200
- | integer | 111 | 0,111
"""

MATRICES = r"""
+ | . | \begin{pmatrix}1&2\\3&4\end{pmatrix} | $\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}$
+ | . | \begin{pmatrix}1&2\\3&4\end{pmatrix} | \boxed{\begin{bmatrix}1&2\\3&4\end{bmatrix}}
+ | . | \begin{pmatrix}1\\2\end{pmatrix} | \begin{pmatrix} 1 \\ 2 \end{pmatrix}
+ | . | \begin{pmatrix} 1/2 \\ 2 \end{pmatrix} | \begin{pmatrix} 0.5 \\ 2 \end{pmatrix}
+ | . | \begin{pmatrix}-1&0\\0&1\end{pmatrix} | \left(\begin{array}{cc}-1&0\\0&1\end{array}\right)
+ | . | \begin{bmatrix} x & 0 \\ 0 & y \end{bmatrix} | \begin{pmatrix}x&0\\0&y\end{pmatrix}
+ | . | \begin{pmatrix}1&2\\3&4\end{pmatrix} | \[⏎\begin{pmatrix}⏎1 & 2 \\⏎3 & 4⏎\end{pmatrix}⏎\]
+ | . | \begin{pmatrix}1&2\\3&4\end{pmatrix} | The matrix is $\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}$.
+ | . | \begin{pmatrix}2\sqrt{2}\\0\end{pmatrix} | \begin{pmatrix}\sqrt{8}\\0\end{pmatrix}
- | . | \begin{pmatrix}1&2\\3&4\end{pmatrix} | \begin{pmatrix}1&2\\3&5\end{pmatrix}
- | . | \begin{pmatrix}1&2\\3&4\end{pmatrix} | \begin{pmatrix}1&3\\2&4\end{pmatrix}
- | . | \begin{pmatrix}1\\2\end{pmatrix} | \begin{pmatrix}1&2\end{pmatrix}
- | . | \begin{pmatrix}1\\2\end{pmatrix} | \begin{pmatrix}12\end{pmatrix}
- | . | \begin{pmatrix} 1 & 2 \end{pmatrix} | \begin{pmatrix} 12 \end{pmatrix}
- | . | \begin{pmatrix}1&2\\3&4\end{pmatrix} | 1, 2, 3, 4
- | . | \begin{pmatrix}10^{-9}\\0\end{pmatrix} | \begin{pmatrix}10^{-10}\\0\end{pmatrix}
"""

UNITS = r"""
+ | integer | 12 | 12 square units
+ | integer | 12 | $12 \text{ cm}^2$
+ | integer | 12 | 12\ \mathrm{cm}
+ | integer | 12 | \boxed{12\text{ meters}}
+ | integer | 12 | 12 m/s
+ | integer | 90 | 90^\circ
+ | integer | 90 | 90 \degree
+ | integer | 90 | $90^{\circ}$
+ | integer | 90 | The angle is 90°.
+ | integer | 7 | $7 dollars
+ | integer | 7 | 7 USD
+ | integer | 7 | ￥7
+ | integer | 7 | 7 euros
+ | integer | 7 | Rs. 7
+ | . | 7 \text{ cm} | 7
+ | . | 7 \text{ cm} | 70 mm
+ | . | 7 \text{ cm} | 0.07 m
+ | . | 20°C | 20 °C
+ | . | 20°C | 20℃
+ | . | 20°C | 20 degrees
+ | . | 10 Ω | 10 ohms
+ | . | 10 Ω | 10\ \Omega
+ | . | 60 km/h | 60 km/h
+ | . | 60 km/h | 60
+ | . | 60 kilograms | 60 kg
+ | . | 3\sqrt{2} | 3\sqrt{2} \text{ cm}
+ | . | 3\sqrt{2} | 3√2 units
+ | . | 3\sqrt{2} \text{ m} | 3\sqrt{2}
+ | . | 3\sqrt{2} \text{ m} | 300\sqrt{2} \text{ cm}
+ | . | 36\pi | 36\pi \text{ cm}^3
+ | . | 36\pi | 36π square centimeters
+ | . | 36\pi \text{ square units} | 36\pi
+ | . | \frac{\pi}{4} | \frac{\pi}{4} \text{ rad}
- | . | 7 \text{ cm} | 7 m
- | . | 7 \text{ cm} | 7 kg
- | . | 7 \text{ cm} | 7 cm^2
- | . | 20°C | 20°F
- | . | 10 Ω | 10 V
- | . | 60 km/h | 60 m/s
- | . | 3\sqrt{2} \text{ m} | 3\sqrt{2} \text{ cm}
- | . | 3\sqrt{2} \text{ m} | 3\sqrt{2} \text{ kg}
- | . | 3\sqrt{2} | 2\sqrt{3} \text{ cm}
- | . | 5x | 5
- | . | 3x | 3 \text{ dollars}
"""

POWERS = r"""
+ | number | 1500 | 1.5 \times 10^3
+ | number | 1500 | 1.5·10³
+ | number | 1500 | 1.5 × 10³
+ | number | 1500 | 1.5e3
+ | number | 1500 | 1.5E+3
+ | number | 1500 | 15 \cdot 10^{2}
+ | number | 0.0015 | 1.5 \times 10^{-3}
+ | number | 0.0015 | 1.5×10⁻³
+ | . | 3 \times 10^8 | 300000000
+ | . | 3 \times 10^8 | 3*10^8
+ | . | 10^{-5} | 0.00001
+ | . | 10^{-5} | 1 \times 10^{-5}
+ | . | 6.02 \times 10^{23} | 6.02 \times 10^{23}
+ | . | 2^{-10} | \frac{1}{1024}
- | number | 1500 | 1.5 \times 10^2
- | number | 1500 | 1.5
- | number | 0.0015 | 1.5 \times 10^{3}
- | . | 3 \times 10^8 | 3 \times 10^9
- | . | 3 \times 10^8 | 3
- | . | 10^{-30} | 10^{-31}
- | . | 10^{-30} | 0
- | . | 2^{-100} | 2^{-101}
- | . | 5 \times 10^{-12} | 6 \times 10^{-12}
- | number | 1e-12 | 2e-12
- | . | 10^{-20}\pi | 10^{-21}\pi
- | . | 10^{-20}x | 10^{-21}x
- | . | \frac{1}{3^{50}} | \frac{1}{3^{51}}
- | . | (10^{-9}, 1) | (10^{-10}, 1)
- | expression | 0.0000001 | 0.0000002
"""

FULL_WIDTH = r"""
+ | integer | 5 | ５
+ | integer | 15 | 答案：１５
+ | integer | 5 | 答案是5
+ | integer | 5 | 答案是5。
+ | integer | 5 | 答案为：5
+ | integer | 5 | 所以答案是5个。
+ | integer | 5 | 一共有5个苹果。
+ | integer | 5 | 五
+ | integer | 15 | 十五个
+ | integer | 5 | **答案：5**
+ | number | 0.5 | ０．５
+ | number | 5 | 5厘米
+ | number | 5 cm | 5厘米
+ | number | 50 | 50%
+ | yes_no | yes | 是
+ | yes_no | yes | 是的。
+ | yes_no | no | 不是
+ | yes_no | no | 否
+ | yes_no | yes | Yes。
+ | word | 蓝色 | 答案：蓝色
+ | word | 蓝色 | 蓝色。
+ | clock | 3:30 | 3：30
+ | clock | 3:30 | 3点半
+ | clock | 3:05 | 3点5分
+ | expression | (1,2) | （1，2）
+ | expression | 2\sqrt{3} | 答案是$2\sqrt{3}$
- | integer | 5 | 答案是6
- | integer | 5 | 答案不是5
- | integer | 5 | 五十
- | integer | 5 | 5万
- | word | 蓝色 | 红色
- | yes_no | yes | 不是
- | clock | 3:30 | 3点
- | number | 5 cm | 5米
"""

TYPES = r"""
+ | . | 3:5 | 3 : 5
+ | . | 12:30 | half past twelve
+ | . | 12:30 | 12:30 PM
+ | . | 2023-2024 | 2023–2024
+ | . | 2023-2024 | 2023 - 2024
+ | . | 01/02/2024 | 01/02/2024
+ | . | 10.0.0.1 | 10.0.0.1
+ | . | CO2 | CO2
+ | . | 6 ft 2 in | 6 ft 2 in
+ | . | Room 101 | room 101
+ | . | 2 dogs | 2 dogs
+ | . | 50% | 50 %
+ | . | 50% | 0.5
+ | . | \$3.50 | 3.50
+ | . | -1 | −1
+ | . | 6 and 8 | 8, 6
+ | . | 1, 2 | 2 and 1
- | . | 1:20 | 13:20
- | . | 3:5 | 5:3
- | . | 3:5 | 3
- | . | 2023-2024 | 2024-2025
- | . | 2023-2024 | -1
- | . | 2024-05-06 | 2013
- | . | 01/02/2024 | 02/01/2024
- | . | 10.0.0.1 | 10.0.0.2
- | . | CO2 | CO
- | . | 6 ft 2 in | 6 ft 3 in
- | . | Room 101 | 101
- | . | 6 and 8 | 6
- | . | 1, 2 | 1
- | . | Figure 1 | Figure 11
- | . | A4 | A5
"""

MATHEMATICS = r"""
+ | . | 2\sqrt{3} | The answer is $2\sqrt{3}$.
+ | . | 2\sqrt{3} | So the length is $\sqrt{12} = 2\sqrt{3}$.
+ | . | 2\sqrt{3} | 2√3
+ | . | 2\sqrt{3} | √12
+ | . | 2\sqrt{3} | 2*sqrt(3)
+ | . | x^2 - 1 | (x-1)(x+1)
+ | . | x^2 - 1 | x² − 1
+ | . | \frac{x}{2} | x/2
+ | . | \frac{1}{\sqrt{2}} | \frac{\sqrt{2}}{2}
+ | . | \frac{1}{\sqrt{x}} | \sqrt{1/x}
+ | . | \sin^2 x | 1 - \cos^2 x
+ | . | x > 2 | $2 < x$
+ | . | x \ge 2 | x >= 2
+ | . | [0, 1) | [0,1)
+ | . | (-\infty, 3) | (-∞, 3)
+ | . | \{1, 2\} | \{2, 1\}
+ | . | y = 2x + 1 | y = 1 + 2x
+ | . | 2x - y + 1 = 0 | y = 2x + 1
+ | . | \pm 2 | 2, -2
+ | . | \pm 2 | ±2
+ | . | 2 + 3i | 3i + 2
+ | . | e^2 | \mathrm{e}^2
+ | . | \log_3 9x | \log_3(9x)
+ | . | (\frac{1}{2}, 3) | (0.5, 3)
+ | . | x = 4 | 4
+ | . | -\frac{3}{2}\pi | -1.5\pi
- | . | 2\sqrt{3} | 2\sqrt{3} + 1
- | . | 2\sqrt{3} | not $2\sqrt{3}$
- | . | 2\sqrt{3} | $2\sqrt{3}$ or $3\sqrt{2}$
- | . | 2\sqrt{3} | Between $2\sqrt{3}$ and $4$
- | . | 2\sqrt{3} | 3.4
- | . | x^2 - 1 | x^2 + 1
- | . | |x| | x
- | . | \sqrt{x^2} | x
- | . | x > 2 | x < 2
- | . | x > 2 | x \ge 2
- | . | x > 2 | 2
- | . | [0, 1) | [0, 1]
- | . | [0, 1) | (0, 1)
- | . | (1, 2) | (2, 1)
- | . | \{1, 2\} | \{1, 2, 3\}
- | . | \pm 2 | 2
- | . | x = 4 | y = 4
- | . | 2x | 2
- | . | 2x | 2y
- | . | 12_5 | 12
- | . | 4\sqrt{2} | 4
- | . | 4 | 4\sqrt{2}
- | . | x + 1 | 2x + 2 = 0
- | . | \frac{1}{3} | 0.3
- | . | 1 - \frac{1}{e} | 1 + \frac{1}{e}
- | . | 2 + 3i | 2 - 3i
- | . | \pi | 3
"""

OPTIONS = r"""
+ | option | B | B⏎⏎The animal has whiskers.
+ | option | B | B. cat⏎⏎Explanation: dogs bark.
+ | option | B | **B. cat**
+ | option | B | **B**: it has whiskers.
+ | option | B | {"choice": "B"}
+ | option | B | {"answer": "B. cat"}
+ | option | B | ```json⏎{"option": "B"}⏎```
+ | option | B | {"choice": "cat"}
+ | option | B | "B"
+ | option | B | `B`
+ | option | B | “B”
+ | option | B | （B）
+ | option | B | Ｂ
+ | option | B | 【B】
+ | option | B | 答案选B
+ | option | B | 所以选B。
+ | option | B | 正确答案是：B
+ | option | B | 答案：B。因为它有胡须。
+ | option | B | B、cat
+ | option | B | <ANSWER>B</ANSWER>
+ | option | B | <answer>(B) cat</answer>
+ | option | B | $\boxed{\text{B}}$
+ | option | B | \boxed{\text{B. cat}}
+ | option | B | \(\boxed{B}\)
+ | option | B | \boxed{(B)}
+ | option | B | \boxed{cat}
+ | option | B | B is the right answer.
+ | option | B | Therefore, B is correct.
+ | option | B | Option B is the answer.
+ | option | B | The answer is B. A is wrong, and so is C.
+ | option | B | (A) is wrong; (B) is correct.
+ | option | B | A is incorrect because dogs bark. The answer is B.
+ | option | B | The correct answer is (B) cat.
+ | option | B | The correct option is B: cat.
+ | option | B | My choice: B
+ | option | B | Answer - B⏎Answer: B
+ | option | B | Ans: B
+ | option | B | It is a cat.
+ | option | B | A or C?</think>B
+ | option | B | cat⏎⏎It has whiskers.
+ | option | B | I would choose B.
+ | option | A, C | {"answer": ["A", "C"]}
+ | option | A, C | A, C
- | option | B | A⏎⏎The cat in option B has no tail.
- | option | B | {"choice": "A"}
- | option | B | A or B
- | option | B | A/B
- | option | B | Not B.
- | option | B | B cannot be right.
- | option | B | B is not correct.
- | option | B | "A"
- | option | B | 答案是A
- | option | B | 不选B
- | option | B | \boxed{A}, \boxed{B}
- | option | B | B⏎C
- | option | B | B. dog
- | option | A | A nice picture.
- | option | A | A lot of them
- | option | A | {"choice": "a nice dog"}
- | option | B | E
- | option | B | The letter is missing.
- | option | B | <answer>A or B</answer>
- | option | A, C | A
- | option | A | A cat is the best answer.
"""

OTHER_OPTIONS = r"""
+ | option | B | 4
+ | option | B | The answer is 4.
+ | option | B | \boxed{4}
+ | option | B | B) 4
- | option | B | 5
- | option | B | 4 or 5
- | option | B | 40
- | option | A | A) 4
"""

LAST_OPTIONS = r"""
+ | option | D | The answer cannot be determined.
+ | option | D | Cannot be determined
+ | option | C | All of the above.
+ | option | C | (C) All of the above
- | option | D | It can be determined.
- | option | C | None of the above
"""

WORDS = r"""
+ | word | red | red⏎⏎The ball in the picture is red because it is a cherry.
+ | word | red | {"answer": "red"}
+ | word | red | ```⏎red⏎```
+ | word | red | \textbf{red}
+ | word | red | $\text{red}$
+ | word | red | 'Red'
+ | word | red | <ANSWER>red</ANSWER>
+ | word | red | so blue?</think>red
+ | word | Monday | **Monday**
+ | word | it's | it’s
+ | yes_no | yes | Yes⏎⏎Both are round.
+ | yes_no | no | No.⏎The second one is larger, yes.
+ | yes_no | yes | {"answer": "yes"}
+ | yes_no | yes | {"answer": true}
+ | yes_no | yes | "Yes"
+ | yes_no | yes | **Yes**, it is.
+ | yes_no | no | \boxed{\text{No}}
+ | yes_no | no | The answer is no, because it is empty.
- | word | red | red⏎blue
- | word | red | {"answer": "blue"}
- | word | red | The ball is not red.
- | word | red | red or blue
- | word | red | <think>red</think>
- | yes_no | yes | {"answer": false}
- | yes_no | yes | Not yes.
- | yes_no | no | None
- | yes_no | yes | Yes or no?
"""

BOXES = r"""
+ | box | [10,10,20,20] | ```json⏎[⏎  {⏎    "bbox_2d": [⏎      10,⏎      10,⏎      20,⏎      20⏎    ],⏎    "label": "cat 3"⏎  }⏎]⏎```
+ | box | [10,10,20,20] | {"bbox_2d": [10, 10, 20, 20], "label": "x", "confidence": 0.9}
+ | box | [10,10,20,20] | [{'bbox_2d': [10, 10, 20, 20], 'label': 'x'}]
+ | box | [10,10,20,20] | The box is [10, 10, 20, 20].
+ | box | [10,10,20,20] | The cat, number 3, is at [10, 10, 20, 20].
+ | box | [10,10,20,20] | The answer is [10, 10, 20, 20]
+ | box | [10,10,20,20] | <|box_start|>(10,10),(20,20)<|box_end|>
+ | box | [10,10,20,20] | (10, 10, 20, 20)
+ | box | [10,10,20,20] | \boxed{[10, 10, 20, 20]}
+ | box | [10,10,20,20] | [1,2,3,4]</think>[10,10,20,20]
+ | box | [10,10,20,20] | <ANSWER>[10, 10, 20, 20]</ANSWER>
+ | box | [10,10,20,20] | ［10，10，20，20］
+ | box | [10,10,20,20] | x1=10, y1=10, x2=20, y2=20
- | box | [10,10,20,20] | [{"bbox_2d": [10, 10, 20, 20]}, {"bbox_2d": [1, 1, 2, 2]}]
- | box | [10,10,20,20] | The 10 cats and 10 dogs are 20 and 20.
- | box | [10,10,20,20] | <think>[10,10,20,20]</think>[1,1,2,2]
- | box | [10,10,20,20] | {"bbox_2d": [10, 10, 20]}
- | box | [10,10,20,20] | [10, 10, 20, NaN]
- | box | [10,10,20,20] | (10, 10)
"""

TABLES = {
    "places": (PLACES, ()),
    "signs": (SIGNS, ()),
    "beside": (BESIDE, ()),
    "thousands": (THOUSANDS, ()),
    "matrices": (MATRICES, ()),
    "units": (UNITS, ()),
    "powers": (POWERS, ()),
    "full width": (FULL_WIDTH, ()),
    "types": (TYPES, ()),
    "mathematics": (MATHEMATICS, ()),
    "options": (OPTIONS, ANIMALS),
    "options of numbers": (OTHER_OPTIONS, NUMBERS),
    "options of sentences": (LAST_OPTIONS, LAST),
    "words": (WORDS, ()),
    "boxes": (BOXES, ()),
}


def cases():
    for kind, (table, options) in TABLES.items():
        for line in table.strip().split("\n"):
            sign, answer_type, gold, reply = (part.strip() for part in line.split(" | ", 3))
            answer_type = "" if answer_type == "." else answer_type
            yield kind, float(sign == "+"), answer_type, gold, reply.replace("⏎", "\n"), options


CASES = list(cases())


@pytest.mark.parametrize(("kind", "score", "answer_type", "gold", "reply", "options"), CASES)
def test_case(kind, score, answer_type, gold, reply, options):
    judgement = judge_reply(reply, gold, answer_type, options)
    assert judgement.score == score, f"{kind}: {judgement}"
    assert judgement.reason


def test_every_kind_has_both_and_there_are_many():
    assert len(set(CASES)) >= 300
    for kind in TABLES:
        assert {case[1] for case in CASES if case[0] == kind} == {0.0, 1.0}
