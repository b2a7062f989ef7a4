"""The streaming run: sums over layers, resuming, selections, frozen layers, and what cannot be
compared.
"""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from franken.diff.plan import plan_diff
from franken.diff.run import DiffOptions, check_frozen, run_diff
from franken.errors import UsageError, VerificationError
from franken.models.tiny import save_tiny, tiny
from franken.names import canonical
from franken.runs import load_run
from franken.selection import select


def test_layers_add_up_as_squares(triple, tmp_path):
    models, folders = triple
    run = load_run(run_diff(plan_diff(folders), out=tmp_path / "runs"))
    table = run.layers[(run.layers["component"] == "all") & (run.layers["metric"] == "energy")]
    named = {stage: dict(m.named_parameters()) for stage, m in models.items()}
    for earlier, later in (("base", "sft"), ("sft", "rl"), ("base", "rl")):
        for layer in range(3):
            squares = sum(
                float(((named[later][n] - p).double() ** 2).sum())
                for n, p in named[earlier].items()
                if canonical(n, "qwen2_5_vl").startswith(f"text.layers.{layer}.")
            )
            row = table[
                (table["method"] == f"{earlier}→{later}")
                & (table["part"] == "text")
                & (table["layer"] == layer)
            ]
            assert row["value"].item() == pytest.approx(squares**0.5, rel=1e-6)
    moved = table[(table["method"] == "sft→rl") & (table["value"] > 0)]
    assert moved[["part", "layer"]].values.tolist() == [["text", 1]]
    where = {(w.method, w.part): w for w in run.manifest.location}
    assert where["sft→rl", "text"].thirds == {"early": 0.0, "middle": 1.0, "late": 0.0}
    assert where["sft→rl", "vision"].energy_share == 0.0


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_resumed_run_equals_an_uninterrupted_one(triple, tmp_path, jobs):
    options = DiffOptions(spectra=True, subspaces=True, k=3)
    plan = plan_diff(triple[1])
    whole = load_run(run_diff(plan, out=tmp_path / "whole", options=options))
    calls = []

    def stop(n):
        calls.append(n)
        if len(calls) == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_diff(plan, out=tmp_path / "cut", options=options, jobs=jobs, progress=stop)
    seen = []
    resumed = load_run(
        run_diff(plan, out=tmp_path / "cut", options=options, jobs=jobs, progress=seen.append)
    )
    assert seen[0] == sum(plan.nbytes(t) for t in plan.tensors[:29])
    assert sum(seen) == plan.total_bytes
    assert resumed.layers.equals(whole.layers)
    assert resumed.samples.equals(whole.samples)


def test_spectra_and_subspaces_are_on_the_rows(triple, tmp_path):
    options = DiffOptions(spectra=True, subspaces=True, k=2)
    run = load_run(run_diff(plan_diff(triple[1]), out=tmp_path / "runs", options=options))
    rows = run.samples.set_index(["method", "tensor"])
    key = "text.layers.1.mlp.up_proj.weight"
    delta = triple[0]["sft"].get_decoder().layers[1].mlp.up_proj.weight - (
        triple[0]["base"].get_decoder().layers[1].mlp.up_proj.weight
    )
    expected = torch.linalg.svdvals(delta.double())
    assert rows.loc[("base→sft", key), "singular_values"] == pytest.approx(
        expected.numpy(), rel=1e-6
    )
    assert rows.loc[("base→sft", key), "stable_rank"] == pytest.approx(
        float((expected**2).sum() / expected[0] ** 2)
    )
    constant = rows.loc[("sft→rl", key)]  # every weight moved by 0.25: one direction
    assert constant["numerical_rank"] == 1
    assert constant["subspace_k"] == 1
    assert 0 <= constant["left_overlap"] <= 1
    frozen = rows.loc[("sft→rl", "text.layers.0.mlp.up_proj.weight")]
    assert frozen[["effective_rank", "log_volume", "left_overlap"]].isna().all()
    null = run.layers[
        (run.layers["method"] == "sft→rl")
        & (run.layers["layer"] == 0)
        & (run.layers["part"] == "text")
    ]
    assert null[null["metric"] == "effective_rank"]["value"].isna().all()


def test_subspaces_need_two_updates(triple, tmp_path):
    with pytest.raises(UsageError, match="two updates"):
        run_diff(plan_diff(triple[1][:2]), out=tmp_path, options=DiffOptions(subspaces=True))


def test_what_cannot_be_compared_is_listed(tmp_path):
    save_tiny(tmp_path / "a", "qwen2", layers=3)
    save_tiny(tmp_path / "b", "qwen2", layers=2)
    plan = plan_diff([tmp_path / "a", tmp_path / "b"])
    assert plan.problems
    assert all("layers.2." in name for name in plan.problems)
    run = load_run(run_diff(plan, out=tmp_path / "runs"))
    assert run.manifest.n_failed == len(plan.problems) > 0
    assert set(run.samples["tensor"][run.samples["error"].notna()]) == set(plan.problems)


def rewrite(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_other_shapes_and_types_are_listed(tmp_path):
    for name in "ab":
        save_tiny(tmp_path / name, "qwen2")
    rewrite(
        tmp_path / "b",
        lambda t: t.update(
            {"model.norm.weight": torch.zeros(7), "lm_head.weight": torch.zeros(96, 32).long()}
        ),
    )
    plan = plan_diff([tmp_path / "a", tmp_path / "b"])
    assert plan.problems == {
        "text.norm.weight": "shapes differ: [32] in base, [7] in rl",
        "text.lm_head.weight": "I64 cannot be computed with",
    }


def test_nan_is_a_failed_row_not_a_number(tmp_path):
    for name in "ab":
        save_tiny(tmp_path / name, "qwen2")
    rewrite(
        tmp_path / "b",
        lambda t: t["model.layers.1.mlp.up_proj.weight"].view(-1)[7:8].fill_(float("nan")),
    )
    run = load_run(run_diff(plan_diff([tmp_path / "a", tmp_path / "b"]), out=tmp_path / "runs"))
    assert run.manifest.n_failed == 1
    assert (
        run.samples.set_index("tensor").loc["text.layers.1.mlp.up_proj.weight", "error"]
        == "NaN or infinite weights"
    )
    assert run.layers["value"].map(lambda v: v != float("inf")).all()


def test_spelling_shards_and_types_do_not_matter(tmp_path):
    save_tiny(tmp_path / "a", "qwen2_5_vl")
    tiny("qwen2_5_vl").bfloat16().save_pretrained(
        tmp_path / "b", save_original_format=False, max_shard_size="60KB"
    )
    plan = plan_diff([tmp_path / "a", tmp_path / "b"])
    assert not plan.problems
    run = load_run(run_diff(plan, out=tmp_path / "runs"))
    energy = run.layers[
        (run.layers["metric"] == "relative_energy") & (run.layers["component"] == "all")
    ]["value"]
    assert (energy < 2**-8).all()


def test_a_tied_head_is_compared_with_its_embedding(tmp_path):
    save_tiny(tmp_path / "tied", "qwen2_5_vl", tied=True)
    save_tiny(tmp_path / "free", "qwen2_5_vl")
    for order in (("tied", "free"), ("free", "tied")):
        plan = plan_diff([tmp_path / name for name in order])
        assert not plan.problems
        assert "text.lm_head.weight" in plan.tensors
        name = "text.embed_tokens.weight"
        stages = plan.stages("text.lm_head.weight")
        assert {entry.canonical for entry, _ in stages} == {name, "text.lm_head.weight"}
    save_tiny(tmp_path / "other", "qwen2_5_vl", 3, tied=True)
    assert "text.lm_head.weight" not in plan_diff([tmp_path / "tied", tmp_path / "other"]).tensors


def test_a_text_model_against_a_vlms_text_part(tmp_path):
    save_tiny(tmp_path / "text", "qwen2")
    save_tiny(tmp_path / "vlm", "qwen2_5_vl")
    plan = plan_diff([tmp_path / "text", tmp_path / "vlm"])
    assert {plan.place(t).part for t in plan.tensors} == {"text"}
    assert {plan.place(t).part for t in plan.problems} == {"vision", "projector"}
    assert not plan_diff([tmp_path / "text", tmp_path / "vlm"], parts=["text"]).problems


def test_selections(triple):
    plan = plan_diff(triple[1], layers="1-2")
    assert {plan.place(t).layer for t in plan.tensors} == {1}
    plan = plan_diff(triple[1], components=["attn"], parts=["vision"])
    assert {(plan.place(t).part, plan.place(t).component) for t in plan.tensors} == {
        ("vision", "attn")
    }
    with pytest.raises(UsageError, match="unknown --parts"):
        plan_diff(triple[1], parts=["txt"])
    with pytest.raises(UsageError, match="nothing can be compared"):
        plan_diff(triple[1], parts=["projector"], components=["embed"])
    with pytest.raises(UsageError, match="1 checkpoints"):
        plan_diff(triple[1][:1])


def frozen(plan, *specs):
    return select(specs, plan.places, option="--expect-frozen")


def test_frozen_layers_are_proven_frozen(triple, tmp_path):
    plan = plan_diff(triple[1])
    rows = load_run(run_diff(plan, out=tmp_path / "runs")).samples
    check_frozen(plan, rows, frozen(plan, "text:0", "text:2", "vision", "embed", "head"))
    with pytest.raises(VerificationError) as caught:
        check_frozen(plan, rows, frozen(plan, "early", "text:1"))
    assert "text.layers.1." in caught.value.why
    with pytest.raises(UsageError, match="past the end"):
        frozen(plan, "text:0-9")


def test_frozen_tensors_are_proven_beside_others_that_cannot_be_compared(tmp_path):
    for name in "ab":
        save_tiny(tmp_path / name, "qwen2")
    rewrite(tmp_path / "b", lambda t: t.update({"model.norm.weight": torch.zeros(7)}))
    plan = plan_diff([tmp_path / "a", tmp_path / "b"])
    rows = load_run(run_diff(plan, out=tmp_path / "runs")).samples
    check_frozen(plan, rows, frozen(plan, "text:0-3"))
    with pytest.raises(VerificationError, match="cannot be compared"):
        check_frozen(plan, rows, frozen(plan, "norm"))


def test_frozen_tensors_with_nan_are_no_proof(tmp_path):
    for name in "ab":
        save_tiny(tmp_path / name, "qwen2")
    rewrite(tmp_path / "b", lambda t: t["model.layers.1.mlp.up_proj.weight"].fill_(float("nan")))
    plan = plan_diff([tmp_path / "a", tmp_path / "b"])
    rows = load_run(run_diff(plan, out=tmp_path / "runs")).samples
    with pytest.raises(VerificationError) as caught:
        check_frozen(plan, rows, frozen(plan, "text:1"))
    assert "NaN or infinite" in caught.value.why


def test_updates_that_float32_cannot_hold_have_no_spectrum(tmp_path):
    for name, value in (("a", -3e38), ("b", 3e38)):
        save_tiny(tmp_path / name, "qwen2")
        rewrite(
            tmp_path / name,
            lambda t, v=value: t["model.layers.1.mlp.up_proj.weight"].view(-1)[:5].fill_(v),
        )
    plan = plan_diff([tmp_path / "a", tmp_path / "b"])
    run = load_run(run_diff(plan, out=tmp_path / "runs", options=DiffOptions(spectra=True)))
    row = run.samples.set_index("tensor").loc["text.layers.1.mlp.up_proj.weight"]
    assert row["energy"] == pytest.approx(6e38 * 5**0.5, rel=1e-6)
    assert row["max_abs"] == pytest.approx(6e38)
    assert row["error"] is None
    assert row["singular_values"] is None


def test_types_of_eight_bits_are_named(tmp_path):
    for name in "ab":
        save_tiny(tmp_path / name, "qwen2")
    rewrite(
        tmp_path / "b",
        lambda t: t.update(
            {"model.norm.weight": torch.ones(32).to(torch.float8_e8m0fnu)},
        ),
    )
    plan = plan_diff([tmp_path / "a", tmp_path / "b"])
    assert plan.problems == {"text.norm.weight": "F8_E8M0 cannot be computed with"}


@pytest.mark.parametrize("change", [0.0, float("nan"), 3e38])
def test_the_command_ends_well_where_nothing_moved_or_nothing_is_finite(tmp_path, capsys, change):
    """With its figures, and with the page of such a run."""
    from franken.cli import run_command

    for name in "ab":
        save_tiny(tmp_path / name, "qwen2_5_vl")
    if change:
        rewrite(tmp_path / "b", lambda t: [v.fill_(change) for v in t.values()])
    a, b, out = str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "runs")
    frozen_too = [] if change else ["--expect-frozen", "vision,text:0-3"]
    code = run_command(["diff", a, b, "--out", out, "--spectra", *frozen_too], debug=True)
    assert code == (3 if change != change else 0)  # 3: tensors could not be compared
    assert ("figures" in capsys.readouterr().out) == (change == change)
    assert run_command(["report", out, "--out", str(tmp_path / "page")], debug=True) == code


def test_one_bit_is_enough(tmp_path):
    for name in "ab":
        save_tiny(tmp_path / name, "qwen2")
    rewrite(
        tmp_path / "b",
        lambda t: (
            t["model.layers.1.mlp.up_proj.weight"].view(torch.int32).view(-1)[5:6].bitwise_xor_(1)
        ),
    )
    plan = plan_diff([tmp_path / "a", tmp_path / "b"])
    rows = load_run(run_diff(plan, out=tmp_path / "runs")).samples
    check_frozen(plan, rows, frozen(plan, "text:0", "text:2", "embed"))
    with pytest.raises(VerificationError) as caught:
        check_frozen(plan, rows, frozen(plan, "text"))
    assert "1 of 1,536 elements" in caught.value.why


def test_frozen_tensors_that_are_missing_are_no_proof(tmp_path):
    save_tiny(tmp_path / "a", "qwen2", layers=3)
    save_tiny(tmp_path / "b", "qwen2", layers=2)
    plan = plan_diff([tmp_path / "a", tmp_path / "b"])
    rows = load_run(run_diff(plan, out=tmp_path / "runs")).samples
    with pytest.raises(VerificationError, match="cannot be compared"):
        check_frozen(plan, rows, frozen(plan, "text:2"))


def test_an_interrupted_run_has_no_manifest(triple, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_diff(
            plan_diff(triple[1]),
            out=tmp_path,
            progress=lambda n: (_ for _ in ()).throw(KeyboardInterrupt),
        )
    assert not list(tmp_path.rglob("run.json"))
    folder = run_diff(plan_diff(triple[1]), out=tmp_path)
    assert json.loads((folder / "run.json").read_text())["n_failed"] == 0
