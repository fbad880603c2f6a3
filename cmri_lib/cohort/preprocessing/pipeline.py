"""From `Case` to `Slices`: bias field → crop and resample → clip → standardise → normalise → select.

Every step is switched by a field of `PreprocessSettings`, the `preprocess` section of params.yaml, and `trace` shows
what each did to a scan. What is learnt (the detector that places the crop, the standard intensity scale) is learnt on
training patients, and `preprocess` refuses what was learnt on others. Masks are resampled and describe the slices
(level, height, whether there is ground truth); no mask touches an image or the place of the crop.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from joblib import delayed

from cmri_lib.cohort.case import LABELS, PHASES, TISSUES, Case
from cmri_lib.cohort.jobs import results
from cmri_lib.cohort.preprocessing.heart_detector import Detector
from cmri_lib.cohort.preprocessing.intensity import (Landmarks, clip_percentiles, correct_bias_field, minmax, standard_scale,
                                       standardise, zscore)
from cmri_lib.cohort.preprocessing.resample import Window, label_shares, middle, on_grid, resample_image, resample_labels
from cmri_lib.cohort.slices import COLUMNS, COVARIATES, SPLITS, Slices
from cmri_lib.errors import DataError, ParameterError, SplitError

#: Thirds of the labelled height of a ventricle, from apex to base.
LEVELS = ("apical", "mid", "basal")
NORMALISE = ("minmax", "zscore", "none")
CROP = ("detector", "centre", "none")


@dataclass(frozen=True)
class PreprocessSettings:
    """What a reader may turn.

    Attributes:
        size: pixels per side of the square images.
        field_of_view: mm per side of the crop; a pixel then measures field_of_view / size mm, in every scan.
        bias_field: N4 on the stored grid.
        clip: percentiles of the crop's foreground outside which intensities are cut, or None.
        standardise: map intensities to the standard scale of the training patients (Nyúl).
        normalise: "minmax" or "zscore" to [−1, 1]; "none" leaves scanner units, or the standard scale.
        crop: "detector" around the heart that the detector finds, or as "centre" where it is not sure; "centre" around the
            centre of the image; "none" the whole field of view padded to a square (pixels then differ in mm between scans).
        phases, levels: which slices to keep.
        jobs: scans in work at once; results do not depend on it.

    Raises:
        ParameterError: if a value is out of range.
    """

    size: int = 64
    field_of_view: float = 192.0
    bias_field: bool = False
    clip: tuple[float, float] | None = (1.0, 99.0)
    standardise: bool = False
    normalise: str = "minmax"
    crop: str = "detector"
    phases: tuple[str, ...] = PHASES
    levels: tuple[str, ...] = LEVELS
    jobs: int = 2

    def __post_init__(self) -> None:
        for name in ("clip", "phases", "levels"):  # YAML knows lists only
            if isinstance(value := getattr(self, name), list):
                object.__setattr__(self, name, tuple(value))
        self._require("size", _whole(self.size) and self.size >= 8, "give whole pixels, at least 8")
        self._require("field_of_view", _number(self.field_of_view) and 0 < self.field_of_view < np.inf,
                      "give the side of the crop in mm, e.g. 192.0")
        for name in ("bias_field", "standardise"):
            self._require(name, isinstance(getattr(self, name), bool), "give true or false")
        self._require("clip", self.clip is None or _percentiles(self.clip),
                      "give null, or two rising percentiles, e.g. [1.0, 99.0]")
        for name, known in (("normalise", NORMALISE), ("crop", CROP)):
            self._require(name, getattr(self, name) in known, f"choose one of {known}")
        for name, known in (("phases", PHASES), ("levels", LEVELS)):
            value = getattr(self, name)
            good = isinstance(value, tuple) and len(value) > 0 and len(set(value)) == len(value)
            self._require(name, good and set(value) <= set(known), f"list at least one of {known}, each once")
        self._require("jobs", _whole(self.jobs) and self.jobs >= 1, "give at least 1")

    def _require(self, name: str, good: bool, remedy: str) -> None:
        if not good:
            raise ParameterError(f"{getattr(self, name)!r} cannot be used", field=f"preprocess.{name}", remedy=remedy)


def preprocess(cases: Sequence[Case], settings: PreprocessSettings, *, split: Mapping[str, str],
               detector: Detector | None = None, landmarks: Landmarks | None = None) -> Slices:
    """The labelled slices of all `cases`, in their order; within a scan by phase, then by stored slice index.

    A slice without any heart label has no ground truth and is left out (`crop_report` counts them). Intensity
    statistics are taken over the whole stack, so that they do not depend on which slices carry a label.

    Args:
        split: patient → one of `SPLITS`; all slices of a patient follow it.
        detector: from `train_detector`, for crop "detector".
        landmarks: from `fit_landmarks`, for standardise.

    Returns:
        images (N, 1, size, size) in [−1, 1] (unless normalise is "none"), masks, tissues if every case has them.

    Raises:
        ParameterError: if a step lacks what it needs.
        SplitError: if a patient has no split, or `detector` or `landmarks` learnt from a patient outside training.
        DataError: if no slice is left.
    """
    _check_split(cases, split)
    for name, learnt in (("detector", detector), ("landmarks", landmarks)):
        if learnt is not None and (seen := [p for p in learnt.patients if split.get(p, "train") != "train"]):
            raise SplitError(f"the {name} learnt from {len(seen)} patients outside training, e.g. {seen[:3]}",
                             field=name, remedy="learn it on the patients of the train split only")
    jobs = (delayed(_case_slices)(case, settings, split, detector, landmarks) for case in cases)
    parts = list(results(jobs, workers=settings.jobs, threads=True))
    rows = [row for part in parts for row in part[0]]
    if not rows:
        raise DataError("no labelled slice is left", field="preprocess",
                        remedy="widen preprocess.levels and preprocess.field_of_view, or add patients")
    images, masks = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
    known = all(part[3] is not None for part in parts)
    return Slices(images[:, None], masks, pd.DataFrame(rows, columns=[*COLUMNS, *COVARIATES]),
                  np.concatenate([part[3] for part in parts]) if known else None)


def trace(case: Case, settings: PreprocessSettings, detector: Detector | None = None,
          landmarks: Landmarks | None = None) -> dict[str, np.ndarray]:
    """Name of step → the scan after it, (2, Z, H, W) float32 with ED first, in order; only the steps switched on.

    The keys are "scan" and "bias field" on the stored grid, then "crop", "clip", "standardise" and "normalise" on the
    grid of (size, size). Raises ParameterError if a step lacks what it needs.
    """
    return _trace(case, settings, crop_window(case, settings, detector), landmarks)


def _trace(case: Case, settings: PreprocessSettings, window: Window, landmarks: Landmarks | None
           ) -> dict[str, np.ndarray]:
    image = np.stack([case.volumes[phase].image for phase in PHASES]).astype(np.float32)
    done = {"scan": image}
    if settings.bias_field:
        image = done["bias field"] = correct_bias_field(image, case.spacing)
    image = done["crop"] = resample_image(image, case.spacing[1:], window)
    if settings.clip is not None:
        image = done["clip"] = clip_percentiles(image, settings.clip)
    if settings.standardise:
        image = done["standardise"] = standardise(image, _needed(landmarks, "standardise", "fit_landmarks"))
    if settings.normalise != "none":
        done["normalise"] = (minmax if settings.normalise == "minmax" else zscore)(image)
    return done


def fit_landmarks(cases: Sequence[Case], settings: PreprocessSettings, detector: Detector | None = None) -> Landmarks:
    """The standard intensity scale of `cases`, the training patients, after the steps that precede `standardise`."""
    before = PreprocessSettings(**{**vars(settings), "standardise": False, "normalise": "none"})
    images = results((delayed(_last)(case, before, detector) for case in cases), workers=settings.jobs, threads=True)
    return standard_scale(list(images), tuple(sorted({case.patient for case in cases})))


def _last(case: Case, settings: PreprocessSettings, detector: Detector | None) -> np.ndarray:
    return list(trace(case, settings, detector).values())[-1]


def crop_window(case: Case, settings: PreprocessSettings, detector: Detector | None = None) -> Window:
    """Where `settings` crops `case`; one window for both phases and all slices. Reads no mask."""
    shape = case.volumes[PHASES[0]].image.shape[1:]
    if settings.crop == "none":
        whole = max(n * s for n, s in zip(shape, case.spacing[1:], strict=True))
        return Window(middle(shape), settings.size, whole)
    centre = middle(shape) if settings.crop == "centre" else _needed(detector, "crop", "train_detector").centre(case)
    return on_grid(Window(centre, settings.size, settings.field_of_view), case.spacing[1:])


def crop_report(cases: Sequence[Case], settings: PreprocessSettings, detector: Detector | None = None) -> pd.DataFrame:
    """What the crop keeps of every scan, one row each; the masks are the judge here, not a guide.

    Columns: patient, scan, vendor; `slices` in both phases and how many are `labelled` (the others are left out);
    `lost`, the fraction of heart-label pixels outside the crop; `margin_mm`, from the outermost heart pixel to the
    border of the crop (negative where the heart is cut); `error_mm`, from the centre of the crop to the centre of mass
    of the heart labels; `padding`, the fraction of the crop that lies outside the stored image; `confidence` of the
    detector (NaN without one), and `placed_by`: "detector", or "centre" where it was not sure enough to be followed.
    """
    jobs = (delayed(_reported)(case, settings, detector) for case in cases)
    return pd.DataFrame(results(jobs, workers=settings.jobs, threads=True))


def _reported(case: Case, settings: PreprocessSettings, detector: Detector | None) -> dict[str, object]:
    return _crop_row(case, crop_window(case, settings, detector)) | _placed(case, settings, detector)


def _placed(case: Case, settings: PreprocessSettings, detector: Detector | None) -> dict[str, object]:
    """The columns of `crop_report` about who placed the crop."""
    if settings.crop != "detector":
        return {"confidence": math.nan, "placed_by": settings.crop}
    detector = _needed(detector, "crop", "train_detector")
    confidence = detector.find(case).confidence
    return {"confidence": confidence, "placed_by": "detector" if confidence >= detector.sure else "centre"}


def _crop_row(case: Case, window: Window) -> dict[str, object]:
    spacing = np.array(case.spacing[1:])
    heart = np.stack([case.volumes[phase].mask for phase in PHASES]) > 0
    count = heart.sum(axis=(0, 1))  # (H, W)
    inside = window.contains(count.shape, case.spacing[1:])
    offset = (np.argwhere(count) - window.centre) * spacing
    mass = (np.argwhere(count) * count[count > 0][:, None]).sum(axis=0) / count.sum()
    return {"patient": case.patient, "scan": case.scan, "vendor": case.vendor, "slices": heart[:, :, 0, 0].size,
            "labelled": int(heart.any(axis=(2, 3)).sum()), "lost": float(count[~inside].sum() / count.sum()),
            "margin_mm": float(window.field_of_view / 2 - np.abs(offset).max()),
            "error_mm": float(np.hypot(*((mass - window.centre) * spacing))),
            "padding": float(1 - min(1.0, inside.sum() * spacing.prod() / window.field_of_view**2))}


def heights(case: Case) -> dict[str, np.ndarray]:
    """Phase → (Z,) position of every slice in the ventricle, 0 at the most apical and 1 at the most basal labelled
    slice of that phase, NaN where nothing is labelled; 0.5 for a single slice.

    The basal end is where the heart is larger: the side of the stack's labelled range on which the centre of mass of
    the labelled area of both phases lies. The RV alone would mislead, for a dilated one reaches far to the apex.
    """
    area = np.stack([np.count_nonzero(case.volumes[phase].mask, axis=(1, 2)) for phase in PHASES])
    place = np.arange(area.shape[1])
    labelled = np.flatnonzero(area.any(axis=0))
    basal_first = (area.sum(axis=0) * place).sum() / area.sum() <= (labelled[0] + labelled[-1]) / 2
    found = {}
    for phase, row in zip(PHASES, area, strict=True):
        ends = np.flatnonzero(row)[[0, -1]]
        apex, base = ends[::-1] if basal_first else ends
        height = np.abs(place - apex) / abs(base - apex) if base != apex else np.full(len(row), 0.5)
        found[phase] = np.where(row > 0, height, np.nan)
    return found


def level(height: float) -> str:
    """The third of the ventricle at `height` in [0, 1]: one of `LEVELS`."""
    return LEVELS[min(2, int(3 * height))]


def _case_slices(case: Case, settings: PreprocessSettings, split: Mapping[str, str], detector: Detector | None,
                 landmarks: Landmarks | None) -> tuple[list[dict], np.ndarray, np.ndarray, np.ndarray | None]:
    """Rows, images (n, S, S), masks (n, S, S) and tissues of the chosen slices of one scan."""
    window = crop_window(case, settings, detector)
    image = list(_trace(case, settings, window, landmarks).values())[-1]
    stacks = {phase: resample_labels(case.volumes[phase].mask, case.spacing[1:], window, list(LABELS.values()))
              for phase in settings.phases}
    height = heights(case)
    chosen = [(phase, z) for phase in settings.phases for z in range(image.shape[1])
              if stacks[phase][z].any() and level(height[phase][z]) in settings.levels]
    rows = [_row(case, split[case.patient], phase, z, float(height[phase][z]), window) for phase, z in chosen]
    side = (0, settings.size, settings.size)
    images = np.stack([image[PHASES.index(p), z] for p, z in chosen]) if chosen else np.zeros(side, np.float32)
    masks = np.stack([stacks[p][z] for p, z in chosen]) if chosen else np.zeros(side, np.uint8)
    return rows, images, masks, _tissues(case, window, chosen, masks)


def _tissues(case: Case, window: Window, chosen: list[tuple[str, int]], masks: np.ndarray) -> np.ndarray | None:
    """(n, S, S) tissue maps that agree with `masks`: the surroundings compete only where there is no heart."""
    if any(case.volumes[phase].tissues is None for phase in PHASES):
        return None
    if not chosen:
        return masks
    stored = np.stack([case.volumes[phase].tissues[z] for phase, z in chosen])
    around = [0, *(value for value in TISSUES.values() if value not in LABELS.values())]
    winner = label_shares(stored, case.spacing[1:], window, around).argmax(axis=0)
    return np.where(masks > 0, masks, np.array(around, np.uint8)[winner])


def _row(case: Case, split: str, phase: str, z: int, height: float, window: Window) -> dict[str, object]:
    return {"patient": case.patient, "scan": case.scan, "split": split, "dataset": case.dataset,
            "vendor": case.vendor, "centre": case.centre, "disease": case.disease, "phase": phase,
            "level": level(height), "height": height, "index": z, "spacing": window.spacing,
            "slice_mm": case.spacing[0], "source": "real", **_covariates(case)}


def _covariates(case: Case) -> dict[str, float]:
    """`COVARIATES` as the cohort's table gives them, in whatever case; NaN where it does not."""
    known = {name.lower(): value for name, value in case.covariates.items()}
    return {name: float(known[name]) if _number(known.get(name)) else math.nan for name in COVARIATES}


def _check_split(cases: Sequence[Case], split: Mapping[str, str]) -> None:
    if missing := sorted({case.patient for case in cases} - set(split)):
        raise SplitError(f"{len(missing)} patients have no split, e.g. {missing[:3]}", field="patient",
                         remedy="list every patient of the cohort in the split file")
    if unknown := sorted({split[case.patient] for case in cases} - set(SPLITS)):
        raise SplitError(f"splits {unknown} are unknown", field="split", remedy=f"use {SPLITS}")


def _needed(learnt: Detector | Landmarks | None, name: str, maker: str) -> Detector | Landmarks:
    if learnt is None:
        raise ParameterError("the step needs what is learnt on training patients", field=f"preprocess.{name}",
                             remedy=f"pass the result of {maker}, or switch the step off")
    return learnt


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _percentiles(value: object) -> bool:
    return (isinstance(value, tuple) and len(value) == 2 and all(_number(v) for v in value)
            and 0 <= value[0] < value[1] <= 100)
