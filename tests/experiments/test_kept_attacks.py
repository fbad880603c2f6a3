"""Kept scores: asked for once, whatever process asks; again where anything that they depend on has changed."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from torch import nn

from cmri_lib.experiments import kept_attacks
from cmri_lib.experiments.kept_attacks import Kept
from cmri_lib.privacy.attack import Attack, Remembered, Target
from cmri_lib.privacy.attacks.denoising_error import Fluctuation
from conftest import discs

SLICES = discs(4, 2, 8, seed=1)
asked: list[int] = []


@dataclass(frozen=True)
class Weighed(Attack):
    """Third parts of a weight times the mean of an image."""

    times: float = 1.0
    name = "weighed"

    def suits(self, target):
        return True

    def scores(self, target, slices):
        asked.append(len(slices))
        mean = slices.images.mean((1, 2, 3)).astype(float)
        return pd.DataFrame({"u = 0.1": self.times * target.generator.weight.item() * mean / 3, "all times": mean})


def target(weight: float, name: str = "g") -> Target:
    generator = nn.Linear(1, 1)
    nn.init.constant_(generator.weight, weight)
    nn.init.zeros_(generator.bias)
    return Target(name, frozenset(), generator)


def scores(folder: Path, one: Target, attack: Attack = Weighed(), slices=SLICES) -> tuple[pd.DataFrame, list[int]]:
    """What a new process would find, and how many slices it would have asked about each time."""
    asked.clear()
    return Kept(attack, folder).scores(one, slices), list(asked)


def test_a_second_process_asks_nothing_and_finds_the_same_bits(tmp_path: Path) -> None:
    first, count = scores(tmp_path, target(0.7))
    again, none = scores(tmp_path, target(0.7))
    assert count == [8] and none == []
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    pd.testing.assert_frame_equal(first, Weighed().scores(target(0.7), SLICES), check_exact=True)


def test_new_slices_alone_are_asked_about_and_order_is_that_of_the_question(tmp_path: Path) -> None:
    scores(tmp_path, target(0.7), slices=SLICES.take(np.arange(5)))
    found, count = scores(tmp_path, target(0.7), slices=SLICES.take(np.arange(7, -1, -1)))
    assert count == [3]
    expected = Weighed().scores(target(0.7), SLICES).iloc[::-1].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


def test_other_weights_or_settings_are_asked_anew_and_another_name_is_not(tmp_path: Path) -> None:
    scores(tmp_path, target(0.7))
    assert scores(tmp_path, target(0.8))[1] == [8]
    assert scores(tmp_path, target(0.7), Weighed(times=2.0))[1] == [8]
    assert scores(tmp_path, target(0.7, "the same weights"))[1] == []


def test_an_attack_within_another_counts(tmp_path: Path) -> None:
    around = [Fluctuation(Remembered(Weighed(times=t)), strengths=(0.1,)) for t in (1.0, 2.0)]
    assert scores(tmp_path, target(0.7), around[0])[1] == scores(tmp_path, target(0.7), around[1])[1] == [8, 8]
    assert scores(tmp_path, target(0.7), Fluctuation(Remembered(Weighed()), strengths=(0.1,)))[1] == []


def test_a_half_written_file_is_not_read(tmp_path: Path) -> None:
    scores(tmp_path, target(0.7))
    [file] = tmp_path.glob("*.csv")
    file.rename(file.with_suffix(".partial"))
    assert scores(tmp_path, target(0.7))[1] == [8]
    assert not list(tmp_path.glob("*.partial"))


def test_other_code_is_asked_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores(tmp_path, target(0.7))
    monkeypatch.setattr(kept_attacks, "code_digest", lambda *layers: "changed")
    assert scores(tmp_path, target(0.7))[1] == [8]
