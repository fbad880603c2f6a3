"""Splits by patient: exact sizes, balance, no dependence on order; the shipped lists; adding a data set."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layout_writers import SCANS, WRITERS, random_case, write_acdc, write_mnms, write_two

from cmri_lib.cohort import add, splits
from cmri_lib.cohort.data_sets import is_virtual
from cmri_lib.cohort.places import project_root
from cmri_lib.cohort.readers.cases import layout_of, read_dataset
from cmri_lib.cohort.slices import SPLITS
from cmri_lib.cohort.splits import (FRACTIONS, SPLIT_FILE, acdc_split, apply_split, load_split, make_split, mnms_split,
                                    part_of_cohort, split_cohort)
from cmri_lib.errors import DataError, ParameterError, SplitError


def people(*per_stratum: int) -> pd.DataFrame:
    """A table with the given number of patients per (vendor, disease)."""
    rows = [{"patient": f"p{stratum:02d}{i:03d}", "scan": f"p{stratum:02d}{i:03d}", "vendor": "ABCD"[stratum % 4],
             "disease": f"d{stratum // 4}"} for stratum, n in enumerate(per_stratum) for i in range(n)]
    return pd.DataFrame(rows)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=8), seed=st.integers(0, 99), order=st.integers(0, 99))
def test_sizes_are_exact_strata_balanced_and_order_irrelevant(sizes, seed, order):
    table = people(*sizes)
    split = make_split(table, seed=seed)
    assert split["patient"].tolist() == sorted(table["patient"])
    for name, share in FRACTIONS.items():
        assert abs((split["split"] == name).sum() - share * len(table)) < 1
    joined = table.merge(split)
    for strata in ("vendor", "disease", ["vendor", "disease"]):
        for _, rows in joined.groupby(strata):
            for name, share in FRACTIONS.items():
                assert abs((rows["split"] == name).sum() - share * len(rows)) < 2.5
    pd.testing.assert_frame_equal(split, make_split(table.sample(frac=1, random_state=order), seed=seed))


def test_another_seed_gives_another_split_of_the_same_sizes():
    table = people(20, 20, 20)
    first, second = (make_split(table, seed=seed) for seed in (0, 1))
    assert (first["split"] != second["split"]).sum() > 10
    assert first["split"].value_counts().to_dict() == second["split"].value_counts().to_dict()


def test_a_patient_with_several_scans_is_in_one_split_and_goes_to_test():
    table = people(12, 12)
    twice = table.head(3).assign(vendor="D", scan=lambda t: t["scan"] + "D")
    split = split_cohort(pd.concat([table, twice]))
    assert not split["patient"].duplicated().any() and len(split) == 24
    assert set(apply_split(twice["patient"], split).values()) == {"test"}


def test_wrong_fractions_are_refused():
    for fractions in ({"train": 0.5, "test": 0.6}, {"train": 1.5, "test": -0.5}, {"train": 0.5, "exam": 0.5}):
        with pytest.raises(ParameterError):
            make_split(people(4), fractions)
    with pytest.raises(DataError, match="'centre' is missing"):
        make_split(people(4), strata=["centre"])


def test_official_parts_are_kept():
    table = people(40).assign(official=["training"] * 20 + ["validation"] * 8 + ["testing"] * 12)
    split = split_cohort(table)
    counts = split.groupby(["official", "split"]).size().to_dict()
    assert counts == {("testing", "test"): 12, ("training", "holdout"): 5, ("training", "train"): 15,
                      ("validation", "validation"): 8}
    no_validation = split_cohort(table[table["official"] != "validation"])
    training = no_validation.loc[no_validation["official"] == "training", "split"]
    assert set(training) == {"train", "holdout", "validation"}
    only_training = split_cohort(table[table["official"] == "training"])
    assert set(only_training["split"]) == set(SPLITS) and "official" not in only_training


def test_the_shipped_acdc_list_is_by_its_rule_and_keeps_the_official_test_patients():
    split = load_split("acdc")
    pd.testing.assert_frame_equal(split, acdc_split(), check_dtype=False)
    number = split["patient"].str[-3:].astype(int)
    assert number.tolist() == list(range(1, 151))
    assert set(split.loc[number > 100, "split"]) == {"test"}
    training = split[number <= 100].assign(group=(number - 1) // 20, first=(number - 1) % 20 < 16)
    for _, group in training.groupby("group"):
        first, last = (group.loc[group["first"] == part, "split"].value_counts().to_dict() for part in (True, False))
        assert first == {"train": 8, "validation": 2, "test": 3, "holdout": 3}
        assert last == {"train": 2, "test": 1, "holdout": 1}


def test_the_shipped_mnms_list_keeps_the_official_parts():
    split = load_split("mnms")
    pd.testing.assert_frame_equal(split, mnms_split(), check_dtype=False)
    assert split["patient"].str.fullmatch("[A-Z][0-9][A-Z][0-9][A-Z][0-9]").all()
    assert split["patient"].is_unique
    assert split.groupby(["official", "split"]).size().to_dict() == {
        ("testing", "test"): 136, ("training", "holdout"): 30, ("training", "train"): 120,
        ("validation", "validation"): 34}


def test_the_shipped_phantom_list_tests_all_paired_patients():
    split = load_split("phantom")
    assert split["patient"].tolist() == [f"P{n:03d}" for n in range(1, 131)]
    singles = split.head(120)["split"].value_counts().to_dict()
    assert singles == {"train": 72, "validation": 12, "test": 12, "holdout": 24}
    assert set(split.tail(10)["split"]) == {"test"}  # the paired patients


def test_shipped_phantom_list_is_balanced_and_follows_from_its_cohort():
    folder = project_root() / "data" / "phantom"
    if not (folder / "phantom.csv").is_file():
        pytest.skip("data/phantom is not pulled")
    table = pd.read_csv(folder / "phantom.csv", dtype=str).rename(
        columns={"External code": "scan", "Patient": "patient", "VendorName": "vendor", "Pathology": "disease"})
    split = load_split("phantom", folder="no such folder")
    pd.testing.assert_frame_equal(split, split_cohort(table), check_dtype=False)
    singles = table[~table["patient"].duplicated(keep=False)].merge(split)
    for column, size in (("vendor", 30), ("disease", 24)):
        counts = pd.crosstab(singles[column], singles["split"])
        for name, share in FRACTIONS.items():
            assert np.abs(counts[name] - share * size).max() < 1.5, counts


# --- adding a data set ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", WRITERS)
@pytest.mark.parametrize("link", [False, True])
def test_an_added_data_set_is_read_by_its_name(tmp_path, layout, link, capsys):
    source, data = tmp_path / "source", tmp_path / "data"
    cases = write_two(source, layout)
    arguments = ["mine", str(source), "--layout", layout, "--data", str(data), *(["--link"] if link else [])]
    assert add.main(arguments) == 0
    assert "2 read" in (printed := capsys.readouterr().out) and "dataset: mine" in printed
    assert [p.name for p in data.iterdir()] == ["mine"] and layout_of(data / "mine") == layout
    if not link:
        shutil.rmtree(source)
    read = read_dataset(data / "mine").cases
    assert [case.dataset for case in read] == ["mine", "mine"]
    for ours, theirs in zip(read, cases):
        np.testing.assert_array_equal(ours.volumes["ES"].image, theirs.volumes["ES"].image)
    assert list(apply_split(SCANS[layout], load_split("mine", data / "mine"))) == SCANS[layout]


def test_a_failed_add_leaves_nothing_and_lists_every_problem(tmp_path, capsys):
    source, data = tmp_path / "source", tmp_path / "data"
    write_acdc(source, [random_case(scan=f"patient00{n}") for n in (1, 2, 3)])
    for n in (1, 3):
        (source / f"training/patient00{n}/Info.cfg").unlink()
    assert add.main(["mine", str(source), "--layout", "acdc", "--data", str(data)]) == 1
    message = capsys.readouterr().err
    assert "2 of 3 scans" in message and "patient001/Info.cfg" in message and "patient003/Info.cfg" in message
    assert not data.exists() or not list(data.iterdir())
    assert add.main(["mine", str(source), "--data", str(data), "--on-bad-case", "skip"]) == 0
    assert read_dataset(data / "mine", on_bad_case="skip").report["status"].tolist() == ["bad", "read", "bad"]


def test_an_interrupted_copy_leaves_nothing(tmp_path, monkeypatch):
    write_two(tmp_path / "source", "acdc")

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(add, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        add.add_dataset("mine", tmp_path / "source", "acdc", data=tmp_path / "data")
    assert not list((tmp_path / "data").iterdir())


def test_what_is_already_there_is_never_overwritten(tmp_path):
    write_two(tmp_path / "source", "acdc")
    (tmp_path / "data/mine").mkdir(parents=True)
    with pytest.raises(ParameterError, match="already there"):
        add.add_dataset("mine", tmp_path / "source", "acdc", data=tmp_path / "data")
    assert not list((tmp_path / "data/mine").iterdir())


def test_a_data_set_goes_to_the_project_that_the_reader_is_in(tmp_path, monkeypatch, capsys):
    """A second checkout, whose library may lie elsewhere: what is added and split is where `run` looks for it."""
    write_two(tmp_path / "source", "acdc")
    (tmp_path / "project" / "notebooks").mkdir(parents=True)
    (tmp_path / "project" / "params.yaml").write_text("")
    monkeypatch.chdir(tmp_path / "project" / "notebooks")
    assert add.main(["mine", str(tmp_path / "source"), "--layout", "acdc"]) == 0
    folder = tmp_path / "project" / "data" / "mine"
    assert load_split("mine").attrs["file"] == str(folder / SPLIT_FILE)
    (folder / SPLIT_FILE).unlink()
    assert splits.main(["--dataset", "mine"]) == 0 and (folder / SPLIT_FILE).is_file()
    monkeypatch.chdir(tmp_path)  # no project
    assert add.main(["other", str(tmp_path / "source"), "--layout", "acdc"]) == 1 and "params.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../up", "", ".hidden", "a b", "a/b"])
def test_names_that_are_no_folder_names_are_refused(tmp_path, name):
    with pytest.raises(ParameterError, match="not a plain name"):
        add.add_dataset(name, tmp_path, "acdc", data=tmp_path / "data")


@pytest.mark.parametrize("name", ["phantom", "phantom-mine"])
def test_real_patients_do_not_go_by_the_name_of_virtual_ones(tmp_path, name):
    write_two(tmp_path / "source", "acdc")
    with pytest.raises(ParameterError, match="virtual patients"):
        add.add_dataset(name, tmp_path / "source", "acdc", data=tmp_path / "data")
    assert is_virtual(name) and not is_virtual("phantoms") and not is_virtual("acdc")


def test_a_source_that_holds_the_target_or_is_absent_is_refused(tmp_path):
    with pytest.raises(DataError, match="lies inside"):
        add.add_dataset("mine", tmp_path, "acdc", data=tmp_path / "data")
    with pytest.raises(DataError, match="no such folder"):
        add.add_dataset("mine", tmp_path / "absent", "acdc", data=tmp_path / "data")


def test_a_list_that_came_with_the_data_must_name_every_patient(tmp_path):
    source = tmp_path / "source"
    write_two(source, "folder")
    (source / "split.csv").write_text("patient,split\nfirst,train\n")
    with pytest.raises(SplitError, match="second"):
        add.add_dataset("mine", source, data=tmp_path / "data")
    (source / "split.csv").write_text("patient,split\nfirst,train\nsecond,test\n")
    add.add_dataset("mine", source, data=tmp_path / "data")
    split = load_split("mine", tmp_path / "data/mine")
    assert split["split"].tolist() == ["train", "test"]


def test_the_command_writes_a_list_once(tmp_path, capsys):
    write_mnms(tmp_path / "mine", [random_case(n, scan=f"A{n}B1C1") for n in range(6)])
    arguments = ["--dataset", "mine", "--data", str(tmp_path)]
    assert splits.main(arguments) == 0 and len(load_split("mine", tmp_path / "mine")) == 6
    before = (tmp_path / "mine/split.csv").read_bytes()
    assert splits.main(arguments) == 2
    assert "already there" in capsys.readouterr().err
    assert splits.main([*arguments, "--overwrite"]) == 0
    assert (tmp_path / "mine/split.csv").read_bytes() == before


def test_the_command_holds_out_as_many_as_it_is_asked_to(tmp_path, capsys):
    write_mnms(tmp_path / "mine", [random_case(n, scan=f"A{n:02d}B1C1") for n in range(20)])
    arguments = ["--dataset", "mine", "--data", str(tmp_path), "--shares"]
    assert splits.main([*arguments, "0.4", "0.05", "0.15", "0.4"]) == 0
    sizes = load_split("mine", tmp_path / "mine")["split"].value_counts()
    assert sizes.to_dict() == {"train": 8, "validation": 1, "test": 3, "holdout": 8}
    assert splits.main([*arguments, "0.4", "0.4", "0.4", "0.4", "--overwrite"]) == 2
    assert "not shares of one" in capsys.readouterr().err
    assert splits.main(["--dataset", "acdc", "--ship", "--shares", "0.4", "0.05", "0.15", "0.4"]) == 2
    assert "shares of its own" in capsys.readouterr().err


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_a_part_of_a_cohort_has_every_group_and_its_share_of_each(share: float) -> None:
    groups = [(split, vendor, disease) for split in ("train", "test") for vendor in "AB" for disease in ("NOR", "DCM")]
    people = pd.DataFrame([(f"{''.join(g)}{k}", *g) for g in groups for k in range(1, 8)],
                          columns=["patient", "split", "vendor", "disease"])
    several = pd.DataFrame([("twin", "test", vendor, "NOR") for vendor in "AB"], columns=people.columns)
    table = pd.concat([people, several])
    kept = part_of_cohort(table.drop(columns="split"), dict(zip(table["patient"], table["split"])), share)
    sizes = people[people["patient"].isin(kept)].groupby(["split", "vendor", "disease"]).size()
    assert (sizes == math.ceil(7 * share)).all() and len(sizes) == len(groups)
    assert "twin" in kept, "who was scanned by several vendors makes a group"
