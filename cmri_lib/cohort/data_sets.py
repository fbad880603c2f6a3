"""The cohorts that the study knows: who is in them, under which terms, from where.
Readers of their files: `readers.layouts`."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import pandas as pd


@dataclass(frozen=True)
class DataSet:
    """A cohort as its authors publish it.

    Attributes:
        patients, centres: numbers; those of the phantom are of the embedded cohort.
        vendors, groups, labels: in words.
        terms: what may be done with it.
        source: the paper to cite.
        where: how to get it.
    """

    name: str
    patients: int
    centres: int
    vendors: str
    groups: str
    labels: str
    terms: str
    source: str
    where: str


#: The cohort of virtual patients that ships with the repository.
PHANTOM = "phantom"
#: What may be the name of a data set, a regular expression: it is a folder, of which others are made and emptied.
PLAIN_NAME = "[A-Za-z0-9][A-Za-z0-9_-]*"
_SHORT_AXIS = "LV, myocardium, RV at ED and ES"
#: What is known of cohorts whose licence nobody has named to this study.
_NO_LICENCE = "No named licence is known here: read their terms before use, and hand nothing on."
#: Layout or folder below ``data`` → what it is.
DATA_SETS = {
    PHANTOM: DataSet(PHANTOM, 130, 8, "four virtual ones", "healthy, DCM, HCM, infarction, abnormal RV", _SHORT_AXIS +
                       "; every tissue", "Apache-2.0, as the code.", "this repository (cmri_lib/phantom)",
                       "embedded: make reproduce; others: python -m cmri_lib.phantom.cohort"),
    "acdc": DataSet("ACDC", 150, 1, "Siemens, 1.5 T and 3 T", "healthy, DCM, HCM, infarction, abnormal RV", _SHORT_AXIS,
                    "CC BY-NC-SA 4.0: non-commercial research, and the same for what is made of it.",
                    "Bernard et al., IEEE TMI 37:2514, 2018", "humanheart-project.creatis.insa-lyon.fr"),
    "mnms": DataSet("M&Ms", 375, 6, "Siemens, Philips, GE, Canon", "healthy, DCM, HCM and others", _SHORT_AXIS,
                    "Given out for research by the organisers of the challenge (MICCAI 2020, University of Barcelona), whose "
                    f"paper calls it open access. {_NO_LICENCE}", "Campello et al., IEEE TMI 40:3543, 2021",
                    "www.ub.edu/mnms"),
    "mnms2": DataSet("M&Ms-2", 360, 3, "Siemens, Philips, GE", "healthy and seven pathologies of both ventricles",
                     _SHORT_AXIS + ", short and long axis",
                     "Given out for research by the organisers of the challenge (MICCAI 2021, University of Barcelona). "
                     + _NO_LICENCE,
                     "Martín-Isla et al., IEEE JBHI 27:3302, 2023", "www.ub.edu/mnms-2"),
}


def is_virtual(dataset: str) -> bool:
    """Whether a cohort is of virtual patients: `phantom`, or ``phantom-…`` for another one that `phantom.cohort` has made.
    Nobody is hurt if their images, names, or weights that have learnt from them are given away. Added data sets have
    other names."""
    return dataset == PHANTOM or dataset.startswith(f"{PHANTOM}-")


def table() -> pd.DataFrame:
    """A row for each of `DATA_SETS`."""
    return pd.DataFrame([asdict(one) for one in DATA_SETS.values()]).set_index("name")


def terms(folder: str) -> str:
    """What may be done with the cohort in a folder below ``data``; "" for one that the study does not know."""
    return DATA_SETS[folder].terms if folder in DATA_SETS else ""
