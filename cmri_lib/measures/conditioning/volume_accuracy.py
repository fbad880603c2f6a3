"""Recognition of a disease: is it seen in the volumes of a whole heart?

One slice hardly shows a disease; a dilated or a thick-walled ventricle shows in its volumes (Bernard et al., IEEE Trans. Med.
Imaging 37, 2018, sec. IV-C, classify the diseases of ACDC so). The frozen segmenter measures the LV, the myocardium and
the RV in all slices of one patient and phase, and a multinomial logistic regression, fitted on the masks of real training
patients, reads the disease from them.

A mask betrays the disease by itself. What telling the disease adds is the difference to samples of the mask alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from cmri_lib.cohort.cardiac_function import areas_mm2, volume_ml
from cmri_lib.cohort.case import LABELS
from cmri_lib.cohort.slices import Slices, known
from cmri_lib.cohort.stacks import volumes_of
from cmri_lib.cohort.vocabulary import names_nothing
from cmri_lib.errors import DataError, SplitError
from cmri_lib.measures.anatomy.adherence import Segment
from cmri_lib.measures.conditioning.condition_accuracy import balanced_accuracy
from cmri_lib.measures.instruments.frozen import refuse_all_but_training
from cmri_lib.measures.statistics.bootstrap import Score, bootstrap
from cmri_lib.measures.statistics.comparison import refuse_unlike


@dataclass(frozen=True)
class VolumeReader:
    """A frozen reader of the disease: the fitted `judge`, the `words` it knows, the `patients` it has learnt from."""

    judge: Pipeline
    words: tuple[str, ...]
    patients: frozenset[str]

    def __call__(self, hearts: pd.DataFrame, among: tuple[str, ...]) -> np.ndarray:
        """(N,) words: for each row of `heart_volumes` the most likely of `among`."""
        chances = self.judge.predict_proba(_described(hearts))[:, [self.words.index(word) for word in among]]
        return np.asarray(among, object)[chances.argmax(1)]


def heart_volumes(masks: np.ndarray, table: pd.DataFrame) -> pd.DataFrame:
    """One row per volume of label maps (N, H, W), all slices of one patient, scan and phase: patient, phase, disease, and the
    volumes LV, Myo, RV in mL. Several samples of one slice make several volumes."""
    spacing, apart = known(table, "spacing"), known(table, "slice_mm")
    areas = {name: areas_mm2(masks, name, spacing**2) for name in LABELS}
    return pd.DataFrame([{"patient": patient, "phase": phase, "disease": table["disease"].iloc[rows[0]],
                          **{name: volume_ml(areas[name][rows], apart[rows]) for name in LABELS}}
                         for (patient, _, phase), rows in volumes_of(table)])


def train_volume_reader(training: Slices) -> VolumeReader:
    """Fit a reader on the masks of real training slices, all diseases weighing the same.

    Raises:
        SplitError: if a slice is not of the training split, or is synthetic.
        DataError: if fewer than two diseases are known.
    """
    refuse_all_but_training(training, "reader of the disease")
    hearts = heart_volumes(training.masks, training.table)
    hearts = hearts[~hearts["disease"].map(names_nothing).to_numpy(bool)]
    if hearts["disease"].nunique() < 2:
        raise DataError(f"all training patients are of {sorted(set(hearts['disease']))}", field="disease",
                        remedy="read the disease in a cohort whose patients differ")
    judge = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
    judge.fit(_described(hearts), hearts["disease"].astype(str).to_numpy(object))
    return VolumeReader(judge, tuple(judge.classes_), frozenset(training.patients))


def volume_accuracy(real: Slices, synthetic: Slices, reader: VolumeReader, segment: Segment, *, seed: int = 0,
                    resamples: int = 1000) -> dict[str, object]:
    """The row ``accuracy_disease_volumes``: balanced accuracy of `reader` on the disease that samples were asked for.

    Floor: chance. Ceiling: the same on the real test slices. n is the number of volumes, the interval is over patients.

    Raises:
        SplitError: if `real` holds a patient of the reader's training.
        DataError: if fewer than two diseases are common to both sets, or they differ in size or intensities.
    """
    refuse_unlike(real=real, synthetic=synthetic)
    if seen := sorted(reader.patients & set(real.patients)):
        raise SplitError(f"the reader has learnt from {len(seen)} of the real patients, e.g. {seen[:3]}", field="patient",
                         remedy='score real slices of split "test"')
    hearts = [heart_volumes(segment(s.images), s.table) for s in (real, synthetic)]
    classes = _classes(reader, *hearts)
    (ceiling, shown), (statistic, patients) = (_accuracy(reader, some, classes) for some in hearts)
    score = bootstrap(statistic, patients, n=len(patients), resamples=resamples, seed=seed)
    score = score.against(1 / len(classes), ceiling(np.ones(len(shown), int)))
    return score.row("accuracy_disease_volumes", "conditioning", "higher")


def volume_accuracy_difference(first: Slices, second: Slices, reader: VolumeReader, segment: Segment, *, seed: int = 0,
                               resamples: int = 1000) -> Score:
    """`volume_accuracy` of the first samples minus that of the second, drawn under the same conditions; paired.

    Raises:
        DataError: if the conditions differ, or fewer than two diseases are common to both sets.
    """
    hearts = [heart_volumes(segment(s.images), s.table) for s in (first, second)]
    if not hearts[0][["patient", "phase", "disease"]].equals(hearts[1][["patient", "phase", "disease"]]):
        raise DataError("the two sets follow different conditions", field="disease",
                        remedy="draw both under the same conditions, in one order")
    classes = _classes(reader, *hearts)
    (one, patients), (other, _) = (_accuracy(reader, some, classes) for some in hearts)
    return bootstrap(lambda counts: one(counts) - other(counts), patients, n=len(patients), resamples=resamples, seed=seed)


def _described(hearts: pd.DataFrame) -> np.ndarray:
    """(N, 7): logarithms of the volumes, the phase, and both together: ventricles are small at ES in health."""
    volumes = np.log1p(hearts[list(LABELS)].to_numpy(float))
    diastole = (hearts["phase"] == "ED").to_numpy(float)[:, None]
    return np.hstack([volumes, diastole, volumes * diastole])


def _classes(reader: VolumeReader, *sets: pd.DataFrame) -> tuple[str, ...]:
    classes = tuple(word for word in reader.words if all((hearts["disease"] == word).any() for hearts in sets))
    if len(classes) < 2:
        raise DataError(f"diseases {list(classes)} are common to all sets", field="disease",
                        remedy="give patients of at least two diseases")
    return classes


def _accuracy(reader: VolumeReader, hearts: pd.DataFrame, classes: tuple[str, ...]
              ) -> tuple[Callable[[np.ndarray], float], np.ndarray]:
    """Balanced accuracy as a function of counts, over the diseases a draw holds; and the patient of every volume in it."""
    hearts = hearts[hearts["disease"].isin(classes)]
    statistic = balanced_accuracy(hearts["disease"].to_numpy(object), reader(hearts, classes), classes)
    return statistic, hearts["patient"].to_numpy()
