"""Label screening: masks that are no hearts are drawn again, before an image generator is conditioned on them.

Apart from `label_maps`, which knows no measure, so that a change of the screen retrains nothing.
"""

from __future__ import annotations

import numpy as np

from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.errors import DataError, ParameterError
from cmri_lib.generators.label_maps import LabelMaps, draw_masks
from cmri_lib.measures.anatomy.validity import Ranges, validity
from cmri_lib.training.batches import mixed_seed


def sample_valid_masks(generator: LabelMaps, conditions: Slices, source: str, ranges: Ranges, seed: int = 0, *, rounds: int = 5,
                       first: Slices | None = None, fewest: int = 1, **choices: object) -> Slices:
    """`draw_masks`, where what breaks a rule of `measures.anatomy.validity` is drawn anew, in up to `rounds` draws.

    Rows stay those of `conditions`, save those that never passed, which are left out: rejection per condition, not of
    the whole set, keeps the mixture of levels and phases. Column `draws` says how many draws a mask took.

    Args:
        first: what `draw_masks` has drawn with the same arguments, if that has been done already.
        fewest: if fewer pass, the screen is given up and the first draw returned whole, with 0 in column `draws`: a handful
            of survivors says nothing of the generator. 1 for an error instead.

    Raises:
        ParameterError: if rounds < 1, or `first` is not one mask per condition.
        DataError: if no mask passes.
    """
    if rounds < 1:
        raise ParameterError(f"{rounds}", field="rounds", remedy="give at least 1")
    if first is not None and len(first) != len(conditions):
        raise ParameterError(f"{len(first)} masks for {len(conditions)} conditions", field="first",
                             remedy="give what draw_masks drew for these conditions")
    waiting, passed, places = np.arange(len(conditions)), [], []
    for turn in range(rounds):
        # The first draw is that of `draw_masks` with the same seed: screening only ever replaces.
        if turn == 0 and first is not None:
            made = first
        else:
            made = draw_masks(generator, conditions.take(waiting), source, mixed_seed(seed, turn) if turn else seed, **choices)
        good = validity(made.masks, made.table, ranges)["valid"].to_numpy()
        names = [f"synthetic-{i:05d}" for i in waiting]
        passed.append(made.with_columns(patient=names, scan=names, draws=turn + 1).take(good))
        places.append(waiting[good])
        waiting = waiting[~good]
        if not len(waiting):
            break
    if fewest > 1 and len(conditions) - len(waiting) < fewest:
        return (draw_masks(generator, conditions, source, seed, **choices) if first is None else first).with_columns(draws=0)
    if len(waiting) == len(conditions):
        raise DataError(f"none of {rounds} × {len(conditions)} label maps passes the screen", field="masks",
                        remedy="train longer, or look at what they show")
    return concatenate(passed).take(np.argsort(np.concatenate(places)))
