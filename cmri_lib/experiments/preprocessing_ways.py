"""Other ways to preprocess a cohort, each of which changes one thing, and segmenters that learn from them.

Training and test images go the same way: nobody would normalise the ones and not the others. What is left out
of the *training* (a phase, levels of the heart) stays in the test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from joblib import delayed

from cmri_lib.cohort.case import Case
from cmri_lib.cohort.preprocessing.heart_detector import Detector
from cmri_lib.cohort.preprocessing.pipeline import PreprocessSettings, fit_landmarks, preprocess
from cmri_lib.cohort.readers.cases import read_dataset
from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.config.study import Study
from cmri_lib.errors import ParameterError
from cmri_lib.experiments.arms import Group
from cmri_lib.experiments.instruments import trained_detector
from cmri_lib.experiments.parallel import at_once, silently
from cmri_lib.experiments.utility import Student, train_arm
from cmri_lib.experiments.vendor_arms import of_vendors

#: Percentiles of the training slices that become −1 and 1 where all scans have one scale.
SCALE = (1.0, 99.0)
#: (training slices, seed) → those that are learnt from.
Keep = Callable[[Slices, int], Slices]


@dataclass(frozen=True)
class Way:
    """One way to preprocess.

    Attributes:
        factor: what it changes, in one word.
        settings: fields of `PreprocessSettings` that differ.
        one_scale: map the intensities of all scans to [−1, 1] by the same line.
        keep: which of the training slices are learnt from.
    """

    name: str
    factor: str
    settings: Mapping[str, object] = field(default_factory=dict)
    one_scale: bool = False
    keep: Keep | None = None

    def changes(self, settings: PreprocessSettings, training: Slices | None = None) -> bool:
        """Whether it differs from the study's own way. One that keeps some slices does if these are not all of `training`, and
        not none."""
        if self.keep is not None:
            return training is not None and 0 < len(self.keep(training, 0)) < len(training)
        return self.one_scale or replace(settings, **self.settings) != settings


def _of(**columns: object) -> Keep:
    return lambda slices, seed: slices.where(**columns)


def _as_many(**columns: object) -> Keep:
    """As many slices as have these values, drawn from all."""
    def keep(slices: Slices, seed: int) -> Slices:
        chosen = np.random.default_rng(seed).permutation(len(slices))[:len(slices.where(**columns))]
        return slices.take(np.sort(chosen))
    return keep


#: The names that `params.yaml` may list.
ONE_SCALE, NO_CROP = "one scale for all scans", "no crop"
ED, ES, HALF = "ED alone", "ES alone", "both phases, as many slices"
MID, THIRD = "mid-ventricle alone", "all levels, as many slices"
WAYS = {way.name: way for way in (
    Way(ONE_SCALE, "intensity", {"normalise": "none"}, one_scale=True),
    Way("min–max", "intensity", {"normalise": "minmax"}),
    Way("z-score", "intensity", {"normalise": "zscore"}),
    Way("no percentile clip", "intensity", {"clip": None}),
    Way("Nyúl's standard scale", "intensity", {"standardise": True}),
    Way("crop around the centre", "crop", {"crop": "centre"}),
    Way(NO_CROP, "crop", {"crop": "none"}),
    Way(ED, "phases", keep=_of(phase="ED")), Way(ES, "phases", keep=_of(phase="ES")),
    Way(HALF, "phases", keep=_as_many(phase="ED")),
    Way(MID, "levels", keep=_of(level="mid")), Way(THIRD, "levels", keep=_as_many(level="mid")),
)}


#: What all others are compared with.
OWN = Way("the study's own way", "none")


def way(name: str, field: str = "cross_vendor.ways") -> Way:
    """The way of that name. Raises ParameterError with the known names; `field` of ``params.yaml`` has named it."""
    if name not in WAYS:
        raise ParameterError(f"unknown way {name!r}", file="params.yaml", field=field,
                             remedy=f"choose among {list(WAYS)}")
    return WAYS[name]


def ways(study: Study, slices: Slices) -> list[Way]:
    """Those of ``cross_vendor.ways`` that differ from the study's own way on this cohort."""
    training = slices.where(split="train", source="real")
    return [one for one in map(way, study.params.cross_vendor.ways) if one.changes(study.params.preprocess, training)]


class Preprocessor:
    """The slices of a group of training patients and of all test patients, preprocessed in other ways. Scans are
    read when they are first needed, and once."""

    def __init__(self, study: Study, slices: Slices, group: Group) -> None:
        self.study, self.cohort = study, slices
        self.own = slices.where(split="train", source="real", patient=group.patients)
        self.test = slices.where(split="test", source="real")
        self._read: tuple[list[Case], Detector | None] | None = None

    def slices(self, of: Way) -> Slices:
        """Images in [−1, 1], masks and table; the standard scale, and the one scale, are learnt on the group."""
        if of is OWN:
            return concatenate([self.own, self.test])
        if of.keep is not None:
            return concatenate([of.keep(self.own, self.study.seed), self.test])
        cases, found = self._scans()
        split = dict(zip(self.cohort.patients, self.cohort.table["split"]))
        settings = replace(self.study.params.preprocess, **of.settings)
        learnt = [case for case in cases if split[case.patient] == "train"]
        landmarks = fit_landmarks(learnt, settings, found) if settings.standardise else None
        made = preprocess(cases, settings, split=split, detector=found, landmarks=landmarks)
        return one_scale(made) if of.one_scale else made

    def covariate(self, name: str) -> dict[str, object]:
        """Scan → what the cohort's table says of it in the column `name`, in whatever case; scans without it are left out."""
        found = {case.scan: {key.lower(): value for key, value in case.covariates.items()} for case in self._scans()[0]}
        return {scan: known[name] for scan, known in found.items() if known.get(name) not in (None, "")}

    def _scans(self) -> tuple[list[Case], Detector | None]:
        if self._read is None:
            params, wanted = self.study.params, {*self.own.patients, *self.test.patients}
            cohort = read_dataset(self.study.data, on_bad_case=params.cohort.on_bad_case, patients=wanted)
            cropped = params.preprocess.crop == "detector"
            self._read = cohort.cases, trained_detector(self.study, self.cohort) if cropped else None
        return self._read


def one_scale(slices: Slices) -> Slices:
    """Intensities on [−1, 1] by one line for all scans: `SCALE` of the training slices lie at its ends, what lies
    beyond is cut. That is what is left without normalisation, for networks that expect this range."""
    low, high = np.percentile(slices.where(split="train").images, SCALE)
    unit = np.clip((slices.images - low) / max(high - low, np.finfo(np.float32).tiny), 0, 1)
    return Slices((2 * unit - 1).astype(np.float32), slices.masks, slices.table, slices.tissues)


def train_ways(study: Study, made: Mapping[str, Slices], group: Group, seeds: Sequence[int]
               ) -> dict[str, list[Student]]:
    """Name of a way → segmenters of the group's slices, one for each seed."""
    arms = {name: of_vendors(Group(f"{group.name}, {name}", group.patients)) for name in made}
    jobs = [delayed(silently)(train_arm, study, arms[name], slices, seed=seed)
            for name, slices in made.items() for seed in seeds]
    at_once(study, "ways of preprocessing", jobs)
    return {name: [train_arm(study, arms[name], slices, seed=seed) for seed in seeds] for name, slices in made.items()}
