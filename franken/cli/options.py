"""The options that several commands share, and how lists are read from the command line."""

from pathlib import Path
from typing import Annotated

import typer

from franken.errors import UsageError

Out = Annotated[Path, typer.Option(help="Folder that holds the run folders.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done and what it would cost.")
]
Device = Annotated[
    str,
    typer.Option(help="auto, cpu, cuda:1, …; a model over several: cuda:0+cuda:1, cuda+cpu+disk."),
]
Devices = Annotated[
    str, typer.Option(help="A lane on each: cuda:0,cuda:1; a lane on several: cuda:0+cuda:1,….")
]
Dtype = Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Tasks = Annotated[str, typer.Option(help="Tasks, with commas; all by default.")]
Data = Annotated[Path | None, typer.Option(help="A folder in the vision_functionality layout.")]
Questions = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Ask these instead: a folder of image pairs or of AlgoPuzzleVQA (FOLDER+choice shows "
        "its options), a benchmark (mathvista, gsm8k, …), NAME=FOLDER, a hub id, any JSONL or "
        "Parquet.",
    ),
]
Columns = Annotated[
    str,
    typer.Option(
        help="The columns of --data: question=prompt,answer=gold,images=picture, or a YAML file."
    ),
]
Layers = Annotated[
    str, typer.Option(help="16-28 (half-open), text:16-28, early, middle, late, all; with commas.")
]
Download = Annotated[
    bool,
    typer.Option("--download", help="Fetch hub ids that are not in the local cache: models, data."),
]
Allow = Annotated[
    str, typer.Option(help="Differences to wave through: dtype, rope, tokenizer, …; with commas.")
]
Model = Annotated[
    str, typer.Argument(help="A checkpoint folder, a cached hub id, creature:base or creature:sft.")
]


def split_list(text: str) -> list[str]:
    """The pieces between commas."""
    return [piece.strip() for piece in text.split(",") if piece.strip()]


def whole_numbers(text: str) -> list[int]:
    """Whole numbers with commas. Raises UsageError."""
    try:
        return [int(piece) for piece in split_list(text)]
    except ValueError as e:
        raise UsageError(f"{text!r} is not a list of whole numbers", fix="write 1,4,8") from e


def numbers(text: str) -> list[float]:
    """Numbers with commas. Raises UsageError."""
    try:
        return [float(piece) for piece in split_list(text)]
    except ValueError as e:
        raise UsageError(f"cannot read the numbers {text!r}", fix="write .1,1,10") from e
