"""The whole panel: every measure of fidelity, diversity, support and anatomy for one system, in one call."""

from __future__ import annotations

from collections.abc import Sequence

from cmri_lib.cohort.slices import Slices
from cmri_lib.measures.anatomy import Segment
from cmri_lib.measures.comparison import Measure, compare
from cmri_lib.measures.diversity import diversity
from cmri_lib.measures.features import Features
from cmri_lib.measures.fidelity import distances
from cmri_lib.measures.shapes import anatomy_of_samples
from cmri_lib.measures.spectrum import spectrum
from cmri_lib.measures.support import support
from cmri_lib.measures.twosample import inception_score, two_sample

#: One metric per question, for tables that must stay short: how far off, how faithful, how complete, how diverse, how
#: sharp, whether a classifier can tell, whether the hearts have the right size.
HEADLINE = ("kid_study", "frechet_study", "precision_study", "recall_study", "coverage_study", "ms_ssim_pairs",
            "band_excess", "c2st_study", "anatomy_w1_lv_cm2", "anatomy_lv_missing")


def measures(spaces: Sequence[Features], *, training: Slices | None = None, segment: Segment | None = None
             ) -> list[Measure]:
    """All measures: per feature space distances, support and two-sample test; then spectrum and diversity; the
    inception score (first space) if there is `training`, the anatomy of samples if there is a segmenter."""
    chosen = [build(space) for space in spaces for build in (distances, support, two_sample)]
    chosen += [spectrum(), diversity()]
    chosen += [] if training is None else [inception_score(spaces[0], training)]
    return chosen + ([] if segment is None else [anatomy_of_samples(segment)])


def full_fidelity(real: Slices, synthetic: Slices, spaces: Sequence[Features], *, segment: Segment | None = None,
                  reference_real: Slices | None = None, training: Slices | None = None, seed: int = 0,
                  resamples: int = 500, repeats: int = 20) -> list[dict[str, object]]:
    """The rows of every measure of `measures` for one system; arguments, rows and errors as for `compare`.

    Args:
        spaces: feature spaces, remembered (`Remembered`), because the real sets are described for every system.
        segment: the frozen segmenter, or none to leave out the anatomy of samples.
        training: real training slices: for the ceilings, and for the classifier of the inception score.
    """
    options = {"reference_real": reference_real, "training": training, "seed": seed, "resamples": resamples,
               "repeats": repeats}
    return [row for measure in measures(spaces, training=training, segment=segment)
            for row in compare(real, synthetic, measure, **options)]
