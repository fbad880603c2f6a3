"""Synthetic patients to take away: NIfTI images and masks of ED and ES, a table, and a card of their origin.

    python -m cmri_lib.synthesise "C16 MOTFM SPADE" --patients 200 --vendor A --disease HCM --out data/synthetic

The system is trained if it is not yet. The folder is a data set of the study (layout "folder") and one of
nnU-Net; see `experiments.synthetic_cohort` for what makes a patient coherent, and `experiments.cohort_card`
for the card.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cmri_lib.cohort.plausibility import CHECKS
from cmri_lib.config.study import open_study
from cmri_lib.errors import command
from cmri_lib.experiments.instruments import load_slices
from cmri_lib.experiments.synthetic_cohort import Request, synthesise


@command
def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 if the cohort was written."""
    parser = argparse.ArgumentParser(prog="python -m cmri_lib.synthesise",
                                     description="Write a cohort of synthetic patients.")
    parser.add_argument("system", help="a system with a mask as condition, or the chain C5")
    parser.add_argument("--patients", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True, help="a new or empty folder")
    parser.add_argument("--vendor", help="of all images, by name or M&Ms' code; default: as those whose masks are used")
    parser.add_argument("--disease", help="of all patients; default: all that the training patients have")
    parser.add_argument("--seed", type=int, help="of noise and choice of masks; default: as params.yaml says")
    parser.add_argument("--accept", nargs="+", default=[], metavar="CHECK",
                        help=f"write, marked, patients in whom these checks find something; of {', '.join(CHECKS)}")
    parser.add_argument("--profile", help="default: as params.yaml says")
    parser.add_argument("--dataset", help="default: as params.yaml says")
    options = parser.parse_args(arguments)
    study = open_study(options.profile, options.dataset)
    seed = study.seed if options.seed is None else options.seed
    request = Request(options.system, options.patients, options.vendor, options.disease, seed,
                      tuple(options.accept))
    cohort = synthesise(study, request, load_slices(study), options.out)
    print(f"{len(cohort.cases)} synthetic patients in {options.out}; read its README.md before you use them")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
