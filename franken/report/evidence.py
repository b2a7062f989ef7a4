"""The runs of a study under their former name; see `franken.runs.runset`."""

from franken.runs import RunSet as Evidence

__all__ = ["Evidence"]
