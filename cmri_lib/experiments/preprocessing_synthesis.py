"""What preprocessing does to synthesis: one short unconditional flow for each way to preprocess, all scored in one view.

A distance is one of pictures. Pictures of two ways differ in their grey values, or in how much of the chest they show,
so no instrument is at home in both. So everything is brought into the **common view** first, samples and real slices
alike: the middle of the picture, as many mm wide as the study's own crop, and the grey values of each slice stretched
so that its percentiles 1 and 99 become black and white. That is what a viewer does to any image. All ways whose grey
values are a line of the scanner's become the same pictures of the same real slices, up to what was clipped; one set of
frozen instruments can read them.

What is left of the way in its real slices (a heart off the middle, pixels that were once coarser) is left in its
samples too. So the score of a way is its **excess**: what its samples score against real test slices, minus what real
training slices of the same way score against the same test slices. Excesses are compared between ways.

What the view cannot see: whether a sample has the brightness that its scanner would have given it. For those who stretch every
image, that is no loss; for a network that is fed with the samples as they are, it may be one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from joblib import delayed

from cmri_lib.cohort.preprocessing.intensity import clip_percentiles, minmax
from cmri_lib.cohort.preprocessing.resample import Window, middle, resample_image, resample_labels
from cmri_lib.cohort.slices import Slices
from cmri_lib.cohort.vocabulary import names_nothing
from cmri_lib.config.study import Study
from cmri_lib.errors import DataError, ParameterError
from cmri_lib.experiments.arms import Group
from cmri_lib.experiments.banks import sampling_conditions
from cmri_lib.experiments.instruments import principal_spaces, segmenter
from cmri_lib.experiments.parallel import at_once, silently
from cmri_lib.experiments.preprocessing_ways import OWN, Preprocessor, Way, way
from cmri_lib.experiments.training import train_or_load, training_patients
from cmri_lib.generators.base import Generator, draw
from cmri_lib.measures import panel
from cmri_lib.measures.anatomy.validity import Certainty, Ranges, validity_of_samples
from cmri_lib.measures.conditioning.condition_accuracy import train_condition_classifier
from cmri_lib.measures.instruments.certainty import HeartCertainty
from cmri_lib.measures.instruments.classical_features import ClassicalFeatures
from cmri_lib.measures.instruments.learned_features import Cached
from cmri_lib.measures.statistics.bootstrap import MINIMUM, Score, bootstrap, mean_score
from cmri_lib.measures.statistics.comparison import Embedding, Measure
from cmri_lib.reporting.results import with_system_columns
from cmri_lib.systems.system import Run, Variant
from cmri_lib.systems.vendors import WAY_FLOW

#: Percentiles of a slice that become black and white in the common view: those of the study's own clip.
STRETCH = (1.0, 99.0)
#: The metrics of a way are those of the headline, in the common view.
PREFIX = "way_"
#: Vendors, and images that show a heart, below which no vendor is told apart.
FEWEST_VENDORS, FEWEST_HEARTS = 2, MINIMUM


def synthesis_ways(study: Study) -> list[Way]:
    """The study's own way, and those of ``cross_vendor.synthesis_ways`` that differ from it."""
    field = "cross_vendor.synthesis_ways"
    asked = [way(name, field) for name in study.params.cross_vendor.synthesis_ways]
    for one in asked:
        if one.keep is not None:
            raise ParameterError(f"{one.name!r} chooses slices and changes none", field=field,
                                 remedy="name ways of changing intensities or the crop")
    return [OWN, *(one for one in asked if one.changes(study.params.preprocess))]


def way_run(one: Way) -> Run:
    """The training of the short flow on slices of that way."""
    return Run(WAY_FLOW, variant=Variant(one.name))


def way_runs(study: Study) -> list[Run]:
    """Those of all ways."""
    return [way_run(one) for one in synthesis_ways(study)]


def everybody(study: Study, slices: Slices) -> Preprocessor:
    """Slices of all training patients, of every vendor, and of all test patients, in any way."""
    return Preprocessor(study, slices, Group("all", training_patients(study, slices)))


def slices_of_run(study: Study, run: Run, slices: Slices) -> Slices:
    """The slices that a run of `way_runs` learns from, read and preprocessed anew."""
    return everybody(study, slices).slices(next(one for one in synthesis_ways(study) if one.name == run.variant.name))


def train_flows(study: Study, made: Mapping[str, Slices]) -> dict[str, Generator]:
    """Name of a way → the flow that has learnt from its slices, trained or loaded."""
    wanted = [one for one in synthesis_ways(study) if one.name in made]
    at_once(study, "flows after ways of preprocessing",
            [delayed(silently)(train_or_load, study, way_run(one), made[one.name]) for one in wanted])
    return {one.name: train_or_load(study, way_run(one), made[one.name]) for one in wanted}


def common_view(slices: Slices, share: float = 1.0) -> Slices:
    """The middle `share` of the side of each image, at as many pixels, and its grey values stretched slice by slice.

    Raises:
        DataError: if `share` is not within (0, 1].
    """
    if not 0 < share <= 1:
        raise DataError(f"{share:g} of an image", field="share", remedy="give a share above 0, at most 1")
    images, masks, size = slices.images, slices.masks, slices.size
    if share < 1:
        window, pixel = Window(middle((size, size)), size, size * share), (1.0, 1.0)
        images, masks = resample_image(images, pixel, window), resample_labels(masks, pixel, window, [1, 2, 3])
    seen = np.stack([minmax(clip_percentiles(image, STRETCH)) for image in images]) if len(images) else images
    table = slices.table.assign(spacing=slices.table["spacing"] * share)
    return Slices(seen.astype(np.float32), masks, table)


@dataclass(frozen=True)
class Drawn:
    """Samples of a way and its real slices, as the way has them and (`viewed`) in the common view.

    Attributes:
        run: the training. way: its way.
        real: test slices. training: as many training slices as there are samples. learnt: all of them.
        field_of_view: mm of the common view.
    """

    run: Run
    way: Way
    real: Slices
    training: Slices
    learnt: Slices
    samples: Slices
    field_of_view: float

    @property
    def share(self) -> float:
        """Of the side of a picture of this way, what the common view shows."""
        wide = float(np.median(self.learnt.table["spacing"])) * self.learnt.size
        return min(1.0, self.field_of_view / wide) if self.way.factor == "crop" else 1.0

    @cached_property
    def viewed(self) -> tuple[Slices, Slices, Slices]:
        """Test slices, samples and training slices in the common view."""
        return tuple(common_view(some, self.share) for some in (self.real, self.samples, self.training))

    def compared(self, measure: Measure) -> tuple[list[Embedding], Callable[..., float], Callable[..., float]]:
        """Test slices, samples and training slices as the measure sees them; the statistic of the first two; that of test and
        training slices."""
        sets = real, samples, training = measure.of(**dict(zip(("real", "samples", "training"), self.viewed)))
        (far,), (near,) = measure.statistics(real, samples), measure.statistics(real, training)
        return sets, far, near

    def excess(self, measure: Measure) -> Callable[..., float]:
        """A statistic of the counts of test slices, samples and training slices."""
        _, far, near = self.compared(measure)
        return lambda u, v, w: far(u, v) - near(u, w)

    @property
    def whose(self) -> list[np.ndarray]:
        """The patients of the three sets; samples of one noise bear one name in all ways."""
        return [some.patients for some in self.viewed]


def drawn(study: Study, one: Way, made: Slices, generator: Generator) -> Drawn:
    """So many samples as ``cross_vendor.synthesis_samples`` asks for, from the same noise in every way."""
    count, seed = study.params.cross_vendor.synthesis_samples, study.seed
    conditions = sampling_conditions(made, count, seed).take(np.arange(count))
    learnt = made.where(split="train")
    some = np.sort(np.random.default_rng(seed).permutation(len(learnt))[:count])
    run = way_run(one)
    return Drawn(run, one, made.where(split="test"), learnt.take(some), learnt, draw(generator, conditions, run.id, seed=seed),
                 study.params.preprocess.field_of_view)


def view_measures(study: Study, slices: Slices) -> list[Measure]:
    """Distance of anatomy and of appearance, and share of valid hearts of which the segmenter is sure. Spaces, scales and
    certainty are those of the study's own training slices in the common view."""
    frozen, training = segmenter(study, slices), common_view(slices.where(split="train", source="real"))
    spaces = [principal_spaces(frozen, training)[0], Cached(ClassicalFeatures())]
    ranges, sure = Ranges.of(training), Cached(HeartCertainty(frozen.function))
    valid = validity_of_samples(ranges, frozen, Certainty.learnt(sure, frozen, training, ranges))
    return [*panel.headline(spaces, training), valid]


def way_rows(of: Drawn, measures: Sequence[Measure], **options: int) -> list[dict[str, object]]:
    """Tidy rows: every measure of the samples. Floor: of real training slices of the same way."""
    rows = []
    for measure in measures:
        (real, samples, training), far, near = of.compared(measure)
        score = bootstrap(far, real.patients, samples.patients, n=len(samples.values), **options)
        every = (np.ones(len(some.values), int) for some in (real, training))
        metric = measure.metrics[0]
        rows.append(score.against(near(*every), float("nan")).row(PREFIX + metric.name, measure.axis, metric.better))
    return with_system_columns(of.run, rows)


def beside_real(row: Mapping[str, object]) -> list[dict[str, object]]:
    """A row of a way for a figure, with the column `way`, and one of what real slices of that way score: every way has
    bounds of its own, so they cannot be one line."""
    real = row["ceiling"] if row["metric"] == "certainty_vendor" else row["floor"]
    name, nothing = str(row["system"]).removeprefix(f"{WAY_FLOW.id}, "), dict.fromkeys(("floor", "ceiling"), np.nan)
    return [{**row, **nothing, "way": name},
            {**row, **nothing, "way": f"{name}: real", "family": "real", "value": real, "low": np.nan, "high": np.nan}]


def excess_difference(first: Drawn, second: Drawn, measure: Measure, **options: int) -> Score:
    """The excess of `first` minus that of `second`: both meet the same draw of test patients, of training patients and of
    noise."""
    one, other = first.excess(measure), second.excess(measure)
    return bootstrap(lambda *counts: one(*counts[:3]) - other(*counts[3:]), *first.whose, *second.whose,
                     n=len(first.samples), **options)


def vendor_certainty(of: Drawn, hearts: Measure, **options: int) -> list[dict[str, object]]:
    """The row ``certainty_vendor``: how sure a classifier, fitted on the way's real training slices as they
    are, is of the vendor of a sample that shows a heart: the mean of its largest probability. Floor: chance,
    1/V. Ceiling: real test slices.

    Nobody has asked for a vendor. Where the flow draws one scanner at a time, the classifier is as sure of samples as of real
    slices; where it mixes them, less. It is sure of whatever lies far from what it knows, noise above all: so samples without
    a heart do not count.

    Args:
        hearts: the share of valid hearts in the common view, one of `view_measures`.

    Returns:
        one row; none where training patients show fewer than two vendors, or fewer than `MINIMUM` samples a heart.
    """
    known = [word for word in set(of.learnt.table["vendor"]) if not names_nothing(word)]
    shown = [some.take(hearts.embed(viewed)[:, 0] > 0) for some, viewed in zip((of.real, of.samples), of.viewed)]
    if len(known) < FEWEST_VENDORS or min(map(len, shown)) < FEWEST_HEARTS:
        return []
    judge = train_condition_classifier(of.learnt, ClassicalFeatures(), "vendor")
    real, sure = (judge.judge.predict_proba(judge.space(some.images)).max(1) for some in shown)
    score = mean_score(sure, shown[1].patients, n=len(sure), **options).against(1 / len(judge.words), real.mean())
    return with_system_columns(of.run, [score.row("certainty_vendor", "conditioning", "higher")])
