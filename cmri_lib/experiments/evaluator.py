"""The one evaluator: one set of conditions, instruments and measures for every system, whoever asks.

`Evaluator.rows` turns a bank of samples into tidy rows: distances to real patients whose masks were not used, the
anatomy that the frozen segmenter sees, adherence to the mask where there is one (in the eyes of a second segmenter too), and,
if asked, the near-copy audit.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd

from cmri_lib.cohort.slices import Slices
from cmri_lib.config.study import Study
from cmri_lib.errors import ParameterError
from cmri_lib.experiments import instruments
from cmri_lib.experiments.banks import sampling_conditions
from cmri_lib.generators.base import Generator, draw
from cmri_lib.measures import panel
from cmri_lib.measures.anatomy.adherence import SCORES, adherence, adherence_bounds, adherence_difference
from cmri_lib.measures.anatomy.validity import Certainty, Ranges, validity_of_samples
from cmri_lib.measures.fidelity.distances import distances
from cmri_lib.measures.fidelity.textbook import textbook
from cmri_lib.measures.instruments.certainty import HeartCertainty
from cmri_lib.measures.instruments.learned_features import Cached, Features
from cmri_lib.measures.statistics.bootstrap import Score
from cmri_lib.measures.statistics.comparison import Banks, Measure, ceilings, compare, differences, floors, trainings
from cmri_lib.privacy.nearest_neighbours import Audit, Pixels, audit_neighbours
from cmri_lib.reporting.results import Named, with_system_columns

#: The metric of adherence that the second segmenter gives, and the column of `agreement` that it is.
SECOND, ADHERENCE = "dice_mean_second", "dice_mean"
Chosen = Literal["distance", "brief", "all"] | Sequence[Measure]


class Evaluator:
    """``evaluator.rows(run, evaluator.bank(run, generator))``.

    Args:
        slices: the preprocessed cohort.
        samples: how many are drawn from every system; `conditions` are so many slices of test patients.
        measures: "distance" (of anatomy, of appearance, and in the study's own features), "brief" (and valid hearts), "all"
            (the whole panel), or a list.
        real: splits that samples are compared with. By default other patients than those of the conditions, because a
            sample that follows a patient's mask shares that patient's peculiarities.

    Attributes:
        test, training, holdout, others: real slices of those splits; `others` is what samples are compared with.
        options: seed and resamples of every bootstrap.
    """

    def __init__(self, study: Study, slices: Slices, samples: int, measures: Chosen = "brief", *,
                 real: Sequence[str] = ("validation", "holdout")):
        self.study, self.slices, self.samples, self._chosen = study, slices, samples, measures
        self.test, self.training, self.holdout = (slices.where(split=s) for s in ("test", "train", "holdout"))
        self.others = slices.where(split=list(real))
        self.reference = slices.where(split=[s for s in ("validation", "test", "holdout") if s not in real])
        self.conditions = sampling_conditions(slices, samples, study.seed)
        fidelity = study.params.fidelity
        self.options = {"seed": study.seed, "resamples": fidelity.resamples}
        self._chance = {"seed": study.seed, "repeats": fidelity.repeats}

    @cached_property
    def spaces(self) -> list[Features]:
        """The study's own feature space and the training-free one."""
        return instruments.feature_spaces(self.study, self.slices)

    @cached_property
    def headline(self) -> list[Features]:
        """The spaces of the headline distances, anatomy and appearance, and the one that knows no labels."""
        anatomy, components = instruments.principal_spaces(self.segmenter, self.slices)
        return [anatomy, self.spaces[1], components]

    @cached_property
    def segmenter(self) -> Cached:
        """The frozen segmenter."""
        return instruments.segmenter(self.study, self.slices)

    @cached_property
    def second_segmenter(self) -> Cached:
        """The frozen segmenter of another architecture, for adherence alone."""
        return instruments.second_segmenter(self.study, self.slices)

    @cached_property
    def measures(self) -> list[Measure]:
        """What is computed of every bank."""
        if not isinstance(self._chosen, str):
            return list(self._chosen)
        headline = panel.headline(self.headline, self.training)
        brief = [*headline[:2], distances(self.spaces[0])]
        if self._chosen == "distance":
            return brief
        ranges, sure = Ranges.of(self.training), Cached(HeartCertainty(self.segmenter.function))
        valid = validity_of_samples(ranges, self.segmenter, Certainty.learnt(sure, self.segmenter, self.training, ranges))
        if self._chosen == "brief":
            return [*brief, valid]
        published = [textbook(space) for space in instruments.published_space(self.study)]
        return [*headline, *panel.measures(self.spaces, training=self.training, segment=self.segmenter,
                                            images=self.study.params.fidelity.image_classifier), *published, valid]

    @cached_property
    def bounds(self) -> dict[Measure, dict[str, dict]]:
        """Floor and ceiling of every measure, at as many slices as `conditions` has."""
        size = len(self.conditions)
        return {m: {"floor": floors(self.others, size, m, reference_real=self.reference, **self._chance),
                    "ceiling": ceilings(self.others, self.training, size, m, **self._chance)} for m in self.measures}

    @cached_property
    def adherence_bounds(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Floor and ceiling of adherence, see `measures.anatomy.adherence`."""
        return adherence_bounds(self.test, self.segmenter, self.study.seed)

    @cached_property
    def second_bounds(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The same for the second segmenter."""
        return adherence_bounds(self.test, self.second_segmenter, self.study.seed)

    def bank(self, of: Named, generator: Generator, **choices: object) -> Slices:
        """Samples under the evaluator's conditions, not saved; `choices` are for the sampler."""
        return draw(generator, self.conditions, of.id, seed=self.study.seed, **choices)

    def rows(self, of: Named | str, bank: Banks) -> list[dict[str, object]]:
        """Tidy rows of every measure, and of adherence where the samples follow masks. A list of banks, one of each
        training of a system, is scored by its mean: the interval is then over patients and seeds."""
        scores = [row for measure, bound in self.bounds.items()
                  for row in compare(self.others, bank, measure, **bound, **self.options)
                  if np.isfinite(row["floor"])]  # not so for structures that nobody has labelled
        return with_system_columns(of, scores + self.adherence(bank))

    def adherence(self, bank: Banks) -> list[dict[str, object]]:
        """Rows of agreement with the mask, and the mean Dice that the second segmenter finds; none for samples without a
        mask, or masks without images."""
        if not all(one.masks.any() and one.images.any() for one in trainings(bank)):
            return []
        rows = adherence(self.test, bank, self.segmenter, bounds=self.adherence_bounds, **self.options)
        again = adherence(self.test, bank, self.second_segmenter, bounds=self.second_bounds, **self.options)
        return rows + [row | {"metric": SECOND} for row in again if row["metric"] == ADHERENCE]

    def audit(self, bank: Slices, training: Slices | None = None, space: Features | None = None) -> Audit:
        """Near copies: are samples nearer to `training` (by default all training slices) than to the hold-out?"""
        seen = self.training if training is None else training
        return audit_neighbours(self.test, bank, seen, self.holdout, space or self.spaces[0], **self.options)

    def audits(self, bank: Slices, training: Slices | None = None) -> dict[str, Audit]:
        """The same in the study's own features and in the pixels themselves: name of the space → audit."""
        return {space.name: self.audit(bank, training, space) for space in (self.spaces[0], Pixels())}

    def real_rows(self) -> list[dict[str, object]]:
        """Real against real in the place of a system: the floor as a row of its own."""
        rows = []
        for measure, bound in self.bounds.items():
            better = {m.name: "lower" if m.better == "zero" else m.better for m in measure.metrics}
            rows += [score.against(score.value, bound["ceiling"][name]).row(name, measure.axis, better[name])
                     for name, score in bound["floor"].items() if np.isfinite(score.value)]
        return with_system_columns("real", rows)

    def floor(self, metric: str) -> Score:
        """What real patients score against real patients."""
        return self.bounds[self._measure_of(metric)]["floor"][metric]

    def difference(self, first: Banks, second: Banks, metric: str) -> Score:
        """`metric` of the first bank minus that of the second, paired over patients (and trainings): a metric of `measures`,
        a column of `adherence.agreement` such as "dice_mean", or "dice_mean_second". Of unequally many trainings the first of
        either are compared."""
        first, second = trainings(first), trainings(second)
        fewest = min(len(first), len(second))
        first, second = first[:fewest], second[:fewest]
        if metric == SECOND:
            return adherence_difference(first, second, self.second_segmenter, ADHERENCE, **self.options)
        if metric.startswith(SCORES):
            return adherence_difference(first, second, self.segmenter, metric, **self.options)
        return differences(self.others, first, second, self._measure_of(metric), **self.options)[metric]

    def _measure_of(self, metric: str) -> Measure:
        for measure in self.measures:
            if metric in {m.name for m in measure.metrics}:
                return measure
        known = [m.name for measure in self.measures for m in measure.metrics]
        raise ParameterError(f"{metric!r} is not measured here", field="metric", remedy=f"choose among {known}")
