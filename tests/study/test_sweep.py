"""A merge sweep: which layer sets are tried, that each checkpoint is read once, and gains that must
come out as they do.
"""

import itertools
import json
import threading
from pathlib import Path

import pandas as pd
import pytest

from franken.errors import UsageError
from franken.models import creature
from franken.report.figures.sweep import draw_sweep
from franken.runs import load_run
from franken.study.gains import control_band
from franken.study.sweep import plan_sweep, random_sets, run_sweep, verdict, windows

OPTIONS = {
    "tasks": ["recognise"],
    "samples": 3,
    "n": 2,
    "k": (1,),
    "max_new_tokens": 6,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> list[str]:
    root = tmp_path_factory.mktemp("creatures")
    for seed, name in enumerate(("one", "two")):
        creature.save(creature.build_model(seed), root / name)
    return [str(root / name) for name in ("one", "two")]


def test_windows_slide_and_reach_the_last_layer():
    assert windows(5, 2, 1) == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert windows(6, 2, 2) == [(0, 1), (2, 3), (4, 5)]
    assert windows(6, 3, 2) == [(0, 1, 2), (2, 3, 4), (3, 4, 5)]
    assert windows(28, 4, 1)[-1] == (24, 25, 26, 27)


def test_random_sets_are_no_windows_and_as_many_as_there_are():
    swept = windows(6, 2, 1)
    sets = random_sets(6, 2, 100, seed=0, without=swept)
    assert sorted(sets) == sorted(set(itertools.combinations(range(6), 2)) - set(swept))
    assert (
        random_sets(28, 4, 5, seed=1)
        == random_sets(28, 4, 5, seed=1)
        != random_sets(28, 4, 5, seed=2)
    )


def test_a_sweep_loads_each_checkpoint_once_and_its_gains_are_paired(models, tmp_path, monkeypatch):
    from franken.merge import graft as merge_graft
    from franken.models import loading

    reads, loads = [], []
    read, load = merge_graft.read_tensor, loading.load
    monkeypatch.setattr(
        merge_graft, "read_tensor", lambda entry: reads.append(str(entry)) or read(entry)
    )
    monkeypatch.setattr(loading, "load", lambda *a, **k: loads.append(a) or load(*a, **k))
    sweep = plan_sweep(*models, window=3, stride=2, controls=2)
    assert [h.label for h in sweep.hybrids] == [
        "window-0-3",
        "window-2-5",
        "window-4-7",
        "window-5-8",
        "random-3-1",
        "random-3-2",
    ]
    heard = []
    folder = run_sweep(sweep, out=tmp_path, progress=lambda *a: heard.append(a), **OPTIONS)
    assert len(loads) == 1
    assert len(reads) == len(set(reads))
    run = load_run(folder)
    assert run.manifest.n_requested == len(run.samples) == sweep.evaluations == 8
    assert heard[-1][0] == heard[-1][1] == 8 * 3 * 3
    gains = run.layers[(run.layers["metric"] == "gain acc@1") & (run.layers["task"] == "all")]
    assert gains["method"].tolist() == ["donor"] + ["window"] * 4 + ["random"] * 2
    assert gains["layer"].tolist()[1:5] == [0, 2, 4, 5]
    accuracy = {p.name.rsplit("-", 1)[0]: load_run(p).layers for p in (tmp_path / "eval").iterdir()}

    def acc(label):
        rows = accuracy[label]
        return float(rows[(rows["metric"] == "acc@1") & (rows["task"] == "all")]["value"].iloc[0])

    for row in gains.to_dict("records"):
        assert row["value"] == pytest.approx(acc(row["model"]) - acc("base"))
    lags = run.layers[(run.layers["metric"] == "lag acc@1") & (run.layers["task"] == "all")]
    assert lags["method"].tolist() == ["window"] * 4 + ["random"] * 2
    for row in lags.to_dict("records"):
        assert row["value"] == pytest.approx(acc(row["model"]) - acc("donor"))
    loads.clear()
    assert run_sweep(sweep, out=tmp_path, **OPTIONS) == folder
    assert not loads
    assert draw_sweep(folder).stat().st_size > 10_000
    best = max(v for v, m in zip(gains["value"], gains["method"], strict=True) if m == "random")
    above = sum(
        v > best for v, m in zip(gains["value"], gains["method"], strict=True) if m == "window"
    )
    assert verdict(folder).startswith(
        f"{above} of 4 windows gain more than each of 2 random sets of 3 layers"
    )


def test_the_donor_of_a_sweep_is_the_donor(models, tmp_path):
    """The base with everything of the donor put in answers as the donor does."""
    from franken.evaluate.run import run_eval

    folder = run_sweep(plan_sweep(*models, window=7, controls=0), out=tmp_path, **OPTIONS)
    (alone,) = run_eval([models[1]], out=tmp_path / "alone", **OPTIONS)
    grafted = load_run(folder).samples.set_index("model")["eval"]["donor"]
    keys = ["method", "task", "sample", "draw"]
    one, two = (
        load_run(f).samples.sort_values(keys)["output"].tolist()
        for f in (alone, tmp_path / "eval" / str(grafted))
    )
    assert one == two
    assert load_run(folder).manifest.band == {}


def test_the_band_spans_the_random_sets():
    rows = [
        {"method": method, "metric": "gain acc@1", "task": "all", "value": value}
        for method, value in (("random", 0.1), ("random", -0.2), ("window", 0.9), ("random", 0.4))
    ]
    band = control_band(rows)["gain acc@1"]["all"]
    assert band == {"low": -0.2, "mean": pytest.approx(0.1), "high": 0.4, "n": 3}


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"window": 8}, "too wide"),
        ({"window": 0}, "not positive"),
        ({"stride": 0}, "not positive"),
        ({"controls": -1}, "negative"),
    ],
)
def test_sweeps_that_cannot_be_are_refused(models, numbers, words):
    with pytest.raises(UsageError, match=words):
        plan_sweep(*models, **numbers)


def test_a_figure_shows_what_the_rows_say(tmp_path):
    """Drawn by hand from rows: one panel a task, a bar a window, the band where the manifest has
    it.
    """
    from matplotlib.figure import Figure

    from franken.report.figures.sweep import plot_gain
    from franken.runs.manifest import Band, Config, Manifest

    rows = pd.DataFrame(
        [
            {
                "method": "window",
                "layer": i,
                "value": i / 10,
                "ci_low": i / 10 - 0.1,
                "ci_high": i / 10 + 0.1,
            }
            for i in range(5)
        ]
        + [{"method": "donor", "layer": None, "value": 0.5, "ci_low": 0.4, "ci_high": 0.6}]
    )
    manifest = Manifest(
        verb="merge-sweep",
        label="m",
        n_requested=6,
        n_ok=6,
        n_failed=0,
        config=Config(window=4, depth=8),
        band={"gain acc@1": {"all": Band(low=0.0, mean=0.1, high=0.2, n=3)}},
    )
    ax = plot_gain(rows, manifest, "gain acc@1", "all", ax=Figure().add_subplot())
    (points,) = [line for line in ax.lines if line.get_marker() == "o"]
    assert points.get_xdata().tolist() == [1.5, 2.5, 3.5, 4.5, 5.5]
    assert points.get_ydata().tolist() == pytest.approx([0, 10, 20, 30, 40])
    labels = ax.get_legend_handles_labels()[1]
    assert labels == ["3 random sets of 4 layers", "the donor", "window of 4 layers"]


def test_m_scores_and_splices_of_several_donors(models, tmp_path):
    """A splice that takes the base's own layers changes nothing; one of two donors is both of
    them.
    """
    from franken.evaluate.graft import parse_graft
    from franken.report.figures.sweep import draw_scores

    base, donor = models
    splices = [parse_graft(f"own={base}:0-3"), parse_graft(f"both={donor}:0-2+{base}:4-6")]
    assert splices[1].parts == ((donor, "text:0-2"), (base, "text:4-6"))
    sweep = plan_sweep(base, donor, window=7, controls=0, splices=splices, scores="m")
    folder = run_sweep(sweep, out=tmp_path, **OPTIONS)
    run = load_run(folder)
    gains = run.layers[run.layers["task"] == "all"].set_index(["model", "metric"])
    for name in ("M_vis", "M_v2r", "M_rea"):
        assert gains.loc[("own", f"gain {name}"), "value"] == 0
        assert ("both", f"gain {name}") in gains.index
    assert set(gains.loc["own", "method"]) == {"splice"}
    assert (
        run.samples.set_index("model").loc["both", "layers"] == f"{donor}:text:0-2+{base}:text:4-6"
    )
    assert draw_scores(folder).stat().st_size > 10_000


@pytest.mark.parametrize("text", ["nothing", "=a:1-2", "mine=1-2", "mine=a:1-2+3-4"])
def test_splices_that_cannot_be_read(text):
    from franken.evaluate.graft import parse_graft

    with pytest.raises(UsageError, match="cannot read the hybrid"):
        parse_graft(text)


def test_a_splice_of_one_donor_equals_the_same_window(models, tmp_path):
    from franken.evaluate.graft import parse_graft

    splice = parse_graft(f"same={models[1]}:0-7")
    sweep = plan_sweep(*models, window=7, controls=0, splices=[splice])
    rows = load_run(run_sweep(sweep, out=tmp_path, **OPTIONS))
    folders = rows.samples.set_index("model")["eval"]
    answers = [
        load_run(tmp_path / "eval" / folders[name]).samples["output"].tolist()
        for name in ("same", "window-0-7")
    ]
    assert answers[0] == answers[1]
    with pytest.raises(UsageError, match="one name"):
        plan_sweep(*models, window=7, splices=[splice, splice])


def test_lanes_side_by_side_answer_as_one(models, tmp_path, capsys, monkeypatch):
    """Two lanes on the CPU give the runs of one; each loads the base once, and after them nothing
    is loaded.
    """
    from franken.cli import run_command, worker
    from franken.models import loading
    from franken.study import lanes

    turn, loads, load = threading.Lock(), [], loading.load
    monkeypatch.setattr(loading, "load", lambda *a, **k: loads.append(a) or load(*a, **k))

    class Worker:
        """A worker without a process of its own."""

        def __init__(self, board, number):
            pass

        def alive(self):
            return True

        def do(self, argv):
            with turn:
                return lanes.Done(tuple(worker.do(argv)))

        def close(self):
            pass

    monkeypatch.setattr(lanes, "_Worker", Worker)
    command = ["merge-sweep", *models, "--window", "4", "--stride", "4", "--controls", "1"]
    command += ["--tasks", "recognise", "--samples", "2", "--n", "2", "--max-new-tokens", "4"]
    command += ["--hybrid", f"splice={models[1]}:0-2+{models[1]}:6-8", "--json"]

    def asked(*more):
        assert run_command([*command, *more], debug=True) == 0
        return json.loads(capsys.readouterr().out)

    assert asked("--devices", "cpu,cpu", "--dry-run")["lanes"] == ["cpu", "cpu"]
    both = asked("--devices", "cpu,cpu", "--out", str(tmp_path / "lanes"))
    assert len(loads) == 4
    alone = asked("--device", "cpu", "--out", str(tmp_path / "alone"))
    assert both["layers"] == alone["layers"]
    one, two = (
        {
            p.name: load_run(p).samples["output"].tolist()
            for p in (tmp_path / out / "eval").iterdir()
        }
        for out in ("lanes", "alone")
    )
    assert one == two
    assert len(one) == len(set(map(str, one.values()))) == 6
    steps = sorted(p.stem for p in (Path(both["folder"]) / "steps").glob("*.json"))
    assert steps == ["base", "donor", "part-1", "part-2"]


@pytest.mark.parametrize(
    "asked",
    [
        ["--devices", "cpu,tpu"],
        ["--devices", "cpu,"],
        ["--devices", "cpu,cuda:0"],
        ["--devices", "cpu", "--device", "cpu"],
        ["--devices", "cpu,cpu", "--jobs", "3"],
    ],
)
@pytest.mark.parametrize("verb", ["merge-sweep", "autopsy"])
def test_devices_that_cannot_be_are_refused(verb, asked, tmp_path):
    from franken.cli import run_command

    if verb == "merge-sweep" and "--jobs" in asked:
        return
    command = [verb, "creature:base", "creature:sft", "--out", str(tmp_path / "x"), "--dry-run"]
    with pytest.raises(UsageError):
        run_command([*command, *asked], debug=True)
