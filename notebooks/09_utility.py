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
# # 09 · Utility: are synthetic hearts good for anything?
#
# **Which profile shows what.** The `smoke` profile only checks that the notebook runs; its
# numbers mean nothing. The `laptop` profile is a workshop's budget: it shows how things work,
# not what samples are worth. Draw conclusions only from the larger profiles of `params.yaml`.
#
# **Question.** Somebody wants to train a segmenter and has few labelled patients. Do samples of
# a generator help? A generator that was trained on the same few patients knows nothing but these.
#
# **What the review says.** Five claims, called M1, T1, T2, T5 and T6 in this study:
#
# - T1: training on samples alone comes within 1 % Dice of training on real images.
# - T2: real + synthetic gains up to 4 % Dice and 40 % of the Hausdorff distance, and 5–10 % Dice
#   when labels are few.
# - T5: too many samples hurt; a few targeted samples of a pathology help more.
# - T6: synthesis of a pathology helps where the disease is rare.
# - M1: masks as conditions improve downstream use. (Notebook 07 makes the primary test of M1.)
#
# The review compares published papers. In many of them the generator had seen more patients than
# the segmenter, or the segmenter of real images had no augmentation. Both make samples look useful.

# %% [markdown]
# ## Method
#
# ### Terms
#
# - **Downstream** is what happens with the samples after they were drawn: here, a segmenter of
#   the left ventricular cavity (LV), the myocardium (Myo) and the right ventricular cavity (RV).
# - An **arm** is one way to compose a training set. All arms have the same network, the same
#   augmentation and the same number of optimiser steps. Only the training set differs.
# - A **student** is the segmenter that was trained in an arm. Students of several seeds can share
#   an arm.
# - **TSTR** (train on synthetic, test on real): a student of samples alone. **TRTS** (train on
#   real, test on synthetic) is the reverse. It is a check of the samples.
# - **Real + 2 ×**: all real slices of the arm's patients, and twice as many samples.
# - **Pseudo-labels** are the masks that a segmenter draws in images without labels. Samples of an
#   unconditional generator need them. Here they come from the student of the same real slices.
# - **ED** and **ES** are the phases in which the heart is widest and most contracted. **EDV** and
#   **ESV** are the volumes then, **EF** is the ejection fraction $(EDV - ESV) / EDV$.

# %% [markdown]
# ### Protocol
#
# 1. An arm may use a share of the training patients. **Nothing of the other patients leaks in**:
#    the generator, what it was pretrained from, the generator of masks and the segmenter that makes
#    pseudo-labels have learnt from the same patients. The code refuses an arm that breaks this
#    rule, before anything is trained. The section *Check* plants a test patient, who is refused.
# 2. Every arm is trained for the same number of steps, so more samples do not mean more training.
#    No arm is stopped by its test score.
# 3. All arms have the same augmentation. Samples must help beyond what augmentation gives.
# 4. Test images are cropped as in notebook 01, where the detector finds the heart. Their own labels
#    take no part in this.
# 5. A patient with several scans counts once: his or her first scan is used.
#
# ### What is measured
#
# - **Dice** $2|A \cap B| / (|A| + |B|)$ of whole volumes in 3D, as the mean of LV, Myo and RV. The
#   background does not count.
# - **HD95**, the 95 % Hausdorff distance between surfaces in mm, where a structure was found at
#   all. The **share of missed structures** is counted apart.
# - **Heart function**: EF, volumes and mass against the truth. The **bias** is the mean error. The
#   **limits of agreement** hold 95 % of the errors (Bland & Altman 1999).
#
# Arms are compared on the same test patients. Intervals are 95 % bootstrap intervals over patients,
# and over seeds where an arm was trained with several.

# %% tags=["parameters"]
profile = None  # None: as params.yaml says
dataset = None

# %%
import numpy as np
import pandas as pd

from cmri_lib.cohort import requirements
from cmri_lib.cohort.slices import concatenate
from cmri_lib.config.study import open_study
from cmri_lib.errors import SplitError
from cmri_lib.experiments import arms
from cmri_lib.experiments.arm_samples import one_scan_each
from cmri_lib.experiments.ejection_arms import (
    REAL, WEAK, ejection_errors, ejection_rows, mean_error, weak)
from cmri_lib.experiments.evaluator import Evaluator
from cmri_lib.experiments.instruments import load_slices, segmenter
from cmri_lib.experiments.training import train_or_load
from cmri_lib.experiments.utility import (
    NETWORK, arm_rows, draw_samples, group_rows, train_arm, train_arms)

# %%
from cmri_lib.measures.anatomy.validity import Ranges, validity_of_samples
from cmri_lib.measures.statistics.bootstrap import MINIMUM
from cmri_lib.measures.statistics.comparison import compare
from cmri_lib.measures.utility.baselines import BASELINES
from cmri_lib.measures.utility.heart_volumes import bland_altman
from cmri_lib.measures.utility.volumetric import FOREGROUND, arm_difference, mean_dice
from cmri_lib.reporting import (
    claims, figures, primary_tests, recipe, results, utility_plots)
from cmri_lib.systems.register import SYSTEMS
from cmri_lib.systems.system import Run, Variant

# %% [markdown]
# ### The data
#
# The next cell opens the study. It counts the patients of every share, whose slices an arm may
# use. The patients of a smaller share are among those of a larger one.

# %%
study = open_study(profile, dataset)
params = study.params
figures.use_style()
pd.set_option("display.max_colwidth", None)
slices = load_slices(study)
test = one_scan_each(slices.where(split="test", source="real"))
options = {"seed": study.seed, "resamples": params.fidelity.resamples}
people = {share: len(arms.arm_patients(study, slices, share)) for share in params.utility.fractions}
print(f"profile {study.profile}, cohort {study.dataset}, {test.table['patient'].nunique()} test "
      f"patients, {len(test)} test slices")
pd.DataFrame({"real patients": {f"{share:.0%}": count for share, count in people.items()}})

# %% [markdown]
# What this cohort does not have, the notebook leaves out. The next cell says it in words.

# %%
outlook = requirements.outlook(slices)
outlook.need("networks trained on this cohort", "segmentation of test patients")
print(outlook.left_out("09"))

# %% [markdown]
# ## The arms: a star
#
# Every factor could be crossed with every other. That would take hundreds of trainings. Instead
# the arms form a **star**. Its centre is *real + 1 × samples* on few patients. The samples are
# those of **C16 MOTFM SPADE**: flow matching that is conditioned on mask, vendor, phase and
# disease. Each ray of the star changes one thing and keeps the rest:
#
# - the number of real patients (the generator is trained on the same patients each time);
# - the number of samples;
# - their use: mixed with real slices, or *before* them (the first half of the steps sees samples,
#   the second half real slices), or mixed after a selection (several samples are drawn under each
#   mask, and the one that follows it best is kept);
# - the condition of the generator: C16 against **U10 FM**, flow matching without any condition,
#   whose samples are pseudo-labelled;
# - the masks: those of the patients, or new ones that a label VAE (C4) draws;
# - the patients that the *generator* has seen: the same few, or all training patients;
# - the disease of the samples: a few samples of all groups, against as many of one disease. Their
#   masks are those of patients with the disease, or those of healthy patients that the label VAE
#   moves to it (notebook 08).

# %%
few, star = arms.few(study), arms.rays(study, slices)
disease = arms.target_disease(study, slices, few)
print(f"centre: {people[few]} patients; their rarest disease with enough test patients: {disease}")
listed = [(ray, arm.id, round(arm.factor, 2)) for ray, some in star.items() for arm in some]
pd.DataFrame(listed, columns=["what is varied", "arm", "samples per real slice"]).set_index(
    ["what is varied", "arm"])

# %% [markdown]
# The first part of a name is the share of the patients.
#
# ### Training
#
# The next cell names the arms. Then generators and students are trained, or loaded if they are
# stored: each arm with several seeds where `params.yaml` asks for it (`utility.seeds`), and each
# seed with samples of its own. Samples are drawn once and kept.

# %%
def mixed(factor=1.0, disease=None):
    """The arm of the centre's real slices and so many samples, of all groups or of one disease."""
    note = {"note": f"of {disease}", "disease": disease} if disease else {}
    return arms.mixed_arm(study, slices, MAIN, few, factor, **note)


MAIN, FREE = SYSTEMS[arms.MAIN], SYSTEMS[arms.FREE]
central = arms.generator_run(study, slices, MAIN, few)
real_few, real_all = arms.real_arm(few), arms.real_arm(1.0)
alone_all = arms.alone_arm(study, slices, MAIN, 1.0)
most, small = max(params.utility.factors), params.utility.targeted
seeds = arms.arm_seeds(study)

# %%
everything = {arm.id: arm for arm in arms.unique(star)}
students = train_arms(study, everything.values(), slices, seeds=seeds)
star = {ray: [arm for arm in some if arm.id in students] for ray, some in star.items()}
scores = {name: [student.scores(test) for student in found] for name, found in students.items()}
print(f"{len(students)} arms, {sum(map(len, students.values()))} students")

# %% [markdown]
# ### What the samples look like
#
# The figure shows samples of three generators under masks of the same training patients, and real
# test slices with the outlines that the student of samples alone draws in them. A generator of few
# patients that is given their own masks may draw their own hearts: of a cohort of real patients the
# file shows none of this.

# %%
def evenly(some, count=8):
    """Slices spread over a set."""
    return some.take(np.linspace(0, len(some) - 1, min(count, len(some))).astype(int))


tstr = students[alone_all.id][0]
seen = evenly(test)
shown = {f"{arms.MAIN}, {people[few]} patients": evenly(draw_samples(study, mixed(), slices)),
         f"{arms.MAIN}, {people[1.0]} patients": evenly(draw_samples(study, alone_all, slices))}
for arm in star["condition of the generator"]:
    if not arm.real and arm.images.system.id == arms.FREE:
        shown[f"{arms.FREE}, pseudo-labels"] = evenly(draw_samples(study, arm, slices))
for arm in star["source of the masks"][1:]:
    shown["new masks"] = evenly(draw_samples(study, arm, slices))
shown["real test slices, annotated"] = seen

# %%
drawn = type(seen)(seen.images, tstr.segment(seen.images), seen.table)
shown["real test slices, student of samples alone"] = drawn
figures.publish_slices(study, "09/samples", shown, derived=True,
                       title="Samples with their labels, and what a student of samples alone sees");

# %% [markdown]
# **How to read it.** In the rows of samples, outlines are the labels that a student learns from. Do
# they lie where the heart is? In the last two rows compare the annotation with the student.

# %% [markdown]
# ## Does it help?
#
# For every arm, the next cell takes the difference to the arm of the same patients' real slices
# alone: in Dice, in HD95 and in the share of missed structures.

# %%
COMPARED = {"dice": "downstream_dice", "hd95_mm": "downstream_hd95_mm",
            "missed": "downstream_missed"}


def difference(first, second, column="dice", patients=None):
    """The first arm minus the second, over patients and trainings."""
    tables = [scores[arm.id] for arm in (first, second)]
    if patients is not None:
        tables = [[t[t["patient"].isin(patients)] for t in some] for some in tables]
    return arm_difference(*tables, column, **options)

# %%
def as_columns(score):
    """A score for a table."""
    return {"value": score.value, "low": score.low, "high": score.high, "n": score.n}

# %%
differences = []
for ray, some in star.items():
    for arm in (arm for arm in some if arm.images is not None):
        for column, name in COMPARED.items():
            effect = difference(arm, arms.real_arm(arm.fraction), column)
            better = "higher" if column == "dice" else "lower"
            label = arm.id if ray == "number of real patients" else arm.label
            differences.append({"group": ray, "arm": label, "id": arm.id,
                                "family": arm.family, "metric": name, "better": better,
                                **as_columns(effect)})
differences = pd.DataFrame(differences)
figures.publish(study, "09/forest", differences, utility_plots.forest,
                title="All arms: difference to a student of the same patients' real slices alone");

# %% [markdown]
# **How to read it.** Each bold line names what is varied below it. The first group has all shares
# of patients. All other groups have the patients of the centre. The dashed line is a student of
# real slices alone, with the same augmentation and as many steps. To the right of it in Dice, and
# to the left in HD95 and misses, samples help. An interval that crosses the line says nothing.
#
# Why are some intervals so wide? Trainings of one arm differ, and the interval counts this. With
# few patients two trainings on the same slices can lie further apart than most gains.
#
# ### How many real patients?

# %%
KINDS = {"real alone": arms.real_arm,
         "samples alone": lambda share: arms.alone_arm(study, slices, MAIN, share),
         "real + 1 × samples": lambda share: arms.mixed_arm(study, slices, MAIN, share)}
reference = {share: scores[arms.real_arm(share).id] for share in people}
rows = {name: arm_rows(found, test, reference[found[0].arm.fraction], tables=scores[name],
                       **options) for name, found in students.items()}
curve = [{"kind": kind, "patients": count, **row} for kind, make in KINDS.items()
         for share, count in people.items() for row in rows[make(share).id]
         if row["metric"] in COMPARED.values()]
figures.publish(study, "09/patients", pd.DataFrame(curve), utility_plots.over_patients,
                title="Segmentation of test patients against the number of real patients");

# %% [markdown]
# **How to read it.** The generator of each point has learnt from the patients of that point alone.
# Follow the grey line first: what do more real patients give? To price a gain by samples, see how
# many more real patients the grey line needs for the same Dice.
#
# The next table says what it would have been worth if the generator had seen *all* patients while
# the segmenter had labels of few. This is how some published gains were made.

# %%
seen_all = star["patients of the generator"]
pd.DataFrame([{"arm": arm.label, **as_columns(difference(arm, real_few))} for arm in seen_all]
             ).set_index("arm").round(3)

# %% [markdown]
# ### Heart function
#
# A cardiologist reads volumes and ejection fractions. The figure compares those of four students
# with the truth.

# %%
SHOWN = [real_few, mixed(), alone_all, real_all]
INDICES = {"lvedv_ml": "LV EDV (mL)", "lvesv_ml": "LV ESV (mL)", "lvef_percent": "LV EF (%)"}
scans = []
for arm in SHOWN:
    errors = [student.function_errors(test) for student in students[arm.id]]
    for index, words in INDICES.items():
        parts = [e[e["index"] == index].reset_index(drop=True) for e in errors]
        found = parts[0][np.isfinite([p["error"] for p in parts]).all(axis=0)]
        if found["patient"].nunique() < MINIMUM:
            continue
        limits = bland_altman([p["error"] for p in parts], parts[0]["patient"], **options)
        scans.append(pd.DataFrame({
            "arm": arm.id, "index": words, "mean": (found["true"] + found["predicted"]) / 2,
            "error": found["error"], "bias": limits.bias.value, "lower": limits.lower.value,
            "upper": limits.upper.value}))

# %%
columns = ["arm", "index", "mean", "error", "bias", "lower", "upper"]
agreement = pd.concat(scans) if scans else pd.DataFrame(columns=columns)
figures.publish(study, "09/function", agreement, utility_plots.agreement_plot, people=True,
                title="Bland-Altman: LV volumes and ejection fraction of test patients");

# %% [markdown]
# **How to read it.** Each point is a scan. The line is the bias, the dashed lines are the limits of
# agreement; the numbers above each panel are bias and limits. A student can have a good Dice and
# still a bias in EF, if it is wrong in one phase more than in the other.
#
# ### Which slices?
#
# The figure breaks the Dice of the same students down by disease, level and phase.

# %%
groups = group_rows([students[arm.id] for arm in SHOWN], test, ["disease", "level", "phase"],
                    **options)
figures.publish(study, "09/groups", pd.DataFrame(groups), utility_plots.by_group,
                title="Dice of test patients by disease, level and phase");

# %% [markdown]
# **How to read it.** n is the number of patients. Apical slices are small and hard for every
# student. Look for a group in which the order of the arms changes.

# %% [markdown]
# ## A stronger baseline
#
# What samples add depends on what they are added to. The second baseline follows nnU-Net (Isensee
# et al. 2021): residual blocks, deep supervision, and strong augmentation (rotation, scaling,
# elastic deformation, blur, noise, contrast, gamma, low resolution). A gain that vanishes here was
# a substitute for augmentation.

# %%
STRONG = next(name for name in BASELINES if name != NETWORK)
strong = train_arms(study, [real_few, mixed()], slices, network=STRONG, seeds=seeds)
strong_scores = {name: [s.scores(test) for s in found] for name, found in strong.items()}
for name, found in strong.items():
    rows[f"{name}, {STRONG}"] = arm_rows(found, test, strong_scores[real_few.id], **options)
gains = {NETWORK: difference(mixed(), real_few),
         STRONG: arm_difference(strong_scores[mixed().id], strong_scores[real_few.id], **options)}
levels = {NETWORK: mean_dice(scores[real_few.id], **options),
          STRONG: mean_dice(strong_scores[real_few.id], **options)}
pd.DataFrame([{"baseline": name, "Dice of real alone": levels[name].value,
               "gain by samples": gain.value, "low": gain.low, "high": gain.high}
              for name, gain in gains.items()]).set_index("baseline").round(3)

# %% [markdown]
# ## The ejection fraction, without a segmentation
#
# A network can read the EF directly from the images. Most patients of a cohort have a normal EF, so
# the network sees few weak hearts and leans towards the normal. **C5** (Gheorghiță et al. 2022)
# trains it first on samples whose masks were drawn so that their EFs are *uniform* (notebook 08),
# then on real scans. The next cell trains four networks on the patients of the centre. They differ
# in the first part of their steps alone:
#
# - **real scans**, as in the second part;
# - **real scans of uniform EF**: the same scans, those of rare EFs more often. This costs nothing;
# - **samples**, of the EFs that the patients have;
# - **samples of uniform EF**: C5.
#
# If C5 gains by its EFs, it must beat the samples of the patients' EFs. If it gains by its images,
# it must beat the real scans of uniform EF.

# %%
read = {}
if outlook["uniform ejection fractions (C5)"] and people[few] > 1:
    read = ejection_errors(study, mixed(), slices, test, seeds)
    read[f"{REAL}, {people[1.0]} patients"] = ejection_errors(
        study, real_all, slices, test, seeds, [REAL])[REAL]
ejection = [tables[0].query("index == 'lvef'").assign(arm=name) for name, tables in read.items()]
ejection = pd.concat(ejection) if ejection else pd.DataFrame()
figures.publish(study, "09/ejection", ejection, utility_plots.read_against_truth,
                title="EF of test patients as networks read it from the images");

# %% [markdown]
# **How to read it.** Each point is a scan, read by the first training of each network. On the line,
# the reading is right. A cloud that is flatter than the line leans towards the mean. The next table
# has the error over all trainings, and the difference to the network of real scans, for all scans
# and for those with a reduced EF (up to 40 %).

# %%
ejection_scores, changes = [], []
for name, tables in read.items():
    ejection_scores += ejection_rows(f"EF regression, {name}", tables, **options)
    for scans, of in (("all", None), (f"EF ≤ {WEAK:g} %", weak)):
        if of is None or of(tables[0]).any():
            error, gain = (mean_error(tables, than=than, of=of, **options)
                           for than in (None, read[REAL]))
            changes.append({"network": name, "scans": scans, "patients": gain.n,
                            "error (% points)": error.value, "− real scans": gain.value,
                            "low": gain.low, "high": gain.high})
pd.DataFrame(changes).round(2)

# %% [markdown]
# ## The reverse: train on real, test on synthetic
#
# The student of all real slices segments samples that were drawn under masks of test patients, and
# the real slices of the same masks. If it finds the mask in samples less often than in real
# slices, the samples do not follow their masks. If it finds it *more* often, samples are easier
# than real images: they lack what makes real images hard. The evaluator of notebook 07 draws them.

# %%
training = slices.where(split="train", source="real")
valid_hearts = validity_of_samples(Ranges.of(training), segmenter(study, slices))
evaluator = Evaluator(study, slices, params.conditional.samples, [valid_hearts])
all_run = Run(MAIN)
bank = evaluator.bank(all_run, train_or_load(study, all_run, slices))
pairs = {"samples": bank, "real slices of the same masks": evaluator.conditions}
student = students[real_all.id][0]
reverse = {name: mean_dice([student.scores(some)], **options) for name, some in pairs.items()}
pd.DataFrame({name: as_columns(score) for name, score in reverse.items()}).T.round(3)

# %% [markdown]
# ## The claims
#
# Each claim has one **primary test**, stated before any result was looked at. A test of two rows
# needs both, and fails with either. Other tests are exploratory.

# %%
stated = primary_tests.register()
stated[stated["claim"].str.startswith("T") | (stated["claim"] == "M1")].set_index("claim")

# %% [markdown]
# A test is *not testable at this budget* if a generator of it shows no hearts, or if the segmenter
# finds too few in real slices to tell. A difference to it says only how short its training was. The
# next cell counts the valid hearts of the generators.

# %%
free_run = arms.generator_run(study, slices, FREE, few)
hearts = []
for run in (all_run, central, free_run):
    generator = train_or_load(study, run, slices)
    some = bank if run is all_run else evaluator.bank(run, generator)
    found = compare(evaluator.others, some, valid_hearts, **evaluator.bounds[valid_hearts],
                    **options)
    hearts += results.with_system_columns(run, found)
hearts = pd.DataFrame(hearts)
unfit = claims.unfit(hearts)
ledger = claims.Ledger(unfit)
hearts.assign(unfit=hearts["system"].map(unfit).fillna(""))[
    ["system", "value", "low", "high", "floor", "unfit"]].set_index("system").round(3)

# %% [markdown]
# **T1**: samples alone minus as many real slices, all patients. The claim holds if less than one
# Dice point is lost. Exploratory: the other shares of patients.
#
# **T2**: real + 1 × samples minus real alone, at the centre of the star. Dice must rise *and* HD95
# must fall. Exploratory: every other number of patients or samples, the selection, and the order.

# %%
ledger.primary("T1", difference(alone_all, real_all), parties=[all_run.id])
ledger.primary("T2", difference(mixed(), real_few), difference(mixed(), real_few, "hd95_mm"),
               parties=[central.id])
tested = {alone_all.id, mixed().id}
for ray in ("number of real patients", "number of samples", "use of the samples"):
    for arm in [a for a in star[ray] if a.images is not None and a.id not in tested]:
        tested.add(arm.id)
        claim, margin = ("T2", 0.0) if arm.real else ("T1", -primary_tests.ONE_POINT)
        base = arms.real_arm(arm.fraction)
        ledger.explore(claim, f"{arm.id} − real", difference(arm, base), "downstream_dice",
                       "above", margin, parties=[arm.images.id])
ledger.table("T1", "T2")

# %% [markdown]
# **T5** has two halves, and both must hold: the most samples are worse than 1 ×, and a few samples
# of the rarest disease are better than as many of all groups.
#
# **T6**: the same few samples of the rarest disease minus real alone, in test patients *with this
# disease*. They are few, so the interval is wide. Exploratory: masks moved to the disease.

# %%
if disease:
    ill = set(test.where(disease=disease).patients)
    untargeted, targeted = mixed(small), mixed(small, disease)
    ledger.primary("T5", difference(mixed(most), mixed()), difference(targeted, untargeted),
                   parties=[central.id])
    ledger.primary("T6", difference(targeted, real_few, patients=ill), parties=[central.id])
    for arm in star["disease of the samples"]:
        if arm not in (untargeted, targeted):
            ledger.explore("T6", f"{arm.id} − real, patients with {disease}",
                           difference(arm, real_few, patients=ill), "downstream_dice", "above",
                           parties=[central.id])
        ledger.explore("T5", f"{arm.id} − real", difference(arm, real_few), "downstream_dice",
                       "above", parties=[central.id])
ledger.table("T5", "T6")

# %% [markdown]
# **M1**, the downstream half: samples of C16, which follow masks, minus pseudo-labelled samples of
# U10 FM, alone and beside real slices. The two systems differ in more than the mask, so this is
# exploratory. Notebook 07 changes the mask alone.

# %%
conditioned = star["condition of the generator"]  # the conditional system comes first
for real_too in (False, True):
    pair = [arm for arm in conditioned if arm.real == real_too]
    if len(pair) < 2:
        continue
    ledger.explore("M1", " − ".join(arm.id for arm in pair), difference(*pair),
                   "downstream_dice", "above", parties=[arm.images.id for arm in pair])
ledger.table("M1")

# %% [markdown]
# All rows are written to the results of the study; C16 also gets rows of its own, which notebook 13
# shows beside fidelity. What the samples of all other systems teach is the question of notebook 17.

# %%
found = reverse["samples"].against(np.nan, reverse["real slices of the same masks"].value)
of_system = results.with_system_columns(all_run, [found.row("trts_dice", "utility", "higher")])
of_system += [row | {"system": MAIN.id} for row in rows[alone_all.id]
              if row["metric"] in COMPARED.values()]
table = results.write_scores(
    study, "09_utility",
    [row for some in [*rows.values(), of_system, ejection_scores] for row in some])
results.write_claims(study, "09_utility", ledger.rows, elsewhere=["M1"])
table.groupby("system", sort=False)["metric"].agg(["size"]).rename(columns={"size": "rows"}).T

# %% [markdown]
# ## "I have 20 patients: what should I do?"
#
# The next cell answers from the numbers of this run. The best of many arms is best partly by
# chance. So an arm is recommended only if it is still better than real slices alone after Holm's
# correction for the number of arms.

# %%
PATIENTS = 20
nearest = min(people, key=lambda share: abs(np.log(people[share] / PATIENTS)))
possible = {arm.id: arm.label for arm in everything.values()  # you have no generator of others
            if arm.fraction == nearest and arm.generator_fraction is None}
beside = differences[differences["id"].isin(possible)]
beside = beside.assign(arm=beside["id"].map(possible))
dice = {share: mean_dice(scores[arms.real_arm(share).id], **options) for share in people}
advice = recipe.recipe(
    PATIENTS, people[nearest], dice[nearest], recipe.differences_of(beside),
    [(people[share], score) for share, score in dice.items()])
if central.id in unfit:
    advice.append(f"Of the generator: {unfit[central.id]}. Train it longer first.")
print("\n".join(advice))

# %% [markdown]
# ## Check
#
# First, the guards. A generator is planted that has one test patient among its training slices. No
# arm may use it, neither for images nor for masks. Nothing is trained in this cell.

# %%
def planted(some):
    """Training slices, and those of a test patient under a false split."""
    stranger = slices.where(patient=test.patients[0]).with_columns(split="train")
    return concatenate([some.where(split="train"), stranger])


leaky = Run(MAIN, variant=Variant("planted", planted))
refused = 0
for fields in ({"images": leaky}, {"images": all_run, "masks": leaky}):
    arm = arms.Arm("leaky", factor=1.0, **fields)
    for harness in (train_arm, draw_samples, lambda *given: train_arms(study, [arm], slices)):
        try:
            harness(study, arm, slices)
        except SplitError:
            refused += 1
assert refused == 6, "a test patient got into a generator of an arm"
print(f"{refused} of 6 attempts to use a leaky generator were refused")

# %% [markdown]
# Second, students know who they have learnt from, and no one of them is a test patient. Third, two
# arms of the same generator share their samples. The last check needs a real training, so the
# `smoke` profile skips it: a student of real slices must be better than nothing, and more patients
# must not be worse than few by more than chance.

# %%
assert not any(s.patients & set(test.patients) for found in students.values() for s in found)
once, twice = (draw_samples(study, arm, slices) for arm in (mixed(), mixed(most)))
fewest = min(len(once), len(twice))
assert np.allclose(once.images[:fewest], twice.images[:fewest], atol=1e-4), "drawn anew"
more_patients = difference(real_all, real_few)
if study.profile != "smoke":
    assert dice[1.0].low > 0.5, "a student of all real slices has learnt nothing"
    assert more_patients.high > 0, "more real patients are worse"
print(f"all real patients − {people[few]}: {more_patients.value:+.3f} Dice")

# %% [markdown]
# ## Exercises
#
# ### 1. Hard for both?
#
# Is a student wrong where another one is? Take the Dice of every test volume by the student of real
# slices and by the student of samples alone. How large is the rank correlation? What would it mean
# if it were 1?

# %% tags=["solution"]
pair = [scores[arm.id][0].query("structure == @FOREGROUND")["dice"].reset_index(drop=True)
        for arm in (real_all, alone_all)]
print(f"rank correlation (Spearman): {pair[0].corr(pair[1], method='spearman'):.2f}")
print(f"hardest volume for both: {pair[0].idxmin() == pair[1].idxmin()}")
# A correlation near 1 means that the same volumes are hard for both: samples then teach what real
# slices teach. Volumes that only the student of samples misses show what samples lack.

# %% [markdown]
# ### 2. From patients to the interval
#
# Compute the gain by samples, `difference(mixed(), real_few)`, by hand: the difference of the mean
# Dice of each test patient, its mean $m$, and the interval $m \pm 1.96\, s / \sqrt n$ from its
# standard deviation $s$. Does it agree with the bootstrap? With how many test patients would the
# interval be half as wide? And from how many on would it leave out 0, if $m$ and $s$ stayed as they
# are?

# %% tags=["solution"]
pair = scores[mixed().id], scores[real_few.id]
by_patient = [pd.concat(some).query("structure == @FOREGROUND").groupby("patient")[
    "dice"].mean() for some in pair]
gain_of = (by_patient[0] - by_patient[1]).dropna()
m, s, n = gain_of.mean(), gain_of.std(), len(gain_of)
library = difference(mixed(), real_few)
print(f"by hand {m:+.4f} [{m - 1.96 * s / n**0.5:+.4f}, {m + 1.96 * s / n**0.5:+.4f}]")
print(f"library {library.value:+.4f} [{library.low:+.4f}, {library.high:+.4f}], n = {n}")
print(f"half as wide: {4 * n} patients; without 0: {max(2, np.ceil((1.96 * s / m) ** 2)):.0f}")
# The width falls with √n: half of it takes four times as many patients. The bootstrap's interval is
# a little narrower with few patients, uneven with few resamples (`params.fidelity.resamples`), and
# wider with several seeds, of which that by hand knows nothing.

# %% [markdown]
# ### 3. Heads or tails
#
# If samples changed nothing, the difference of each patient could as well have the other sign. Flip
# the signs at random, some thousand times. How often is the mean at least as far from 0 as the one
# that was found? And which p-value is the smallest that so few patients can give at all?

# %% tags=["solution"]
signs = np.random.default_rng(study.seed).choice([-1, 1], size=(5000, n))
flipped = (signs * gain_of.to_numpy()).mean(axis=1)
as_far = (np.abs(flipped) >= abs(m) - 1e-12).sum()
print(f"p = {(1 + as_far) / (1 + len(flipped)):.4f}; with {n} patients at least {2 / 2**n:.2g}")
print(f"better with samples: {(gain_of > 0).sum()} of {n} patients")
print("gains most and least:", gain_of.idxmax(), gain_of.idxmin())
# Where the interval of exercise 2 leaves out 0, p is small. With 5 patients p is at least 1/16,
# however large the gain: a test cannot be better than the number of its patients.

# %% [markdown]
# ## Summary
#
# The next cells print the findings of this run. Read the notes below together with the numbers.

# %%
def said(score, scale=100, unit="Dice points"):
    """A difference in words."""
    value, low, high = (scale * number for number in (score.value, score.low, score.high))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}] {unit}"


effect = difference(mixed(), real_few)
print(f"1. samples alone − real, {people[1.0]} patients: {said(difference(alone_all, real_all))}")
print(f"2. real + 1 × − real, {people[few]} patients: {said(effect)},",
      said(difference(mixed(), real_few, "hd95_mm"), 1, "mm HD95"))
print(f"   {STRONG}: {said(gains[STRONG])}")
print(f"3. real + {most:g} × − real + 1 ×: {said(difference(mixed(most), mixed()))}")
if disease:
    print(f"4. {small:g} × of {disease} − {small:g} × of all:",
          said(difference(targeted, untargeted)))
    print(f"   on patients with {disease}, − real:",
          said(difference(targeted, real_few, patients=ill)))

# %%
print(f"5. generator of all patients − of {people[few]}: {said(difference(*seen_all[::-1]))}")
print(f"   {people[1.0]} real patients − {people[few]}: {said(more_patients)}")
for row in pd.DataFrame(ledger.rows).query("primary").itertuples():
    print(f"{row.claim}: {row.verdict}")
print("\n".join(advice))

# %% [markdown]
# 1. **Samples alone (T1).** The difference says what is lost if nobody may see the real images. A
#    loss of less than one point, interval included, supports the claim.
# 2. **Samples beside real slices (T2).** Compare the two baselines. Strong augmentation and samples
#    are two remedies for the same lack.
# 3. **How many (T5).** All arms have equally many steps. With many samples, the student sees each
#    real slice less often. That is the price of a sample.
# 4. **Targeted samples (T5, T6).** A few samples of one disease shift the mixture of the training
#    set. The interval on patients with the disease is wide, because they are few.
# 5. **What the generator knows.** Its samples can carry what it has learnt from patients whom the
#    segmenter has never seen. Compare this gain with the gain of the same patients with labels.
#
# ## Limits
#
# - One generator is trained per number of patients. Several seeds are seeds of students and of the
#   samples' noise, not of generators.
# - Students are trained for a fixed number of steps. At the `laptop` budget they have not
#   converged, and an arm may lead because it learns faster.
# - The arms form a star: how two factors act together is not measured.
# - New masks are drawn slice by slice. A student that sees single slices does not mind.
# - The rarest disease among few patients is rare by number only. Truly rare diseases also look
#   different from each other.
# - The networks that read the EF get the length of the stack, and which slices belong to it.
