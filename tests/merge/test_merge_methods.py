"""Every method of mergekit's against a few lines of numpy, and whole models against mergekit's own
command.
"""

import math

import numpy as np
import pytest
import torch
import yaml
from constant_models import plan
from mergekit.merge_methods import registered_methods

from franken.checkpoints import open_checkpoint, read_bytes
from franken.errors import FrankenError
from franken.merge.arithmetic import compute
from franken.merge.methods import all_methods, seed_of
from franken.merge.recipe import Rule
from franken.merge.run import run_merge
from franken.models.tiny import save_tiny

SHAPE = (6, 8)
RANDOM = np.random.default_rng(0)
BASE = RANDOM.normal(size=SHAPE)
ONE, TWO = (BASE + RANDOM.normal(scale=s, size=SHAPE) for s in (0.3, 0.5))
SEED = 7


def unit(x):
    return x / np.linalg.norm(x)


def arc(t, a, b):
    """From a to b along the circle through both, by the angle between them."""
    angle = math.acos((unit(a) * unit(b)).sum())
    return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)


def agreeing(deltas, weights, *, mean, votes=None):
    """TIES: at every place, only the deltas whose sign is that of the weighted sum; SCE's vote has
    no weights.
    """
    out = np.zeros(SHAPE)
    for at in np.ndindex(SHAPE):
        shares = [w * d[at] for d, w in zip(deltas, weights, strict=True)]
        sign = 1 if sum(shares if votes is None else [d[at] for d in votes]) >= 0 else -1
        kept = [(s, w) for s, w in zip(shares, weights, strict=True) if np.sign(s) == sign]
        total = sum(w for _, w in kept) if mean else 1
        out[at] = sum(s for s, _ in kept) / (total or 1)
    return out


def strongest(delta, density, skip=0.0):
    """All but the smallest, and but the `skip` largest, so that `density` stays."""
    order = np.argsort(-abs(delta), axis=None)
    keep = order[int(skip * delta.size) :][: int(density * delta.size)]
    mask = np.zeros(delta.size)
    mask[keep] = 1
    return delta * mask.reshape(SHAPE)


def dropped(deltas, chances):
    """DARE and DELLA: kept by chance, then scaled back to the same sum of magnitudes."""
    torch.manual_seed(SEED)
    masks = [torch.bernoulli(torch.tensor(c, dtype=torch.float32)).numpy() for c in chances]
    kept = [d * m for d, m in zip(deltas, masks, strict=True)]
    return [k * abs(d).sum() / abs(k).sum() for d, k in zip(deltas, kept, strict=True)]


def rank_chances(delta, density, epsilon):
    """DELLA: within a row, the larger the likelier, from density − ε to density + ε."""
    rank = np.argsort(np.argsort(abs(delta), axis=1), axis=1)
    return density - epsilon + 2 * epsilon * rank / (delta.shape[1] - 1)


def linear():
    return (0.3 * ONE + 0.9 * TWO) / 1.2


def slerp():
    return arc(0.3, BASE, ONE)


def nuslerp():
    return arc(0.75, ONE, TWO)


def multislerp():
    units = [unit(ONE - BASE), unit(TWO - BASE)]
    mean = unit(0.25 * units[0] + 0.75 * units[1])
    tangent = sum(
        w * (u - (u * mean).sum() * mean) for w, u in zip((0.25, 0.75), units, strict=True)
    )
    angle = np.linalg.norm(tangent)
    size = 0.25 * np.linalg.norm(ONE - BASE) + 0.75 * np.linalg.norm(TWO - BASE)
    return BASE + size * (math.cos(angle) * mean + math.sin(angle) * tangent / angle)


def nearswap():
    return BASE + np.clip(ONE - BASE, -0.1, 0.1)


def task_arithmetic():
    return BASE + 0.5 * (0.4 * (ONE - BASE) + 0.7 * (TWO - BASE))


def ties():
    deltas = [strongest(ONE - BASE, 0.5), strongest(TWO - BASE, 0.25)]
    return BASE + agreeing(deltas, (0.4, 0.7), mean=True)


def dare_linear():
    one, two = dropped([ONE - BASE, TWO - BASE], [np.full(SHAPE, 0.6)] * 2)
    return BASE + 0.4 * one + 0.7 * two


def dare_ties():
    deltas = dropped([ONE - BASE, TWO - BASE], [np.full(SHAPE, 0.6)] * 2)
    return BASE + agreeing(deltas, (0.4, 0.7), mean=False)


def della_linear():
    deltas = [ONE - BASE, TWO - BASE]
    one, two = dropped(deltas, [rank_chances(d, 0.6, 0.2) for d in deltas])
    return BASE + 0.4 * one + 0.7 * two


def della():
    deltas = [ONE - BASE, TWO - BASE]
    return BASE + agreeing(
        dropped(deltas, [rank_chances(d, 0.6, 0.2) for d in deltas]), (0.4, 0.7), mean=True
    )


def breadcrumbs():
    return BASE + 0.4 * strongest(ONE - BASE, 0.5, 0.25) + 0.7 * strongest(TWO - BASE, 0.5, 0.25)


def breadcrumbs_ties():
    return BASE + agreeing(
        [strongest(d - BASE, 0.5, 0.25) for d in (ONE, TWO)], (0.4, 0.7), mean=False
    )


def sce():
    deltas = np.stack([ONE - BASE, TWO - BASE])
    spread = deltas.var(axis=0)
    deltas = deltas * (spread >= np.sort(spread, axis=None)[-BASE.size // 2])
    power = (deltas**2).sum(axis=(1, 2))
    return BASE + agreeing(deltas, power / power.sum(), mean=True, votes=deltas)


def model_stock():
    a, b = ONE - BASE, TWO - BASE
    cosine = (unit(a) * unit(b)).sum()
    t = 2 * cosine / (1 + cosine)
    return t * (ONE + TWO) / 2 + (1 - t) * BASE


def karcher():
    half = arc(
        0.5, unit(ONE), unit(TWO)
    )  # the mean of two points is the middle of the arc between them
    return half * (np.linalg.norm(ONE) + np.linalg.norm(TWO)) / 2


def arcee_fusion():
    def softmax(x):
        return np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True) + 1e-8

    p, q = softmax(ONE), softmax(BASE)
    importance = abs(ONE - BASE) * (p * np.log(p / q)).sum(axis=-1, keepdims=True)
    ordered = np.sort(importance, axis=None)
    low, middle, high = (ordered[int(share * (ordered.size - 1))] for share in (0.25, 0.5, 0.75))
    return np.where(importance >= middle + 1.5 * (high - low), ONE, BASE)


def ram(lift=(1.0, 1.0)):
    out = BASE.copy()
    for at in np.ndindex(SHAPE):
        moved = [
            (d[at] - BASE[at], s)
            for d, s in zip((ONE, TWO), lift, strict=True)
            if abs(d[at] - BASE[at]) > 0.2
        ]
        if len(moved) == 1:
            out[at] += moved[0][0] * moved[0][1]
        elif moved:
            out[at] += sum(m for m, _ in moved) / len(moved)
    return out


def ramplus_tl():
    one, two = abs(ONE - BASE) > 0.2, abs(TWO - BASE) > 0.2
    shared = (one & two).sum()
    lift = [
        1 + 0.1 * min(shared / (mine & ~theirs).sum(), 0.5)
        for mine, theirs in ((one, two), (two, one))
    ]
    return ram(lift)


TASK = {"weight": {"one": 0.4, "two": 0.7}}
CASES = {
    "linear": (linear, "one two", {"weight": [0.3, 0.9]}),
    "slerp": (slerp, "base one", {"t": 0.3}),
    "nuslerp": (nuslerp, "one two", {"weight": {"one": 0.2, "two": 0.6}}),
    "multislerp": (multislerp, "base one two", {"weight": {"one": 1, "two": 3}}),
    "nearswap": (nearswap, "base one", {"t": 0.1}),
    "passthrough": (lambda: 0.5 * ONE, "one", {"scale": 0.5}),
    "task_arithmetic": (task_arithmetic, "base one two", {**TASK, "lambda": 0.5}),
    "ties": (ties, "base one two", {**TASK, "density": {"one": 0.5, "two": 0.25}}),
    "dare_linear": (dare_linear, "base one two", {**TASK, "density": 0.6}),
    "dare_ties": (dare_ties, "base one two", {**TASK, "density": 0.6}),
    "della": (della, "base one two", {**TASK, "density": 0.6, "epsilon": 0.2}),
    "della_linear": (della_linear, "base one two", {**TASK, "density": 0.6, "epsilon": 0.2}),
    "breadcrumbs": (breadcrumbs, "base one two", {**TASK, "density": 0.5, "gamma": 0.25}),
    "breadcrumbs_ties": (breadcrumbs_ties, "base one two", {**TASK, "density": 0.5, "gamma": 0.25}),
    "sce": (sce, "base one two", {"select_topk": 0.5}),
    "model_stock": (model_stock, "base one two", {}),
    "karcher": (karcher, "one two", {}),
    "arcee_fusion": (arcee_fusion, "base one", {}),
    "ram": (ram, "base one two", {"epsilon": 0.2}),
    "ramplus_tl": (ramplus_tl, "base one two", {"epsilon": 0.2, "alpha": 0.5}),
}
INPUTS = {"base": BASE, "one": ONE, "two": TWO}


def test_every_registered_method_is_checked_and_listed():
    names = {m.spec.name for m in registered_methods()}
    assert names == set(CASES)
    listed = {m.name: m for m in all_methods()}
    assert set(listed) == names | {"copy", "noise", "keep", "drop", "extrapolate"}
    assert listed["ties"].paper == "https://arxiv.org/abs/2306.01708"
    assert "density=1.0" in listed["ties"].parameters


@pytest.mark.parametrize("method", CASES)
def test_methods_equal_their_definition(method):
    oracle, names, parameters = CASES[method]
    inputs = names.split()
    origin = inputs.index("base") if "base" in inputs else None
    tensors = [torch.from_numpy(INPUTS[name]) for name in inputs]
    before = torch.random.get_rng_state()
    values = compute(method, tensors, inputs, parameters, origin=origin, seed=SEED)
    assert torch.equal(before, torch.random.get_rng_state())
    assert values.dtype == torch.float64
    in_fp32 = (
        "della",
        "della_linear",
        "dare_ties",
        "dare_linear",
        "multislerp",
        "karcher",
        "ramplus_tl",
    )
    precision = (
        1e-6 if method in in_fp32 else 1e-9
    )  # some compute masks, counts or epsilons in fp32
    assert np.allclose(values.numpy(), oracle(), atol=precision, rtol=precision)
    assert torch.equal(
        values, compute(method, tensors, inputs, parameters, origin=origin, seed=SEED)
    )


def test_noise_has_the_spread_of_the_weights_and_a_seed_of_its_own():
    weights = torch.randn(200, 300, generator=torch.Generator().manual_seed(0)) * 0.02 + 0.5
    noised = compute(
        "noise", [weights], ["base"], {"ratio": 0.25}, origin=None, seed=seed_of(0, "a")
    )
    noise = (noised - 0.75 * weights) / 0.25
    assert abs(noise.mean()) < 3e-4
    assert abs(noise.std() / weights.std() - 1) < 0.01
    assert abs(np.corrcoef(noise.flatten(), weights.flatten())[0, 1]) < 0.02
    other = compute(
        "noise", [weights], ["base"], {"ratio": 0.25}, origin=None, seed=seed_of(0, "b")
    )
    assert not torch.equal(noised, other)
    assert seed_of(0, "a") != seed_of(1, "a")


def test_weights_that_a_method_cannot_merge_are_an_error_and_not_garbage(tmp_path):
    made = [str(save_tiny(tmp_path / n, "qwen2", i)) for i, n in enumerate(("base", "d"))]
    rule = Rule(("d0",), "0", method="passthrough", parameters={"scale": 1e39})
    with pytest.raises(FrankenError, match="no valid"):
        run_merge(plan(made, rule), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def mergekit(text, out):
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge as theirs
    from mergekit.options import MergeOptions

    configuration = MergeConfiguration.model_validate(yaml.safe_load(text))
    options = MergeOptions(copy_tokenizer=False, quiet=True, write_model_card=False)
    theirs(configuration, str(out), options)
    return open_checkpoint(out)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Three random models of two families, in bf16, as real checkpoints are."""
    from franken.models.tiny import tiny

    root = tmp_path_factory.mktemp("three")
    made = {}
    for family in ("qwen2", "qwen2_5_vl"):
        made[family] = []
        for seed in range(3):
            tiny(family, seed).to(torch.bfloat16).save_pretrained(root / f"{family}{seed}")
            made[family].append(str(root / f"{family}{seed}"))
    return made


WHOLE = {
    "qwen2": ("all", ("embed", "norm", "head")),
    "qwen2_5_vl": ("text:all,vision:all", ("embed", "norm", "head", "vision", "projector")),
}
DETERMINISTIC = [m for m in CASES if m not in ("dare_linear", "dare_ties", "della", "della_linear")]


MODELS = [("qwen2", m) for m in DETERMINISTIC]
MODELS += [
    ("qwen2_5_vl", m) for m in ("linear", "ties", "slerp", "task_arithmetic")
]  # the towers are merged alike


@pytest.mark.parametrize(("family", "method"), MODELS)
def test_whole_models_equal_mergekits_own_command(three, tmp_path, family, method):
    _, names, parameters = CASES[method]
    folder = dict(zip(("base", "one", "two"), three[family], strict=True))
    inputs = names.split()
    shared = {k: v for k, v in parameters.items() if not isinstance(v, dict | list)}
    own = {name: {} for name in inputs}
    for key, value in parameters.items():
        pairs = (
            value.items()
            if isinstance(value, dict)
            else zip(inputs, value, strict=True)
            if isinstance(value, list)
            else ()
        )
        for name, number in pairs:
            own[name][key] = number
    config = {
        "models": [{"model": folder[n], "parameters": own[n]} for n in inputs],
        "merge_method": method,
        "parameters": shared,
        "dtype": "float32",
        "out_dtype": "bfloat16",
    }
    if "base" in inputs:
        config["base_model"] = folder["base"]
    expected = mergekit(yaml.safe_dump(config), tmp_path / "theirs")

    layers, take = WHOLE[family]
    ours = {"one": "d0", "two": "d1"}
    values = {
        key: {ours[n]: v for n, v in value.items()}
        if isinstance(value, dict)
        else {ours[n]: v for n, v in zip(inputs, value, strict=True)}
        if isinstance(value, list)
        else value
        for key, value in parameters.items()
    }
    rule = Rule(
        tuple(ours[n] for n in inputs if n != "base"),
        layers.replace(",vision:all", ""),
        take,
        (),
        method,
        None,
        values,
        "base" if method == "multislerp" else None,
    )
    result = open_checkpoint(run_merge(plan(three[family], rule), tmp_path / "ours"))
    assert set(result.tensors) == set(expected.tensors)
    for key, entry in result.tensors.items():
        theirs = expected.tensors[key]
        assert entry.dtype == theirs.dtype == "BF16"
        assert read_bytes(entry) == read_bytes(theirs), key
