"""The study's frozen instruments, the same for every system: one detector, two segmenters, and the feature spaces.

Each is trained by notebook 01, on real training patients, and loaded by the same call wherever it is needed again. One that is
published with the trainings of a cohort is loaded from there: a detector that was trained again would crop other images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cmri_lib.cohort.case import Case
from cmri_lib.cohort.preprocessing.heart_detector import Detector, HeartNet, train_detector
from cmri_lib.cohort.slices import Slices
from cmri_lib.config.study import Study
from cmri_lib.errors import DataError
from cmri_lib.experiments.published import restore
from cmri_lib.measures.instruments.classical_features import ClassicalFeatures
from cmri_lib.measures.instruments.learned_features import Cached, train_features
from cmri_lib.measures.instruments.principal_features import anatomy_features, component_features
from cmri_lib.measures.instruments.published_features import PublishedFeatures
from cmri_lib.measures.instruments.second_segmenter import train_second_segmenter
from cmri_lib.measures.instruments.segmenter import train_segmenter
from cmri_lib.training import TrainSettings
from cmri_lib.training.checkpoint import load_weights


def load_slices(study: Study) -> Slices:
    """The preprocessed cohort that notebook 01 saved. Raises DataError, which says how to prepare it, where it is not."""
    if not (file := study.work("slices") / "slices.safetensors").exists():
        raise DataError("no such file", file=file,
                        remedy=f"prepare the cohort: python -m cmri_lib.run 01 --profile {study.profile} "
                               f"--dataset {study.dataset}")
    return Slices.load(file.parent)


def trainings(study: Study) -> dict[Path, TrainSettings]:
    """Where each instrument is trained, and with which settings."""
    params, seed = study.params.instruments, study.seed
    settings = {"detector": params.detector, "segmenter": params.segmenter, "features": params.features}
    return {study.work("instruments") / name: replace(one, seed=seed) for name, one in settings.items()} | {
        study.work("instruments") / "second_segmenter": replace(params.second_segmenter, seed=seed + 1)}


def _place(study: Study, name: str) -> tuple[TrainSettings, Path]:
    """Settings and folder of an instrument, which lies there if it is published."""
    folder = study.work("instruments") / name
    restore(study, folder, settings := trainings(study)[folder])
    return settings, folder


def detector(study: Study, training_cases: Sequence[Case]) -> Detector:
    """The heart detector, trained or loaded."""
    settings, folder = _place(study, "detector")
    return train_detector(training_cases, folder, settings)


def trained_detector(study: Study, slices: Slices) -> Detector:
    """The detector that has placed the crops of `slices`, the preprocessed cohort, as notebook 01 left it: its training
    needs every training scan, this does not."""
    network = HeartNet()
    load_weights(network, study.work("instruments") / "detector" / "weights.safetensors")
    return Detector(network, tuple(sorted(set(slices.where(split="train").patients))))


def segmenter(study: Study, slices: Slices) -> Cached:
    """The frozen segmenter, trained on the real training slices or loaded."""
    real = slices.where(split="train", source="real")
    return Cached(train_segmenter(real, *_place(study, "segmenter"), widths=study.params.instruments.widths))


def second_segmenter(study: Study, slices: Slices) -> Cached:
    """The frozen segmenter of another architecture, trained on the same slices with another seed, or loaded."""
    real = slices.where(split="train", source="real")
    return Cached(train_second_segmenter(real, *_place(study, "second_segmenter")))


def feature_spaces(study: Study, slices: Slices) -> list[Cached]:
    """The study's own frozen features and the training-free ones."""
    real = slices.where(split="train", source="real")
    return [Cached(train_features(real, *_place(study, "features"))), Cached(ClassicalFeatures())]


def published_space(study: Study) -> list[Cached]:
    """The features of a ResNet-50, if `instruments.published` names a file of weights."""
    given = study.params.instruments.published
    return [Cached(PublishedFeatures(study.root / given.weights, given.intensity))] if given.weights else []


def principal_spaces(segmenter: Cached, slices: Slices) -> list[Cached]:
    """Principal components of the training slices: of the segmenter's deepest map, and of the pixels."""
    real = slices.where(split="train", source="real")
    return [Cached(anatomy_features(segmenter.function, real)), Cached(component_features(real))]
