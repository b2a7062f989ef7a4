"""Constant-weight checkpoints: every weight 1 in the base, 2 in the first donor, 4 in the second. A
sum tells who is in it.
"""

from pathlib import Path

from franken.checkpoints import Checkpoint, open_checkpoint, read_array
from franken.merge.plan import Plan, open_all, plan_merge
from franken.merge.recipe import Recipe, Rule, checked
from franken.models.tiny import save_tiny

SPLIT = ("qwen3_5_moe",)  # a matrix an expert on disk: a donor with fused ones is refused


def folders(root: Path, model_type: str = "qwen2_5_vl", donors: int = 1, **kwargs) -> list[str]:
    """A base under its published names (sharded, if asked for), donors under those in memory and
    unsharded.
    """
    made = [save_tiny(root / "base", model_type, value=1.0, **kwargs)]
    kwargs.pop("max_shard_size", None)
    for i in range(donors):
        made.append(
            save_tiny(
                root / f"donor{i}",
                model_type,
                value=2.0 ** (i + 1),
                original_names=model_type in SPLIT,
                **kwargs,
            )
        )
    return [str(folder) for folder in made]


def plan(made: list[str], *rules: Rule, **kwargs) -> Plan:
    """The plan of `rules`; donors are called d0, d1, …, those that no rule names are left out."""
    used = {name for rule in rules for name in (*rule.inputs, rule.relative_to)}
    donors = {f"d{i}": folder for i, folder in enumerate(made[1:]) if f"d{i}" in used}
    recipe = checked(Recipe(made[0], donors, rules, **kwargs))
    return plan_merge(recipe, open_all(recipe))


def values(checkpoint: Checkpoint | Path) -> dict[str, float]:
    """The one value of every tensor, by canonical name; fails where a tensor is not constant."""
    found = {}
    opened = checkpoint if isinstance(checkpoint, Checkpoint) else open_checkpoint(checkpoint)
    for key, entry in opened.tensors.items():
        array = read_array(entry).ravel()
        assert (array == array[0]).all(), key
        found[key] = float(array[0])
    return found
