"""What a study will take: counted against the engine itself, timed from records, done steps for
nothing.
"""

import dataclasses
import json
from pathlib import Path

import pytest

from franken.models import creature
from franken.study import cost as module
from franken.study.agenda import Settings
from franken.study.autopsy import plan_autopsy
from franken.study.cost import (
    lines,
    recorder,
    size,
    span,
    step_seconds,
    study_costs,
    totals,
)
from franken.study.lanes import run_steps
from franken.study.rates import Rates, machine, measured_rates, product_rate
from franken.study.steps import stored_steps

TINY = Settings(
    tasks=("recognise",),
    samples=5,
    n=2,
    k=(1, 2),
    probe_samples=3,
    controls=0,
    device="cpu",
    max_new_tokens=3,
    batch_size=4,
)


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    root = tmp_path_factory.mktemp("cost")
    for seed, name in enumerate(("base", "rl")):
        creature.save(creature.build_model(seed), root / name)
    _, steps = plan_autopsy(
        str(root / "base"), None, str(root / "rl"), out=root / "study", settings=TINY
    )
    return root / "study", {s.id: s for s in steps}


def test_calls_and_answers_of_an_evaluation_are_those_of_the_engine(planned, monkeypatch):
    from franken.cli import worker
    from franken.generate import native

    _, steps = planned
    made = study_costs(list(steps.values()))["eval-base"]
    batches = []
    sample = native.sample
    monkeypatch.setattr(native, "sample", lambda *a, **k: batches.append(1) or sample(*a, **k))
    (folder,) = worker.do(steps["eval-base"].does.argv)
    assert made.calls == len(batches) * TINY.max_new_tokens
    manifest = json.loads((Path(folder) / "run.json").read_text())
    assert (made.prompts, made.answers) == (5, manifest["n_requested"])


def test_a_hybrid_reads_its_donor_too_and_a_diff_reads_both(planned):
    _, steps = planned
    found = study_costs(list(steps.values()))
    assert found["hybrid-0"].read == 2 * found["eval-base"].read
    assert found["diff"].read == 2 * found["eval-base"].read
    assert found["diversity"].work == 2 * found["eval-base"].answers


def test_probes_are_counted_by_their_own_plan(planned):
    from franken.probe.cost import cost
    from franken.probe.plan import plan_probe

    _, steps = planned
    found = study_costs([steps["probe-rl"], steps["attention-rl"]])
    for name, made in found.items():
        does = steps[name].does
        plan = plan_probe(
            does.model,
            methods=does.methods,
            task_names=["recognise"],
            samples=3,
            max_new_tokens=3,
        )
        assert made.calls == cost(plan)["forwards"]


def test_a_smaller_probe_costs_what_its_own_plan_says(planned):
    _, steps = planned
    small = {
        n: dataclasses.replace(steps[n], does=dataclasses.replace(steps[n].does, samples=2))
        for n in ("probe-rl", "attention-rl")
    }
    memory = module.Memory()
    study_costs(list(steps.values()), memory)
    assert study_costs(list(small.values()), memory) == study_costs(list(small.values()))


def test_measured_seconds_are_proportional_to_work(planned, tmp_path):
    _, steps = planned
    step = steps["eval-base"]
    more = dataclasses.replace(step, does=dataclasses.replace(step.does, samples=50))
    few, many = (study_costs([s])["eval-base"] for s in (step, more))
    (tmp_path / "steps").mkdir()
    done = {"seconds": 3.0, "cost": {"machine": machine(), "group": "eval", "work": few.work}}
    elsewhere = {
        "seconds": 999.0,
        "cost": {"machine": "another", "group": "eval", "work": few.work},
    }
    for name, content in (("a", done), ("b", elsewhere), ("c", {"seconds": 1.0})):
        record = {"key": "", "folders": [], **content}
        (tmp_path / "steps" / f"{name}.json").write_text(json.dumps(record))
    rates = Rates(measured_rates(tmp_path))
    assert step_seconds(more, many, rates) == (pytest.approx(30.0), "measured")
    assert step_seconds(steps["probe-rl"], few, rates) == (None, "unknown")


def test_more_lanes_take_less_time_but_not_less_than_the_longest_step():
    assert module.total_seconds([4.0, 2.0], 1) == 6.0
    assert module.total_seconds([4.0, 2.0], 2) == 4.0
    assert module.total_seconds([4.0, None], 2) is None
    assert module.total_seconds([], 2) == 0.0


def test_a_step_that_ran_leaves_its_cost_and_is_found_done(planned, monkeypatch, tmp_path):
    from franken.study import lanes

    class Worker:
        def __init__(self, *_): ...

        def alive(self):
            return True

        def do(self, argv):
            folder = tmp_path / "run"
            folder.mkdir(exist_ok=True)
            if not (folder / "run.json").exists():
                (folder / "run.json").write_text("{}")
            return lanes.Done((str(folder),))

        def close(self): ...

    monkeypatch.setattr(lanes, "_Worker", Worker)
    _, steps = planned
    step = steps["eval-rl"]
    assert stored_steps([step], tmp_path) == {}
    run_steps([step], folder=tmp_path, jobs=1, cost_of=recorder([step]))
    record = tmp_path / "steps" / "eval-rl.json"
    assert json.loads(record.read_text())["cost"]["work"] == study_costs([step])["eval-rl"].work
    assert list(stored_steps([step], tmp_path)) == ["eval-rl"]
    (line,) = lines([step], {"eval-rl"}, Rates())
    assert (line.seconds, line.how, totals([line], 1).calls) == (0.0, "done", 0)
    record.unlink()  # the run is there, so doing it again takes no time: no measurement
    run_steps([step], folder=tmp_path, jobs=1, cost_of=recorder([step]))
    assert "cost" not in json.loads(record.read_text())


def test_operations_are_two_a_weight_and_token(planned):
    """The decoder's weights are counted in memory; its embedding is its head as well."""
    _, steps = planned
    does = steps["eval-base"].does
    model = creature.build_model(0)
    weights = sum(p.numel() for p in model.get_decoder().parameters())
    made = study_costs([steps["eval-base"]])["eval-base"]
    assert made.work == 2 * weights * made.tokens
    assert made.tokens == 2 * made.prompts * _prompt(does) + made.answers * does.max_new_tokens


def _prompt(does) -> int:
    return module._prompt_tokens(does, module.Memory())


def test_a_prompt_is_as_long_as_its_letters_and_its_image(planned):
    from franken.tasks.sources import load_tasks

    does = planned[1]["eval-base"].does
    (item,) = load_tasks(["recognise"], 1, 0, None)
    assert item.image is not None
    pixels = item.image.width * item.image.height
    assert _prompt(does) == round(pixels / 784 + len(item.question) / 3)


def test_seconds_are_computed_from_the_product_the_passes_and_the_disk(planned):
    """By the constants that the docstring promises: 60 % of a product's rate, 0.2 ms a layer and
    pass, 1 GB a second; 2 ms an answer compared, a tenth of that where it is only scored.
    """
    _, steps = planned
    costs = study_costs(list(steps.values()))
    rates = Rates(flops=1e9)
    made = costs["eval-base"]
    expected = made.work / 0.6e9 + made.calls * 8 * 0.2e-3 + made.read / 1e9
    assert step_seconds(steps["eval-base"], made, rates) == (pytest.approx(expected), "computed")
    assert step_seconds(steps["diversity"], costs["diversity"], rates)[0] == pytest.approx(
        2e-3 * costs["diversity"].work
    )
    assert step_seconds(steps["scores"], costs["scores"], rates)[0] == pytest.approx(
        0.2e-3 * costs["scores"].work
    )
    assert step_seconds(steps["probe-rl"], costs["probe-rl"], Rates()) == (None, "unknown")


def test_the_disk_is_that_of_rows_and_of_the_page(planned):
    _, steps = planned
    costs = study_costs(list(steps.values()))
    assert costs["eval-base"].written == 40 * costs["eval-base"].answers
    assert costs["probe-rl"].written == 20 * costs["probe-rl"].answers
    table = lines(list(steps.values()), steps.keys(), Rates())
    assert totals(table, 1).written == 4 << 20


def test_a_matrix_product_is_timed():
    assert 1e7 < product_rate("cpu", 1) < 1e15


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "unknown"), (3.2, "3 s"), (600.0, "10 min"), (9000.0, "2.5 h")]
)
def test_times_are_said_as_people_say_them(seconds, text):
    assert span(seconds) == text


def test_sizes_are_said_as_people_say_them():
    assert [size(x) for x in (0, 999, 15_200_000_000)] == ["0", "999 B", "15.2 GB"]


def test_a_comparison_token_by_token_costs_what_its_own_plan_says(planned):
    from franken.forks.plan import cost as cost_of_forks
    from franken.forks.plan import plan_forks

    _, steps = planned
    does = steps["forks"].does
    plan = plan_forks(
        does.model,
        does.other,
        tasks=does.tasks,
        samples=does.samples,
        draws=does.draws,
        max_new_tokens=does.max_new_tokens,
    )
    made, own = study_costs(list(steps.values()))["forks"], cost_of_forks(plan, does.batch_size)
    assert (made.answers, made.prompts) == (own["replies"], own["prompts"])
    assert made.calls == own["forwards"]
