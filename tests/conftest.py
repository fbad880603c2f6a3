"""Small sets of slices, and a small network, that tests share;
no test needs a network, a GPU or more than a few seconds of training."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from cmri_lib.cohort.slices import Slices, concatenate

#: Whether this worker had the pipeline: what it runs afterwards need not wait.
PIPELINE = pytest.StashKey[bool]()
os.environ.setdefault("TQDM_DISABLE", "1")
# A test has small arrays, and a neighbour on the other core. NumPy's libraries look when they are loaded: the workers' do.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The pipeline first: it takes as long as everything else together, which goes on beside it."""
    items.sort(key=lambda item: item.get_closest_marker("pipeline") is None)


@cache
def _leave_way() -> None:
    if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "nice"):
        os.nice(12)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Workers without the pipeline leave it the processor: it alone cannot be shared out when it is the last that runs."""
    if item.get_closest_marker("pipeline") is None and not item.session.stash.get(PIPELINE, False):
        _leave_way()
    else:
        item.session.stash[PIPELINE] = True


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture
def closed_figures() -> Iterator[None]:
    """What the test has drawn is closed after it, and no style of its own is left."""
    import matplotlib.pyplot as plt  # most tests draw nothing, and need not wait for it

    with plt.rc_context():
        yield
    plt.close("all")


@pytest.fixture
def alarm() -> Iterator[None]:
    """While the test runs, ``signal.alarm`` makes it fail: a reader that hangs is no reader."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("a file made the reader hang"))
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def discs(patients: int = 8, per_patient: int = 4, size: int = 32, seed: int = 0, split: str = "train") -> Slices:
    """Bright discs (LV) in rings (Myo) beside crescents (RV); radius and brightness differ between patients."""
    rng = np.random.default_rng(seed)
    images, masks, rows = [], [], []
    y, x = np.mgrid[:size, :size] / size
    for p in range(patients):
        radius, bright = rng.uniform(0.10, 0.16), rng.uniform(0.5, 0.9)
        for k in range(per_patient):
            cy, cx = rng.uniform(0.45, 0.55, 2)
            r = np.hypot(y - cy, x - cx)
            mask = np.zeros((size, size), np.uint8)
            mask[np.hypot(y - cy, x - cx + 0.2) < 1.5 * radius] = 3
            mask[r < radius + 0.07] = 2
            mask[r < radius] = 1
            levels = np.array([-0.8, bright, -0.3, bright])
            images.append(np.clip(levels[mask] + 0.05 * rng.standard_normal(mask.shape), -1, 1))
            masks.append(mask)
            rows.append({"patient": f"{split}{seed}-{p}", "scan": f"{split}{seed}-{p}", "split": split, "dataset": "discs",
                         "vendor": "AB"[p % 2], "centre": "1", "disease": "NOR", "phase": ("ED", "ES")[k % 2],
                         "level": ("apical", "mid", "basal")[k % 3], "height": k / max(1, per_patient - 1), "index": k,
                         "spacing": 3.0, "slice_mm": 10.0, "source": "real"})
    return Slices(np.stack(images)[:, None].astype(np.float32), np.stack(masks), pd.DataFrame(rows))


def split_cohort(**patients: int) -> Slices:
    """`discs` of so many patients of each split, four slices of each, from one population."""
    return concatenate([discs(count, 4, seed=k, split=split) for k, (split, count) in enumerate(patients.items())])


class Small(nn.Module):
    """A perceptron on (x, t), the network of one-dimensional toys."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))

    def forward(self, x: Tensor, t: Tensor, batch: dict) -> Tensor:
        return self.layers(torch.cat([x, t[:, None]], 1))
