"""The benchmark of few evaluations: its samples are the study's, it counts evaluations, and goes on where it stopped."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import discs
from test_growth import benchmark

from cmri_lib.cohort.slices import Slices
from cmri_lib.generators.base import Generator, draw
from cmri_lib.generators.diffusion import Diffusion, DiffusionSettings
from cmri_lib.generators.flow import FlowMatching
from cmri_lib.generators.latent import Latent
from cmri_lib.measures.statistics.bootstrap import Score
from cmri_lib.networks.autoencoder import KLAutoencoder, KLSettings
from cmri_lib.networks.conditioning.base import Conditioning
from cmri_lib.networks.unet import Denoiser, UNetSettings

few_steps = benchmark("few_steps")


def network(channels: int = 1) -> Denoiser:
    denoiser = Denoiser(UNetSettings((8, 16), head_channels=8), Conditioning(), channels)
    for weights in denoiser.parameters():
        torch.nn.init.normal_(weights, std=0.1)  # MONAI starts the last layer at zero
    return denoiser


def pixels() -> Diffusion:
    return Diffusion(network(), Conditioning())


def test_samples_are_the_studys_whatever_the_portion(tmp_path: Path) -> None:
    conditions, generator = discs(3, 2, split="test"), pixels()
    for arm in (few_steps._diffusion("dpm-solver", 3), few_steps._diffusion("ddpm", 5)):
        found = few_steps.drawn(generator, conditions, "a system", 7, arm, tmp_path / arm.sampler, size=4)
        whole = draw(generator, conditions, "a system", seed=7, **arm.choices)
        np.testing.assert_allclose(found.bank.images, whole.images, atol=1e-5)
        pd.testing.assert_frame_equal(found.bank.table, whole.table)
        assert found.evaluations == arm.steps and found.seconds > 0 and not found.bank.masks.any()
    assert found.bank.images.std() > 0.01


def test_what_was_drawn_is_kept_and_other_weights_draw_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conditions, generator, arm = discs(3, 2, split="test"), pixels(), few_steps._diffusion("ddim", 2)
    real, asked = few_steps.portion, []

    def portion(of: Generator, conditions: Slices, rows: range, *others: object) -> tuple[np.ndarray, int, float]:
        asked.append(rows.start)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return real(of, conditions, rows, *others)

    monkeypatch.setattr(few_steps, "portion", portion)
    again = (conditions, "a system", 7, arm, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        few_steps.drawn(generator, *again, size=4)
    assert few_steps.drawn(generator, *again, size=4, only_drawn=True) is None
    first = few_steps.drawn(generator, *again, size=4)
    assert asked == [0, 4, 4], "the first portion was there"
    second = few_steps.drawn(generator, *again, size=4, only_drawn=True)
    assert asked == [0, 4, 4] and np.array_equal(first.bank.images, second.bank.images) and second.seconds == first.seconds
    torch.nn.init.normal_(generator.network.get_parameter(next(iter(dict(generator.network.named_parameters())))))
    few_steps.drawn(generator, *again, size=4)
    assert asked == [0, 4, 4, 0, 4]


def test_evaluations_are_counted_at_the_network_that_draws() -> None:
    flow, conditions = FlowMatching(network(), Conditioning()), discs(1, 1, split="test")
    autoencoder = KLAutoencoder(KLSettings((8, 16)))
    prior = Diffusion(network(autoencoder.latent_shape(32)[0]), Conditioning(), DiffusionSettings(clip=False))
    latent = Latent(autoencoder, prior)
    for generator, arm, expected in ((flow, few_steps._flow("midpoint", 4), 8), (flow, few_steps._flow("euler", 8), 8),
                                     (latent, few_steps._diffusion("dpm-solver", 3), 3)):
        assert few_steps.portion(generator.eval(), conditions, range(1), 0, arm)[1] == expected


def test_every_system_has_few_evaluations_the_default_sampler_first_and_a_thousand() -> None:
    for system, arms in few_steps.ARMS.items():
        assert max(arm.steps for arm in arms) == 1000 and arms[-1].many and not arms[0].many
        assert arms[0].sampler == ("midpoint" if system.startswith("U10") else DiffusionSettings().sampler)


def test_each_arm_of_few_is_compared_with_each_of_many() -> None:
    """With an evaluator that reads the value of a bank off its first pixel."""
    def value(of: Slices) -> float:
        return float(of.images[0, 0, 0, 0])

    def rows(_: object, of: Slices) -> list[dict[str, object]]:
        return [{"metric": metric, "value": value(of), "low": 0.0, "high": 1.0, "floor": 0.1, "seeds": 1}
                for metric in (*few_steps.METRICS, "another")]

    def difference(first: Slices, second: Slices, metric: str) -> Score:
        return Score(value(first) - value(second), -1.0, 1.0, 4)

    arms = [few_steps._flow("midpoint", 4), few_steps._flow("euler", 100, many=True), few_steps._flow("euler", 1000, many=True)]
    made = [few_steps.Drawn(arm, Slices.from_arrays(np.full((4, 32, 32), shade), value_range=(-1, 1)), arm.steps, 0.5)
            for arm, shade in zip(arms, (0.5, 0.25, 0.125))]
    table = pd.DataFrame(few_steps.scored(SimpleNamespace(rows=rows, difference=difference), "U10 FM", made))
    assert set(table["metric"]) == set(few_steps.METRICS) and len(table) == 3 * 3 + 2 * 3
    differences = table[table["minus"] != ""].groupby("minus")["value"].first()
    assert differences.to_dict() == {"euler 100": 0.25, "euler 1000": 0.375}


def test_a_run_replaces_the_rows_of_its_systems() -> None:
    before = pd.DataFrame({"system": ["U10 FM", "U6 DDPM", "U6 DDPM", "U6 DDPM"], "value": [1.0, 2.0, 3.0, 5.0],
                           "dataset": ["phantom"] * 3 + ["acdc"], "profile": "overnight"})
    new = pd.DataFrame({"system": ["U6 DDPM"], "value": [4.0], "dataset": "phantom", "profile": "overnight"})
    after = few_steps.joined(before, new)
    assert after[["system", "value"]].values.tolist() == [["U6 DDPM", 5.0], ["U6 DDPM", 4.0], ["U10 FM", 1.0]]


def test_published_differences_are_those_of_the_published_values(closed_figures: None) -> None:
    table = pd.read_csv(few_steps.FILE, keep_default_na=False, na_values={"floor": "", "low": "", "high": ""})
    assert table["images"].nunique() == 1 and (table["low"] < table["high"]).all()
    of = table[table["minus"] == ""].set_index(["system", "sampler", "evaluations", "metric"])["value"]
    for row in table[table["minus"] != ""].itertuples():
        sampler, evaluations = row.minus.rsplit(" ", 1)
        few = of[row.system, row.sampler, row.evaluations, row.metric]
        many = of[row.system, sampler, int(evaluations), row.metric]
        assert row.value == pytest.approx(few - many, abs=1e-5) and row.evaluations <= 8
    assert len(few_steps.plot(table).axes) == len(few_steps.METRICS)
