"""The arms of the utility study: what a segmenter may learn from, and which patients and runs that takes.

The arms form a star. In its centre stands real + 1 × samples of the main system, on few patients. Each ray
changes one thing: how many patients, how many samples, how they are used, who draws them, whose masks they
follow, what the generator has seen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cmri_lib.cohort.requirements import FEWEST, HEALTHY
from cmri_lib.cohort.slices import Slices
from cmri_lib.cohort.vocabulary import names_nothing
from cmri_lib.config.study import Study
from cmri_lib.errors import ParameterError
from cmri_lib.experiments.training import training_patients
from cmri_lib.systems.label_maps import CHAINS, LABEL_VAE, Chain
from cmri_lib.systems.register import SYSTEMS
from cmri_lib.systems.register import system as registered
from cmri_lib.systems.system import Run, System

#: Folder of what no other notebook trains: generators of fewer patients, and students.
STAGE = "utility"
#: Folder of the students of every system's samples alone (notebook 17).
TEACHING = "teaching"
#: The system in the centre, and the one without any condition that it is compared with.
MAIN, FREE = "C16 MOTFM SPADE", "U10 FM"


@dataclass(frozen=True)
class Group:
    """Training patients with something in common, a vendor say, and its name."""

    name: str
    patients: tuple[str, ...]


@dataclass(frozen=True)
class Arm:
    """What a segmenter learns from.

    Attributes:
        id: a name that no other arm bears.
        fraction: of the training patients, whose real slices and masks it may use; a smaller one is part of a
            larger.
        group: whose real slices and masks it may use, in the place of a share of all.
        real: whether it learns from these real slices, or from samples alone.
        images: the run that draws its samples; None for no samples.
        masks: the run that draws the masks they follow; None for the masks of the arm's own patients.
        factor: samples for each real slice of these patients.
        pretraining: share of the optimiser steps that go to the samples alone, before the rest go to the real
            slices alone; 0 mixes both.
        candidates: samples drawn for each one kept, which is the one that follows its mask best.
        generator_fraction: of the training patients that the generators may have seen; `fraction` unless
            given. What more patients behind the generator would have been worth is another arm.
        disease: whose hearts the samples show: they follow masks of the arm's own patients of that group. With
            `masks`, a label VAE, masks of its own healthy patients that this VAE moves to the disease.
        vendors: in whose style its samples are drawn, in turn; that of the patient whose mask they follow, if
            none is named.
        ejection: over which ejection fractions in % the scans whose masks they follow are spread as evenly as the arm's own
            patients allow (C5); None for scans as they come.
        stage: folder of its student and of its samples.

    Raises:
        ParameterError: if it learns from nothing, or the fields contradict each other.
    """

    id: str
    fraction: float = 1.0
    real: bool = True
    images: Run | None = None
    masks: Run | None = None
    factor: float = 0.0
    pretraining: float = 0.0
    candidates: int = 1
    generator_fraction: float | None = None
    disease: str | None = None
    group: Group | None = None
    vendors: tuple[str, ...] = ()
    ejection: tuple[float, float] | None = None
    stage: str = STAGE

    def __post_init__(self) -> None:
        made = self.images is not None
        rules = {
            "fraction": (0 < self.fraction <= 1, "give a share of the patients in (0, 1]"),
            "real": (self.real or made, "let it learn from real slices, from samples, or from both"),
            "factor": ((self.factor > 0) == made, "give samples a run, and a run samples"),
            "masks": (made or self.masks is None, "give the masks a run that makes images of them"),
            "pretraining": (self.pretraining == 0 or made and self.real and 0 < self.pretraining < 1,
                            "give a share below 1, samples and real slices"),
            "candidates": (self.candidates == 1 or made and self.candidates > 1, "give 1, or more and a run"),
            "generator_fraction": (self.generator_fraction is None
                                   or made and self.fraction <= self.generator_fraction <= 1,
                                   "give `fraction` or more, and a run"),
            "group": (self.group is None or self.fraction == 1, "give a group of patients or a share of all"),
            "vendors": (not self.vendors or made, "give a run that makes images"),
            "ejection": (self.ejection is None or made and not (self.masks or self.disease),
                         "give a run that makes images, and neither one that draws masks nor a disease"),
            "disease": (self.disease is None or made and not (self.masks and self.disease == HEALTHY),
                        "give a run that makes images, and move masks to another group than the healthy"),
        }
        for field, (good, remedy) in rules.items():
            if not good:
                raise ParameterError(f"{field} {getattr(self, field)} in arm {self.id!r}", field=field,
                                     remedy=remedy)

    @property
    def family(self) -> str:
        return "real" if self.images is None else self.images.family

    @property
    def conditioning(self) -> str:
        return "none" if self.images is None else self.images.conditioning

    @property
    def runs(self) -> tuple[Run, ...]:
        """What it needs trained before."""
        return tuple(run for run in (self.images, self.masks) if run is not None)

    @property
    def label(self) -> str:
        """The id without the share of the patients."""
        return self.id.partition(": ")[2] or self.id

    @property
    def plain(self) -> Arm:
        """The same real slices without samples: its student labels and selects samples."""
        return real_arm(self.fraction, self.group, self.stage)


# --- patients and seeds
def arm_patients(study: Study, slices: Slices, fraction: float) -> tuple[str, ...]:
    """The first patients of `training_patients`, at least one: those of a smaller fraction are among those of
    a larger."""
    names = training_patients(study, slices)
    return names[:max(1, round(fraction * len(names)))]


def own_patients(study: Study, arm: Arm, slices: Slices) -> tuple[str, ...]:
    """Those whose real slices the arm may use: of its group, or of its share of all."""
    return arm_patients(study, slices, arm.fraction) if arm.group is None else arm.group.patients


def generator_patients(study: Study, arm: Arm, slices: Slices) -> tuple[str, ...]:
    """Those whom the generators of the arm may have seen."""
    if arm.generator_fraction is None:
        return own_patients(study, arm, slices)
    return arm_patients(study, slices, arm.generator_fraction)


def own_slices(study: Study, arm: Arm, slices: Slices) -> Slices:
    """The real training slices of the arm's patients."""
    return slices.where(split="train", source="real", patient=own_patients(study, arm, slices))


def arm_seeds(study: Study) -> list[int]:
    """The seeds with which an arm is trained several times: the study's, and those that follow."""
    return [study.seed + k for k in range(study.params.utility.seeds)]


def few(study: Study) -> float:
    """The share of the patients in the centre of the star: of ``utility.fractions`` that nearest to
    ``utility.few``."""
    settings = study.params.utility
    return min(settings.fractions, key=lambda fraction: abs(fraction - settings.few))


def target_disease(study: Study, slices: Slices, fraction: float) -> str | None:
    """The disease of which the arm has the fewest patients, the first by name among equals, if at least
    `FEWEST` test patients have it and the arm one; None if there is no such disease."""
    patients = slices.table.drop_duplicates("patient")
    own = patients[patients["patient"].isin(arm_patients(study, slices, fraction))]["disease"].value_counts()
    tested = patients[patients["split"] == "test"]["disease"].value_counts()
    chosen = sorted((count, name) for name, count in own.items()
                    if name != HEALTHY and not names_nothing(name) and tested.get(name, 0) >= FEWEST)
    return chosen[0][1] if chosen else None


def compared_systems(study: Study, even_possible: bool = True) -> list[System | Chain]:
    """Whose samples teach alone, in notebook 17: the main system and those of ``teaching.systems``, each once, without C5
    unless uniform ejection fractions are possible. Raises ParameterError on a name that is no system."""
    found = [CHAINS.get(name) or registered(name) for name in dict.fromkeys((MAIN, *study.params.teaching.systems))]
    return [one for one in found if even_possible or not (isinstance(one, Chain) and one.masks is None)]


# --- runs and arms
def generator_run(study: Study, slices: Slices, system: System, fraction: float) -> Run:
    """The run of `system` on the patients of an arm. That on all patients is the one that other notebooks
    train; one on fewer, with all it starts from, lies in the folder of this part of the study."""
    if fraction >= 1:
        return Run(system)
    start = system.pretrained and generator_run(study, slices, system.pretrained, fraction)
    stage = system.first_stage and replace(system.first_stage, stage=STAGE)
    own = replace(system, stage=STAGE, first_stage=stage)
    return Run(own, arm_patients(study, slices, fraction), pretrained=start)


def real_arm(fraction: float, group: Group | None = None, stage: str = STAGE) -> Arm:
    """The arm without samples, which every other one of the same patients is compared with."""
    return Arm(f"{group.name if group else _share(fraction)}: real", fraction, group=group, stage=stage)


def alone_arm(study: Study, slices: Slices, of: System | Chain, fraction: float, stage: str = STAGE) -> Arm:
    """Samples alone, as many as there are real slices (TSTR): of a system, or of a chain, whose masks a network draws or, for
    C5, the cohort gives."""
    images, masks = (of.images, of.masks) if isinstance(of, Chain) else (of, None)
    return Arm(f"{_share(fraction)}: {of.id} alone", fraction, real=False, factor=1.0, stage=stage,
               images=generator_run(study, slices, images, fraction),
               masks=masks and generator_run(study, slices, masks, fraction),
               ejection=study.params.masks.ejection if isinstance(of, Chain) and masks is None else None)


def mixed_arm(study: Study, slices: Slices, system: System, fraction: float, factor: float = 1.0, note: str = "",
              **fields: object) -> Arm:
    """Real slices and `factor` times as many samples. `fields` are of `Arm`, `note` says in words what they
    change."""
    seen = fields.get("generator_fraction", fraction)
    return Arm(f"{_share(fraction)}: real + {factor:g} × {system.id}{note and ', '}{note}", fraction, factor=factor,
               images=generator_run(study, slices, system, seen), **fields)


def _share(fraction: float) -> str:
    return f"{100 * fraction:g} %"


def rays(study: Study, slices: Slices) -> dict[str, list[Arm]]:
    """The star of arms: what is varied → its arms. Arms of several rays occur in each of them."""
    settings, centre = study.params.utility, few(study)
    main, free = SYSTEMS[MAIN], SYSTEMS[FREE]
    label_vae = generator_run(study, slices, LABEL_VAE, centre)

    def mixed(factor: float = 1.0, note: str = "", **fields: object) -> Arm:
        return mixed_arm(study, slices, main, centre, factor, note, **fields)

    best = f"best of {settings.candidates}"
    pretrained = replace(mixed(), id=f"{_share(centre)}: {MAIN}, then real", pretraining=settings.pretraining)
    found = {
        "number of real patients": [arm for fraction in settings.fractions for arm in (
            real_arm(fraction), alone_arm(study, slices, main, fraction),
            mixed_arm(study, slices, main, fraction))],
        "number of samples": [mixed(factor) for factor in settings.factors],
        "use of the samples": [mixed(), pretrained, mixed(note=best, candidates=settings.candidates)],
        "condition of the generator": [
            alone_arm(study, slices, main, centre), mixed(), alone_arm(study, slices, free, centre),
            mixed_arm(study, slices, free, centre)],
        "source of the masks": [mixed(), mixed(note="new masks", masks=label_vae)],
        "patients of the generator": [mixed(), mixed(note="generator of all patients", generator_fraction=1.0)],
    }
    if disease := target_disease(study, slices, centre):
        small, groups = settings.targeted, set(own_slices(study, mixed(), slices).table["disease"])
        found["disease of the samples"] = [mixed(small), mixed(small, f"of {disease}", disease=disease)]
        if HEALTHY in groups:
            found["disease of the samples"].append(
                mixed(small, f"moved to {disease}", disease=disease, masks=label_vae))
    return found


def unique(rays: dict[str, list[Arm]]) -> list[Arm]:
    """Every arm of the star once, those without samples first: others need their students."""
    found = {arm.id: arm for ray in rays.values() for arm in ray}
    return sorted(found.values(), key=lambda arm: arm.images is not None)


def utility_runs(study: Study, slices: Slices) -> list[Run]:
    """Every run that the star needs trained, each once."""
    found = [run for arm in unique(rays(study, slices)) for run in arm.runs]
    return list({(run.stage, run.folder): run for run in found}.values())
