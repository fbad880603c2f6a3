"""The register of metrics: under which name, in which unit and how every number of a table is shown.

Tables carry short names (``kid_study``), figures and pages full ones. `describe` composes the description of
a family, such as ``dice_<structure>`` or ``<measure>_<feature space>``, from its parts, so that a new
structure or space needs one word here. A metric that nobody described is shown under its own name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import replace

import pandas as pd

from cmri_lib.reporting import privacy_metrics, utility_metrics
from cmri_lib.reporting.metric_description import (COHERENCE, COPIED, DISTANCES, FOLLOWED, LEARNT, MAPPED, MASKS, NONE, NULL,
                                                   RECOGNISED, REMEMBERED, REPEATED, SAMPLES, SHAPES, SPACES, STACKS,
                                                   STRUCTURES, TRANSLATED, WAYS, Bounds, Description)
from cmri_lib.reporting.metric_description import of_axis as _of
from cmri_lib.reporting.metric_uses import USES

#: Headings under which metrics are grouped, in this order.
AXES = ("fidelity", "anatomy", "conditioning", "utility", "privacy", "cost")

#: The metrics that short tables show, in this order, where measured: notebook 06, the scoreboard, the results
#: page.
HEADLINE = ("mmd_anatomy", "mmd_classical", "kid_study", "frechet_study", "precision_study", "recall_study",
            "coverage_study", "ms_ssim_pairs", "band_excess", "c2st_image",
            "heart_valid", "anatomy_lv_missing", "anatomy_w1_lv_cm2", "dice_mean", "hd95_Myo_mm",
            "accuracy_vendor", "accuracy_phase", "downstream_dice", "downstream_dice_unseen",
            "nearest_share_study", "nearest_excess_study", "near_copies_pixel", "attack_auc_strongest",
            "seconds_per_image", "nfe", "images_seen", "images_before", "training_seconds")


#: Measures in a feature space: ``<measure>_<space>``.
IN_SPACE = {
    "mmd": _of("fidelity", SAMPLES, "Bounded kernel distance (MMD)", "MMD", format=".3f"),
    "kid": _of("fidelity", SAMPLES, "Kernel distance (KID)", "KID", wide=True),
    "frechet": _of("fidelity", SAMPLES, "Fréchet distance", "Fréchet", format=".1f"),
    "precision": _of("fidelity", SAMPLES, "Precision", "precision"),
    "recall": _of("fidelity", SAMPLES, "Recall", "recall"),
    "density": _of("fidelity", SAMPLES, "Density", "density"),
    "coverage": _of("fidelity", SAMPLES, "Coverage", "coverage"),
    "c2st": _of("fidelity", SAMPLES, "Accuracy of the two-sample classifier (C2ST)", "C2ST accuracy"),
    "nearest_gap": _of("privacy", Bounds("patients never seen"),
                       "Share nearest to training patients, above that of as many patients never seen",
                       "nearest to training − to unseen", format="+.2f"),
    "inception": _of("fidelity", SAMPLES, "Inception score", "inception score"),
    "nearest_share": _of("privacy", REMEMBERED, "Share of samples nearest to training patients",
                         "nearest to training"),
    "nearest_excess": _of("privacy", NULL, "Share nearest to training patients, above real test images",
                          "nearest to training − real", format="+.2f"),
    "nearest_ratio": _of("privacy", REMEMBERED, "Distance to training / to hold-out patients",
                         "distance ratio"),
    "near_copies": _of("privacy", REMEMBERED, "Share of near copies of training images", "near copies",
                       format=".3f"),
}

IN_SPACE |= privacy_metrics.IN_SPACE

#: The same as other papers compute them: ``<measure>_textbook_<space>``.
IN_SPACE |= {f"{name}_textbook": replace(IN_SPACE[name], title=f"{IN_SPACE[name].title}, textbook form",
                                         short=f"{IN_SPACE[name].short}, textbook")
             for name in ("kid", "precision", "recall", "density", "coverage")}

#: Metrics with a name of their own.
SINGLE = {
    "spectrum_db": _of("fidelity", SAMPLES, "Difference of power spectra", "spectrum", unit="dB",
                       format=".1f"),
    "band_excess": _of("fidelity", SAMPLES, "Excess power in the top octave", "top-octave power",
                       unit="log10", format="+.2f", zero=True),
    "c2st_image": _of("fidelity", SAMPLES, "Accuracy of the two-sample classifier (C2ST), network on images",
                      "C2ST accuracy, images"),
    "ms_ssim_pairs": _of("fidelity", SAMPLES, "Similarity of pairs of samples (MS-SSIM)", "MS-SSIM of pairs"),
    "fixed_mask_ms_ssim": _of("conditioning", REPEATED, "Similarity of images of one mask (MS-SSIM)",
                              "MS-SSIM, one mask"),
    "fixed_mask_sd_heart": _of("conditioning", REPEATED, "Standard deviation at one mask, in the heart",
                               "SD in the heart"),
    "fixed_mask_sd_outside": _of("conditioning", REPEATED, "Standard deviation at one mask, around the heart",
                                 "SD outside"),
    "ssim_true": _of("conditioning", Bounds("scans by other vendors", "the true scan"),
                     "Similarity to the true scan (SSIM)", "SSIM, true scan"),
    "psnr_true": _of("conditioning", Bounds("scans by other vendors", "the true scan"),
                     "Peak signal-to-noise ratio to the true scan (PSNR)", "PSNR, true scan", unit="dB",
                     format=".1f"),
    "ssim_target": _of("conditioning", TRANSLATED, "Similarity to the true image (SSIM)",
                       "SSIM, true image"),
    "psnr_target": _of("conditioning", TRANSLATED, "Peak signal-to-noise ratio to the true image (PSNR)",
                       "PSNR, true image", unit="dB", format=".1f"),
    "mae_target": _of("conditioning", TRANSLATED, "Mean absolute error to the true image", "error, true image",
                      format=".3f"),
    "t1_error_Myo_ms": _of("conditioning", MAPPED, "Error of the T1 of the myocardium", "T1, myocardium",
                           unit="ms", format=".0f"),
    "t1_error_LV_ms": _of("conditioning", MAPPED, "Error of the T1 of the blood in the LV", "T1, blood",
                          unit="ms", format=".0f"),
    "t1_pixel_error_Myo_ms": _of("conditioning", MAPPED, "Error of T1, the median pixel of the myocardium",
                                 "T1 of pixels, myocardium", unit="ms", format=".0f"),
    "t1_pixel_error_LV_ms": _of("conditioning", MAPPED, "Error of T1, the median pixel of the blood in the LV",
                                "T1 of pixels, blood", unit="ms", format=".0f"),
    "cavity_error_cm2": _of("conditioning", Bounds("a heart that does not beat", "the true image", "ceiling"),
                            "Error of the area of the LV cavity over the heartbeat", "LV area over the beat", unit="cm²"),
    "style_gain_ssim": _of("conditioning", Bounds("no style", "the true scan", "ceiling"),
                           "Gain in SSIM by the vendor asked for", "SSIM gain by vendor", format="+.3f"),
    "style_match": _of("conditioning", Bounds("chance", "the true scan", "ceiling"),
                       "Share in the style of the vendor asked for", "style match"),
    "heart_valid": _of("anatomy", SAMPLES, "Share of valid hearts", "valid hearts"),
    "anatomy_lv_missing": _of("anatomy", SAMPLES, "Share of samples without an LV", "no LV"),
    "mask_valid": _of("anatomy", MASKS, "Share of valid masks", "valid masks"),
    "mask_lv_missing": _of("anatomy", MASKS, "Share of masks without an LV", "no LV, masks"),
    "mask_dice_pairs": _of("anatomy", MASKS, "Dice of pairs of masks", "Dice of pairs"),
    "mask_nearest_dice": _of("privacy", COPIED, "Dice with the nearest training mask", "nearest mask, Dice"),
    "mask_near_copies": _of("privacy", COPIED, "Share of near copies of training masks", "near copies, masks",
                            format=".3f"),
    "dice_mean_second": _of("anatomy", FOLLOWED, "Dice with the mask, mean, as the second segmenter sees it",
                            "Dice, second segmenter"),
    "dice with the mask": _of("anatomy", FOLLOWED, "Dice with the mask asked for", "Dice with the mask"),
    "downstream_dice": _of("utility", LEARNT, "Dice of a segmenter trained on samples, real patients",
                           "Dice, downstream"),
    "downstream_hd95_mm": _of("utility", LEARNT, "95 % Hausdorff distance of a segmenter trained on samples",
                              "HD95, downstream", unit="mm", format=".1f"),
    "downstream_missed": _of("utility", LEARNT, "Share of structures missed by a segmenter trained on samples",
                             "missed, downstream"),
    "accuracy_disease_volumes": _of("conditioning", RECOGNISED, "Disease recognised from the heart's volumes, accuracy",
                                    "disease accuracy, volumes"),
    "downstream_dice_LV": _of("utility", LEARNT, "Dice of the LV of a segmenter trained on samples, real patients",
                              "Dice, LV, downstream"),
    "log10_seconds_ratio": _of("cost", NONE, "Ratio of sampling times, log10", "ratio of times", unit="log10"),
    "seconds_per_image": _of("cost", NONE, "Sampling time per image", "time / image", unit="s", format=".2g",
                             wide=True),
    "nfe": _of("cost", NONE, "Network evaluations per image", "network evaluations", format=".3g"),
    "images_seen": _of("cost", NONE, "Training images seen", "images seen", format=",.0f", wide=True),
    "images_before": _of("cost", NONE, "Training images seen by its first stage and by what it starts from", "images before",
                         format=",.0f", wide=True),
    "training_seconds": _of("cost", NONE, "Training time, of fine-tuning alone where a system starts from a trained one",
                            "training time", unit="s", format=".0f", wide=True),
    "parameters": _of("cost", NONE, "Parameters of the networks", "parameters", format=",.0f", wide=True),
    "peak_memory_gib": _of("cost", NONE, "Peak memory", "peak memory", unit="GiB", format=".1f"),
    "patients inside the definition of their group":
        _of("anatomy", NONE, "Share of patients inside the definition of their group", "inside definition"),
    "vendor told from an image (accuracy)":
        _of("fidelity", RECOGNISED, "Accuracy of the vendor recognised from an image", "vendor recognised"),
    "disease told from the masks (accuracy)":
        _of("anatomy", RECOGNISED, "Accuracy of the disease recognised from the masks", "disease recognised"),
}


def describe(metric: str) -> Description:
    """The description of `metric`; one that the register does not know keeps its name, with spaces for
    underscores.
    """
    return _described(metric) or Description(metric.replace("_", " "), metric.replace("_", " "), format=".3g")


def known(metric: str) -> bool:
    """Has `metric` a title, or does it keep its name?"""
    return _described(metric) is not None


def _described(metric: str) -> Description | None:
    return (SINGLE.get(metric) or _in_space(metric) or privacy_metrics.described(metric) or _anatomical(metric)
            or _in_common_view(metric) or _others(metric))


def _in_common_view(metric: str) -> Description | None:
    """``way_<metric>``: see `experiments.preprocessing_synthesis`."""
    seen = _described(metric.removeprefix("way_")) if metric.startswith("way_") else None
    return seen and replace(seen, title=f"{seen.title}, common view", short=f"{seen.short}, common view", bounds=WAYS)


def _in_space(metric: str) -> Description | None:
    for measure, parts in IN_SPACE.items():
        if found := re.fullmatch(rf"{measure}_([a-z]+)(_spectrum)?", metric):
            if found[1] not in SPACES:
                return None
            full, brief = SPACES[found[1]]
            if measure == "mmd" and found[1] in DISTANCES:
                seen = DISTANCES[found[1]]
                return replace(parts, title=f"Distance of {seen} (MMD, {full})", short=f"{seen} (MMD)")
            extra = " and spectrum" if found[2] else ""
            return replace(parts, title=f"{parts.title}, {full}{extra}",
                           short=", ".join(filter(None, (parts.short, brief + extra))))
    return None


def _anatomical(metric: str) -> Description | None:
    if found := re.fullmatch(r"dice_([A-Za-z]+)", metric):
        part = STRUCTURES.get(found[1])
        brief = "Dice with the mask" if found[1] == "mean" else f"Dice, {found[1]}"
        return part and _of("anatomy", FOLLOWED, f"Dice with the mask, {part}", brief)
    if found := re.fullmatch(r"hd95_([A-Za-z]+)_mm", metric):
        part = STRUCTURES.get(found[1])
        return part and _of("anatomy", FOLLOWED, f"95 % Hausdorff distance to the mask, {part}",
                            f"HD95, {found[1]}", unit="mm", format=".1f")
    if found := re.fullmatch(r"missed_([A-Za-z]+)", metric):
        part = STRUCTURES.get(found[1])
        return part and _of("anatomy", FOLLOWED, f"Share of volumes in which the mask's {part} is missed",
                            f"missed, {found[1]}")
    if found := re.fullmatch(r"(anatomy|mask)_w1_([a-z0-9_]+)", metric):
        part, whose = SHAPES.get(found[2]), "" if found[1] == "anatomy" else " of masks"
        return part and _of("anatomy", MASKS if whose else SAMPLES, f"Wasserstein distance of {part}{whose}",
                            f"{part}, W1", unit="SD")
    return None


def _others(metric: str) -> Description | None:
    if (found := re.fullmatch(r"(mask_)?stack_(\w+)", metric)) and found[2] in COHERENCE:
        full, brief, unit, shown = COHERENCE[found[2]]
        whose = ("", "") if found[1] is None else (", masks", ", masks")
        like_real = not full.startswith("Share")
        return _of("anatomy", STACKS, full + whose[0], brief + whose[1], unit=unit, format=shown, like_real=like_real)
    if found := utility_metrics.words(metric):
        return _of("utility", NONE, **found)
    if metric == "certainty_vendor":
        return _of("conditioning", RECOGNISED, "Certainty about the vendor", "vendor certainty", like_real=True)
    if found := re.fullmatch(r"accuracy_([a-z]+)", metric):
        return _of("conditioning", RECOGNISED, f"Condition accuracy, {found[1]}", f"{found[1]} accuracy")
    if found := re.fullmatch(r"(histogram|spectrum) difference to (\w+)", metric):
        unit = "decades" if found[1] == "spectrum" else ""
        return _of("fidelity", NONE, f"Difference of the {found[1]} to {found[2]}",
                   f"{found[1]}, {found[2]}", unit=unit, format=".3f")
    if found := re.fullmatch(r"Dice (\w+) on (\w+), trained on the phantom only", metric):
        part = STRUCTURES.get(found[1], found[1])
        return _of("utility", NONE, f"Dice on {found[2]} of a segmenter trained on phantoms, {part}",
                   f"Dice on {found[2]}, {found[1]}")
    return None


def title(metric: str) -> str:
    """Full plain name: "95 % Hausdorff distance to the mask, LV"."""
    return describe(metric).title


def label(metric: str) -> str:
    """`title` with its unit, for an axis: "95 % Hausdorff distance to the mask, LV (mm)"."""
    return _with_unit(describe(metric).title, metric)


def short(metric: str) -> str:
    """Title for the head of a narrow column, with its unit: "HD95, LV (mm)"."""
    return _with_unit(describe(metric).short, metric)


def _with_unit(text: str, metric: str) -> str:
    unit = describe(metric).unit
    return f"{text} ({unit})" if unit else text


def number(metric: str, value: float) -> str:
    """`value` as this metric is shown: fewer decimals from 10 on, no negative zero, and "" for NaN."""
    if math.isnan(value):
        return ""
    kind = describe(metric).format
    if kind.endswith(".2f") and abs(value) >= 10:
        kind = kind[:-3] + (".0f" if abs(value) >= 100 else ".1f")
    shown = format(value, kind)
    return shown.lstrip("-") if not re.search(r"[1-9]", shown) and "inf" not in shown else shown


def with_interval(row: tuple) -> str:
    """"0.12 [0.10, 0.15]" of a row with metric, value, low and high; without brackets where there is no interval."""
    value, low, high = (number(row.metric, one) for one in (row.value, row.low, row.high))
    return f"{value} [{low}, {high}]" if low and high else value


def direction(metric: str, better: str) -> str:
    """Which values are better, in words. `better`: "lower" or "higher", as in the tables."""
    if describe(metric).like_real:
        return "nearer to real is better"
    return "nearer to 0 is better" if describe(metric).zero else f"{better} is better"


def arrow(metric: str, better: str) -> str:
    """`direction` as one sign."""
    if describe(metric).like_real:
        return "→ real"
    return "→0" if describe(metric).zero else {"lower": "↓", "higher": "↑"}[better]


def use(metric: str) -> str:
    """When to use it: its own sentence, else that of its family, the longest name first; "" if there is none."""
    named = [name for name in USES if metric == name or metric.startswith((f"{name}_", f"{name} "))]
    return USES[max(named, key=len)] if named else ""


def references(rows: pd.DataFrame, metric: str) -> list[tuple[float, str, str]]:
    """(value, kind, meaning) of the floor and the ceiling of one metric's rows, where known. Kinds: "real" is
    what real images score, "copies" what training images, handed out, would, "nothing" what takes no
    knowledge of the condition.
    """
    meant, found = describe(metric).bounds, []
    for column, other in (("floor", "nothing"), ("ceiling", "copies")):
        kind = "real" if column == meant.real else other
        # In the row of the real images themselves the bound is perfection.
        own = kind == "real" and column == "ceiling" and "system" in rows
        known_rows = rows[rows["system"] != "real"] if own else rows
        value = known_rows[column].mean() if column in rows else math.nan
        # Without training slices the table holds the end of the metric's range, which nothing has scored.
        unscored = meant in (SAMPLES, MASKS) and column == "ceiling" and value in (0.0, 1.0)
        if getattr(meant, column) and math.isfinite(value) and not unscored:
            found.append((float(value), kind, getattr(meant, column)))
    return found


def headline(measured: Iterable[str]) -> list[str]:
    """The metrics of `HEADLINE` that are among `measured`, in its order."""
    found = set(measured)
    return [metric for metric in HEADLINE if metric in found]


def panels(chosen: Iterable[str], most: int = 10) -> list[list[str]]:
    """`chosen`, ordered by `AXES`, in as few groups as can be, of at most `most` metrics and of nearly equal
    size. An axis stays whole; one of more than `most` metrics is a group of its own.
    """
    by_axis: dict[str, list[str]] = {axis: [] for axis in (*AXES, "")}
    for metric in chosen:
        by_axis[describe(metric).axis].append(metric)
    parts = [group for group in by_axis.values() if group]
    best: tuple[tuple[int, int], list[list[str]]] = ((0, 0), [])
    for cuts in range(2 ** max(0, len(parts) - 1)):
        groups: list[list[str]] = []
        for place, part in enumerate(parts):
            if place and not cuts >> (place - 1) & 1:
                groups[-1] = groups[-1] + part
            else:
                groups.append(list(part))
        too_wide = any(len(group) > most and not any(group == part for part in parts) for group in groups)
        cost = (len(groups), sum(len(group) ** 2 for group in groups))
        if not too_wide and (not best[1] or cost < best[0]):
            best = (cost, groups)
    return best[1]


def blocks(table: pd.DataFrame, y: str = "system") -> list[tuple[list[str], list[str]]]:
    """(systems, metrics) to show together: the metrics that most systems have, then those that few have with
    these few alone, unless together these are most as well. `y`: the column of systems."""
    systems, have = list(dict.fromkeys(table[y])), table.groupby("metric", sort=False)[y].agg(set)
    rare = {metric for metric, found in have.items() if len(found) <= len(systems) / 2}
    if len(set().union(*(have[metric] for metric in rare))) > 0.6 * len(systems):
        rare = set()
    parts = [m for m in have.index if m not in rare], [m for m in have.index if m in rare]
    return [([s for s in systems if any(s in have[m] for m in part)], part) for part in parts if part]
