"""Train systems outside their notebooks, for machines where that is worth it.

    python -m cmri_lib.train "U10 OT-FM" "C16 MOTFM SPADE" --profile gpu
    python -m cmri_lib.train all
    torchrun --nproc_per_node 4 -m cmri_lib.train "U10 OT-FM" --profile gpu

The notebook then finds the training done and loads it. Kill it at any moment and run it again: it goes on where it was.
"""

from __future__ import annotations

import argparse
import sys

from cmri_lib.config.study import open_study
from cmri_lib.errors import StudyError
from cmri_lib.experiments.instruments import load_slices
from cmri_lib.experiments.parallel import train_all
from cmri_lib.experiments.training import train_or_load
from cmri_lib.systems.register import SYSTEMS, system
from cmri_lib.systems.system import runs


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 if all were trained."""
    parser = argparse.ArgumentParser(prog="python -m cmri_lib.train", description="Train systems; finished ones are kept.")
    parser.add_argument("systems", nargs="+", help=f"'all', or of {list(SYSTEMS)}")
    parser.add_argument("--profile", help="default: as params.yaml says")
    parser.add_argument("--dataset", help="default: as params.yaml says")
    options = parser.parse_args(arguments)
    try:
        study = open_study(options.profile, options.dataset)
        names = list(SYSTEMS) if options.systems == ["all"] else options.systems
        chosen, slices = runs([system(name) for name in names]), load_slices(study)
        train_all(study, chosen, slices)
        for run in chosen:
            train_or_load(study, run, slices)
    except StudyError as problem:
        print(problem, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
