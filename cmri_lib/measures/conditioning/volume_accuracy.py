"""Recognition in a whole heart: is a disease seen in the volumes?

One slice hardly shows a disease; a dilated or a thick-walled ventricle shows in its volumes (Bernard et al., IEEE Trans. Med.
Imaging 37, 2018, sec. IV-C, classify the diseases of ACDC so). The frozen segmenter measures the LV, the myocardium and
the RV in all slices of one patient and phase, and a reader that was fitted on the masks of real training patients names the
disease.

A mask betrays the disease by itself. What telling the disease adds is the difference to samples of the mask alone.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from cmri_lib.cohort.cardiac_function import areas_mm2, volume_ml
from cmri_lib.cohort.case import LABELS
from cmri_lib.cohort.slices import Slices, known
from cmri_lib.cohort.stacks import volumes_of
from cmri_lib.errors import DataError
from cmri_lib.measures.anatomy.adherence import Segment
from cmri_lib.measures.conditioning import recognition
from cmri_lib.measures.conditioning.recognition import Reader, Shown
from cmri_lib.measures.instruments.frozen import refuse_all_but_training
from cmri_lib.measures.statistics.bootstrap import Score
from cmri_lib.measures.statistics.comparison import refuse_unlike


def heart_volumes(masks: np.ndarray, table: pd.DataFrame) -> pd.DataFrame:
    """One row per volume of label maps (N, H, W), all slices of one patient, scan and phase: patient, phase, disease, and the
    volumes LV, Myo, RV in mL. Several samples of one slice make several volumes."""
    spacing, apart = known(table, "spacing"), known(table, "slice_mm")
    areas = {name: areas_mm2(masks, name, spacing**2) for name in LABELS}
    return pd.DataFrame([{"patient": patient, "phase": phase, "disease": table["disease"].iloc[rows[0]],
                          **{name: volume_ml(areas[name][rows], apart[rows]) for name in LABELS}}
                         for (patient, _, phase), rows in volumes_of(table)])


def train_volume_reader(training: Slices) -> Reader:
    """Fit a reader of the disease on the masks of real training slices, all diseases weighing the same.

    Raises:
        SplitError: if a slice is not of the training split, or is synthetic.
        DataError: if fewer than two diseases are known.
    """
    refuse_all_but_training(training, "reader of the disease")
    return recognition.train_reader("disease", _shown(heart_volumes(training.masks, training.table)))


def volume_accuracy(real: Slices, synthetic: Slices, reader: Reader, segment: Segment, *, seed: int = 0,
                    resamples: int = 1000) -> dict[str, object]:
    """The row ``accuracy_disease_volumes``: balanced accuracy of `reader` on the disease that samples were asked for.

    Floor and ceiling are those of `recognition.accuracy`. n is the number of volumes, the interval is over patients.

    Raises:
        SplitError: if `real` holds a patient of the reader's training.
        DataError: if fewer than two diseases are common to both sets, or they differ in size or intensities.
    """
    refuse_unlike(real=real, synthetic=synthetic)
    shown = (_shown(heart_volumes(segment(some.images), some.table)) for some in (real, synthetic))
    return recognition.accuracy(reader, *shown, "accuracy_disease_volumes", seed=seed, resamples=resamples)


def volume_accuracy_difference(first: Slices, second: Slices, reader: Reader, segment: Segment, *, seed: int = 0,
                               resamples: int = 1000) -> Score:
    """`volume_accuracy` of the first samples minus that of the second, drawn under the same conditions; paired.

    Raises:
        DataError: if the conditions differ, or fewer than two diseases are common to both sets.
    """
    hearts = [heart_volumes(segment(some.images), some.table) for some in (first, second)]
    if not hearts[0]["phase"].equals(hearts[1]["phase"]):
        raise DataError("the two sets follow different conditions", field="phase",
                        remedy="draw both under the same conditions, in one order")
    return recognition.accuracy_difference(reader, *map(_shown, hearts), seed=seed, resamples=resamples)


def _shown(hearts: pd.DataFrame) -> Shown:
    """Features (N, 7): logarithms of the volumes, the phase, and both together: ventricles are small at ES in health."""
    volumes = np.log1p(hearts[list(LABELS)].to_numpy(float))
    diastole = (hearts["phase"] == "ED").to_numpy(float)[:, None]
    features = np.hstack([volumes, diastole, volumes * diastole])
    return Shown(features, hearts["disease"].to_numpy(object), hearts["patient"].to_numpy())
