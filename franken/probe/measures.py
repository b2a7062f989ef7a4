"""The methods that look at one pair at a time, by name: pair in, the fields of its rows out, one
dictionary a layer.

Greedy replies are made once a question and shared, since attention, patching and lens all start
from what the model says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from franken import plugins
from franken.errors import FrankenError, UsageError, did_you_mean
from franken.tasks import Item, Pair

if TYPE_CHECKING:
    from franken.generate.native import Prompt, Response
    from franken.models.loading import Loaded
    from franken.probe.lens import Lens
    from franken.runs import Run

SITES = ("residual", "attn", "mlp", "heads")
MEASURES = (
    "lens",
    "attention",
    *(f"patch-{site}{way}" for site in SITES for way in ("", "-noising")),
)
FLUSH = 16
OWN = "own:"  # before the name of a number that a plugin measured
Measure = Callable[[Pair], list[dict[str, Any]]]
Speak = Callable[[Item], "Response"]


def at_sites(methods: Sequence[str], sites: Sequence[str]) -> list[str]:
    """`patch` spelled out as both directions at each site. Raises UsageError for a site that is not
    one.
    """
    for site in sites:
        if site not in SITES:
            raise UsageError(
                f"unknown site {site!r}",
                why=f"there are {', '.join(SITES)}",
                fix=did_you_mean(site, SITES) or "pick one",
            )
    spelled = [f"patch-{site}{way}" for site in sites for way in ("", "-noising")]
    return [name for method in methods for name in (spelled if method == "patch" else [method])]


def measure_all(
    run: Run,
    plan: Any,
    loaded: Loaded,
    lens: Lens | None,
    done: set[Any],
    step: Any,
    head: Callable[[Pair], dict[str, Any]],
) -> None:
    """Append the rows of every measure that `plan` asks for and `done` lacks; `head` gives what all
    rows of a pair share.
    """
    for method, measure in measures(loaded, plan, lens).items():
        waiting: list[dict[str, Any]] = []
        for number, pair in enumerate(plan.pairs, 1):
            if (method, pair.id, plan.layers[0]) not in done:
                try:
                    fields = measure(pair)
                except FrankenError as e:
                    fields = [
                        {"error": f"{e.what}: {e.why}" if e.why else e.what}
                    ] * plan.checkpoint.depths["text"]
                known = head(pair) | {"method": method, "ineligible": None, "error": None}
                waiting += [known | {"layer": layer} | fields[layer] for layer in plan.layers]
            step(len(plan.layers), f"{method} {pair.task}")
            if number % FLUSH == 0:
                run.append(waiting)
                waiting = []
        run.append(waiting)


def measures(loaded: Loaded, plan: Any, lens: Lens | None) -> dict[str, Measure]:
    """The measures that `plan` asks for; `lens` is needed for the one of that name."""
    say = _speaker(loaded, plan.max_new_tokens)
    found: dict[str, Measure] = {}
    if "attention" in plan.methods:
        found["attention"] = lambda pair: _attention(loaded, say, pair)
    if lens is not None:
        found["lens"] = _lens(loaded, say, lens)
    for method in (m for m in plan.methods if m.startswith("patch-")):
        found[method] = lambda pair, method=method: _patch(loaded, say, pair, method, plan)
    for method in plan.methods:
        own = plugins.find("probe", method)
        if own is not None:
            found[method] = lambda pair, own=own: _own(
                loaded, say, pair, own, plan.checkpoint.depths["text"]
            )
    return found


def _own(loaded: Loaded, say: Speak, pair: Pair, measure: Any, depth: int) -> list[dict[str, Any]]:
    """A plugin's measure: its numbers by layer, each under `OWN` + its name, which is how the
    summary knows them.
    """
    prompt, reply = prompt_of(pair.target), say(pair.target)
    found = measure(loaded, prompt, reply)
    if len(found) != depth:
        raise FrankenError(
            f"a probe returned {len(found)} rows for {depth} layers",
            "it should be one a decoder layer",
        )
    if not all(math.isfinite(value) for fields in found for value in fields.values()):
        raise FrankenError("a probe returned a number that is not finite", "it is inf or nan")
    said = {"baseline": reply.text, "truncated": reply.truncated}
    return [said | {OWN + name: float(value) for name, value in fields.items()} for fields in found]


def _patch(loaded: Loaded, say: Speak, pair: Pair, method: str, plan: Any) -> list[dict[str, Any]]:
    from franken.probe.patch import patch_pair

    depth = plan.checkpoint.depths["text"]
    if pair.error or pair.ineligible:
        return [{"error": pair.error, "ineligible": pair.ineligible}] * depth
    prompts = prompt_of(pair.target), prompt_of(pair.source)
    found = patch_pair(loaded, prompts, (say(pair.target), say(pair.source)), method, plan.layers)
    return [found.get(layer, {}) for layer in range(depth)]


def _attention(loaded: Loaded, say: Speak, pair: Pair) -> list[dict[str, Any]]:
    from franken.probe.attention import look_at_image

    reply = say(pair.target)
    said = {"baseline": reply.text, "truncated": reply.truncated}
    return [said | fields for fields in look_at_image(loaded, prompt_of(pair.target), reply.ids)]


def _lens(loaded: Loaded, say: Speak, lens: Lens) -> Measure:
    from franken.probe.lens import lens_fields

    def measure(pair: Pair) -> list[dict[str, Any]]:
        reply = say(pair.target)
        said = {"baseline": reply.text, "truncated": reply.truncated}
        found = lens_fields(loaded, lens, prompt_of(pair.target), reply.ids, pair.target.answer)
        return [said | fields for fields in found]

    return measure


def prompt_of(item: Item) -> Prompt:
    """The item as a user turn. Raises FrankenError for one that could not be read."""
    from franken.generate.native import Prompt

    if item.error:
        raise FrankenError(item.error)
    return Prompt(item.question, (item.image, *item.more_images) if item.image else (), item.id)


def _speaker(loaded: Loaded, max_new_tokens: int) -> Speak:
    from franken.generate.native import Sampling, generate

    said: dict[
        int, Response
    ] = {}  # by identity: the plan keeps its items alive, and they are not hashable

    def say(item: Item) -> Response:
        if id(item) not in said:
            said[id(item)] = generate(loaded, [prompt_of(item)], Sampling(1, 0.0, max_new_tokens))[
                0
            ][0]
        return said[id(item)]

    return say
