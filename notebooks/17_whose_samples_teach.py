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
# And it asks whether the cheap measures of notebooks 06 and 07 foretell the answer. If they do,
# nobody needs to train a segmenter to choose a generator.
#
# **What the review says.** Half of the reviewed studies report a utility, each that of its own
# generator: with other patients, another segmenter, another number of samples. Such numbers cannot
# be put in one order. Claim T1 says that training on samples alone comes within 1 % Dice of
# training on real images. Notebook 09 makes its primary test, with the system C16; here every
# other system is tried as well.

# %% [markdown]
# ## Method
#
# ### Terms
#
# - **TSTR** (train on synthetic, test on real): a segmenter of the left ventricular cavity (LV),
#   the myocardium (Myo) and the right ventricular cavity (RV) is trained on samples alone and
#   tested on real patients. Such a segmenter is called a **student** here, and the samples that it
#   learns from an **arm**.
# - A **measure of fidelity** compares samples with real images, without training a segmenter on
#   them.
# - **Dice** $2|A \cap B| / (|A| + |B|)$ of whole volumes in 3D, as the mean of LV, Myo and RV.
# - **HD95**, the 95 % Hausdorff distance between surfaces in mm, where a structure was found. The
#   **share of missed structures** is counted apart.
# - The **rank correlation** (Spearman's $\rho$) of two measures says whether they put systems in
#   one order: 1 for the same order, −1 for the reverse, 0 for none in common.
#
# ### A segmenter needs labels
#
# A student learns from images *and* masks. Systems differ in where the masks of their samples come
# from, and this matters as much as the images:
#
# - **Masks of training patients.** A system with a mask as condition paints images of them. The
#   masks are real, and the image follows them more or less closely.
# - **Masks drawn by a network.** A chain (notebook 08) draws the mask first, then paints it.
# - **Pseudo-labels of a segmenter.** All other systems draw an image alone. The student of the real
#   slices of the same patients labels it. Such a student has already learnt from real labels: a
#   student of pseudo-labels inherits what it knows and where it is wrong. So high utility of an
#   unconditional system speaks of its images *and* of its teacher.

# %% [markdown]
# ### Protocol
#
# 1. All generators have learnt from the same training patients, and none from a test patient.
# 2. Every system draws as many samples as there are real training slices, with the same seed.
# 3. Every student has the same network, augmentation and number of steps. None is chosen or stopped
#    by its test score. They differ in their samples alone.
# 4. The reference is a student of the real slices themselves, trained with several seeds. The
#    students of samples are trained once each. How much one training can differ from another is
#    taken from the students of real slices, and widens the intervals.
# 5. As a control, one student learns from samples whose masks belong to *other* samples. If it does
#    not fail, the test cannot tell good labels from bad ones. (Section *Check*.)
#
# Intervals are 95 % bootstrap intervals over test patients and trainings. Those of rank
# correlations are over *systems*: they say what other systems like these might have shown.

# %% tags=["parameters"]
profile = None  # None: as params.yaml says
dataset = None

# %%
from itertools import combinations

import numpy as np
import pandas as pd

from cmri_lib.cohort import requirements
from cmri_lib.cohort.slices import Slices
from cmri_lib.config.study import open_study
from cmri_lib.experiments import arms
from cmri_lib.experiments.arm_samples import one_scan_each
from cmri_lib.experiments.instruments import load_slices
from cmri_lib.experiments.utility import (
    NETWORK, SOURCES, arm_rows, draw_samples, group_rows, source_of_labels, train_arms)

# %%
from cmri_lib.measures.statistics.ranks import rank_correlation
from cmri_lib.measures.utility.baselines import baseline, fit, frozen
from cmri_lib.measures.utility.volumetric import arm_difference, mean_dice, volume_scores
from cmri_lib.reporting import (
    claims, figures, metrics, primary_tests, results, review, utility_plots)
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
slices = load_slices(study)
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
compared = {one.id: arms.alone_arm(study, slices, one, 1.0, arms.TEACHING)
            for one in arms.compared_systems(study)}
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
differences = []
for name, arm in compared.items():
    for column, metric in COMPARED.items():
        effect = arm_difference(scores[arm.id], scores[real.id], column, **options)
        differences.append({"group": labels[name], "arm": name, "family": arm.family,
                            "metric": metric, "better": "higher" if column == "dice" else "lower",
                            "value": effect.value, "low": effect.low, "high": effect.high,
                            "n": effect.n})
differences = pd.DataFrame(differences)

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
# slices. Compare within a group first: there the labels are the same, and the images make the
# difference. Two systems whose intervals overlap widely may well change places.
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
# The next cell reads their tables and puts each measure beside the Dice of the student. For
# agreement with a mask, only systems with a mask have a value.

# %%
FORETELLING = [ANATOMY, APPEARANCE, HEARTS, "kid_study", "frechet_study", "c2st_image",
               "dice_mean", "seconds_per_image"]
known = results.union(study.root)
known = known[(known["dataset"] == study.dataset) & (known["profile"] == study.profile)]
known = known[known["metric"].isin(FORETELLING) & known["system"].isin(compared)]
known = known.drop_duplicates(["system", "metric"])
taught = pd.DataFrame([
    {"system": name, "labels": labels[name], "dice": mean_dice(scores[arm.id], **options).value}
    for name, arm in compared.items()])
beside = known[["system", "family", "metric", "better", "value"]].merge(taught, on="system")

# %%
FEWEST_SYSTEMS = 5
found, correlations = [], []
for metric in FORETELLING:
    part = beside[beside["metric"] == metric].dropna(subset=["value", "dice"])
    if len(part) < FEWEST_SYSTEMS:
        continue
    rho = rank_correlation(part["value"], part["dice"], **options)
    found.append(part.assign(correlation=rho.value, low=rho.low, high=rho.high, n=rho.n))
    correlations.append({"metric": metric, "ρ": rho.value, "low": rho.low, "high": rho.high,
                         "systems": rho.n, "better": part["better"].iloc[0]})
foretelling = pd.concat(found) if found else pd.DataFrame()
figures.publish(study, "17/foretold", foretelling, utility_plots.foretold,
                title="Dice of the student against measures that need no student");

# %% [markdown]
# **How to read it.** A panel for each measure; the arrow says which of its values are better. A
# measure that is better when *lower* foretells utility if $\rho$ is near −1, one that is better
# when *higher* if $\rho$ is near 1. Near 0 it says nothing about what samples are worth. Colours
# are families, marks say where labels come from. Look whether a correlation is one within each kind
# of mark, or only the gap between two kinds: exercise 3 asks for this.
#
# The next table has the same correlations over all systems, and within those that follow the masks
# of training patients, where all labels are equally right.

# %%
def within(metric, source=None):
    """The rank correlation of a measure with the student's Dice, over all systems or one source."""
    part = beside[beside["metric"] == metric].dropna(subset=["value", "dice"])
    part = part if source is None else part[part["labels"] == source]
    return rank_correlation(part["value"], part["dice"], **options) if len(part) > 2 else None


table = pd.DataFrame(correlations)
of_masks = [within(metric, SOURCES[0]) for metric in table.get("metric", [])]
table["ρ, masks of patients"] = [np.nan if rho is None else rho.value for rho in of_masks]
table.assign(metric=table["metric"].map(metrics.title)).set_index("metric").round(2) if len(
    table) else "too few systems have been measured"

# %% [markdown]
# ## The claim
#
# **T1** holds for a system if less than one Dice point is lost against real slices. These tests are
# exploratory. They are many, so of systems that only just reach the margin some do so by chance.
# A test is *not testable at this budget* if the system shows no hearts (notebooks 06 to 08).

# %%
ledger = claims.Ledger(claims.unfit(known))
for name, arm in compared.items():
    ledger.explore("T1", f"{name} alone − real", arm_difference(
        scores[arm.id], scores[real.id], **options), "downstream_dice", "above",
        -primary_tests.ONE_POINT, parties=[name])
ledger.table("T1").set_index("test")[["effect", "low", "high", "p", "verdict"]].sort_values(
    "effect", ascending=False)

# %% [markdown]
# All rows are written to the results of the study; notebook 13 shows them beside fidelity and
# privacy. C16 has its rows from notebook 09, which trains several students of it.

# %%
rows = []
for name, arm in compared.items():
    if name == arms.MAIN:
        continue
    measured = arm_rows(students[arm.id], test, scores[real.id], tables=scores[arm.id], **options)
    rows += [row | {"system": name} for row in measured if row["metric"] in COMPARED.values()]
table = results.write_scores(study, "17_whose_samples_teach", rows)
results.write_claims(study, "17_whose_samples_teach", ledger.rows, elsewhere=["T1"])
table.pivot(index="system", columns="metric", values="value").rename(columns=metrics.short).round(3)

# %% [markdown]
# ## Check
#
# No student has met a test patient. And the control: the samples of one system, each with the mask
# of another sample. Its student must be worse than the one with the right masks, whole interval
# included. The `smoke` profile trains too shortly for that, so there the cell only runs.

# %%
assert not any(s.patients & set(test.patients) for some in students.values() for s in some)
main = compared[arms.MAIN]
samples = draw_samples(study, main, slices)
shuffled = np.random.default_rng(study.seed).permutation(len(samples))
wrong = Slices(samples.images, samples.masks[shuffled], samples.table)
model = fit(baseline(NETWORK), wrong, params.utility.training,
            study.work(arms.TEACHING) / "wrong-labels")
misled = volume_scores(frozen(model, study.seed)(test.images), test)
lost = arm_difference([misled], scores[main.id], **options)
print(f"{arms.MAIN}, masks of other samples − its own: {lost.value:+.3f} Dice "
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
gaps = [arm_difference([dice[a]], [dice[b]], seed=study.seed, resamples=100) for a, b in pairs]
apart = sum(not gap.low <= 0 <= gap.high for gap in gaps)
print(f"{apart} of {len(pairs)} pairs differ by more than chance between patients")
# The intervals are over patients only: both students were trained once. With other seeds fewer
# pairs would differ. A ranking is a list of groups, not a list of places.

# %% [markdown]
# ### 2. Where do samples teach badly?
#
# Compare the first and the last system that follow masks of patients, and real slices, by the level
# of the slice. Is the loss the same at base, middle and apex?

# %% tags=["solution"]
masked = [name for name in ranked["arm"] if labels[name] == SOURCES[0]]
chosen = [students[real.id], *(students[compared[name].id] for name in (masked[0], masked[-1]))]
by_level = pd.DataFrame(group_rows(chosen, test, ["level"], seed=study.seed, resamples=50))
print(by_level.pivot(index="arm", columns="group", values="value").round(3) if len(by_level)
      else "too few patients")
# The base and the apex are harder for every student. A system whose images are blurred or off their
# masks loses most where structures are small: at the apex.

# %% [markdown]
# ### 3. One correlation, or the gap between two groups?
#
# Take the distance of anatomy. Compute its rank correlation with the student's Dice within each
# source of labels. Do the groups agree with the correlation over all systems? What would it mean if
# all were near 0, and the overall one were not?

# %% tags=["solution"]
for source in (None, *SOURCES):
    rho = within(ANATOMY, source)
    print(f"{source or 'all systems'}:",
          "too few systems" if rho is None else f"ρ = {rho.value:+.2f}, n = {rho.n}")
# If the groups had none and all systems had one, the measure would only tell the groups apart
# (Simpson's paradox): those with true masks have better labels *and* other distances.

# %% [markdown]
# ## Summary
#
# The next cell prints the findings of this run. Read the notes below together with the numbers.

# %%
for source, part in ranked.groupby("group", sort=False):
    best, worst = part["arm"].iloc[0], part["arm"].iloc[-1]
    print(f"{source}: best {best} ({gain[best]:+.3f} Dice to real slices), "
          f"last {worst} ({gain[worst]:+.3f})")
verdicts = pd.DataFrame(ledger.rows)["verdict"].value_counts()
print("T1, all systems:", ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items()))
for row in sorted(correlations, key=lambda row: -abs(row["ρ"])):
    print(f"{metrics.short(row['metric'])}: ρ = {row['ρ']:+.2f} [{row['low']:+.2f}, "
          f"{row['high']:+.2f}], {row['systems']} systems")

# %% [markdown]
# 1. **Labels first.** A system without a mask borrows its labels from a segmenter that has seen
#    real ones. Compare systems within a group; across groups the labels differ too.
# 2. **Hearts are necessary, not sufficient.** Samples that show no hearts teach little. Among those
#    that do, small differences of a distance say little about what they teach.
# 3. **Measure what you need.** A measure of fidelity that does not order systems by utility is not
#    wrong. It answers another question.
#
# ## Limits
#
# - Each student of samples was trained once, from samples of one training of its generator. The
#   intervals know how much students differ, not how much generators do.
# - All patients teach here. With few of them the order may change (notebook 09).
# - Systems that share a first stage or a pretrained network are not independent, so intervals of
#   rank correlations are rather too narrow.
# - The masks of training patients are private data. A system that needs them to draw samples cannot
#   be handed out without a source of masks (notebook 08).
# - One segmenter of one size. Systems that translate an image of the same patient (C11, C13, C17,
#   C19), and that which draws whole stacks (C7), have their own tests in notebooks 10 and 14 to 16.
