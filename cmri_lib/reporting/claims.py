"""The review's claims as tests: a ledger whose rows say what was compared, what came out, and what that is worth.

A claim is *supported* when the whole 95 % interval of the effect lies on the claimed side of a margin that was fixed
beforehand, *not supported* when it lies wholly on the other, and *undecided* in between. A claim of several criteria needs
all of them, and fails with any one (`together`). It is *not testable at this budget* when a party shows no hearts or has not
converged: that its training was short is then all that a difference could show. One test per claim is primary
(`primary_tests`), the others are exploratory; over the primary ones the chance that any verdict is wrong is kept at 5 %
(`after_holm`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import stats

from cmri_lib.errors import DataError, ParameterError
from cmri_lib.measures.statistics.bootstrap import Score, score_difference
from cmri_lib.reporting import metrics, review
from cmri_lib.reporting.primary_tests import ANATOMY, APPEARANCE, PRIMARY, Criterion, Direction
from cmri_lib.reporting.results import VERDICTS

SUPPORTED, REFUTED, UNDECIDED, UNTESTABLE = VERDICTS
#: Chance of a wrong verdict on either side, and what rounding may take from it.
LEVEL, ROUNDING = 0.05, 1e-9
#: A training still moves if its last doubling changed a headline by at least this share of its value at half of the way, and
#: by more than the interval of the change.
STILL_MOVING = 0.05
MOVING, SETTLED, UNSEEN = "still moving", "settled", "cannot be seen"


@dataclass
class Ledger:
    """The tests of one notebook.

    Attributes:
        unfit: system → why no difference to it counts, see `unfit`.
        rows: claim, test, primary, effect, low, high, unit, p, verdict.
    """

    unfit: Mapping[str, str] = field(default_factory=dict)
    rows: list[dict[str, object]] = field(default_factory=list)

    def primary(self, claim: str, *effects: Score, parties: Iterable[str] = (), **margins: float) -> None:
        """Add the primary test of `claim`.

        Args:
            effects: one per criterion of the register, in its order.
            parties: systems that are compared.
            margins: metric → margin, where the register states a rule in the place of a number.

        Raises:
            ParameterError: if the register knows no such claim, as many effects, or a margin is missing or not asked for.
        """
        if claim not in PRIMARY:
            raise ParameterError("no primary test is stated", field=claim, remedy="add it to reporting/primary_tests.py")
        test = PRIMARY[claim]
        ruled = {criterion.metric for criterion in test.criteria if isinstance(criterion.margin, str)}
        if len(effects) != len(test.criteria) or ruled != set(margins):
            raise ParameterError(f"{len(effects)} effects and margins of {sorted(margins)}", field=claim,
                                 remedy=f"the register asks for {len(test.criteria)} effects, margins of {sorted(ruled)}")
        bounds = [float(margins.get(c.metric, c.margin) if c.metric in ruled else c.margin) for c in test.criteria]
        self._add(claim, test.text, True, effects, test.criteria, bounds, parties)

    def explore(self, claim: str, comparison: str, effect: Score, metric: str, direction: Direction, margin: float = 0.0, *,
                parties: Iterable[str] = ()) -> None:
        """Add an exploratory test: is `effect`, a difference in `metric`, `direction` the margin? See `Criterion`."""
        criterion = Criterion(metric, direction, margin)
        self._add(claim, f"{comparison}: {criterion.text}", False, [effect], [criterion], [margin], parties)

    def table(self, *claims: str) -> pd.DataFrame:
        """The tests of `claims`, or of all, without those that say whose they are."""
        columns = ["claim", "test", "primary", "effect", "low", "high", "unit", "p", "verdict"]
        rows = pd.DataFrame(self.rows, columns=columns)
        return (rows[rows["claim"].isin(claims)] if claims else rows).round(3)

    def _add(self, claim: str, test: str, primary: bool, effects: Sequence[Score], criteria: Sequence[Criterion],
             bounds: Sequence[float], parties: Iterable[str]) -> None:
        tails = [evidence(effect, c.direction, bound) for effect, c, bound in zip(effects, criteria, bounds)]
        false, true = together(tails)
        p = min(1.0, 2 * min(false, true)) if math.isfinite(false) else math.nan
        held, failed = (side < LEVEL / 2 - ROUNDING for side in (false, true))
        verdict = SUPPORTED if held else REFUTED if failed else UNDECIDED
        if set(parties) & set(self.unfit):
            verdict, p = UNTESTABLE, math.nan
        weakest = max(range(len(tails)), key=lambda k: -1 if math.isnan(tails[k][0]) else tails[k][0])
        effect, shown = effects[weakest], metrics.describe(criteria[weakest].metric)
        self.rows.append({"claim": claim, "test": test, "primary": primary, "effect": effect.value, "low": effect.low,
                          "high": effect.high, "unit": shown.unit or metrics.short(criteria[weakest].metric), "p": p,
                          "verdict": verdict})


def evidence(effect: Score, direction: Direction, margin: float = 0.0) -> tuple[float, float]:
    """One-sided p-values (against the claim being false, against it being true); NaN without an interval.

    From the limit of the interval that faces the margin, taken as a quantile of a normal variable, or of Student's t where
    trainings made the interval: p < 0.025 exactly where the interval does not hold the margin. Percentiles of some
    hundred draws tell no smaller p apart; the tails beyond are those of the normal distribution.
    """
    above, below = _tails(effect, margin)
    if direction in ("above", "below"):
        return (above, below) if direction == "above" else (below, above)
    over, under = _tails(effect, -margin)  # over: above −margin; under: below it
    differ, alike = min(above, under), max(below, over)
    return (differ, alike) if direction == "beyond" else (alike, differ)


def two_sided(effect: Score, margin: float = 0.0) -> float:
    """p-value of "no different from the margin", see `evidence`; NaN without an interval."""
    above, below = _tails(effect, margin)
    return min(1.0, 2 * min(above, below)) if math.isfinite(above) else math.nan


def together(tails: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The `evidence` of a claim with several criteria from that of each; NaN if one has none.

    The claim holds if all criteria hold, so the weakest evidence decides (an intersection-union test: Berger, Technometrics 24,
    1982). It is false as soon as one of them is, so the strongest evidence against decides, times their number (Bonferroni).
    """
    if not all(math.isfinite(p) for pair in tails for p in pair):
        return math.nan, math.nan
    false, true = zip(*tails)
    return max(false), min(1.0, len(tails) * min(true))


def _tails(effect: Score, margin: float) -> tuple[float, float]:
    """p of "not above" and of "not below" the margin."""
    gap = effect.value - margin
    side = effect.value - effect.low if gap > 0 else effect.high - effect.value
    if not math.isfinite(side):
        return math.nan, math.nan
    ratio = 0.0 if gap == 0 else gap / side if side > 0 else math.copysign(math.inf, gap)
    z = ratio * stats.t.ppf(0.975, effect.df) if ratio else 0.0
    return float(stats.t.sf(z, effect.df)), float(stats.t.cdf(z, effect.df))


def holm(p: np.ndarray) -> np.ndarray:
    """p-values (m,) adjusted for their number: reject where at most α, and any wrong rejection has a chance of α (Holm,
    Scandinavian Journal of Statistics 6, 1979). NaN, of what was not tested, stays and does not count."""
    values = np.asarray(p, float)
    adjusted, tested = np.full(values.shape, np.nan), np.flatnonzero(np.isfinite(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    adjusted[order] = np.minimum(1, np.maximum.accumulate(values[order] * np.arange(len(order), 0, -1)))
    return adjusted


def after_holm(table: pd.DataFrame) -> pd.DataFrame:
    """The table of claims with the column `after Holm`: the verdicts of the primary tests of a cohort and profile that stand
    together, "undecided" for those that do not; empty for exploratory tests."""
    verdicts = pd.Series("", index=table.index)
    primary = table["primary"].astype(bool)
    for _, rows in table[primary].groupby(["dataset", "profile"], sort=False):
        lost = ~(holm(rows["p"].to_numpy()) < LEVEL) & (rows["verdict"] != UNTESTABLE)
        verdicts[rows.index] = rows["verdict"].mask(lost, UNDECIDED)
    return table.assign(**{"after Holm": verdicts})


def unfit(scores: pd.DataFrame, curves: pd.DataFrame | None = None) -> dict[str, str]:
    """System → why claims about it are not testable: it shows no hearts, nobody can tell whether it does, or it has not
    converged.

    Args:
        scores: rows with ``heart_valid`` and its floor, see `review.without_hearts`.
        curves: of `experiments.learning_curves`; systems without a curve over compute are not asked for convergence.
    """
    reasons = dict.fromkeys(sorted(review.unjudged(scores)), "whether it shows hearts cannot be judged")
    reasons |= dict.fromkeys(sorted(review.without_hearts(scores)), "no hearts")
    if curves is None or curves.empty:
        return reasons
    points = curves[curves["curve"] == "images"]
    for (system, metric), line in points[points["metric"].isin([ANATOMY, APPEARANCE])].groupby(["system", "metric"]):
        found = doubling_of_curve(line)
        if found is not None and finished(*found) == MOVING:
            moved = f"the last doubling moved {metrics.short(metric)} by {share(*found):+.0%}"
            reasons[system] = "; ".join(filter(None, (reasons.get(system), moved)))
    return reasons


def finished(change: Score, before: float) -> str:
    """Has a training finished that changed a headline by `change` in its last doubling, from the value `before`? `MOVING` if it
    is `STILL_MOVING` and the interval excludes 0, `SETTLED` if the whole interval lies within that share, else `UNSEEN`."""
    tolerated = STILL_MOVING * abs(before)
    if abs(change.value) >= tolerated and (change.low > 0 or change.high < 0):  # not if there is no interval
        return MOVING
    return SETTLED if -tolerated <= change.low and change.high <= tolerated else UNSEEN


def share(change: Score, before: float) -> float:
    """A change as a share of the value before it; NaN if that was 0."""
    return change.value / abs(before) if before else math.nan


def doubling_of_curve(line: pd.DataFrame) -> tuple[Score, float] | None:
    """What the second half of a training changed in one metric of one system: the difference of two points of a curve, so
    that its interval is wider than a paired one, and the value at half of the training; None where that was not measured."""
    half = line[np.isclose(line["x"], line["x"].max() / 2, rtol=0.02)]
    if half.empty:
        return None
    end, before = (_score(rows.iloc[0]) for rows in (line[line["x"] == line["x"].max()], half))
    return score_difference(end, before), before.value


def score_of(table: pd.DataFrame, metric: str, **columns: object) -> Score:
    """The one score of `metric` in a tidy table whose columns have the given values.

    Raises:
        DataError: unless there is exactly one.
    """
    found = table[table["metric"] == metric]
    for column, value in columns.items():
        found = found[found[column] == value]
    if len(found) != 1:
        raise DataError(f"{len(found)} rows", field=f"{metric} {columns}", remedy="run the notebook that writes the row")
    return _score(found.iloc[0])


def _score(row: pd.Series) -> Score:
    """Of several trainings whose degrees of freedom the table does not hold they are taken for as few as there can be."""
    seeds = int(row.get("seeds", 1))
    df = row.get("df", math.nan)  # also NaN in a table of which other rows have it
    df = (math.inf if seeds == 1 else seeds - 1) if math.isnan(df) else df
    return Score(float(row["value"]), float(row["low"]), float(row["high"]), int(row["n"]), seeds=seeds, df=float(df))


def time_to_quality(curves: pd.DataFrame, target: float, metric: str = ANATOMY) -> pd.DataFrame:
    """Equal quality instead of equal compute: images and seconds of training until `metric` is at most `target`.

    The first measured point (snapshot or end) that is good enough; NaN where none is. The seconds contain the first stage.
    """
    points = curves[(curves["curve"] == "images") & (curves["metric"] == metric)]
    rows = []
    for system, line in points.groupby("system", sort=False):
        good = line[line["value"] <= target].sort_values("x").head(1)
        reached = good.iloc[0] if len(good) else {"x": float("nan"), "seconds": float("nan"), "value": float("nan")}
        rows.append({"system": system, "images": reached["x"], "seconds": reached["seconds"], metric: reached["value"],
                     "at the end": line.sort_values("x")["value"].iloc[-1]})
    return pd.DataFrame(rows)
