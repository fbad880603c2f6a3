"""The review's five research questions, answered from the tidy tables: verdicts of claims, leading systems, what stays open.

Every number is read from the tables. What is written here by hand says which numbers bear on a question, and what such numbers
cannot answer whatever they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from cmri_lib.reporting import metrics, review
from cmri_lib.reporting.comparison import PLACES
from cmri_lib.reporting.primary_tests import ANATOMY, APPEARANCE, HEARTS
from cmri_lib.reporting.results import VERDICTS

#: The verdict on a claim without a primary test in this cohort and profile.
NOT_TESTED = "not tested"
#: Systems that are given a true image of the heart lead in whatever its likeness decides, and are no generators of hearts.
GIVEN_THE_HEART = frozenset(identity for identity, (_, condition) in PLACES.items() if condition == "another image")


@dataclass(frozen=True)
class Question:
    """A research question of the review.

    Attributes:
        text: in short.
        claims: ids of the claims that bear on it.
        metrics: in which the leading systems are named.
        figures: published figures to look at, "NN/name".
        limits: what stays open whatever the numbers are.
    """

    text: str
    claims: tuple[str, ...]
    metrics: tuple[str, ...]
    figures: tuple[str, ...]
    limits: str


QUESTIONS = {
    "RQ1": Question(
        "What are the strengths and limits of unconditional and of conditional generation?",
        ("F1", "F2", "F3", "F5", "M1", "T1"), (ANATOMY, APPEARANCE, HEARTS, "downstream_dice", "seconds_per_image"),
        ("06/samples", "07/one_mask", "13/fronts"),
        "The two kinds are not scored under equal terms. A system with a mask is given a true heart of a test patient to "
        "paint; one without must invent it. So fidelity and valid hearts compare systems within a kind, and only downstream "
        "Dice compares the kinds: there samples without a mask are labelled by a segmenter, whose own labels they cannot "
        "surpass. All are slices of 64 × 64 pixels; order may change where detail is finer."),
    "RQ2": Question(
        "How do preprocessing, vendors as a condition and architecture decide generalisation to other scanners?",
        ("P1", "P2", "P3", "T3", "T4"), ("downstream_dice_unseen", "accuracy_vendor", "style_match"),
        ("01/vendors", "07/vendors", "10/vendors"),
        "The phantom's vendors differ in contrast, sharpness, noise, shading and resolution, which are known in full. Real "
        "scanners differ in more than that: protocol, coil, patients, readers. A drop on the phantom shows that the method "
        "sees a shift; its size is the phantom's own. Few centres stand for a vendor, and an interval over patients does not "
        "speak of other centres."),
    "RQ3": Question(
        "Which metrics of fidelity and utility are appropriate, and how is privacy assessed?",
        ("F6", "R1", "R2", "R3"), ("c2st_image", ANATOMY, "kid_study"),
        ("06/examination", "06/corruptions", "17/foretold", "11/attacks"),
        "A metric is examined with sets whose order is known: real patients, noise, blur, torn hearts, copies. It can fail in "
        "a way that is not among them. Distances are those between features of networks that were trained on this cohort; with "
        "other features the numbers are others. An attack that finds nothing shows only that this attack, with so many "
        "patients, finds nothing: read it beside its positive control."),
    "RQ4": Question(
        "Do diffusion and flow matching under masks reach anatomy that matters downstream?",
        ("M1", "M2", "M3", "M4", "M5", "M6", "T1", "T2", "T5", "T6"), ("dice_mean", HEARTS, "downstream_dice"),
        ("07/ablation", "07/one_mask", "09/patients", "17/forest"),
        "Dice with the mask is measured by a segmenter that was trained on the same patients as the generator, and rewards "
        "hearts that are easier to segment than real ones. So it is no stand-in for utility: a system may lead in one and "
        "trail in the other. A gain for one small segmenter at one resolution need not be one for a tuned network on full "
        "images."),
    "RQ5": Question(
        "Which strategies for privacy are practical without giving up realism?",
        ("R4", "R5", "R6", "R7"), ("nearest_excess_study", ANATOMY),
        ("11/safeguards", "11/attacks", "12/epsilon"),
        "Safeguards are tried where memorising was provoked: one generator of ten patients, trained for long. Where nothing is "
        "memorised, they can lower nothing. An audit bounds what known attacks find; differential privacy alone bounds all "
        "attacks, at the patient level and for the budget that is stated, and here for generators of few patients."),
}


def answer(question: Question, scores: pd.DataFrame, claims: pd.DataFrame) -> str:
    """About half a page of Markdown: the claims that bear on a question by their primary tests; in each metric the best
    unconditional and the best conditional system and real images; and what stays open.

    Args:
        scores: of the review's systems, one cohort and profile. claims: of the same, with `after Holm`.
    """
    primary = claims[claims["primary"].astype(bool)].drop_duplicates("claim").set_index("claim")
    verdicts = {claim: primary.loc[claim, "verdict"] if claim in primary.index else NOT_TESTED for claim in question.claims}
    counts = {one: [claim for claim, verdict in verdicts.items() if verdict == one] for one in (*VERDICTS, NOT_TESTED)}
    short = "; ".join(f"{len(found)} {one} ({', '.join(found)})" for one, found in counts.items() if found)
    tested = [_claim(claim, primary.loc[claim]) for claim in question.claims if claim in primary.index]
    parts = [f"**In short.** Of {len(verdicts)} claims that bear on it: {short}.", "\n".join(tested),
             "**Who leads**, among systems that show hearts and are not given one (as those that translate an image are):",
             "\n".join(_leaders(metric, scores) for metric in question.metrics),
             f"**What stays open.** {question.limits}"]
    return "\n\n".join(part for part in parts if part)


def _claim(claim: str, row: pd.Series) -> str:
    """One bullet: verdict, claim, test and effect of its weakest criterion."""
    held = row["after Holm"] if isinstance(row["after Holm"], str) and row["after Holm"] else row["verdict"]
    verdict = row["verdict"] if held == row["verdict"] else f"{row['verdict']} alone, {held} after Holm"
    low, high = row["low"], row["high"]
    interval = f" [{low:.3g}, {high:.3g}]" if pd.notna(low) else ""
    effect = f"{row['effect']:.3g}{interval} {row['unit']}" if pd.notna(row["effect"]) else "no effect could be measured"
    return f"- **{claim}, {verdict}**: *{review.CLAIMS[claim]}*. {row['test']}: {effect}."


def _leaders(metric: str, scores: pd.DataFrame) -> str:
    """One bullet: the best of each kind in a metric, and what real images score."""
    part = scores[(scores["metric"] == metric) & (scores["system"] != "real")].dropna(subset="value")
    part = part[~part["system"].isin(review.without_hearts(scores)) & ~review.identity(part["system"]).isin(GIVEN_THE_HEART)]
    if part.empty:
        return f"- {metrics.title(metric)}: not measured."
    free = review.unconditional(part)
    said = [f"{kind} {_leading(rows, metric)}" for kind, rows in (("unconditional", part[free]), ("conditional", part[~free]))
            if len(rows)]
    real = [value for value, kind, _ in metrics.references(scores[scores["metric"] == metric], metric) if kind == "real"]
    said += [f"real images {metrics.number(metric, real[0])}"] if real else []
    return f"- {metrics.title(metric)}: {'; '.join(said)}."


def _leading(rows: pd.DataFrame, metric: str) -> str:
    """"U10 FM 0.003 [0.000, 0.007]" of the best, and how many share its interval."""
    lower = rows["better"].iloc[0] == "lower"
    best = rows.loc[rows["value"].idxmin() if lower else rows["value"].idxmax()]
    value, low, high = (metrics.number(metric, best[column]) for column in ("value", "low", "high"))
    text = f"{best['system']} {value}" + (f" [{low}, {high}]" if low else "")
    beside = ((rows["low"] <= best["high"]) & (rows["high"] >= best["low"])).sum() - 1 if pd.notna(best["low"]) else 0
    return text + (f", whose interval {beside} of {len(rows) - 1} others overlap" if beside else "")
