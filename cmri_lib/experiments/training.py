"""Train what a `Run` names, or load it: first its first stage and the run it starts from, then its generator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cmri_lib.cohort.slices import Slices
from cmri_lib.cohort.vocabulary import Vocabulary
from cmri_lib.config.study import Study
from cmri_lib.errors import DataError
from cmri_lib.experiments.published import restore
from cmri_lib.generators.base import Generator, batch_of
from cmri_lib.measures.cost import cost
from cmri_lib.networks.conditioning.base import Conditioning
from cmri_lib.networks.pretrained import load_pretrained
from cmri_lib.reporting.results import with_system_columns
from cmri_lib.systems.system import Run
from cmri_lib.training import TrainSettings, train
from cmri_lib.training.checkpoint import read_note
from cmri_lib.training.kept import read_log
from cmri_lib.training.loop import device_name
from cmri_lib.training.marks import unmarked


def train_or_load(study: Study, run: Run, slices: Slices, learn: Callable[..., object] = train) -> Generator:
    """The trained generator of `run`.

    Args:
        slices: the whole preprocessed cohort; the run says which of them it learns from.
        learn: the last step, called as `training.train` is, with validation and source: another loop, say.
    """
    generator = run.system.build(study.params, Vocabulary.of(slices), study.seed if run.seed is None else run.seed)
    seen, unseen = training_slices(run, slices)
    # Before weights are loaded: those of a first stage that is shared would make its training look like another one.
    if run.system.first_stage is not None:
        conditioning = getattr(generator.first_stage, "conditioning", Conditioning())
        folder, settings = first_stage_folder(study, run), run.first_stage_settings(study.params, study.seed)
        restore(study, folder, settings)
        first, kept = (run.system.batch(s, conditioning, study.params) if len(s) else None for s in (seen, unseen))
        train(generator.first_stage, first, settings, folder, validation=kept)
        unmarked(generator.first_stage)  # else the generator's training would be another one than after loading it
    if run.start is not None:
        load_pretrained(generator, train_or_load(study, run.start, slices).state_dict())
    # A cohort without validation patients has no validation loss.
    source, other = (run.system.batch(s, generator.conditioning, study.params) if len(s) else None for s in (seen, unseen))
    data, validation = (None if batch is None else generator.prepare(batch) for batch in (source, other))
    folder, settings = training_folder(study, run), run.settings(study.params, study.seed)
    restore(study, folder, settings)
    learn(generator, data, settings, folder, validation=validation, source=source)
    return generator


def training_slices(run: Run, slices: Slices) -> tuple[Slices, Slices]:
    """The training and validation slices of `run`: without what its system withholds, as the system and its variant change
    them.

    Raises:
        DataError: if none is left to learn from.
    """
    some = slices.take(~of_pairs(slices, run.system.withheld)) if run.system.withheld else slices
    some = run.system.slices(some) if run.system.slices else some
    seen, unseen = some.where(split="train"), some.where(split="validation")
    if run.patients is not None:
        seen = seen.where(patient=run.patients)
    if not len(seen):
        raise DataError(f"{run.id} has no slices to learn from", field="patients", remedy="name patients of the training split")
    change = run.variant.slices
    return (seen, unseen) if change is None else (change(seen), change(unseen))


def of_pairs(slices: Slices, pairs: tuple[tuple[str, str], ...]) -> np.ndarray:
    """(N,) bool: slices of a (disease, vendor) of `pairs`."""
    both = pd.MultiIndex.from_frame(slices.table[["disease", "vendor"]])
    return both.isin(list(pairs)) if pairs else np.zeros(len(slices), bool)


def training_patients(study: Study, slices: Slices) -> tuple[str, ...]:
    """The training patients in an order drawn from the study's seed: a smaller number is contained in a larger one."""
    names = np.unique(slices.where(split="train").patients)
    return tuple(names[np.random.default_rng(study.seed).permutation(len(names))].tolist())


def runs_over_seeds(study: Study, run: Run, count: int) -> list[Run]:
    """`count` trainings of one system: the run, and others with the seeds that follow, of what they start from as well."""
    return [run, *(_with_seed(run, study.seed + k) for k in range(1, count))]


def scored_runs(study: Study, run: Run) -> list[Run]:
    """The trainings of an unconditional system that its scores are means over: several if `fidelity.repeated` names it."""
    counts = study.params.fidelity
    return runs_over_seeds(study, run, counts.seeds if run.id in counts.repeated else 1)


def _with_seed(run: Run, seed: int) -> Run:
    return replace(run, seed=seed, pretrained=run.pretrained and _with_seed(run.pretrained, seed))


def training_folder(study: Study, run: Run) -> Path:
    """Where the weights and the log of `run` lie."""
    return study.work(run.stage) / run.folder


def first_stage_folder(study: Study, run: Run) -> Path:
    """Where the first stage of `run` lies; all systems that share it find it there."""
    return study.work(run.system.first_stage.stage) / run.first_stage_folder


def training_folders(study: Study, run: Run) -> dict[Path, TrainSettings]:
    """Where all that is trained for `run` alone lies, and its settings: the first stage, where it has one, and itself."""
    found = {training_folder(study, run): run.settings(study.params, study.seed)}
    if run.system.first_stage is None:
        return found
    return {first_stage_folder(study, run): run.first_stage_settings(study.params, study.seed), **found}


def training_log(study: Study, run: Run) -> pd.DataFrame:
    """The log of a finished training: see `training.train`."""
    return read_log(training_folder(study, run))


def first_stage_seconds(study: Study, run: Run) -> float:
    """Training time of the run's first stage; 0 without one. It counts in full for each system that uses it."""
    if run.system.first_stage is None:
        return 0.0
    return float(read_log(first_stage_folder(study, run))["seconds"].iloc[-1])


def training_seconds(study: Study, run: Run) -> float:
    """What the training of a run took, in seconds: its first stage counts in full, what it starts from does not, so that of a
    fine-tuned system it is the fine-tuning alone."""
    return float(training_log(study, run)["seconds"].iloc[-1]) + first_stage_seconds(study, run)


def images_before(study: Study, run: Run) -> int:
    """Training images that others have seen for it: its first stage, and all that it starts from with theirs, each once."""
    seen, one = {}, run
    while one is not None:
        seen |= training_folders(study, one)
        one = one.start
    del seen[training_folder(study, run)]
    return sum(settings.steps * settings.batch for settings in seen.values())


@torch.no_grad()
def cost_rows(study: Study, run: Run, generator: Generator, conditions: Slices, images: int = 16) -> list[dict[str, object]]:
    """Cost rows of a trained run: what its training took, and what a sample takes at `images` at once.

    Training times are left out where another kind of device has trained than now draws: its seconds are not this one's."""
    notes = [read_note(folder / "weights.safetensors") for folder in training_folders(study, run)]
    trained_on = {note.get("device", "cpu") for note in notes}
    some = conditions.take(np.arange(images) % len(conditions))
    batch = {k: v.to(generator.device) for k, v in batch_of(some, generator.conditioning).items()}
    noise = torch.randn(images, *generator.noise_shape(conditions.size)).to(generator.device)
    rows = cost(lambda n: generator.sample(noise[:n], {k: v[:n] for k, v in batch.items()}), generator, images=images,
                evaluations=generator.nfe, images_seen=int(training_log(study, run)["images"].iloc[-1]),
                images_before=images_before(study, run),
                training_seconds=training_seconds(study, run) if trained_on == {device_name(generator.device)} else None)
    return with_system_columns(run, rows)
