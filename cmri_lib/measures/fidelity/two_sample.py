"""Two-sample tests by classifiers: can one distinguish samples from patients, and does it know what the samples show?

- The classifier two-sample test (Lopez-Paz & Oquab, ICLR 2017): a classifier learns to tell real from synthetic slices,
  and is scored on patients it has not seen. Half right: it cannot. The classifier is a logistic regression on a feature
  space, or a small convolutional network on the images themselves. For comparison, radiologists were right in 60 % of
  cases on diffusion samples (Özdemir & Eroğul).
- The inception score (Salimans et al., NeurIPS 2016) on the study's own classifier of level and phase instead of a
  network that knows cats.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import DataError
from cmri_lib.measures.fidelity.image_classifier import image_classifier
from cmri_lib.measures.fidelity.spectrum import embed_spectrum
from cmri_lib.measures.instruments.frozen import refuse_all_but_training
from cmri_lib.measures.instruments.learned_features import Features
from cmri_lib.measures.statistics.comparison import SHARE, Embedding, Measure, Metric, Statistic, refuse_one_patient
from cmri_lib.training import TrainSettings

#: (N, ...) descriptions of slices and (N,) 0 for real, 1 for synthetic → function that answers 0 or 1 for others.
Learn = Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]
FOLDS, IMAGE_FOLDS = 5, 3
#: Inverse strength of the ridge: some hundred slices of far fewer patients for 64 features.
RIDGE = 0.01
#: Pairs of groups of real patients behind the floor of the test on images.
IMAGE_REPEATS = 4


def classifier() -> Pipeline:
    """Logistic regression on standardised features, both classes weighing the same."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=RIDGE, class_weight="balanced", solver="newton-cholesky",
                                                              tol=1e-3))


def linear(values: np.ndarray, truth: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """`Learn` by the `classifier`."""
    return classifier().fit(values, truth).predict


def classified_right(real: Embedding, synthetic: Embedding, learn: Learn = linear, most_folds: int = FOLDS
                     ) -> tuple[np.ndarray, np.ndarray]:
    """(N,), (M,) booleans: was a slice classified rightly by a classifier that has not seen its patient?

    A sample that bears a patient's name, because it follows that patient's mask, is in that patient's fold.
    """
    values, patients = (np.concatenate([getattr(s, f) for s in (real, synthetic)]) for f in ("values", "patients"))
    truth = np.repeat([0, 1], [len(real.values), len(synthetic.values)])
    folds = min(most_folds, *(len(np.unique(s.patients)) for s in (real, synthetic)))
    right = np.empty(len(truth), bool)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for seen, unseen in _splits(truth, patients, folds):
            right[unseen] = learn(values[seen], truth[seen])(values[unseen]) == truth[unseen]
    return right[:len(real.values)], right[len(real.values):]


def _splits(truth: np.ndarray, patients: np.ndarray, folds: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Folds by patient; shuffled anew while all the few patients of one side have come into one fold, for then nothing of
    theirs is left to learn from. Raises DataError if a side has one patient."""
    for turn in range(1000):
        splits = list(GroupKFold(folds, shuffle=True, random_state=turn).split(truth, truth, patients))
        if all(len(np.unique(truth[seen])) == 2 for seen, _ in splits):
            return splits
    raise DataError("a side has too few patients to hold some out", field="patient", remedy="score at least two patients")


def two_sample_statistics(real: Embedding, synthetic: Embedding, learn: Learn = linear, most_folds: int = FOLDS
                          ) -> Sequence[Statistic]:
    """Balanced accuracy as a function of counts; the classifiers of the folds are not fitted anew."""
    refuse_one_patient(real, synthetic)  # of whom nothing can be held out
    x, y = classified_right(real, synthetic, learn, most_folds)
    return (lambda u, v: float((np.average(x, weights=u) + np.average(y, weights=v)) / 2),)


def two_sample(features: Features, *, with_spectrum: bool = False) -> Measure:
    """The measure that gives ``c2st_<space>``: balanced accuracy, 0.5 is best, 1 means always told apart (lower is better).

    Below 0.5 it cannot tell either: with few patients per side, holding one out moves the mean of the rest away from it,
    so cross-validation by patient errs downwards. Read it against the floor, which errs alike.

    `with_spectrum` lets the classifier see the radial spectrum too (``c2st_<space>_spectrum``).
    """
    def embed(slices: Slices) -> np.ndarray:
        values = features(slices.images)
        return np.concatenate([values, embed_spectrum(slices)], axis=1) if with_spectrum else values

    name = f"c2st_{features.name}" + ("_spectrum" if with_spectrum else "")
    return Measure((Metric(name, "lower", 0.5, scale=SHARE),), embed, two_sample_statistics, most_repeats=10)


def two_sample_of_images(settings: TrainSettings) -> Measure:
    """The measure that gives ``c2st_image``: as `two_sample`, by a convolutional network on the images. It sees any texture
    that it can learn from some hundred slices, so it is the one to set beside what radiologists answer.

    A network is fitted for each fold of each pair of sets, so floor and ceiling are means of `IMAGE_REPEATS` pairs only, and
    the floor's interval is hardly more than their range. In theory the floor is 0.5: read it as a check of that.
    """
    return Measure((Metric("c2st_image", "lower", 0.5, scale=SHARE),), lambda slices: slices.images,
                   partial(two_sample_statistics, learn=image_classifier(settings), most_folds=IMAGE_FOLDS),
                   most_repeats=IMAGE_REPEATS)


def inception_score(features: Features, training: Slices) -> Measure:
    """The measure that gives ``inception_<space>``: exp of the mean of KL(p(y|x) ‖ p(y)) over samples x.

    Class y is level × phase; p(y|x) comes from a multinomial logistic regression on the frozen features of real
    training slices. 1: every sample looks alike to it; number of classes (the bound): all sure and evenly spread.
    Higher is better, up to the floor, what real slices score. The score never looks at real images itself, so it sees
    neither memory nor a wrong contrast.

    Raises:
        SplitError: if `training` holds any but real training slices.
        DataError: if they are all of one level and phase.
    """
    refuse_all_but_training(training, "classifier of the inception score")
    labels = training.table["level"].astype(str) + " " + training.table["phase"].astype(str)
    if labels.nunique() < 2:
        raise DataError(f"all training slices are {labels.iloc[0]}", field="level",
                        remedy="leave the inception score out, or give slices of several levels or phases")
    judge = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-3, max_iter=300))
    judge.fit(features(training.images), labels)

    def embed(slices: Slices) -> np.ndarray:
        return judge.predict_proba(features(slices.images))

    return Measure((Metric(f"inception_{features.name}", "higher", float(labels.nunique())),), embed,
                   inception_statistics)


def inception_statistics(real: Embedding, synthetic: Embedding) -> Sequence[Statistic]:
    """The inception score of probabilities (M, C) as a function of counts: exp(H[mean p] − mean H[p])."""
    p = synthetic.values
    entropies = entropy(p)
    return (lambda u, v: float(np.exp(entropy(v @ p / v.sum()) - np.average(entropies, weights=v))),)


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Entropy in nats over the last axis, with 0 log 0 = 0."""
    logarithm = np.log(np.where(probabilities > 0, probabilities, 1.0))
    return -(probabilities * logarithm).sum(-1)
