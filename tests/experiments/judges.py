"""A segmenter that needs no training, and the cohort of discs that it reads."""

from __future__ import annotations

import numpy as np
from conftest import discs

from cmri_lib.cohort.slices import Slices, concatenate

#: Images (N, 1, H, W) → label maps: bright is LV, grey is myocardium.
SEGMENT = lambda images: np.select([images[:, 0] > 0.2, images[:, 0] > -0.55], [1, 2], 0).astype(np.uint8)  # noqa: E731


def four_splits() -> Slices:
    """Six patients, with four slices each, in every split."""
    return concatenate([discs(6, 4, seed=k, split=split) for k, split in enumerate(("train", "validation", "test", "holdout"))])
