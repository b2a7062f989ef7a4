"""The methods that look at one pair at a time, by name: pair in, the fields of its rows out, one dictionary a layer.

Greedy replies are made once a prompt and shared, since attention, patching and lens all start from what the model says.
"""

from collections.abc import Callable
from typing import Any

from franken.errors import FrankenError
from franken.generate.native import Prompt, Response
from franken.models.loading import Loaded
from franken.tasks import Item, Pair

Measure = Callable[[Pair], list[dict[str, Any]]]
Speak = Callable[[Item], Response]


def measures(loaded: Loaded, plan: Any, reload: Callable[[], Loaded]) -> dict[str, Measure]:
    """The measures that `plan` asks for. `reload` makes another copy of the model, for tools that change the one they get."""
    say = _speaker(loaded, plan.max_new_tokens)
    found: dict[str, Measure] = {}
    if "attention" in plan.methods:
        found["attention"] = lambda pair: _attention(loaded, say, pair)
    if "lens" in plan.methods:
        found["lens"] = _lens(loaded, say, reload)
    for method in (m for m in plan.methods if m.startswith("patch-")):
        found[method] = lambda pair, method=method: _patch(loaded, say, pair, method, plan)
    return found


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


def _lens(loaded: Loaded, say: Speak, reload: Callable[[], Loaded]) -> Measure:
    from franken.probe.lens import lens_fields, lens_for

    lens = lens_for(loaded, reload)

    def measure(pair: Pair) -> list[dict[str, Any]]:
        reply = say(pair.target)
        said = {"baseline": reply.text, "truncated": reply.truncated}
        found = lens_fields(loaded, lens, prompt_of(pair.target), reply.ids, pair.target.answer)
        return [said | fields for fields in found]

    return measure


def prompt_of(item: Item) -> Prompt:
    """The item as a user turn. Raises FrankenError for one that could not be read."""
    if item.error:
        raise FrankenError(item.error)
    return Prompt(item.question, (item.image,) if item.image else (), item.id)


def _speaker(loaded: Loaded, max_new_tokens: int) -> Speak:
    from franken.generate.native import Sampling, generate

    said: dict[int, Response] = {}  # by identity: the plan keeps its items alive, and they are not hashable

    def say(item: Item) -> Response:
        if id(item) not in said:
            said[id(item)] = generate(loaded, [prompt_of(item)], Sampling(1, 0.0, max_new_tokens))[0][0]
        return said[id(item)]

    return say
