"""What RL is paid for: pure functions from responses to numbers, by kind.

    outcome.py    accuracy, correct, format, confidence, router, repetition
    designs.py    the six designs of arXiv 2601.00215
    fidelity.py   the description against the facts of the image

A recipe gives each a weight (`rewards: {accuracy: 1.0, format: 0.1}`), parameters where it declares
some (`reward_options: {repetition: {n: 4}}`), and sums them; every one is logged on its own.
`--plugin` adds one, and `package.module:function` names one. The designs and `fidelity` come with
the template that they pay for.
"""

from trainer.rewards import designs, fidelity, outcome  # noqa: F401 - they register
from trainer.rewards.registry import REWARDS, Context, Reward
from trainer.rewards.scoring import RewardError, RewardSettings, score

__all__ = ["REWARDS", "Context", "Reward", "RewardError", "RewardSettings", "score"]
