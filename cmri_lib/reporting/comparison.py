"""The review's own tables and figures with measured values: taxonomy, what metrics see, who reports what, fronts, questions.

All is computed from the tidy tables (`results.union`) and from the numbers behind figures of notebook 06.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cmri_lib.reporting import metrics, review
from cmri_lib.reporting.primary_tests import ANATOMY, APPEARANCE, HEARTS

#: Share of the reviewed studies that report results on an axis (Kumarasinghe et al. 2026, figure 2).
LITERATURE = {"fidelity": 0.79, "utility": 0.50, "privacy": 0.14}
#: What a generator is conditioned on, in the order of the taxonomy.
CONDITIONS = ("nothing", "attributes", "mask", "new masks", "mask and scanner", "another image")
#: id → family and condition, as the review's taxonomy (its figure 1) has them.
PLACES = {
    "U1": ("VAE", "nothing"), "U2": ("GAN", "nothing"), "U3": ("GAN", "nothing"), "U4": ("GAN", "nothing"),
    "U5": ("GAN", "nothing"), "U6": ("diffusion", "nothing"), "U7": ("latent diffusion", "nothing"),
    "U8": ("latent diffusion", "nothing"), "U9": ("masked", "nothing"), "U10": ("flow", "nothing"),
    "C1": ("GAN", "mask"), "C2": ("GAN", "mask"), "C3": ("GAN", "mask and scanner"), "C4": ("GAN", "new masks"),
    "C5": ("GAN", "new masks"), "C6": ("GAN", "attributes"), "C7": ("latent diffusion", "nothing"), "C8": ("masked", "attributes"),
    "C9": ("latent diffusion", "mask"), "C10": ("latent diffusion", "new masks"), "C11": ("VAE", "another image"),
    "C12": ("diffusion", "mask"), "C13": ("diffusion", "another image"), "C14": ("diffusion", "mask and scanner"),
    "C15": ("latent diffusion", "attributes"), "C16": ("flow", "mask and scanner"), "C17": ("flow", "another image"),
    "C18": ("GAN", "nothing"), "C19": ("GAN", "another image"),
}
#: Two metrics whose front is drawn: x, y.
FRONTS = ((ANATOMY, "seconds_per_image"), (ANATOMY, HEARTS), (ANATOMY, "downstream_dice"), (ANATOMY, "nearest_excess_study"))


@dataclass(frozen=True)
class Question:
    """A research question of the review.

    Attributes:
        text: in short.
        claims: ids of the claims that bear on it.
        metrics: in which the leading systems are named.
        figures: published figures to look at, "NN/name".
    """

    text: str
    claims: tuple[str, ...]
    metrics: tuple[str, ...]
    figures: tuple[str, ...]


QUESTIONS = {
    "RQ1": Question("What are the strengths and limits of unconditional and of conditional generation?",
                    ("F1", "F2", "F3", "F5", "M1", "T1"), (ANATOMY, APPEARANCE, HEARTS, "downstream_dice"),
                    ("06/samples", "07/one_mask", "13/fronts")),
    "RQ2": Question("How do preprocessing, vendors as a condition and architecture decide generalisation to other scanners?",
                    ("P1", "P2", "P3", "T3", "T4"), ("downstream_dice_unseen", "accuracy_vendor"), ("07/vendors", "10/vendors")),
    "RQ3": Question("Which metrics of fidelity and utility are appropriate, and how is privacy assessed?",
                    ("F6", "R1", "R2", "R3"), ("c2st_image",), ("06/examination", "06/corruptions", "11/attacks")),
    "RQ4": Question("Do diffusion and flow matching under masks reach anatomy that matters downstream?",
                    ("M1", "M2", "M3", "M4", "M5", "M6", "T1", "T2", "T5", "T6"), ("dice_mean", HEARTS, "downstream_dice"),
                    ("07/ablation", "09/forest", "09/patients")),
    "RQ5": Question("Which strategies for privacy are practical without giving up realism?",
                    ("R4", "R5", "R6", "R7"), ("nearest_excess_study",), ("11/safeguards", "12/pareto")),
}


def system_id(names: pd.Series) -> pd.Series:
    """"C16 MOTFM SPADE" → "C16"."""
    return names.str.split(" ").str[0]


def taxonomy(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per system of the review: id, system, family, condition, measured (has it any score?)."""
    measured = set(system_id(scores["system"]))
    return pd.DataFrame([{"id": name, "system": review.SYSTEMS[name], "family": family, "condition": condition,
                          "measured": name in measured} for name, (family, condition) in PLACES.items()])


def completeness(scores: pd.DataFrame) -> pd.DataFrame:
    """Who reports what: axis, of ("reviewed studies", where the review counts them, or "systems of this study"), share. A system
    reports an axis if it, or a variant under its id, has a finite score on it."""
    known = scores[np.isfinite(scores["value"])]
    ids = system_id(known["system"])
    rows = [{"axis": axis, "of": "reviewed studies", "share": share} for axis, share in LITERATURE.items()]
    for axis in metrics.AXES:
        reporting = set(ids[known["axis"] == axis]) & set(review.SYSTEMS)
        rows.append({"axis": axis, "of": "systems of this study", "share": len(reporting) / len(review.SYSTEMS)})
    return pd.DataFrame(rows)


def faults_seen(corruptions: pd.DataFrame) -> pd.DataFrame:
    """Which known faults a metric sees, and which it does not.

    Args:
        corruptions: numbers behind 06/corruptions: metric, corruption, strength, beyond (outside what real groups reach).

    Returns:
        metric, sees (faults, the first strength at which each is seen), blind to (those that it sees at no strength), share.
    """
    rows = []
    for metric, part in corruptions.groupby("metric", sort=False):
        first = part[part["beyond"].astype(bool)].groupby("corruption", sort=False)["strength"].min()
        faults = list(dict.fromkeys(part["corruption"]))
        blind = [fault for fault in faults if fault not in first]
        rows.append({"metric": metric, "sees": ", ".join(f"{fault} ({first[fault]:g})" for fault in faults if fault in first),
                     "blind to": ", ".join(blind), "share": 1 - len(blind) / len(faults)})
    return pd.DataFrame(rows).sort_values("share", ascending=False, kind="stable", ignore_index=True)


def on_front(losses: np.ndarray) -> np.ndarray:
    """(N,) bool: the rows of `losses` (N, D), lower is better, that no other row equals or beats in all columns and beats in one;
    rows with NaN are on no front."""
    known = np.isfinite(losses).all(axis=1)
    beaten = np.array([any((other <= one).all() and (other < one).any() for other in losses[known]) for one in losses])
    return known & ~beaten


def fronts(scores: pd.DataFrame, pairs: Sequence[tuple[str, str]] = FRONTS) -> pd.DataFrame:
    """One row per pair of metrics and system that has both: system, family, x_metric, y_metric, x, y, front. Systems without
    hearts are left out."""
    heartless, found = review.without_hearts(scores), []
    one = scores[(scores["system"] != "real") & ~scores["system"].isin(heartless)].drop_duplicates(["system", "metric"])
    family, better = (one.drop_duplicates(key).set_index(key)[column] for key, column in (("system", "family"), ("metric", "better")))
    wide = one.pivot(index="system", columns="metric", values="value")
    for x, y in pairs:
        if not {x, y} <= set(wide.columns):
            continue
        both = wide[[x, y]].dropna()
        signs = [1 if better[name] == "lower" else -1 for name in (x, y)]
        found.append(pd.DataFrame({"system": both.index, "family": family[both.index].to_numpy(), "x_metric": x, "y_metric": y,
                                   "x": both[x].to_numpy(), "y": both[y].to_numpy(), "front": on_front(both.to_numpy() * signs)}))
    columns = ["system", "family", "x_metric", "y_metric", "x", "y", "front"]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=columns)


def answer(question: Question, scores: pd.DataFrame, claims: pd.DataFrame) -> list[str]:
    """Sentences that answer a question: how its claims fared, then in each metric the best unconditional and the best conditional
    system, and what real images score.

    Args:
        scores: of the review's systems, one cohort and profile. claims: of the same, with `after Holm`.
    """
    primary = claims[claims["primary"].astype(bool)].set_index("claim")
    verdicts = {claim: primary.loc[claim, "verdict"] if claim in primary.index else "not tested" for claim in question.claims}
    lines = ["; ".join(f"{claim} {verdict}" for claim, verdict in verdicts.items()) + "."]
    heartless = review.without_hearts(scores)
    for metric in question.metrics:
        part = scores[(scores["metric"] == metric) & (scores["system"] != "real") & ~scores["system"].isin(heartless)]
        part = part.dropna(subset="value")
        if part.empty:
            lines.append(f"{metrics.title(metric)}: not measured.")
            continue
        free = part["conditioning"].fillna("none") == "none"
        said = [f"{kind} {_leading(rows, metric)}" for kind, rows in (("unconditional", part[free]), ("conditional", part[~free]))
                if len(rows)]
        real = [value for value, kind, _ in metrics.references(scores[scores["metric"] == metric], metric) if kind == "real"]
        said += [f"real images {metrics.number(metric, real[0])}"] if real else []
        lines.append(f"{metrics.title(metric)}: {'; '.join(said)}.")
    return lines


def _leading(rows: pd.DataFrame, metric: str) -> str:
    """"U10 FM 0.003 [0.000, 0.007]" of the best, and how many share its interval."""
    lower = rows["better"].iloc[0] == "lower"
    best = rows.loc[rows["value"].idxmin() if lower else rows["value"].idxmax()]
    value, low, high = (metrics.number(metric, best[column]) for column in ("value", "low", "high"))
    text = f"{best['system']} {value}" + (f" [{low}, {high}]" if low else "")
    beside = ((rows["low"] <= best["high"]) & (rows["high"] >= best["low"])).sum() - 1 if pd.notna(best["low"]) else 0
    return text + (f", whose interval {beside} of {len(rows) - 1} others overlap" if beside else "")
