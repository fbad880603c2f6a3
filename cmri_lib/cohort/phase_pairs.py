"""Two phases of one scan: the same slice of the same heart, moved. What translates images learns from such pairs, and is
judged by the image that it should have made. Scans of one heart by several vendors are the business of `paired_scans`."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from cmri_lib.cohort.slices import Slices

#: What two images of one place have in common.
PLACE = ["scan", "index"]


def phase_pairs(slices: Slices, source: str = "ED", target: str = "ES") -> Slices:
    """The slices of phase `target`, each with the image of the same place at `source` as its partner; those without one are
    left out. Both phases of a scan are cropped alike, so they lie on each other."""
    table = slices.table.reset_index(names="row")
    looks = [table.loc[table["phase"] == phase, [*PLACE, "row"]] for phase in (source, target)]
    both = pd.merge(*looks, on=PLACE, suffixes=("_source", "_target")).sort_values("row_target")
    chosen = slices.take(both["row_target"].to_numpy(int))
    return replace(chosen, partners=slices.images[both["row_source"].to_numpy(int)])
