"""Recognition: is a word that a sample was asked for, a vendor or a disease, read back from it?

A frozen multinomial logistic regression, fitted on features of real training patients, names the word. What the features
are, of an image or of a whole heart, is said by `condition_accuracy` and `volume_accuracy`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from cmri_lib.cohort.vocabulary import names_nothing
from cmri_lib.errors import DataError, SplitError
from cmri_lib.measures.statistics.bootstrap import Score, bootstrap


@dataclass(frozen=True)
class Shown:
    """What a word is read from: `features` (N, D), and of each row the word it was `asked` for, and its patient."""

    features: np.ndarray
    asked: np.ndarray
    patients: np.ndarray

    def of(self, words: Sequence[str]) -> Shown:
        """The rows that were asked for one of `words`."""
        rows = np.isin(self.asked.astype(str), words)
        return Shown(self.features[rows], self.asked[rows], self.patients[rows])


@dataclass(frozen=True)
class Reader:
    """A frozen reader of one `column`: the fitted `judge`, the `words` it knows, the `patients` it has learnt from."""

    column: str
    judge: Pipeline
    words: tuple[str, ...]
    patients: frozenset[str]

    def read(self, features: np.ndarray, among: Sequence[str]) -> np.ndarray:
        """(N,) words: for each row of features (N, D) the most likely of the words `among`."""
        # Of two classes sklearn's decision function has one column; probabilities always have one per class.
        chances = self.judge.predict_proba(features)[:, [self.words.index(word) for word in among]]
        return np.asarray(among, object)[chances.argmax(1)]

    def common(self, *asked: np.ndarray) -> tuple[str, ...]:
        """The words it knows that occur in each of these arrays."""
        return tuple(word for word in self.words if all((some == word).any() for some in asked))


def train_reader(column: str, training: Shown, inverse_ridge: float = 1.0) -> Reader:
    """Fit a reader of `column` on what real training patients show, all words weighing the same.

    Raises:
        DataError: if fewer than two words are known.
    """
    known = training.of([word for word in sorted(set(training.asked)) if not names_nothing(word)])
    if len(found := sorted(set(known.asked))) < 2:
        raise DataError(f"all training patients are of {found}", field=column,
                        remedy="recognise a column in which training patients differ")
    judge = make_pipeline(StandardScaler(), LogisticRegression(C=inverse_ridge, class_weight="balanced", max_iter=1000))
    judge.fit(known.features, known.asked.astype(str).astype(object))
    return Reader(column, judge, tuple(judge.classes_), frozenset(training.patients))


def accuracy(reader: Reader, real: Shown, synthetic: Shown, metric: str, *, seed: int, resamples: int) -> dict[str, object]:
    """The row `metric`: balanced accuracy of `reader` on what the samples were asked for.

    The classes are the k words that the reader knows, that occur in `real`, and that samples were asked for; it chooses
    among these only, so chance is 1/k, the **floor**. Every class weighs the same. **Ceiling**: the same on `real`. n is the
    number of rows of `synthetic` that count; the interval is over their patients.

    Raises:
        SplitError: if `real` holds a patient that the reader has learnt from.
        DataError: if fewer than two classes are left.
    """
    if seen := sorted(reader.patients & set(real.patients)):
        raise SplitError(f"the reader of the {reader.column} has learnt from {len(seen)} of the real patients, e.g. {seen[:3]}",
                         field="patient", remedy='score real slices of split "test"')
    classes = _classes(reader, real, synthetic)
    real, synthetic = real.of(classes), synthetic.of(classes)
    score = bootstrap(_balanced(reader, synthetic, classes), synthetic.patients, n=len(synthetic.patients), resamples=resamples,
                      seed=seed)
    ceiling = _balanced(reader, real, classes)(np.ones(len(real.patients), int))
    return score.against(1 / len(classes), ceiling).row(metric, "conditioning", "higher")


def accuracy_difference(reader: Reader, first: Shown, second: Shown, *, seed: int, resamples: int) -> Score:
    """Balanced accuracy on `first` minus that on `second`, two sets of samples drawn under the same conditions.

    Paired: each draw of patients is the same for both. n is the number of rows of each that count. Floor and ceiling are not
    given.

    Raises:
        DataError: if the conditions of the two sets differ, or fewer than two classes are left.
    """
    for field, one, other in (("patient", first.patients, second.patients), (reader.column, first.asked, second.asked)):
        if not np.array_equal(one, other):
            raise DataError("the two sets follow different conditions", field=field,
                            remedy="draw both under the same conditions, in one order")
    classes = _classes(reader, first, second)
    one, other = (_balanced(reader, shown.of(classes), classes) for shown in (first, second))
    patients = first.of(classes).patients
    return bootstrap(lambda counts: one(counts) - other(counts), patients, n=len(patients), resamples=resamples, seed=seed)


def _classes(reader: Reader, *sets: Shown) -> tuple[str, ...]:
    classes = reader.common(*(shown.asked for shown in sets))
    if len(classes) < 2:
        raise DataError(f"classes {list(classes)} are common to all sets that are compared", field=reader.column,
                        remedy="give real slices and samples of at least two words of this column")
    return classes


def _balanced(reader: Reader, shown: Shown, classes: Sequence[str]) -> Callable[[np.ndarray], float]:
    """Mean over `classes` of the share of right answers, as a function of the (N,) counts of a draw."""
    right, of_class = reader.read(shown.features, classes) == shown.asked, np.stack([shown.asked == word for word in classes])

    def balanced(counts: np.ndarray) -> float:
        total = of_class @ counts
        drawn = total > 0  # a class of few patients is missing from some draws
        return float(np.mean((of_class @ (counts * right))[drawn] / total[drawn]))

    return balanced
