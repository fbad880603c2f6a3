"""The common protocol: what every notebook measures with and on, so that systems can be compared at all.

One set of preprocessed slices, one split, one set of frozen instruments, one choice of conditions to sample under.
Each instrument is trained by notebook 01 and loaded, by the same call, wherever it is asked for again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cmri_lib.cohort.case import Case
from cmri_lib.cohort.preprocessing.heart_detector import Detector, train_detector
from cmri_lib.cohort.slices import Slices
from cmri_lib.config.parameters import open_study
from cmri_lib.config.study import Study
from cmri_lib.errors import DataError
from cmri_lib.generators.base import Generator, batch_of, draw, training_batch
from cmri_lib.measures.cost import cost
from cmri_lib.measures.instruments.classical_features import ClassicalFeatures
from cmri_lib.measures.instruments.learned_features import Remembered, train_features
from cmri_lib.measures.instruments.segmenter import train_segmenter
from cmri_lib.networks.conditioning.base import Conditioning
from cmri_lib.networks.pretrained import adopt
from cmri_lib.reporting.results import named
from cmri_lib.systems.unconditional import System
from cmri_lib.training import TrainSettings, train

__all__ = ["open_study"]  # notebooks open the study through the protocol


def load_slices(study: Study) -> Slices:
    """The preprocessed cohort that notebook 01 saved."""
    return Slices.load(study.work("slices"))


def _settings(study: Study, name: str) -> TrainSettings:
    return study.settings(f"instruments.{name}", TrainSettings, seed=study.seed)


def detector(study: Study, training_cases: Sequence[Case]) -> Detector:
    """The region detector, trained or loaded."""
    return train_detector(training_cases, study.work("instruments") / "detector", _settings(study, "detector"))


def segmenter(study: Study, slices: Slices) -> Remembered:
    """The frozen segmenter, trained on the real training slices or loaded."""
    folder = study.work("instruments") / "segmenter"
    return Remembered(train_segmenter(slices.where(split="train", source="real"), _settings(study, "segmenter"), folder))


def feature_spaces(study: Study, slices: Slices) -> list[Remembered]:
    """The study's own frozen features and the training-free ones."""
    folder = study.work("instruments") / "features"
    learnt = train_features(slices.where(split="train", source="real"), _settings(study, "features"), folder)
    return [Remembered(learnt), Remembered(ClassicalFeatures())]


def sampling_conditions(slices: Slices, samples: int, seed: int, split: str = "test") -> Slices:
    """About `samples` slices of `split` to draw synthetic ones for: whole phases of scans in random order, and all of
    them again if there are too few. At least one phase of every patient comes before any second one.

    Raises:
        DataError: if the split is empty.
    """
    table = slices.table[(slices.table["split"] == split).to_numpy()]
    if table.empty:
        raise DataError(f"no slices of split {split!r}", field="split", remedy="check the list of patients")
    generator = np.random.default_rng(seed)
    volumes = [part.index.to_numpy() for _, part in table.groupby(["scan", "phase"], sort=True)]
    volumes = [volumes[i] for i in generator.permutation(len(volumes))]
    seen: dict[str, int] = {}
    turn = []
    for volume in volumes:
        patient = table.loc[volume[0], "patient"]
        turn.append(seen.setdefault(patient, 0))
        seen[patient] += 1
    order = [volumes[i] for i in np.argsort(turn, kind="stable")]
    chosen: list[np.ndarray] = []
    while sum(map(len, chosen)) < samples:
        chosen.append(order[len(chosen) % len(order)])
    return slices.take(np.concatenate(chosen))


def trained(study: Study, system: System, slices: Slices, patients: int | None = None, start: Generator | None = None
            ) -> Generator:
    """`system`, trained on the training patients or loaded if that has been done; first its first stage and the system
    it starts from, if any.

    Args:
        patients: learn from only so many training patients; smaller choices are contained in larger ones.
        start: the trained generator to start from, in the place of `system.start` trained on these same slices.
    """
    generator, folder = system.build(study), training_folder(study, system, patients)
    seen = slices.where(split="train", patient=training_patients(study, slices)[:patients])
    unseen = slices.where(split="validation")
    # Before weights are adopted: those of a first stage that is shared would make its training look like another one.
    if generator.first_stage is not None:
        first = study.settings(f"{system.first_stage}.training", TrainSettings, seed=study.seed)
        told = getattr(generator.first_stage, "conditioning", Conditioning())
        train(generator.first_stage, training_batch(seen, told), first, first_stage_folder(study, system, patients),
              validation=training_batch(unseen, told))
        # Accelerate marks what it has trained. Loaded, it bears no mark, and the generator's training would be repeated.
        vars(generator.first_stage).pop("_is_accelerate_prepared", None)
    if system.start is not None:
        past = trained(study, system.start, slices, patients) if start is None else start
        adopt(generator, past.state_dict())
    settings = study.settings(f"{system.section}.training", TrainSettings, seed=study.seed)
    train(generator, generator.prepare(training_batch(seen, generator.conditioning)), settings, folder,
          validation=generator.prepare(training_batch(unseen, generator.conditioning)))
    return generator


def training_patients(study: Study, slices: Slices) -> list[str]:
    """The training patients in an order drawn from the study's seed."""
    names = np.unique(slices.where(split="train").patients)
    return list(names[np.random.default_rng(study.seed).permutation(len(names))])


def training_folder(study: Study, system: System, patients: int | None = None) -> Path:
    """Where the weights and the log of `system` lie."""
    return study.work(system.stage) / (system.folder + ("" if patients is None else f"-{patients}-patients"))


def first_stage_folder(study: Study, system: System, patients: int | None = None) -> Path:
    """Where the first stage of `system` lies: with the section that it is named after, so that all that share it find it."""
    stage, *_, name = system.first_stage.split(".")
    return study.work(stage) / (name + ("" if patients is None else f"-{patients}"))


def sample_bank(study: Study, system: System, generator: Generator, conditions: Slices) -> Slices:
    """Draw the bank of samples of `system` that all later notebooks share, and save it."""
    bank = draw(generator, conditions, system.id, seed=study.seed)
    bank.save(bank_folder(study, system))
    return bank


def bank_folder(study: Study, system: System) -> Path:
    """Where the samples of `system` lie."""
    return study.work("banks") / system.folder


def load_bank(study: Study, system: System) -> Slices:
    """The bank that the system's own notebook drew."""
    return Slices.load(bank_folder(study, system))


def first_stage_seconds(study: Study, system: System) -> float:
    """Training time of the system's first stage; 0 without one. It counts in full for each system that uses it."""
    if not system.first_stage:
        return 0.0
    return float(pd.read_csv(first_stage_folder(study, system) / "log.csv")["seconds"].iloc[-1])


@torch.no_grad()
def cost_rows(study: Study, system: System, generator: Generator, conditions: Slices, images: int = 16
              ) -> list[dict[str, object]]:
    """Cost rows of a trained system: what its training took, and what a sample takes at `images` at once."""
    log = pd.read_csv(training_folder(study, system) / "log.csv")
    some = conditions.take(np.arange(images) % len(conditions))
    batch = {k: v.to(generator.device) for k, v in batch_of(some, generator.conditioning.fields).items()}
    noise = torch.randn(images, *generator.noise_shape(conditions.size)).to(generator.device)
    rows = cost(lambda n: generator.sample(noise[:n], {k: v[:n] for k, v in batch.items()}), generator, images=images,
                evaluations=generator.nfe, images_seen=int(log["images"].iloc[-1]),
                training_seconds=log["seconds"].iloc[-1] + first_stage_seconds(study, system))
    return named(system, rows)
