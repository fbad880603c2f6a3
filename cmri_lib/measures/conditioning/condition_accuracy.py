"""Recognition in one image: does a sample show the vendor, phase, disease or level that it was asked for?

The reader works on a feature space. The classification accuracy score (Ravuri & Vinyals, NeurIPS 2019) asks the reverse,
training on samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cmri_lib.cohort.slices import CATEGORIES, Slices
from cmri_lib.errors import DataError
from cmri_lib.measures.conditioning import recognition
from cmri_lib.measures.conditioning.recognition import Reader, Shown
from cmri_lib.measures.instruments.frozen import refuse_all_but_training
from cmri_lib.measures.instruments.learned_features import Features
from cmri_lib.measures.statistics.bootstrap import MINIMUM, Score
from cmri_lib.measures.statistics.comparison import refuse_unlike

#: Inverse strength of the ridge. Learned features have seen the very slices the classifier is fitted on, so a
#: cross-validation on them would choose too large a one.
RIDGE = 0.01


@dataclass(frozen=True)
class ConditionClassifier(Reader):
    """A frozen reader of one column of `CATEGORIES` from the features in `space`."""

    space: Features

    def __call__(self, images: np.ndarray, among: tuple[str, ...]) -> np.ndarray:
        """(N,) words: for each image (N, 1, H, W) the most likely of the words `among`."""
        return self.read(self.space(images), among)


def train_condition_classifier(training: Slices, space: Features, column: str) -> ConditionClassifier:
    """Fit a classifier of `column` on real training slices, all classes weighing the same.

    Raises:
        SplitError: if a slice is not of the training split, or is synthetic.
        DataError: if `column` is not in `CATEGORIES`, or training patients show fewer than two of its words.
    """
    refuse_all_but_training(training, f"classifier of the {column}")
    if column not in CATEGORIES:
        raise DataError("not a column of words", field=column, remedy=f"choose among {sorted(CATEGORIES)}")
    return ConditionClassifier(**vars(recognition.train_reader(column, _shown(training, space, column), RIDGE)), space=space)


def condition_accuracy(real: Slices, synthetic: Slices, classifier: ConditionClassifier, *, seed: int = 0, resamples: int = 1000
                ) -> dict[str, object]:
    """The row ``accuracy_<column>``: balanced accuracy of `classifier` on what the samples were asked for.

    Floor and ceiling are those of `recognition.accuracy`. A disease shows in a whole heart over a beat and hardly in one
    slice; there the ceiling lies little above the floor, and a low score says only as much as the distance between the two. A
    generator that exaggerates what it is asked for can exceed the ceiling; that is no merit. And a mask betrays level and phase
    by itself: what a word adds to it is the `condition_accuracy_difference` over samples of the mask alone.

    Args:
        real: real test slices of patients the classifier has not seen.
        synthetic: samples; their table says what each was asked for. "unknown", "other" and words that are no class
            are left out.

    Returns:
        a tidy row; n is the number of samples that count, the interval is over their patients.

    Raises:
        SplitError: if `real` holds a patient of the classifier's training.
        DataError: if fewer than two classes are left, or the sets differ in size or intensities.
    """
    refuse_unlike(real=real, synthetic=synthetic)
    shown = (_shown(some, classifier.space, classifier.column) for some in (real, synthetic))
    return recognition.accuracy(classifier, *shown, f"accuracy_{classifier.column}", seed=seed, resamples=resamples)


def condition_accuracy_difference(first: Slices, second: Slices, classifier: ConditionClassifier, *,
                                  seed: int = 0, resamples: int = 1000) -> Score:
    """`condition_accuracy` of the first samples minus that of the second, drawn under the same conditions; paired.

    Raises:
        DataError: if the conditions of the two sets differ, or fewer than two classes are left.
    """
    refuse_unlike(first=first, second=second)
    shown = (_shown(some, classifier.space, classifier.column) for some in (first, second))
    return recognition.accuracy_difference(classifier, *shown, seed=seed, resamples=resamples)


def lacking(classifier: ConditionClassifier, *sets: Slices) -> str:
    """Why `classifier` cannot score these sets of slices together, in words; empty if it can."""
    classes = classifier.common(*(some.table[classifier.column].to_numpy(object) for some in sets))
    if len(classes) < 2:
        return f"all of them have {' and '.join(classes) or 'nothing'} in common, two categories are needed"
    fewest = min(some.where(**{classifier.column: classes}).table["patient"].nunique() for some in sets)
    return "" if fewest >= MINIMUM else f"{fewest} patients, {MINIMUM} are needed"


def _shown(slices: Slices, space: Features, column: str) -> Shown:
    return Shown(space(slices.images), slices.table[column].to_numpy(object), slices.patients)
