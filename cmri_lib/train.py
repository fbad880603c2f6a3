"""Train systems outside their notebooks: for a night, or for machines where that is worth it.

    python -m cmri_lib.train all --profile overnight
    python -m cmri_lib.train status --profile overnight
    python -m cmri_lib.train publish --profile overnight && dvc add trainings && dvc push trainings
    python -m cmri_lib.train published        the pipeline's stages that the published run has computed
    python -m cmri_lib.train complete         those of them all of whose trainings are published
    python -m cmri_lib.train "U10 OT-FM" "C16 MOTFM SPADE" --profile gpu
    torchrun --nproc_per_node 4 -m cmri_lib.train "U10 OT-FM" --profile gpu

The notebook then finds the training done and loads it. Kill it at any moment and run it again: it goes on where it was,
at most 20 seconds earlier. As many trainings run at once as `workers` of ``params.yaml`` says (0: one per core, one on a GPU).
Notebooks and further commands may run beside it: whoever comes to what another is training waits for it, and then has it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import pandas as pd

from cmri_lib.cohort.cardiac_function import with_phenotypes
from cmri_lib.config.pipeline import locked_stages
from cmri_lib.config.study import open_study
from cmri_lib.errors import command
from cmri_lib.experiments.instruments import load_slices
from cmri_lib.experiments.parallel import train_all
from cmri_lib.experiments.plan import (all_folders, all_runs, complete_stages, final_weights_alone, measuring_networks, prepare,
                                       progress, train_planned)
from cmri_lib.experiments.private_training import Private
from cmri_lib.experiments.published import publish
from cmri_lib.systems.register import SYSTEMS, system
from cmri_lib.systems.system import Run, runs
from cmri_lib.training.shared import launched


@command
def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 if all were trained."""
    parser = argparse.ArgumentParser(prog="python -m cmri_lib.train", description="Train systems; finished ones are kept.")
    parser.add_argument("systems", nargs="+",
                        help="'all'; 'status', 'publish', 'published', 'complete', which train nothing; "
                             f"or of {list(SYSTEMS)}")
    parser.add_argument("--profile", help="default: as params.yaml says")
    parser.add_argument("--dataset", help="default: as params.yaml says")
    options = parser.parse_args(arguments)
    study = open_study(options.profile, options.dataset)
    if options.systems == ["published"]:  # before any cohort is there
        print(*(stage.name for stage in locked_stages(study.root)))
        return 0
    slices = with_phenotypes(load_slices(study))  # C8 learns from them
    if options.systems == ["status"]:
        print(status(progress(study, all_runs(study, slices))))
        return 0
    if options.systems == ["complete"]:
        print(*complete_stages(study, all_runs(study, slices)))
        return 0
    if options.systems == ["publish"]:
        wanted = all_runs(study, slices)
        final = all_folders(study, final_weights_alone(study, wanted, slices))
        new, other = publish(study, all_folders(study, wanted) | measuring_networks(study), final)
        print("\n".join(str(folder.relative_to(study.root)) for folder in new) or "nothing new")
        if other:
            print("left out, trained with other settings than those of params.yaml: "
                  f"{', '.join(str(folder.relative_to(study.root)) for folder in other)}")
        return 0
    chosen = all_runs(study, slices) if options.systems == ["all"] else runs([system(name) for name in options.systems])
    chosen, alone = shareable(chosen, launched().num_processes)
    prepare(study, chosen, slices)
    train_all(study, chosen, slices, train_planned)
    for run in chosen:
        train_planned(study, run, slices)
    if alone:
        print("left out, for one process must train them (run this without torchrun): "
              f"{', '.join(run.id for run in alone)}")
    return 0


def shareable(wanted: Sequence[Run], processes: int) -> tuple[list[Run], list[Run]]:
    """The runs that so many processes can share, and those that one must do alone: a private gradient is clipped and made noisy
    patient by patient, in one place."""
    alone = [run for run in wanted if processes > 1 and isinstance(run.variant, Private)]
    return [run for run in wanted if run not in alone], alone


def status(table: pd.DataFrame) -> str:
    """What is done, under way and left, as text for a terminal: see `experiments.plan.progress`."""
    shown = table.assign(**{"images seen": table["images"].astype(str) + " of " + table["of"].astype(str)})
    lines = shown[["run", "stage", "state", "images seen", "hours", "left"]].to_string(
        index=False, float_format="{:.2f}".format, na_rep="unknown", justify="left")
    counts = ", ".join(f"{count} {state}" for state, count in table["state"].value_counts().items())
    unknown = int(table["left"].isna().sum())
    beside = f", and {unknown} of unknown length" if unknown else ""
    return f"{lines}\n\n{counts}; {table['hours'].sum():.1f} hours of training spent, {table['left'].sum():.1f} left{beside}"


if __name__ == "__main__":
    raise SystemExit(main())
