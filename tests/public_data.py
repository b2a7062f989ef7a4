"""Public data of other people, which is not part of the project: where it lies, if it is here.

It is looked for in `shared/data` beside the checkout, or where FRANKEN_PUBLIC_DATA says.
"""

import os
from pathlib import Path

import pytest

BESIDE = Path(__file__).parents[2] / "shared" / "data"
DATA = Path(os.environ.get("FRANKEN_PUBLIC_DATA") or BESIDE)


def public(name: str) -> Path:
    """The folder of a public data set, whether or not it is here."""
    return DATA / name


def needs(name: str) -> pytest.MarkDecorator:
    """Skips a test where the public data set `name` is not on this machine."""
    return pytest.mark.skipif(
        not public(name).is_dir(), reason=f"the public data set {name} is not on this machine"
    )
