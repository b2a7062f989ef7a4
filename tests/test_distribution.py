"""franken is called franken-vlm where it is installed from; other projects have the shorter name."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from franken import distribution
from franken.cli import main

ROOT = Path(__file__).resolve().parents[1]
ADVICE = re.compile(r"(?:pip|pipx|uv|uvx)\b[^\n`]*[ ']franken(?:\[\w+\])?(?=['\s`),.]|$)")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def advised():
    """Every text that may tell people what to install."""
    files = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "AGENTS.md"]
    files += [*(ROOT / "docs").rglob("*.md"), *(ROOT / "analyses").glob("*.ipynb")]
    files += [p for package in ("franken", "trainer") for p in (ROOT / package).rglob("*.py")]
    return [file for file in files if file.exists()]


def test_nobody_is_told_to_install_somebody_else_s_franken():
    told = [(f, m) for f in advised() for m in ADVICE.findall(f.read_text())]
    assert [(f.name, m) for f, m in told if "uninstall" not in m] == []
    assert ADVICE.search("pip install 'franken[vllm]'")
    assert ADVICE.search("run `uv pip install franken`")
    assert not ADVICE.search("pip install 'franken-vlm[vllm]'")


def test_extras_that_are_advised_exist():
    assert PROJECT["name"] == distribution.NAME
    named = {
        extra
        for file in advised()
        for extra in re.findall(r"franken-vlm\[(\w+)\]|with_extra\(['\"](\w+)", file.read_text())
        for extra in extra
        if extra
    }
    assert named
    assert named <= set(PROJECT["optional-dependencies"])
    assert distribution.with_extra("lora") == "pip install 'franken-vlm[lora]'"


def test_a_foreign_distribution_of_our_name_is_told_at_start(monkeypatch, capsys):
    real = metadata.version

    def version(name):
        if name in distribution.PACKAGES:
            if name == "franken":
                return "0.7.0"
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(SystemExit) as ended:
        main(["tasks", "list"])
    assert ended.value.code == 0
    said = capsys.readouterr().err
    assert said.startswith("warning: the distribution franken 0.7.0 is installed as well")
    assert "pip uninstall franken" in said
