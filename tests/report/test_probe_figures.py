"""Figures of a probe: what the titles claim, by hand; what is drawn, against the rows."""

import numpy as np
import pandas as pd
import pytest

from franken.layers import name_layers
from franken.probe.findings import peak
from franken.probe.methods import get as method
from franken.report import theme
from franken.report.figures import probe
from franken.report.figures.probe import draw_comparison, draw_probe
from franken.runs import LAYER_COLUMNS, layer_row, open_run

DEPTH = 6


def rows(method, metric, values, *, task="read", component="all", half=0.05, p=None, n=12):
    return [
        layer_row(
            model="m",
            method=method,
            part="text",
            task=task,
            component=component,
            layer=i,
            metric=metric,
            value=v,
            ci_low=v - half,
            ci_high=v + half,
            n=n,
            p_adjusted=p[i] if p else None,
        )
        for i, v in enumerate(values)
    ]


def finished(tmp_path, summary, verb="probe", label="m"):
    run = open_run(verb, label, {"of": len(summary)}, tmp_path, config={}, models={"model": "m"})
    run.append([{"sample": "a", "error": None}])
    return run.finish(summary, n_requested=1)


def everything():
    found = [
        layer_row(
            model="m",
            method="swap-suffix",
            part="text",
            task="read",
            metric="fall_layer",
            value=3.5,
            ci_low=3.0,
            ci_high=4.0,
            n=12,
        )
    ]
    for task in ("read", "sum"):
        for metric in ("change_rate", "flip_to_source_rate"):
            found += rows("swap-suffix", metric, [1, 1, 1, 0.5, 0, 0], task=task)
        found += rows("zero", "accuracy_drop", [1, 0, 0, 0, 0.5, 0.98], task=task)
        found += rows("attention", "attention_mass", [0, 0.1, 0.3, 0.28, 0.1, 0], task=task)
        for head in range(3):
            found += rows(
                "attention",
                "attention_mass",
                [0, 0.1, 0.3, 0.28, 0.1, 0],
                task=task,
                component=f"head {head}",
            )
            found += rows(
                "patch-heads-noising",
                "lost",
                [0, 0, head, 0, 0, 0],
                task=task,
                component=f"last, head {head}",
            )
        for component, values in (
            ("image", [1, 1, 0.6, 0.2, 0, 0]),
            ("last", [0, 0, 0.4, 0.8, 1, 1]),
            ("all", [1] * 6),
        ):
            found += rows(
                "patch-residual", "restored", values, task=task, component=component, p=[0.01] * 6
            )
        for component in ("all", "image"):
            found += rows(
                "lens", "answer_probability", [0, 0, 0, 0.2, 0.6, 1], task=task, component=component
            )
            found += rows(
                "lens", "answer_rank", [40, 20, 9, 4, 1.2, 1], task=task, component=component
            )
            found += rows("lens", "entropy", [3, 3, 2, 2, 1, 0], task=task, component=component)
        found += rows("lens", "answer_is_first", [0, 0.6, 0.2, 0.4, 0.7, 1], task=task)
    return found


def test_every_method_gets_its_picture(tmp_path):
    drawn = draw_probe(finished(tmp_path, everything()))
    assert [path.stem for path in drawn] == [
        "change-rate",
        "ablation",
        "attention",
        "patch-heads-noising",
        "patch-residual",
        "lens",
    ]
    for path in drawn:
        assert path.stat().st_size > 10_000


def test_a_comparison_gets_a_picture_a_method(tmp_path):
    shift = rows(
        "attention",
        "attention_mass_difference",
        [0, 0.1, -0.2, 0, 0, 0],
        p=[1, 0.01, 0.02, 1, 1, 1],
    )
    shift += rows("attention", "attention_mass_difference", [0] * 6, component="head 0", p=[1] * 6)
    shift += rows("patch-mlp", "restored_difference", [0.1] * 6, component="image", p=[1] * 6)
    drawn = draw_comparison(finished(tmp_path, shift, "probe-compare", "sft→rl"))
    assert [path.stem for path in drawn] == ["attention-shift", "patch-mlp-shift"]


def test_lines_and_cells_are_the_rows(tmp_path, monkeypatch):
    kept = {}

    def keep(_, figures):
        with theme.theme():
            kept.update({figure.name: probe.draw(figure, "m", DEPTH) for figure in figures})

    monkeypatch.setattr(probe, "_save", keep)
    draw_probe(finished(tmp_path, everything()))
    line = kept["ablation"].axes[0].lines[0]
    assert line.get_ydata() == pytest.approx([100, 0, 0, 0, 50, 98])
    cells = kept["patch-residual"].axes[0].collections[0].get_array()
    assert np.array(cells).reshape(3, DEPTH)[1].tolist() == [0, 0, 0.4, 0.8, 1, 1]
    texts = [t.get_text() for t in kept["patch-residual"].axes[0].texts]
    assert "0.60" in texts
    assert "0.00" not in texts
    heads = kept["patch-heads-noising"].axes[0].collections[0].get_array()
    assert np.array(heads).reshape(3, DEPTH)[:, 2].tolist() == [0, 1, 2]
    for figure in kept.values():
        assert any("m, n = 12" in text.get_text() for text in figure.texts)
        assert figure.get_suptitle().strip()


def frame(found):
    return pd.DataFrame(found, columns=list(LAYER_COLUMNS))


def test_titles_say_what_the_rows_say():
    table = frame(everything())

    def of(method):
        return table[table["method"] == method]

    assert method("swap-suffix").title(of("swap-suffix")).endswith("read 3.5")
    assert method("zero").title(of("zero")).startswith("Layers 0, 5 cost most: 100 points")
    assert "layers 2..3: 30 %" in method("attention").title(of("attention"))
    patched, heads = "patch-residual", "patch-heads-noising"
    assert "left the image for the last token by layer 3" in method(patched).title(of(patched))
    assert "layer 2, head 2, last tokens, 2.00" in method(heads).title(of(heads))
    assert method("lens").title(of("lens")).endswith("read 4, sum 4")


def shift(table):
    return method("attention").comparison(frame(table), "sft", "rl").title


def test_a_shift_is_named_only_where_it_is_sure():
    metric = "attention_mass_difference"
    table = rows("attention", metric, [0.5, 0.1, -0.2, 0.3, 0, 0], p=[0.5, 0.01, 0.02, 0.04, 1, 1])
    assert shift(table).endswith("more in layers 1, 3, less in layer 2")
    table += rows("attention", metric, [0, -0.1, 0, 0, 0, 0], task="sum", p=[1, 0.01, 1, 1, 1, 1])
    assert shift(table).endswith(
        "more in layer 3, less in layer 2, more or less, by task, in layer 1"
    )
    nothing = rows("attention", metric, [0.5] * 6, p=[0.5] * 6)
    assert shift(nothing).endswith("no layer differs")


def test_a_peak_is_every_layer_that_cannot_be_told_from_the_best():
    table = frame(rows("zero", "accuracy_drop", [0.5, 0.9, 0.85, 0.5, 0.8, 0.79], half=0.05))
    assert peak(table) == [1, 2, 4]
    assert peak(table[:0]) == []
    assert name_layers([0, 1, 2, 4, 6, 7]) == "layers 0..2, 4, 6..7"
