"""The swap against hook-made swaps, the ablation, the summary, and the run that loses nothing."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from spelled import swap_sets

from franken import tasks
from franken.errors import FrankenError, UsageError, VerificationError
from franken.generate import Prompt, Sampling, encode_prompts, generate
from franken.models.hooks import edit
from franken.models.tokens import token_map
from franken.probe import controls
from franken.probe.ablate import Ablation, ablate
from franken.probe.methods.swap import fall_layers, fall_tests
from franken.probe.plan import plan_probe
from franken.probe.run import check_controls, run_probe
from franken.probe.session import Session
from franken.probe.summary import layer_rows
from franken.probe.swap import swapped_answers
from franken.runs import load_run

DEPTH = 8


def pair_prompts(name: str, index: int = 0) -> tuple[Prompt, Prompt]:
    pair = tasks.get(name).pairs(index + 1, 0)[index]
    return tuple(Prompt(i.question, (i.image,), i.id) for i in (pair.target, pair.source))


@torch.no_grad()
def swapped_by_hand(loaded, target, source, chosen, steps):
    """No cache, no batching: run the source, then the target with its layers' k and v overwritten,
    at every step anew.

    Up to the end of the image every layer's output is put back to the target's own, so that the
    swap reaches the question and the answer only.
    """
    ids = encode_prompts(loaded, [target])
    image = token_map(ids["input_ids"], loaded.model.config)[0].images[0]
    layers = loaded.family.decoder_layers(loaded.model)
    stored = {}

    def keep(layer, kind):
        return lambda hidden, context: stored.setdefault((layer, kind), hidden.clone())

    def put(layer, kind):
        def replace(hidden, context):
            changed = hidden.clone()
            changed[:, image] = stored[layer, kind][:, image]
            return changed

        return replace

    def own(layer):
        def replace(hidden, context):
            changed = hidden.clone()
            changed[:, : image.stop] = residual[layer]
            return changed

        return replace

    residual = {}

    def record(layer):
        def look(hidden, context):
            residual[layer] = hidden[:, : image.stop].clone()
            return hidden

        return look

    recorders = {block: record(i) for i, block in enumerate(layers)}
    with edit(recorders):
        loaded.model(**ids)
    projections = [(i, kind) for i in chosen for kind in ("k_proj", "v_proj")]
    with edit({getattr(layers[i].self_attn, kind): keep(i, kind) for i, kind in projections}):
        loaded.model(**encode_prompts(loaded, [source]))
    answer: list[int] = []
    banned = loaded.family.banned_token_ids(loaded.model.config, loaded.tokenizer)
    while len(answer) < steps:
        batch = dict(ids)
        if answer:
            tail = torch.tensor([answer])
            positions = ids["position_ids"]
            batch["input_ids"] = torch.cat([ids["input_ids"], tail], 1)
            batch["attention_mask"] = torch.ones_like(batch["input_ids"])
            batch["position_ids"] = torch.cat(
                [positions, positions[..., -1:] + torch.arange(1, len(answer) + 1)], -1
            )
        edits = {getattr(layers[i].self_attn, kind): put(i, kind) for i, kind in projections}
        with edit(edits | {block: own(i) for i, block in enumerate(layers)}):
            logits = loaded.model(**batch).logits[0, -1]
        logits[banned] = -torch.inf
        answer.append(int(logits.argmax()))
        if answer[-1] == loaded.tokenizer.eos_token_id:
            break
    return answer


@pytest.mark.parametrize("mode", ["suffix", "single", "prefix", "window:3"])
@pytest.mark.parametrize("name", ["read", "compare"])
def test_swaps_equal_swaps_made_by_hand(sft_creature, mode, name):
    target, source = pair_prompts(name)
    layers = [0, 3, 4, 7]
    sets = swap_sets(mode, layers, DEPTH)
    ours = swapped_answers(sft_creature, target, source, sets, max_new_tokens=20)
    for chosen, answer in zip(sets, ours, strict=True):
        assert answer.ids == swapped_by_hand(sft_creature, target, source, sorted(chosen), 20)


def test_swap_sets_written_out():
    assert swap_sets("prefix", [0, 2, DEPTH], DEPTH) == [set(), {0, 1}, set(range(DEPTH))]
    assert swap_sets("window:3", [0, 4, 7], DEPTH) == [{0, 1}, {3, 4, 5}, {6, 7}]
    assert swap_sets("window:4", [4], DEPTH) == [{3, 4, 5, 6}]
    assert swap_sets("window:1", range(DEPTH), DEPTH) == swap_sets("single", range(DEPTH), DEPTH)
    assert swap_sets(f"window:{DEPTH}", [(DEPTH - 1) // 2], DEPTH) == swap_sets(
        "suffix", [0], DEPTH
    )
    for mode in ("window:0", "window:x", "window", "middle"):
        with pytest.raises(UsageError, match="unknown (swap mode|method)"):
            swap_sets(mode, [0], DEPTH)


def test_windows_and_prefixes_run_as_methods(tmp_path):
    methods = ["swap-window:3", "swap-prefix"]
    plan = plan_probe("creature:sft", methods=methods, task_names=["read"], samples=2, layers="3-5")
    run = load_run(run_probe(plan, out=tmp_path))
    assert set(run.samples["method"]) == set(methods)
    assert len(run.samples) == plan.n_requested == 8
    assert set(run.layers["method"]) == set(methods)
    with pytest.raises(UsageError, match="unknown swap mode"):
        plan_probe("creature:sft", methods=["swap-window:0"])


def test_the_ends_of_a_swap_are_known(sft_creature):
    target, source = pair_prompts("sum")
    everything = frozenset(range(DEPTH))
    sets = [
        frozenset(),
        everything,
        *swap_sets("suffix", range(DEPTH), DEPTH),
        *swap_sets("single", range(DEPTH), DEPTH),
    ]
    answers = swapped_answers(sft_creature, target, source, sets, max_new_tokens=40)
    plain, other = (
        generate(sft_creature, [p], Sampling(1, 0.0, 40))[0][0] for p in (target, source)
    )
    assert answers[0].ids == plain.ids
    assert answers[1].ids == answers[2].ids == other.ids
    assert plain.ids != other.ids
    suffix, single = answers[2 : 2 + DEPTH], answers[2 + DEPTH :]
    assert suffix[-1].ids == single[-1].ids
    assert [a.ids for a in suffix] != [a.ids for a in single]
    same = swapped_answers(sft_creature, target, target, sets, max_new_tokens=40)
    assert {tuple(a.ids) for a in same} == {tuple(plain.ids)}
    alone = [
        swapped_answers(sft_creature, target, source, [s], max_new_tokens=40)[0].ids for s in sets
    ]
    assert alone == [a.ids for a in answers]


def test_images_of_different_size_are_an_error_of_that_sample(sft_creature):
    target, _ = pair_prompts("read")
    wide = Prompt(target.text, (Image.new("RGB", (112, 84)),), "x")
    with pytest.raises(FrankenError, match="token grids"):
        swapped_answers(sft_creature, target, wide, [frozenset()], max_new_tokens=4)


@torch.no_grad()
def test_ablation_equals_a_model_without_the_layer(sft_creature):
    from franken.models.loading import load

    asked = [pair_prompts("read", i)[0] for i in range(3)]
    answers = [ablate(sft_creature, p, [Ablation(6)], max_new_tokens=20) for p in asked]
    plain, ours = zip(*answers, strict=True)
    assert [r.ids for r in plain] == [
        r[0].ids for r in generate(sft_creature, asked, Sampling(1, 0.0, 20))
    ]
    shorter = load("creature:sft", device="cpu")
    decoder = shorter.model.get_decoder()
    del decoder.layers[6]
    decoder.layers[6].self_attn.layer_idx = 6
    decoder.config.num_hidden_layers = 7
    assert [r[0].ids for r in generate(shorter, asked, Sampling(1, 0.0, 20))] == [
        r.ids for r in ours
    ]


def row(sample, layer, changed, task="read", method="swap-suffix", world="digits", **extra):
    blank = {
        "model": "m",
        "part": "text",
        "error": None,
        "ineligible": None,
        "to_source": changed,
        "score": 0.0,
        "baseline_score": 1.0,
    }
    return {
        **blank,
        "method": method,
        "task": task,
        "sample": sample,
        "layer": layer,
        "changed": changed,
        "task_changed": changed,
        "world": world,
        **extra,
    }


def test_rates_leave_out_what_cannot_be_measured():
    rows = [
        row("a", 0, True),
        row("b", 0, False),
        row("c", 0, None, error="broken"),
        row("d", 0, None, ineligible="same"),
    ]
    rows += [row("c", 1, None, error="broken")]
    found = {(r["layer"], r["metric"]): r for r in layer_rows(pd.DataFrame(rows))}
    assert found[0, "change_rate"]["n"] == 2
    assert found[0, "change_rate"]["value"] == 0.5
    assert found[1, "change_rate"]["n"] == 0
    assert found[1, "change_rate"]["value"] is None


def test_ablation_drops_are_paired_and_corrected():
    rows = [
        row(str(i), layer, None, method="zero", score=float(layer == 1 or i < 5))
        for i in range(20)
        for layer in (0, 1)
    ]
    found = {(r["layer"], r["metric"]): r for r in layer_rows(pd.DataFrame(rows))}
    assert found[0, "accuracy_drop"]["value"] == pytest.approx(0.75)
    assert found[0, "accuracy_drop"]["p_adjusted"] == pytest.approx(2 * 2 * 0.5**15)
    assert found[1, "accuracy_drop"]["value"] == 0.0
    assert found[1, "accuracy"]["value"] == 1.0


def test_tasks_that_fall_at_different_layers_are_told_apart():
    rows = []
    for i in range(30):
        for layer in range(8):
            rows.append(row(f"read-test-pair-0-{i}", layer, layer < 4))
            rows.append(row(f"sum-test-pair-0-{i}", layer, layer < 6, task="sum"))
            rows.append(
                row(f"count-test-pair-0-{i}", layer, layer < 2, task="count", world="shapes")
            )
    assert set(fall_layers(pd.DataFrame([r for r in rows if r["task"] == "sum"])).values()) == {6.0}
    tests = fall_tests(pd.DataFrame(rows))
    assert [t.tasks for t in tests] == [("read", "sum")]
    assert tests[0].difference == 2.0
    assert tests[0].p_adjusted < 1e-3


def public_folder(tmp_path):
    folder = tmp_path / "data" / "ocr"
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        Image.fromarray(rng.integers(0, 255, (84, 84, 3), dtype=np.uint8)).save(
            folder / "images" / f"{name}.png"
        )
    (folder / "images" / "cut.png").write_bytes((folder / "images" / "a.png").read_bytes()[:300])
    Image.new("RGB", (112, 84)).save(folder / "images" / "wide.png")
    rows = [
        ("ok", "a", "b", "one", "two"),
        ("same", "a", "b", "one", "one"),
        ("cut", "cut", "b", "one", "two"),
        ("wide", "a", "wide", "one", "two"),
    ]
    lines = [
        {
            "id": i,
            "task": "ocr",
            "target_image": f"images/{t}.png",
            "source_image": f"images/{s}.png",
            "prompt": "Read.",
            "meta": {"target_text": x, "source_text": y},
        }
        for i, t, s, x, y in rows
    ]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path / "data"


def test_every_public_row_is_accounted_for(tmp_path):
    plan = plan_probe("creature:sft", data=public_folder(tmp_path), max_new_tokens=6)
    run = load_run(run_probe(plan, out=tmp_path / "runs", device="cpu"))
    assert len(run.samples) == plan.n_requested == 3 * 4 * DEPTH
    swaps = run.samples[run.samples["method"] == "swap-suffix"].groupby("sample").first()
    assert "cannot be read" in swaps.loc["cut", "error"]
    assert "token grids" in swaps.loc["wide", "error"]
    assert swaps.loc["same", "ineligible"]
    assert swaps.loc["ok", "output"]
    assert run.manifest.n_failed == 5 * DEPTH  # cut: all three methods; wide: the two swaps
    rates = run.layers[run.layers["metric"] == "change_rate"].set_index("method")["n"]
    assert (rates[["swap-suffix", "swap-single"]] == 1).all()
    assert (rates["zero"] == 3).all()


def test_an_interrupted_probe_resumes_to_the_same(tmp_path, monkeypatch):
    def plan():
        return plan_probe(
            "creature:sft", task_names=["read", "sum"], samples=4, layers="3-5", max_new_tokens=24
        )

    whole = load_run(run_probe(plan(), out=tmp_path / "whole", device="cpu"))
    monkeypatch.setattr("franken.probe.run.FLUSH", 2)
    calls = []

    def stop(done, total, what):
        calls.append(what)
        if len(calls) in (5, 9):
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_probe(plan(), out=tmp_path / "cut", device="cpu", progress=stop)
    resumed = load_run(run_probe(plan(), out=tmp_path / "cut", device="cpu", progress=stop))
    pd.testing.assert_frame_equal(
        resumed.layers, whole.layers, atol=1e-4
    )  # batches of other sizes round differently
    key = ["method", "sample", "layer"]
    assert (
        resumed.samples.sort_values(key)["output"].tolist()
        == whole.samples.sort_values(key)["output"].tolist()
    )


def test_a_failing_control_fails_the_run(sft_creature, monkeypatch):
    plan = plan_probe("creature:sft", task_names=["read"], samples=1)
    session = Session(plan, sft_creature)
    assert check_controls(session) == []
    monkeypatch.setattr(controls, "identity_hook_is_exact", lambda *_: False)
    with pytest.raises(VerificationError, match="control"):
        check_controls(session)


def test_wrong_requests(tmp_path):
    for wrong in (
        {"methods": ["swop"]},
        {"task_names": ["raed"]},
        {"layers": "7-9"},
        {"layers": "vision:0-3"},
        {"samples": 0},
    ):
        with pytest.raises(UsageError):
            plan_probe("creature:sft", **wrong)
