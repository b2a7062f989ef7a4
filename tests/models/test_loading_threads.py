"""How many torch threads a model gets."""

import pytest
import torch

from franken.models import loading
from franken.models.loading import SMALL, choose_threads, load

CPU = torch.device("cpu")


@pytest.fixture
def threads(monkeypatch):
    """The number that torch is told, starting from four."""
    told = [4]
    monkeypatch.setattr(loading, "THREADS", 4)
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return told


def test_small_models_run_in_one_thread_and_larger_ones_in_torchs_own_number(threads):
    choose_threads(SMALL - 1, CPU)
    assert threads[-1] == 1
    choose_threads(SMALL, CPU)
    assert threads[-1] == 4
    choose_threads(10, torch.device("cuda"))
    assert threads[-1] == 4


def test_the_environment_has_the_last_word(threads, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    choose_threads(10, CPU)
    assert threads == [4]


def test_the_creature_is_loaded_with_one_thread(threads):
    load("creature:sft", device="cpu")
    assert threads[-1] == 1
