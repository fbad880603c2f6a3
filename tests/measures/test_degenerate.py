"""Every measure on sets that are too small, empty, constant or unlike: a value, or a `DataError` that names the remedy.

Never NaN (but for the size of a structure that one side shows nowhere), an error of numpy or an assert.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
from conftest import discs

from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import DataError
from cmri_lib.measures.anatomy.adherence import adherence, adherence_difference, agreement
from cmri_lib.measures.anatomy.mask_overlap import mask_diversity
from cmri_lib.measures.anatomy.shapes import anatomy_of_masks
from cmri_lib.measures.anatomy.validity import Ranges, validity_of_masks, validity_of_samples
from cmri_lib.measures.conditioning.condition_accuracy import (condition_accuracy, condition_accuracy_difference,
                                                               train_condition_classifier)
from cmri_lib.measures.conditioning.fixed_mask import fixed_mask_diversity, repeated
from cmri_lib.measures.fidelity.distances import distances
from cmri_lib.measures.fidelity.two_sample import inception_score, two_sample
from cmri_lib.measures.instruments.classical_features import ClassicalFeatures
from cmri_lib.measures.instruments.learned_features import Cached
from cmri_lib.measures.panel import measures, plain_values
from cmri_lib.measures.statistics.bootstrap import bootstrap, mean_score, score_difference
from cmri_lib.measures.statistics.comparison import ceilings, compare, differences, floors, refuse_unlike
from cmri_lib.measures.utility.downstream import tstr, tstr_difference
from cmri_lib.privacy.mask_memory import mask_memory
from cmri_lib.privacy.nearest_neighbours import Pixels, audit_neighbours
from cmri_lib.reporting.claims import Ledger
from cmri_lib.training import TrainSettings

Rows = list[dict[str, object]]
FEW = {"resamples": 4}


def segment(images: np.ndarray) -> np.ndarray:
    return np.select([images[:, 0] > 0.2, images[:, 0] > -0.55], [1, 2], 0).astype(np.uint8)


SPACE = Cached(ClassicalFeatures())
#: Slices of a patient.
EACH = 3
TRAINING, HOLDOUT, OTHERS, REAL, MADE = (discs(6, EACH, 24, seed, split) for seed, split in
                                         enumerate(("train", "holdout", "other", "test", "made")))
VENDOR = train_condition_classifier(TRAINING, Pixels(), "vendor")
RANGES = Ranges.of(TRAINING)
MEASURES = [*measures([SPACE], training=TRAINING, segment=segment, images=TrainSettings(steps=2, batch=4)),
            two_sample(SPACE, with_spectrum=True), anatomy_of_masks(), validity_of_masks(RANGES),
            validity_of_samples(RANGES, segment), mask_diversity(20), mask_memory(TRAINING)]
JUDGES: dict[str, Callable[[Slices, Slices], Rows]] = {
    **{m.metrics[0].name: (lambda real, made, m=m: compare(real, made, m, repeats=2, **FEW)) for m in MEASURES},
    "adherence": lambda real, made: adherence(real, made, segment, **FEW),
    "condition accuracy": lambda real, made: [condition_accuracy(real, made, VENDOR, **FEW)],
    "fixed mask": lambda real, made: fixed_mask_diversity(repeated(made, 2), 2, **FEW),
    "downstream": lambda real, made: tstr(real, segment, segment, **FEW),
    "audit": lambda real, made: audit_neighbours(real, made, TRAINING, HOLDOUT, SPACE, **FEW).rows,
    "audit of a hold-out": lambda real, made: audit_neighbours(OTHERS, made, TRAINING, real, SPACE, **FEW).rows,
    "audit of training": lambda real, made: audit_neighbours(OTHERS, made, real, HOLDOUT, SPACE, **FEW).rows,
}


def with_images(slices: Slices, images: np.ndarray) -> Slices:
    return Slices(images.astype(np.float32), slices.masks, slices.table)


def constant(slices: Slices, value: float = 0.0) -> Slices:
    return with_images(slices, np.full_like(slices.images, value))


def unlabelled(slices: Slices) -> Slices:
    return Slices(slices.images, 0 * slices.masks, slices.table)


def first(slices: Slices, count: int) -> Slices:
    return slices.take(np.arange(count))


LARGER = discs(6, EACH, 32, 4, "made")
CASES = {
    "no samples": (REAL, first(MADE, 0)), "no real slices": (first(REAL, 0), MADE),
    "one sample": (REAL, first(MADE, 1)), "one real slice": (first(REAL, 1), MADE),
    "samples of one patient": (REAL, first(MADE, EACH)), "one real patient": (first(REAL, EACH), MADE),
    "samples of two patients": (REAL, first(MADE, 2 * EACH)), "two real patients": (first(REAL, 2 * EACH), MADE),
    "two slices of two patients": (REAL.take([0, EACH]), MADE.take([0, EACH])),
    "fewer than k": (first(REAL, 5), first(MADE, 5)),
    "constant samples": (REAL, constant(MADE)), "dark samples": (REAL, constant(MADE, -1)),
    "constant everything": (constant(REAL), constant(MADE)), "dark and constant": (constant(REAL, -1), constant(MADE)),
    "one image": (REAL, with_images(MADE, np.repeat(MADE.images[:1], len(MADE), 0))),
    "samples without masks": (REAL, unlabelled(MADE)), "real slices without masks": (unlabelled(REAL), MADE),
    "no masks": (unlabelled(REAL), unlabelled(MADE)),
}
#: Who may have no value: of a structure that is nowhere to be seen or found, of samples that lie beside the data.
SIZES = ("anatomy_w1_", "mask_w1_", "dice_RV", "hd95_RV", "missed_RV", "downstream_hd95_", "nearest_share_", "nearest_excess_")


AUDITS = {"audit", "audit of a hold-out", "audit of training"}
#: All that `compare` scores, which takes two images of each side.
COMPARED = {"frechet_classical", "precision_classical", "c2st_classical", "kid_textbook_classical", "spectrum_db",
            "ms_ssim_pairs", "c2st_image", "inception_classical", "anatomy_w1_lv_cm2", "c2st_classical_spectrum",
            "mask_w1_lv_cm2", "mask_valid", "heart_valid", "mask_dice_pairs", "mask_nearest_dice"}
#: Who needs several patients on each side.
APART = {"frechet_classical", "precision_classical", "c2st_classical", "kid_textbook_classical", "c2st_image",
         "c2st_classical_spectrum", "condition accuracy"}
#: Case → the judges that refuse it; all others have a value.
REFUSED = {
    "no samples": COMPARED | AUDITS | {"adherence", "condition accuracy", "fixed mask"},
    "no real slices": COMPARED | AUDITS | {"adherence", "condition accuracy", "downstream"},
    "one sample": COMPARED | AUDITS | {"condition accuracy"}, "one real slice": COMPARED | {"condition accuracy"},
    "samples of one patient": APART | AUDITS | {"ms_ssim_pairs", "mask_dice_pairs"}, "one real patient": APART,
    "samples of two patients": AUDITS | {"precision_classical"}, "two real patients": {"precision_classical"},
    "two slices of two patients": AUDITS | {"precision_classical", "kid_textbook_classical"},
    "fewer than k": AUDITS | {"precision_classical", "kid_textbook_classical"},
    "constant everything": AUDITS, "dark and constant": AUDITS,
    "samples without masks": {"adherence", "fixed mask"}, "real slices without masks": {"adherence", "downstream"},
    "no masks": {"adherence", "fixed mask", "downstream"},
}


def test_the_refused_are_cases_and_judges_of_the_matrix() -> None:
    assert set(REFUSED) <= set(CASES)
    assert set(JUDGES) - set().union(*REFUSED.values()) == set(), "a measure of the panel belongs into COMPARED"
    assert set().union(*REFUSED.values()) - set(JUDGES) == set()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("judge", JUDGES)
def test_every_judge_gives_a_value_or_a_remedy(judge: str, case: str) -> None:
    with warnings.catch_warnings(), np.errstate(all="raise", under="ignore"):
        warnings.simplefilter("error", RuntimeWarning)
        warnings.filterwarnings("ignore", "no (interval|floor|ceiling)")
        try:
            rows = JUDGES[judge](*CASES[case])
        except DataError as error:
            assert judge in REFUSED.get(case, ()), f"refused: {error}"
            assert error.remedy and error.field, str(error)
        else:
            assert judge not in REFUSED.get(case, ()), "no longer refused"
            assert rows, "no rows say nothing"
            absent = [row["metric"] for row in rows if not np.isfinite(row["value"])]
            assert all(name.startswith(SIZES) for name in absent), absent


@pytest.mark.parametrize("judge", [name for name in JUDGES if name not in ("fixed mask", "downstream")])
@pytest.mark.parametrize(("made", "problem"), [
    (LARGER, "images of 32 px, those of .* of 24"), (with_images(MADE, 127.5 * (MADE.images + 1)), r"not within \[-1, 1\]"),
    (with_images(MADE, np.interp(MADE.images, (MADE.images.min(), MADE.images.max()), (0, 1))), "begin at 0, as in")])
def test_sets_of_other_size_or_intensities_are_refused(judge: str, made: Slices, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        JUDGES[judge](REAL, made)


def test_likeness_is_checked_wherever_two_sets_meet() -> None:
    measure = distances(SPACE)
    for call in (lambda: differences(REAL, MADE, LARGER, measure), lambda: ceilings(REAL, LARGER, 8, measure),
                 lambda: floors(REAL, 8, measure, reference_real=LARGER),
                 lambda: plain_values([measure])[0]["kid_classical"](REAL, LARGER),
                 lambda: condition_accuracy_difference(MADE, LARGER, VENDOR)):
        with pytest.raises(DataError, match="px|pixels"):
            call()
    refuse_unlike(real=REAL, masks=constant(MADE))  # masks without images have no range
    refuse_unlike(real=REAL, rounded=with_images(MADE, np.clip(MADE.images, -1, 1) * 1.0001))


@pytest.mark.parametrize("call", [
    lambda: mask_memory(unlabelled(TRAINING)), lambda: mask_memory(first(TRAINING, 0)), lambda: Ranges.of(first(TRAINING, 0)),
    lambda: Ranges.of(unlabelled(TRAINING)), lambda: inception_score(SPACE, first(TRAINING, 0)),
    lambda: inception_score(SPACE, TRAINING.with_columns(level="unknown", phase="unknown")),
    lambda: train_condition_classifier(first(TRAINING, 0), SPACE, "vendor"),
    lambda: agreement(MADE.masks[:0], MADE.masks[:0], MADE.table[:0]),
    lambda: agreement(MADE.masks, MADE.masks, MADE.table.assign(spacing=np.nan)),
    lambda: adherence_difference(first(MADE, 0), first(MADE, 0), segment),
    lambda: tstr_difference(first(REAL, 0), segment, segment), lambda: mean_score(np.empty(0), np.empty(0)),
    lambda: differences(REAL, first(MADE, 0), MADE, distances(SPACE)), lambda: floors(first(REAL, 0), 8, distances(SPACE)),
    lambda: ceilings(REAL, first(TRAINING, 0), 8, distances(SPACE))])
def test_empty_sets_are_refused_by_name(call: Callable[[], object]) -> None:
    with pytest.raises(DataError) as refused:
        call()
    assert refused.value.remedy and refused.value.field


def test_few_patients_have_a_value_without_an_interval_in_words() -> None:
    values, patients = np.array([1.0, 3.0, 5.0]), np.array(["a", "a", "b"])
    with pytest.warns(UserWarning, match="no interval: 2 patients, and it takes 3"):
        score = mean_score(values, patients)
    assert score.value == 3 and np.isnan([score.low, score.high]).all() and score.n == 2
    with pytest.warns(UserWarning, match="no interval: 1 patient,"):
        assert bootstrap(lambda counts: counts.sum(), patients[:2], n=7).n == 7
    ledger = Ledger()
    ledger.explore("F1", "t", score, "kid_study", "above")
    assert ledger.rows[0]["verdict"] == "undecided", "no interval, no verdict"
    assert np.isnan(score_difference(score, score).low)


def test_few_patients_have_a_value_without_floor_or_ceiling_in_words() -> None:
    two, lone = first(REAL, 2 * EACH), first(TRAINING, EACH)
    with pytest.warns(UserWarning) as said:
        rows = compare(two, MADE, distances(SPACE), training=lone, repeats=2, **FEW)
    assert [str(w.message).split(":")[0] for w in said][:3] == ["no floor of frechet_classical",
                                                               "no ceiling of frechet_classical", "no interval"]
    for row in rows:
        assert np.isfinite(row["value"]) and np.isnan([row[k] for k in ("low", "high", "floor", "ceiling")]).all()
    with pytest.warns(UserWarning, match="no floor of adherence: phase E[DS] has one patient"):
        found = {row["metric"]: row for row in adherence(first(REAL, EACH), MADE, segment, **FEW)}
    assert found["dice_LV"]["value"] > 0.5 and np.isnan(found["dice_LV"]["floor"]) and found["dice_LV"]["ceiling"] > 0.5
