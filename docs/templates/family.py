"""A model family: OLMo 2, which franken does not know by itself.

    franken --plugin family.py diff allenai/OLMo-2-0425-1B allenai/OLMo-2-0425-1B-Instruct
    franken --plugin family.py eval allenai/OLMo-2-0425-1B-Instruct --arms text --tasks read

Two things are needed. The rules for names say what every tensor on disk is (`text.…`, `vision.…`,
`projector.…`): `diff` and `merge` need only them, and refuse a tensor that no rule covers. The
family says where the layers of a loaded model are: `probe`, `eval` and `train` need it. A
vision-language model names its blocks and projector too, as in franken/models/families.py:
`Family("…", "model.visual.blocks", "model.visual.merger")`.
"""

from franken.models.families import Family
from franken.plugins import register

register(
    "names", "olmo2", ((r"lm_head\.", "text.lm_head."), (r"model\.", "text."))
)  # the first that matches wins
register("family", "olmo2", Family("olmo2"))
