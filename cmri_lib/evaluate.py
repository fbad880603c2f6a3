"""Judge anybody's samples as the study judges its own systems.

    python -m cmri_lib.evaluate samples/ --name "my diffusion" --out report
    python -m cmri_lib.evaluate samples/ --dataset acdc --trained-on patients.csv --labels acdc
    python -m cmri_lib.evaluate samples/ --utility --cost training_seconds=900 "device=one NVIDIA H200"

`samples` holds arrays (.npy), pictures (.png) or NIfTI files of heart-centred short-axis slices, with or without masks; see
`cohort.own_samples`. The instruments are those of notebook 01. The report is a folder with a page, tables and figures.
Whether samples give away whom they were learnt from is asked only with `--trained-on`: nobody else knows who that was.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from cmri_lib.cohort.own_samples import CONVENTIONS, read_samples
from cmri_lib.cohort.readers.tables import read_table
from cmri_lib.config.study import open_study
from cmri_lib.errors import command
from cmri_lib.experiments.instruments import load_slices
from cmri_lib.experiments.own_generator import judge
from cmri_lib.experiments.sample_report import summary_of, write_report
from cmri_lib.experiments.stated_cost import DEVICE, NUMBERS, read_cost


@command
def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 if the report was written."""
    parser = argparse.ArgumentParser(prog="python -m cmri_lib.evaluate", description="Judge anybody's samples.")
    parser.add_argument("folder", type=Path, help="the samples")
    parser.add_argument("--name", help="of the generator; default: the folder's")
    parser.add_argument("--out", type=Path, default=Path("report"), help="folder of the report (default: %(default)s)")
    parser.add_argument("--dataset", help="cohort that they are compared with; default: as params.yaml says")
    parser.add_argument("--profile", help="default: as params.yaml says")
    parser.add_argument("--trained-on", type=Path, metavar="CSV",
                        help="a table with a column `patient`: whom of the cohort the generator has learnt from. Do the "
                             "samples give them away?")
    parser.add_argument("--cost", nargs="+", default=[], metavar="FILE.json|KEY=VALUE",
                        help=f"behind the folder; shown as stated; keys: {', '.join((*NUMBERS, DEVICE))}")
    parser.add_argument("--utility", action="store_true",
                        help="also train a segmenter on samples and masks, and one on as many real slices (minutes)")
    parser.add_argument("--range", type=float, nargs=2, metavar=("LOW", "HIGH"), help="values that are black and white")
    parser.add_argument("--labels", choices=list(CONVENTIONS), default="study",
                        help="of the masks: LV, myocardium, RV are 1, 2, 3 (study) or 3, 2, 1 (acdc)")
    parser.add_argument("--samples", type=int, default=500, help="at most so many, drawn at random (default: %(default)s)")
    parser.add_argument("--brief", action="store_true", help="the headline alone: distances and valid hearts")
    options = parser.parse_args(arguments)
    if options.samples < 2:
        parser.error("argument --samples: at least two")
    cost = read_cost(options.cost)
    study = open_study(options.profile, options.dataset)
    slices = load_slices(study)
    samples = read_samples(options.folder, like=slices, value_range=options.range and tuple(options.range),
                           labels=options.labels)
    if len(samples) > options.samples:
        samples = samples.take(np.sort(np.random.default_rng(study.seed).permutation(len(samples))[:options.samples]))
    learnt_from = [row["patient"] for row in read_table(options.trained_on, ["patient"])] if options.trained_on else ()
    found = judge(study, slices, samples, options.name or options.folder.resolve().name, learnt_from=learnt_from,
                  measures="brief" if options.brief else "all", cost=cost, utility=options.utility)
    page = write_report(study, found, options.out)
    print(summary_of(found), f"\n{page}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
