"""`franken --help` is a page: every verb in a panel with one line, every verb's help with an
example that can be run.
"""

import shlex

import pytest
import typer
from typer.testing import CliRunner

from franken.cli import VERBS, app
from franken.cli.pages import PAGES, TASKS, front

RUN = CliRunner(env={"COLUMNS": "110", "TERM": "dumb"})
ROOT = typer.main.get_command(app)


def leaf(words: list[str]):
    """The command that a line names, and the words behind its name."""
    command = ROOT
    while hasattr(command, "commands") and words and words[0] in command.commands:
        command, words = command.commands[words[0]], words[1:]
    return command, words


def parses(line: str) -> None:
    """Raises what the parser says of a line that begins with `franken`."""
    program, *words = shlex.split(line)
    assert program == "franken", line
    command, rest = leaf(words)
    assert not hasattr(command, "commands"), line
    command.make_context(command.name, rest)


def test_every_verb_has_a_page_and_a_place():
    assert set(PAGES) == set(VERBS) == set(ROOT.commands)
    said = RUN.invoke(app, ["--help"]).output
    for verb, page in PAGES.items():
        assert page.panel in said, verb
        assert page.line in said, verb
        assert len(page.line) <= 66, verb
    for line in ("Examples:", "Exit codes:", "franken quickstart", "docs/"):
        assert line in said


@pytest.mark.parametrize("verb", sorted(PAGES))
def test_every_verb_shows_an_example(verb):
    said = " ".join(RUN.invoke(app, [verb, "--help"]).output.split())
    assert "Examples:" in said
    assert PAGES[verb].examples
    for command, what in PAGES[verb].examples:
        assert " ".join(f"{command} # {what}".split()) in said
        assert command.split()[1] == verb
        parses(command)


@pytest.mark.parametrize("command", sorted(TASKS))
def test_every_command_of_tasks_shows_an_example(command):
    line, what = TASKS[command]
    assert set(TASKS) == set(ROOT.commands["tasks"].commands)  # pyright: ignore[reportAttributeAccessIssue]
    assert f"{line} # {what}" in " ".join(
        RUN.invoke(app, ["tasks", command, "--help"]).output.split()
    )
    assert line.split()[1:3] == ["tasks", command]
    parses(line)


def test_the_front_page_shows_runnable_lines():
    lines = [line for line in front().split("\n\n") if line.startswith("franken ")]
    assert len(lines) >= 5
    for line in lines:
        parses(line)


def test_a_line_that_does_not_parse_is_seen():
    with pytest.raises(typer.exceptions.TyperException):
        parses("franken diff a b --no-such-option")
    with pytest.raises(AssertionError):
        parses("franken no-such-verb")


@pytest.mark.parametrize("verb", ["probe", "eval", "diff"])
def test_download_fetches_the_model(verb, monkeypatch, tmp_path):
    """`--download` is what the error about the cache advises: it must reach the hub, and nothing
    else may.
    """
    from huggingface_hub.errors import LocalEntryNotFoundError

    from franken.cli import run_command

    asked = []

    def snapshot(repo, *, local_files_only, **_):
        asked.append((repo, local_files_only))
        raise LocalEntryNotFoundError("not there")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    monkeypatch.chdir(tmp_path)
    models = ["owner/model", "owner/other"] if verb == "diff" else ["owner/model"]
    assert run_command([verb, *models], False) == 2
    assert {local for _, local in asked} == {True}
    asked.clear()
    assert run_command([verb, *models, "--download"], False) == 2
    assert asked[0] == ("owner/model", False)
