"""Train systems outside their notebooks, for machines where that is worth it.

    python -m cmri_lib.train "U10 OT-FM + mask" --profile gpu
    torchrun --nproc_per_node 4 -m cmri_lib.train "U10 OT-FM + mask" --profile gpu

The notebook then finds the training done and loads it. Kill it at any moment and run it again: it goes on where it was.
"""

from __future__ import annotations

import argparse
import sys

from cmri_lib.errors import StudyError
from cmri_lib.experiments.protocol import load_slices, open_study, trained
from cmri_lib.systems.unconditional import SYSTEMS, system


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 if all were trained."""
    parser = argparse.ArgumentParser(prog="python -m cmri_lib.train", description="Train systems; finished ones are kept.")
    parser.add_argument("systems", nargs="+", help=f"of {list(SYSTEMS)}")
    parser.add_argument("--profile")
    parser.add_argument("--dataset")
    options = parser.parse_args(arguments)
    try:
        study, _ = open_study(options.profile, options.dataset)
        chosen, slices = [system(name) for name in options.systems], load_slices(study)
        for each in chosen:
            trained(study, each, slices)
    except StudyError as problem:
        print(problem, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
