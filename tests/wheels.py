"""Install the wheel as a user would, into fresh environments, and run every kind of verb from it.

    python tests/wheels.py [--pythons 3.11 3.12 3.13] [--versions newest lowest] [--report FILE]

`newest` is what an installer takes today, `lowest` the lower bounds that pyproject.toml promises, or
the first version above one that has a wheel for this Python. Interpreters that are not there are
named and left out. Needs uv and the package index.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UV = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
RESOLUTIONS = {"newest": "highest", "lowest": "lowest-direct"}
COMPILED = (  # never built from their sources here
    *("torch", "torchvision", "numpy", "scipy", "numba", "llvmlite", "scikit-learn", "pandas"),
    *("pyarrow", "pillow", "matplotlib", "safetensors", "pyyaml", "regex", "pydantic-core"),
)
SHOWN = ("torch", "transformers", "numpy", "pandas", "numba")
SMOKE = """
import sys
from franken.cli import run_command

steps = [
    ["train", "--list"],
    ["train", "creature-rl", "--out", "rl", "--set", "stages.0.steps=2"],
    ["eval", "creature:sft", "rl/final", "--tasks", "count", "--samples", "4", "--n", "4"],
    ["diff", "creature:sft", "rl/final", "--spectra"],
    ["merge", "creature:sft", "rl/final", "--layers", "2-6", "--out", "merged"],
    ["probe", "creature:sft", "--tasks", "read", "--samples", "4"],
    ["show", "runs", "--table", "list"],
]
for words in steps:
    code = run_command(words, False)
    if code:
        sys.exit(f"franken {' '.join(words)} ends with {code}")
"""


def interpreter(version: str) -> str | None:
    """A Python of this version on the path or in pyenv; None where there is none that runs."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}*/bin/python"))]
    ask = "import sys; print('%d.%d' % sys.version_info[:2])"
    for path in map(str, filter(None, found)):
        said = subprocess.run([path, "-c", ask], capture_output=True, text=True, check=False)
        if said.stdout.strip() == version:
            return path
    return None


def uv(*words: str | Path) -> None:
    """Run uv quietly. Raises CalledProcessError with what it said."""
    assert UV is not None, "uv is missing: make install brings it"
    subprocess.run([UV, *map(str, words), "--quiet"], check=True, capture_output=True, text=True)


def try_out(wheel: Path, python: str, versions: str, folder: Path) -> tuple[str, float]:
    """Install the wheel with these versions, use it; what was installed, and the seconds of use."""
    home = folder / "environment"
    uv("venv", "--python", python, home)
    own = home / "bin" / "python"
    pinned = folder / "requirements.txt"
    uv(
        *("pip", "compile", "--python", own, "--resolution", RESOLUTIONS[versions]),
        *("--no-annotate", "--no-header", "-o", pinned, ROOT / "pyproject.toml"),
        *(word for package in COMPILED for word in ("--only-binary", package)),
    )
    uv("pip", "install", "--python", own, "--requirement", pinned)
    uv("pip", "install", "--python", own, "--no-deps", wheel)
    chosen = dict(line.split("==") for line in pinned.read_text().split() if "==" in line)
    began = time.monotonic()
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    place = folder / "use"
    place.mkdir()
    subprocess.run(
        [own, "-c", SMOKE], cwd=place, env=environment, check=True, capture_output=True, text=True
    )
    return ", ".join(f"{name} {chosen[name]}" for name in SHOWN), time.monotonic() - began


def table(pythons: list[str], versions: list[str]) -> Iterator[str]:
    """A line for every pair, as it is tried."""
    with tempfile.TemporaryDirectory() as made:
        uv("build", "--wheel", "--out-dir", made, ROOT)
        (wheel,) = Path(made).glob("*.whl")
        for version in pythons:
            python = interpreter(version)
            if python is None:
                yield f"| {version} | | not on this machine | |"
                continue
            for which in versions:
                with tempfile.TemporaryDirectory() as folder:
                    try:
                        installed, seconds = try_out(wheel, python, which, Path(folder))
                        yield f"| {version} | {which} | {installed} | works ({seconds:.0f} s) |"
                    except subprocess.CalledProcessError as e:
                        why = (e.stderr or e.stdout).strip().splitlines()
                        print("\n".join(why[-40:]), file=sys.stderr)
                        yield f"| {version} | {which} | | FAILS: {why[-1] if why else e} |"


def main() -> int:
    """Command line: 1 where a pair fails."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--pythons", nargs="+", default=["3.11", "3.12", "3.13"])
    parser.add_argument("--versions", nargs="+", default=list(RESOLUTIONS), choices=RESOLUTIONS)
    parser.add_argument("--report", type=Path)
    args = parser.parse_args()
    lines = [
        "# The wheel in fresh environments",
        "",
        f"`python tests/wheels.py --pythons {' '.join(args.pythons)} "
        f"--versions {' '.join(args.versions)}`, {platform.machine()}, {date.today()}",
        "",
        "From the wheel, in a folder of its own: train --list, two steps of RL, eval, diff with "
        "spectra, merge, probe, show.",
        "",
        "| Python | versions | some of what was installed | |",
        "|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for line in table(args.pythons, args.versions):
        print(line, flush=True)
        lines.append(line)
    if args.report:
        args.report.write_text("\n".join(lines) + "\n")
    return int(any("FAILS" in line for line in lines))


if __name__ == "__main__":
    sys.exit(main())
