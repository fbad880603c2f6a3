"""Floor and ceiling of measures so simple that both can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from cmri_lib.cohort.slices import Slices
from cmri_lib.measures.statistics.comparison import Embedding, Measure, Metric, ceilings, compare, floors


def patients(prefix: str, *levels: float, each: int = 2, split: str = "test") -> Slices:
    """A patient per level, with so many plain slices of it."""
    images = np.repeat(np.float32(levels), each)[:, None, None] * np.ones((1, 8, 8), np.float32)
    names = [f"{prefix}{k}" for k in range(len(levels)) for _ in range(each)]
    return Slices.from_arrays(images, patient=names, value_range=(-1, 1), split=split)


def gap(real: Embedding, synthetic: Embedding) -> list:
    """How much brighter samples are; how many slices there are, those of the real side in hundreds; both sides' brightness."""
    return [lambda u, v: float(np.average(synthetic.values, weights=v) - np.average(real.values, weights=u)),
            lambda u, v: float(100 * u.sum() + v.sum()),
            lambda u, v: float((real.values @ u + synthetic.values @ v) / (u.sum() + v.sum()))]


MEASURE = Measure((Metric("gap", "zero", bound=9.0), Metric("slices", "higher"), Metric("level", "higher")),
                  lambda slices: slices.images.mean((1, 2, 3)).astype(float), gap)


def test_a_floor_is_between_the_halves_of_all_real_patients() -> None:
    """Two patients: either may be the one that the other is compared with, and each slice is on one of the sides."""
    found = floors(patients("a", 0.2), 2, MEASURE, reference_real=patients("b", 0.6), repeats=41)
    assert (found["gap"].low, found["gap"].high) == pytest.approx((-0.4, 0.4))
    # ± 0.4 as by a fair coin: of 41 throws not all are the same, and their mean, unlike their median, is neither.
    heads = (found["gap"].value / 0.4 * 41 + 41) / 2
    assert heads == pytest.approx(round(heads), abs=1e-4) and 8 < heads < 32
    assert (found["level"].value, found["level"].low, found["level"].high) == pytest.approx((0.4, 0.4, 0.4))


def test_a_floor_is_of_patients_of_both_real_sets() -> None:
    """All eight slices of four patients are in it, whose mean is the same wherever they are."""
    found = floors(patients("a", 0.1, 0.2), 4, MEASURE, reference_real=patients("b", 0.5, 0.8), repeats=10)
    assert found["level"].value == pytest.approx(0.4) and found["slices"].value == 404 and found["slices"].n == 4


@pytest.mark.parametrize(("size", "further", "expected"), [(4, 6, (8, 4)), (12, 6, (8, 12)), (16, 0, (2, 5)), (8, 0, (4, 4))])
def test_a_floor_has_as_many_slices_as_the_sets_and_fewer_in_proportion_where_there_are_not_enough(
        size: int, further: int, expected: tuple[int, int]) -> None:
    """Eight real slices: alone they are shared out as 8 to 16, two and five of them, the rest of a slice left over."""
    reference = patients("b", *np.linspace(0, 1, further)) if further else None
    found = floors(patients("a", 0.1, 0.2, 0.3, 0.4), size, MEASURE, reference_real=reference, repeats=5)["slices"]
    assert found.value == found.low == found.high == 100 * expected[0] + expected[1]
    assert found.n == min(expected)


def test_a_ceiling_compares_training_slices_with_all_real_ones() -> None:
    real, training = patients("a", 0.1, 0.3), patients("t", -0.5, 0.5, 0.9, split="train")
    found = ceilings(real, training, 6, MEASURE, repeats=3)
    assert found["gap"] == pytest.approx(0.3 - 0.2) and found["slices"] == 406


def test_a_ceiling_is_the_mean_over_random_patients_of_training() -> None:
    """As many slices as one of two patients has: each time it is the one or the other."""
    real, training = patients("a", 0.0, 0.2), patients("t", -0.4, 0.6, split="train")
    found = ceilings(real, training, 2, MEASURE, repeats=41)
    heads = (found["gap"] + 0.5) * 41  # −0.5 or 0.5 above the real mean of 0.1
    assert heads == pytest.approx(round(heads), abs=1e-4) and 8 < heads < 32
    assert found["slices"] == 402


def test_a_slow_measure_is_repeated_less_often() -> None:
    seen = []
    counted = Measure(MEASURE.metrics, MEASURE.embed, lambda x, y: seen.append(len(y.values)) or gap(x, y), most_repeats=3)
    floors(patients("a", 0.1, 0.2), 2, counted, repeats=20)
    ceilings(patients("a", 0.1, 0.2), patients("t", 0.1, 0.2, split="train"), 3, counted, repeats=2)
    assert seen == [1, 1, 1, 3, 3]


def test_rows_have_the_floor_of_their_size_and_the_ceiling_or_else_the_bound() -> None:
    real, made = patients("a", 0.1, 0.2, 0.3, 0.4), patients("s", 0.5, 0.7, 0.9, split="made")
    options = {"reference_real": patients("b", 0.1, 0.4, 0.5, 0.0, 0.2, 0.3), "resamples": 10, "repeats": 6}
    bounded, open_ended = (compare(real, made, MEASURE, **options, **more) for more in
                           ({"training": patients("t", 0.2, 0.4, 0.6, split="train")}, {}))
    for rows, ceiling in ((bounded, 0.4 - 0.25), (open_ended, 9.0)):
        values = {row["metric"]: row for row in rows}
        assert values["gap"]["value"] == pytest.approx(0.7 - 0.25) and values["gap"]["ceiling"] == pytest.approx(ceiling)
        assert values["slices"]["value"] == values["slices"]["floor"] == 806 and values["gap"]["n"] == 6
