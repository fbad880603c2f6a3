"""Parameters: one file, every key known, every value of its type, one value per profile."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Literal

import pandas as pd
import pytest
from dvc.utils.serialize import modify_yaml
from pydantic import ConfigDict

from cmri_lib.config.reading import PROFILES, choose_profile, parse, read_parameters, read_yaml
from cmri_lib.cohort.places import project_root
from cmri_lib.config.study import open_study
from cmri_lib.errors import DataError, ParameterError
from cmri_lib.networks.progressive import ProgressiveSettings
from cmri_lib.networks.stylegan import StyleGANSettings
from cmri_lib.networks.vae import VAESettings
from cmri_lib.reporting.results import SCORE_COLUMNS, union, write_claims, write_scores

ROOT = Path(__file__).parents[2]


def project(folder: Path, *changes: tuple[str, str]) -> Path:
    """The committed params.yaml in `folder`, with lines replaced: (pattern of the old line, new text)."""
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    for old, new in changes:
        text, count = re.subn(rf"(?m)^{old}.*$", new, text, count=1)
        assert count, f"{old} is not in params.yaml"
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("profile", PROFILES)
def test_the_committed_parameters_hold_in_every_profile(profile: str) -> None:
    study = open_study(profile, root=ROOT)
    params = study.params
    assert all(nfe % 2 == 0 for nfe in params.flow.few_steps.evaluations), "second-order solvers spend two per step"
    assert params.samples >= 48 and study.seed and (study.profile, params.profile) == (profile, profile)


@pytest.mark.parametrize(("old", "new", "named"), [
    ("seed:", "seed: abc", "seed"), ("seed:", "sead: 1", "sead"), ("dataset:", "dataset: 123", "dataset"),
    ("dataset:", "dataset: true", "dataset"), ("dataset:", "dataset: ../../etc", "dataset"),
    ("dataset:", "dataset: 2024-01-01", "dataset.*date"), ("  corrupted:", "  corrupted: 2024-01-01", "corrupted.*date"),
    ("device:", "device: CPU", "device"), ("profile:", "profile: cluster", "profile"),
    ("workers:", "workers: -1", "workers"), ("samples:", "samples: many", "samples"), ("samples:", "samples: true", "samples"),
    ("  resamples:", "  resamples: 0", "fidelity.resamples"), ("  repeats:", "  floors: 2", "fidelity"),
    ("  size:", "  size: 50", "network"),
    ("    learning_rate: 3.0e-3", "    learning_rate: -1", "instruments.detector.learning_rate"),
    ("    ema: 0.98", "    ema: 2", "instruments.detector.ema"), ("  crop:", "  crop: middle", "preprocess"),
])
def test_what_is_wrong_anywhere_is_named_at_once(tmp_path: Path, old: str, new: str, named: str) -> None:
    with pytest.raises(ParameterError, match=named) as caught:
        open_study(root=project(tmp_path, (old, new)))
    assert "Remedy" in str(caught.value) and "params.yaml" in str(caught.value)


def test_an_experiment_of_dvc_leaves_all_other_parameters_as_they_were(tmp_path: Path) -> None:
    """`dvc exp run -S` writes params.yaml anew, words without the quotes that YAML 1.1 needs."""
    file = tmp_path / "params.yaml"
    file.write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    before = read_parameters(file, "overnight")
    with modify_yaml(str(file)) as keys:
        keys["seed"] += 1
    assert '"no"' not in file.read_text(encoding="utf-8"), "or this test shows nothing"
    assert read_parameters(file, "overnight") == replace(before, seed=before.seed + 1)


def test_a_cohort_differs_in_what_is_said_for_it_and_in_nothing_else() -> None:
    everyone, patients = (open_study("overnight", name, ROOT).params for name in ("phantom", "acdc"))
    assert patients.privacy.arms == ("sampler",) != everyone.privacy.arms
    chosen = replace(patients, dataset="phantom", **{section: replace(getattr(patients, section), **{
        name: getattr(getattr(everyone, section), name) for name in names}) for section, names in {
        "privacy": ("arms", "systems"), "fidelity": ("seeds", "ablation_seeds"), "utility": ("fractions", "factors"),
        "cross_vendor": ("synthesis_ways",)}.items()})
    assert chosen == everyone
    assert replace(open_study("laptop", "acdc", ROOT).params, dataset="phantom") == open_study("laptop", "phantom", ROOT).params


@pytest.mark.parametrize(("old", "new"), [("      arms: {overnight: \\[sampler\\]}", "      arm: {overnight: [sampler]}"),
                                          ("      arms: {overnight: \\[sampler\\]}", "      arms: {overnight: [samplers]}"),
                                          ("      arms: {overnight: \\[sampler\\]}", "      arms: {night: [sampler]}")])
def test_what_is_wrong_for_another_cohort_is_named_too(tmp_path: Path, old: str, new: str) -> None:
    with pytest.raises(ParameterError, match="by_cohort.acdc.privacy.arm") as caught:
        open_study("overnight", "phantom", project(tmp_path, (old, new)))
    assert "Remedy" in str(caught.value)


def test_a_section_for_cohorts_that_is_none_is_refused(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    before, after = re.split(r"(?m)^by_cohort:.*\n(?:  .*\n)+", text)
    for section in ("by_cohort: acdc\n", "by_cohort: {acdc: 1}\n"):
        (tmp_path / "params.yaml").write_text(before + section + after, encoding="utf-8")
        with pytest.raises(ParameterError, match="by_cohort"):
            open_study(root=tmp_path)
    (tmp_path / "params.yaml").write_text(before + after, encoding="utf-8")
    assert open_study("overnight", "acdc", tmp_path).params.privacy.arms != ("sampler",), "without it, all cohorts are alike"


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "/tmp", ".hidden", "a b", "acdc\n", "a.b", "-a"])
def test_a_data_set_is_a_plain_folder_below_data(name: str) -> None:
    with pytest.raises(ParameterError, match="dataset"):
        open_study("smoke", name, ROOT)
    assert open_study("smoke", "My_2nd-cohort", ROOT).dataset == "My_2nd-cohort"


def test_on_a_mac_networks_stay_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, asked in ((False, None), (True, "true")):
        monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
        monkeypatch.setattr("torch.backends.mps.is_available", lambda there=there: there)
        open_study("smoke", root=ROOT)
        assert os.environ.get("ACCELERATE_USE_CPU") == asked, "Apple's GPUs have no numbers of 64 bits"
    monkeypatch.setenv("ACCELERATE_USE_CPU", "")  # as it was, whatever follows


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(re.sub(r"(?ms)^curves:.*?(?=^\w|\Z)", "", text), encoding="utf-8")
    with pytest.raises(ParameterError, match="curves.*missing"):
        open_study(root=tmp_path)


def below(section: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Every dataclass below a section, with the names that lead to it."""
    yield path, section
    for part in fields(section):
        if is_dataclass(value := getattr(section, part.name)):
            yield from below(value, (*path, part.name))


def with_part(section: object, path: tuple[str, ...], value: object) -> object:
    """The section with another value where `path` leads."""
    if not path:
        return value
    return replace(section, **{path[0]: with_part(getattr(section, path[0]), path[1:], value)})


#: Levels of these are counted from the smallest map up, so that one level less makes smaller images.
EXACT = (VAESettings, ProgressiveSettings, StyleGANSettings)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_network_that_does_not_fit_the_images_is_refused_at_once(profile: str) -> None:
    """Found by walking: whatever the networks call settings must refuse levels that the images cannot be halved to."""
    params = open_study(profile, root=ROOT).params
    found = [(path, settings) for path, settings in below(params) if type(settings).__module__.startswith("cmri_lib.networks.")]
    assert {("masks", "vae", "network"), ("conditional", "domain_vae", "network"), ("translation", "reconstruction", "network"),
            ("gan", "stylegan2", "network"), ("differential_privacy", "gan", "network")} <= {path for path, _ in found}
    for path, settings in found:
        levels = {part.name: getattr(settings, part.name) for part in fields(settings)
                  if isinstance(getattr(settings, part.name), tuple)}
        broken = [{name: channels + 9 * channels[-1:]} for name, channels in levels.items()]
        if isinstance(settings, EXACT):
            broken += [{name: channels[:-1]} for name, channels in levels.items()]
            broken += [{name: channels + channels[-1:]} for name, channels in levels.items()]
        broken += [{"patch": 3}] if hasattr(settings, "patch") else []
        assert broken, path
        for change in broken:
            other = replace(settings, **change)
            if path == ("contrast", "network"):  # whose scans are as large as its levels say
                assert with_part(params, path, other).contrast.network.size == other.size
                continue
            with pytest.raises(ParameterError, match=re.escape(".".join(path))) as caught:
                with_part(params, path, other)
            assert "params.yaml" in str(caught.value)


@pytest.mark.parametrize(("change", "named"), [
    ({"gan.stylegan2.objective.latent": 1}, "gan.stylegan2.objective.latent"),
    ({"masks.diffusion.shrink": 3}, "masks.diffusion.shrink"), ({"conditional.pix2pix_hd.network.scales": 5}, "pix2pix_hd"),
    ({"volumes.autoencoder.network.planes": 3}, "volumes.diffusion.network.channels.*3 planes"),
    ({"instruments.widths": (8,) * 9}, "instruments.widths"), ({"conditional.classes_kl.network.widths": (8,) * 5}, "ldm_kl"),
    ({"latent.kl.network.widths": (8,) * 6}, "latent.kl")])
def test_other_sizes_that_do_not_fit_are_refused(change: dict[str, object], named: str) -> None:
    params = open_study("smoke", root=ROOT).params
    with pytest.raises(ParameterError, match=named):
        for path, value in change.items():
            with_part(params, tuple(path.split(".")), value)


@pytest.mark.parametrize("number", ["1e-4", "1.0e-4", "1E-04", "0.0001"])
def test_numbers_are_taken_in_any_notation(tmp_path: Path, number: str) -> None:
    root = project(tmp_path, ("    learning_rate: 3.0e-3", f"    learning_rate: {number}"))
    assert open_study(root=root).params.instruments.detector.learning_rate == pytest.approx(1e-4)


def test_a_profile_changes_numbers_only() -> None:
    def shape(value: object) -> object:
        if is_dataclass(value):
            return {f.name: shape(getattr(value, f.name)) for f in fields(value)}
        return type(value)

    shapes = [shape(open_study(p, root=ROOT).params) for p in PROFILES]
    assert shapes[0] == shapes[1] == shapes[2]


def test_profiles_are_chosen_and_places_follow(tmp_path: Path) -> None:
    root = project(tmp_path, ("samples:", "samples: {smoke: 60, laptop: 70, gpu: 80}"),
                   ("  resamples:", "  resamples: {smoke: 1, laptop: 2, overnight: 3, gpu: 4}"),
                   ("  corrupted:", "  corrupted: {smoke: 1, laptop: 2, overnight: 3}"))
    assert [open_study(p, root=root).params.samples for p in PROFILES] == [60, 70, 70, 80]
    assert [open_study(p, root=root).params.fidelity.resamples for p in PROFILES] == [1, 2, 3, 4]
    assert [open_study(p, root=root).params.fidelity.corrupted for p in PROFILES] == [1, 2, 3, 3]  # as overnight
    study = open_study("gpu", "acdc", root=root)
    assert study.work("slices") == root / "work" / "acdc" / "gpu" / "slices" and study.data == root / "data" / "acdc"
    (root / "a").mkdir()
    assert project_root(root / "a") == root.resolve()


@dataclass(frozen=True)
class Some:
    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)
    steps: int
    rate: float = 0.1
    name: Literal["a", "b"] = "a"
    limit: int | None = None
    sizes: tuple[int, ...] = (1,)


@pytest.mark.parametrize(("values", "field"), [
    ({"steps": 1, "stpes": 2}, "stpes"), ({}, "steps"), ({"steps": 1.5}, "steps"), ({"steps": True}, "steps"),
    ({"steps": 1, "rate": "1e-4"}, "rate"), ({"steps": 1, "name": "c"}, "name"),
    ({"steps": 1, "limit": "x"}, "limit"), ({"steps": 1, "sizes": 3}, "sizes"), ({"steps": 1, "sizes": ["a"]}, "sizes.0"),
])
def test_wrong_parameters_are_named(values: dict, field: str) -> None:
    with pytest.raises(ParameterError, match=field) as caught:
        parse(values, Some)
    assert caught.value.field.startswith(field) and "params.yaml" in str(caught.value)


def test_right_parameters_are_taken() -> None:
    assert parse({"steps": 2, "rate": 1, "limit": None, "sizes": [1, 2]}, Some) == Some(2, 1.0, sizes=(1, 2))


@pytest.mark.parametrize("value", [{"smoke": 1, "gpu": 2}, {"laptop": 2}, {"smoke": 1, "laptop": 2, "cloud": 4}])
def test_incomplete_profiles_are_refused(value: dict) -> None:
    with pytest.raises(ParameterError, match="profiles"):
        choose_profile({"a": value}, "laptop", "x")
    assert choose_profile([1, 2], "laptop", "x") == [1, 2]


def test_unreadable_parameters_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    for text, match in (("a: 1\na: 2\n", "twice"), ("profile: [", "YAML"), ("just text", "mapping")):
        file.write_text(text)
        with pytest.raises(ParameterError, match=match):
            read_yaml(file)
    file.write_text("profile: laptop\n")
    with pytest.raises(ParameterError, match="seed"):
        read_parameters(file)
    file.unlink()
    with pytest.raises(ParameterError, match="cannot be read"):
        read_parameters(file)


ROW = {"system": "U10", "family": "flow", "conditioning": "none", "axis": "fidelity", "metric": "kid", "value": 1.0, "low": 0.5,
       "high": 2.0, "n": 10, "seeds": 1, "better": "lower", "floor": 0.1, "ceiling": 0.0}


def test_scores_are_complete_or_refused(tmp_path: Path) -> None:
    study = open_study(root=project(tmp_path))
    table = write_scores(study, "05_flow", [ROW])
    assert tuple(table.columns) == SCORE_COLUMNS and union(tmp_path).equals(pd.read_csv(study.results / "05_flow.csv"))
    for broken in ({"axis": "beauty"}, {"better": "more"}, {"value": 3.0}):
        with pytest.raises(DataError):
            write_scores(study, "05_flow", [ROW | broken])
    with pytest.raises(DataError, match="floor"):
        write_scores(study, "05_flow", [{k: v for k, v in ROW.items() if k != "floor"}])


def test_claims_have_a_verdict(tmp_path: Path) -> None:
    study = open_study(root=project(tmp_path))
    claim = {"claim": "F1", "test": "paired", "primary": True, "effect": 1.0, "low": 0.1, "high": 2.0, "unit": "KID", "p": 0.01,
             "verdict": "supported"}
    write_claims(study, "06_fidelity", [claim])
    assert union(tmp_path, claims=True)["claim"].tolist() == ["F1"] and union(tmp_path).empty
    with pytest.raises(DataError, match="F1"):
        write_claims(study, "06_fidelity", [claim | {"verdict": "clearly"}])
    for rows in ([claim, claim], [claim | {"primary": False}]):
        with pytest.raises(DataError, match="primary tests"):
            write_claims(study, "06_fidelity", rows)
