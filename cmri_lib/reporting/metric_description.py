"""How a metric of the result tables is described, and the parts of which descriptions are made."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bounds:
    """What the columns `floor` and `ceiling` of a metric hold, and which of the two (`real`) real images
    score.
    """

    floor: str = ""
    ceiling: str = ""
    real: str = "floor"


NONE = Bounds()
SAMPLES = Bounds("real against real", "training images handed out")
MASKS = Bounds("real masks against real", "training masks handed out")
FOLLOWED = Bounds("another patient's mask", "real images", "ceiling")
RECOGNISED = Bounds("chance", "real images", "ceiling")
LEARNT = Bounds("nothing found", "trained on real images", "ceiling")
REMEMBERED = Bounds("real test images", "training images handed out")
NULL = Bounds("real test images")
COPIED = Bounds("real masks held out", "training masks handed out")
TRANSLATED = Bounds("the source unchanged", "the true image", "ceiling")
STACKS = Bounds("real stacks of other patients")
MAPPED = Bounds("the most similar training patient", "the true images", "ceiling")
WAYS = Bounds("real training slices of the same way")
REPEATED = Bounds("scans of one heart, or other masks", "one image per mask")


@dataclass(frozen=True)
class Description:
    """How a metric is shown.

    Attributes:
        title: full plain name, without unit.
        short: title for the head of a narrow column.
        unit: "" for shares, scores and distances in feature space.
        axis: one of `AXES`, or "".
        format: of a single number, for `format`.
        bounds: what its floor and ceiling mean.
        wide: values of different systems differ by orders of magnitude: use a logarithmic scale.
        zero: neither lower nor higher is better, but nearer to 0.
        like_real: neither lower nor higher is better, but nearer to what real images score.
    """

    title: str
    short: str = ""
    unit: str = ""
    axis: str = ""
    format: str = ".2f"
    bounds: Bounds = Bounds()
    wide: bool = False
    zero: bool = False
    like_real: bool = False


def of_axis(axis: str, bounds: Bounds, title: str, short: str = "", **more: object) -> Description:
    return Description(title, short or title, axis=axis, bounds=bounds, **more)


#: Feature spaces, the last part of a name: in titles, and in short ones where it is not the study's own.
SPACES = {"study": ("study features", ""), "classical": ("Gabor features", "Gabor"),
          "anatomy": ("segmenter's features", "segmenter"), "pixel": ("pixels", "pixels"),
          "components": ("principal components of pixels", "pixels"),
          "published": ("features of a published ResNet-50", "ResNet-50"), "copy": ("the copy detector's space", "copies")}
#: The two spaces of the headline distance have names of what they see.
DISTANCES = {"anatomy": "anatomy", "classical": "appearance"}
#: Measures of coherence along the axis of a stack: title, short title, unit, format.
COHERENCE = {
    "correlation": ("Correlation of neighbouring planes", "correlation of neighbours", "", ".2f"),
    "blood_step": ("Step of the blood's intensity between neighbouring planes", "step of blood", "grey values", ".3f"),
    "drift_mm": ("Shift of the LV's centre between neighbouring planes", "shift of LV", "mm", ".1f"),
    "roughness_LV": ("Roughness of the LV area along the axis", "roughness, LV", "% of the largest", ".1f"),
    "roughness_Myo": ("Roughness of the myocardial area along the axis", "roughness, Myo", "% of the largest", ".1f"),
    "one_cavity": ("Share of stacks with one connected LV cavity", "one cavity", "", ".2f"),
    "closed": ("Share of stacks whose LV is closed by the wall", "closed wall", "", ".2f"),
    "tapering": ("Share of stacks whose LV tapers to the apex", "tapering", "", ".2f"),
    "whole": ("Share of stacks with a whole left ventricle", "whole LV", "", ".2f"),
}
STRUCTURES = {"LV": "LV", "Myo": "myocardium", "RV": "RV", "mean": "mean of LV, myocardium and RV"}
SHAPES = {"lv_cm2": "LV area", "myo_cm2": "myocardial area", "rv_cm2": "RV area",
          "lv_myo": "LV / myocardium ratio", "rv_lv": "RV / LV ratio", "wall_mm": "wall thickness"}
