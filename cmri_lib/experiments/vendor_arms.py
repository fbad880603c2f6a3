"""Arms that differ in the vendors behind their real slices, or in whose style their samples are drawn.

A segmenter that learns from two vendors has fewer patients than one that learns from all. So each has a
partner with as many patients, dealt out over all vendors: what separates the two is the vendors alone. All is
trained by `utility`.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np
import pandas as pd
import torch

from cmri_lib.cohort.requirements import FEWEST, vendors_apart
from cmri_lib.cohort.slices import Slices
from cmri_lib.config.study import Study
from cmri_lib.errors import DataError
from cmri_lib.experiments.arms import Arm, Group, real_arm
from cmri_lib.experiments.training import training_patients
from cmri_lib.generators.base import chunks
from cmri_lib.generators.source_domain import SourceDomain
from cmri_lib.measures.statistics.bootstrap import Score, weighted_mean
from cmri_lib.measures.statistics.seeds import bootstrap_seeds
from cmri_lib.measures.utility.volumetric import FOREGROUND, KEYS, arm_difference
from cmri_lib.systems.register import system
from cmri_lib.systems.system import Run
from cmri_lib.systems.vendors import SOURCE_DOMAIN
from cmri_lib.training.batches import mixed_seed

#: Folder of students and samples.
STAGE = "cross_vendor"
#: The review's system for vendor styles (C3), of the primary test.
STYLE = "C3 vendor-style cGAN"


@dataclass(frozen=True)
class Vendors:
    """Who is learnt from, and who is met in the test alone.

    Attributes:
        seen, unseen: see `requirements.vendors_apart`; both are empty in a cohort whose vendors nobody knows.
        patients: vendor → its training patients, in the order of `training_patients`; not those who were
            scanned by several.
    """

    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    patients: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, study: Study, slices: Slices) -> Vendors:
        """The vendors of a cohort."""
        table = slices.where(split="train").table[["patient", "vendor"]].drop_duplicates()
        single = table[~table["patient"].duplicated(keep=False)].set_index("patient")["vendor"]
        order = [name for name in training_patients(study, slices) if name in single.index]
        patients = {v: tuple(p for p in order if single[p] == v) for v in sorted(set(single))}
        return cls(*vendors_apart(slices.table), patients)

    @property
    def drawable(self) -> tuple[str, ...]:
        """Of the unseen vendors those whose style a generator can have learnt."""
        return tuple(vendor for vendor in self.unseen if self.patients.get(vendor))

    @property
    def known(self) -> tuple[str, ...]:
        """Seen and unseen vendors of which there are training patients."""
        return tuple(vendor for vendor in (*self.seen, *self.unseen) if self.patients.get(vendor))

    def group(self, *vendors: str) -> Group:
        """All training patients of some vendors."""
        return Group(" + ".join(vendors), tuple(p for vendor in vendors for p in self.patients[vendor]))

    def mixed(self, count: int | None = None) -> Group:
        """So many training patients, or all, dealt out over all vendors; where one has too few, others stand in.
        Raises DataError if there are not so many."""
        dealt = [p for turn in zip_longest(*(self.patients[v] for v in self.known)) for p in turn if p is not None]
        if count is not None and count > len(dealt):
            raise DataError(f"{count} patients asked for, {len(dealt)} there", field="count", remedy="ask for fewer")
        return Group(f"all vendors, {len(dealt[:count])} patients", tuple(dealt[:count]))


def base_group(study: Study, slices: Slices, vendors: Vendors) -> Group:
    """Whose slices ways of preprocessing are compared on: the seen vendors', or all if there is no other."""
    return vendors.group(*vendors.seen) if vendors.unseen else Group("all", training_patients(study, slices))


def of_vendors(group: Group) -> Arm:
    """Their real slices alone."""
    return real_arm(1.0, group, STAGE)


def style_arm(vendors: Vendors, name: str, style: Sequence[str], factor: float) -> Arm:
    """Real slices of the seen vendors, and `factor` times as many samples under masks of the same patients in the
    style of other vendors, or, for comparison, of the same.

    The generator has learnt from all training patients, from those of the unseen vendors too, with their masks.
    The segmenter meets none of their images and none of their masks.
    """
    group, words = vendors.group(*vendors.seen), "unseen" if set(style) - set(vendors.seen) else "seen"
    return Arm(f"{group.name}: real + {factor:g} × {name}, {words} style", images=Run(system(name)),
               factor=factor, group=group, generator_fraction=1.0, vendors=tuple(style), stage=STAGE)


def with_own_training(study: Study) -> Study:
    """The study whose segmenters are trained as section `cross_vendor` says, not as section `utility` does."""
    own = study.params.cross_vendor
    utility = replace(study.params.utility, training=own.training, seeds=own.seeds)
    return replace(study, params=replace(study.params, utility=utility))


def make_folders(study: Study) -> None:
    """The folders of students and samples, which DVC expects of every cohort, of one without vendors too."""
    for folder in (study.work(STAGE), study.work("banks") / STAGE):
        folder.mkdir(parents=True, exist_ok=True)


@torch.no_grad()
def in_source_domain(generator: SourceDomain, slices: Slices, *, strength: float, finest: float, seed: int, batch: int = 16
                     ) -> Slices:
    """The same slices with images in the style of what `generator` (C13) has learnt. Masks and table stay those of the
    scans, for what is segmented in the new image is scored there; `source` names the system. The noise of a slice depends on
    the seed and its image alone."""
    images = []
    for rows in chunks(len(slices), batch):
        part = torch.from_numpy(slices.images[rows.start:rows.stop])
        seeds = [mixed_seed(seed, zlib.crc32(image.numpy().tobytes())) for image in part]
        noise = torch.stack([torch.randn(part.shape[1:], generator=torch.Generator().manual_seed(s)) for s in seeds])
        made = generator.translate(part.to(generator.device), noise.to(generator.device), strength=strength, finest=finest)
        images.append(made.float().cpu().numpy())
    return replace(slices.with_columns(source=SOURCE_DOMAIN.id), images=np.concatenate(images))


# --- scores by vendor
def scans_of(slices: Slices, *vendors: str) -> set[str]:
    """The scans by some vendors."""
    return set(slices.where(vendor=list(vendors)).table["scan"])


def tested(slices: Slices, *vendors: str) -> bool:
    """Whether there are enough patients for an interval."""
    return slices.where(vendor=list(vendors)).table["patient"].nunique() >= FEWEST


def on_scans(tables: Sequence[pd.DataFrame], scans: set[str]) -> list[pd.DataFrame]:
    """The rows of `volume_scores` about some scans."""
    return [table[table["scan"].isin(scans)].reset_index(drop=True) for table in tables]


def difference(first: Sequence[pd.DataFrame], second: Sequence[pd.DataFrame], scans: set[str] | None = None,
               column: str = "dice", **options: object) -> Score:
    """`arm_difference` on some scans, on the volumes that both were scored on: another crop can lose a volume."""
    count, chosen = len(first), [*first, *second]
    chosen = chosen if scans is None else on_scans(chosen, scans)
    keys = [pd.MultiIndex.from_frame(table[KEYS]) for table in chosen]
    shared = keys[0].intersection(keys[-1])
    chosen = [table[key.isin(shared)].reset_index(drop=True) for table, key in zip(chosen, keys)]
    return arm_difference(chosen[:count], chosen[count:], column, **options)


def gap(tables: Sequence[pd.DataFrame], first: set[str], second: set[str], **options: object) -> Score:
    """Mean Dice on the scans `first` minus that on the scans `second`, of the same students. A patient with scans in
    both is drawn once for both."""
    parts = [table[(table["structure"] == FOREGROUND) & table["scan"].isin(first | second)] for table in tables]
    ahead = parts[0]["scan"].isin(first).to_numpy()

    def statistic(counts: np.ndarray, dice: np.ndarray) -> float:
        return weighted_mean(dice[ahead], counts[ahead]) - weighted_mean(dice[~ahead], counts[~ahead])

    statistics = [lambda counts, dice=part["dice"].to_numpy(): statistic(counts, dice) for part in parts]
    return bootstrap_seeds(statistics, parts[0]["patient"].to_numpy(), **options)
