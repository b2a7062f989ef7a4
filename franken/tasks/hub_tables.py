"""Rows of a data set in the local cache of the hub.

Only the `datasets` library (extra `data`) knows all ways in which they are published; sets that
were fetched as files are read as those. Nothing uses the network unless it is told to download.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from franken.distribution import with_extra
from franken.errors import FrankenError, UsageError
from franken.tasks.tables import Row, SeveralSplits, Table, open_local


def open_snapshot(hub: str, split: str, *, download: bool = False) -> Table:
    """A data set of the hub by its files, of which the images are archives beside the table; with
    `download` they are fetched first. Raises FrankenError where it is not in the local cache.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(hub, repo_type="dataset", local_files_only=not download)
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as e:
        raise FrankenError(
            f"no data set {hub} in the local cache" if not download else f"cannot fetch {hub}",
            str(e).splitlines()[0] if str(e) else type(e).__name__,
            "add --download, or give a local folder: NAME=FOLDER",
        ) from e
    return open_local(Path(folder), split)


def snapshot_of(hub: str) -> Path | None:
    """The folder of the files of a set that were fetched before; None where there are none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub, repo_type="dataset", local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def open_hub(hub: str, config: str, split: str, *, download: bool = False) -> Table:
    """A data set of the hub, from the local cache; with `download` it is fetched into the cache
    first.

    Raises UsageError when the `datasets` library is missing, FrankenError when the data set is not
    there.
    """
    try:
        import datasets
        from datasets.exceptions import DatasetsError
    except ImportError as e:
        raise UsageError(
            f"{hub} is a data set of the hub",
            "the datasets library is not installed",
            with_extra("data"),
        ) from e
    with _network(download):
        try:
            dataset: Any = datasets.load_dataset(hub, config or None, split=split or None)
        except (OSError, ValueError, DatasetsError) as e:
            why = str(e).splitlines()[0] if str(e) else type(e).__name__
            fix = (
                "check the id, and split= and config= of --columns"
                if download
                else "add --download, or give a local folder: NAME=FOLDER"
            )
            raise FrankenError(
                f"no data set {hub} in the local cache" if not download else f"cannot fetch {hub}",
                why,
                fix,
            ) from e
    if isinstance(dataset, dict):
        if len(dataset) > 1:
            raise SeveralSplits(
                f"{hub} has several splits",
                f"they are {', '.join(dataset)}",
                "name one: --columns split=NAME",
            )
        dataset = next(iter(dataset.values()))
    for name, feature in dataset.features.items():
        if isinstance(feature, datasets.Image):
            dataset = dataset.cast_column(name, datasets.Image(decode=False))

    def pick(numbers: Iterable[int], only: Sequence[str] | None = None) -> Iterator[Row]:
        chosen = dataset
        if only is not None:
            chosen = dataset.select_columns([c for c in only if c in dataset.column_names])
        return (chosen[n] for n in numbers)

    return Table(list(dataset.column_names), len(dataset), pick, None)


@contextmanager
def _network(allowed: bool) -> Iterator[None]:
    """The hub's libraries kept from the network unless it is allowed; code that comes with a data
    set never runs (datasets ≥ 4).
    """
    import huggingface_hub
    from datasets import config

    places = (
        (config, "HF_HUB_OFFLINE"),
        (config, "HF_DATASETS_OFFLINE"),
        (huggingface_hub.constants, "HF_HUB_OFFLINE"),
    )
    before = [(where, name, getattr(where, name)) for where, name in places if hasattr(where, name)]
    try:
        for where, name, value in before:
            setattr(where, name, value or not allowed)
        yield
    finally:
        for where, name, value in before:
            setattr(where, name, value)
