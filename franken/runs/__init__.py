"""The run folder: what every command that measures leaves behind, how it resumes, and how it is
read.

    out/<verb>/<label>-<hash8>/
      parts/00000.parquet …   rows, written while the run goes on; an interrupt loses at most one
                              part
      samples.parquet         all rows
      layers.parquet          the tidy summary (rows.py)
      run.json                the manifest (manifest.py), written last: it proves completion

`open_run` makes or resumes such a folder (folder.py) and `load_run` reads a finished one
(loaded.py). `open_runs` answers what a folder holds as a `RunSet` (runset.py): the finished runs of
every verb, training runs (training.py), freeze studies, and what is unfinished; whose checkpoints
they measured is told by lineage.py. `open_study` reads the runs that the record of a study
(record.py) names, and `load_runs` is all of a folder as one table.
"""

from franken.runs.files import atomic_write_text, write_parquet
from franken.runs.folder import IDENTITY, Run, open_run
from franken.runs.lineage import STAGES
from franken.runs.loaded import LoadedRun, load_run
from franken.runs.manifest import Manifest
from franken.runs.provenance import PACKAGES, portable, provenance
from franken.runs.record import Study, read_study
from franken.runs.rows import LAYER_COLUMNS, LayerRow, RowHead, layer_row
from franken.runs.runset import RunSet, load_runs, open_runs, open_study
from franken.runs.training import TrainingRun

__all__ = [
    "IDENTITY",
    "LAYER_COLUMNS",
    "PACKAGES",
    "STAGES",
    "LayerRow",
    "LoadedRun",
    "Manifest",
    "RowHead",
    "Run",
    "RunSet",
    "Study",
    "TrainingRun",
    "atomic_write_text",
    "layer_row",
    "load_run",
    "load_runs",
    "open_run",
    "open_runs",
    "open_study",
    "portable",
    "provenance",
    "read_study",
    "write_parquet",
]
