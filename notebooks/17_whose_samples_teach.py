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
# # 17 · Whose samples teach best? The utility of every system
#
# **Which profile shows what.** The `smoke` profile only checks that the notebook runs; its
# numbers mean nothing. The `laptop` profile is a workshop's budget: it shows how things work,
# not whose samples are best. Draw conclusions only from the larger profiles of `params.yaml`.
#
# **Question.** Notebook 09 asks how samples are best used, with one generator. This notebook asks
# *whose* samples are best, with one use: a segmenter learns from the samples of one system alone.
# And it asks whether the measures of notebooks 06 to 08 foretell the answer. If they do, no
# segmenter has to be trained for each generator.
#
# **What the review says.** Half of the reviewed studies report a utility, each that of its own
# generator: with other patients, another segmenter, another number of samples. Such numbers cannot
# be put in one order. Claim T1 says that training on samples alone comes within 1 % Dice of
# training on real images. Notebook 09 makes its primary test, with the system C16; here the systems
# of `teaching.systems` in `params.yaml` are tried as well.

# %% [markdown]
# ## Method
#
# ### Terms
#
# - A **system** is a generator with what it is conditioned on. An **unconditional** system is given
#   nothing. A **chain** is a system that draws masks, followed by one that paints them.
# - **TSTR** (train on synthetic, test on real): a segmenter of the left ventricular cavity (LV),
#   the myocardium (Myo) and the right ventricular cavity (RV) is trained on samples alone and
#   tested on real patients. The segmenter is called a **student**, and the slices that it learns
#   from, real or samples, its **arm**.
# - A **measure of fidelity** compares samples with real images, without training a segmenter on
#   them. Notebook 06 explains each.
# - **Dice** $2|A \cap B| / (|A| + |B|)$ of whole volumes in 3D, as the mean of LV, Myo and RV.
# - **HD95**, the 95 % Hausdorff distance between surfaces in mm, of the structures that were found.
#   A student that misses the RV, the hardest, can have the better HD95: read it only beside the
#   **share of missed structures**.
# - The **rank correlation** (Spearman's $\rho$) of two measures says whether they put systems in
#   one order: 1 for the same order, −1 for the reverse, 0 for none in common.
#
# ### A segmenter needs labels
#
# A student learns from images *and* masks. Systems differ in where the masks of their samples come
# from, and this matters as much as the images:
#
# - **Masks of training patients.** A system with a mask as condition paints images of them. The
#   masks are real, and the image follows them more or less closely. C5 takes whole scans, some of
#   them several times, so that their ejection fractions are as uniform as the cohort allows.
# - **Masks drawn by a network.** A chain (notebook 08) draws the mask first, then paints it. Masks
#   that are no hearts are drawn again; if some are still missing, others are used twice.
# - **Pseudo-labels of a segmenter.** All other systems draw an image alone. The student of the real
#   slices of the same patients labels it; call it the **teacher**. It has learnt from real labels,
#   and its students inherit what it knows and where it is wrong. So high utility of an
#   unconditional system speaks of its images *and* of the teacher, whom all of this group share.

# %% [markdown]
# ### Protocol
#
# 1. All generators have learnt from the same training patients (C15 without the pairs of disease
#    and vendor that notebook 07 withholds), and none from a test patient.
# 2. Every system draws as many samples as there are real training slices, with the same seed.
# 3. Every student has the same network, augmentation and number of steps. None is chosen or stopped
#    by its test score. They differ in their samples alone.
# 4. The reference is a student of the real slices, trained with several seeds where `params.yaml`
#    asks for it (`utility.seeds`; once in `smoke` and `laptop`, where intervals are over patients
#    alone). Students of samples are trained once. They are assumed to differ by their seed as much
#    as those of real slices do, and the intervals hold this.
# 5. As a control, one student learns from samples whose masks belong to *other* samples. If it is
#    not clearly worse than the student of the right masks, the test cannot tell good labels from
#    bad ones. (Section *Check*.)
#
# Intervals are 95 % bootstrap intervals over test patients and trainings. Those of rank
# correlations are over *systems*: they say what other systems like these might have shown.

# %% tags=["parameters"]
profile = None  # None: as params.yaml says
dataset = None

# %%
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd

from cmri_lib.cohort import requirements
from cmri_lib.cohort.cardiac_function import with_phenotypes
from cmri_lib.cohort.slices import Slices
from cmri_lib.config.study import open_study
from cmri_lib.errors import SplitError
from cmri_lib.experiments import arms
from cmri_lib.experiments.arm_samples import one_scan_each
from cmri_lib.experiments.instruments import load_slices
from cmri_lib.experiments.utility import (
    NETWORK, SOURCES, draw_samples, group_rows, source_of_labels, train_arms)

# %%
from cmri_lib.measures.statistics.ranks import rank_correlation
from cmri_lib.measures.utility.baselines import baseline, fit, frozen
from cmri_lib.measures.utility.volumetric import (
    arm_difference, mean_dice, overall_rows, volume_scores)
from cmri_lib.reporting import (
    claims, figures, metrics, primary_tests, results, utility_plots)
from cmri_lib.reporting.primary_tests import ANATOMY, APPEARANCE, HEARTS

# %% [markdown]
# ### The data
#
# The next cell opens the study and takes the test patients. A patient with several scans counts
# once: his or her first scan is used.

# %%
study = open_study(profile, dataset)
params = study.params
figures.use_style()
pd.set_option("display.max_colwidth", None)
slices = with_phenotypes(load_slices(study))  # C8 is conditioned on them
training = slices.where(split="train", source="real")
test = one_scan_each(slices.where(split="test", source="real"))
options = {"seed": study.seed, "resamples": params.fidelity.resamples}
print(f"profile {study.profile}, cohort {study.dataset}: {len(training)} training slices of "
      f"{training.table['patient'].nunique()} patients, {len(test)} test slices of "
      f"{test.table['patient'].nunique()}")

# %% [markdown]
# What this cohort does not have, the notebook leaves out. The next cell says it in words.

# %%
outlook = requirements.outlook(slices)
outlook.need("networks trained on this cohort", "segmentation of test patients")
print(outlook.left_out("17"))

# %% [markdown]
# ## The students
#
# The next cell makes an arm for every system that `params.yaml` names (`teaching.systems`), draws
# its samples, and trains its student. What is stored is loaded. The table counts the systems by
# where the labels of their samples come from.

# %%
real = arms.real_arm(1.0, stage=arms.TEACHING)
even_possible = bool(outlook["uniform ejection fractions (C5)"])
compared = {one.id: arms.alone_arm(study, slices, one, 1.0, arms.TEACHING)
            for one in arms.compared_systems(study, even_possible)}
students = train_arms(study, [real], slices, seeds=arms.arm_seeds(study))
students |= train_arms(study, compared.values(), slices)
compared = {name: arm for name, arm in compared.items() if arm.id in students}
labels = {name: source_of_labels(study, arm, slices) for name, arm in compared.items()}
scores = {name: [student.scores(test) for student in found] for name, found in students.items()}
pd.Series(labels).value_counts().reindex(SOURCES, fill_value=0).rename("systems").to_frame()

# %% [markdown]
# ## Who teaches best?
#
# For every system, the next cell takes the difference of its student to that of real slices: in
# Dice, in HD95 and in the share of missed structures. Systems stand in the order of their Dice,
# apart by where their labels come from.

# %%
COMPARED = {"dice": "downstream_dice", "hd95_mm": "downstream_hd95_mm",
            "missed": "downstream_missed"}
effects = {(name, column): arm_difference(scores[arm.id], scores[real.id], column, **options)
           for name, arm in compared.items() for column in COMPARED}
differences = pd.DataFrame([
    {"group": labels[name], "arm": name, "family": compared[name].family,
     "metric": COMPARED[column], "better": "higher" if column == "dice" else "lower",
     "value": effect.value, "low": effect.low, "high": effect.high, "n": effect.n}
    for (name, column), effect in effects.items()])

# %%
gain = differences.query("metric == 'downstream_dice'").set_index("arm")["value"]
place = differences["group"].map({source: k for k, source in enumerate(SOURCES)})
order = differences.assign(place=place, gain=differences["arm"].map(gain)).sort_values(
    ["place", "gain"], ascending=[True, False], kind="stable")
figures.publish(study, "17/forest", order.drop(columns=["place", "gain"]), utility_plots.forest,
                title="Students of samples alone: difference to a student of real slices");

# %% [markdown]
# **How to read it.** Bold lines say where the labels come from. The dashed line is a student of
# real slices. To its left in Dice, and to its right in HD95 and misses, samples are worse than real
# slices. Compare within a group first: there labels come from the same kind of source. Only under
# masks of training patients are they the very same masks. Whether two systems differ is asked of
# their own difference (exercise 1), not of the overlap of two intervals.
#
# The figure shows what the students have learnt from: samples with their labels, of the first and
# of the last system of each group.

# %%
def evenly(some, count=8):
    """Slices spread over a set."""
    return some.take(np.linspace(0, len(some) - 1, min(count, len(some))).astype(int))


ranked = order.drop_duplicates("arm")
ends = ranked.groupby("group", sort=False)["arm"].agg(["first", "last"])
shown = {f"{name}: {gain[name]:+.3f}": evenly(draw_samples(study, compared[name], slices))
         for name in dict.fromkeys(ends.to_numpy().ravel())}
figures.publish_slices(study, "17/samples", shown, derived=True,
                       title="Samples that students learnt from, with their labels");

# %% [markdown]
# **How to read it.** Each row is a system: the best and the worst of a group, with the difference
# of its student in Dice. The outlines are the labels that the student learns from. Do they lie
# where the heart is? Does the image have the contrast and the noise of a scan?

# %% [markdown]
# ## Do cheap measures foretell utility?
#
# Notebooks 06 to 08 have scored the same systems without training a segmenter on their samples.
# The next cell reads their tables and puts each measure beside the Dice of the student.
#
# Systems with a mask were scored on hearts of test patients, the others had to invent theirs, and
# the number of samples differed. So a measure is asked for the order of systems **within** one
# source of labels, never across them. With fewer than five systems it is not asked at all.

# %%
MEASURES = [ANATOMY, APPEARANCE, HEARTS, "kid_study", "frechet_study", "c2st_image", "dice_mean"]
known = results.union(study.root)
known = known[(known["dataset"] == study.dataset) & (known["profile"] == study.profile)]
known = known[known["metric"].isin(MEASURES) & known["system"].isin(compared)]
known = known.drop_duplicates(["system", "metric"]).dropna(subset="value")
taught = pd.DataFrame([
    {"system": name, "labels": labels[name], "dice": mean_dice(scores[arm.id], **options).value}
    for name, arm in compared.items()])
beside = known[["system", "family", "metric", "better", "value"]].merge(taught, on="system")
beside = beside.sort_values("metric", key=lambda names: names.map(MEASURES.index), kind="stable")

# %%
FEWEST_SYSTEMS = 5
found, correlations = [beside.head(0)], []
for (metric, source), part in beside.groupby(["metric", "labels"], sort=False):
    if len(part) >= FEWEST_SYSTEMS:
        rho = rank_correlation(part["value"], part["dice"], **options)
        numbers = {"correlation": rho.value, "low": rho.low, "high": rho.high, "n": rho.n}
        found.append(part.assign(**numbers))
        correlations.append({"metric": metric, "labels": source, **numbers})
figures.publish(study, "17/foretold", pd.concat(found), utility_plots.foretold,
                title="Dice of the student against measures that need no student");

# %% [markdown]
# **How to read it.** A panel for each measure; the arrow says which of its values are better.
# Colours are families, marks say where labels come from, and each kind of mark has its own rank
# correlation $\rho$ above the panel. A measure that is better when *lower* foretells utility if
# $\rho$ is near −1, one that is better when *higher* if $\rho$ is near 1.
#
# Read the interval first: if it holds 0, the order is not established in either direction. Every
# student was trained once, and this noise pulls $\rho$ towards 0. Of several measures the best
# looks better than it is.

# %% [markdown]
# ## The claim
#
# **T1** is *supported* for a system if the whole interval of its loss lies above −0.01, and *not
# supported* if it lies below. The tests are exploratory and not corrected for their number. All
# share one reference: if its students are weak by chance, every system looks better. Masks of
# patients and pseudo-labels hold real labels, so none of these students is free of real data. C16
# has its test in notebook 09, with several trainings.
#
# A test is *not testable at this budget* if the system shows no hearts, or if nobody has measured
# whether it does.

# %%
others = {name: arm for name, arm in compared.items() if name != arms.MAIN}
judged = set(known.loc[known["metric"] == HEARTS, "system"])
unknown = dict.fromkeys(set(others) - judged, "valid hearts not measured")
ledger = claims.Ledger(claims.unfit(known) | unknown)
for name in others:
    ledger.explore("T1", f"{name} alone − real", effects[name, "dice"], "downstream_dice", "above",
                   -primary_tests.ONE_POINT, parties=[name])
print("not scored in notebooks 06 to 08:", ", ".join(sorted(unknown)) or "none")
ledger.table("T1").set_index("test")[["effect", "low", "high", "p", "verdict"]].sort_values(
    "effect", ascending=False)

# %% [markdown]
# Dice, HD95 and misses of all systems but C16, whose rows are notebook 09's, are written to the
# results of the study. Notebook 13 shows them beside fidelity and privacy.

# %%
rows = []
for name, arm in others.items():
    measured = overall_rows(scores[arm.id], scores[real.id], **options)
    rows += [row | {"system": name} for row in results.with_system_columns(arm, measured)]
table = results.write_scores(study, "17_whose_samples_teach", rows)
results.write_claims(study, "17_whose_samples_teach", ledger.rows, elsewhere=["T1"])
table.pivot(index="system", columns="metric", values="value").rename(columns=metrics.short).round(3)

# %% [markdown]
# ## Check
#
# First, the guard. A student that has met a test patient, here by a false note, may not be scored
# on the test patients.

# %%
student = students[compared[arms.MAIN].id][0]
tainted = replace(student, patients=student.patients | set(test.patients[:1]))
try:
    tainted.scores(test, distances=False)
    refused = False
except SplitError as problem:
    refused = True
    print(problem.problem)
assert refused, "a student was scored on a patient whom it has met"

# %% [markdown]
# Second, the control: the samples of C16, each with the mask of another sample. Its student must be
# worse than the one of the right masks, whole interval included. It still finds a heart somewhere:
# crops are centred on it, so a student of wrong masks learns where hearts lie on average. Its Dice
# is the floor of this notebook. The `smoke` profile trains too shortly for that, so there the cell
# only runs.

# %%
main = compared[arms.MAIN]
samples = draw_samples(study, main, slices)
turn = np.random.default_rng(study.seed).permutation(len(samples))
other = np.empty_like(turn)
other[turn] = np.roll(turn, 1)  # none keeps its own mask
wrong = Slices(samples.images, samples.masks[other], samples.table)
model = fit(baseline(NETWORK), wrong, replace(params.utility.training, seed=study.seed),
            study.work(arms.TEACHING) / "wrong-labels")

# %%
misled = volume_scores(frozen(model, study.seed)(test.images), test, distances=False)
floor = mean_dice([misled], **options)
lost = arm_difference([misled], scores[main.id], **options)
print(f"Dice of wrong labels {floor.value:.3f}; − right ones {lost.value:+.3f} "
      f"[{lost.low:+.3f}, {lost.high:+.3f}]")
assert study.profile == "smoke" or lost.high < 0, "wrong labels teach as well as right ones"

# %% [markdown]
# ## Exercises
#
# ### 1. How much of the order is certain?
#
# Take all pairs of systems. In how many of them does the interval of the difference of their
# students' Dice leave out 0? What does this say about a table that ranks systems to the third
# decimal?

# %% tags=["solution"]
dice = {name: scores[arm.id][0] for name, arm in compared.items()}
pairs = list(combinations(dice, 2))
gaps = [arm_difference([dice[a]], [dice[b]], seed=study.seed, resamples=200) for a, b in pairs]
apart = sum(gap.low > 0 or gap.high < 0 for gap in gaps)
print(f"{apart} of {len(pairs)} pairs differ by more than chance between patients; "
      f"about {0.05 * len(pairs):.0f} would if no two systems differed")
# Intervals are over patients only: both students were trained once. Intervals that also held the
# seed would be wider, and fewer pairs would be apart. A ranking is a list of groups of systems, not
# a list of places.

# %% [markdown]
# ### 2. Where do samples teach badly?
#
# Compare the first and the last system that follow masks of patients, and real slices, by the level
# of the slice. Is the loss the same at base, middle and apex?

# %% tags=["solution"]
masked = [name for name in ranked["arm"] if labels[name] == SOURCES[0]]
chosen = [students[compared[name].id] for name in dict.fromkeys((masked[0], masked[-1]))]
by_level = pd.DataFrame(group_rows([students[real.id], *chosen], test, ["level"],
                                   seed=study.seed, resamples=50))
wide = by_level.pivot(index="arm", columns="group", values="value") if len(by_level) else None
print("too few patients" if wide is None else (wide - wide.loc[real.id]).round(3))
# Each number is the loss to real slices at that level. If the apex loses most, images are blurred
# or off their masks where structures are small; if all levels lose alike, look at contrast and
# noise. The Dice of small structures also varies more.

# %% [markdown]
# ### 3. One correlation, or the gap between two groups?
#
# Take the distance of anatomy. Compute its rank correlation with the student's Dice over *all*
# systems, against the advice of this notebook, and within each source of labels. Do they agree?
# What would it mean if all groups were near 0, and the overall one were not?

# %% tags=["solution"]
of_anatomy = beside[beside["metric"] == ANATOMY]
for source in (None, *SOURCES):
    part = of_anatomy if source is None else of_anatomy[of_anatomy["labels"] == source]
    if len(part) < FEWEST_SYSTEMS:
        print(f"{source or 'all systems'}: {len(part)} systems are too few")
        continue
    rho = rank_correlation(part["value"], part["dice"], **options)
    print(f"{source or 'all systems'}: {rho.value:+.2f} [{rho.low:+.2f}, {rho.high:+.2f}]")
# If groups had none and all systems had one, the measure would only separate the groups (as in
# Simpson's paradox): those with masks were scored on true hearts *and* have true labels. But near 0
# within a group can also mean few systems, or systems too alike to be ordered.

# %% [markdown]
# ## Summary
#
# The next cell prints the findings of this run. Read the notes below together with the numbers.

# %%
for source, part in ranked.groupby("group", sort=False):
    best, worst = part["arm"].iloc[0], part["arm"].iloc[-1]
    print(f"{source}: best {best} ({gain[best]:+.3f} Dice to real slices), "
          f"last {worst} ({gain[worst]:+.3f})")
verdicts = pd.Series([row["verdict"] for row in ledger.rows], dtype=str).value_counts()
print("T1, all but C16:", ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items()))
for row in sorted(correlations, key=lambda row: (row["labels"], -abs(row["correlation"]))):
    print(f"{row['labels']}, {metrics.short(row['metric'])}: ρ = {row['correlation']:+.2f} "
          f"[{row['low']:+.2f}, {row['high']:+.2f}], {row['n']} systems")

# %% [markdown]
# 1. **Labels first.** A system without a mask borrows its labels from a teacher that has seen real
#    ones. Compare systems within a group; across groups the labels differ too.
# 2. **Are hearts enough?** Look at the panel of valid hearts. Where every system shows hearts,
#    their share may say little about what the samples teach.
# 3. **Measure what you need.** A measure of fidelity that does not order systems by utility is not
#    wrong. It answers another question.
#
# ## Limits
#
# - Each student of samples was trained once, from samples of one training of its generator. The
#   intervals assume how much students differ, and leave out how much generators do.
# - All patients teach here. With few of them the order may change (notebook 09).
# - Systems that share a first stage or a pretrained network are not independent, so intervals of
#   rank correlations are rather too narrow. Without labels of tissues, C2 and C4 SPADE cGAN are the
#   same network, counted twice.
# - The measures of anatomy are read by a segmenter of the same patients as the teacher. Both may
#   like the same samples.
# - Flows draw for students with `utility.sampling_steps`, fewer than in notebooks 05 to 08 in
#   `smoke` and `laptop`. In `overnight` and `gpu` the scores of notebook 06 are means over three
#   trainings for five systems; students see samples of the first.
# - The masks of training patients are private data. A system that needs them to draw samples cannot
#   be handed out without a source of masks (notebook 08).
# - One segmenter of one size. C7, which draws whole stacks, teaches in notebook 15. Systems that
#   translate an image of the same patient (C11, C13, C17, C19) are left out and have their own
#   tests in notebooks 10, 14 and 16, and so is C18, which is private (notebook 12).
# - C5 and C4 SPADE cGAN are one network. They differ in the masks alone, so they are not
#   independent.
