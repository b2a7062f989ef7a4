"""Tower and projector as sites, on every family that sees: skipping against blocks of zero weights,
swaps against keys and values exchanged behind the rotation, patches against plain hooks.
"""

import copy
import json

import pytest
import torch
from hand_built import groups_of as token_groups_of
from hand_built import hand_built, seeing
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from franken.cli import run_command
from franken.errors import FrankenError, UsageError
from franken.models.batch import join
from franken.models.creature import build_tokenizer
from franken.models.loading import wrap
from franken.probe import controls, findings, tower
from franken.probe.cost import cost
from franken.probe.findings import of_decoder
from franken.probe.groups import CHANGED, PATCHES, UNCHANGED
from franken.probe.methods import get
from franken.probe.methods.patch import Patch
from franken.probe.patch import patch_effects
from franken.probe.plan import plan_probe
from franken.probe.run import run_probe
from franken.report.figures.probe import draw
from franken.runs import load_run

# Whose towers are called as the methods call them, and end in the last block.
SEEING = (
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
    "llava_onevision",
    "internvl",
    "gemma3",
    "smolvlm",
)


SFT = "creature:sft"
BLOCKS = 2


def loaded_of(family):
    return wrap(seeing(family), None, build_tokenizer())


def runs_of(family):
    """Clean, and corrupt in its last pixels alone."""
    clean, other = hand_built(family), hand_built(family, 1)
    pixels, corrupt = clean.images.pixel_values, clean.images.pixel_values.clone()
    if family.startswith("qwen"):
        corrupt[-4:] = other.images.pixel_values[-4:]
    else:
        corrupt[..., -14:, -14:] = other.images.pixel_values[..., -14:, -14:]
    assert not torch.equal(pixels, corrupt)
    images = copy.copy(clean.images)
    object.__setattr__(images, "pixel_values", corrupt)
    changed = copy.copy(clean)
    object.__setattr__(changed, "images", images)
    return clean.append([7, 8]), changed.append([7, 8])


def said(loaded, batch):
    return tower.run_tower(loaded, batch)[0]


def zeroed(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()


@pytest.mark.parametrize("family", SEEING)
def test_a_skipped_block_is_one_whose_weights_are_zero(family):
    loaded, batch = loaded_of(family), hand_built(family)
    plain = said(loaded, batch)
    for layer in range(BLOCKS):
        twin = wrap(copy.deepcopy(loaded.model), None, loaded.tokenizer)
        block = tower.blocks_of(twin)[layer]
        zeroed(tower._attention(block))
        zeroed(block.mlp)
        with tower.skipped(loaded, "vision", layer):
            found = said(loaded, batch)
        assert torch.allclose(found, said(twin, batch), atol=1e-5)
        assert (found - plain).abs().max() > 1e-4
    twin = wrap(copy.deepcopy(loaded.model), None, loaded.tokenizer)
    for module in twin.family.projector_modules(twin.model):
        zeroed(module)
    with tower.skipped(loaded, "projector", 0):
        found = said(loaded, batch)
    assert torch.allclose(found, said(twin, batch), atol=1e-5)
    assert torch.equal(said(loaded, batch), plain)


class Exchanged:
    """The tower's attention with keys and values of another run, in some of its modules: taken
    where every implementation gets them, after the positions are turned in.
    """

    def __init__(self, loaded, blocks):
        inside = {id(m) for b in blocks for m in b.modules()}
        self.blocks, self.inside, self.kept, self.give = blocks, inside, {}, False
        self.config = loaded.model.config.vision_config

    def __call__(self, module, query, key, value, attention_mask=None, **kwargs):
        if id(module) in self.inside:
            kept = self.kept.setdefault(id(module), [])
            if self.give:
                key, value = kept.pop(0)
            else:
                kept.append((key, value))
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)

    def __enter__(self):
        self.before = self.config._attn_implementation
        ALL_ATTENTION_FUNCTIONS["exchanged"] = self
        AttentionMaskInterface.register("exchanged", sdpa_mask)
        self.config._attn_implementation = "exchanged"
        return self

    def __exit__(self, *_):
        self.config._attn_implementation = self.before
        del ALL_ATTENTION_FUNCTIONS["exchanged"]


@pytest.mark.parametrize("family", SEEING)
def test_swaps_are_keys_and_values_of_the_other_image(family):
    loaded = loaded_of(family)
    target, source = hand_built(family, 0), hand_built(family, 1)
    seen = tower.look(loaded, "vision", source)
    plain, other = said(loaded, target), said(loaded, source)
    for chosen in ([0], [1], [0, 1]):
        with tower.seeing(loaded, "vision", {layer: seen[layer] for layer in chosen}):
            found = said(loaded, target)
        blocks = [tower.blocks_of(loaded)[layer] for layer in chosen]
        with Exchanged(loaded, blocks) as exchanged:
            said(loaded, source)
            assert exchanged.kept
            exchanged.give = True
            expected = said(loaded, target)
        assert torch.allclose(found, expected, atol=1e-5), chosen
        assert (found - plain).abs().max() > 1e-5
    with tower.seeing(loaded, "vision", dict(enumerate(tower.look(loaded, "vision", target)))):
        assert torch.equal(said(loaded, target), plain)
    with tower.seeing(
        loaded, "projector", dict(enumerate(tower.look(loaded, "projector", source)))
    ):
        assert torch.equal(said(loaded, target), other)
    assert torch.equal(said(loaded, target), plain)


@pytest.mark.parametrize("family", SEEING)
def test_pairs_of_a_batch_are_swapped_as_each_by_itself(family):
    loaded = loaded_of(family)
    pairs = [join([hand_built(family, seed), hand_built(family, seed + 2)]) for seed in (0, 1)]
    targets, sources = (join([pair.slice([side]) for pair in pairs]) for side in (0, 1))
    seen = tower.look(loaded, "vision", sources)
    with tower.seeing(loaded, "vision", {1: seen[1]}):
        together = tower.run_tower(loaded, targets)
    for row, pair in zip(together, pairs, strict=True):
        alone = tower.look(loaded, "vision", pair.slice([1]))
        with tower.seeing(loaded, "vision", {1: alone[1]}):
            assert torch.allclose(said(loaded, pair.slice([0])), row, atol=1e-5)


@torch.no_grad()
def hooked(loaded, base, donor, module, mask):
    """The base run's logits with the donor's output of a module at a mask of patches."""
    kept = []

    def hook(_, args, output):
        out = output[0] if isinstance(output, tuple) else output
        if not kept:
            kept.append(out.clone())
            return None
        out = out.clone()
        out[mask] = kept[0][mask]
        return (out, *output[1:]) if isinstance(output, tuple) else out

    handle = module.register_forward_hook(hook, prepend=True)
    said(loaded, donor)
    logits = said(loaded, base)
    handle.remove()
    return logits


@pytest.mark.parametrize("family", SEEING)
def test_patches_equal_plain_hooks(family):
    loaded, (clean, corrupt) = loaded_of(family), runs_of(family)
    gap = said(loaded, clean) - said(loaded, corrupt)
    parting = int(gap.argmax()), int(gap.argmin())
    run = tower._Run.of(loaded, clean, "vision", "residual")
    other = tower._Run.of(loaded, corrupt, "vision", "residual")
    changed = (run.first != other.first).any(-1)
    assert changed.any()
    assert not changed.all()
    if family == "qwen2_vl":  # a patch is a row of the pixels, in this order
        rows = clean.images.pixel_values != corrupt.images.pixel_values
        assert torch.equal(changed, rows.any(-1))
    masks = {CHANGED: changed, UNCHANGED: ~changed, "all": torch.ones_like(changed)}

    def difference(logits):
        return float(logits[parting[0]] - logits[parting[1]])

    up, down = difference(said(loaded, clean)), difference(said(loaded, corrupt))
    for site in ("residual", "attn", "mlp"):
        given = {"part": "vision", "site": site, "layers": [0, 1]}
        for denoising in (True, False):
            found, ends = tower.tower_effects(
                loaded, clean, corrupt, parting, **given, denoising=denoising
            )
            assert ends == pytest.approx((up, down), abs=1e-5)
            base, donor = (corrupt, clean) if denoising else (clean, corrupt)
            for layer, effects in enumerate(found):
                block = tower.blocks_of(loaded)[layer]
                module = {"residual": block, "attn": tower._attention(block)}.get(site, block.mlp)
                for (name, _), effect in effects.items():
                    now = difference(hooked(loaded, base, donor, module, masks[name]))
                    expected = (now - down) if denoising else (up - now)
                    assert effect == pytest.approx(expected / (up - down), abs=2e-3)
            if site == "residual" and family != "qwen3_vl":  # what lower blocks say goes beside it
                assert found[1]["all", None] == pytest.approx(1, abs=1e-3)
    found, _ = tower.tower_effects(
        loaded, clean, corrupt, parting, part="projector", site="residual", layers=[0]
    )
    assert found == [{("all", None): pytest.approx(1, abs=1e-4)}]
    # the same difference as of the decoder: both are shares of one thing
    _, decoder = patch_effects(
        loaded.model, clean, corrupt, parting, token_groups_of(clean), site="mlp", layers=[0]
    )
    assert decoder == pytest.approx((up, down), abs=1e-5)


def test_a_tower_of_another_make_is_refused_in_words():
    loaded = loaded_of("qwen2_5_vl")
    block = tower.blocks_of(loaded)[0]
    block.attn.linear = block.attn.qkv
    del block.attn.qkv
    with pytest.raises(FrankenError, match="no keys and values that franken knows"):
        tower.eyes_of(loaded, "vision", 0)
    block.looks = block.attn
    del block.attn
    with pytest.raises(FrankenError, match="no attention that franken knows"):
        tower.eyes_of(loaded, "vision", 0)


def test_a_run_in_the_tower_is_accounted_for(tmp_path):
    plan = plan_probe(
        SFT,
        methods=["zero", "swap-suffix", "swap-prefix", "patch-residual", "patch-mlp-noising"],
        part="vision",
        task_names=["read"],
        samples=3,
        max_new_tokens=24,
    )
    run = load_run(run_probe(plan, out=tmp_path, device="cpu"))
    assert len(run.samples) == plan.n_requested == 5 * 3 * BLOCKS
    assert run.manifest.n_failed == 0
    assert set(run.samples["part"]) == set(run.layers["part"].dropna()) == {"vision"}
    rows = run.samples.set_index(["method", "layer"]).sort_index()
    none = rows.loc[("swap-prefix", 0)]  # no layer is below the first
    assert (none["output"] == none["baseline"]).all()
    assert (none["kl"] == 0).all()
    assert rows.loc["swap-suffix", "kl"].notna().all()
    assert rows.loc["zero", "score"].notna().all()
    whole = rows.loc["patch-residual"]
    assert whole["effect_all"].to_numpy() == pytest.approx(1, abs=1e-4)
    assert (whole["effect_changed"] + whole["effect_unchanged"]).notna().all()
    components = run.layers[run.layers["method"] == "patch-residual"]["component"]
    assert set(components) == {"changed", "unchanged", "all"}
    assert run.measured == [f"vision:{name}" for name in plan.names]
    assert not len(of_decoder(run.layers))  # on a page about decoder layers it has no part
    patched = findings.select(run.layers, method="patch-residual")
    (figure,) = Patch.figures([get("patch-residual")], patched[patched["value"].notna()])
    assert "tower's residual stream" in figure.title
    drawing = draw(figure, "m", BLOCKS)
    assert drawing.axes[0].get_xlabel() == "vision layer"
    assert [t.get_text() for t in drawing.axes[0].get_yticklabels()] == list(PATCHES)


def test_a_run_at_the_projector_by_the_command_line(tmp_path, capsys):
    words = ["probe", SFT, "--method", "zero,swap-single,patch-residual", "--part", "projector"]
    words += ["--tasks", "read", "--samples", "3", "--max-new-tokens", "24", "--device", "cpu"]
    assert run_command([*words, "--out", str(tmp_path), "--no-figures"], debug=True) == 0
    printed = capsys.readouterr().out
    assert "creature-sft: projector layer 0 (1 of 1)" in printed
    assert "image" not in printed.split("patch-residual", 1)[1].split("━┓")[0]
    (folder,) = (tmp_path / "probe").iterdir()
    rows = load_run(folder).samples.set_index("method")
    swaps = rows.loc["swap-single"]
    assert (swaps["output"] == swaps["source_output"]).all()
    assert swaps["to_source"].any()
    assert rows.loc["patch-residual", "effect_all"].to_numpy() == pytest.approx(1, abs=1e-4)
    assert rows.loc["zero", "changed"].any()
    dry = [*words, "--dry-run", "--json"]
    assert run_command(dry, debug=True) == 0
    told = json.loads(capsys.readouterr().out)
    replies = 6 * 24
    decoded = 24 + 24  # zero and the one set, three prompts a batch
    scored = 3 * (2 + 1) + 3 * (2 + 1)  # plain, source and set; two runs and one patch
    assert told["forwards"] == replies + decoded + scored


def test_what_the_tower_has_not_is_refused():
    given = {"task_names": ["read"], "samples": 1}
    for name in ("zero-attention", "mean", "patch-heads", "attention", "lens"):
        with pytest.raises(UsageError, match=f"{name} cannot probe vision layers"):
            plan_probe(SFT, methods=[name], part="vision", **given)
    with pytest.raises(UsageError, match="patch-mlp cannot probe projector"):
        plan_probe(SFT, methods=["patch-mlp"], part="projector", **given)
    with pytest.raises(UsageError, match="across-mlp cannot probe vision"):
        plan_probe(SFT, methods=["across-mlp"], against="creature:base", part="vision", **given)
    with pytest.raises(UsageError, match="--engine nnsight cannot probe vision"):
        plan_probe(SFT, methods=["zero"], part="vision", engine="nnsight", **given)
    assert cost(plan_probe(SFT, methods=["zero"], part="vision", **given))["answers"] == BLOCKS


def test_controls_hold_and_fail(sft_creature, monkeypatch):
    from franken.probe.session import Session

    plan = plan_probe(SFT, methods=["zero"], part="vision", task_names=["read"], samples=1)
    pairs = Session(plan, sft_creature).control_pairs
    before = controls.weights_digest(sft_creature)
    for part in ("vision", "projector"):
        assert controls.check_tower(sft_creature, pairs, part) == []
    assert controls.weights_digest(sft_creature) == before
    look = tower.look
    monkeypatch.setattr(
        tower, "look", lambda *given: [[[x + 1 for x in m] for m in s] for s in look(*given)]
    )
    failures = controls.check_tower(sft_creature, pairs, "projector")
    assert any("sees itself" in failure for failure in failures)
    assert any("source's features" in failure for failure in failures)
