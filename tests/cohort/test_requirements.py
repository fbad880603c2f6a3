"""What cohorts as they are published let the notebooks do: said at the door and in the notebooks by one function."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from conftest import discs
from published_cohorts import COARSE, PUBLISHED, virtual_cases

from cmri_lib.cohort import add
from cmri_lib.cohort.case import LABELS, Case
from cmri_lib.cohort.preprocessing.pipeline import PreprocessSettings, preprocess
from cmri_lib.cohort.requirements import (FEWEST, MOVES, WITHHELD_PAIRS, Contents, Outlook, outlook, vendors_apart,
                                       withheld_pairs)
from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.cohort.splits import FRACTIONS, apply_split, load_split, split_cohort
from cmri_lib.cohort.vocabulary import Vocabulary, names_nothing
from cmri_lib.errors import DataError, NothingToDo
from cmri_lib.generators.base import batch_of
from cmri_lib.measures.statistics.bootstrap import MINIMUM
from cmri_lib.systems.ablation import ablation_systems
from cmri_lib.systems.conditions import categories


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> dict[str, tuple[list[Case], dict[str, str]]]:
    """Name → the cases of each published cohort as they are read, and their split."""
    raw, data, found = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("data"), {}
    for name, write in PUBLISHED.items():
        write(raw / name, COARSE)
        cases = add.add_dataset(name, raw / name, data=data).cases
        found[name] = cases, apply_split([case.patient for case in cases], load_split(name, data / name))
    return found


def outlook_of(published, name: str) -> Outlook:
    return outlook(Contents.of_cases(*published[name]))


def possible(published, name: str) -> dict[str, str]:
    """What is not wholly possible, and why."""
    return {e.name: f"{e.possible}: {e.why}" for e in outlook_of(published, name).values() if e.possible != "yes"}


TISSUES = "every tissue: tissues around the heart are not labelled"
ALWAYS = {"true scans of one heart": "no: 0 test patients were scanned by several vendors",
          "pairs of disease and vendor withheld (C15)": "no: 0 pairs that are withheld elsewhere, at least 2 needed",
          "content of the mask (M2)": f"partly: {TISSUES}"}
UNTESTED_DISEASES = {"samples of one disease (T5, T6)":
                     "no: masks of the disease, masks moved to it: no disease named in training has 3 test patients"}
FEW_VENDORS = {"vendor in the grey values": "no: 0 vendors with four training patients, at least 2 needed"}


def test_mnms_like_with_rare_groups_lacks_what_they_do_not_allow(published) -> None:
    found = possible(published, "mnms-like")
    nobody = "no vendor beside GE and Philips has 3 test patients"
    assert found == ALWAYS | FEW_VENDORS | UNTESTED_DISEASES | {
        "scanners never seen (T3)": f"no: vendors, as many patients of all vendors: {nobody}",
        "samples in the style of an unseen vendor (T4)": f"no: {nobody}",
        "age and body mass index (C6)": "partly: bmi: not in the cohort's table",
        "moved training hearts as masks (C4)": "no: NOR → DCM, NOR → HCM: 2 NOR patients in train, at least 3 needed"}
    has = Contents.of_cases(*published["mnms-like"])
    assert has.patients("train", "validation", "test", "holdout", disease="LVNC") == 2
    assert "Other" not in has.words("disease", "train", "test", "holdout")  # names nothing
    assert {"LVNC", "AHS"} <= set(has.words("disease", "train", "validation", "test", "holdout"))


def test_mnms2_like_has_no_dcm_and_words_of_its_own(published) -> None:
    found = possible(published, "mnms2-like")
    found.pop("vendor in the grey values", None)
    assert found.pop("moved training hearts as masks (C4)").startswith("no: NOR → DCM: no such move; NOR → HCM: ")
    moves = found.pop("moves towards a disease (C4)")
    assert moves == "partly: NOR → DCM: 0 DCM in train (1 needed), 0 DCM in the other splits (1 needed)"
    assert found == ALWAYS | UNTESTED_DISEASES | {
        "age and body mass index (C6)": "no: age, bmi: not in the cohort's table"}


def test_acdc_like_has_one_vendor(published) -> None:
    found = possible(published, "acdc-like")
    assert found["vendor in the grey values"] == "no: 1 vendor with four training patients, at least 2 needed"
    assert found["conditions that vary"] == "partly: vendor: 1 vendor named in training, at least 2 needed"
    assert found["condition accuracy"] == "partly: vendor: 1 vendor named in training and in test, at least 2 needed"


def test_eight_patients_are_too_few_for_audits_and_curves(published) -> None:
    cases, split = published["eight"]
    assert sorted(pd.Series(split).value_counts().items()) == [("holdout", 2), ("test", 3), ("train", 2), ("validation", 1)]
    found = possible(published, "eight")
    assert found["near-copy audit"] == "no: 2 patients in train, at least 3 needed"
    assert found["membership audit"] == "no: 2 patients in train, at least 4 needed"
    assert found["learning curve over patients"] == "no: 2 patients in train, at least 5 needed"
    assert found["uniform ejection fractions (C5)"] == "no: 2 patients in train, at least 3 needed"
    assert "distance to real patients" not in found and "segmenter on real test patients" not in found


def test_one_labelled_structure_and_no_validation_leave_out_what_needs_more(published) -> None:
    found = possible(published, "lv-only")
    assert found["validation loss"] == "no: 0 patients in validation, at least 1 needed"
    assert found["clinical measures"] == "partly: LV mass, wall: Myo is not labelled; RV: RV is not labelled"
    assert found["content of the mask (M2)"] == f"partly: LV cavity alone: only the LV is labelled; {TISSUES}"
    assert found["rules of a valid mask (C10)"] == "partly: closed wall, RV beside the wall: Myo is not labelled"
    assert "near-copy audit" not in found


@pytest.mark.parametrize("name", PUBLISHED)
def test_door_and_notebook_agree(published, name) -> None:
    cases, split = published[name]
    slices = preprocess(cases, PreprocessSettings(size=32, crop="centre", jobs=1), split=split)
    pd.testing.assert_frame_equal(outlook(slices).table(), outlook_of(published, name).table())
    assert str(outlook(slices)) == str(outlook_of(published, name))


def test_the_command_prints_it(tmp_path, capsys) -> None:
    PUBLISHED["eight"](tmp_path / "raw", COARSE)
    assert add.main(["small", str(tmp_path / "raw"), "--data", str(tmp_path / "data")]) == 0
    printed = capsys.readouterr().out
    assert "02–06, 15   no        near-copy audit\n" + 22 * " " + "2 patients in train, at least 3 needed\n" in printed


def scans(**patients: dict[str, int]) -> pd.DataFrame:
    """A row per scan: split → vendor → number of patients."""
    rows = [(f"{split}-{vendor}-{k}", split, vendor) for split, vendors in patients.items()
            for vendor, number in vendors.items() for k in range(number)]
    return pd.DataFrame(rows, columns=["patient", "split", "vendor"])


@pytest.mark.parametrize(("train", "test", "seen", "unseen"), [
    ({"A": 3, "B": 5, "C": 4, "D": 1}, dict.fromkeys("ABCD", 3), ("B", "C"), ("A", "D")),  # the two largest
    ({"A": 3, "B": 3, "C": 3}, {"C": 3, "D": 3}, ("A", "B"), ("C", "D")),  # equals by name; D is in the test alone
    ({"A": 3, "B": 5}, {"A": 3, "B": 3}, ("B",), ("A",)),  # of two all but one
    ({"A": 3, "B": 5, "C": 1}, {"A": 3, "C": 2}, ("A", "B"), ()),  # too few test patients
    ({"A": 3}, {"A": 3}, ("A",), ()), ({"A": 3}, {"B": 3}, ("A",), ("B",)),
    ({"unknown": 3}, {"unknown": 3, "B": 4}, (), ())])
def test_two_vendors_are_learnt_from_and_the_others_met_in_the_test(train: dict, test: dict, seen: tuple,
                                                                    unseen: tuple) -> None:
    assert vendors_apart(scans(train=train, test=test)) == (seen, unseen)


def test_who_was_scanned_by_several_vendors_is_not_learnt_from() -> None:
    twins = pd.DataFrame([(f"twin-{k}", "train", vendor) for k in range(9) for vendor in "CD"],
                         columns=["patient", "split", "vendor"])
    table = pd.concat([scans(train={"A": 1, "B": 2, "C": 1}, test=dict.fromkeys("ABC", 3)), twins])
    assert vendors_apart(table) == (("A", "B"), ("C",))


def cohort(split: dict[str, int], **columns: object) -> Slices:
    """Discs: so many patients of each split."""
    parts = [discs(number, seed=k, split=name) for k, (name, number) in enumerate(split.items()) if number]
    return concatenate(parts).with_columns(**columns)


@pytest.mark.parametrize("patients", range(2, 41))
def test_no_default_split_lacks_what_the_cohort_can_fill(patients) -> None:
    table = pd.DataFrame({"patient": [f"p{n:02d}" for n in range(patients)], "vendor": "A", "disease": "NOR"})
    sizes = split_cohort(table.assign(scan=table["patient"]))["split"].value_counts().reindex(list(FRACTIONS), fill_value=0)
    assert sizes.sum() == patients and sizes["train"] >= 1 and sizes["test"] >= 1
    if patients >= 7:
        assert sizes["test"] >= FEWEST and sizes["validation"] >= 1 and sizes["validation"] + sizes["holdout"] >= FEWEST
    if patients >= 10:
        assert sizes.drop("validation").min() >= FEWEST
    if patients >= 26:
        assert (np.abs(sizes - patients * pd.Series(FRACTIONS)) < 1).all()


def test_what_is_lacking_is_refused_in_words() -> None:
    few = outlook(cohort({"train": 4, "validation": 1, "test": 2, "holdout": 3}))
    few.need("networks trained on this cohort")
    with pytest.raises(DataError, match=r"distance to real patients: 2 patients in test, at least 3 needed\n  Remedy: add"):
        few.need("distance to real patients")
    with pytest.raises(NothingToDo, match="2 patients in test"):
        few.need("distance to real patients", otherwise=NothingToDo)
    nobody = outlook(cohort({"test": 5}))
    with pytest.raises(DataError, match="networks trained on this cohort: 0 patients in train, at least 1 needed"):
        nobody.need("networks trained on this cohort")
    assert FEWEST == MINIMUM


def test_left_out_names_the_notebooks_own_experiments() -> None:
    found = outlook(cohort({"train": 6, "validation": 2, "test": 3, "holdout": 2}))
    assert found["near-copy audit"].why == "2 patients in holdout, at least 3 needed"
    assert "near-copy audit" in found.left_out("04") and "near-copy audit" not in found.left_out("07")
    assert found.left_out("01") == ("left out, vendor in the grey values: 0 vendors with four training patients, "
                                    "at least 2 needed")
    assert outlook(cohort({"train": 12, "validation": 2, "test": 3, "holdout": 3})).left_out("05") == "nothing is left out"


def test_one_phase_leaves_out_what_needs_a_beat() -> None:
    one = outlook(cohort({"train": 6, "validation": 2, "test": 3, "holdout": 3}).where(phase="ED"))
    assert one["uniform ejection fractions (C5)"].why == one["phenotypes (C8)"].parts["LV EF"] == "1 phase, at least 2 needed"
    assert "phase" not in one["condition accuracy"].kept and "phase" not in one["conditions that vary"].kept


def test_a_word_that_names_nothing_is_no_category() -> None:
    assert [names_nothing(word) for word in ("Other", "OTHER", "unknown", "", "ARR", "LVNC")] == [True] * 4 + [False] * 2
    slices = cohort({"train": 2}, disease="Other", vendor=["A", "ARR"] * 4)
    vocabulary = Vocabulary.of(slices)
    assert vocabulary.categories["disease"] == () and vocabulary.categories["vendor"] == ("A", "ARR")
    codes = batch_of(slices, categories("disease", "vendor")(vocabulary))
    assert codes["disease"].tolist() == [0] * 8 and codes["vendor"].tolist() == [1, 2] * 4


def test_the_ablation_has_no_cavity_alone_where_nothing_else_is_labelled() -> None:
    slices = cohort({"train": 2})
    only = Slices(slices.images, np.where(slices.masks == LABELS["LV"], 1, 0).astype(np.uint8), slices.table)
    contents = [{content for _, content, _, _ in ablation_systems(Vocabulary.of(some))} for some in (slices, only)]
    assert contents == [{"none", "cavity", "labels"}, {"none", "labels"}]


def test_moves_and_pairs_count_patients() -> None:
    table = cohort({"train": 2, "validation": 1, "test": 2, "holdout": 1}).table
    sick = table["patient"].isin(["train0-0", "test2-0"])
    slices = cohort({"train": 2, "validation": 1, "test": 2, "holdout": 1}, disease=np.where(sick, "DCM", "NOR"))
    moves = outlook(slices)["moves towards a disease (C4)"]
    assert moves.kept == ["NOR → DCM"] and moves.possible == "partly"
    assert moves.parts["NOR → HCM"] == "0 HCM in train (1 needed), 0 HCM in the other splits (1 needed)"
    disease, vendor = WITHHELD_PAIRS[0]
    assert withheld_pairs(pd.DataFrame({"disease": [disease, "NOR"], "vendor": ["A", vendor]})) == [WITHHELD_PAIRS[0]]
    assert ("NOR", "DCM") in MOVES


def test_virtual_cases_keep_only_the_labels_asked_for() -> None:
    case, = virtual_cases("LVNC", ["x"], ["GE"], COARSE, labels=("LV",))
    assert set(np.unique(case.volumes["ED"].mask)) == {0, LABELS["LV"]} and (case.disease, case.vendor) == ("LVNC", "GE")
