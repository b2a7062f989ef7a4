"""The run: peaks, text questions, ablation methods, controls, and that nothing is lost."""

import importlib
import json
import re
from dataclasses import replace

import pytest
import torch
from hand_built import FAMILIES, hand_built, seeing
from PIL import Image

from franken import tasks
from franken.cli import run_command
from franken.errors import UsageError, VerificationError
from franken.generate import Prompt, Response
from franken.models.loading import wrap
from franken.probe import ablate, controls, swap
from franken.probe.answers import judge
from franken.probe.cost import TextShape, cost
from franken.probe.lens import own_lens
from franken.probe.plan import one_pair, plan_probe
from franken.probe.run import run_probe
from franken.probe.session import prompt_of
from franken.probe.summary import peaks
from franken.runs import layer_row, load_run

DEPTH = 8
STEPS = 30


def questions(folder):
    file = folder / "sums.jsonl"
    rows = [
        {"id": "a", "question": "1 plus 2?", "answer": "one and two\n#### 1,003"},
        {"id": "b", "question": "Half of 3?", "answer": "#### 1.5"},
        {"id": "c", "question": "nothing", "answer": ""},
        {"id": "d", "question": "2 plus 2?", "answer": "#### 4"},
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    return f"gsm8k={file}#id=id"


def test_questions_of_a_table_are_graded_by_their_type_and_never_swapped(tmp_path):
    a, b, c, _ = plan_probe("creature:sft", methods=["zero"], data=questions(tmp_path)).pairs
    assert (a.target.answer_type, b.target.answer) == ("number", "1.5")
    assert "\\boxed" in b.target.question
    right, near, wrong = (
        Response(text, [], [], False)
        for text in ("\\boxed{1,003}", "so \\boxed{1003.0}", "so \\boxed{103}")
    )
    assert judge(a, near, right).score == 1.0
    assert judge(a, wrong, right).score == 0.0
    assert a.ineligible
    assert "no answer" in c.error
    with pytest.raises(UsageError, match="no data"):
        plan_probe("creature:sft", data=tmp_path / "none.jsonl")


def test_text_questions_are_ablated_and_every_row_is_accounted_for(tmp_path):
    plan = plan_probe(
        "creature:sft",
        methods=["zero", "mean-attention", "noise-mlp", "swap-single"],
        data=questions(tmp_path),
        layers="0,4",
        max_new_tokens=5,
        samples=3,
    )
    assert [item.id for item in plan.calibration] == ["gsm8k-b"]  # the row that is not probed
    run = load_run(run_probe(plan, out=tmp_path, device="cpu"))
    assert len(run.samples) == plan.n_requested == 4 * 3 * 2
    rows = run.samples.set_index(["method", "sample", "layer"])
    assert rows.loc[("swap-single", "gsm8k-a", 0), "ineligible"]
    assert rows.loc[("zero", "gsm8k-c", 0), "error"]
    assert rows.loc[("noise-mlp", "gsm8k-d", 4), "output"] is not None
    assert rows.loc[("zero", "gsm8k-a", 0), "truncated"] in (True, False)
    cut = run.layers[(run.layers["metric"] == "truncated_rate") & (run.layers["method"] == "zero")]
    assert (cut["n"] == 2).all()
    drops = run.layers[run.layers["metric"] == "accuracy_drop"]
    assert drops["p_adjusted"].notna().all()


def test_a_peak_is_every_layer_that_the_data_cannot_tell_from_the_best():
    def row(layer, value, low, high, metric="change_rate"):
        return layer_row(
            model="m",
            method="swap-single",
            part="text",
            task="t",
            layer=layer,
            metric=metric,
            value=value,
            ci_low=low,
            ci_high=high,
            n=9,
        )

    rows = [
        row(0, 0.2, 0.1, 0.3),
        row(1, 0.6, 0.4, 0.8),
        row(2, 0.7, 0.5, 0.9),
        row(3, 0.45, 0.3, 0.49),
    ]
    assert peaks(rows) == [
        {
            "model": "m",
            "method": "swap-single",
            "task": "t",
            "metric": "change_rate",
            "best": 2,
            "layers": [1, 2],
        }
    ]
    assert peaks([row(0, 0.0, 0.0, 0.3)]) == []
    assert peaks([row(0, 0.5, 0.2, 0.9, metric="kl")]) == []


def test_a_run_reports_peaks_and_measures(tmp_path):
    plan = plan_probe(
        "creature:sft", methods=["swap-single"], task_names=["read"], samples=6, max_new_tokens=40
    )
    run = load_run(run_probe(plan, out=tmp_path, device="cpu"))
    assert {
        "change_rate",
        "task_change_rate",
        "flip_to_source_rate",
        "kl",
        "logit_difference",
    } <= set(run.layers["metric"])
    assert all(peak["best"] in peak["layers"] for peak in run.manifest.peaks)
    usable = run.samples[run.samples["ineligible"].isna() & run.samples["error"].isna()]
    assert (usable["kl"] >= 0).all()


@pytest.mark.parametrize(
    "broken", ["franken.probe.swap.swapped_answers", "franken.probe.ablate.ablate"]
)
def test_a_control_that_fails_ends_with_code_4(tmp_path, monkeypatch, broken):
    def wrong(*arguments, **_):
        count = len(arguments[3]) if "swap" in broken else 1 + len(arguments[2])
        return [Response(str(i), [i], [0.0], False) for i in range(count)]

    monkeypatch.setattr(broken, wrong)
    plan = plan_probe("creature:sft", task_names=["read"], samples=1, max_new_tokens=3)
    with pytest.raises(VerificationError, match="control failed") as raised:
        run_probe(plan, out=tmp_path, device="cpu")
    assert raised.value.exit_code == 4


def wrong_rows(found):
    """The same with the rows' order turned round."""
    return lambda *arguments, **options: found(*arguments, **options).flip(0)


@pytest.mark.parametrize(
    ("method", "broken", "message"),
    [
        ("patch-attn", "franken.probe.patch.patched_logits", "patching (nothing|everything)"),
        ("attention", "franken.probe.attention._weights", "attention to image and rest"),
        ("lens", "franken.probe.lens.read", None),
        ("lens", "franken.probe.lens.lens_for", "lens at the last layer"),
    ],
)
def test_controls_of_the_measures(tmp_path, monkeypatch, method, broken, message):
    module, name = broken.rsplit(".", 1)
    right = getattr(importlib.import_module(module), name)
    changed = {
        "patched_logits": wrong_rows(right),
        "_weights": lambda *arguments, **options: right(*arguments, **options) * 1.01,
        "read": right,
        "lens_for": lambda loaded, _: replace(
            own_lens(loaded.model), unembed=loaded.model.get_output_embeddings()
        ),
    }
    monkeypatch.setattr(broken, changed[name])
    plan = plan_probe(
        "creature:sft", methods=[method], task_names=["read"], samples=1, max_new_tokens=3
    )
    if message is None:
        assert load_run(run_probe(plan, out=tmp_path, device="cpu")).manifest.warnings == []
        return
    with pytest.raises(VerificationError, match="control failed") as raised:
        run_probe(plan, out=tmp_path, device="cpu")
    assert raised.value.exit_code == 4
    assert re.search(message, raised.value.why)


@pytest.mark.parametrize("site", ["residual", "attn", "mlp", "heads"])
def test_the_control_on_patching_holds_for_every_site(sft_creature, site):
    pair = tasks.get("read").pairs(1, 0)[0]
    prompts = [(prompt_of(pair.target), prompt_of(pair.source))]
    assert controls.check_patching(sft_creature, prompts, [site]) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_the_controls_of_the_measures_hold_in_every_family(family, monkeypatch):
    loaded = wrap(seeing(family), None, None)
    monkeypatch.setattr(
        controls, "encode_prompts", lambda _, prompts: hand_built(family, seed=int(prompts[0].key))
    )
    clean, corrupt = Prompt("", (), "1"), Prompt("", (), "2")
    sites = ["attn", "mlp", *(["heads"] if family != "qwen3_5" else [])]
    assert controls.check_patching(loaded, [(clean, corrupt)], sites) == []
    assert controls.check_attention(loaded, [clean]) == []


def test_weights_that_change_fail_the_run(tmp_path, monkeypatch):
    digests = iter([1, 2])
    monkeypatch.setattr(controls, "weights_digest", lambda _: next(digests))
    plan = plan_probe(
        "creature:sft",
        methods=["zero"],
        task_names=["read"],
        samples=1,
        layers="0",
        max_new_tokens=3,
    )
    with pytest.raises(VerificationError, match="weights changed"):
        run_probe(plan, out=tmp_path, device="cpu")


@torch.no_grad()
@pytest.mark.parametrize("change", ["reverse", "swap two bytes", "bf16"])
def test_the_digest_knows_the_order_of_the_bytes(change):
    """Sums of bytes do not: a matrix with its rows reversed has the same sum."""
    loaded = wrap(seeing("qwen2_5_vl"), None, None)
    if change == "bf16":
        loaded.model.to(torch.bfloat16)
    before = controls.weights_digest(loaded)
    assert controls.weights_digest(loaded) == before
    weight = loaded.model.get_decoder().layers[1].mlp.up_proj.weight
    original = weight.clone()
    if change == "swap two bytes":
        flat = weight.view(-1)
        flat[[0, 1]] = original.view(-1)[[1, 0]]
    else:
        weight.copy_(original.flip(0))
    assert controls.weights_digest(loaded) != before
    weight.copy_(original)
    assert controls.weights_digest(loaded) == before


@pytest.mark.parametrize(
    "methods",
    [
        ["swap"],
        ["zero", "swap-suffix"],
        ["attention", "lens"],
        ["patch-residual", "patch-heads-noising"],
        ["attention", "patch-attn", "zero-mlp"],
    ],
)
def test_the_dry_run_counts_the_forwards_that_are_run(tmp_path, sft_creature, methods, monkeypatch):
    plan = plan_probe(
        "creature:sft", methods=methods, task_names=["read"], samples=4, max_new_tokens=STEPS
    )
    monkeypatch.setattr("franken.probe.run.check_controls", lambda *_: [])
    monkeypatch.setattr("franken.probe.run.load", lambda *_, **__: sft_creature)
    monkeypatch.setattr("franken.probe.methods.lens.BRIDGED", ())
    monkeypatch.setattr(
        "franken.generate.native.end_ids", lambda *_: [-2]
    )  # every answer is the longest
    calls, layers = [], []
    decoder = sft_creature.family.decoder_layers(sft_creature.model)
    handles = [sft_creature.model.register_forward_hook(lambda *_: calls.append(1))]
    handles += [layer.register_forward_hook(lambda *_: layers.append(1)) for layer in decoder]
    try:
        run = load_run(run_probe(plan, out=tmp_path, device="cpu"))
    finally:
        for handle in handles:
            handle.remove()
    assert run.samples["error"].isna().all()
    assert run.samples["ineligible"].isna().all()  # every two replies part
    counted = cost(plan)
    assert len(calls) == counted["forwards"]
    assert len(layers) - DEPTH * len(calls) == counted["resumed_layers"]
    assert (counted["resumed_layers"] > 0) == any("patch" in m for m in methods)
    assert counted["forwards_naive"] > 1.5 * counted["forwards"]


def test_the_dry_run_counts_activations_and_a_second_copy():
    def memory(*methods, **options):
        return cost(
            plan_probe("creature:sft", methods=methods, task_names=["read"], samples=2, **options)
        )["memory_mib"]

    weights = plan_probe("creature:sft", samples=1).checkpoint.nbytes / 2**20
    assert memory("attention") > weights
    assert memory("lens") - memory("attention") > 0.9 * weights  # the bridge's own copy
    assert memory("zero", batch_size=128) > memory("zero", batch_size=4) > weights
    assert memory("patch-residual") > memory("attention")
    # 5 MiB of weights, 30 of keys and values, 20 of activations: ten times any of them is more
    assert 8 * weights < memory("zero", batch_size=128) < 15 * weights


def test_the_memory_of_a_dry_run_by_hand():
    def plan(method):
        names = {"methods": [method], "task_names": ["read"], "layers": "0-2"}
        return plan_probe("creature:sft", **names, samples=1, max_new_tokens=10)

    checkpoint, size = plan("zero").checkpoint, 4
    text = checkpoint.config["text_config"]
    hidden, vocabulary = text["hidden_size"], text["vocab_size"]
    token = size * 3 * (hidden + text["intermediate_size"])  # stream, norm, MLP's inner tensors
    cache = 2 * size * text["num_key_value_heads"] * 32 * DEPTH  # keys and values of a token
    row = 512 * token + 8 * vocabulary  # logits and softmax in fp32
    stream = size * hidden * 512 * (DEPTH + 1)
    shape = TextShape.of(plan("zero"))
    assert (shape.row, shape.stream, shape.keys_and_values) == (
        row - 4 * vocabulary,
        stream,
        cache,
    )
    three, four = 1 + 2, 2 + 2  # plain and two layers; for swaps the source as well
    expected = {
        "zero": cache * three * (512 + 10) + three * row,
        "swap-single": cache * (2 * 512 + four * 10) + four * row,
        "attention": cache * (512 + 10) + row,
        "patch-mlp": cache * (512 + 10) + 32 * (row - 4 * vocabulary) + 4 * stream,
        "lens": cache * (512 + 10) + max(row, stream + 12 * 64 * vocabulary) + checkpoint.nbytes,
    }
    assert text.get("head_dim") or hidden // text["num_attention_heads"] == 32
    for method, activations in expected.items():
        mib = (checkpoint.nbytes + activations) / 2**20
        assert cost(plan(method))["memory_mib"] == round(mib), method


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_in_16_bits_rows_that_changed_are_run_again_alone(tmp_path, dtype):
    plan = plan_probe(
        "creature:sft",
        methods=["swap-suffix", "zero"],
        task_names=["read"],
        samples=2,
        max_new_tokens=24,
        dtype=dtype,
    )
    run = load_run(run_probe(plan, out=tmp_path, device="cpu", dtype=dtype))
    again = run.samples[run.samples["rerun"] == True]  # noqa: E712
    assert run.manifest.reruns["rows"] == len(again)
    if dtype == "fp32":
        assert again.empty
        return
    assert {"swap-suffix", "zero"} == set(again["method"])
    assert again["batched_output"].notna().all()
    assert not run.samples[run.samples["rerun"] == False]["changed"].any()  # noqa: E712


@pytest.mark.parametrize("method", ["swap-suffix", "zero"])
def test_a_change_that_is_the_batchs_rounding_is_none(tmp_path, monkeypatch, method):
    """The batch's last row says something else; alone it does not."""
    swaps, ablations = swap.swapped_batch, ablate.ablate

    def wrong_swaps(loaded, pairs, sets, *rest, **options):
        rows = swaps(loaded, pairs, sets, *rest, **options)
        return [[*r[:-1], wrong_answer(r[0])] for r in rows] if len(sets) > 3 else rows

    def wrong_ablations(loaded, prompt, wanted, **options):
        rows = ablations(loaded, prompt, wanted, **options)
        return [*rows[:-1], replace(rows[0], text="rounded")] if len(wanted) > 1 else rows

    def wrong_answer(row):
        return replace(row, answer=replace(row.answer, text="rounded"))

    monkeypatch.setattr(swap, "swapped_batch", wrong_swaps)
    monkeypatch.setattr(ablate, "ablate", wrong_ablations)
    plan = plan_probe(
        "creature:sft",
        methods=[method],
        task_names=["read"],
        samples=1,
        layers="6,7",
        max_new_tokens=3,
    )
    row = load_run(run_probe(plan, out=tmp_path, device="cpu", dtype="bf16")).samples.iloc[-1]
    assert (row["rerun"], row["batched_output"], row["layer"]) == (True, "rounded", 7)
    assert row["output"] != "rounded"


def test_one_pair_is_probed_and_drawn(tmp_path, capsys):
    pair = tasks.get("read").pairs(1, 0)[0]
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    pair.target.image.save(files[0])
    pair.source.image.save(files[1])
    command = [
        "probe",
        "creature:sft",
        "--pair",
        *map(str, files),
        "--ask",
        pair.target.question,
        "--method",
        "swap",
    ]
    command += [
        "--max-new-tokens",
        "30",
        "--out",
        str(tmp_path / "runs"),
        "--device",
        "cpu",
        "--json",
    ]
    assert run_command(command, debug=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["manifest"]["n_ok"] == 2 * DEPTH
    with Image.open(next((tmp_path / "runs").rglob("pair.png"))) as picture:
        assert picture.width > 1000
    with pytest.raises(UsageError, match="question"):
        one_pair(*files, " ")
    (tmp_path / "c.png").write_text("no image")
    with pytest.raises(UsageError, match="no image"):
        one_pair(files[0], tmp_path / "c.png", "What?")


@pytest.mark.parametrize("wrong", [{"batch_size": 2}, {"engine": "tensorflow"}])
def test_wrong_engines_and_batches(wrong):
    with pytest.raises(UsageError):
        plan_probe("creature:sft", **wrong)
