"""Membership inference: was this patient among those a generator learnt from? One interface for all attacks.

An `Attack` scores slices, higher for likelier members, under one or several settings (times, bands, norms).
Slices of a patient are seen together or not at all, so the patient is the unit: a patient's score is the
mean, or the maximum, over his or her slices. What remains is to keep an audit honest:

- **settings are chosen on other patients than those that are scored** (`membership_scores`): members and
  non-members fall
  into two halves, and each half is scored with what suits the other best;
- members and non-members are patients; whoever is on both sides is refused;
- the sign of a score is fixed beforehand: an attack that chose it too could never score below one half;
- an interval is over patients of both sides, and over trainings where there are several;
- how small a false-positive rate so many non-members can show is said beside it (`fpr_note`).

Carlini, Chien, Nasr, Song, Terzis & Tramèr, "Membership Inference Attacks From First Principles", S&P 2022
(arXiv 2112.03570), for the true-positive rate at a low false-positive rate; Watson, Guo, Cormode &
Sablayrolles, "On the Importance of Difficulty Calibration in Membership Inference Attacks", ICLR 2022 (arXiv
2111.08440).
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from cmri_lib.cohort.slices import Slices, refuse_overlap
from cmri_lib.errors import DataError, SplitError
from cmri_lib.generators.base import Generator, batch_of, parts_on
from cmri_lib.measures.statistics.bootstrap import Score, exact_at_an_end
from cmri_lib.measures.statistics.seeds import bootstrap_seeds
from cmri_lib.networks.conditioning.base import Batch

#: Images that an attack evaluates at once; small batches are faster on a CPU.
BATCH = 16
#: How the scores of a patient's slices become one.
AGGREGATES = {"mean": "mean", "max": "max"}
#: False-positive rates at which the true-positive rate is told, and how they are named.
LOW_RATES = {"tpr1": 0.01, "tpr5": 0.05}


@dataclass(frozen=True)
class Target:
    """A trained generator as an attacker meets it.

    Attributes:
        name: of its run.
        seen: the patients whose images or masks have shaped its weights.
        generator: its weights; None where samples are all that was published.
        samples: what it drew; None where only weights are attacked.
    """

    name: str
    seen: frozenset[str]
    generator: Generator | None = None
    samples: Slices | None = None


class Attack(ABC):
    """Attributes: `name`, as it ends the name of a metric: ``attack_auc_<name>``."""

    name: str

    @abstractmethod
    def suits(self, target: Target) -> bool:
        """Whether it can be mounted on this target at all."""

    @abstractmethod
    def scores(self, target: Target, slices: Slices) -> pd.DataFrame:
        """(N, settings): a score for every slice, higher for likelier members; one column for each
        setting."""


@dataclass(frozen=True)
class Calibrated(Attack):
    """The score minus that of a reference generator which has not seen the patients (Watson et al. 2022, eq.
    3): an image that is hard for everyone is no stranger.

    Raises:
        SplitError: from `scores`, if the reference has seen a patient who is scored.
    """

    attack: Attack
    reference: Target

    @property
    def name(self) -> str:
        return f"{self.attack.name}_calibrated"

    def suits(self, target: Target) -> bool:
        return self.attack.suits(target) and self.attack.suits(self.reference)

    def scores(self, target: Target, slices: Slices) -> pd.DataFrame:
        refuse_known(self.reference, slices, "the reference of a calibrated attack")
        return self.attack.scores(target, slices) - self.attack.scores(self.reference, slices)


class Remembered(Attack):
    """An attack that asks a target about a slice once. Every score is of one slice and one target, so that
    attacks that share it (calibration, shadows, a null on the same patients) need not pay again. Targets are
    told apart by their names."""

    def __init__(self, attack: Attack):
        self.attack, self.name = attack, attack.name
        self._known: dict[tuple[str, bytes], np.ndarray] = {}
        self._settings: list[str] = []

    def __repr__(self) -> str:
        return f"Remembered({self.attack!r})"

    def suits(self, target: Target) -> bool:
        return self.attack.suits(target)

    def scores(self, target: Target, slices: Slices) -> pd.DataFrame:
        conditions = slices.table.map(str).agg("|".join, axis=1)  # what is missing has a name, too
        keys = [(target.name, hashlib.sha256(image.tobytes() + mask.tobytes() + row.encode()).digest())
                for image, mask, row in zip(slices.images, slices.masks, conditions)]
        new = {key: i for i, key in enumerate(keys) if key not in self._known}
        if new:
            found = self.attack.scores(target, slices.take(list(new.values())))
            self._settings = list(found)
            self._known.update(zip(new, found.to_numpy(float)))
        return pd.DataFrame(np.stack([self._known[key] for key in keys]), columns=self._settings)


def refuse_known(target: Target, slices: Slices, what: str) -> None:
    """Raise SplitError if `target` has learnt from a patient of `slices`."""
    if known := sorted(target.seen & set(slices.patients)):
        raise SplitError(f"{target.name}, {what}, has seen {len(known)} of the patients, e.g. {known[:3]}",
                         field="patient",
                         remedy="take patients it has not learnt from")


@dataclass(frozen=True)
class Sides:
    """Who is to be told apart. In a null, the "members" are patients that the target has not seen either.

    Raises:
        SplitError: if a patient is on both sides.
        DataError: if a side has fewer than two patients, of whom one must serve to choose settings.
    """

    members: Slices
    nonmembers: Slices

    def __post_init__(self) -> None:
        refuse_overlap(self.members, self.nonmembers, ("members", "nonmembers"))
        for name, side in (("members", self.members), ("nonmembers", self.nonmembers)):
            if (count := len(np.unique(side.patients))) < 2:
                raise DataError(f"{count} patients", field=name, remedy="give at least two, better a hundred")

    def check(self, target: Target) -> None:
        """Raise SplitError if a member was not seen, or a non-member was."""
        if strangers := sorted(set(self.members.patients) - target.seen):
            raise SplitError(f"{target.name} has not learnt from {len(strangers)} members, e.g. {strangers[:3]}",
                             field="members",
                             remedy="give patients it has learnt from, or say that this is a null")
        refuse_known(target, self.nonmembers, "whose non-members these are to be")


@dataclass(frozen=True)
class PatientScores:
    """Scores (P,) of members and of non-members by one aggregate, each with its patients' names (P,), and
    the settings that were chosen for the two halves."""

    members: np.ndarray
    nonmembers: np.ndarray
    member_names: np.ndarray
    nonmember_names: np.ndarray
    chosen: tuple[str, ...]


def membership_scores(attack: Attack, target: Target, sides: Sides, *, seed: int = 0, null: bool = False
                      ) -> dict[str, PatientScores]:
    """Aggregate → scores of all patients, each with the setting that was best for the other half of the
    patients.

    Where there are several settings, whose scores have scales of their own, a score is told in standard
    deviations of the other half's non-members from their mean.

    Args:
        null: the members are none, as they need not have been seen.

    Raises:
        SplitError: if members have not been seen, unless this is a null, or non-members have.
        DataError: if a score is not finite.
    """
    if null:
        refuse_known(target, sides.members, "whom this null is to be of")
        refuse_known(target, sides.nonmembers, "whom this null is to be of")
    else:
        sides.check(target)
    found = [attack.scores(target, side) for side in (sides.members, sides.nonmembers)]
    if not all(np.isfinite(frame.to_numpy(float)).all() for frame in found):
        raise DataError(f"{attack.name} of {target.name} gives scores that are not finite", field="scores",
                        remedy="check that the training has not diverged")
    return {name: _cross_fitted(*(_of_patients(frame, side.patients, how) for frame, side in
                                  zip(found, (sides.members, sides.nonmembers))), seed)
            for name, how in AGGREGATES.items()}


def _of_patients(frame: pd.DataFrame, patients: np.ndarray, how: str) -> pd.DataFrame:
    return frame.groupby(np.asarray(patients)).agg(how)


def halves(names: Sequence[str], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The names in two halves, at random."""
    order = np.random.default_rng(seed).permutation(np.unique(np.asarray(names)))
    return order[: len(order) // 2], order[len(order) // 2:]


def _cross_fitted(members: pd.DataFrame, nonmembers: pd.DataFrame, seed: int) -> PatientScores:
    several = members.shape[1] > 1
    parts = [halves(side.index, seed + k) for k, side in enumerate((members, nonmembers))]
    scored: list[list[pd.Series]] = [[], []]
    chosen = []
    for here, there in ((0, 1), (1, 0)):
        known = [side.loc[part[there]] for side, part in zip((members, nonmembers), parts)]
        best = max(members.columns,
                   key=lambda setting: auc(known[0][setting], known[1][setting])) if several \
            else members.columns[0]
        centre, spread = (known[1][best].mean(), known[1][best].std(ddof=0)) if several else (0.0, 1.0)
        for side, frame, part in zip(scored, (members, nonmembers), parts):
            side.append((frame.loc[part[here], best] - centre) / (spread or 1.0))
        chosen.append(str(best))
    ins, outs = (pd.concat(side).sort_index() for side in scored)
    return PatientScores(ins.to_numpy(), outs.to_numpy(), ins.index.to_numpy(), outs.index.to_numpy(),
                         tuple(chosen))


def auc(members: np.ndarray, nonmembers: np.ndarray, u: np.ndarray | None = None,
        v: np.ndarray | None = None) -> float:
    """Chance that a member scores above a non-member, ties half; u and v say how often each of both
    counts."""
    x, y = np.asarray(members, float), np.asarray(nonmembers, float)
    u, v = (np.ones(len(s)) if w is None else np.asarray(w, float) for s, w in ((x, u), (y, v)))
    order = np.argsort(y, kind="stable")
    below = np.concatenate([[0.0], np.cumsum(v[order])])
    wins = below[np.searchsorted(y[order], x, "left")] + below[np.searchsorted(y[order], x, "right")]
    return float((u * wins).sum() / (2 * u.sum() * v.sum()))


def tpr_at(members: np.ndarray, nonmembers: np.ndarray, rate: float, u: np.ndarray | None = None,
           v: np.ndarray | None = None) -> float:
    """Largest share of members above a threshold that at most the share `rate` of non-members reaches."""
    x, y = np.asarray(members, float), np.asarray(nonmembers, float)
    u, v = (np.ones(len(s)) if w is None else np.asarray(w, float) for s, w in ((x, u), (y, v)))
    order = np.argsort(-y, kind="stable")
    reached = np.cumsum(v[order]) / v.sum()
    beyond = np.flatnonzero(reached > rate + 1e-12)  # the first non-member who may not be reached
    if not len(beyond):
        return 1.0
    return float(u[x > y[order[beyond[0]]]].sum() / u.sum())


def batches_of(generator: Generator, slices: Slices) -> Iterator[Batch]:
    """What the generator has learnt from, images, latents or tokens, with the conditions of the same slices."""
    data = generator.eval().prepare(batch_of(slices, generator.conditioning))
    yield from parts_on(generator.device, data, BATCH)


def fpr_note(nonmembers: int, rate: float) -> str:
    """What so many non-members can say about a false-positive rate. Where they are fewer than 1 / rate, no
    false alarm at all is allowed, and the true rate may still be up to 1 − 0.05^(1/n) (exact one-sided 95 %
    limit, Clopper & Pearson 1934)."""
    if rate * nonmembers >= 1:
        return f"{rate:.0%} of {nonmembers} non-members are {int(rate * nonmembers)}"
    return (f"{rate:.0%} of {nonmembers} non-members are less than one: this is the share of members above all of them, at a "
            f"false-positive rate of up to {1 - 0.05 ** (1 / nonmembers):.0%}")


def score_of(found: PatientScores | Sequence[PatientScores], statistic: str = "auc",
             **options: object) -> Score:
    """"auc", "tpr1" or "tpr5" with its interval over patients, and over trainings where there are several. n
    is the number of patients of the smaller side. Of an attack that makes no error, or finds nobody, the interval is exact.

    Raises:
        DataError: if the trainings were not attacked with the same patients.
    """
    several = [found] if isinstance(found, PatientScores) else list(found)
    names = _attacked(several)
    value = auc if statistic == "auc" else partial(tpr_at, rate=LOW_RATES[statistic])
    each = [lambda u, v, one=one: value(one.members, one.nonmembers, u=u, v=v) for one in several]
    return exact_at_an_end(bootstrap_seeds(each, *names, **options))


def attack_rows(attack: str, found: Sequence[dict[str, PatientScores]],
                **options: object) -> list[dict[str, object]]:
    """Tidy rows of one attack on one or several trainings of a system: ``attack_auc_<attack>``,
    ``attack_auc_max_<attack>`` (by the maximum over slices), ``attack_tpr1_<attack>`` and
    ``attack_tpr5_<attack>``. Floor: what guessing scores; ceiling: 1."""
    rows = []
    for metric, aggregate, statistic, chance in (("auc", "mean", "auc", 0.5), ("auc_max", "max", "auc", 0.5),
                                                 *((k, "mean", k, rate) for k, rate in LOW_RATES.items())):
        score = score_of([one[aggregate] for one in found], statistic, **options)
        rows.append(score.against(chance, 1.0).row(f"attack_{metric}_{attack}", "privacy", "lower"))
    return rows


def auc_difference(first: Sequence[PatientScores], second: Sequence[PatientScores],
                   **options: object) -> Score:
    """AUC of the first minus that of the second, paired over the patients that both were mounted on.

    Raises:
        DataError: if the trainings of one side were not attacked with the same patients.
    """
    each = [lambda u, v, s, t, a=a, b=b: auc(a.members, a.nonmembers, u, v) - auc(b.members, b.nonmembers, s, t)
            for a, b in zip(first, second, strict=True)]
    return bootstrap_seeds(each, *_attacked(first), *_attacked(second), **options)


def _attacked(trainings: Sequence[PatientScores]) -> tuple[np.ndarray, np.ndarray]:
    """Names of the members and of the others, the same in all trainings."""
    names = trainings[0].member_names, trainings[0].nonmember_names
    if any(not np.array_equal(a, b) for one in trainings for a, b in zip((one.member_names, one.nonmember_names), names)):
        raise DataError("trainings were attacked with different patients", field="members",
                        remedy="attack all with the same")
    return names
