"""Are the figures and tables in this folder those that are published? For use after everything has been computed again.

    make verify                                 redraw everything from the published trainings, then this
    python -m cmri_lib.verify                   against what git has committed
    python -m cmri_lib.verify --against FOLDER  against the figures/ and results/ of another copy of the study

Every number behind a figure and every score is compared; see `reporting.agreement` for what may differ and by how much.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from cmri_lib.cohort.places import project_root
from cmri_lib.errors import DataError, command
from cmri_lib.reporting.agreement import OF_INTERVAL, OF_P, OF_SPREAD, OF_VALUE, Agreement, agreement

PLACES = ("results", "figures")
#: Lines printed of each table that does not agree.
SHOWN = 5


def published_tables(root: Path, against: Path | None, dataset: str | None) -> Iterator[tuple[Path, str]]:
    """Path relative to `root`, and text, of every published table: of git's last commit, or of the folder `against`.

    Raises:
        DataError: if `root` is no git repository, or nothing is published.
    """
    texts = _committed(root) if against is None else {
        file.relative_to(against): file.read_text(encoding="utf-8")
        for place in PLACES for file in sorted((against / place).rglob("*.csv"))}
    chosen = {name: text for name, text in texts.items() if dataset in (None, *name.parts[1:2])}
    if not chosen:
        raise DataError("no published table", file=against or root, field=dataset,
                        remedy="name a data set that is published, or a folder with figures/ and results/")
    yield from chosen.items()


def _committed(root: Path) -> dict[Path, str]:
    """Path below `root` → text of every table of git's last commit; `root` may lie below the top of the repository."""
    there = set(_git(root, "ls-tree", "--name-only", "HEAD").decode().splitlines())
    if not (places := sorted(there.intersection(PLACES))):
        return {}
    with tarfile.open(fileobj=io.BytesIO(_git(root, "archive", "--format=tar", "HEAD", "--", *places))) as archive:
        return {Path(one.name): archive.extractfile(one).read().decode("utf-8")
                for one in archive.getmembers() if one.isfile() and one.name.endswith(".csv")}


def _git(root: Path, *arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True)
    if done.returncode:
        raise DataError(f"git cannot say what is published ({done.stderr.decode(errors='replace').strip()})", file=root,
                        remedy="give --against a folder with the published figures/ and results/")
    return done.stdout


def verify(root: Path, against: Path | None = None, dataset: str | None = None) -> list[Agreement]:
    """Compare every published table with its copy in `root`."""
    found = []
    for name, text in published_tables(root, against, dataset):
        if (root / name).exists():
            found.append(agreement(name, pd.read_csv(io.StringIO(text)), pd.read_csv(root / name)))
        else:
            found.append(Agreement(name, problem="it was not made"))
    return found


def report(found: list[Agreement]) -> str:
    """What agrees, and of what does not the first rows."""
    lines = []
    for table in (t for t in found if not t.holds):
        if table.problem:
            lines.append(f"{table.file.as_posix()}: {table.problem}")
            continue
        faults = [*(f"in one copy only: {row}" for row in table.missing), *table.exceeding]
        lines.append(f"{table.file.as_posix()}: {len(table.exceeding)} of {table.compared} numbers differ by more than is "
                     f"allowed, {len(table.missing)} rows are in one copy only")
        lines += [f"    {fault}" for fault in faults[:SHOWN]]
        lines += [f"    and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
    good = [t for t in found if t.holds]
    nearest = max(good, key=lambda t: t.worst, default=None)
    beside = (f"; the largest difference is {nearest.worst:.2f} of what is allowed, in {nearest.file.as_posix()}"
              if nearest else "")
    lines.append(f"{len(good)} of {len(found)} tables agree, {sum(t.compared for t in good)} numbers{beside}.")
    lines.append(f"Allowed: {OF_INTERVAL:.0%} of a score's 95 % interval; without one {OF_VALUE:.0%} of its size; "
                 f"{OF_P:g} of a p-value; of a figure's other numbers {OF_SPREAD:.0%} of their column's standard deviation. "
                 "Times and memory are not compared.")
    return "\n".join(lines)


@command
def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 if everything agrees."""
    parser = argparse.ArgumentParser(prog="python -m cmri_lib.verify",
                                     description="Compare figures and tables with the published ones.")
    parser.add_argument("--against", type=Path, help="a folder with figures/ and results/; default: git's last commit")
    parser.add_argument("--dataset", help="only what was made of this data set")
    options = parser.parse_args(arguments)
    found = verify(project_root(), options.against, options.dataset)
    print(report(found))
    return 0 if all(table.holds for table in found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
