"""The plan names every training of the notebooks once, and knows how far each has come from the files alone."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from conftest import discs
from systems.test_conditional import quick

from cmri_lib.cohort.slices import concatenate
from cmri_lib.config.study import Study, open_study
from cmri_lib.errors import DataError
from cmri_lib.experiments.ablation_runs import fewer_label_runs, noisy_label_runs
from cmri_lib.experiments.learning_curves import runs_over_patients
from cmri_lib.experiments.plan import (CURVES_OVER_PATIENTS, all_folders, all_runs, complete_stages, final_weights_alone,
                                       progress)
from cmri_lib.experiments.private_training import Private
from cmri_lib.experiments.published import publish, published_folder, restore
from cmri_lib.experiments.safeguards import AUGMENTED, NONE, safeguard_runs
from cmri_lib.experiments.training import cost_rows, images_before, runs_over_seeds, train_or_load, training_folder
from cmri_lib.systems.contrast import MANIFOLD
from cmri_lib.systems.private import RDP_CGAN
from cmri_lib.systems.register import SYSTEMS
from cmri_lib.systems.system import Run
from cmri_lib.systems.translation import RECONSTRUCTION
from cmri_lib.train import shareable, status
from cmri_lib.training.checkpoint import read_note, read_tensors, write_tensors
from cmri_lib.training.kept import TURN

SLICES = concatenate([discs(8, 2), discs(2, 2, seed=3, split="validation")]).with_columns(vendor="GE", disease="NOR")


def test_every_run_once_and_before_what_starts_from_it(tmp_path: Path) -> None:
    study = quick(open_study("smoke", "phantom"), tmp_path)
    wanted = all_runs(study, SLICES)
    places = [(run.stage, run.folder) for run in wanted]
    assert len(places) == len(set(places))
    missing = {*SYSTEMS, MANIFOLD.id} - {run.system.id for run in wanted}
    # C18 learns from private patients privately, and from no others; the smoke profile reconstructs from an eighth alone.
    assert missing == {RDP_CGAN.id, *(system.id for system in RECONSTRUCTION[4])}
    real = replace(study, params=replace(study.params, dataset="acdc"))
    assert MANIFOLD.id not in {run.system.id for run in all_runs(real, SLICES)}, "nobody can scan real patients again"
    for run in wanted:
        if run.start is not None:
            assert places.index((run.start.stage, run.start.folder)) < places.index((run.stage, run.folder))


def test_private_trainings_are_left_to_one_process_and_none_is_lost(tmp_path: Path) -> None:
    study = quick(open_study("smoke", "phantom"), tmp_path)
    wanted = all_runs(study, SLICES)
    assert shareable(wanted, 1) == (wanted, [])
    together, alone = shareable(wanted, 2)
    assert alone and all(isinstance(run.variant, Private) for run in alone)
    assert not any(isinstance(run.variant, Private) for run in together) and len(together) + len(alone) == len(wanted)


def test_other_seeds_start_from_networks_of_their_own_seed(tmp_path: Path) -> None:
    study = quick(open_study("smoke", "phantom"), tmp_path)
    params = replace(study.params, fidelity=replace(study.params.fidelity, ablation_seeds=3))
    study = replace(study, params=params)
    run = fewer_label_runs(study, SLICES)[0]
    found = runs_over_seeds(study, run, 3)
    assert found[0] is run and [one.seed for one in found] == [None, study.seed + 1, study.seed + 2]
    assert [one.start.seed for one in found] == [None, study.seed + 1, study.seed + 2]
    assert len({one.folder for one in found}) == 3 and {one.patients for one in found} == {run.patients}
    assert {one.folder for one in found} <= {one.folder for one in all_runs(study, SLICES)}


def test_no_curve_is_drawn_over_other_seeds_and_what_no_test_compares(tmp_path: Path) -> None:
    study = quick(open_study("smoke", "phantom"), tmp_path)
    study = replace(study, params=replace(study.params, fidelity=replace(study.params.fidelity, ablation_seeds=2)))
    wanted, safeguards = all_runs(study, SLICES), safeguard_runs(study, SLICES)
    final = {run.id for run in final_weights_alone(study, wanted, SLICES)}
    assert {"flow none, seed 2027", "GAN labels control", "diffusion none", "C9 prompt LDM",
            safeguards[AUGMENTED].id} <= final
    drawn = {run.id for run in wanted} - final
    assert {"U6 DDPM", "U10 FM", "flow none", "flow labels concat", "GAN labels spade", "flow mask",
            safeguards[NONE].id} <= drawn


def test_families_and_the_ablation_have_their_own_numbers_of_trainings(tmp_path: Path) -> None:
    study = quick(open_study("smoke", "phantom"), tmp_path)
    counts = replace(study.params.fidelity, seeds=2, ablation_seeds=1)
    again = [run for run in all_runs(replace(study, params=replace(study.params, fidelity=counts)), SLICES)
             if run.seed is not None]
    assert sorted(run.system.id for run in again) == sorted(counts.repeated)
    assert {run.seed for run in again} == {study.seed + 1}


def test_images_that_others_have_seen_for_a_system_count_once(tmp_path: Path) -> None:
    study = quick(open_study("smoke", "phantom"), tmp_path)
    first, latent, flow = (Run(SYSTEMS[name]) for name in ("U1 VAE", "U7 LDM-KL", "U10 FM"))
    seen = {run.id: run.settings(study.params, study.seed) for run in (latent, flow)}
    stage = latent.first_stage_settings(study.params, study.seed)
    assert images_before(study, first) == images_before(study, flow) == 0
    assert images_before(study, latent) == stage.steps * stage.batch
    controlled = Run(SYSTEMS["C9 ControlNet LDM"])  # on C9 with a prompt, which is on U7; all share a first stage
    prompted = controlled.start.settings(study.params, study.seed)
    assert controlled.start.start.folder == latent.folder
    assert images_before(study, controlled) == sum(one.steps * one.batch for one in (stage, seen[latent.id], prompted))
    fewer = fewer_label_runs(study, SLICES)[0]  # starts from the flow of all patients
    assert images_before(study, fewer) == seen[flow.id].steps * seen[flow.id].batch > 0


def test_fewer_patients_are_contained_in_more(tmp_path: Path) -> None:
    study = quick(open_study("smoke", "phantom"), tmp_path)
    curve = runs_over_patients(study, SLICES, SYSTEMS["U1 VAE"])
    assert [run.patients and len(run.patients) for run in curve] == [4, None]
    assert [len(run.patients) for run in fewer_label_runs(study, SLICES)] == [4]
    assert [run.variant.name for run in noisy_label_runs(study)] == ["labels ± 4 mm"]
    few = SLICES.where(patient=sorted(set(SLICES.where(split="train").patients))[:2])
    assert [run.patients for run in runs_over_patients(study, few, SYSTEMS["U1 VAE"])] == [None]


def test_progress_is_read_from_the_files(tmp_path: Path) -> None:
    study = quick(open_study("smoke", "phantom"), tmp_path)
    done, damaged, other = (Run(SYSTEMS[name]) for name in ("U1 VAE", "U2 DCGAN", "U3 WGAN-GP"))
    train_or_load(study, done, SLICES)
    training_folder(study, damaged).mkdir(parents=True)
    (training_folder(study, damaged) / "weights.safetensors").write_bytes(b"half a file")
    table = progress(study, [done, damaged, other]).set_index("run")
    assert table["state"].to_dict() == {"U1 VAE": "done", "U2 DCGAN": "damaged", "U3 WGAN-GP": "to do"}
    settings = done.settings(study.params, study.seed)
    assert table.loc["U1 VAE", "images"] == table.loc["U1 VAE", "of"] == settings.steps * settings.batch
    assert table.loc["U1 VAE", "left"] == 0 and table.loc["U1 VAE", "hours"] > 0 and pd.isna(table.loc["U3 WGAN-GP", "left"])
    log = pd.read_csv(training_folder(study, done) / "log.csv")
    assert table.loc["U1 VAE", "hours"] * 3600 == pytest.approx(log["seconds"].iloc[-1], abs=0.01)
    assert "1 done, 1 damaged, 1 to do" in status(table.reset_index()) and "2 of unknown length" in status(table.reset_index())


def test_published_trainings_are_loaded_in_a_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = quick(open_study("smoke", "phantom"), tmp_path / "first")
    run = Run(SYSTEMS["U8 DiT"])  # with a first stage
    weights = train_or_load(study, run, SLICES).state_dict()
    assert (len(publish(study, all_folders(study, [run, Run(SYSTEMS["U1 VAE"])]))[0]) == 2
            and publish(study, all_folders(study, [run])) == ([], []))
    clone = quick(open_study("smoke", "phantom"), tmp_path / "clone")
    shutil.copytree(study.root / "trainings", clone.root / "trainings")
    table = progress(clone, [run, Run(SYSTEMS["U1 VAE"])])
    assert list(table["state"]) == ["published", "to do"] and table["left"].iloc[0] == 0 and "1 published" in status(table)
    file = training_folder(study, run) / "weights.safetensors"
    write_tensors(file, read_tensors(file), read_note(file) | {"identity": {"code": "rearranged"}})
    assert publish(study, all_folders(study, [run])) == ([], []), "the same weights are shipped again"
    monkeypatch.setattr("cmri_lib.training.loop.Training.go", lambda self: pytest.fail("trained again"))
    loaded = train_or_load(clone, run, SLICES).state_dict()
    assert all(torch.equal(weights[name], value) for name, value in loaded.items())


def test_of_other_seeds_the_final_weights_alone_are_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = quick(open_study("smoke", "phantom"), tmp_path / "first")
    first, again = runs_over_seeds(study, Run(SYSTEMS["U1 VAE"]), 2)
    weights = [train_or_load(study, run, SLICES).state_dict() for run in (first, again)][1]
    publish(study, all_folders(study, [first, again]), all_folders(study, [again]))
    shipped = [{file.name for file in published_folder(study, training_folder(study, run)).iterdir()} for run in (first, again)]
    assert shipped[1] == {"log.csv", "weights.safetensors"}
    assert {name.split("-")[0] for name in shipped[0] - shipped[1]} == {"snapshot"}, "the first has those of its curve too"
    clone = quick(open_study("smoke", "phantom"), tmp_path / "clone")
    shutil.copytree(study.root / "trainings", clone.root / "trainings")
    monkeypatch.setattr("cmri_lib.training.loop.Training.go", lambda self: pytest.fail("trained again"))
    loaded = train_or_load(clone, again, SLICES).state_dict()
    assert all(torch.equal(weights[name], value) for name, value in loaded.items())


def changed_rate(study: Study) -> Study:
    """The study, in which the VAE learns at another rate."""
    vae = study.params.vae
    training = replace(vae.training, learning_rate=2 * vae.training.learning_rate)
    return replace(study, params=replace(study.params, vae=replace(vae, training=training)))


def test_a_published_training_is_copied_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, copied, run = quick(open_study("smoke", "phantom"), tmp_path), shutil.copytree, Run(SYSTEMS["U1 VAE"])
    folder, settings = training_folder(study, run), run.settings(study.params, study.seed)
    train_or_load(study, run, SLICES)
    publish(study, all_folders(study, [run]))
    source = published_folder(study, folder)
    shutil.rmtree(folder)

    def cut_off(source: Path, target: Path, **choices: object) -> None:
        copied(source, target, **choices)
        raise KeyboardInterrupt

    monkeypatch.setattr("cmri_lib.experiments.published.shutil.copytree", cut_off)
    with pytest.raises(KeyboardInterrupt):
        restore(study, folder, settings)
    assert not (folder / "weights.safetensors").exists() and progress(study, [run])["state"].item() == "published"
    monkeypatch.undo()
    restore(study, folder, settings)
    assert {file.name for file in source.iterdir()} == {file.name for file in folder.iterdir()} - {TURN}
    assert all((folder / file.name).read_bytes() == file.read_bytes() for file in source.iterdir())
    (source / "log.csv").write_text("newer")
    restore(study, folder, settings)
    assert (folder / "log.csv").read_text() != "newer", "what is there already stays"


def test_published_weights_come_back_when_a_setting_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, run = quick(open_study("smoke", "phantom"), tmp_path), Run(SYSTEMS["U1 VAE"])
    weights, folder = train_or_load(study, run, SLICES).state_dict(), training_folder(study, run)
    publish(study, all_folders(study, [run]))
    other = train_or_load(changed_rate(study), run, SLICES).state_dict()
    assert any(not torch.equal(weights[name], value) for name, value in other.items())
    monkeypatch.setattr("cmri_lib.training.loop.Training.go", lambda self: pytest.fail("trained again"))
    for left in ("weights of other settings", "a lock alone", "a checkpoint of other settings"):
        if left != "weights of other settings":
            shutil.rmtree(folder)
            folder.mkdir()
            (folder / TURN).touch()
        if left == "a checkpoint of other settings":
            write_tensors(folder / "checkpoint.safetensors", {"x": torch.zeros(1)}, {"settings": {}})
        assert progress(study, [run])["state"].item() == "published", left
        loaded = train_or_load(study, run, SLICES).state_dict()
        assert all(torch.equal(weights[name], value) for name, value in loaded.items()), left


def test_a_training_under_way_is_not_replaced_by_the_published_one(tmp_path: Path) -> None:
    study, run = quick(open_study("smoke", "phantom"), tmp_path), Run(SYSTEMS["U1 VAE"])
    train_or_load(study, run, SLICES)
    folder = training_folder(study, run)
    publish(study, all_folders(study, [run]))
    (folder / "weights.safetensors").rename(folder / "checkpoint.safetensors")
    restore(study, folder, run.settings(study.params, study.seed))
    assert (folder / "checkpoint.safetensors").exists() and not (folder / "weights.safetensors").exists()


def test_weights_of_other_settings_are_not_shipped(tmp_path: Path) -> None:
    study, run = quick(open_study("smoke", "phantom"), tmp_path), Run(SYSTEMS["U1 VAE"])
    train_or_load(study, run, SLICES)
    publish(study, all_folders(study, [run]))
    shipped, folder = published_folder(study, training_folder(study, run)) / "weights.safetensors", training_folder(study, run)
    before = shipped.read_bytes()
    train_or_load(changed_rate(study), run, SLICES)
    assert publish(study, all_folders(study, [run])) == ([], [folder]) and shipped.read_bytes() == before
    new, left_out = publish(changed_rate(study), all_folders(changed_rate(study), [run]))
    assert (new, left_out) == ([shipped.parent], []) and shipped.read_bytes() != before
    assert progress(changed_rate(study), [run])["state"].item() == "done"


def test_a_stage_is_complete_if_all_its_trainings_are_published(tmp_path: Path) -> None:
    study = quick(open_study("smoke", "phantom"), tmp_path)
    vae, gan = Run(SYSTEMS["U1 VAE"]), Run(SYSTEMS["U2 DCGAN"])
    train_or_load(study, vae, SLICES)
    publish(study, all_folders(study, [vae]))
    with pytest.raises(DataError, match="dvc.lock"):
        complete_stages(study, [vae, gan])
    outs = {"vae": [{"work/${dataset}/${profile}/vae": {"persist": True}}], "gan": ["work/phantom/smoke/gan"],
            "review": ["figures", "work/phantom/smoke/banks/gan"]}  # of another folder of that name it keeps nothing trained
    stages = {name: {"cmd": "python -m cmri_lib.run 01", "outs": of} for name, of in outs.items()}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": {"review": {}, "vae": {}, "gan": {}}}))
    assert sorted(complete_stages(study, [vae, gan])) == ["review", "vae"]
    assert sorted(complete_stages(study, [vae])) == ["gan", "review", "vae"]
    assert sorted(complete_stages(changed_rate(study), [vae])) == ["gan", "review"], "published, but of other settings"


def test_seconds_of_another_kind_of_device_are_no_cost_of_this_one(tmp_path: Path) -> None:
    study = quick(open_study("smoke", "phantom"), tmp_path)
    run = Run(SYSTEMS["U1 VAE"])
    generator = train_or_load(study, run, SLICES)

    def costs() -> set[str]:
        return {row["metric"] for row in cost_rows(study, run, generator, SLICES, images=2)}

    here, file = costs(), training_folder(study, run) / "weights.safetensors"
    write_tensors(file, read_tensors(file), read_note(file) | {"device": "a GPU"})
    assert "training_seconds" in here and costs() == here - {"training_seconds"}


def test_weights_of_real_patients_are_not_published(tmp_path: Path) -> None:
    study = quick(open_study("smoke", "acdc"), tmp_path)
    train_or_load(study, Run(SYSTEMS["U1 VAE"]), SLICES)
    with pytest.raises(DataError, match="acdc holds real patients"):
        publish(study, all_folders(study, [Run(SYSTEMS["U1 VAE"])]))
    assert not (tmp_path / "trainings").exists()
