"""Five small cohorts in the layouts in which cohorts are published, with virtual hearts in them.

Each has what made published cohorts fail: groups of one or two patients, words for diseases that no other cohort has,
one vendor, no vendor, few patients, no validation split, one labelled structure.

    python tests/cohort/published_cohorts.py FOLDER      # writes all five, a folder each

For tests, one heart per group is drawn with few pixels (`COARSE`) and serves all patients of the group, each with noise
of their own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import cycle
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from layout_writers import write_acdc, write_csv, write_folder, write_mnms, write_mnms2

from cmri_lib.cohort.case import LABELS, Case, Volume
from cmri_lib.phantom.cohort import virtual_patient
from cmri_lib.phantom.scanner import scan

#: A published word → the group of the simulator whose hearts stand for it.
HEARTS = {"LVNC": "DCM", "AHS": "HCM", "Other": "NOR", "LV": "DCM", "ARR": "RV", "FALL": "RV", "CIA": "RV", "TRI": "RV"}
#: Published vendor → the virtual one that stands for it.
SCANNERS = {"Siemens": "A", "Philips": "B", "GE": "C", "Canon": "D", "unknown": "A"}
#: Resolution at which a group shares a heart.
COARSE = 0.3


def virtual_cases(diseases: str, ids: list[str], vendors: list[str], resolution: float = 0.6, seed: int = 7,
                  labels: tuple[str, ...] = tuple(LABELS)) -> list[Case]:
    """One case for every word of `diseases`, named by `ids`; `vendors` in turn; only `labels` are labelled."""
    return list(_cases(diseases.split(), ids, vendors, resolution, seed, [LABELS[name] for name in labels]))


def _cases(words: list[str], ids: list[str], vendors: list[str], resolution: float, seed: int, kept: list[int]
           ) -> Iterator[Case]:
    for number, (word, name, vendor) in enumerate(zip(words, ids, cycle(vendors)), start=1):
        whose = (7, 1, "A") if resolution <= COARSE else (seed, number, SCANNERS[vendor])
        found = _heart(HEARTS.get(word, word), *whose, resolution)
        noise = np.random.default_rng([seed, number])
        volumes = {phase: Volume(v.image + noise.integers(0, 5, v.image.shape).astype(np.float32),
                                 np.where(np.isin(v.mask, kept), v.mask, 0).astype(np.uint8))
                   for phase, v in found.volumes.items()}
        yield replace(found, patient=name, scan=name, volumes=volumes, vendor=vendor, disease=word, centre="1")


@lru_cache(maxsize=8)
def _heart(group: str, seed: int, number: int, scanner: str, resolution: float) -> Case:
    return scan(virtual_patient(seed, number, group), scanner, seed, resolution=resolution)


def mnms_like(folder: Path, resolution: float = 0.6) -> None:
    """M&Ms: four vendors, the challenge's parts; two LVNC, one AHS and two "Other", of whom training has two."""
    vendors = ["Siemens", "Philips", "GE", "Canon"]
    parts = {"Training/Labeled": "NOR NOR NOR NOR DCM DCM DCM DCM HCM HCM HCM HCM LVNC Other", "Validation": "NOR DCM HCM NOR",
             "Testing": "NOR DCM NOR LVNC AHS Other HCM"}
    rows, start = [], 0
    for part, words in parts.items():
        ids = [f"A{start + k:02d}B{k}C" for k in range(len(words.split()))]
        cases = virtual_cases(words, ids, vendors, resolution, seed=10 + start)
        write_mnms(folder, cases, part=part)
        header, *found = [line.split(",") for line in (folder / "information.csv").read_text().splitlines()]
        rows += found
        start += len(ids)
    write_csv(folder / "information.csv", [header, *rows])


def mnms2_like(folder: Path, resolution: float = 0.6) -> None:
    """M&Ms-2: three vendors, other words for diseases (no DCM among them), parts by number."""
    words = ("NOR NOR NOR NOR LV LV LV HCM HCM HCM ARR ARR FALL TRI", "NOR LV HCM ARR", "NOR NOR LV HCM ARR CIA FALL")
    ids = [f"{first + k:03d}" for first, part in zip((1, 161, 201), words) for k in range(len(part.split()))]
    write_mnms2(folder, virtual_cases(" ".join(words), ids, ["Siemens", "Philips", "GE"], resolution, seed=20))


def acdc_like(folder: Path, resolution: float = 0.6) -> None:
    """ACDC: one vendor, five groups alike in size, parts training and testing."""
    words = " ".join(["DCM HCM MINF NOR RV"] * 4)
    cases = virtual_cases(words, [f"patient{n:03d}" for n in range(1, 21)], ["Siemens"], resolution, seed=30)
    for part, some in {"training": cases[:15], "testing": cases[15:]}.items():
        write_acdc(folder, some, part=part)


def eight_patients(folder: Path, resolution: float = 0.6) -> None:
    """A plain folder of eight patients, vendor unknown."""
    ids = [f"p{n}" for n in range(1, 9)]
    write_folder(folder, virtual_cases("NOR DCM HCM NOR DCM NOR MINF DCM", ids, ["unknown"], resolution, seed=40))


def lv_only(folder: Path, resolution: float = 0.6) -> None:
    """A plain folder of twelve patients in which only the LV cavity is labelled; its own split has no validation."""
    ids = [f"q{n:02d}" for n in range(1, 13)]
    cases = virtual_cases(" ".join(["NOR DCM HCM"] * 4), ids, ["Siemens", "GE"], resolution, seed=50, labels=("LV",))
    write_folder(folder, cases)
    splits = ["train"] * 5 + ["test"] * 4 + ["holdout"] * 3
    write_csv(folder / "split.csv", [["patient", "split"], *map(list, zip(ids, splits))])


PUBLISHED = {"mnms-like": mnms_like, "mnms2-like": mnms2_like, "acdc-like": acdc_like, "eight": eight_patients,
             "lv-only": lv_only}

if __name__ == "__main__":
    for name, write in PUBLISHED.items():
        write(Path(sys.argv[1]) / name)
        print(name)
