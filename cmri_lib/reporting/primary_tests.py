"""The register of primary tests: for each claim one comparison, its metrics, directions and margins, stated before any
result is looked at.

Where a claim says two things ("closer to real *and* more diverse"), or where one number can mislead, a test has several
criteria, and **all** must hold; one that surely does not refutes the claim (`claims.together`). Everything else that notebooks
test about a claim is exploratory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pandas as pd

from cmri_lib.reporting import metrics

Direction = Literal["above", "below", "beyond", "within"]

#: The headline distances, of anatomy and of appearance, and the share of valid hearts.
ANATOMY, APPEARANCE, HEARTS = "mmd_anatomy", "mmd_classical", "heart_valid"
#: Dice points by which two methods of conditioning must differ to count as different.
LEAST_DICE = 0.01
#: One Dice point: by so much may samples alone be worse than real slices.
ONE_POINT = 0.01
#: Dice that a vendor shift costs at least, if it costs "about five points": half of them.
SHIFT = 0.025
#: Share of samples nearest to training patients from which on a generator hands out its training images.
MEMORISED = 0.9
#: Distance of anatomy that a safeguard may cost: about what separates the best systems of the study from the next.
AT_LITTLE_COST = 0.005
#: AUC of a membership attack below which it is weak.
WEAK = 0.6


@dataclass(frozen=True)
class Criterion:
    """One number and where it must lie.

    Attributes:
        metric: of the tables; the effect is the difference that the comparison names.
        direction: the interval lies wholly "above" or "below" the margin, "beyond" ± margin on one side (the two differ), or
            "within" ± margin (the two are equivalent).
        margin: a number, or in words the rule by which the data fix it.
    """

    metric: str
    direction: Direction
    margin: float | str = 0.0

    @property
    def text(self) -> str:
        """"valid hearts above 0"."""
        margin = self.margin if isinstance(self.margin, str) else f"{self.margin:.3g}"
        return f"{metrics.short(self.metric)} {self.direction} {'± ' * (self.direction in ('beyond', 'within'))}{margin}"


@dataclass(frozen=True)
class PrimaryTest:
    """One claim's test. `comparison`: "A − B" is the difference of two systems; all `criteria` must hold."""

    claim: str
    comparison: str
    criteria: tuple[Criterion, ...]

    @property
    def text(self) -> str:
        """The test in words, as the ledger names it."""
        each = dict.fromkeys(criterion.text for criterion in self.criteria)  # those of several comparisons may be alike
        return f"{self.comparison}: {' and '.join(each)}"


NEARER = (Criterion(ANATOMY, "below"), Criterion(APPEARANCE, "below"))
#: claim → its primary test. Of some claims a part was measured later than the test was stated, and is exploratory: of F4, the
#: translation of one vendor's scan into another's, beside that of ED into ES; of P1 and P2, synthesis beside segmentation.
PRIMARY = {test.claim: test for test in (
    PrimaryTest("F1", "U6 DDPM − U5 StyleGAN2-ADA", (*NEARER, Criterion(HEARTS, "above"))),
    PrimaryTest("F2", "U10 OT-FM − U6 DDPM, equally few evaluations, solvers of second order", NEARER),
    PrimaryTest("F3", "U10 OT-FM, fewest patients: trained on − as many it never saw",
                (Criterion("nearest_gap_study", "above"),)),
    PrimaryTest("F4", "ED → ES: C17 Pix2Pix − C17 Concat-FM, then − C17 diffusion",
                (Criterion("dice_mean", "above"), Criterion("dice_mean", "above"), Criterion("log10_seconds_ratio", "below"),
                 Criterion("log10_seconds_ratio", "below"))),
    PrimaryTest("F5", "U1 VAE (decoder's mean), then U5 StyleGAN2-ADA, against real slices",
                (Criterion("band_excess", "below"), Criterion("band_excess", "above"))),
    PrimaryTest("F6", "training images, shifted and noisy − real patients",
                (Criterion("frechet_study", "below", "what real groups reach"),
                 Criterion("nearest_share_study", "above", MEMORISED))),
    PrimaryTest("M1", "flow labels concat − flow none", (Criterion(HEARTS, "above"), Criterion("downstream_dice", "above"))),
    PrimaryTest("M2", "flow labels concat − flow cavity concat",
                (Criterion("dice_LV", "above"), Criterion("downstream_dice_LV", "above"))),
    PrimaryTest("M3", "GAN labels spade − GAN labels concat", NEARER),
    PrimaryTest("M4", "flow labels control − flow labels concat", (Criterion("dice_mean", "beyond", LEAST_DICE),)),
    PrimaryTest("M5", "flow mask + vendor + phase + disease − flow mask", (Criterion("dice_mean", "above"),)),
    PrimaryTest("M6", "flow, most of the fewer patients − all patients with the smallest label errors",
                (Criterion("dice_mean", "above"),)),
    PrimaryTest("P1", "segmenter of two vendors, test patients of the others: normalised scan by scan − one scale for all",
                (Criterion("downstream_dice", "above"),)),
    PrimaryTest("P2", "segmenter of two vendors, test patients of the others: cropped around the heart − not cropped",
                (Criterion("downstream_dice", "above"),)),
    PrimaryTest("P3", "U10 FM + mask − real images: mid-ventricle − (apex, base)", (Criterion("dice_mean", "above"),)),
    PrimaryTest("T1", "segmenter of C16 MOTFM SPADE samples alone − of as many real slices, all patients",
                (Criterion("downstream_dice", "above", -ONE_POINT),)),
    PrimaryTest("T2", "segmenter of real + 1 × C16 MOTFM SPADE samples − of real alone, a quarter of the patients",
                (Criterion("downstream_dice", "above"), Criterion("downstream_hd95_mm", "below"))),
    PrimaryTest("T3", "segmenter of two vendors − of as many patients of all vendors, test patients of the other vendors",
                (Criterion("downstream_dice", "below", -SHIFT),)),
    PrimaryTest("T4", "two vendors, real + C3 vendor-style cGAN in the style of the others − in their own, test patients "
                "of the others", (Criterion("downstream_dice", "above"),)),
    PrimaryTest("T5", "a quarter of the patients, real + samples: most − 1 ×, then a few of the rarest disease − as many "
                "of all", (Criterion("downstream_dice", "below"), Criterion("downstream_dice", "above"))),
    PrimaryTest("T6", "a quarter of the patients, test patients of their rarest disease: real + a few samples of it − real",
                (Criterion("downstream_dice", "above"),)),
    PrimaryTest("R1", "U6 DDPM, members against hold-out: the denoising loss, then FCRE − loss",
                (Criterion("attack_auc_loss", "below", WEAK), Criterion("attack_auc_fcre", "above"))),
    PrimaryTest("R2", "U10 OT-FM, fewest patients − all patients", (Criterion("swapped_share_copy", "above"),)),
    PrimaryTest("R3", "U10 FM, overfitted: samples around members, against around strangers",
                (Criterion("attack_auc_clusters", "above", 0.5),)),
    PrimaryTest("R4", "flow mask + vendor − flow mask", (Criterion("attack_auc_loss", "above"),)),
    PrimaryTest("R5", "U10 FM − U6 DDPM", (Criterion("attack_auc_loss", "above"),)),
    PrimaryTest("R6", "private U10 FM, ε = 10 − clipped without noise (ε = ∞)",
                (Criterion(ANATOMY, "above"), Criterion(HEARTS, "below"))),
    PrimaryTest("R7", "U10 FM of few patients: early stopping, augmentation, de-duplication, filtered samples, each − none",
                4 * (Criterion("swapped_share_copy", "below"), Criterion(ANATOMY, "below", AT_LITTLE_COST))),
    PrimaryTest("E1", "U6 DDPM by its own sampler / U5 StyleGAN2-ADA", (Criterion("log10_seconds_ratio", "above"),)),
)}


def register() -> pd.DataFrame:
    """The register as a table: claim, comparison, metric, direction, margin; one row per criterion."""
    return pd.DataFrame([{"claim": test.claim, "comparison": test.comparison, "metric": criterion.metric,
                          "direction": criterion.direction, "margin": criterion.margin}
                         for test in PRIMARY.values() for criterion in test.criteria])
