"""The page: whole, self-contained, inert, and honest about what is missing."""

import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from franken.report.page import build as figures
from franken.report.page.build import build_page, render
from franken.report.page.panels import Section, save_figures
from franken.report.page.tables import accounting, reasons
from franken.runs import LoadedRun, RunSet, open_study, read_study


class Document(HTMLParser):
    """Tags with their attributes, ids, and the visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {k: v or "" for k, v in attrs}))

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [a for t, a in self.tags if t == tag]


@pytest.fixture(scope="module")
def folder(built) -> Path:
    return built


@pytest.fixture(scope="module")
def page(folder) -> Document:
    return Document((folder / "index.html").read_text())


@pytest.fixture(scope="module")
def found(folder) -> RunSet:
    return open_study(folder)


@pytest.fixture(scope="module")
def sections(found) -> list[Section]:
    return figures.sections(found)


def test_every_figure_is_on_the_page_in_both_modes(found, sections, page):
    panels = [p for s in sections for g in s.groups for p in g.panels]
    assert len({panel.key for panel in panels}) == len(panels)
    spine = figures.spine(found)
    assert spine is not None
    shown = {a["alt"]: a["src"] for a in page.all("img") if a.get("alt")}
    for panel in (*panels, spine):
        assert shown[panel.alt].startswith("data:image/png;base64,")
    assert len(page.all("source")) == len(panels) + 1
    keys = {p.key for p in panels}
    assert {
        "swap-suffix-rl",
        "swap-single-rl",
        "flip-to-source-rl",
        "zero",
        "diff-relative_energy",
    } <= keys
    assert {
        "diff-unchanged_fraction",
        "diff-effective_rank",
        "hybrids-acc@1",
        "freeze-acc@1",
    } <= keys
    assert {
        "acck-all",
        "arms-all",
        "acck-count",
        "arms-count",
        "hybrids-layers",
        "same-graft",
        "same-loss",
    } <= keys
    assert {
        "attention",
        "attention-shift",
        "stitch-below-restored",
        "stitch-above-gain",
        "spectra-sft→rl",
        "spectra-surface-sft→rl",
        "mscores-gain",
    } <= keys
    assert {"forks-curve", "forks-tenths", "forks-kinds", "forks-recovered"} <= keys
    assert {
        "mscores-lag",
        "plane-model",
        "diversity-success",
        "what-it-takes",
        "errors",
        "strategies",
    } <= keys


def test_nothing_is_fetched_and_no_script_runs(page):
    assert not page.all("script")
    assert not page.all("link")
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
    urls = [a[k] for _, a in page.tags for k in ("src", "srcset", "href") if k in a]
    assert urls
    assert not [u[:60] for u in urls if re.match(r"(https?:|//|javascript:)", u)]


def test_an_injected_script_is_text(folder, page):
    raw = (folder / "index.html").read_text()
    assert "<script>" not in raw
    assert 'onerror="' not in raw
    assert "&lt;script&gt;document.title" in raw
    assert (
        "<script>document.title = window.owned = 'owned'</script><img src=x onerror=" in page.text
    )


def test_names_of_others_are_text_too(make_study, tmp_path):
    """A task's name, a step's error, a reason and a checkpoint's path that are HTML, or break
    matplotlib's formulas.
    """
    evil = "<img src=x onerror='window.owned=1'>$\\frac{$</style>"
    found = open_study(make_study(tmp_path, failed=True, samples=2))
    runs = []
    for run in found.runs:
        names = {"read": evil, "the image cannot be read": evil}
        columns = [c for c in ("task", "error") if c in run.samples]
        samples = run.samples.assign(**{c: run.samples[c].replace(names) for c in columns})
        layers = run.layers.assign(task=run.layers["task"].replace(names))
        runs.append(
            LoadedRun(
                run.folder, run.manifest.model_copy(update={"warnings": [evil]}), samples, layers
            )
        )
    study = found.study.model_copy(
        update={
            "title": evil,
            "tasks": [evil if t == "read" else t for t in found.study.tasks],
            "notes": [evil],
            "models": found.study.models | {"rl": f"models/{evil}"},
            "steps": [
                step.model_copy(update={"error": evil, "command": evil})
                for step in found.study.steps
            ],
        }
    )
    wild = RunSet(found.folder, runs, record=study, missing=[evil])
    section = figures.where(wild)
    few = replace(section, groups=[replace(g, panels=g.panels[-1:]) for g in section.groups[:1]])
    made = save_figures([few], tmp_path / "figures")
    html = render(wild, [few], made)
    assert evil not in html
    assert "<img src=x" not in html
    assert html.count("</style>") == 1
    assert "&lt;img src=x onerror=" in html
    assert not [
        a for _, attributes in Document(html).tags for a in attributes if a.startswith("on")
    ]


def test_links_lead_to_run_folders_and_sections(folder, page):
    links = [a["href"] for a in page.all("a")]
    ids = {a["id"] for _, a in page.tags if "id" in a}
    assert len(links) > 15
    for link in links:
        assert link[1:] in ids if link.startswith("#") else (folder / unquote(link)).is_file(), link


def test_failed_and_ineligible_samples_are_counted_with_their_reasons(page):
    assert "image file is truncated" in page.text
    assert "the image cannot be read" in page.text
    assert "models/lost is not a checkpoint" in page.text
    counts = re.search(
        r"Rows: (\d+) asked for, (\d+) usable, (\d+) failed, (\d+) ineligible", page.text
    )
    assert counts
    asked, usable, failed, ineligible = map(int, counts.groups())
    assert failed == 10 + 24
    assert ineligible == 3 * 24
    assert asked == usable + failed + ineligible


def test_every_run_says_what_failed_in_it(folder, page):
    found = open_study(folder)
    rows = {row.folder: row for row in accounting(found)}
    for run in found.runs:
        samples, row = run.samples, rows[run.folder.relative_to(folder).as_posix()]
        assert row.failed == samples["error"].notna().sum()
        assert row.ineligible == (
            samples["ineligible"].notna().sum() if "ineligible" in samples else 0
        )
        assert row.ok + row.failed + row.ineligible == row.requested == len(samples)
    assert "failed: the image cannot be read (24)" in page.text
    assert "ineligible: both answers agree (24)" in page.text
    assert "they are in no number above" in page.text


def test_many_reasons_are_counted_not_listed():
    import pandas as pd

    table = pd.DataFrame({"error": [f"reason {i}" for i in range(9)] + ["reason 0", None]})
    listed = reasons(table, "error")
    assert listed[0] == "reason 0 (2)"
    assert len(listed) == 4
    assert listed[-1] == "and 6 other reasons, see samples.parquet"
    assert reasons(table, "ineligible") == []


def test_numbers_lead_to_files_and_commands(folder, page):
    """Every number's link ends at a row with the run's files and its command, straight or over a
    list of several runs.
    """
    html = (folder / "index.html").read_text()
    numbers = [a["href"][1:] for a in page.all("a") if a.get("class") == "n"]
    assert len(numbers) > 150
    rows = dict(re.findall(r'<tr id="([^"]+)">(.*?)</tr>', html, re.DOTALL))
    lists = dict(re.findall(r'<li id="([^"]+)">(.*?)</li>', html, re.DOTALL))
    for target in set(numbers):
        ends = re.findall(r'href="#([^"]+)"', lists[target]) if target in lists else [target]
        assert ends
        for end in ends:
            assert "samples.parquet" in rows[end]
            assert re.search(r'<code class="command">franken [^<]+</code>', rows[end])


def test_figures_are_saved_for_a_paper(folder, sections, tmp_path):
    keys = [g.key for s in sections for g in s.groups]
    assert len(set(keys)) == len(keys) > 12
    for key in keys:
        png = folder / "figures" / f"{key}.png"
        assert png.read_bytes().startswith(b"\x89PNG")
        assert png.stat().st_size < 900_000
    few = [
        replace(s, groups=[g for g in s.groups if g.key in ("spectra", "hybrids", "swap-single")])
        for s in sections
    ]
    made = save_figures(few, tmp_path)  # a surface, bars and curves
    assert {file.name for file in tmp_path.iterdir()} == {
        name for names in made.values() for name in names
    }
    assert sorted(made) == ["hybrids", "spectra", "swap-single"]
    for key, names in made.items():
        assert names == [f"{key}.png", f"{key}.pdf"]
        pdf = (tmp_path / f"{key}.pdf").read_bytes()
        assert pdf.startswith(b"%PDF")
        assert b"CreationDate" not in pdf


def test_the_four_questions_have_a_verdict_a_number_and_a_test(page):
    for question in (
        "Where does it see",
        "What did training change?",
        "Does the change transfer?",
        "Was it necessary?",
    ):
        assert question in page.text
    verdicts = [a["class"] for a in page.all("span") if a.get("class", "").startswith("chip ")]
    assert len(verdicts) == 5
    assert not [v for v in verdicts if v == "chip not-measured"]


def test_a_study_without_sft_or_freeze_arms_still_makes_a_page(make_study, tmp_path, unrasterised):
    folder = make_study(tmp_path, sft=False, extras=False, samples=4)
    page = Document(build_page(folder, files=False).read_text())
    assert "Base with RL's layers 2..7 scores" in page.text
    assert "No freeze run was given" in page.text


def test_a_study_without_any_finished_run_says_so(make_study, tmp_path):
    import shutil

    folder = make_study(tmp_path, samples=2)
    shutil.rmtree(folder / "runs")
    page = Document(build_page(folder, files=False).read_text())
    for words in (
        "No probe was run.",
        "The parameters were not compared.",
        "No hybrid was evaluated.",
    ):
        assert words in page.text
    assert "is not there any more" in page.text


def test_links_lead_to_runs_outside_of_the_page_s_folder(folder, tmp_path):
    run = next(iter((folder / "runs" / "diff").iterdir()))
    study = read_study(folder)
    folders = [Path(os.path.relpath(run, tmp_path)).as_posix()]
    step = study.steps[0].model_copy(update={"model": None, "folders": folders})
    study.model_copy(update={"steps": [step]}).save(tmp_path)
    made = build_page(tmp_path, files=False)
    links = [
        unquote(a["href"])
        for a in Document(made.read_text()).all("a")
        if not a["href"].startswith("#")
    ]
    assert len(links) == 3
    assert all((tmp_path / link).is_file() for link in links)
