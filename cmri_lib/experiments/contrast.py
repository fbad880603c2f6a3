"""Series of virtual patients over phases of the heartbeat and inversion times, and the training and use of C11 on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import delayed

from cmri_lib.cohort.data_sets import PHANTOM
from cmri_lib.cohort.jobs import results, worker_count
from cmri_lib.cohort.mapped import mapped_arrays, write_arrays
from cmri_lib.cohort.slices import Slices
from cmri_lib.cohort.vocabulary import Vocabulary
from cmri_lib.config.contrast import ContrastSettings
from cmri_lib.config.study import Study
from cmri_lib.errors import DataError, NothingToDo
from cmri_lib.experiments.published import restore
from cmri_lib.experiments.training import training_folder
from cmri_lib.generators.base import training_batch
from cmri_lib.generators.cross_reconstruction import CrossVAE
from cmri_lib.networks.conditioning.base import Batch, Conditioning
from cmri_lib.phantom.cohort import group_of, virtual_patient
from cmri_lib.phantom.scanner import inversion_series
from cmri_lib.phantom.vendors import VENDORS
from cmri_lib.systems.contrast import LOG_TIME, MANIFOLD, MOTION, STAGE
from cmri_lib.systems.system import Run
from cmri_lib.training import train
from cmri_lib.training.fingerprint import code_digest, digest

#: Magnitude, in units of the steady state of LV blood, that becomes white; 0 becomes black.
WHITE = 1.5
#: Column of the inversion time in ms.
TIME = "inversion_time"
#: What is kept of a scan: see `InversionSeries`.
ARRAYS = ("images", "masks", "t1")


def need_virtual_patients(study: Study) -> None:
    """Raises `NothingToDo` unless the study's patients are virtual: only they can be scanned at any phase and time."""
    if study.dataset != PHANTOM:
        raise NothingToDo(f"{study.dataset} has no series over inversion times", field="dataset",
                          remedy=f"choose the data set {PHANTOM}, whose patients can be scanned again")


@dataclass(frozen=True)
class Series:
    """Images of patients, each in the same S states, in the same order.

    Attributes:
        slices: N = patients × S images; the table has the columns `MOTION`, `TIME` (ms) and `LOG_TIME`.
        t1: (N, H, W) float32, the true T1 in ms of pixels of one material, NaN elsewhere.
    """

    slices: Slices
    t1: np.ndarray

    def __len__(self) -> int:
        return len(self.slices)

    def where(self, **columns: object) -> Series:
        """The images whose columns have these values, as `Slices.where`."""
        return self.take(np.flatnonzero(np.logical_and.reduce([
            self.slices.table[c].isin(v if isinstance(v, (list, tuple)) else [v]) for c, v in columns.items()])))

    def take(self, index: np.ndarray) -> Series:
        """The images at `index`, in that order."""
        return Series(self.slices.take(index), self.t1[index])

    @property
    def states(self) -> pd.DataFrame:
        """S rows: `MOTION` and `TIME` of the states."""
        return self.slices.table[[MOTION, TIME]].drop_duplicates(ignore_index=True)


def scan_patients(study: Study, split: str, *, contractions: Sequence[float] | None = None,
                  times: Sequence[float] | None = None) -> Series:
    """Series of the patients of one split; the same arguments give the same images.

    Args:
        contractions, times: other states than those of ``params.yaml``.

    Raises:
        DataError: on an unknown split.
    """
    settings = study.params.contrast
    first = {"train": 0, "validation": settings.patients.train,
             "test": settings.patients.train + settings.patients.validation}
    if split not in first:
        raise DataError(f"{split!r}", field="split", remedy=f"choose among {list(first)}")
    numbers = range(1 + first[split], 1 + first[split] + getattr(settings.patients, split))
    contractions, times = (tuple(map(float, own if chosen is None else chosen)) for chosen, own in (
        (contractions, settings.contractions), (times, settings.inversion_times)))
    options = {"size": settings.network.size, "field_of_view": settings.field_of_view, "flip": settings.flip}
    asked = settings.vendor, study.seed, contractions, times, options
    file = _cache(study, split, digest([repr((asked, numbers)).encode(), code_digest(inversion_series).encode()]))
    if not file.exists():
        jobs = [delayed(_scan)(number, *asked) for number in numbers]
        parts = zip(*results(jobs, workers=min(worker_count(study.params.workers), len(jobs))))
        file.parent.mkdir(parents=True, exist_ok=True)
        write_arrays(file, dict(zip(ARRAYS, map(np.concatenate, parts))))
    kept = mapped_arrays(file)
    images, masks, t1 = (kept[name] for name in ARRAYS)
    table = pd.concat([_table(number, split, settings, contractions, times) for number in numbers], ignore_index=True)
    return Series(Slices((2 / WHITE * images - 1).clip(-1, 1), masks, table), t1)


def _cache(study: Study, split: str, name: str) -> Path:
    """Where the scans of a split are kept: named after all that they depend on, the code of the phantom included."""
    return study.work(STAGE) / "series" / f"{split}-{name}.safetensors"


def _scan(number: int, vendor: str, seed: int, contractions: tuple[float, ...], times: tuple[float, ...],
          options: dict[str, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images (S, 1, H, W), masks and true T1 (S, H, W) of one patient in S states."""
    scanned = inversion_series(virtual_patient(seed, number), vendor, seed, contractions, times, **options)
    masks, t1 = (np.repeat(part, len(times), axis=0) for part in (scanned.masks, scanned.t1))
    return scanned.images.reshape(-1, 1, *masks.shape[1:]), masks, t1


def _table(number: int, split: str, settings: ContrastSettings, contractions: tuple[float, ...], times: tuple[float, ...]
           ) -> pd.DataFrame:
    """The rows of one patient, in the order of `_scan`."""
    motion, inversion = np.repeat(contractions, len(times)), np.tile(times, len(contractions))
    name, vendor = f"virtual-{number:04d}", VENDORS[settings.vendor]
    return pd.DataFrame({
        "patient": name, "scan": name, "split": split, "dataset": PHANTOM, "vendor": vendor.name,
        "centre": str(vendor.centres[0]), "disease": group_of(number),
        "phase": np.select([motion == 0, motion == 1], ["ED", "ES"], "between"), "level": "mid", "height": 0.5, "index": 0,
        "spacing": settings.field_of_view / settings.network.size, "slice_mm": vendor.distance, "source": "real",
        MOTION: motion, TIME: inversion, LOG_TIME: np.log(inversion)})


def by_patient(series: Series, conditioning: Conditioning) -> Batch:
    """What `CrossVAE` learns from: image (patients, S, 1, H, W), and the conditions (patients, S), scaled.

    Raises:
        DataError: if the patients are not all in the same states, in the same order.
        SplitError: of test patients.
    """
    table, states = series.slices.table, series.states
    patients = table["patient"].unique()
    shape = len(patients), len(states)
    alike = len(series) == len(patients) * len(states)
    if not alike or (table["patient"] != np.repeat(patients, len(states))).any() or not np.array_equal(
            table[[MOTION, TIME]], np.tile(states, (len(patients), 1))):
        raise DataError(f"{len(series)} images of {len(patients)} patients in {len(states)} states", field="series",
                        remedy="give every patient in every state, one patient after the other")
    return {name: values.unflatten(0, shape) for name, values in training_batch(series.slices, conditioning).items()}


def train_manifold(study: Study, learn: Series, validation: Series) -> CrossVAE:
    """C11, trained on `learn`, or loaded if it was trained before."""
    run = Run(MANIFOLD)
    generator = MANIFOLD.build(study.params, Vocabulary.of(learn.slices), study.seed)
    folder, settings = training_folder(study, run), run.settings(study.params, study.seed)
    restore(study, folder, settings)
    train(generator, by_patient(learn, generator.conditioning), settings, folder,
          validation=by_patient(validation, generator.conditioning))
    return generator
