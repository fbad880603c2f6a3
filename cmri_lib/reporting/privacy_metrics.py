"""Names of attacks and of measures of copies, for figures and pages."""

from __future__ import annotations

import re

from cmri_lib.reporting.metric_description import Bounds, Description, of_axis

#: Attack → its name.
ATTACKS = {
    "loss": "denoising loss", "loss_calibrated": "denoising loss, calibrated",
    "secmi": "SecMI", "pia": "PIA", "pian": "PIAN", "sima": "SimA", "fcre": "FCRE", "pfami": "PFAMI",
    "pfami_critic": "PFAMI, critic's output",
    "ode": "likelihood by the ODE", "elbo": "evidence lower bound", "tokens": "token likelihood",
    "critic": "critic's output", "inversion": "latent inversion", "distance_pixel": "distance to samples, pixels",
    "distance_classical": "distance to samples, Gabor", "domias_classical": "density ratio (DOMIAS)",
    "critic_calibrated": "critic's output, calibrated", "loss_tosses": "denoising loss, mean over tosses of coins",
    "critic_tosses": "critic's output, mean over tosses of coins",
    "clusters": "clusters of samples around a patient", "lira": "LiRA", "rmia": "RMIA", "blind": "blind baseline",
    "strongest": "the strongest of those tried",
}
GUESSING = Bounds("guessing", "every member found")
STRANGERS = Bounds("slices of strangers", "copies")

#: Measures in a feature space.
IN_SPACE = {
    "near_copy_rate": of_axis("privacy", STRANGERS, "Share of near copies, threshold from the hold-out",
                              "near copies, hold-out",
                              format=".3f"),
    "near_copy_excess": of_axis("privacy", Bounds("no memory", "copies"),
                                "Share of near copies, above that of hold-out slices",
                                "near copies − swapped", format="+.3f"),
    "swapped_share": of_axis("privacy", STRANGERS, "Nearest-training share, calibrated by swapping",
                             "nearest to training, swapped"),
    "authenticity": of_axis("privacy", STRANGERS, "Share of authentic samples", "authenticity"),
    "neighbour_ratio": of_axis("privacy", STRANGERS, "Nearest-neighbour distance ratio by patient", "NNDR"),
    "privacy_loss": of_axis("privacy", Bounds("no memory", "copies"), "Loss of adversarial accuracy",
                            "privacy loss",
                            format="+.2f"),
    "data_copying": of_axis("privacy", Bounds("no memory"), "Data-copying statistic (Meehan)", "data copying",
                            format="+.1f"),
    "concentration": of_axis("privacy", STRANGERS, "Share of samples around one patient", "largest cluster"),
}
#: What is told of an attack.
STATISTICS = {"auc": ("AUC of the attack: {}", "AUC, {}"),
              "auc_max": ("AUC of the attack, by its boldest slice: {}", "AUC by maximum, {}"),
              "tpr1": ("Members found at 1 % false alarms: {}", "TPR at 1 %, {}"),
              "tpr5": ("Members found at 5 % false alarms: {}", "TPR at 5 %, {}"),
              "exposure": ("How far members stand out, in standard deviations of strangers: {}", "exposure, {}")}
#: What differential privacy has spent, and how much of it an attacker proves.
EPSILON = {name: of_axis("privacy", Bounds("nothing learnt"), *titles) for name, titles in {
    "epsilon_rdp": ("Privacy loss ε, upper bound (RDP accountant)", "ε at most, RDP"),
    "epsilon_prv": ("Privacy loss ε, upper bound (PRV accountant)", "ε at most, PRV"),
    "epsilon_lower": ("Privacy loss ε, lower bound from canaries", "ε at least"),
    "epsilon_lower_most": ("Largest lower bound that so many canaries can show", "ε at least, all guesses right"),
}.items()}


def described(metric: str) -> Description | None:
    """The description of ``attack_<statistic>_<attack>`` and of `EPSILON`; None for another metric."""
    if metric in EPSILON:
        return EPSILON[metric]
    found = re.fullmatch(r"attack_(auc_max|auc|tpr1|tpr5|exposure)_(\w+)", metric)
    if not found or found[2] not in ATTACKS:
        return None
    title, short = (text.format(ATTACKS[found[2]]) for text in STATISTICS[found[1]])
    return of_axis("privacy", GUESSING, title, short)
