"""Wherever jobs run, in this process, in threads or on a Dask cluster, their results are the same, and so are their errors."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cohort.layout_writers import random_case, write_acdc
from conftest import discs
from joblib import delayed, parallel_config

from cmri_lib.cohort.jobs import results, worker_count
from cmri_lib.cohort.preprocessing.pipeline import PreprocessSettings, crop_report, fit_landmarks, preprocess
from cmri_lib.cohort.readers.cases import read_cohort
from cmri_lib.errors import DataError
from cmri_lib.privacy.nearest_neighbours import Pixels, audit_neighbours


@pytest.fixture(scope="module")
def dask() -> Iterator[AbstractContextManager]:
    """Two worker processes."""
    from distributed import Client, LocalCluster  # here, for it takes long to load

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster):
        yield lambda: parallel_config(backend="dask")


@pytest.fixture(params=["threads", "dask"])
def elsewhere(request: pytest.FixtureRequest) -> AbstractContextManager:
    if request.param == "dask":
        return request.getfixturevalue("dask")()
    return parallel_config(backend="threading", n_jobs=2)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("acdc")
    write_acdc(folder, [random_case(i, scan=f"patient00{i}") for i in range(1, 5)])
    return folder


def prepared(folder: Path) -> tuple[object, ...]:
    """Everything that is made of scans: report, slices, landmarks, what the crop keeps; and an audit of slices."""
    cohort, settings = read_cohort(folder, "acdc"), PreprocessSettings(size=32, crop="centre", standardise=True, jobs=2)
    landmarks = fit_landmarks(cohort.cases, settings)
    slices = preprocess(cohort.cases, settings, split={case.patient: "train" for case in cohort.cases}, landmarks=landmarks)
    sets = discs(4, 4, split="test"), discs(4, 4, seed=1), discs(6, 4, seed=2), discs(3, 4, seed=3, split="holdout")
    audit = audit_neighbours(*sets, Pixels(), resamples=5, block=10)
    return (slices.images, slices.masks, slices.table, cohort.report, crop_report(cohort.cases, settings),
            np.array(landmarks.scale), pd.DataFrame(audit.rows), audit.suspects)


def test_a_cohort_is_the_same_wherever_it_is_prepared(scans: Path, elsewhere: AbstractContextManager) -> None:
    here = prepared(scans)
    with elsewhere:
        there = prepared(scans)
    for one, other in zip(here, there, strict=True):
        (np.testing.assert_array_equal if isinstance(one, np.ndarray) else pd.testing.assert_frame_equal)(one, other)


def refuse(number: int) -> int:
    if number == 2:
        raise DataError("two", field="number", remedy="take three")
    return number


def test_an_error_arrives_with_its_remedy(elsewhere: AbstractContextManager) -> None:
    with elsewhere, pytest.raises(DataError, match=r"(?s)\[number\]: two.*take three"):
        list(results(delayed(refuse)(number) for number in range(5)))
    error = DataError("two", file="a.csv", field="number", remedy="take three")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is DataError and str(again) == str(error) and vars(again) == vars(error)


def test_jobs_come_in_order_if_that_matters(elsewhere: AbstractContextManager) -> None:
    with elsewhere:
        assert list(results(delayed(abs)(-k) for k in range(9))) == list(range(9))
        assert sorted(results((delayed(abs)(-k) for k in range(9)), workers=2, ordered=False)) == list(range(9))
        assert worker_count(3) == 3


def test_a_cluster_says_how_many_it_does_at_once(dask) -> None:
    with dask():
        assert worker_count(0) == 2
