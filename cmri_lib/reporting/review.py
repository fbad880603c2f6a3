"""What the review compares: its systems and its claims, by id; and how systems are named and ordered.

The scoreboard shows what is measured and what is not.

Kumarasinghe, Kawya, Edirisooriya, Devindi, Nawinne, Thambawita: "Synthetic Cardiac MRI Image Generation using
Deep Generative Models", arXiv 2603.24764, 2026.
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from cmri_lib.reporting import metrics

#: id → system.
SYSTEMS = {
    "U1": "VAE", "U2": "DCGAN", "U3": "WGAN-GP", "U4": "progressive GAN", "U5": "StyleGAN2-ADA", "U6": "DDPM",
    "U7": "latent diffusion", "U8": "DiT / UViT latent diffusion", "U9": "MaskGIT", "U10": "OT flow matching",
    "C1": "Pix2Pix", "C2": "SPADE cGAN", "C3": "vendor-style cGAN",
    "C4": "VAE deformation + label-conditioned GAN",
    "C5": "GauGAN with uniform-EF masks", "C6": "covariate cGAN", "C7": "3D latent diffusion",
    "C8": "phenotype-conditioned masked diffusion", "C9": "ControlNet latent diffusion",
    "C10": "mask diffusion → SPADE-LDM", "C11": "cVAE + manifold", "C12": "segmentation-guided diffusion",
    "C13": "source-domain diffusion", "C14": "FFD-VAE / DiffuSeg", "C15": "class-conditioned LDM",
    "C16": "MOTFM",
    "C17": "Concat-FM and Direct-FM", "C18": "RDP-CGAN", "C19": "RecCGAN",
}

#: id → claim.
CLAIMS = {
    "F1": "diffusion beats GANs and VAEs in unconditional fidelity",
    "F2": "flow matching reaches diffusion's fidelity in far fewer steps, and is more diverse than GANs",
    "F3": "flow matching overfits small data sets",
    "F4": "for paired translation a GAN beats diffusion and flow matching in structure and cost",
    "F5": "VAEs lose fine detail; GANs add high-frequency artefacts",
    "F6": "a low Fréchet distance alone can hide mode collapse or memorisation",
    "M1": "mask conditioning improves anatomical consistency and downstream use",
    "M2": "multi-structure masks beat cavity-only masks",
    "M3": "SPADE has the best fidelity for its cost; it beats Pix2Pix",
    "M4": "concatenation, SPADE and ControlNet differ in how closely anatomy follows the mask",
    "M5": "several conditions at once improve consistency",
    "M6": "better labels are worth more than more data",
    "P1": "intensity normalisation is critical for cross-vendor robustness and synthesis quality",
    "P2": "cropping to the region of interest is critical too",
    "P3": "ED and ES together help; apical and basal slices are harder",
    "T1": "synthetic-only training comes within 1 % Dice of real",
    "T2": "real + synthetic gains up to 4 % Dice and −40 % HD; 5–10 % when labels are few",
    "T3": "a vendor shift costs about five Dice points",
    "T4": "vendor-style conditioning recovers part of that",
    "T5": "too many synthetic samples hurt; small targeted pathology additions help more",
    "T6": "pathology synthesis helps rare diseases",
    "R1": "plain membership attacks are weak on CMR; FCRE is stronger",
    "R2": "nearest-neighbour audits expose leakage, worst in small data and rare pathology",
    "R3": "clusters around one patient betray memorisation",
    "R4": "vendor-conditioned models leak through scanner traits",
    "R5": "deterministic flow models leak more than stochastic ones",
    "R6": "differential privacy blurs anatomy",
    "R7": "early stopping, augmentation, de-duplication and filtering lower memorisation at little cost",
    "E1": "per slice: diffusion 2.31 s, GAN 0.12 s, VAE 0.08 s",
}

#: An id of a system that the review does not know.
OWN_ID = r"[A-Z][1-9]\d*"
#: A system with less than this share of the valid hearts of real images shows no hearts, and is judged no further: a
#: distance that reaches real images without one has looked at something else.
FEWEST_HEARTS = 0.5
#: Where the frozen segmenter finds valid hearts in less than this share of real slices, it cannot judge samples.
FEWEST_REAL_HEARTS = 0.5
#: Families of systems, in the order of tables and colours.
FAMILIES = ("VAE", "GAN", "diffusion", "latent diffusion", "masked", "flow")
#: Methods of conditioning and contents of a mask, as figures and pages name them.
METHODS = {"none": "no mask", "concat": "concatenation", "spade": "SPADE", "control": "ControlNet"}
CONTENTS = {"none": "no mask", "cavity": "LV cavity", "labels": "LV + Myo + RV", "tissues": "every tissue"}


def identity(names: pd.Series) -> pd.Series:
    """The id under which the review has each system: "C16 MOTFM SPADE" → "C16"."""
    return names.str.split(" ").str[0]


def listed(names: pd.Series) -> pd.Series:
    """Which names the tables of systems show: systems of the review, by their id, and one's own, whose id is made like them: a
    capital letter and a number, "X1 my system". Cells of the ablation and arms are not shown; they stay in their notebook."""
    ids = identity(names)
    return ids.isin(list(SYSTEMS)) | ids.str.fullmatch(OWN_ID)


def unconditional(table: pd.DataFrame) -> pd.Series:
    """Which rows of a table of scores are about a system that is conditioned on nothing."""
    return table["conditioning"].fillna("none") == "none"


def system(name: str) -> str:
    """A system, or what it is conditioned on, in words: "mask (spade)" → "mask (SPADE)"."""
    words = re.sub(r"\b(concat|spade|control)\b", lambda found: METHODS[found[0]], name)
    return "real images" if name == "real" else re.sub(r" none$", ", no mask", words)


def compared(test: str) -> str:
    """A test with the systems of the ablation in words: "GAN labels concat" → "GAN with a mask (LV + Myo + RV) by
    concatenation", "GAN none" → "GAN without a mask"."""
    test = re.sub(r"\b(GAN|diffusion|flow) none\b", r"\1 without a mask", test)
    return re.sub(r"\b(GAN|diffusion|flow) (cavity|labels|tissues) (concat|spade|control)\b",
                  lambda found: f"{found[1]} with a mask ({CONTENTS[found[2]]}) by {METHODS[found[3]]}", test)


def without_hearts(table: pd.DataFrame) -> set[str]:
    """The systems of a table of scores whose share of valid hearts is below `FEWEST_HEARTS` of that of real images;
    none where it was not measured, or cannot be judged.
    """
    rows = table[(table["metric"] == "heart_valid") & (table["system"] != "real")]
    judged = rows["floor"] >= FEWEST_REAL_HEARTS
    return set(rows.loc[judged & (rows["value"] < FEWEST_HEARTS * rows["floor"]), "system"])


def unjudged(table: pd.DataFrame) -> set[str]:
    """The systems of a table of scores of which valid hearts say nothing, because real images have too few of them."""
    rows = table[(table["metric"] == "heart_valid") & (table["system"] != "real")]
    return set(rows.loc[rows["floor"] < FEWEST_REAL_HEARTS, "system"])


def cannot_judge(metric: str, real: float) -> bool:
    """Do real images themselves score so little, `real`, that valid hearts say nothing about samples?"""
    return metric == "heart_valid" and real < FEWEST_REAL_HEARTS


def reaches(row: tuple, metric: str) -> bool | None:
    """Does a score, or the end of its interval that is nearer, reach what real images score? None where that is not known, or
    says nothing. `row`: value, low, high, floor, ceiling, better."""
    real = getattr(row, metrics.describe(metric).bounds.real)
    best = np.fmin(row.low, row.value) if row.better == "lower" else np.fmax(row.high, row.value)
    if not np.isfinite(real) or cannot_judge(metric, real):
        return None
    return bool(best <= real if row.better == "lower" else best >= real)


def hearts_note(table: pd.DataFrame) -> str:
    """A sentence for a table in which valid hearts cannot be judged; "" where they can, or were not measured."""
    real = table.loc[(table["metric"] == "heart_valid") & (table["system"] != "real"), "floor"].min()
    text = "Valid hearts cannot be judged: the frozen segmenter finds one in only {:.0f} % of real slices."
    return text.format(100 * real) if cannot_judge("heart_valid", real) else ""


def rank_agreement(table: pd.DataFrame, first: str, second: str) -> tuple[float, pd.DataFrame]:
    """Do two metrics put the systems of a table of scores, but for the real images, in one order?

    Returns:
        the rank correlation (Spearman) over the systems that have both, NaN of fewer than two, and the pairs of systems whose
        order changes: ``ahead by the first``, ``ahead by the second``, and the two gaps, both above 0. The largest gap of the
        first metric stands on top.
    """
    wide = table[table["system"] != "real"].pivot(index="system", columns="metric", values="value")
    wide = wide.reindex(columns=[first, second]).dropna()
    pairs = [(a, b, *(wide.loc[a] - wide.loc[b])) for a in wide.index for b in wide.index]
    swapped = pd.DataFrame([(a, b, gap, -other) for a, b, gap, other in pairs if gap > 0 > other],
                           columns=["ahead by the first", "ahead by the second", "gap by the first", "gap by the second"])
    agreement = wide[first].corr(wide[second], method="spearman") if len(wide) > 1 else float("nan")
    return float(agreement), swapped.sort_values("gap by the first", ascending=False, ignore_index=True)


def in_order(table: pd.DataFrame, lead: pd.Series) -> pd.DataFrame:
    """One row per system of a table of scores, but for the real images: the unconditional first, then by
    family, then by `lead` (system → value), the lowest first.

    Returns:
        The first row of each, with the columns `free` (is it unconditional?), `kind` (the same in words) and
        `family`, "" where the table has none.
    """
    rows = table[table["system"] != "real"].drop_duplicates("system")
    rows = rows.assign(family=rows["family"].fillna("") if "family" in rows else "",
                       lead=rows["system"].map(lead), free=unconditional(rows))
    rows = rows.assign(place=rows["family"].map({f: i for i, f in enumerate(FAMILIES)}).fillna(len(FAMILIES)),
                       kind=rows["free"].map({True: "Unconditional systems", False: "Conditional systems"}))
    return rows.sort_values(["kind", "place", "family", "lead", "system"], kind="stable",
                            ascending=[False, True, True, True, True])
