"""Small models shared by the tests. One torch thread: two can be far slower for models this
small.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from hypothesis import settings

if "FRANKEN_FUZZ" in os.environ:  # `make fuzz`: how many inputs a property is tried on
    settings.register_profile("fuzz", max_examples=int(os.environ["FRANKEN_FUZZ"]), deadline=None)
    settings.load_profile("fuzz")
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def fresh_creature():
    """An untrained creature: real tokenizer and processor, random answers. Tests must leave its
    weights as they are.
    """
    from franken.models import creature
    from franken.models.loading import wrap

    processor = creature.build_processor()
    return wrap(creature.build_model(0), processor, processor.tokenizer)


@pytest.fixture(scope="session")
def sft_creature():
    """The shipped SFT checkpoint. Tests must leave its weights as they are."""
    from franken.models.loading import load

    return load("creature:sft", device="cpu")


@pytest.fixture
def unrasterised(monkeypatch):
    """Figures of a page are plotted, but no pixel is drawn: test_page.py draws every figure once,
    and drawing is most of a page's time.
    """
    from franken.report import theme
    from franken.report.page import build

    def plotted(draw, mode):
        with theme.theme(mode):
            draw(mode)
        return "data:image/png;base64,"

    monkeypatch.setattr(build, "png", plotted)
    monkeypatch.setattr(build, "save_figures", lambda sections, folder: {})
