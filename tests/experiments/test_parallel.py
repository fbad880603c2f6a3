"""Trainings side by side: none waits for what another is just writing, and nothing depends on who trained it."""

from __future__ import annotations

import os
import select
import signal
import time

import pytest
import torch
from conftest import discs
from joblib import delayed
from systems.test_conditional import quick

from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.cohort.vocabulary import Vocabulary
from cmri_lib.config.study import Study, open_study
from cmri_lib.errors import DataError
from cmri_lib.experiments import parallel
from cmri_lib.experiments import training as trainings
from cmri_lib.experiments.parallel import in_order, train_all
from cmri_lib.experiments.training import train_or_load, training_folder, training_log
from cmri_lib.systems.ablation import ablation_systems
from cmri_lib.systems.register import SYSTEMS
from cmri_lib.systems.system import Run, Variant, runs
from cmri_lib.training.checkpoint import read_tensors

VOCABULARY = Vocabulary({}, tissues=True)


def first_stage(run: Run) -> tuple[str, str] | None:
    return (run.system.first_stage.stage, run.first_stage_folder) if run.system.first_stage else None


def written(run: Run) -> set[tuple[str, str]]:
    """Folders that a training reads or writes: its own, those of its first stage and of what it starts from."""
    return {(run.stage, run.folder), first_stage(run)} - {None} | (written(run.start) if run.start else set())


@pytest.mark.parametrize("which", [[{}], [{}, {"patients": ("a", "b")}], [{}, {"seed": 7}, {"variant": Variant("bent", len)}]])
def test_what_others_need_comes_first(which: list[dict]) -> None:
    systems = [*SYSTEMS.values(), *(s for *_, s in ablation_systems(VOCABULARY))]
    wanted = [run for choice in which for run in runs(systems, **choice)]
    order = in_order(wanted)
    turns = {(run.stage, run.folder): turn for turn, run in enumerate(order)}
    assert len(turns) == len(order) and {(run.stage, run.folder) for run in wanted} <= set(turns), "each once"
    assert {folder for run in wanted for folder in written(run)} == {folder for run in order for folder in written(run)}
    starts = {(run.start.stage, run.start.folder) for run in order if run.start}
    assert all(turns[run.start.stage, run.start.folder] < turns[run.stage, run.folder] for run in order if run.start)
    # Nobody comes second to a first stage before somebody has come to each of the others.
    alone = [first_stage(run) for run in order if first_stage(run) and (run.stage, run.folder) not in starts and not run.start]
    count = len(set(alone))
    assert count > 1 and len(set(alone[:count])) == count


@pytest.fixture(scope="module")
def cohort() -> Slices:
    unseen = discs(2, 2, seed=3, split="validation")
    return concatenate([discs(4, 2), unseen]).with_columns(vendor="GE", disease="NOR")


def with_workers(study: Study, workers: int) -> Study:
    object.__setattr__(study.params, "workers", workers)
    return study


def test_weights_are_the_same_whoever_trains(cohort: Slices, tmp_path) -> None:
    alone, together = (quick(open_study("smoke", "phantom"), tmp_path / name) for name in ("alone", "together"))
    chosen = runs([SYSTEMS[name] for name in ("U1 VAE", "U7 LDM-KL", "U8 DiT")])
    train_all(with_workers(together, 2), chosen, cohort)
    for run in chosen:
        train_or_load(alone, run, cohort)
        one, other = (read_tensors(training_folder(study, run) / "weights.safetensors") for study in (alone, together))
        assert one.keys() == other.keys() and all(torch.equal(v, other[k]) for k, v in one.items())


def test_without_validation_patients_there_is_no_validation_loss(cohort: Slices, tmp_path) -> None:
    study, run = quick(open_study("smoke", "phantom"), tmp_path), Run(SYSTEMS["U7 LDM-KL"])
    train_or_load(study, run, cohort.where(split="train"))
    assert training_log(study, run)["validation_loss"].isna().all()


def test_what_is_wrong_is_said_where_it_is_needed(cohort: Slices, tmp_path) -> None:
    study = with_workers(quick(open_study("smoke", "phantom"), tmp_path), 2)
    nobody = Run(SYSTEMS["U1 VAE"], patients=("somebody else",))
    train_all(study, [nobody], cohort)
    with pytest.raises(DataError, match="no slices to learn from"):
        train_or_load(study, nobody, cohort)


@pytest.mark.parametrize("killed", [True, False])
def test_a_worker_ends_with_the_process_that_started_it(killed: bool) -> None:
    reading, writing = os.pipe()
    parent = os.fork()
    if not parent:
        if not os.fork():  # the worker: the pipe stays open while it lives
            parallel.end_with_parent(0.05)
            os.write(writing, b"working")
            time.sleep(30)
            os._exit(0)
        time.sleep(30)
        os._exit(0)
    os.close(writing)
    assert os.read(reading, 7) == b"working"
    if killed:
        os.kill(parent, signal.SIGKILL)
    try:
        ended = bool(select.select([reading], [], [], 10 if killed else 0.5)[0])
        assert ended == killed
    finally:
        if not killed:
            os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        os.close(reading)


def test_a_run_names_what_distinguishes_it_and_nothing_else() -> None:
    system = SYSTEMS["C9 ControlNet LDM"]
    different = [Run(system), Run(system, ("p1", "p2")), Run(system, ("p1", "p3")), Run(system, seed=3), Run(system, seed=4),
                 Run(system, variant=Variant("labels ± 2 mm")), Run(system, ("p1", "p2"), 3, Variant("overfitted"))]
    assert len({(r.stage, r.folder) for r in different}) == len(different)
    assert different[0].id == "C9 ControlNet LDM" and different[0].folder == "c9-controlnet-ldm"
    assert different[-1].id == "C9 ControlNet LDM, 2 patients, seed 3, overfitted"
    assert Run(system, ("p2", "p1")).folder == different[1].folder, "the order of patients is no difference"
    # The pretrained run and the first stage learn from the same patients with the same seed; a variant is the run's own.
    start = different[-1].start
    assert (start.system.id, start.patients, start.seed, start.variant.name) == ("C9 prompt LDM", ("p1", "p2"), 3, "")
    assert different[1].first_stage_folder == Run(SYSTEMS["U7 LDM-KL"], ("p1", "p2")).first_stage_folder != "kl"
    assert Run(system, ("p1",), pretrained=Run(system.pretrained)).start.patients is None


def test_variants_and_seeds_train_what_they_say(cohort: Slices, tmp_path) -> None:
    study = quick(open_study("smoke", "phantom"), tmp_path)
    system, params = SYSTEMS["U1 VAE"], study.params
    longer = Run(system, variant=Variant("longer", training={"steps": 4}))
    assert longer.settings(params, 1).steps == 4 and longer.settings(params, 1).seed == 1
    assert Run(system, seed=9).settings(params, 1).seed == 9
    first = Run(system, variant=Variant("first slices", slices=lambda s: s.take(range(2))))
    seen, unseen = trainings.training_slices(first, cohort)
    assert len(seen) == len(unseen) == 2
    weights = []
    for run in (Run(system), Run(system, seed=9), longer, first):
        train_or_load(study, run, cohort)
        weights.append(read_tensors(training_folder(study, run) / "weights.safetensors")["encoder.head.weight"])
    assert all(not torch.equal(weights[0], other) for other in weights[1:])


def test_withheld_pairs_are_never_learnt_from(cohort: Slices) -> None:
    some = cohort.with_columns(disease="DCM", vendor=["Phantom A", "Phantom B"] * (len(cohort) // 2))
    seen, unseen = trainings.training_slices(Run(SYSTEMS["C15 class-conditioned LDM"]), some)
    assert set(seen.table["vendor"]) == set(unseen.table["vendor"]) == {"Phantom A"}
    assert len(trainings.training_slices(Run(SYSTEMS["U1 VAE"]), some)[0]) == 8


class Launched:
    """In the place of an Accelerator."""

    def __init__(self, kind: str, processes: int):
        self.device, self.num_processes = torch.device(kind), processes


@pytest.mark.parametrize(("kind", "processes", "asked", "wanted"), [("cuda", 1, 0, 1), ("cuda", 1, 3, 3), ("cpu", 1, 3, 3),
                                                                    ("cpu", 4, 3, 1), ("cuda", 4, 0, 1)])
def test_one_at_once_on_a_gpu_and_where_processes_share_a_training(kind: str, processes: int, asked: int, wanted: int,
                                                                   monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(parallel, "Accelerator", lambda: Launched(kind, processes))
    study, done = with_workers(quick(open_study("smoke", "phantom"), tmp_path), asked), []
    assert parallel.workers_of(study) == wanted
    monkeypatch.setattr(parallel, "results", lambda jobs, workers, ordered: done.append((len(jobs), workers)) or [])
    parallel.at_once(study, "jobs", [delayed(len)("ab")] * 5)
    parallel.at_once(study, "nothing", [])
    assert done == ([] if wanted == 1 else [(5, 3)])
