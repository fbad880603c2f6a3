"""Recognition: does a sample show the vendor, phase, disease or level that it was asked for?

A frozen multinomial logistic regression on a feature space, fitted on real training slices, reads the word back from
the image. The classification accuracy score (Ravuri & Vinyals, NeurIPS 2019) asks the reverse, training on samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from cmri_lib.cohort.slices import CATEGORIES, Slices
from cmri_lib.cohort.vocabulary import names_nothing
from cmri_lib.errors import DataError, SplitError
from cmri_lib.measures.instruments.frozen import refuse_all_but_training
from cmri_lib.measures.instruments.learned_features import Features
from cmri_lib.measures.statistics.bootstrap import MINIMUM, Score, bootstrap
from cmri_lib.measures.statistics.comparison import refuse_unlike

#: Inverse strength of the ridge. Learned features have seen the very slices the classifier is fitted on, so a
#: cross-validation on them would choose too large a one.
RIDGE = 0.01


@dataclass(frozen=True)
class ConditionClassifier:
    """A frozen reader of one column of words.

    Attributes:
        column: of `CATEGORIES`. space: the features it reads. judge: the fitted classifier. words: the classes it knows.
        patients: whom it has learnt from.
    """

    column: str
    space: Features
    judge: Pipeline
    words: tuple[str, ...]
    patients: frozenset[str]

    def __call__(self, images: np.ndarray, among: tuple[str, ...]) -> np.ndarray:
        """(N,) words: for each image (N, 1, H, W) the most likely of the words `among`."""
        # Of two classes sklearn's decision function has one column; probabilities always have one per class.
        chances = self.judge.predict_proba(self.space(images))[:, [self.words.index(word) for word in among]]
        return np.asarray(among, object)[chances.argmax(1)]


def train_condition_classifier(training: Slices, space: Features, column: str) -> ConditionClassifier:
    """Fit a classifier of `column` on real training slices, all classes weighing the same.

    Raises:
        SplitError: if a slice is not of the training split, or is synthetic.
        DataError: if `column` is not in `CATEGORIES`, or training patients show fewer than two of its words.
    """
    refuse_all_but_training(training, f"classifier of the {column}")
    if column not in CATEGORIES:
        raise DataError("not a column of words", field=column, remedy=f"choose among {sorted(CATEGORIES)}")
    known = training.take(~training.table[column].map(names_nothing).to_numpy(bool))
    if known.table[column].nunique() < 2:
        raise DataError(f"all training slices are of {sorted(set(known.table[column]))}", field=column,
                        remedy="recognise a column in which training patients differ")
    judge = make_pipeline(StandardScaler(), LogisticRegression(C=RIDGE, class_weight="balanced", max_iter=1000))
    judge.fit(space(known.images), known.table[column].astype(str).to_numpy(object))
    return ConditionClassifier(column, space, judge, tuple(judge.classes_), frozenset(training.patients))


def condition_accuracy(real: Slices, synthetic: Slices, classifier: ConditionClassifier, *, seed: int = 0, resamples: int = 1000
                ) -> dict[str, object]:
    """The row ``accuracy_<column>``: balanced accuracy of `classifier` on what the samples were asked for.

    The classes are the k words that the classifier knows, that occur in `real`, and that samples were asked for; it
    chooses among these only, so chance is 1/k, the **floor**. Every class weighs the same. **Ceiling**: the same
    classifier on the real test slices. A disease shows in a whole heart over a beat and hardly in one slice; there the
    ceiling lies little above the floor, and a low score says only as much as the distance between the two. A generator
    that exaggerates what it is asked for can exceed the ceiling; that is no merit. And a mask betrays level and phase
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
    if seen := sorted(classifier.patients & set(real.patients)):
        raise SplitError(f"the classifier has learnt from {len(seen)} of the real patients, e.g. {seen[:3]}",
                         field="patient", remedy='score real slices of split "test"')
    classes = _classes(classifier, real, synthetic)
    statistic, patients = _accuracy(classifier, synthetic, classes)
    ceiling, shown = _accuracy(classifier, real, classes)
    score = bootstrap(statistic, patients, n=len(patients), resamples=resamples, seed=seed)
    score = score.against(1 / len(classes), ceiling(np.ones(len(shown), int)))
    return score.row(f"accuracy_{classifier.column}", "conditioning", "higher")


def condition_accuracy_difference(first: Slices, second: Slices, classifier: ConditionClassifier, *,
                                  seed: int = 0, resamples: int = 1000) -> Score:
    """Balanced accuracy on `first` minus that on `second`, two sets of samples drawn under the same conditions.

    Paired: each draw of patients is the same for both. n is the number of samples of each set that count.
    Floor and ceiling are not given.

    Raises:
        DataError: if the conditions of the two sets differ, or fewer than two classes are left.
    """
    refuse_unlike(first=first, second=second)
    for field in ("patient", classifier.column):
        if not np.array_equal(first.table[field].to_numpy(), second.table[field].to_numpy()):
            raise DataError("the two sets follow different conditions", field=field,
                            remedy="draw both under the same conditions, in one order")
    classes = _classes(classifier, first, second)
    (one, patients), (other, _) = (_accuracy(classifier, samples, classes) for samples in (first, second))
    return bootstrap(lambda counts: one(counts) - other(counts), patients, n=len(patients), resamples=resamples,
                     seed=seed)


def lacking(classifier: ConditionClassifier, *sets: Slices) -> str:
    """Why `classifier` cannot score these sets of slices together, in words; empty if it can."""
    classes = _common(classifier, sets)
    if len(classes) < 2:
        return f"all of them have {' and '.join(classes) or 'nothing'} in common, two categories are needed"
    fewest = min(s.where(**{classifier.column: classes}).table["patient"].nunique() for s in sets)
    return "" if fewest >= MINIMUM else f"{fewest} patients, {MINIMUM} are needed"


def _common(classifier: ConditionClassifier, sets: Sequence[Slices]) -> list[str]:
    """The words of the classifier that occur in all sets."""
    return [w for w in classifier.words if all((s.table[classifier.column] == w).any() for s in sets)]


def _classes(classifier: ConditionClassifier, *sets: Slices) -> tuple[str, ...]:
    classes = _common(classifier, sets)
    if len(classes) < 2:
        raise DataError(f"classes {classes} are common to all sets that are compared", field=classifier.column,
                        remedy="give real slices and samples of at least two words of this column")
    return tuple(classes)


def _accuracy(classifier: ConditionClassifier, slices: Slices, classes: tuple[str, ...]
              ) -> tuple[Callable[[np.ndarray], float], np.ndarray]:
    """Balanced accuracy as a function of counts, over the classes a draw holds; and the patient of every slice in it."""
    slices = slices.where(**{classifier.column: classes})
    asked = slices.table[classifier.column].to_numpy(object)
    return balanced_accuracy(asked, classifier(slices.images, classes), classes), slices.patients


def balanced_accuracy(asked: np.ndarray, answered: np.ndarray, classes: Sequence[str]) -> Callable[[np.ndarray], float]:
    """Mean over `classes` of the share of right answers, (N,) words each, as a function of the (N,) counts of a draw."""
    right, of_class = answered == asked, np.stack([asked == word for word in classes])

    def balanced(counts: np.ndarray) -> float:
        total = of_class @ counts
        drawn = total > 0  # a class of few patients is missing from some draws
        return float(np.mean((of_class @ (counts * right))[drawn] / total[drawn]))

    return balanced
