"""The distribution that brings franken and trainer, and others that claim the same packages.

On the package index `franken` is the name of another project: ours is `franken-vlm`. Where both are
installed, or a distribution called `trainer` is, the files of one lie over those of the other.
"""

from importlib import metadata

NAME = "franken-vlm"
PACKAGES = ("franken", "trainer")


def with_extra(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install '{NAME}[{extra}]'"


def clashes() -> list[str]:
    """What to say of installed distributions that own packages of our names; usually nothing."""
    found = []
    for name in PACKAGES:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        found.append(
            f"the distribution {name} {version} is installed as well, and its files may lie over "
            f"those of {NAME}: pip uninstall {name}, then install {NAME} again"
        )
    return found
