"""How the metrics of the utility study are shown: segmentation by structure and phase, and errors of heart function.

Composed from their parts, as `metrics` composes those of the other axes.
"""

from __future__ import annotations

import re

#: Structures as the names of the metrics bear them → in words.
STRUCTURES = {"LV": "LV", "Myo": "myocardium", "RV": "RV", "foreground": "mean of the structures"}
#: Index of heart function → its name, unit and format.
INDICES = {"lvedv_ml": ("LV EDV", "mL"), "lvesv_ml": ("LV ESV", "mL"), "lvef_percent": ("LV EF", "% points"),
           "lv_mass_g": ("LV mass", "g"), "rvedv_ml": ("RV EDV", "mL"), "rvef_percent": ("RV EF", "% points")}
#: Indices that a network reads from the images → name and unit.
READ = {"lvef": ("LV EF", "% points"), "lvedv": ("LV EDV", "mL"), "lvesv": ("LV ESV", "mL")}
#: Ends of the Bland-Altman analysis.
ENDS = {"bias": "bias", "limit_low": "lower limit of agreement", "limit_high": "upper limit of agreement"}


#: Metrics with a name of their own.
SINGLE = {
    "trts_dice": {"title": "Dice of a segmenter trained on real slices, on samples", "short": "Dice, real to synthetic"},
    "downstream_dice_seen": {"title": "Dice of a downstream segmenter, patients of the seen vendors",
                             "short": "Dice, seen vendors"},
    "downstream_dice_unseen": {"title": "Dice of a downstream segmenter, patients of the unseen vendors",
                               "short": "Dice, unseen vendors"},
    "downstream_dice_shift": {"title": "Dice of a downstream segmenter, unseen vendors − seen vendors",
                              "short": "Dice, unseen − seen", "format": "+.3f"},
}


def words(metric: str) -> dict[str, object] | None:
    """Fields of `metrics.Description` for a metric of the utility study; None for any other."""
    if metric in SINGLE:
        return SINGLE[metric]
    if found := re.fullmatch(r"downstream_(dice|missed|hd95)_([A-Za-z]+)_(ED|ES)(_mm)?", metric):
        measure, part, phase, unit = found.groups()
        if part not in STRUCTURES or (measure == "hd95") != bool(unit):
            return None
        titles = {"dice": "Dice of a downstream segmenter", "missed": "Share missed by a downstream segmenter",
                  "hd95": "95 % Hausdorff distance of a downstream segmenter, median"}
        brief = {"dice": "Dice", "missed": "missed", "hd95": "HD95"}[measure]
        return {"title": f"{titles[measure]}, {STRUCTURES[part]} at {phase}", "short": f"{brief}, {part}, {phase}",
                **({"unit": "mm", "format": ".1f"} if unit else {})}
    if found := re.fullmatch(r"downstream_dice_on_(.+)", metric):
        return {"title": f"Dice of a downstream segmenter, patients of {found[1]}", "short": f"Dice, {found[1]}"}
    if found := re.fullmatch(rf"({'|'.join(INDICES)})_({'|'.join(ENDS)})", metric):
        name, unit = INDICES[found[1]]
        return {"title": f"{name} by a downstream segmenter, {ENDS[found[2]]}", "short": f"{name}, {ENDS[found[2]]}",
                "unit": unit, "format": "+.1f", "zero": True}
    if found := re.fullmatch(r"read_(lvef|lvedv|lvesv)_error(_weak)?", metric):
        name, unit = READ[found[1]]
        of = ", patients with a reduced EF" if found[2] else ""
        return {"title": f"{name} read from images without a segmentation, mean absolute error{of}",
                "short": f"error in {name}{', reduced EF' if found[2] else ''}", "unit": unit, "format": ".1f"}
    return None
