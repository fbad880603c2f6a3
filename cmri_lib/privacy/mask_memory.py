"""Do synthetic masks repeat those of training patients? A mask has no texture, but an outline can name its
patient.

For every mask the highest mean Dice with any training mask. All hearts overlap when they are cropped alike, so the
number means little by itself; beside it stands the floor, the same of masks of real patients who were held out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import DataError
from cmri_lib.measures.anatomy.mask_overlap import nearest_dice
from cmri_lib.measures.statistics.comparison import SHARE, Embedding, Measure, Metric, Statistic

#: A mask is a suspected copy if it lies nearer to training than all but this share of real held-out masks do.
SUSPECT = 0.05


def mask_memory(training: Slices) -> Measure:
    """The measure that gives, for `comparison.compare` of test masks and synthetic ones:

    - ``mask_nearest_dice``: mean over samples of `nearest_dice` to `training`. Floor: of real masks held out;
    - ``mask_near_copies``: share of samples nearer to training than 95 % of real masks are (`SUSPECT`). Floor: near 5 %.

    The bound of both, 1, is copies. n is the number of masks.

    Args:
        training: exactly the slices the generator learnt from. The real slices it is compared with must be of other
            patients; `compare` refuses them otherwise if it is given `training` too.

    Raises:
        DataError: if `training` has no masks.
    """
    if not training.masks.any():
        raise DataError("no mask to have copied", field="training", remedy="give the labelled slices it learnt from")

    def embed(slices: Slices) -> np.ndarray:
        return nearest_dice(slices.masks, training.masks)[0][:, None]

    def statistics(real: Embedding, synthetic: Embedding) -> Sequence[Statistic]:
        x, y = real.values[:, 0], synthetic.values[:, 0]

        def copies(u: np.ndarray, v: np.ndarray) -> float:
            return float(np.average(y > np.quantile(np.repeat(x, u), 1 - SUSPECT), weights=v))

        return lambda u, v: float(np.average(y, weights=v)), copies

    metrics = tuple(Metric(name, "lower", bound=1.0, scale=SHARE) for name in ("mask_nearest_dice", "mask_near_copies"))
    return Measure(metrics, embed, statistics, axis="privacy")
