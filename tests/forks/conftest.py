"""The tiny models of every family that sees are those of tests/models."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "models"))
