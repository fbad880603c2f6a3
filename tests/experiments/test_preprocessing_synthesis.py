"""Synthesis after ways of preprocessing: one view that forgives a line of grey values,
and an excess that is 0 for real slices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import discs

from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.config.study import Study, open_study
from cmri_lib.errors import DataError, ParameterError
from cmri_lib.experiments import preprocessing_synthesis as synthesis
from cmri_lib.experiments import preprocessing_ways as ways
from cmri_lib.measures.fidelity.distances import bounded_distance
from cmri_lib.measures.instruments.classical_features import ClassicalFeatures
from cmri_lib.measures.statistics.comparison import Measure, Metric
from cmri_lib.reporting import metrics

OPTIONS = {"seed": 0, "resamples": 30}


def asked(*names: str, root: Path = Path()) -> Study:
    params = open_study("smoke", "phantom").params
    own = replace(params.cross_vendor, synthesis_ways=names)
    return Study(root, replace(params, cross_vendor=own))


def drawn(samples: Slices | None = None, way: ways.Way = ways.OWN) -> synthesis.Drawn:
    """Real discs, and samples that are the training slices themselves unless others are given."""
    learnt, real = discs(8, 4, split="train"), discs(6, 4, seed=1, split="test")
    return synthesis.Drawn(synthesis.way_run(way), way, real, learnt, learnt, learnt if samples is None else samples, 96.0)


def test_the_common_view_forgives_every_line_of_grey_values() -> None:
    some = discs(3, 4)
    lines = np.random.default_rng(0).uniform(0.2, 0.6, (len(some), 1, 1, 1)).astype(np.float32)
    darker = replace(some, images=some.images * lines - lines / 2)
    first, second = (synthesis.common_view(each) for each in (some, darker))
    np.testing.assert_allclose(first.images, second.images, atol=1e-5)
    assert np.allclose(first.images.min((1, 2, 3)), -1) and np.allclose(first.images.max((1, 2, 3)), 1)
    assert np.array_equal(first.masks, some.masks)
    np.testing.assert_allclose(synthesis.common_view(first).images, first.images, atol=0.1)


def test_the_common_view_of_the_middle_keeps_sizes_in_mm() -> None:
    some = discs(3, 4, size=64)
    closer = synthesis.common_view(some, 0.75)
    assert np.allclose(closer.table["spacing"], 0.75 * some.table["spacing"]) and closer.size == some.size
    area, again = (((each.masks == 1).sum((1, 2)) * each.table["spacing"]**2).to_numpy() for each in (some, closer))
    np.testing.assert_allclose(again, area, rtol=0.1)
    for share in (0.0, 1.2):
        with pytest.raises(DataError, match="share"):
            synthesis.common_view(some, share)


def test_a_wide_picture_is_viewed_as_wide_as_the_study_s_own_crop() -> None:
    assert drawn().share == 1.0  # 32 pixels of 3 mm
    wide = ways.way(ways.NO_CROP)
    zoomed_out = drawn(way=wide)
    zoomed_out = replace(zoomed_out, learnt=zoomed_out.learnt.with_columns(spacing=4.0))
    assert zoomed_out.share == pytest.approx(0.75) and drawn(way=ways.way("z-score")).share == 1.0


def test_real_slices_have_no_excess_and_noise_has() -> None:
    perfect = drawn()
    measure = bounded_distance(ClassicalFeatures(), synthesis.common_view(perfect.learnt))
    every = [np.ones(len(some), int) for some in perfect.viewed]
    assert perfect.excess(measure)(*every) == pytest.approx(0, abs=1e-12)
    noise = np.random.default_rng(0).uniform(-1, 1, perfect.learnt.images.shape).astype(np.float32)
    made_up = [f"synthetic-{i:05d}" for i in range(len(noise))]
    noisy = drawn(Slices(noise, perfect.learnt.masks, perfect.learnt.table.assign(patient=made_up)))
    difference = synthesis.excess_difference(perfect, noisy, measure, **OPTIONS)
    assert difference.value < difference.high < 0
    same = synthesis.excess_difference(noisy, noisy, measure, **OPTIONS)
    assert same.value == same.low == same.high == 0
    (row,) = synthesis.way_rows(noisy, [measure], **OPTIONS)
    (best,) = synthesis.way_rows(perfect, [measure], **OPTIONS)
    assert row["metric"] == "way_mmd_classical" and row["value"] - row["floor"] == pytest.approx(-difference.value)
    assert best["value"] == pytest.approx(best["floor"]) == pytest.approx(row["floor"])
    samples, real = synthesis.beside_real(row)
    assert (samples["value"], real["value"], real["family"]) == (row["value"], row["floor"], "real")
    assert {samples["way"], real["way"]} == {"the study's own way", "the study's own way: real"}


def test_a_vendor_is_certain_where_it_shows() -> None:
    plain = drawn()
    table = plain.learnt.table.assign(vendor=np.where(np.arange(len(plain.learnt)) % 2, "A", "B"))
    striped = plain.learnt.images.copy()
    striped[1::2, :, :, ::2] *= 0.2  # a texture of A
    learnt = Slices(striped, plain.learnt.masks, table)
    mixed = replace(learnt, images=(0.5 * striped + 0.5 * np.roll(striped, 1, 0)).astype(np.float32))
    every = Measure((Metric("heart_valid", "higher"),), lambda some: np.ones((len(some), 1)), lambda real, samples: ())
    sure, unsure = (synthesis.vendor_certainty(replace(plain, learnt=learnt, samples=some), every, **OPTIONS)[0]
                    for some in (learnt, mixed))
    assert sure["value"] > unsure["value"] > sure["floor"] == 0.5 and sure["ceiling"] == unsure["ceiling"]
    assert metrics.known("certainty_vendor") and metrics.known("way_mmd_anatomy") and metrics.known("way_heart_valid")
    assert not metrics.known("way_of_nothing")
    assert synthesis.vendor_certainty(replace(plain, learnt=learnt.with_columns(vendor="A")), every, **OPTIONS) == []
    nothing = replace(every, embed=lambda some: np.zeros((len(some), 1)))
    assert synthesis.vendor_certainty(replace(plain, learnt=learnt), nothing, **OPTIONS) == []


def test_the_study_s_own_way_comes_first_and_only_once() -> None:
    found = synthesis.synthesis_ways(asked("min–max", "z-score", ways.ONE_SCALE, ways.NO_CROP))
    assert [one.name for one in found] == [ways.OWN.name, "z-score", ways.ONE_SCALE, ways.NO_CROP]
    folders = [run.folder for run in synthesis.way_runs(asked("z-score", ways.NO_CROP))]
    assert len(set(folders)) == 3 and all(folder.startswith("short-fm-") for folder in folders)
    with pytest.raises(ParameterError, match="synthesis_ways"):
        synthesis.synthesis_ways(asked("N4"))


def test_everybody_is_learnt_from_in_the_study_s_own_way() -> None:
    cohort = concatenate([discs(4, 6, seed=k, split=split) for k, split in enumerate(("train", "validation", "test"))])
    study = asked("z-score")
    made = synthesis.slices_of_run(study, synthesis.way_run(ways.OWN), cohort)
    assert np.array_equal(made.images, concatenate([cohort.where(split="train"), cohort.where(split="test")]).images)
    assert not len(made.where(split="validation"))
