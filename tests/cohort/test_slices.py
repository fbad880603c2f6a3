"""`Slices`: one patient in one split, folders whose table and images belong together, and sets made of plain arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import discs

from cmri_lib.cohort.slices import COLUMNS, KEY, Slices, concatenate, known
from cmri_lib.errors import DataError, SplitError
from cmri_lib.generators.base import draw
from cmri_lib.measures.anatomy.shapes import anatomy_of_masks
from cmri_lib.measures.fidelity.two_sample import two_sample
from cmri_lib.measures.instruments.classical_features import ClassicalFeatures
from cmri_lib.measures.panel import measures
from cmri_lib.measures.statistics.comparison import compare

RNG = np.random.default_rng(0)


# One patient, one split

def in_two_splits(source: str = "real") -> pd.DataFrame:
    table = discs(3, 4).table
    table.loc[[1, 5], "split"] = "test"
    return table.assign(source=source)


@pytest.mark.parametrize("source", ["real", "U10 OT-FM"])
def test_a_patient_in_two_splits_is_refused_wherever_slices_are_made(source: str, tmp_path) -> None:
    some = discs(3, 4)
    with pytest.raises(SplitError, match="2 patients are in several splits, e.g. train0-0 in test and train"):
        Slices(some.images, some.masks, in_two_splits(source))
    with pytest.raises(SplitError, match=r"\[split\].*train0-0"):
        some.with_columns(split=in_two_splits()["split"].to_numpy())
    with pytest.raises(SplitError, match="2 patients"):
        concatenate([some, some.take([0, 4]).with_columns(split="test", source=source)])
    some.save(tmp_path)
    table = pd.read_csv(tmp_path / "slices.csv")
    table.loc[1, "split"] = "test"
    table.to_csv(tmp_path / "slices.csv", index=False)
    with pytest.raises(SplitError, match="1 patients are in several splits") as refused:
        Slices.load(tmp_path)
    assert str(tmp_path) in str(refused.value)


def test_samples_that_inherit_patients_mix_with_real_slices_of_the_same_split() -> None:
    real, others = discs(4, 2), discs(3, 2, seed=1, split="test")
    made = real.with_columns(source="C1 pix2pixHD")
    mixed = concatenate([real, made, others, others.with_columns(source="C1 pix2pixHD")])
    assert mixed.where(split="train").patients.tolist() == [*real.patients] * 2
    assert mixed.with_columns(split="test").where(split="train").patients.size == 0, "a whole set may change its split"


def test_the_checks_of_a_split_hold_for_samples_of_every_generator() -> None:
    class Echo:
        """Draws noise; conditioned on nothing."""

        class conditioning:
            fields, categories, scales = (), {}, {}

        device = "cpu"

        def eval(self):
            return self

        def noise_shape(self, size):
            return 1, size, size

        def sample(self, noise, batch):
            return noise

    train, test = (draw(Echo(), discs(2, 3, split=split), "U0", seed=1) for split in ("train", "test"))
    with pytest.raises(SplitError, match="samples of several banks"):
        concatenate([train, test])  # synthetic-00000 is one of each
    names = [f"test-{name}" for name in test.patients]
    assert len(concatenate([train, test.with_columns(patient=names)])) == 12


# Folders

def test_a_folder_comes_back_bit_for_bit_without_its_key(tmp_path) -> None:
    some = discs(3, 4).with_columns(age=[50.0, np.nan] * 6, height=np.nan, lvef=[60.5, np.nan] * 6)
    some = Slices(some.images, some.masks, some.table, some.masks)
    some.save(tmp_path)
    back = Slices.load(tmp_path)
    for ours, theirs in ((back.images, some.images), (back.masks, some.masks), (back.tissues, some.tissues)):
        assert np.array_equal(ours, theirs) and ours.dtype == theirs.dtype
    pd.testing.assert_frame_equal(back.table, some.table, check_dtype=False)
    assert KEY in pd.read_csv(tmp_path / "slices.csv")


def sort(folder) -> None:
    table = pd.read_csv(folder / "slices.csv", dtype=str, keep_default_na=False)
    table.sort_values(["phase", "patient"]).to_csv(folder / "slices.csv", index=False)


def cut(folder) -> None:
    pd.read_csv(folder / "slices.csv", dtype=str, keep_default_na=False).iloc[:-1].to_csv(folder / "slices.csv", index=False)


def other_images(folder) -> None:
    discs(3, 4, seed=5).save(folder / "other")
    (folder / "other" / "slices.safetensors").replace(folder / "slices.safetensors")


def without_key(folder) -> None:
    pd.read_csv(folder / "slices.csv", dtype=str).drop(columns=KEY).to_csv(folder / "slices.csv", index=False)


def truncated(folder) -> None:
    data = (folder / "slices.safetensors").read_bytes()
    (folder / "slices.safetensors").write_bytes(data[:len(data) // 2])


def emptied(folder) -> None:
    (folder / "slices.csv").write_text("")


def bytes_of_another_file(folder) -> None:
    (folder / "slices.csv").write_bytes(bytes(range(256)))


@pytest.mark.parametrize(("change", "field", "problem"), [
    (sort, KEY, "10 of 12 rows are not of the images at their place, the first is row 3 of the file"),
    (other_images, KEY, "12 of 12 rows"), (cut, "table", "11 rows for 12 images"),
    (without_key, KEY, "says of no row which image"), (truncated, None, "damaged"), (emptied, None, "damaged"),
    (bytes_of_another_file, None, "damaged")])
def test_a_table_that_is_not_of_these_images_is_refused(change, field, problem, tmp_path) -> None:
    discs(3, 4).save(tmp_path)
    change(tmp_path)
    with pytest.raises(DataError, match=problem) as refused:
        Slices.load(tmp_path)
    assert refused.value.field == field and str(tmp_path) in str(refused.value)
    assert "run the notebook that makes it" in refused.value.remedy


def test_an_exchanged_mask_is_found(tmp_path) -> None:
    some = discs(3, 4)
    some.save(tmp_path)
    table = (tmp_path / "slices.csv").read_text()
    Slices(some.images, some.masks[::-1], some.table).save(tmp_path)
    (tmp_path / "slices.csv").write_text(table)
    with pytest.raises(DataError, match="12 of 12 rows"):
        Slices.load(tmp_path)


# Plain arrays

@pytest.mark.parametrize(("images", "value_range", "expected"), [
    (np.array([[[-1.0, 0.5], [0.25, 1.0]]]), None, [[-1, 0.5], [0.25, 1]]),
    (np.array([[[0, 255], [51, 204]]], np.uint8), (0, 255), [[-1, 1], [-0.6, 0.6]]),
    (np.array([[[0.0, 0.5], [0.75, 1.0]]]), (0, 1), [[-1, 0], [0.5, 1]]),
    (np.array([[[0.0, 0.5], [0.75, 1.0]]], np.float32), (-1, 1), [[0, 0.5], [0.75, 1]]),
    (np.array([[[-1000, 3000], [1000, 0]]]), (-1000, 3000), [[-1, 1], [0, -0.5]])])
def test_arrays_of_any_range_are_scaled(images, value_range, expected) -> None:
    for given in (images, images[:, None]):
        made = Slices.from_arrays(given, value_range=value_range)
        np.testing.assert_allclose(made.images[0, 0], expected, atol=1e-7)
    assert list(made.table) == list(COLUMNS) and not made.masks.any() and made.table["phase"].tolist() == ["unknown"]


@pytest.mark.parametrize(("images", "options", "problem"), [
    (RNG.uniform(0, 1, (2, 8, 8)), {}, "cannot be known what is −1"),
    (RNG.integers(-1, 2, (2, 8, 8)), {}, "cannot be known what is −1"),
    (RNG.uniform(-1, 255, (2, 8, 8)), {}, "images reach from .* to 25"),
    (np.full((2, 8, 8), np.nan), {}, "nan"), (np.full((2, 8, 8), np.nan), {"value_range": (0, 1)}, "nan"),
    (RNG.uniform(0, 2, (2, 8, 8)), {"value_range": (0, 1)}, r"outside \(0, 1\)"),
    (RNG.uniform(-1, 1, (2, 8, 9)), {}, "square"), (RNG.uniform(-1, 1, (8, 8)), {}, "square"),
    (RNG.uniform(-1, 1, (2, 3, 8, 8)), {}, "not \\(N, 1, H, W\\)"), (np.array([[["a"]]]), {}, "type"),
    (RNG.uniform(-1, 1, (2, 8, 8)), {"patient": ["a"]}, "1 values for 2 images"),
    (RNG.uniform(-1, 1, (2, 8, 8)), {"vendor": ["a"] * 3}, "3 values for 2 images"),
    (RNG.uniform(-1, 1, (2, 8, 8)), {"masks": np.full((2, 8, 8), 0.5)}, "no label"),
    (RNG.uniform(-1, 1, (2, 8, 8)), {"masks": np.full((2, 8, 8), 9)}, "label 9 is unknown"),
    (RNG.uniform(-1, 1, (2, 8, 8)), {"masks": np.zeros((2, 4, 4))}, "shape")])
def test_arrays_that_cannot_be_used_are_refused(images, options, problem) -> None:
    with pytest.raises(DataError, match=problem):
        Slices.from_arrays(images, **options)


def test_patients_of_two_sets_are_never_the_same_by_default_and_stay_when_named(tmp_path) -> None:
    first, second = (Slices.from_arrays(RNG.uniform(-1, 1, (4, 8, 8))) for _ in range(2))
    assert len({*first.patients, *second.patients}) == 8
    named = Slices.from_arrays(first.images, patient=[1, 1, 2, 2], spacing=1.5)
    assert named.patients.tolist() == ["1", "1", "2", "2"] and named.table["index"].tolist() == [0, 1, 0, 1]
    named.save(tmp_path)
    pd.testing.assert_frame_equal(Slices.load(tmp_path).table, named.table, check_dtype=False)


def test_every_measure_that_needs_no_metadata_works_on_arrays() -> None:
    """The values are those of the full table: what is unknown plays no part."""
    real, made = discs(8, 3, seed=1, split="test"), discs(8, 3, seed=2, split="made")
    plain = [Slices.from_arrays(s.images, s.masks, s.patients, source=name) for s, name in ((real, "real"), (made, "mine"))]
    space = ClassicalFeatures()
    for measure in (*measures([space]), two_sample(space, with_spectrum=True)):
        assert compare(*plain, measure, resamples=5, repeats=2) == compare(real, made, measure, resamples=5, repeats=2)
    assert {measure.metrics[0].name for measure in measures([space])} >= {
        "frechet_classical", "precision_classical", "c2st_classical", "spectrum_db", "ms_ssim_pairs"}


def test_measures_of_size_want_a_spacing() -> None:
    sets = discs(4, 3, split="test"), discs(4, 3, seed=1)
    real, made = (Slices.from_arrays(s.images, s.masks, s.patients) for s in sets)
    with pytest.raises(DataError, match=r"\[spacing\].*unknown in 12 slices") as refused:
        compare(real, made, anatomy_of_masks(), resamples=5, repeats=2)
    assert "spacing=" in refused.value.remedy
    rows = compare(*(s.with_columns(spacing=3.0) for s in (real, made)), anatomy_of_masks(), resamples=5, repeats=2)
    assert np.isfinite([row["value"] for row in rows]).all()
    assert (known(real.with_columns(spacing=3.0).table, "spacing") == 3.0).all()


# Sets that stay on disk

def anonymous_memory() -> int:
    """Bytes that this process holds for itself, without what it has mapped."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_a_set_is_mapped_and_not_read(tmp_path) -> None:
    some = discs(4, 4).take(np.arange(16).repeat(1500))  # 122 MB
    some.save(tmp_path)
    size, some = some.images.nbytes + some.masks.nbytes, None
    before = anonymous_memory()
    loaded = Slices.load(tmp_path)
    assert isinstance(loaded.images.base, np.memmap) and isinstance(loaded.masks.base, np.memmap)
    assert anonymous_memory() - before < size / 2, "the check holds a block, the table its rows"
    np.testing.assert_array_equal(loaded.where(split="train").images[::1500], discs(4, 4).images)


def test_what_is_mapped_outlives_the_file_and_leaves_it_as_it_is(tmp_path) -> None:
    first, second = discs(2, 2, seed=1), discs(3, 2, seed=2)
    first.save(tmp_path)
    loaded = Slices.load(tmp_path)
    loaded.images[0] = 0
    np.testing.assert_array_equal(Slices.load(tmp_path).images, first.images)
    second.save(tmp_path)
    np.testing.assert_array_equal(loaded.images[1:], first.images[1:])
    np.testing.assert_array_equal(Slices.load(tmp_path).masks, second.masks)


def test_an_empty_set_comes_back(tmp_path) -> None:
    discs(2, 2).take([]).save(tmp_path)
    assert len(Slices.load(tmp_path)) == 0 and Slices.load(tmp_path).size == 32
