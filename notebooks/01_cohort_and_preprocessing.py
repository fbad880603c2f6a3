# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 01 · The cohort, and how an image becomes a training example
#
# **Question.** What does preprocessing do to cardiac MR images of different vendors, and what is left of the vendor
# afterwards?
#
# **What the review says.** Intensity normalisation is critical for cross-vendor robustness and synthesis quality (claim
# P1); so is cropping to the region of interest (P2); apical and basal slices are harder (P3). Every published study
# preprocesses in its own way, and most do not say how: here each step is a switch in `params.yaml`, and each is shown.
#
# You need no GPU and no download. Everything below runs in a few minutes on a laptop; what has been trained before is
# loaded instead.

# %% tags=["parameters"]
profile = None  # None: as params.yaml says
dataset = None

# %%
import numpy as np
import pandas as pd
import seaborn as sns
import matplotlib.pyplot as plt
from dataclasses import replace

from cmri_lib.cohort.preprocessing.pipeline import crop_report, fit_landmarks, preprocess, trace
from cmri_lib.cohort.readers.cases import read_dataset
from cmri_lib.cohort.splits import apply_split, load_split
from cmri_lib.experiments import protocol
from cmri_lib.measures.anatomy.adherence import adherence, agreement
from cmri_lib.measures.anatomy.volumes import indices_table
from cmri_lib.reporting import figures, results

study, params = protocol.open_study(profile, dataset)
figures.use_style()
print(study.dataset, study.profile)

# %% [markdown]
# ## The cohort
#
# The embedded cohort is a **phantom**: virtual patients in five groups (normal, dilated and hypertrophic
# cardiomyopathy, infarction, abnormal right ventricle; the groups of ACDC), imaged by four virtual vendors. A steady-state
# (bSSFP) sequence gives tissue with relaxation times $T_1, T_2$ and proton density $\rho$ the signal
#
# $$ S = \rho \, \sin\alpha \; \frac{1 - E_1}{1 - (E_1 - E_2)\cos\alpha - E_1 E_2} \; e^{-TE/T_2},
# \qquad E_{1,2} = e^{-TR/T_{1,2}}, $$
#
# so that a vendor's field strength, flip angle $\alpha$ and timing set the contrast, and its coils, k-space sampling,
# filters and noise the look. Some anatomies were **scanned by all four vendors**: a truth about vendor transfer that no
# cohort of real patients has. The readers treat it like any data set in the M&Ms layout; ACDC, M&Ms, M&Ms-2 and plain
# NIfTI folders are read by the same call.

# %%
np.random.seed(study.seed)  # seaborn's jitter draws from it: equal runs, equal figures
cohort = read_dataset(study.data, on_bad_case=params.cohort.on_bad_case)
split_of = apply_split(cohort.table["patient"], load_split(study.dataset, study.data))
table = cohort.table.assign(split=cohort.table["patient"].map(split_of))
print(cohort.report["status"].value_counts().to_dict())
table.groupby(["split", "vendor"])["patient"].nunique().unstack(fill_value=0)

# %% [markdown]
# The split is **by patient**, stratified by vendor and disease, and shipped as a list. *Test* patients judge; *hold-out*
# patients exist only for privacy audits; neither is ever trained on.
#
# ### One heart, four scanners
#
# The middle slice at end-diastole, straight from file. Where no anatomy was scanned twice (any real cohort), one patient per
# vendor is shown instead.

# %%
def middle_slice(image):
    return image[len(image) // 2]

scans_of = table.groupby("patient")["scan"].nunique()
twin = scans_of.idxmax() if scans_of.max() > 1 else None
pool = [c for c in cohort.cases if twin in (None, c.patient)]
by_vendor = {c.vendor: c for c in reversed(pool)}
by_vendor = dict(sorted(by_vendor.items()))
stored = {"as stored": {v: middle_slice(c.volumes["ED"].image) for v, c in by_vendor.items()}}
figures.publish_images(study, "01_vendors", stored);

# %% [markdown]
# ## Anatomy: are the patients what their labels say?
#
# Ejection fraction $EF = 1 - ESV/EDV$ and volumes by summation of discs, from the masks; wall thickness from the largest disc
# that fits into the wall. ACDC's definitions: DCM has EF < 40 % and an LV above 100 mL/m², HCM a wall above 15 mm with EF
# > 55 %, MINF EF < 40 %, RV a right ventricle above 110 mL/m² or with EF < 40 %.

# %%
indices = indices_table(cohort.cases)
columns = [c for c in indices.columns[4:] if indices[c].notna().any()]

def draw_anatomy(numbers):
    shown = [c for c in numbers.columns if c not in ("scan", "patient", "vendor", "disease")]
    figure, axes = plt.subplots(1, len(shown), figsize=(2.1 * len(shown), 3))
    for axis, column in zip(axes, shown):
        sns.stripplot(numbers, x="disease", y=column, hue="disease", size=2.5, legend=False, ax=axis)
        axis.set(title=column, ylabel="", xlabel="")
        axis.tick_params(axis="x", rotation=60)
    return figure

figures.publish(study, "01_anatomy", indices[["scan", "patient", "vendor", "disease", *columns]], draw_anatomy)
indices.groupby("disease")[columns].agg(["mean", "std"]).round(1)

# %% [markdown]
# ## Where is the heart? A detector that never sees a test label
#
# A crop centred on the ground truth flatters every later number: at the bedside there is none. A small U-Net sees the whole
# field of view at 6 mm per pixel, is trained on training patients, and places the crop of every patient from images alone.
# The masks are the judge afterwards: how far off is the centre, and is any heart cut?

# %%
settings = params.preprocess
training_cases = [c for c in cohort.cases if split_of[c.patient] == "train"]
detector = protocol.detector(study, training_cases)
crops = crop_report(cohort.cases, settings, detector).assign(split=lambda t: t["patient"].map(split_of))
crops.groupby("split")[["error_mm", "margin_mm", "lost", "padding"]].agg(["mean", "max"]).round(3)

# %%
def draw_crops(numbers):
    figure, axes = plt.subplots(1, 2, figsize=(8, 2.8))
    for axis, column, label in zip(axes, ("error_mm", "margin_mm"), ("centre off by (mm)", "heart to border of crop (mm)")):
        sns.boxplot(numbers, x="vendor", y=column, hue="split", ax=axis, fliersize=2)
        axis.set(ylabel=label)
    axes[0].legend_.remove()
    return figure

figures.publish(study, "01_crops", crops[["scan", "split", "vendor", "error_mm", "margin_mm", "lost"]], draw_crops);

# %% [markdown]
# ## Each step, one after the other
#
# Bias field (N4: the slow multiplicative shading of the coils) → crop and resample, in one interpolation → percentile clip →
# histogram standardisation (Nyúl: piecewise linear map of intensity landmarks to a standard scale learnt on training
# patients) → min–max or z-score to [−1, 1]. Here every step is switched on, whatever `params.yaml` says, to show its effect.

# %%
everything = replace(settings, bias_field=True, standardise=True)
landmarks = fit_landmarks(training_cases[:12], everything, detector)
traces = {v: trace(c, everything, detector, landmarks) for v, c in by_vendor.items()}
pictures = {v: {step: middle_slice(images[0]) for step, images in t.items()} for v, t in traces.items()}
figures.publish_images(study, "01_steps", pictures);

# %% [markdown]
# ### What is left of the vendor?
#
# The myocardium's intensity, per vendor, in units of the whole image's spread. If vendors differ, a generator learns several
# intensity scales as if they were anatomy. The number is the spread between vendors over the spread between patients, $F$: the
# one-way ANOVA statistic of the mean myocardial intensity; 1 means vendors differ no more than patients do.

# %%
variants = {"clip": {"normalise": "none"}, "min–max": {}, "z-score": {"normalise": "zscore"},
            "N4 + min–max": {"bias_field": True}, "Nyúl + min–max": {"standardise": True}}
some = [c for c in cohort.cases if split_of[c.patient] == "holdout"]
scale = fit_landmarks(training_cases[:24], settings, detector)

def myocardium(name, change):
    made = preprocess(some, replace(settings, **change), split=split_of, detector=detector, landmarks=scale)
    means = [image[0][mask == 2].mean() for image, mask in zip(made.images, made.masks)]
    rows = made.table.assign(variant=name, myocardium=means).groupby(["variant", "vendor", "patient"])["myocardium"].mean()
    return rows.reset_index()

tones = pd.concat([myocardium(name, change) for name, change in variants.items()])

# %%
from scipy.stats import f_oneway

def draw_tones(numbers):
    names = list(dict.fromkeys(numbers["variant"]))
    figure, axes = plt.subplots(1, len(names), figsize=(2.3 * len(names), 2.9))
    for axis, name in zip(axes, names):
        part = numbers[numbers["variant"] == name]
        sns.stripplot(part, x="vendor", y="myocardium", hue="vendor", palette="colorblind", legend=False, size=4, ax=axis)
        groups = [g["myocardium"] for _, g in part.groupby("vendor")]
        axis.set_title(f"{name}\n" + (f"F = {f_oneway(*groups).statistic:.1f}" if len(groups) > 1 else "one vendor"))
        axis.tick_params(axis="x", rotation=60)
        axis.set(xlabel="", ylabel="myocardial intensity" if axis is axes[0] else "")
    return figure

figures.publish(study, "01_intensity", tones, draw_tones);

# %% [markdown]
# ## The slices
#
# `preprocess` turns cases into `Slices`: images in [−1, 1], masks, and a table that says of each slice whose it is. Everything
# later starts here. One slice of six patients of each group, with its labels: LV red, myocardium yellow, RV blue.

# %%
landmarks = fit_landmarks(training_cases, settings, detector) if settings.standardise else None
slices = preprocess(cohort.cases, settings, split=split_of, detector=detector, landmarks=landmarks)
slices.save(study.work("slices"))
example = slices.where(split="train", phase="ED", level="mid")
first = example.take(~example.table.duplicated("patient").to_numpy())
by_disease = {d: first.where(disease=d).take(range(6)) for d in sorted(set(first.table["disease"]))}
figures.publish_slices(study, "01_slices", by_disease)
slices.table.groupby(["split", "phase"]).size().unstack()

# %% [markdown]
# ## The instruments
#
# Two frozen networks will judge every generator: a **segmenter** (does the image show the anatomy it was asked for?) and a
# **feature extractor** (how far are two sets of images apart?). Both learn from real training patients only, before any
# synthetic image exists, and their weights are named by a hash. A ruler must be measured first: the segmenter's Dice on real
# test patients is the **ceiling** of every later adherence score; the floor is the Dice of a real image with somebody else's mask.

# %%
segmenter = protocol.segmenter(study, slices)
spaces = protocol.feature_spaces(study, slices)
print("segmenter", segmenter.function.fingerprint, "· features", spaces[0].function.fingerprint)
test = slices.where(split="test")
seen = agreement(segmenter(test.images), test.masks, test.table)
seen = seen.merge(test.table[["scan", "vendor"]].drop_duplicates(), on="scan")
seen.groupby("vendor")[["dice_LV", "dice_Myo", "dice_RV", "dice_mean"]].mean().round(3)

# %%
rows = [row | {"ceiling": 1.0 if "dice" in row["metric"] else 0.0} for row in adherence(test, test, segmenter, seed=study.seed)]
scores = results.write_scores(study, "01_cohort", rows, system="real", family="real", conditioning="none", seeds=1)
figures.publish(study, "01_segmenter", scores, figures.score_plot)
scores[["metric", "value", "low", "high", "n", "floor"]].round(3)

# %% [markdown]
# **Reading.** The dots are the segmenter's agreement with the annotators on patients it has never seen; the dashed line is what
# somebody else's heart in the same place would score. What lies between the two is the range in which the masks of
# synthetic images can be judged at all.
#
# ## Check

# %%
assert set(split_of.values()) == {"train", "validation", "test", "holdout"}
assert crops["lost"].max() < 0.02, "the crop cuts more than 2 % of somebody's heart"
assert slices.images.min() >= -1 and slices.images.max() <= 1
dice = scores.set_index("metric").loc["dice_mean"]
assert dice["low"] > dice["floor"], "the segmenter does not tell one heart from another"

# %% [markdown]
# ## Exercise
#
# Crop around the centre of the image instead of the detected heart. How much heart is lost, and for which vendor?

# %% tags=["solution"]
centred = crop_report(cohort.cases, replace(settings, crop="centre"))
centred.groupby("vendor")[["error_mm", "lost"]].agg(["mean", "max"]).round(3)

# %% [markdown]
# ## Limits
#
# - A phantom is simpler than a patient: `benchmarks/phantom_realism.py` measures how much, on real patients if you have ACDC.
# - Slices without any label (above the base, below the apex) are left out: there is no ground truth to judge them by.
# - The segmenter is small and is itself part of the measurement. Read an adherence against its ceiling, never alone.
