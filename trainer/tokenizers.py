"""The processor of a run, written so that its files are the same however the run went."""

from pathlib import Path

from franken.models.loading import Loaded


def save_processor(loaded: Loaded, folder: Path) -> None:
    """Write processor or tokenizer. How the last batch was padded and truncated, which its files
    would hold, is left out of them: a resumed run may have padded nothing.
    """
    backend = getattr(loaded.tokenizer, "backend_tokenizer", None)
    writer = loaded.processor or loaded.tokenizer
    if backend is None:
        writer.save_pretrained(folder)
        return
    padding, truncation = backend.padding, backend.truncation
    backend.no_padding()
    backend.no_truncation()
    writer.save_pretrained(folder)
    if padding is not None:
        backend.enable_padding(**padding)
    if truncation is not None:
        backend.enable_truncation(**truncation)
