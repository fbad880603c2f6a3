"""Arms by vendor: whose slices they hold, how many, in whose style; and that a planted vendor shift is found, and no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import discs

from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.config.study import Study, open_study
from cmri_lib.errors import DataError, SplitError
from cmri_lib.experiments.arm_samples import arm_bank, in_turn
from cmri_lib.experiments.arms import Arm, Group, own_slices
from cmri_lib.experiments.utility import dice_tables, draw_samples, group_rows, train_arm, train_arms
from cmri_lib.experiments.vendor_arms import (STAGE, STYLE, Vendors, base_group, difference, gap,
                                              make_folders, of_vendors, on_scans, scans_of, style_arm,
                                              with_own_training)
from cmri_lib.measures.statistics.seeds import mean_over_seeds
from cmri_lib.measures.utility.volumetric import mean_dice, volume_scores
from cmri_lib.systems.register import SYSTEMS
from cmri_lib.systems.system import Run, Variant

VENDORS = "ABCD"
OPTIONS = {"seed": 0, "resamples": 200}


def by_vendor(vendor_of: dict[str, str], some: Slices) -> Slices:
    return some.with_columns(vendor=[vendor_of[patient] for patient in some.patients])


@pytest.fixture(scope="module")
def cohort() -> Slices:
    """Eight training patients of A, six of B, four of C and D each; three of each in the test, two in validation."""
    numbers = {"train": (8, 6, 4, 4), "validation": (2, 2, 2, 2), "test": (3, 3, 3, 3)}
    parts = []
    for k, (split, counts) in enumerate(numbers.items()):
        some = discs(sum(counts), 4, seed=k, split=split)
        names = dict(zip(sorted(set(some.patients)), np.repeat(list(VENDORS), counts)))
        parts.append(by_vendor(names, some))
    return concatenate(parts)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    params = open_study("smoke", "phantom").params
    own = replace(params.cross_vendor, seeds=2, training=replace(params.cross_vendor.training, steps=4, log_every=2, batch=4))
    return with_own_training(Study(tmp_path, replace(params, cross_vendor=own)))


def quick(arm: Arm) -> Arm:
    """The same with a generator of two steps."""
    few = Variant("quick", training={"steps": 2, "batch": 4, "log_every": 1})
    return replace(arm, images=replace(arm.images, variant=few))


def test_an_arm_holds_its_vendors_alone_and_its_partner_as_many_patients_of_all(study: Study, cohort: Slices) -> None:
    vendors = Vendors.of(study, cohort)
    assert vendors.seen == ("A", "B") and vendors.unseen == vendors.drawable == ("C", "D") and vendors.known == tuple(VENDORS)
    seen = of_vendors(base_group(study, cohort, vendors))
    assert set(own_slices(study, seen, cohort).table["vendor"]) == {"A", "B"} and len(seen.group.patients) == 14
    partner = own_slices(study, of_vendors(vendors.mixed(14)), cohort).table.drop_duplicates("patient")
    assert partner["vendor"].value_counts().to_dict() == {"A": 4, "B": 4, "C": 3, "D": 3}
    assert len(set(vendors.mixed().patients)) == 22 and set(vendors.mixed(8).patients) < set(vendors.mixed(14).patients)
    filled = own_slices(study, of_vendors(vendors.mixed(20)), cohort).table.drop_duplicates("patient")
    assert filled["vendor"].value_counts().to_dict() == {"A": 6, "B": 6, "C": 4, "D": 4}, "others stand in for C and D"
    with pytest.raises(DataError, match="22 there"):
        vendors.mixed(23)


def test_patients_of_several_vendors_are_in_no_group(study: Study, cohort: Slices) -> None:
    twin = cohort.where(split="train", vendor="A").patients[0]
    again = cohort.where(patient=twin)
    both = concatenate([cohort, again.with_columns(vendor="C", scan="again")])
    assert twin not in {p for group in Vendors.of(study, both).patients.values() for p in group}


def test_a_cohort_of_one_vendor_or_of_none_has_no_unseen_one(study: Study, cohort: Slices) -> None:
    for name, seen in (("A", ("A",)), ("unknown", ())):
        vendors = Vendors.of(study, cohort.with_columns(vendor=name))
        group = base_group(study, cohort, vendors)
        assert (vendors.seen, vendors.unseen, vendors.drawable) == (seen, (), ()) and group.name == "all"
        assert set(group.patients) == set(cohort.where(split="train").patients)
    make_folders(study)
    assert (study.work("banks") / STAGE).is_dir() and study.work(STAGE).is_dir(), "DVC expects them where nothing is drawn"


def test_styles_differ_in_nothing_but_the_vendor(study: Study, cohort: Slices) -> None:
    vendors = Vendors.of(study, cohort)
    away, home = (quick(style_arm(vendors, STYLE, style, 0.5)) for style in (vendors.drawable, vendors.seen))
    assert "unseen style" in away.id and ", seen style" in home.id
    first, second = (draw_samples(study, arm, cohort, seed=1) for arm in (away, home))
    own = own_slices(study, away, cohort)
    assert len(first) == len(second) == len(own) // 2 and np.array_equal(first.masks, second.masks)
    assert set(first.table["vendor"]) == {"C", "D"} and set(second.table["vendor"]) == {"A", "B"}
    assert set(first.patients) <= set(own.patients) and first.table["patient"].equals(second.table["patient"])
    assert not np.array_equal(first.images, second.images)
    assert arm_bank(study, away, cohort, 1).folder != arm_bank(study, home, cohort, 1).folder
    student = train_arm(study, away, cohort)
    assert (student.patients & set(cohort.where(split="test").patients)) == set()
    assert set(cohort.where(split="train", vendor="C").patients) <= student.patients, "its generator has met them"
    assert all(STAGE in str(f) for f in study.root.rglob("*/seed-*")), "nothing lies in the folder of another notebook"


def test_a_generator_that_has_met_a_test_patient_is_refused(study: Study, cohort: Slices) -> None:
    stranger = cohort.where(patient=cohort.where(split="test").patients[0]).with_columns(split="train")
    variant = Variant("planted", lambda slices: concatenate([slices.where(split="train"), stranger]))
    arm = style_arm(Vendors.of(study, cohort), STYLE, ("C",), 1.0)
    with pytest.raises(SplitError, match="has seen 1 patients"):
        train_arm(study, replace(arm, images=Run(SYSTEMS[STYLE], variant=variant)), cohort)
    strict = replace(arm, generator_fraction=None)
    with pytest.raises(SplitError, match="has seen 8 patients"):
        draw_samples(study, strict, cohort)
    one = of_vendors(Group("one", tuple(cohort.where(split="train", vendor="A").patients[:1])))
    with pytest.raises(SplitError, match="has met 1 of the test patients"):
        train_arm(study, one, cohort).scores(cohort.where(split="train"))


def test_vendors_take_turns_by_phase_of_a_scan() -> None:
    table = pd.DataFrame({"scan": list("aaaabb"), "phase": ["ED", "ED", "ES", "ES", "ES", "ES"]})
    assert in_turn(("C", "D"), table).tolist() == ["C", "C", "D", "D", "C", "C"]
    assert set(in_turn(("C",), table)) == {"C"}


# --- differences
def threshold(images: np.ndarray) -> np.ndarray:
    """The brightest pixels are LV, the rest of what is brighter than the background is a ring: knows one scanner alone."""
    return np.where(images[:, 0] > 0.3, 1, np.where(images[:, 0] > -0.5, 2, 0)).astype(np.uint8)


class Thresholds:
    """In the place of a student."""

    id = "thresholds"

    def scores(self, test: Slices, *, distances: bool) -> pd.DataFrame:
        return volume_scores(threshold(test.images), test, distances=distances)


def shifted(test: Slices, vendors: str) -> Slices:
    """The images of some vendors with half the gain."""
    gain = np.where(test.table["vendor"].isin(list(vendors)), 0.4, 1.0)[:, None, None, None]
    return Slices((test.images * gain - (1 - gain)).astype(np.float32), test.masks, test.table)


def test_a_planted_gain_is_found_as_a_shift_of_its_vendors_and_of_no_other(cohort: Slices) -> None:
    test = cohort.where(split="test")
    plain, other = dice_tables([Thresholds()], test), dice_tables([Thresholds()], shifted(test, "CD"))
    seen, unseen = scans_of(test, "A", "B"), scans_of(test, "C", "D")
    loss = difference(other, plain, unseen, **OPTIONS)
    assert loss.high < -0.1 and loss.n == 6
    assert difference(other, plain, seen, **OPTIONS).value == 0
    assert gap(other, unseen, seen, **OPTIONS).high < -0.1 < gap(plain, unseen, seen, **OPTIONS).high
    means = [mean_dice(on_scans(other, scans), **OPTIONS).value for scans in (unseen, seen)]
    assert gap(other, unseen, seen, **OPTIONS).value == pytest.approx(means[0] - means[1])


def test_a_gap_of_patients_scanned_twice_is_paired(cohort: Slices) -> None:
    test = cohort.where(split="test", vendor=["A", "B"])
    twin = test.with_columns(vendor="C", scan=[f"{scan}-again" for scan in test.table["scan"]])
    both = concatenate([test, twin])
    found = dice_tables([Thresholds()], both)
    same = gap(found, scans_of(both, "C"), scans_of(both, "A", "B"), **OPTIONS)
    assert same.value == same.low == same.high == 0 and same.n == 6
    values = found[0].query("structure == 'foreground'")
    assert mean_dice(found, **OPTIONS) == mean_over_seeds([values["dice"].to_numpy()], values["patient"].to_numpy(), **OPTIONS)


def test_groups_are_scored_apart_and_those_too_small_or_unknown_left_out(cohort: Slices) -> None:
    test = shifted(cohort.where(split="test"), "CD")
    named = test.with_columns(vendor=test.table["vendor"].replace({"B": "unknown"}), all_alike="one",
                              few=np.where(test.patients == test.patients[0], "a single patient", "the others"))
    twice = [[Thresholds()], [Thresholds()]]
    rows = pd.DataFrame(group_rows(twice, named, ["vendor", "all_alike", "few"], **OPTIONS))
    assert list(rows["kind"]) == ["vendor"] * 6 + ["all_alike"] * 2 + ["few"] * 2, "kind by kind, arm by arm"
    rows = pd.DataFrame(group_rows(twice[:1], named, ["vendor", "all_alike", "few"], **OPTIONS))
    assert list(rows["group"]) == ["A", "C", "D", "one", "the others"] and set(rows["arm"]) == {"thresholds"}
    assert list(rows["n"]) == [3, 3, 3, 12, 11]
    own = [mean_dice(dice_tables([Thresholds()], test.where(vendor=vendor)), **OPTIONS).value for vendor in "ACD"]
    assert list(rows["value"][:3]) == pytest.approx(own) and own[0] > own[1]


def test_volumes_that_one_crop_has_lost_are_compared_in_neither(cohort: Slices) -> None:
    test = cohort.where(split="test")
    lost = test.take(~((test.table["scan"] == test.table["scan"].iloc[0]) & (test.table["phase"] == "ES")).to_numpy())
    plain, fewer = (dice_tables([Thresholds()], some) for some in (test, lost))
    assert difference(fewer, plain, **OPTIONS).value == 0
    assert difference(plain, fewer * 2, **OPTIONS).seeds == 1, "as many seeds as both have"


def test_a_network_that_learns_from_one_look_loses_on_another(tmp_path: Path, cohort: Slices) -> None:
    """The smallest study of T3: C and D are inverted. The partner has met them, with as many patients."""
    params = open_study("smoke", "phantom").params
    training = replace(params.cross_vendor.training, steps=30, batch=8, ema=0.9, learning_rate=5e-3)
    own = replace(params.cross_vendor, training=training)
    study = with_own_training(Study(tmp_path, replace(params, cross_vendor=own)))
    sign = np.where(cohort.table["vendor"].isin(["C", "D"]), -1, 1).astype(np.float32)[:, None, None, None]
    inverted = Slices(cohort.images * sign, cohort.masks, cohort.table)
    vendors = Vendors.of(study, inverted)
    seen = of_vendors(vendors.group(*vendors.seen))
    partner = of_vendors(vendors.mixed(len(seen.group.patients)))
    students, test = train_arms(study, [seen, partner], inverted), inverted.where(split="test")
    scores = {name: dice_tables(found, test) for name, found in students.items()}
    loss = difference(scores[seen.id], scores[partner.id], scans_of(test, "C", "D"), **OPTIONS)
    assert loss.high < -0.05, "unseen looks cost Dice"
    assert abs(difference(scores[seen.id], scores[partner.id], scans_of(test, "A", "B"), **OPTIONS).value) < abs(loss.value) / 2
