"""README.md and docs/*.md hold what they promise: links lead somewhere, pictures exist, command
lines parse.
"""

import re
import shlex
from pathlib import Path

import pytest
import typer

from franken.cli import app, taken_out

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("analyses/*.md"),
    ]
)
COMMANDS = typer.main.get_command(app)
README_LINES = 450


def prose(text: str) -> str:
    """The text without fenced blocks, in which a link is no link."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def links(text: str) -> list[str]:
    """Relative targets of links and images."""
    found = re.findall(r"\]\(([^)\s]+)\)", prose(text))
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    heads = re.findall(r"^#+ (.+)$", prose(text), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def command_lines(text: str) -> list[str]:
    """Every `franken …` of a fenced block: chains taken apart, prompts, variables and comments
    taken off.
    """
    found = []
    for block in re.findall(r"^```(?:bash|sh|console)?\n(.*?)^```$", text, re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            for piece in re.split(r"&&|;|\|(?!\|)", line.partition(" #")[0].removeprefix("$ ")):
                piece = re.sub(
                    r"^.*-m franken\.cli ", "franken ", piece
                )  # python, or torchrun with options of its own
                words = [w for w in piece.split() if not re.fullmatch(r"[A-Z_]+=\S+", w)]
                if words and words[0] in ("franken", ".venv/bin/franken"):
                    found.append(" ".join(words))
    return found


def inline_commands(text: str) -> list[str]:
    """`franken verb …` in running text, which may leave arguments out."""
    return [
        span
        for span in re.findall(r"`(franken [a-z][^`]*)`", prose(text))
        if not span.endswith(".py")
    ]


def check_words(line: str) -> None:
    """Raises AssertionError where the verb or one of the options does not exist."""
    command, words = COMMANDS, line.split()[1:]
    while hasattr(command, "commands") and words:
        assert words[0].strip("…,") in {*command.commands, ""}, f"{line}: no verb {words[0]}"
        command, words = command.commands.get(words[0], command), words[1:]
    known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)} | {
        "--help",
        "--plugin",
        "--debug",
    }
    given = [word.partition("=")[0] for word in words if word.startswith("--")]
    assert set(given) <= known, f"{line}: {set(given) - known}"


def parse(line: str) -> None:
    """Raises what the parser says of a command line: an unknown verb or option, a missing argument,
    a word for a number.
    """
    command, words = COMMANDS, taken_out(shlex.split(line)[1:], "--plugin", "FILE")[1]
    while hasattr(command, "commands"):
        assert words, f"{line}: no verb"
        assert words[0] in command.commands, f"{line}: no verb {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    command.make_context(command.name, words)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_link_leads_somewhere(page):
    for target in links(page.read_text()):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        assert file.is_relative_to(ROOT), f"{page.name}: {target} leaves the repository"
        if anchor:
            assert anchor in anchors(file.read_text()), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_command_line_parses(page):
    failed = []
    for line in command_lines(page.read_text()):
        try:
            parse(line)
        except (typer.exceptions.TyperException, AssertionError, ValueError) as e:
            failed.append(f"{line}\n    {getattr(e, 'message', e)}")
    for line in inline_commands(page.read_text()):
        try:
            check_words(line)
        except AssertionError as e:
            failed.append(str(e))
    assert not failed, "\n".join(failed)


def test_the_readme_shows_every_verb_and_stays_short():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) < README_LINES
    assert [
        verb for verb in COMMANDS.commands if f"franken {verb}" not in text.replace("`", "")
    ] == []
    assert {p.name for p in ROOT.glob("docs/*.md")} <= {Path(link).name for link in links(text)}


def test_what_is_broken_is_seen():
    text = (
        "[a](no/such.md) ![b](x.png)\n```\n[c](in/code.md)\n$ franken diff a b --nope && A=1 "
        "franken zap # franken y\n```\n"
    )
    assert links(text) == ["no/such.md", "x.png"]
    assert command_lines("```\n$ torchrun --n 2 -m franken.cli train x\n```\n") == [
        "franken train x"
    ]
    assert command_lines(text) == ["franken diff a b --nope", "franken zap"]
    with pytest.raises(typer.exceptions.TyperException):
        parse("franken diff a b --nope")
    with pytest.raises(AssertionError, match="no verb zap"):
        parse("franken zap")
    with pytest.raises(typer.exceptions.TyperException):
        parse("franken eval a --samples many")
    assert inline_commands("a `franken diff --nope` b `x`") == ["franken diff --nope"]
    with pytest.raises(AssertionError, match="--nope"):
        check_words("franken diff --nope")
    assert anchors("# A model's `family`: x\n") == {"a-models-family-x"}
