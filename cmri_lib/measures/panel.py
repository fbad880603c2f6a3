"""The whole panel: every measure of fidelity, diversity, support and anatomy for one system, in one call.

The headline is a pair: the distance of anatomy and the distance of appearance. Either alone is deceived, one by a blur, the
other by texture without a heart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cmri_lib.cohort.slices import Slices
from cmri_lib.measures.anatomy.adherence import Segment
from cmri_lib.measures.anatomy.shapes import anatomy_of_samples
from cmri_lib.measures.fidelity.distances import bounded_distance, distances
from cmri_lib.measures.fidelity.diversity import diversity
from cmri_lib.measures.fidelity.spectrum import spectrum
from cmri_lib.measures.fidelity.support import support
from cmri_lib.measures.fidelity.textbook import textbook
from cmri_lib.measures.fidelity.two_sample import inception_score, two_sample, two_sample_of_images
from cmri_lib.measures.instruments.learned_features import Features
from cmri_lib.measures.statistics.comparison import Measure
from cmri_lib.training import TrainSettings


def headline(spaces: Sequence[Features], training: Slices) -> list[Measure]:
    """The bounded kernel distance in each space, those of anatomy and appearance first; scales come from `training`."""
    return [bounded_distance(space, training) for space in spaces]


def measures(spaces: Sequence[Features], *, training: Slices | None = None, segment: Segment | None = None,
             images: TrainSettings | None = None) -> list[Measure]:
    """All measures: per feature space distances, support and two-sample test, in the first also in their textbook form;
    then spectrum and diversity; the two-sample test on `images`, if it is said how its network learns; the
    inception score (first space) if there is `training`, the anatomy of samples if there is a segmenter."""
    chosen = [build(space) for space in spaces for build in (distances, support, two_sample)]
    chosen += [textbook(spaces[0]), spectrum(), diversity()]
    chosen += [] if images is None else [two_sample_of_images(images)]
    chosen += [] if training is None else [inception_score(spaces[0], training)]
    return chosen + ([] if segment is None else [anatomy_of_samples(segment)])


def plain_values(chosen: Sequence[Measure]) -> tuple[dict[str, Callable[[Slices, Slices], float]], dict[str, str]]:
    """Metric → function of (real, samples), and metric → direction, as `sensitivity` wants them.

    A measure of several metrics is computed once per pair of sets: it remembers the last pair it has seen.
    """
    functions, better = {}, {}
    for measure in chosen:
        last = _LastPair(measure)
        for metric in measure.metrics:
            functions[metric.name] = lambda real, synthetic, last=last, name=metric.name: last(real, synthetic)[name]
            better[metric.name] = metric.better
    return functions, better


class _LastPair:
    """The values of a measure, remembered for the last pair of sets."""

    def __init__(self, measure: Measure):
        self.measure = measure
        self.pair: tuple[Slices, Slices] | None = None
        self.values: dict[str, float] = {}

    def __call__(self, real: Slices, synthetic: Slices) -> dict[str, float]:
        if self.pair is None or self.pair[0] is not real or self.pair[1] is not synthetic:
            self.values = self.measure.values(*self.measure.of(real=real, synthetic=synthetic))
            self.pair = real, synthetic
        return self.values
