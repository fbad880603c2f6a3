"""The review's own tables and figures with measured values: taxonomy, what metrics see, who reports what, fronts.

All is computed from the tidy tables (`results.union`) and from the numbers behind figures of notebook 06.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from cmri_lib.reporting import metrics, review
from cmri_lib.reporting.primary_tests import ANATOMY, HEARTS

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
    "C5": ("GAN", "new masks"), "C6": ("GAN", "attributes"), "C7": ("latent diffusion", "nothing"),
    "C8": ("masked", "attributes"), "C9": ("latent diffusion", "mask"), "C10": ("latent diffusion", "new masks"),
    "C11": ("VAE", "another image"), "C12": ("diffusion", "mask"), "C13": ("diffusion", "another image"),
    "C14": ("diffusion", "mask and scanner"), "C15": ("latent diffusion", "attributes"),
    "C16": ("flow", "mask and scanner"), "C17": ("flow", "another image"), "C18": ("GAN", "nothing"),
    "C19": ("GAN", "another image"),
}
#: The membership inference attack with the largest AUC.
STRONGEST = "attack_auc_strongest"
#: Attacks that ask something else than whether a patient is a member, or nothing of the generator.
_NO_RIVALS = ("clusters", "blind", "lira", "rmia")
#: Two metrics whose front is drawn: x, y.
FRONTS = ((ANATOMY, "seconds_per_image"), (ANATOMY, HEARTS), (ANATOMY, "downstream_dice"), (ANATOMY, "nearest_excess_study"),
          (ANATOMY, STRONGEST))


def taxonomy(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per system of the review: id, system, family, condition, measured (has it any score?)."""
    measured = set(review.identity(scores["system"]))
    return pd.DataFrame([{"id": name, "system": review.SYSTEMS[name], "family": family, "condition": condition,
                          "measured": name in measured} for name, (family, condition) in PLACES.items()])


def completeness(scores: pd.DataFrame) -> pd.DataFrame:
    """Who reports what: axis, of ("reviewed studies", where the review counts them, or "systems of this study"), share.
    A system reports an axis if it, or a variant under its id, has a finite score on it."""
    known = scores[np.isfinite(scores["value"])]
    ids = review.identity(known["system"])
    rows = [{"axis": axis, "of": "reviewed studies", "share": share} for axis, share in LITERATURE.items()]
    for axis in metrics.AXES:
        reporting = set(ids[known["axis"] == axis]) & set(review.SYSTEMS)
        rows.append({"axis": axis, "of": "systems of this study", "share": len(reporting) / len(review.SYSTEMS)})
    return pd.DataFrame(rows)


def strongest_attacks(scores: pd.DataFrame) -> pd.DataFrame:
    """For each attacked system the row of the attack with the largest AUC, as the metric `STRONGEST`.

    Picked after looking: the best of ten attacks that only guess lies above ½. Shadow models, which few systems have, are left
    out, and so are overfitted twins, nulls and private trainings, whose names go on after a comma.
    """
    attack = scores["metric"].str.extract(r"^attack_auc_(?!max_)(\w+)$")[0]
    found = scores[attack.notna() & ~attack.isin(_NO_RIVALS) & ~scores["system"].str.contains(", ") & scores["value"].notna()]
    return found.sort_values("value", ascending=False, kind="stable").drop_duplicates("system").assign(metric=STRONGEST)


def faults_seen(corruptions: pd.DataFrame) -> pd.DataFrame:
    """Which known faults a metric sees, and which it does not.

    Args:
        corruptions: numbers behind 06/corruptions: metric, corruption, strength, beyond (outside what real groups reach).

    Returns:
        metric, sees (faults, the first strength at which each is seen), blind to (those that it sees at no strength), when to
        use it, share.
    """
    rows = []
    for metric, part in corruptions.groupby("metric", sort=False):
        first = part[part["beyond"].astype(bool)].groupby("corruption", sort=False)["strength"].min()
        faults = list(dict.fromkeys(part["corruption"]))
        blind = [fault for fault in faults if fault not in first]
        rows.append({"metric": metric, "sees": ", ".join(f"{fault} ({first[fault]:g})" for fault in faults if fault in first),
                     "blind to": ", ".join(blind), "when to use": metrics.use(metric),
                     "share": 1 - len(blind) / len(faults)})
    return pd.DataFrame(rows).sort_values("share", ascending=False, kind="stable", ignore_index=True)


def on_front(losses: np.ndarray) -> np.ndarray:
    """(N,) bool: the rows of `losses` (N, D), lower is better, that no other row equals or beats in all columns and
    beats in one; rows with NaN are on no front."""
    known = np.isfinite(losses).all(axis=1)
    beaten = np.array([any((other <= one).all() and (other < one).any() for other in losses[known]) for one in losses])
    return known & ~beaten


def fronts(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per pair of metrics (`FRONTS`) and system that has both, but for systems without hearts.

    Returns:
        system, family, x_metric, y_metric, x, y, front (is no other better in both?), and the 95 % intervals x_low, x_high,
        y_low, y_high (NaN where a score has none).
    """
    heartless, found = review.without_hearts(scores), []
    one = scores[(scores["system"] != "real") & ~scores["system"].isin(heartless)].drop_duplicates(["system", "metric"])
    family, better = (one.drop_duplicates(key).set_index(key)[column]
                      for key, column in (("system", "family"), ("metric", "better")))
    wide, low, high = (one.pivot(index="system", columns="metric", values=name) for name in ("value", "low", "high"))
    for x, y in FRONTS:
        if not {x, y} <= set(wide.columns):
            continue
        both = wide[[x, y]].dropna()
        ends = {f"{axis}_{end}": table.loc[both.index, metric].to_numpy() for axis, metric in (("x", x), ("y", y))
                for end, table in (("low", low), ("high", high))}
        signs = [1 if better[name] == "lower" else -1 for name in (x, y)]
        found.append(pd.DataFrame({"system": both.index, "family": family[both.index].to_numpy(),
                                   "x_metric": x, "y_metric": y, "x": both[x].to_numpy(), "y": both[y].to_numpy(),
                                   "front": on_front(both.to_numpy() * signs), **ends}))
    columns = ["system", "family", "x_metric", "y_metric", "x", "y", "front", "x_low", "x_high", "y_low", "y_high"]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=columns)
