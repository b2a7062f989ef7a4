"""The model card of a hybrid: README.md beside the weights, with the recipe that makes it again."""

from franken.merge.described import describe_rules, summarise
from franken.merge.plan import Plan


def card(plan: Plan) -> str:
    """Markdown with the front matter that hubs read: what the hybrid is made of, and its recipe as
    YAML.
    """
    import yaml

    names = [checkpoint.name for checkpoint in plan.checkpoints.values()]
    front = yaml.safe_dump(
        {"base_model": names, "library_name": "transformers", "tags": ["franken", "merge"]}
    )
    recipe = yaml.safe_dump(
        plan.recipe.to_dict(), sort_keys=False, default_flow_style=None, width=110
    )
    lines = [
        f"---\n{front}---\n# {title(plan)}\n",
        "Made by `franken merge`. What no rule names is the base's, bit for bit; layer ranges are "
        "0-based and half-open.\n",
        "| part | | made of | layers | components | tensors |\n|---|---|---|---|---|---|",
    ]
    for row in summarise(plan.rows):
        lines.append(f"| {' | '.join(map(str, row[:-1]))} |")  # without the bytes
    for name, waved in plan.allowed.items():
        told = "; ".join(f"{d.kind}: {d.text}" for d in waved)
        lines.append(f"\nDifferences of {name} that were allowed: {told}.")
    lines.append(f"\nRecipe, for `franken merge --recipe`:\n\n```yaml\n{recipe}```\n")
    lines.append("`franken_merge.json` holds the sources and the SHA-256 of every tensor.\n")
    return "\n".join(lines)


def title(plan: Plan) -> str:
    """`my-sft with text layers 16..27 (12 of 28) from my-rl`."""
    return f"{plan.base.name} with {'; '.join(describe_rules(plan))}"
