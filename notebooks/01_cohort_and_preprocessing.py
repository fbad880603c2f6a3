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
# **Question.** What does preprocessing do to cardiac MR images from different vendors? And how much
# of the vendor is left in the images afterwards?
#
# **What the review says.** Normalising intensities is critical for images from several vendors
# (claim P1). So is cropping to the heart (P2). Slices near the apex and near the base are harder
# than those in the middle (P3). Every published study preprocesses in its own way, and most do not
# say how. Here every step is a switch in `params.yaml`, and this notebook shows what each one does.
#
# **Which profile shows what.** A *profile* is a set of budgets in `params.yaml`: image size, length
# of trainings, number of samples. `smoke` only tests that everything runs. `laptop` is a workshop's
# budget: it shows how things work, not which family of generators wins. This notebook trains four
# small networks. You need no GPU and no download. A training that has been done before is loaded,
# so a second run is quick.

# %% [markdown]
# ## Method
#
# We follow a scan from its file to the square images that all later notebooks use.
#
# 1. **Read** the cohort and divide its patients into four groups, the *splits*.
# 2. **Measure the hearts** from the labels, to see whether patients are what their group says.
# 3. **Find the heart** with a small network, and cut out a square around it.
# 4. **Bring intensities to one scale**, in up to four steps. $I$ is the intensity of a pixel.
#    - *Bias field* (N4, Tustison et al., IEEE TMI 2010). A receiver coil makes nearby tissue
#      brighter, so the measured image is $I = I_\text{true} \cdot b$ with a smooth field $b$.
#      N4 estimates $b$ and divides by it.
#    - *Percentile clip.* The $p$-th percentile is the value below which $p$ % of the pixels lie.
#      Values outside two percentiles are set to them, so that a few very bright pixels do not
#      decide the scale.
#    - *Standardisation* (Nyúl et al., IEEE TMI 2000). The percentiles 10, 20, …, 90 of the image,
#      and its two ends, are moved to the mean places that they have in the training patients, with
#      straight lines in between.
#    - *Normalisation* to $[-1, 1]$. Min–max: $2\,(I - I_{\min})/(I_{\max} - I_{\min}) - 1$.
#      Or z-score: $(I - \text{mean}) / (3 \cdot \text{standard deviation})$, cut at $\pm 1$.
# 5. **Train the measuring instruments** of the study, and measure how good they are themselves.
#
# What is measured: how far the crop is from the heart, how much of the heart it loses, how strongly
# intensities depend on the vendor, and how well the segmenter agrees with the annotators.

# %% tags=["parameters"]
profile = None  # None: as params.yaml says
dataset = None

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from scipy.stats import f_oneway

from cmri_lib.cohort import requirements
from cmri_lib.cohort.cardiac_function import indices_table
from cmri_lib.cohort.preprocessing.pipeline import crop_report, fit_landmarks, preprocess, trace
from cmri_lib.cohort.readers.cases import read_dataset
from cmri_lib.cohort.slices import SPLITS
from cmri_lib.cohort.splits import apply_split, load_split, part_of_cohort

# %%
from cmri_lib.config.study import open_study
from cmri_lib.experiments import instruments
from cmri_lib.measures.anatomy.adherence import adherence, agreement
from cmri_lib.reporting import figures, plots, results

# %% [markdown]
# ## The cohort
#
# The next cell opens the study, reads every scan of the cohort, and looks up the split of every
# patient. *Scan* means one examination; a patient may have several.
#
# The cohort that comes with this repository is a **phantom**: virtual patients, drawn and imaged by
# a simulator. There are five groups, those of the ACDC challenge: NOR (normal), DCM (dilated
# cardiomyopathy: a large, weak left ventricle), HCM (hypertrophic cardiomyopathy: a thick wall),
# MINF (myocardial infarction: part of the wall is dead) and RV (an abnormal right ventricle). Four
# virtual *vendors*, that is, makers of scanners, image them.
#
# Real cohorts are read by the same call: ACDC, M&Ms, M&Ms-2, or any folder of NIfTI files.

# %%
study = open_study(profile, dataset)
params, settings = study.params, study.params.preprocess
figures.use_style()
np.random.seed(study.seed)  # seaborn's jitter draws from it: equal runs give equal figures
cohort = read_dataset(study.data, on_bad_case=params.cohort.on_bad_case)
split_of = apply_split(cohort.table["patient"], load_split(study.dataset, study.data))
cohort = cohort.of_patients(part_of_cohort(cohort.table, split_of, params.cohort.share))
training_cases = [case for case in cohort.cases if split_of[case.patient] == "train"]
print("cohort", study.dataset, "· profile", study.profile)
print("scans:", cohort.report["status"].value_counts().to_dict())

# %% [markdown]
# Not every cohort has what every experiment needs: some have one vendor, a handful of patients, or
# labels of one structure. The `outlook` says what this cohort allows, in all notebooks. The next
# cell prints what is left out here. A notebook that cannot run at all says so before it trains.

# %%
outlook = requirements.outlook(requirements.Contents.of_cases(cohort.cases, split_of))
outlook.need("networks trained on this cohort")
print(outlook.left_out("01"))

# %% [markdown]
# **What a split is for.** A network can memorise its training images. Whether it has learnt
# anything else shows only on patients that it has never seen. So every patient belongs to one
# split:
#
# | split | what its patients are used for |
# |---|---|
# | train | networks learn from them |
# | validation | settings are chosen on them |
# | test | results are reported on them, once settings are fixed |
# | holdout | never learnt from: the other real patients in audits of privacy and in comparisons |
#
# The split is **by patient**: all slices of a person go together, because two slices of one heart
# look alike. It is balanced over vendors and groups, and stored as a list, so that everybody
# trains and tests on the same people. The table counts patients. Patients who were scanned by
# several vendors count once in each column, and are all in *test*.

# %%
table = cohort.table.assign(split=cohort.table["patient"].map(split_of))
counts = table.groupby(["split", "vendor"])["patient"].nunique().unstack(fill_value=0)
counts.reindex([split for split in SPLITS if split in counts.index])

# %% [markdown]
# ### One heart, slice by slice
#
# The scanner images the heart in parallel planes. A **short-axis slice** (SAX) lies across the long
# axis of the left ventricle, so that the ventricle is cut like a carrot and appears as a ring. A
# scan has about ten such slices, 8 to 10 mm apart, from the *base* (the wide end, at the valves) to
# the *apex* (the tip).
#
# Each slice is imaged at many moments of the heartbeat. Two of them are annotated:
#
# - **ED**, end-diastole: the heart is full, the ventricles are largest;
# - **ES**, end-systole: the heart has contracted, the ventricles are smallest.
#
# Experts outline three structures; these are the *labels*. **LV** is the cavity of the left
# ventricle, which pumps blood into the body. The **myocardium** (Myo) is the muscle around it.
# **RV** is the cavity of the right ventricle, which pumps blood into the lungs. A *mask*, or label
# map, says for every pixel which of the three it shows, if any. In the phantom, the simulator
# knows.
#
# The next cell shows one training patient. It cuts out the centre of the image, with fine pixels,
# for a good look. How the rest of the study finds the heart comes further below.

# %%
shown = replace(settings, crop="centre", size=128, standardise=False)
stack = preprocess(training_cases[:1], shown, split=split_of)
stack = stack.take(np.argsort(-stack.table["height"].to_numpy(), kind="stable"))
names = {"ED": "ED (full), base to apex", "ES": "ES (contracted), base to apex"}
rows = {names[phase]: stack.where(phase=phase) for phase in settings.phases}
figures.publish_slices(study, "01/stack", rows, title="Short-axis slices of one training patient "
                       "with labels: LV red, myocardium yellow, RV blue");

# %% [markdown]
# **How to read it.** The yellow line is the outer border of the myocardium, the red line its inner
# border. Compare the two rows: from ED to ES the red area shrinks, and the wall between red and
# yellow gets thicker. That is a heartbeat. Towards the apex everything becomes small, and the RV
# disappears. This is why the review calls apical slices hard.
#
# ### One heart, four scanners
#
# The scanner decides how an image looks: how bright blood is beside muscle, how noisy and how sharp
# everything is. In the phantom, some patients were **scanned by all four vendors**, which the
# public cohorts do not offer: here we know exactly what a change of vendor does to an image.
#
# A balanced steady-state (bSSFP) sequence, the usual one for moving hearts, gives a tissue this
# signal $S$ (tissue: relaxation times $T_1$, $T_2$, proton density $\rho$; scanner: flip angle
# $\alpha$, repetition time $TR$, echo time $TE$):
#
# $$ S = \rho \, \sin\alpha \; \frac{1 - E_1}{1 - (E_1 - E_2)\cos\alpha - E_1 E_2} \; e^{-TE/T_2},
# \qquad E_{1,2} = e^{-TR/T_{1,2}}. $$
#
# A vendor's field strength, flip angle and timing set the contrast. Its coils, its sampling, its
# filters and its noise set the look. The next cell shows the middle slice at ED, as it is stored.
# A cohort without repeated scans shows one patient of each vendor instead.

# %%
def middle_slice(volume):
    return volume[len(volume) // 2]

scans_of = table.groupby("patient")["scan"].nunique()
twin = scans_of.idxmax() if scans_of.max() > 1 else None
candidates = [case for case in cohort.cases if twin in (None, case.patient)]
by_vendor = {case.vendor: case for case in reversed(candidates)}
by_vendor = {vendor: by_vendor[vendor] for vendor in sorted(by_vendor)}
stored = {vendor: middle_slice(case.volumes["ED"].image) for vendor, case in by_vendor.items()}
whose = "One patient, scanned by every vendor" if twin else "One patient of each vendor"
figures.publish_images(study, "01/vendors", {"as stored": stored},
                       title=f"{whose}: middle slice at ED, before any preprocessing");

# %% [markdown]
# **How to read it.** The anatomy is the same in every picture of the phantom; only the scanner
# differs. A generator that is trained on all of them has to learn several looks of one heart.
#
# ## Anatomy: are the patients what their group says?
#
# Clinicians summarise a heart in a few numbers. They come from the masks:
#
# - *EDV* and *ESV*, the volumes at ED and ES in mL: area of the cavity on each slice × distance
#   between slices, summed over slices. An *index* is a volume per square metre of body surface.
# - *Ejection fraction*, $EF = 1 - ESV/EDV$: the share of the blood that one beat pumps out.
# - *LV mass*: the volume of the myocardium at ED × 1.05 g/mL.
# - *Wall thickness*: the diameter of the largest disc that fits into the myocardium at ED.

# %%
indices = indices_table(cohort.cases)
about = ["scan", "patient", "vendor", "disease"]
known = indices.notna() & (indices != 0)  # what nobody has labelled measures 0 everywhere
measured = [c for c in indices.columns if c not in about and known[c].any()]
group_means = indices.groupby("disease")[measured].mean()
group_means.round(1)

# %% [markdown]
# The table gives the mean of each group. The figure shows every patient. Dashed lines are limits
# that ACDC uses to define its groups (Bernard et al., IEEE TMI 2018): DCM has an LV EF below 40 %
# and an LV EDV index above 100 mL/m²; HCM has a wall above 15 mm and a normal EF; MINF has an LV EF
# below 40 %; RV has an RV EDV index above 110 mL/m² or an RV EF below 40 %.

# %%
full_names = {"LV EF (%)": "LV ejection fraction (%)", "LV EDV (mL)": "LV volume at ED (mL)",
              "LV EDV index (mL/m²)": "LV volume at ED,\nper body surface (mL/m²)",
              "wall (mm)": "Largest wall thickness (mm)",
              "RV EDV index (mL/m²)": "RV volume at ED,\nper body surface (mL/m²)",
              "RV EF (%)": "RV ejection fraction (%)"}
acdc_limits = {"LV EF (%)": 40, "LV EDV index (mL/m²)": 100, "wall (mm)": 15,
               "RV EDV index (mL/m²)": 110, "RV EF (%)": 40}

# %%
def draw_anatomy(numbers):
    across = min(4, len(measured))
    down = -(-len(measured) // across)
    height = 0.7 + 0.22 * numbers["disease"].nunique()
    figure, axes = plt.subplots(down, across, figsize=(2.7 * across, height * down),
                                sharey=True, squeeze=False)
    for axis in axes.flat[len(measured):]:
        axis.set_visible(False)
    for axis, column in zip(axes.flat, measured):
        sns.stripplot(numbers, x=column, y="disease", hue="disease", size=2.5, legend=False,
                      ax=axis)
        axis.set(xlabel=full_names.get(column, column), ylabel="")
        if column in acdc_limits:
            axis.axvline(acdc_limits[column], ls="--", lw=1, color=figures.REAL_COLOUR)
    return figure

# %%
figures.publish(study, "01/anatomy", indices[about + measured], draw_anatomy, title=
                "Clinical measures of every scan by group; dashed: limits in the ACDC definitions");

# %% [markdown]
# **How to read it.** Look for the groups that lie beyond a dashed line: DCM and MINF should do so
# by their weak LV, DCM by its large LV, HCM by its thick wall, RV by its large or weak right
# ventricle. A group that does not differ from the others in any panel could not be recognised by
# these numbers in synthetic hearts either, however good the generator is.
#
# ## Where is the heart? A detector that never sees a test label
#
# The scanner's field of view is much wider than the heart. A generator that had to draw all of it
# would spend most of its effort on the rest of the chest. So we cut out a square around the heart.
#
# **Why a detector?** One could centre the square on the annotated heart. But a new patient has no
# annotation, so results on such crops would be too good to be true. Instead, a small network, the
# **detector**, looks at the whole image and finds the heart. It is a U-Net (a network that marks
# every pixel as heart or not), it sees 6 mm pixels, and it learns from training patients only. For
# every other patient it gets the image alone.
#
# The next cell trains it, or loads it. Then the masks are used, for the first time, to measure how
# well it does. For every scan, `crop_report` gives:
#
# - `error_mm`: distance from the centre of the crop to the centre of the heart;
# - `margin_mm`: from the outermost pixel of the heart to the border (negative: the heart is cut);
# - `lost`: share of the heart that lies outside the crop;
# - `padding`: share of the crop that lies outside the stored image;
# - `confidence`: how sure the detector is of its answer, from 0 to 1, and `placed_by`: who placed
#   the crop.

# %%
detector = instruments.detector(study, training_cases)
crops = crop_report(cohort.cases, settings, detector)
crops["split"] = crops["patient"].map(split_of)
crops.groupby("split")[["error_mm", "margin_mm", "lost", "padding"]].agg(["mean", "max"]).round(3)

# %% [markdown]
# A detector can be wrong on scans unlike those that it has learnt from. Its confidence is low where
# nothing looks like a heart, or where several places do. Below a threshold it is not followed, and
# the crop is placed around the centre of the image. The next table counts both kinds.

# %%
placed = crops.groupby(["split", "placed_by"])["confidence"]
placed.agg(scans="size", lowest="min", mean="mean").round(2)

# %%
def draw_crops(numbers):
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.2))
    names = {"error_mm": "Centre of the crop to centre of the heart (mm)",
             "margin_mm": "Heart to border of the crop (mm)"}
    order = [split for split in SPLITS if split in set(numbers["split"])]
    for axis, (column, name) in zip(axes, names.items()):
        sns.boxplot(numbers, x="vendor", y=column, hue="split", hue_order=order, fliersize=2,
                    legend=axis is axes[1], ax=axis)
        axis.set(ylabel=name, xlabel="")
    sns.move_legend(axes[1], "center left", bbox_to_anchor=(1, 0.5), title="")
    return figure

columns = ["scan", "split", "vendor", "error_mm", "margin_mm", "lost"]
figures.publish(study, "01/crops", crops[columns], draw_crops,
                title="How well the detector places the crop, by vendor and split");

# %% [markdown]
# **How to read it.** Left: lower is better. Compare *test* with *train*: if they are alike, the
# detector has learnt what a heart looks like, and not these patients. Right: anything above zero
# means that the whole heart is inside. An error of a few millimetres does no harm as long as the
# margin stays positive, which is why the crop is larger than the heart.
#
# ## Each preprocessing step, one after the other
#
# Now the steps of the Method, in their order: bias field, crop (with resampling to one pixel size,
# in a single interpolation, because each interpolation blurs), clip, standardise, normalise.
#
# `params.yaml` may switch off some of them. Here all are switched on, to show what each does.
# Standardisation needs *landmarks*, the mean percentiles of the training patients; a few training
# patients are enough for this picture. The second cell prints the range of values after each step.

# %%
everything = replace(settings, bias_field=True, standardise=True)
a_few = training_cases[::6 * params.cohort.compare_every]
landmarks = fit_landmarks(a_few, everything, detector)
pictures = {}
for vendor, case in by_vendor.items():
    steps = trace(case, everything, detector, landmarks)
    pictures[vendor] = {step: middle_slice(volumes[0]) for step, volumes in steps.items()}
figures.publish_images(study, "01/steps", pictures,
                       title="The same slices after each preprocessing step, left to right");

# %%
ranges = [{"vendor": vendor, "step": step, "range": f"{image.min():.1f} to {image.max():.1f}"}
          for vendor, images in pictures.items() for step, image in images.items()]
order = list(dict.fromkeys(row["step"] for row in ranges))
pd.DataFrame(ranges).pivot(index="vendor", columns="step", values="range")[order]

# %% [markdown]
# **How to read it.** Every picture is shown from its own darkest to its own brightest value, so
# look at the structure, and read the values from the table. *Bias field*: the brightness should be
# more even across the image than in the scan. *Crop*: the heart fills the picture, and one pixel
# has the same size in mm for every vendor. *Clip*: the rest gains contrast, because a few very
# bright pixels no longer set the scale. *Standardise* and *normalise* change the range of values:
# after them, every vendor should use the same one.
#
# ### What is left of the vendor?
#
# The myocardium is the same kind of muscle in every patient. If its grey value differs between
# vendors, a generator learns several intensity scales as if they were anatomy. So for each way of
# preprocessing, we take the mean grey value of the myocardium of each patient, and compare two
# spreads: that *between* vendors, and that *within* a vendor, between its patients.
#
# - $F$ is the ratio of the two (one-way analysis of variance). Without any influence of the vendor
#   it is about 1. It grows with the number of patients.
# - $\eta^2$ is the share of the variance that the vendor explains. It does not depend on the number
#   of patients, except that chance alone gives (vendors − 1) / (patients − 1).
#
# Only training patients are used here, because such a comparison guides the choice of settings. One
# half gives the landmarks of the standard scale, the other half is measured (in the profile `smoke`
# only some of it). This is the slowest cell of the notebook, because N4 takes about a second per
# scan.

# %%
variants = {"clip only": {"normalise": "none"}, "min–max": {"normalise": "minmax"},
            "z-score": {"normalise": "zscore"},
            "N4, min–max": {"bias_field": True, "normalise": "minmax"},
            "Nyúl, min–max": {"standardise": True, "normalise": "minmax"}}
standard_scale = fit_landmarks(training_cases[::2], settings, detector)
compared = training_cases[1::2 * params.cohort.compare_every]

def myocardium(name):
    chosen = replace(settings, bias_field=False, standardise=False)
    made = preprocess(compared or training_cases, replace(chosen, **variants[name]), split=split_of,
                      detector=detector, landmarks=standard_scale)
    means = [image[0][mask == 2].mean() if (mask == 2).any() else np.nan
             for image, mask in zip(made.images, made.masks)]
    found = made.table.assign(variant=name, myocardium=means)
    return found.groupby(["variant", "vendor", "patient"], as_index=False)["myocardium"].mean()

tones = pd.concat([myocardium(name) for name in variants])

# %%
def vendor_effect(part):
    """F and the share of the variance explained, over vendors with at least two patients."""
    groups = [g["myocardium"].dropna() for _, g in part.groupby("vendor")]
    groups = [g for g in groups if len(g) > 1]
    if len(groups) < 2:
        return {"F": np.nan, "explained by vendor": np.nan, "by chance alone": np.nan}
    f, patients, more = f_oneway(*groups).statistic, sum(map(len, groups)), len(groups) - 1
    explained = f * more / (f * more + patients - len(groups))
    return {"F": f, "explained by vendor": explained, "by chance alone": more / (patients - 1)}

by_variant = dict(list(tones.groupby("variant")))
effects = pd.DataFrame({name: vendor_effect(by_variant[name]) for name in variants}).T
effects.round(2)

# %%
def draw_tones(numbers):
    names = list(dict.fromkeys(numbers["variant"]))
    height = 1.1 + 0.3 * numbers["vendor"].nunique()
    figure, axes = plt.subplots(1, len(names), figsize=(2.2 * len(names), height), sharey=True)
    for axis, name in zip(axes, names):
        part = numbers[numbers["variant"] == name]
        share = vendor_effect(part)["explained by vendor"]
        sns.stripplot(part, x="myocardium", y="vendor", hue="vendor", size=3.5, legend=False,
                      palette="colorblind", ax=axis)
        axis.set_title(name if np.isnan(share) else f"{name}\n{share:.0%} explained by vendor")
        axis.set(xlabel="grey value" if name != names[0] else "scanner units", ylabel="")
    return figure

figures.publish(study, "01/intensity", tones, draw_tones,
                title="Mean grey value of the myocardium of each patient, by vendor");

# %% [markdown]
# **How to read it.** One dot is one patient. Where the rows of dots cover the same range, this grey
# value says nothing about the vendor; where they are shifted, it does. The first panel has no
# normalisation. Compare its share with those of the others: the more it falls, the more of the
# vendor that step removes. A share near the last column of the table could be chance. Noise and
# sharpness stay in any case, because no rescaling of grey values can change them.
#
# ## The slices
#
# `preprocess` does all of this for the whole cohort. The result is a `Slices`: images in $[-1, 1]$,
# masks, and a table with one row per slice that says whose it is. All later notebooks start from
# this object, and what generators make is of the same type. Slices without any label are left out.
# The next cell makes it and saves it.

# %%
landmarks = fit_landmarks(training_cases, settings, detector) if settings.standardise else None
slices = preprocess(cohort.cases, settings, split=split_of, detector=detector, landmarks=landmarks)
slices.save(study.work("slices"))
print(f"{len(slices)} slices of {slices.size} × {slices.size} pixels,",
      f"{settings.field_of_view / slices.size:.1f} mm per pixel")
per_split = slices.table.groupby(["split", "phase"]).size().unstack(fill_value=0)
per_split.reindex([split for split in SPLITS if split in per_split.index])

# %% [markdown]
# The next cell picks one slice of each training patient, the one nearest to the middle of the
# ventricle, at ED where there is one. It shows up to six patients of each group.

# %%
training = slices.where(split="train")
off_middle = (training.table["height"] - 0.5).abs()
order = training.table.assign(late=training.table["phase"] != "ED", off=off_middle)
order = order.sort_values(["late", "off"], kind="stable").drop_duplicates("patient").sort_index()
examples = training.take(order.index)
by_disease = {}
for disease in sorted(set(examples.table["disease"])):
    group = examples.where(disease=disease)
    by_disease[disease] = group.take(range(min(6, len(group))))
figures.publish_slices(study, "01/slices", by_disease,
                       title="A middle slice of training patients of each group, with labels");

# %% [markdown]
# **How to read it.** Each row is a group, each picture another patient. This is what networks will
# see. The heart should be near the middle of every picture, and whole. Compare rows: DCM should
# have a wide LV with a thin wall, HCM a narrow LV with a thick wall, RV a large right ventricle.
#
# ## The instruments
#
# Later notebooks measure every generator with the same frozen networks:
#
# - The **segmenter** labels LV, myocardium and RV in an image. It answers: does a synthetic image
#   show the anatomy that it should show?
# - A **second segmenter**, of another architecture, answers the same question once more: does a
#   sample merely please one network?
# - The **feature extractor** turns an image into a short list of numbers, its *features*. It
#   answers: how far apart are two sets of images?
#
# All learn from real training patients only, before any synthetic image exists, and are then
# frozen: nothing changes them any more. The next cell trains or loads them. The printed
# *fingerprint* is a short code computed from the weights; equal fingerprints mean equal
# instruments.

# %%
segmenter = instruments.segmenter(study, slices)
second_segmenter = instruments.second_segmenter(study, slices)
spaces = instruments.feature_spaces(study, slices)
print("segmenter", segmenter.function.fingerprint)
print("second segmenter", second_segmenter.function.fingerprint)
print("feature extractor", spaces[0].function.fingerprint, f"· {spaces[0].dimension} features")

# %% [markdown]
# An instrument must be tested before it is used. So the segmenter labels the real images of test
# patients, and its labels are compared with those of the annotators. Two measures are used.
# **Dice** is the overlap of two areas $A$ and $B$, from 0 (none) to 1 (equal):
#
# $$ \text{Dice} = \frac{2\,|A \cap B|}{|A| + |B|}. $$
#
# The **95 % Hausdorff distance** (HD95) is the distance in mm from one outline to the other, below
# which 95 % of the points lie. Both are computed per volume: all slices of one patient and phase
# together. The first table gives Dice by vendor.

# %%
test = slices.where(split="test")
seen = agreement(segmenter(test.images), test.masks, test.table)
seen = seen.merge(test.table[["scan", "vendor"]].drop_duplicates(), on="scan")
dice_columns = {"dice_LV": "Dice, LV", "dice_Myo": "Dice, myocardium", "dice_RV": "Dice, RV",
                "dice_mean": "Dice, mean of the three"}
seen.groupby("vendor")[list(dice_columns)].mean().rename(columns=dice_columns).round(3)

# %% [markdown]
# The second table gives Dice by level: the thirds of the ventricle from apex to base. This is a
# first look at claim P3.

# %%
levels = {}
for level in [level for level in settings.levels if level in set(test.table["level"])]:
    part = test.where(level=level)
    found = agreement(segmenter(part.images), part.masks, part.table)
    levels[level] = found[list(dice_columns)].mean()
by_level = pd.DataFrame(levels).T.rename(columns=dice_columns)
by_level.round(3)

# %% [markdown]
# The second segmenter should be about as good. If it is much worse, its opinion of samples counts
# less.

# %%
seen_again = agreement(second_segmenter(test.images), test.masks, test.table)
both = {"segmenter": seen, "second segmenter": seen_again}
pd.DataFrame({name: found[list(dice_columns)].mean() for name, found in both.items()}).T.rename(
    columns=dice_columns).round(3)

# %% [markdown]
# The last table has all scores, with 95 % intervals from a bootstrap over patients: patients are
# drawn again and again with replacement, and the score is computed each time. *Floor* is what the
# segmenter's labels score against the mask of **another** patient, of the same phase and height:
# some heart, but not this one.

# %%
scored = bool(outlook["segmenter on real test patients"])
rows = adherence(test, test, segmenter, seed=study.seed) if scored else []
perfect = [row | {"ceiling": 1.0 if "dice" in row["metric"] else 0.0} for row in rows]
scores = results.write_scores(study, "01_cohort", perfect, system="real", family="real",
                              conditioning="none", seeds=1)
figures.publish(study, "01/segmenter", scores.drop(columns="ceiling"), plots.score_plot,
                title="The segmenter on real images of test patients")
scores[["metric", "value", "low", "high", "n", "floor"]].round(3)

# %% [markdown]
# **How to read it.** The dot is the agreement with the annotators, the bar its interval, `n` the
# number of patients. The dash-dotted line is the floor. What lies between the two is the range in
# which the masks of synthetic images can be measured at all: a generator cannot score much above
# the dot, and one at the line ignores its mask.
#
# ## Check
#
# The next cell stops the notebook if a step went wrong: a split is missing, the crop cuts a heart,
# images leave their range, or the segmenter cannot tell one heart from another.

# %%
assert set(split_of.values()) <= set(SPLITS) and training_cases
assert crops["lost"].max() < 0.02, "the crop cuts more than 2 % of somebody's heart"
assert slices.images.min() >= -1 and slices.images.max() <= 1
if scored:
    dice = scores.set_index("metric").loc["dice_mean"]
    sure = dice["low"] if dice["n"] >= 10 else dice["value"]  # few patients: a wide interval
    assert sure > dice["floor"], "the segmenter does not tell one heart from another"

# %% [markdown]
# ## Exercises
#
# ### 1. A crop without a detector
#
# Crop around the centre of the image instead of the detected heart. How much heart is lost, and
# for which vendor? Which column of `crop_report` tells you how close it was?

# %% tags=["solution"]
centred = crop_report(cohort.cases, replace(settings, crop="centre"))
by_crop = {"detector": crops, "centre of the image": centred}
worst = pd.concat(by_crop, names=["crop around"]).groupby(["vendor", "crop around"]).agg(
    mean_error_mm=("error_mm", "mean"), worst_error_mm=("error_mm", "max"),
    least_margin_mm=("margin_mm", "min"), most_lost=("lost", "max"))
worst.round(4)
# A negative margin means that somebody's heart is cut, and `most_lost` says by how much.

# %% [markdown]
# ### 2. The worst volume, slice by slice
#
# Take the test volume with the lowest mean Dice. Compute the Dice of its whole heart (all labels
# together) from the formula, for every slice, and then for all slices at once. Where is the
# segmenter wrong? And why is the Dice of the volume not the mean of those of its slices?

# %% tags=["solution"]
for one in seen.nsmallest(1, "dice_mean").itertuples():
    poor = test.where(scan=one.scan, phase=one.phase)
    labels = segmenter(poor.images)
    given, found = poor.masks > 0, labels > 0
    both, sizes = (given & found).sum((1, 2)), given.sum((1, 2)) + found.sum((1, 2))
    by_slice = poor.table[["height", "level"]].assign(
        pixels=given.sum((1, 2)), dice=2 * both / sizes)
    print(by_slice.sort_values("height").round(2).to_string(index=False))
    print(f"{one.scan}, {one.phase}: at once {2 * both.sum() / sizes.sum():.2f}, "
          f"mean of the slices {(2 * both / sizes).mean():.2f}")
    figures.slice_grid({"annotated": poor, "segmenter": replace(poor, masks=labels)})
# All at once, a slice counts by its pixels: a small slice near the apex can be missed altogether
# and hardly lowers the Dice of the volume. In the mean it counts as much as any other. The more the
# slices of a heart differ in size and in Dice, the further apart the two are.

# %% [markdown]
# ### 3. The vendor, or chance?
#
# How much of the grey value would the vendor "explain" if vendors meant nothing? Hand the vendors
# out at random among the patients of the variant "min–max", some hundred times, and compute
# `vendor_effect` each time. Does the mean of the shares agree with the formula (vendors − 1) /
# (patients − 1)? How often is the share as large as the one that was found (the *p-value*)?

# %% tags=["solution"]
part = tones[tones["variant"] == "min–max"].dropna(subset="myocardium")
share, shuffled = vendor_effect(part), np.random.default_rng(study.seed)
by_chance = np.array([
    vendor_effect(part.assign(vendor=shuffled.permutation(part["vendor"])))["explained by vendor"]
    for _ in range(300 if np.isfinite(share["F"]) else 0)])
if len(by_chance):
    p = (1 + (by_chance >= share["explained by vendor"]).sum()) / (1 + len(by_chance))
    print(f"found {share['explained by vendor']:.0%}; by chance {by_chance.mean():.0%}, "
          f"by the formula {share['by chance alone']:.0%}; p = {p:.3f}")
else:
    print("too few patients of a vendor in this cohort or profile")
# The two shares by chance agree. With few patients they are far from 0: so a share of the vendor
# says nothing until it is compared with what shuffled vendors explain.

# %% [markdown]
# ## Summary
#
# The next cell prints the numbers of this run.

# %%
kept = crops[crops["split"] == "test"]
for column in [column for column in ("LV EF (%)", "RV EF (%)") if column in measured][:1]:
    means = group_means[column].sort_values()
    print(f"1. {column[:2]} ejection fraction, mean: {means.index[0]} {means.iloc[0]:.0f} %, "
          f"{means.index[-1]} {means.iloc[-1]:.0f} %")
print(f"2. Crop of {len(kept)} test scans: centre off by {kept['error_mm'].mean():.1f} mm on "
      f"average; the worst one loses {kept['lost'].max():.2%} of the heart; placed by",
      ", ".join(f"{who} ({n})" for who, n in kept["placed_by"].value_counts().items()))

# %%
explained = effects["explained by vendor"].dropna()
print("3. Share of the myocardium's grey explained by the vendor:",
      "; ".join(f"{name}: {share:.0%}" for name, share in explained.items()) or "one vendor only")
if scored:
    print(f"4. Segmenter, Dice on test patients: {dice['value']:.2f} [{dice['low']:.2f}, "
          f"{dice['high']:.2f}]; with another patient's mask {dice['floor']:.2f}")
print("5. Dice by level:",
      ", ".join(f"{level} {value:.2f}" for level, value in by_level.iloc[:, -1].items()))

# %% [markdown]
# 1. **Groups differ in the numbers that define them.** The wider the gap of line 1, the easier it
#    is to recognise a group in synthetic hearts later.
# 2. **The crop needs no annotation of test patients.** Line 2 should lose nothing. The centre may
#    be off by some millimetres: exercise 1 shows what the alternative costs.
# 3. **Normalisation removes part of the vendor** (P1), if the first share of line 3 is larger than
#    the others. What is left is not a matter of a common scale of grey values.
# 4. **The segmenter's own Dice limits what can be measured.** Read every later Dice between the two
#    numbers of line 4.
# 5. **Level matters** (P3) if apical or basal slices have a lower Dice than those in the middle.
#
# ## Limits
#
# - A phantom is simpler than a patient: `benchmarks/phantom_realism.py` measures how much, on real
#   patients if you have ACDC.
# - Slices without any label (above the base, below the apex) are left out: there is no ground truth
#   to compare them with.
# - The segmenter is small and is itself part of the measurement. Always read a Dice beside the
#   segmenter's own Dice on real images, never alone.
# - One grey value of one tissue is not all of the vendor. Noise, sharpness and contrast differ too,
#   and a network may recognise a vendor by them.
