"""What a generator is said to have cost is read as stated, and what cannot be meant is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from cmri_lib.errors import StudyError
from cmri_lib.experiments.sample_sections import cost
from cmri_lib.experiments.stated_cost import cost_rows, read_cost


def test_pairs_and_files_say_the_same(tmp_path: Path) -> None:
    stated = {"training_seconds": 900, "seconds_per_image": 0.25, "images_seen": 1e6, "device": "one NVIDIA H200"}
    (tmp_path / "cost.json").write_text(json.dumps(stated))
    assert read_cost([f"{key}={value}" for key, value in stated.items()]) == read_cost([str(tmp_path / "cost.json")]) == stated
    assert read_cost([]) == {} and cost({}) == ""


def test_numbers_are_rows_without_intervals_and_the_machine_is_words() -> None:
    stated = read_cost(["device=a phone", "images_seen=32"])
    row, = cost_rows(stated)
    assert (row["metric"], row["value"], row["axis"]) == ("images_seen", 32, "cost") and math.isnan(row["low"])
    assert "| device | a phone |" in cost(stated) and "| 32 |" in cost(stated)


@pytest.mark.parametrize("stated, message", [
    (["seconds=3"], "(?s)cost.seconds.*unknown.*choose among training_seconds"),
    (["training_seconds=soon"], "(?s)cost.training_seconds.*'soon'.*finite number"),
    (["images_seen=-1"], "(?s)cost.images_seen.*'-1'"), (["images_seen=inf"], "'inf'"), (["images_seen=nan"], "'nan'"),
    (["images_seen=1", "images_seen=2"], "stated twice"), (["device= "], "names no machine"),
    (["cheap"], "'cheap' is neither"), (["nowhere.json"], "(?s)nowhere.json.*cannot be read"),
])
def test_what_cannot_be_meant_is_named(stated: list[str], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        read_cost(stated)


@pytest.mark.parametrize("text, message", [
    ("{", "(?s)cost.json.*cannot be read"), ("[1]", "(?s)cost.json.*holds a list"),
    ('{"images_seen": true}', "(?s)cost.json.*cost.images_seen.*True"), ('{"device": 3}', "(?s)cost.json.*3 names no machine"),
    ('{"images_seen": null}', "(?s)cost.json.*None"),
])
def test_a_file_that_cannot_be_meant_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "cost.json").write_text(text)
    with pytest.raises(StudyError, match=message):
        read_cost([str(tmp_path / "cost.json")])
