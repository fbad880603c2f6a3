"""The examination of the judges: sets whose order a cardiologist knows before any metric has looked at them.

All are made from real slices of test patients: other real patients, slightly noisy and blurred ones, patches that change
places, images of the same spectrum without a heart, one patient again and again, copies of training. A distance that
puts a set without hearts before one with hearts must not rank generators, and a fault that no metric sees may be in
every bank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from cmri_lib.cohort.slices import Slices
from cmri_lib.experiments.evaluator import Evaluator
from cmri_lib.measures.fidelity.corruptions import (Corruption, blurred, noisy, phase_randomised, response, torn)
from cmri_lib.measures.statistics.bootstrap import Score

#: Name → (corruption, strength, are hearts left?), from what harms least to what leaves no heart.
FAULTS: dict[str, tuple[Corruption, float, bool]] = {
    "slight noise": (noisy, 1 / 6, True), "mild blur": (blurred, 0.5, True), "strong blur": (blurred, 1.0, True),
    "patches 4 × 4 shuffled": (partial(torn, grid=4), 1.0, False),
    "patches 8 × 8 shuffled": (partial(torn, grid=8), 1.0, False),
    "same spectrum, random phase": (phase_randomised, 1.0, False)}
REAL, REPEATED, COPIES = "other real patients", "one patient repeated", "copies of training"
#: The 95 % interval of a normal variable is so many standard deviations wide.
WIDTH = 3.92


@dataclass(frozen=True)
class Candidate:
    """A set in the place of samples. `hearts`: does it show hearts? None where only measuring tells (a generator)."""

    slices: Slices
    hearts: bool | None


def candidates(test: Slices, training: Slices, seed: int = 0, generated: Mapping[str, Slices] | None = None
               ) -> dict[str, Candidate]:
    """The sets by name: each as large as `test`, drawn with `seed`; `generated` are banks to stand among them.

    Spoilt slices keep the names of their patients; what repeats or copies has a name for every slice, as samples of a
    generator have. All but `generated` stay of the source "real", so that no figure shows them where patients are.
    """
    generator = np.random.default_rng(seed)
    sets = {REAL: Candidate(test, True)}
    sets |= {name: Candidate(fault(test, strength, generator), hearts) for name, (fault, strength, hearts) in FAULTS.items()}
    most = max(np.unique(test.patients), key=lambda patient: int((test.patients == patient).sum()))
    for name, source in ((REPEATED, test.where(patient=most)), (COPIES, training)):
        order = generator.permutation(len(source))[np.arange(len(test)) % len(source)]
        names = [f"{name} {i}" for i in range(len(test))]
        sets[name] = Candidate(source.take(order).with_columns(patient=names, scan=names), True)
    return sets | {name: Candidate(bank, None) for name, bank in (generated or {}).items()}


def examine(evaluator: Evaluator, sets: Mapping[str, Candidate], audit: bool = True) -> pd.DataFrame:
    """What every metric of the evaluator, and the audit for copies, says of every set.

    Returns:
        One row per set and metric: ``set``, ``hearts``, ``metric``, ``value``, ``floor``; ``response``: the change for the
        worse against the floor, in standard deviations of the floor (of the value itself for the audit), cut off at ±99;
        ``seen``: does the value lie beyond the 95 % interval of real groups, on the worse side?
    """
    rows = []
    real = {measure: measure.of(real=evaluator.others)[0] for measure in evaluator.measures}
    for name, candidate in sets.items():
        first = {"set": name, "hearts": candidate.hearts}
        for measure, described in real.items():
            found = measure.values(described, *measure.of(samples=candidate.slices))
            floor = evaluator.bounds[measure]["floor"]
            rows += [first | _judged(m.name, m.better, found[m.name], floor[m.name])
                     for m in measure.metrics]
        for found in evaluator.audits(candidate.slices).values() if audit else ():
            for row in found.rows:
                value, floor = row["value"], row["floor"]
                around = Score(floor, floor + value - row["high"], floor + value - row["low"], n=row["n"])
                rows.append(first | _judged(row["metric"], row["better"], value, around))
    return pd.DataFrame(rows)


def _judged(metric: str, better: str, value: float, floor: Score) -> dict[str, object]:
    """One row, without the set: `value` against the floor and the interval around it."""
    worse = {"lower": lambda v: v, "higher": lambda v: -v, "zero": abs}[better]
    spread, known = (floor.high - floor.low) / WIDTH, np.isfinite(value) and np.isfinite(floor.value)
    usual = max(worse(floor.low), worse(floor.high))
    return {"metric": metric, "value": value, "floor": floor.value, "seen": bool(known and worse(value) > usual),
            "response": response(worse(value) - worse(floor.value), spread if spread > 0 else 0.0) if known else np.nan}


def misordered(table: pd.DataFrame, metric: str = "mmd_anatomy") -> list[tuple[str, str]]:
    """Pairs (a set without hearts, a set with hearts) that `metric`, lower is better, puts in the wrong order."""
    values = table[table["metric"] == metric].set_index("set")
    with_hearts, without = (values.loc[values["hearts"].isin([some]), "value"] for some in (True, False))
    return [(bad, good) for bad, low in without.items() for good, high in with_hearts.items() if low <= high]


def unseen(table: pd.DataFrame) -> list[str]:
    """The sets with a known fault, all but other real patients and generators, that no metric sees."""
    faulty = table[table["hearts"].notna() & (table["set"] != REAL)]
    seen = faulty.groupby("set", sort=False)["seen"].any()
    return list(seen.index[~seen])
