"""A synthetic cohort to take away: stacks at ED and ES as NIfTI, with masks, a table and a card.

A patient is coherent. All slices lie under the masks of one training patient and have their geometry; vendor
and disease are one for all; and **one noise serves all slices of both phases**. A sampler carries noise to an
image continuously, so where masks are alike, images drawn from one noise are too: shading, contrast and
surroundings go through the stack and stay from ED to ES, as they do in a scan. With a noise for each slice,
every slice would look like another examination.

The layout is "folder", with ED and ES in files of their own, not that of M&Ms: M&Ms stores cines, of which
there are but two frames here, and names vendors by four codes, none of which means unknown. File names and
``dataset.json`` are those of nnU-Net's raw data (Isensee et al., Nat Methods 18:203, 2021), which takes the
folder as it is.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from tqdm import tqdm

from cmri_lib.cohort.cardiac_function import SCAN
from cmri_lib.cohort.case import LABELS, PHASES, Case, Volume
from cmri_lib.cohort.plausibility import CHECKS, findings
from cmri_lib.cohort.readers.cases import COHORT_FILE, Cohort, read_cohort
from cmri_lib.cohort.readers.nifti import write_nifti
from cmri_lib.cohort.slices import COVARIATES, UNKNOWN, Slices, concatenate, known
from cmri_lib.cohort.vocabulary import Vocabulary
from cmri_lib.cohort.whole_folder import is_free, whole_folder
from cmri_lib.config.study import Study
from cmri_lib.errors import DataError, ParameterError
from cmri_lib.experiments.cohort_card import page, synthetic_card
from cmri_lib.experiments.training import train_or_load, training_slices
from cmri_lib.generators.base import Generator, batch_of
from cmri_lib.generators.disease_shift import uniform_ef
from cmri_lib.generators.label_maps import LabelMaps
from cmri_lib.measures.instruments.frozen import refuse_all_but_training
from cmri_lib.networks.conditioning.base import Conditioning
from cmri_lib.systems.label_maps import CHAINS, Chain
from cmri_lib.systems.register import SYSTEMS, system
from cmri_lib.systems.system import Run, System
from cmri_lib.training.batches import mixed_seed

#: What stands in a slice that is labelled in the other phase only. Systems have learnt labelled slices alone: under an
#: empty mask they might draw a heart without a label.
BLANK = -1.0
#: Checks of `cohort.plausibility` that look at masks alone.
MASK_CHECKS = ("phases", "labels", "volumes")
#: M&Ms' codes of vendors → the names that cohorts give them.
VENDOR_CODES = {"A": ("Siemens", "Phantom A"), "B": ("Philips", "Phantom B"),
                "C": ("GE", "General Electric", "Phantom C"), "D": ("Canon", "Phantom D")}
#: What a system must be conditioned on for its samples to have labels.
_LABELLED = ("mask", "tissues")


@dataclass(frozen=True)
class Request:
    """What is to be made.

    Attributes:
        system: id of a system with a mask as condition, or of the chain C5, whose masks are resampled to a uniform EF.
        patients: how many. A larger number continues a smaller one (but for C5).
        vendor: of all images, by name or M&Ms' code; None for that of the patient whose masks they have.
        disease: of all patients, whose masks are then those of training patients with this disease; None for all.
        seed: of noise and choice of masks.
        accept: checks of `cohort.plausibility` whose findings are written into the table instead of stopping the work.

    Raises:
        ParameterError: on less than one patient, a negative seed or an unknown check.
    """

    system: str
    patients: int
    vendor: str | None = None
    disease: str | None = None
    seed: int = 0
    accept: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.patients < 1 or self.seed < 0:
            raise ParameterError(f"{self.patients} patients, seed {self.seed}", field="patients, seed",
                                 remedy="ask for at least one patient, with a seed of 0 or more")
        if unknown := sorted(set(self.accept) - set(CHECKS)):
            raise ParameterError(f"no check is called {unknown[0]!r}", field="accept",
                                 remedy=f"name some of {list(CHECKS)}")


@dataclass(frozen=True)
class Stack:
    """The slices of one training scan, both phases: the conditions of a synthetic patient. `patient`: whose they are."""

    patient: str
    slices: Slices


def synthesise(study: Study, request: Request, slices: Slices, out: str | Path) -> Cohort:
    """Write the cohort to `out`, all or nothing, and return it as the readers read it back.

    Args:
        slices: the whole preprocessed cohort; only training slices of the system's run become conditions.
        out: a new or empty folder.

    Raises:
        ParameterError: before anything is trained, if `out` is taken, or the system has no mask as condition, or none
            of vendor and disease where they are asked for.
        DataError: if no training scan can be a condition, or what was drawn cannot be hearts and is not accepted.
    """
    out = Path(out)
    _refuse_taken(out)
    of = _named(request.system)
    run = Run(of.images if isinstance(of, Chain) else of)
    conditioning = _conditioning(run.system, study, Vocabulary.of(slices))
    seen = training_slices(run, slices)[0]
    given = {column: _category(conditioning, seen, column, wanted)
             for column, wanted in (("vendor", request.vendor), ("disease", request.disease)) if wanted is not None}
    stacks = whole_stacks(seen.where(disease=given["disease"]) if "disease" in given else seen, request.accept)
    chosen = uniform_stacks(stacks, request) if isinstance(of, Chain) else repeated(stacks, request)
    generator = train_or_load(study, run, slices)
    with whole_folder(out, field="out", problem="cannot be written", remedy="check free space and permissions") as prepared:
        table = _write_patients(prepared, generator, chosen, request, given, of.id)
        table.to_csv(prepared / "patients.csv", index=False)
        card = synthetic_card(study, of, run, generator, request=vars(request) | given, learnt=seen.patients,
                              masks_of=[stack.patient for stack in chosen], table=table)
        _write(prepared / COHORT_FILE, yaml.safe_dump({"layout": "folder"}))
        _write(prepared / "dataset.json", _json(_nnunet(len(table))))
        _write(prepared / "card.json", _json(card))
        _write(prepared / "README.md", page(card))
        cohort = read_cohort(prepared, "folder", dataset=out.name)
    return cohort


def whole_stacks(training: Slices, accept: Iterable[str] = ()) -> list[Stack]:
    """The scans of `training` with labelled slices at ED and ES, and masks in which `MASK_CHECKS` find nothing that is
    not accepted; by patient and scan.

    Raises:
        SplitError: on a slice that is not real or not of the training split.
        DataError: if there is no such scan.
    """
    refuse_all_but_training(training, "synthetic cohort")
    judged = [CHECKS[name] for name in MASK_CHECKS if name not in set(accept)]
    rows_of = training.table.groupby(SCAN).indices
    stacks = [Stack(patient, training.take(rows)) for (patient, _), rows in sorted(rows_of.items())]
    stacks = [stack for stack in stacks if set(stack.slices.table["phase"]) == set(PHASES)]
    whole = [stack for stack in stacks if not any(list(check(as_case("", stack.slices))) for check in judged)]
    if not whole:
        raise DataError(f"no training scan has masks of a heart at ED and ES; {len(stacks)} have both phases",
                        field="masks", remedy="keep both phases and all levels in `preprocess`, or accept some of "
                                              f"{MASK_CHECKS}")
    return whole


def repeated(stacks: Sequence[Stack], request: Request) -> list[Stack]:
    """One stack for each patient: all of them in random order, then again in another until there are enough."""
    generator, order = np.random.default_rng(request.seed), []
    while len(order) < request.patients:
        order += generator.permutation(len(stacks)).tolist()
    return [stacks[i] for i in order[:request.patients]]


def uniform_stacks(stacks: Sequence[Stack], request: Request) -> list[Stack]:
    """One stack for each patient, so that their LV ejection fraction is as uniform as the stacks allow (C5)."""
    drawn = uniform_ef(concatenate([stack.slices for stack in stacks]), request.patients, request.seed)
    rows_of = drawn.table.groupby("patient").indices
    return [Stack(drawn.table["drawn_from"].iloc[rows[0]], drawn.take(rows)) for _, rows in sorted(rows_of.items())]


@torch.no_grad()
def draw_patient(generator: Generator, conditions: Slices, source: str, seed: int) -> Slices:
    """One synthetic slice for every slice of `conditions`, all from one noise, which depends on `seed` alone."""
    generator.eval()
    batch = batch_of(conditions, generator.conditioning)
    given = {field: values.to(generator.device) for field, values in batch.items() if field != "image"}
    noise = torch.randn(generator.noise_shape(conditions.size), generator=torch.Generator().manual_seed(seed))
    images = generator.sample(torch.stack([noise] * len(conditions)).to(generator.device), given)
    images = images.clamp(-1, 1).float().cpu().numpy()
    return Slices(images, conditions.masks, conditions.table.assign(source=source), conditions.tissues)


def as_case(name: str, stack: Slices, vendor: str = UNKNOWN, disease: str = UNKNOWN) -> Case:
    """The slices of one scan as stacks (Z, H, W) in their stored order, from base to apex. A slice that one phase lacks is
    `BLANK` there and has no label. Columns run to the left, rows to posterior, as far as anybody knows."""
    place = stack.table["index"].to_numpy(int) - stack.table["index"].min()
    shape = (int(place.max()) + 1, stack.size, stack.size)
    volumes = {}
    for phase in PHASES:
        rows = np.flatnonzero(stack.table["phase"] == phase)
        image, mask = np.full(shape, BLANK, np.float32), np.zeros(shape, np.uint8)
        image[place[rows]], mask[place[rows]] = stack.images[rows, 0], stack.masks[rows]
        tissues = None
        if stack.tissues is not None:
            tissues = np.zeros(shape, np.uint8)
            tissues[place[rows]] = stack.tissues[rows]
        volumes[phase] = Volume(image, mask, tissues)
    pixel, distance = (float(known(stack.table, column)[0]) for column in ("spacing", "slice_mm"))
    affine = np.diag([-pixel, -pixel, distance, 1.0])
    affine[:2, 3] = pixel * (stack.size - 1) / 2  # the middle of the image is the middle of the world
    return Case(name, name, volumes, (distance, pixel, pixel), affine, vendor, "synthetic", disease)


def _write_patients(folder: Path, generator: Generator, chosen: Sequence[Stack], request: Request,
                    given: Mapping[str, str], source: str) -> pd.DataFrame:
    """Draw and write every patient; the rows of the table, two each."""
    fields, digits = generator.conditioning.fields, max(3, len(str(len(chosen))))
    groups: dict[str, int] = {}
    rows, refused = [], Counter()
    for number, stack in enumerate(tqdm(chosen, desc=f"draw {source}", mininterval=2.0, unit="patient")):
        conditions = stack.slices.with_columns(**given)
        drawn = draw_patient(generator, conditions, source, mixed_seed(request.seed, number))
        first = drawn.table.iloc[0]
        # What the system was not given it has not drawn; only the disease is in the masks, too.
        vendor = first["vendor"] if "vendor" in fields else UNKNOWN
        case = as_case(f"S{number + 1:0{digits}d}", drawn, vendor or UNKNOWN, first["disease"] or UNKNOWN)
        found = findings(case)
        refused.update(set(found) - set(request.accept))
        of_patient = {"vendor": case.vendor, "centre": case.centre, "disease": case.disease,
                      **{name: first.get(name) if name in fields else None for name in COVARIATES},
                      "masks": groups.setdefault(stack.patient, len(groups) + 1), "accept": " ".join(found)}
        for phase in PHASES:
            blank = int((~case.volumes[phase].mask.any(axis=(1, 2))).sum())
            rows.append({"patient": case.patient, "scan": case.scan, "phase": phase,
                         **_write_phase(folder, case, phase, "tissues" in fields), **of_patient, "blank_slices": blank})
    if refused:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(refused.items()))
        raise DataError(f"of {len(chosen)} synthetic patients, some cannot be hearts ({counts})", field="images",
                        remedy=f"train {source} for longer, or write them, marked, with --accept "
                               f"{' '.join(sorted(refused))}")
    return pd.DataFrame(rows)


def _write_phase(folder: Path, case: Case, phase: str, tissues: bool) -> dict[str, str]:
    """Write the files of one phase; column → path in the folder, "" for what there is not."""
    volume, stem = case.volumes[phase], f"{case.scan}_{phase}"
    files = {"image": (f"imagesTr/{stem}_0000.nii.gz", volume.image), "mask": (f"labelsTr/{stem}.nii.gz", volume.mask)}
    if tissues:
        files["tissues"] = (f"tissuesTr/{stem}.nii.gz", volume.tissues)
    for path, voxels in files.values():
        (folder / path).parent.mkdir(exist_ok=True)
        write_nifti(voxels.transpose(2, 1, 0), case.spacing[::-1], case.affine, folder / path)
    return {"tissues": "", **{kind: path for kind, (path, _) in files.items()}}


def _nnunet(volumes: int) -> dict[str, object]:
    """``dataset.json`` of nnU-Net's second version."""
    return {"channel_names": {"0": "cine MRI"}, "labels": {"background": 0, **LABELS}, "numTraining": volumes,
            "file_ending": ".nii.gz"}


def _json(content: Mapping[str, object]) -> str:
    return json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


def _refuse_taken(out: Path) -> None:
    if not is_free(out):
        raise ParameterError("is there already, and not an empty folder", file=out, field="out",
                             remedy="name a new folder, or remove this one yourself")


def _named(name: str) -> System | Chain:
    """The system or chain of that id."""
    if name in CHAINS and CHAINS[name].masks is not None:
        raise ParameterError(f"{name!r} draws every mask by itself: they make no stack of one heart", field="system",
                             remedy=f"choose {CHAINS[name].images.id!r}, under the masks of training patients")
    return CHAINS[name] if name in CHAINS else system(name)


def _conditioning(of: System, study: Study, vocabulary: Vocabulary) -> Conditioning:
    """What the system is conditioned on; refused without a mask."""
    generator = of.build(study.params, vocabulary, study.seed)
    if isinstance(generator, LabelMaps) or not set(_LABELLED) & set(generator.conditioning.fields):
        good = [s.id for s in SYSTEMS.values() if any(word in s.conditioning for word in _LABELLED)]
        raise ParameterError(f"{of.id!r} draws no image under a mask (conditioning: {of.conditioning}), so its slices "
                             "have no labels and make no stack of one heart", field="system",
                             remedy=f"choose among {good}")
    return generator.conditioning


def _category(conditioning: Conditioning, seen: Slices, column: str, wanted: str) -> str:
    """The category of `column` that `wanted` names, if the system is conditioned on it and has learnt it."""
    if column not in conditioning.categories:
        raise ParameterError(f"{wanted!r}: the system is conditioned on {', '.join(conditioning.fields)} alone",
                             field=column, remedy=f"leave --{column} out, or choose a system that is conditioned on it")
    learnt = [name for name in conditioning.categories[column] if (seen.table[column] == name).any()]
    codes = VENDOR_CODES.get(wanted, ()) if column == "vendor" else ()
    found = [name for name in learnt if name == wanted] or [name for name in learnt if name in codes]
    if not found:
        raise ParameterError(f"no training patient has {wanted!r}", field=column, remedy=f"choose among {learnt}")
    return found[0]
