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
# # 07 · Conditioning: what a generator is given, and by which method
#
# **Which profile shows what.** The `smoke` profile only checks that the notebook runs; its
# numbers mean nothing. The `laptop` profile is a workshop's budget: it shows how things work,
# not which family wins. Compare families only under the larger profiles of `params.yaml`.
#
# **Question.** A generator can be given a mask, a vendor, a phase, a disease. What does each of
# them improve? How much of the mask is enough? Does it matter by which method the mask enters
# the network?
#
# **What the review says.** Six claims, called M1 to M6 in this study:
#
# - M1: masks improve anatomical consistency and downstream use.
# - M2: masks of several structures are better than masks of the LV cavity alone.
# - M3: SPADE has the best fidelity for its cost, and it beats Pix2Pix.
# - M4: concatenation, SPADE and ControlNet differ in how closely the anatomy follows the mask.
# - M5: several conditions at once improve consistency.
# - M6: better labels are worth more than more data.
#
# The review compares published papers, which differ from each other in everything. Here one
# thing differs at a time.

# %% [markdown]
# ## Method
#
# ### Terms
#
# - A **mask** (or label map) is an image of labels. It says for every pixel whether it belongs
#   to the left ventricular cavity (LV), the myocardium (Myo), the right ventricular cavity (RV)
#   or the background.
# - A **condition** is what a generator is given besides noise: a mask, or categories such as
#   vendor, phase (ED or ES) and disease. A **conditional** generator has at least one condition.
#   An **unconditional** generator has none.
# - The **conditioning method** is the part of the network through which a condition enters.
# - An **ablation** is an experiment that changes one part of a system and keeps the rest.
# - A **pretrained** network is one whose weights come from an earlier training.
#
# ### The design of the ablation
#
# The ablation is a factorial design. It crosses three factors:
#
# - the **content of the mask**: none, the LV cavity, LV + Myo + RV, every tissue of the slice;
# - the **conditioning method**: concatenation, SPADE, ControlNet;
# - the **family** of the generator: GAN, diffusion, flow matching.
#
# All systems of a family start from the same pretrained unconditional network. All of them are
# trained for the same number of further steps. The unconditional system of the family is trained
# for as many further steps without a condition, so the steps alone explain no difference.

# %% [markdown]
# ### The three conditioning methods
#
# Let $m$ be the mask, $h$ the features of a layer, and $x_t$ the noisy image.
#
# - **Concatenation** (Isola et al. 2017, Pix2Pix). The network's input is
#   $[x_t, \mathrm{onehot}(m)]$. The weights of the new input channels start at zero.
# - **SPADE** (Park et al. 2019). Normalised features are scaled and shifted at every pixel,
#   $\gamma(m) \odot \mathrm{norm}(h) + \beta(m)$. A small network computes $\gamma$ and $\beta$
#   from the mask.
# - **ControlNet** (Zhang et al. 2023). The pretrained network is frozen. A trained copy of its
#   first half also sees the mask. What the copy computes is added to the features of the frozen
#   network through convolutions that start at zero, $h + Z(h_\mathrm{copy}(x_t, m))$. The
#   generator of a GAN has no first half to copy. There, an encoder of the mask takes the place
#   of the copy (T2I-Adapter, Mou et al. 2023).
#
# **Classifier-free guidance** (Ho & Salimans 2022) strengthens a condition when samples are
# drawn. In training, the condition is sometimes dropped (**condition dropout**), so the network
# can also run without it. Sampling then extrapolates from the output without the condition,
# $f_\varnothing$, to the output with it, $f_c$:
#
# $$f = f_\varnothing + w\,(f_c - f_\varnothing).$$
#
# The guidance scale $w$ is chosen by the user. $w = 0$ ignores the condition, and $w = 1$ is the
# plain conditional network.

# %% [markdown]
# ### What is measured
#
# - **Adherence**: does the heart lie where the mask says? A frozen segmenter, trained on real
#   images, segments each sample. The **Dice** coefficient $2|A \cap B| / (|A| + |B|)$ compares
#   its result with the mask that was given. **HD95**, the 95 % Hausdorff distance in mm,
#   compares the outlines. A second segmenter, of another architecture, gives a Dice of its own: a
#   sample must not merely please one network.
# - **Valid hearts**: the share of samples in which the segmenter sees a plausible heart: one
#   LV, one closed wall, one RV beside it, sizes within those of training patients.
# - **Distance of anatomy**: how far samples are from real images in the deepest layer of the
#   segmenter, the bottleneck of its U-Net: there it has recognised a heart, but not yet drawn its
#   outline. It sees hearts and hardly sees a mild blur.
# - **Distance of appearance**: the same in the energies of Gabor filters, small wave patterns of
#   several sizes and directions. It sees texture and blur, but not whether the parts of a heart are
#   in place.
#
# Both distances are an MMD (maximum mean discrepancy): how alike samples are to real images,
# compared with how alike real images are to each other. Lower is better, and a system must do well
# in both. Samples are compared with patients whose masks were *not* used as conditions.
#
# - **Condition accuracy**: a frozen classifier, trained on real images, recognises the vendor,
#   the phase or the disease in a sample. The balanced accuracy says how often it finds what the
#   generator was asked for.
# - **TSTR** (train on synthetic, test on real): a segmenter is trained on samples alone and
#   tested on real patients. Such a segmenter is called a **student** here.
#
# Every value has a **floor** and a **ceiling** for comparison. For distances and valid hearts, the
# floor is what real patients score against other real patients. For Dice and condition accuracy,
# the ceiling is what real test images score. Intervals are 95 % bootstrap intervals over
# patients.

# %% tags=["parameters"]
profile = None  # None: as params.yaml says
dataset = None

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from cmri_lib.cohort import requirements
from cmri_lib.cohort.cardiac_function import with_phenotypes
from cmri_lib.cohort.case import LABELS
from cmri_lib.cohort.slices import concatenate
from cmri_lib.cohort.vocabulary import Vocabulary
from cmri_lib.config.study import open_study

# %%
from cmri_lib.experiments.ablation_runs import fewer_label_runs, noisy_label_runs
from cmri_lib.experiments.banks import draw_bank, sampling_conditions
from cmri_lib.experiments.evaluator import Evaluator
from cmri_lib.experiments.instruments import load_slices
from cmri_lib.experiments.learning_curves import LearningCurves
from cmri_lib.experiments.parallel import train_all
from cmri_lib.experiments.training import (
    cost_rows, of_pairs, runs_over_seeds, train_or_load, training_patients, training_slices)
from cmri_lib.generators.base import draw
from cmri_lib.generators.guidance import guided
from cmri_lib.measures.anatomy.adherence import agreement
from cmri_lib.measures.conditioning import (
    condition_accuracy, fixed_mask, paired_truth, volume_accuracy)

# %%
from cmri_lib.measures.utility import downstream
from cmri_lib.reporting import (
    claims, figures, metrics, plots, primary_tests, results, review)
from cmri_lib.reporting.axes import interval
from cmri_lib.reporting.primary_tests import ANATOMY, APPEARANCE, HEARTS
from cmri_lib.systems.ablation import (
    COMPARED, COMPARED_SETS, CONDITION_SETS, FAMILIES, NO_CONDITION, ablation_system,
    ablation_systems, condition_set_system)
from cmri_lib.systems.conditional import CONDITIONAL
from cmri_lib.systems.system import Run, file_name, runs

# %% [markdown]
# ### The data
#
# The next cell opens the study and loads the preprocessed slices. Phenotypes such as the ejection
# fraction are added to the table, because one system of the review is conditioned on them. A
# **vocabulary** lists what this cohort can be conditioned on.

# %%
study = open_study(profile, dataset)
params = study.params
figures.use_style()
pd.set_option("display.max_colwidth", None)
slices = with_phenotypes(load_slices(study))
test, training = slices.where(split="test"), slices.where(split="train")
vocabulary = Vocabulary.of(slices)
print(f"profile {study.profile}, cohort {study.dataset}, every tissue: {vocabulary.tissues}")
pd.DataFrame([(column, ", ".join(names)) for column, names in vocabulary.categories.items()],
             columns=["condition", "categories in this cohort"])

# %% [markdown]
# What this cohort does not have, the notebook leaves out. The next cell says it in words.

# %%
outlook = requirements.outlook(slices)
outlook.need("networks trained on this cohort", "distance to real patients")
print(outlook.left_out("07"))

# %% [markdown]
# ### The evaluator
#
# The **evaluator** is the part of this study that scores samples. It holds one set of conditions
# (masks of test patients), the frozen networks and the measures. Every system is scored by the
# same evaluator, so differences come from the systems.
#
# The table shows what real images score in the place of samples. Keep these values in mind: no
# generator can be expected to do better.

# %%
evaluator = Evaluator(study, slices, params.conditional.samples, "brief")
options = evaluator.options
print(len(evaluator.conditions), "conditions, from",
      evaluator.conditions.table["patient"].nunique(), "of",
      test.table["patient"].nunique(), "test patients")
real_scores = pd.DataFrame(evaluator.real_rows()).set_index("metric")
real_scores.rename(index=metrics.title)[["value", "low", "high", "ceiling"]].round(3)

# %% [markdown]
# A small function shows results as a table: chosen metrics, one row per system. Quality is always
# shown by the same three: the two distances and the share of valid hearts.

# %%
QUALITY = [ANATOMY, APPEARANCE, HEARTS]


def score_table(rows, systems, names):
    """Values of the metrics `names`, one row per system."""
    wide = pd.DataFrame(rows).pivot(index="system", columns="metric", values="value")
    chosen = wide.loc[list(systems)].reindex(columns=list(names))
    return chosen.rename(columns=metrics.short).round(3)


# %% [markdown]
# ## The ablation
#
# `ablation_systems` lists the systems of the design. The content "every tissue" exists only in a
# cohort that has labels for every tissue. The table below shows which conditioning methods are
# combined with which content.

# %%
entries = list(ablation_systems(vocabulary, params.conditional.contents))
ablation_runs = runs([system for *_, system in entries])
design = pd.DataFrame([(*factors, system.id) for *factors, system in entries],
                      columns=["family", "content", "method", "system"])
listed = design.groupby(["family", "content"], sort=False)["method"].agg(", ".join)
listed.unstack().loc[list(FAMILIES), list(design["content"].unique())]

# %% [markdown]
# Now every system is trained, or loaded if its training is already stored. Each system draws one
# sample for each condition. All systems get the same masks, and their noise has the same seed.
# The set of samples of one system is called its **bank**. The evaluator scores each bank, and
# the cost of training and sampling is noted.

# %%
train_all(study, ablation_runs, slices)
AT_ONCE = 4  # images drawn together when sampling is timed
kept = set(design.loc[design["content"].isin(["none", "labels", "cavity"]), "system"])
scores, banks, generators = [], {}, {}
for run in ablation_runs:
    generator = train_or_load(study, run, slices)
    banks[run.id] = evaluator.bank(run, generator)
    scores += evaluator.rows(run, banks[run.id])
    scores += cost_rows(study, run, generator, evaluator.conditions, images=AT_ONCE)
    if run.id in kept:  # later sections draw from these again
        generators[run.id] = generator
score_table(scores, design["system"],
            ["dice_mean", "hd95_LV_mm", *QUALITY, "seconds_per_image"])

# %% [markdown]
# The names of the rows give family, content and method. An unconditional system has no Dice,
# because there is no mask to compare its samples with.
#
# The figure shows the same numbers with their intervals.

# %%
numbers = pd.DataFrame(scores).merge(design[["system", "content", "method"]], on="system")
shown = numbers[numbers["metric"].isin(["dice_mean", *QUALITY])]
figures.publish(study, "07/ablation", shown, plots.ablation_design,
                title="Ablation: content of the mask, conditioning method and family");

# %% [markdown]
# **How to read it.** Each column of panels is a family. From left to right within a panel, the
# mask says more. Colours are conditioning methods. The dashed line is what real images score:
# the segmenter's own Dice, the share of real slices with a valid heart, and the distances of real
# patients to other real patients.
#
# - Follow one colour from left to right: this is the effect of the content (claim M2).
# - Compare colours at one position: this is the effect of the method (claims M3 and M4).
# - Compare the first position with the others: this is the effect of a mask at all (claim M1).
#
# Numbers do not show what a sample looks like. The next figures show samples of the ablation
# under the same masks, one figure per family. The outlines are those of the mask that was given.
# To keep the figures small, contents are shown for concatenation, and methods for the content
# LV + Myo + RV.

# %%
def evenly(bank, count):
    """Positions of `count` slices, spread over a bank."""
    return np.linspace(0, len(bank) - 1, min(count, len(bank))).astype(int)


columns = evenly(evaluator.conditions, 8)
is_shown = (design["content"] == "labels") | design["method"].isin(["none", "concat"])
for family, part in design[is_shown].groupby("family", sort=False):
    rows = {"real": evaluator.conditions.take(columns)}
    for name in part["system"]:
        rows[review.system(name)] = banks[name].take(columns)
    figures.publish_slices(study, f"07/ablation_samples_{family.lower()}", rows,
                           title=f"Samples of the ablation under the same masks: {family}")

# %% [markdown]
# **How to read it.** Each column is one mask. Go down a column: in a good sample the dark wall
# and the bright cavities fill the outlines. The first row below the real slices is the
# unconditional system, which has no outlines. At content "LV cavity" all outlines are drawn, but
# the system was given the innermost one alone.
#
# ### What a mask leaves open
#
# A mask fixes the anatomy. It does not fix the contrast, the noise or the organs around the
# heart. A good generator therefore draws different images for one mask. A generator that draws
# the same image every time ignores its noise, and its samples add nothing to the masks.
#
# The next cell draws the same masks several times, each time with other noise. It measures how
# similar the images of one mask are (MS-SSIM, 1 for identical images), and how much pixels vary
# inside and around the heart.
#
# How much *should* they vary? The phantom gives a reference: some of its patients were scanned
# by every vendor. The true scans of one heart differ by the scanner alone. They are the floor
# here. A cohort without such patients uses samples of different masks as the floor.

# %%
paired = bool(outlook["true scans of one heart"])
truth = paired_truth.truths(test) if paired else None
reference = None
if paired:
    true_rows = fixed_mask.true_scan_diversity(truth, **options)
    reference = {row["metric"]: row["value"] for row in true_rows}
print("true scans of one heart by different vendors:", reference or "none in this cohort")

# %%
def over_patients(bank, count):
    """Positions of `count` slices of as many patients as there are, from the middle of each."""
    off_middle = (bank.table["height"] - 0.5).abs()
    turn = off_middle.groupby(bank.table["patient"]).rank(method="first")
    return np.sort(np.argsort(turn.to_numpy(), kind="stable")[:count])


draws = params.conditional.draws
masks = evaluator.conditions.take(over_patients(evaluator.conditions, params.conditional.masks))
conditions = fixed_mask.repeated(masks, draws)
followers = design.query("content == 'labels'")["system"]
varied = {}
for run in [run for run in ablation_runs if run.id in set(followers)]:
    varied[run.id] = draw(generators[run.id], conditions, run.id, seed=study.seed + 1)
    measured = fixed_mask.fixed_mask_diversity(varied[run.id], draws, floor=reference, **options)
    scores += results.with_system_columns(run, measured)
score_table(scores, followers, fixed_mask.ROWS)

# %%
repeats = np.arange(draws) * len(masks) + len(masks) // 2  # all draws of the middle mask
rows = {review.system(name): varied[name].take(repeats) for name in followers}
figures.publish_slices(study, "07/fixed_mask", rows, outline=False,
                       title="One mask, drawn several times with other noise");

# %% [markdown]
# **How to read it.** Each row is one system, and all images of the figure were drawn for the same
# mask. Identical images in a row mean an MS-SSIM of 1. In the table, compare a system with the
# true scans printed above: a higher similarity means that the system varies less than real
# scanners do. Varying more than real scanners is no merit either.

# %% [markdown]
# ## The systems of the review
#
# The ablation compares parts. This section compares whole systems that the review describes.
#
# - C1 to C4 are mask-to-image GANs; C3 is also given the vendor.
# - C6 is a GAN of age, body mass index and phase, without a mask.
# - C8 is MaskGIT of ejection fraction, volumes and phase.
# - C9 is latent diffusion of a prompt, with or without a ControlNet; C10 of a mask by SPADE.
# - C12 is diffusion of a mask with parts erased. C14 is diffusion of a mask and a short code of the
#   scanner's look.
# - C15 is latent diffusion of disease and vendor.
# - C16 is flow matching of a mask: by ControlNet, or by SPADE with vendor, phase and disease.
#
# Most diffusion models and flows start from the unconditional systems of notebooks 04 and 05.
# The GANs and C15 are trained from random weights. All are trained for longer than a system of
# the ablation. Each is scored with every measure of notebook 06, and its bank is saved for later
# notebooks.
#
# One system, C15, learns from disease and vendor. A few pairs of the two are withheld from its
# training, and from the training of its autoencoder. A later section asks it for these pairs.

# %%
review_runs = runs(CONDITIONAL)
train_all(study, review_runs, slices)
full_evaluator = Evaluator(study, slices, params.conditional.bank, "all")
review_scores, review_banks = [], {}
for run in review_runs:
    generator = generators[run.id] = train_or_load(study, run, slices)
    bank = draw_bank(study, run, generator, full_evaluator.conditions)
    review_scores += full_evaluator.rows(run, bank)
    review_scores += cost_rows(study, run, generator, full_evaluator.conditions)
    review_banks[run.id] = bank
pd.DataFrame({"family": {run.id: run.family for run in review_runs},
              "conditioning": {run.id: run.conditioning for run in review_runs}})

# %%
measured = metrics.headline(row["metric"] for row in review_scores)
score_table(review_scores, CONDITIONAL, measured)

# %% [markdown]
# The table has all headline metrics. The figure shows some of them with their intervals. Systems
# without a mask have no Dice: nothing says where their heart should be.

# %%
chosen = ["dice_mean", *QUALITY, "coverage_study", "ms_ssim_pairs", "c2st_image",
          "seconds_per_image"]
reviewed = pd.DataFrame(review_scores)
figures.publish(study, "07/systems", reviewed[reviewed["metric"].isin(chosen)], plots.score_plot,
                title="The review's conditional systems: anatomy, fidelity and cost");

# %% [markdown]
# **How to read it.** Dice and the distances answer different questions. A system may follow its
# mask closely and still look unlike real images, or the other way round. Look for systems that are
# good in Dice and in both distances. A high MS-SSIM between pairs of samples is a warning: the
# samples resemble each other.
#
# The next figure shows one row per system. Each column is one real slice, and what every system
# draws when it is given the conditions of that slice.

# %%
columns = evenly(full_evaluator.conditions, 8)
rows = {"real": full_evaluator.conditions.take(columns)}
rows |= {name: review_banks[name].take(columns) for name in CONDITIONAL}
figures.publish_slices(study, "07/one_mask", rows,
                       title="One mask through every conditional system of the review");

# %% [markdown]
# Rows with outlines are systems that are given the mask. In the other rows, the position and the
# size of the heart need not agree with the real slice at the top.

# %% [markdown]
# ## Condition accuracy
#
# A mask can be checked with a segmenter. Vendor, phase and disease are checked with a
# classifier. One classifier per condition is trained on real training images and then frozen. It
# is used only for conditions that differ between training patients and between test patients. A
# disease shows in a whole heart rather than in one slice. So it is also read from the volumes of
# LV, myocardium and RV, which the frozen segmenter measures in all slices of a phase.

# %%
classifiers = {}
for column in outlook["condition accuracy"].kept:
    classifiers[column] = condition_accuracy.train_condition_classifier(
        training, evaluator.spaces[0], column)
reader = volume_accuracy.train_volume_reader(training) if "disease" in classifiers else None
print("classifiers:", ", ".join(classifiers) or "none")

# %% [markdown]
# Each classifier now looks at the samples. A system is scored only on the conditions it is given.
# Where all of its samples were asked for one and the same category, or for those of fewer than
# three patients, there is nothing to score; the cell says so.

# %%
def accuracies(bank, columns):
    """Condition accuracy of a bank, one row for each of the `columns` that can be scored."""
    lacks = {c: condition_accuracy.lacking(classifiers[c], test, bank) for c in columns}
    for column in [column for column in columns if lacks[column]]:
        print(f"{bank.table['source'].iloc[0]}, {column}: left out, {lacks[column]}")
    return [condition_accuracy.condition_accuracy(test, bank, classifiers[c], **options)
            for c in columns if not lacks[c]]

# %%
for run in review_runs:
    given = [c for c in classifiers if c in generators[run.id].conditioning.fields]
    rows = accuracies(review_banks[run.id], given)
    review_scores += results.with_system_columns(run, rows)
reviewed = pd.DataFrame(review_scores)
recognised = reviewed[reviewed["metric"].isin([f"accuracy_{c}" for c in classifiers])]
figures.publish(study, "07/condition_accuracy", recognised, plots.score_plot,
                title="Condition accuracy: is the requested condition seen in the sample?");

# %% [markdown]
# **How to read it.** The floor is chance, one in the number of categories. The ceiling is the
# accuracy on real test images. If floor and ceiling are close together, real images hardly show
# the condition in one slice, and the panel says little. This is to be expected of the disease:
# it shows in a whole heart over a beat, and not in one slice.

# %% [markdown]
# ## Is somebody copied?
#
# A sample can follow the mask of a test patient and still show a training patient around it. The
# **audit** of notebook 06 asks, in the study's features and in pixels, whether samples lie nearer
# to training patients than to hold-out patients. Real test images are the floor.

# %%
copy_rows = []
for run in review_runs if outlook["near-copy audit"] else ():
    learnt_from = training_slices(run, slices)[0]
    for audit in full_evaluator.audits(review_banks[run.id], learnt_from).values():
        copy_rows += results.with_system_columns(run, audit.rows)
review_scores += copy_rows
copied = pd.DataFrame(copy_rows, columns=list(reviewed.columns))
figures.publish(study, "07/near_copies", copied, plots.score_plot,
                title="Are samples nearer to training patients than real test images are?");

# %% [markdown]
# **How to read it.** The dashed line is what real test images score. The dotted line is what copies
# would score. The excess of the nearest share is the fairest of the panels: 0 is no memory, however
# sharp the samples are. Blurred samples lie near to every image, so they have more near copies.

# %% [markdown]
# ## Several conditions, one by one
#
# Claim M5 is about several conditions at once. Four flows are compared here. They start from the
# same pretrained network, are trained for the same number of steps, and drop each condition
# equally often. The first one is given the mask alone. The others are given more:
#
# - the mask and the vendor;
# - the mask, the vendor, the phase and the disease;
# - the mask and a prompt. The prompt says the vendor, the phase, the disease and the level of the
#   slice, as tokens that enter by cross-attention.

# %%
mask_run = Run(ablation_system("flow", "labels", "concat"))
set_runs = {name: Run(condition_set_system("flow", name)) for name in CONDITION_SETS}
train_all(study, set_runs.values(), slices)
for run in set_runs.values():
    generator = generators[run.id] = train_or_load(study, run, slices)
    banks[run.id] = evaluator.bank(run, generator)
    scores += evaluator.rows(run, banks[run.id])
    scores += cost_rows(study, run, generator, evaluator.conditions, images=AT_ONCE)
compared = list(set_runs.values())
score_table(scores, [run.id for run in compared], ["dice_mean", *QUALITY])

# %% [markdown]
# The classifiers look at these samples too. They also look at the samples of the mask alone: a
# mask betrays something about the phase and the disease by itself. Only what a system scores
# *above* the mask alone is due to the added condition.

# %%
for run in compared:
    scores += results.with_system_columns(run, accuracies(banks[run.id], list(classifiers)))
    if reader is not None:
        scores += results.with_system_columns(run, [volume_accuracy.volume_accuracy(
            test, banks[run.id], reader, evaluator.segmenter, **options)])
followed = ["dice_mean", *QUALITY, *(f"accuracy_{c}" for c in classifiers),
            "accuracy_disease_volumes"]
sets = pd.DataFrame(scores)
sets = sets[sets["system"].isin([run.id for run in compared]) & sets["metric"].isin(followed)]
figures.publish(study, "07/condition_sets", sets, plots.score_plot,
                title="One flow, given more and more conditions");

# %% [markdown]
# **How to read it.** Down the first three rows conditions are added; the last row gives them as a
# prompt. Look at two things: does the accuracy of a condition rise when it is added, and do Dice or
# a distance get worse at the same time? The training budget is the same for all, so a network with
# more conditions has to learn more from as many images.
#
# ### Guidance
#
# Classifier-free guidance makes a flow follow its conditions more closely, without further
# training. The next cell draws the bank of the flow with mask, vendor, phase and disease at
# several guidance scales $w$.

# %%
rich_run = set_runs["mask + vendor + phase + disease"]
guidance = []
for scale in params.conditional.guidance:
    with guided(generators[rich_run.id], scale) as flow:
        bank = evaluator.bank(rich_run, flow)
    for row in evaluator.rows(rich_run, bank) + accuracies(bank, list(classifiers)):
        guidance.append({"system": rich_run.id, "scale": scale, **row})
guidance = pd.DataFrame(guidance)
guidance = guidance.loc[guidance["metric"].isin(followed), [
    "system", "scale", "metric", "value", "low", "high", "n", "better", "floor", "ceiling"]]
guidance.pivot(index="scale", columns="metric", values="value").rename(
    columns=metrics.short).round(3)

# %%
def draw_guidance(table):
    """Every metric against the guidance scale; dashed: what real images score."""
    names = list(table["metric"].unique())
    figure, axes = plt.subplots(2, -(-len(names) // 2), figsize=(9, 5), squeeze=False)
    axes[-1, -1].set_visible(len(names) == axes.size)
    for axis, name in zip(axes.flat, names):
        part = table[table["metric"] == name]
        axis.errorbar(part["scale"], part["value"], interval(part), marker="o", capsize=2)
        for real in figures.real_values(part, name):
            axis.axhline(real, ls="--", lw=1, color=figures.REAL_COLOUR)
        axis.set(xlabel="guidance scale w", xticks=part["scale"],
                 ylabel=metrics.direction(name, part["better"].iloc[0]))
        axis.set_title(figures.wrapped(metrics.label(name), 2.0), fontsize=figures.SMALL)
    figures.legend_below(figure, figures.reference_handles(table, ["real"]))
    return figure

# %%
figures.publish(study, "07/guidance", guidance, draw_guidance,
                title="Classifier-free guidance of a flow with mask, vendor, phase and disease");

# %% [markdown]
# **How to read it.** At $w = 0$ the conditions are ignored, so Dice should be low. At $w = 1$ the
# flow is the plain conditional network. Beyond 1 the conditions are exaggerated. Ho & Salimans
# describe a trade: with a larger $w$ samples follow their condition more closely, and they lose
# variety. Look for it here: do Dice and condition accuracy rise with $w$, and from which scale on
# does a distance get worse, and which?

# %% [markdown]
# ## The truth that only the phantom has
#
# Some patients of the phantom were scanned by every vendor. A generator is given the mask of
# one of these scans and the vendor. The scan that this vendor really took of this very heart is
# the true answer. The samples are compared with it:
#
# - the similarity of the heart region to the true scan (SSIM, and PSNR in dB);
# - the gain in SSIM over the scans by the other vendors;
# - the style match: the share of samples whose tissue intensities are nearest to those of the
#   vendor asked for. Chance is one in the number of vendors.
#
# All systems that are given both a mask and a vendor take part. The flow with the mask alone is
# added for comparison: what it scores is not due to the vendor. A cohort without such patients
# leaves this figure empty.

# %%
with_vendor = [mask_run]
for run in [*review_runs, *set_runs.values()]:
    if {"mask", "vendor"} <= set(generators[run.id].conditioning.fields):
        with_vendor.append(run)
true_scores = []
if paired:
    conditions = truth.conditions()
    step = max(1, len(conditions) // params.conditional.samples)
    conditions = conditions.take(np.arange(0, len(conditions), step))
    for run in with_vendor:
        samples = draw(generators[run.id], conditions, run.id, seed=study.seed)
        measured = paired_truth.against_truth(truth, samples, **options)
        true_scores += results.with_system_columns(run, measured)
print("given a mask and a vendor:", ", ".join(run.id for run in with_vendor[1:]))

# %%
scores += true_scores
true_table = pd.DataFrame(true_scores, columns=list(pd.DataFrame(scores).columns))
figures.publish(study, "07/truth", true_table, plots.score_plot,
                title="Samples beside the true scan of the same heart by the same vendor");

# %% [markdown]
# **How to read it.** No generator can predict the noise of a scan, so an SSIM of 1 is out of reach.
# The style match is the clearest of the four: compare a system with chance, and with the flow
# that is given the mask alone.
#
# The next figure shows one anatomy through every vendor, where there are several. Where there are
# true scans, they are in the first row.

# %%
vendors = truth.vendors if paired else list(vocabulary.categories["vendor"]) or ["unknown"]
if paired:
    middle = [len(truth.anatomies) // 2]
    heart = truth.scans[vendors[0]].take(middle)
    rows = {"true scans": concatenate([truth.scans[v].take(middle) for v in vendors])}
else:
    heart = evaluator.conditions.take([len(evaluator.conditions) // 2])
    rows = {"real": heart}

# %%
if len(vendors) > 1:
    requests = concatenate([heart.with_columns(vendor=vendor) for vendor in vendors])
    for run in with_vendor:
        label = review.system(run.id).replace(" + ", "\n+ ")
        rows[label] = draw(generators[run.id], requests, run.id, seed=study.seed)
    figures.publish_slices(study, "07/vendors", rows, titles=vendors,
                           title="One anatomy in the style of every vendor")
else:
    print("scans of one vendor: there is no other style to ask for")

# %% [markdown]
# A system that uses the vendor changes contrast and texture from column to column, and leaves the
# anatomy as it is. The flow with the mask alone differs between columns by its noise alone.

# %% [markdown]
# ### Pairs of disease and vendor that were never seen
#
# C15 was trained without the slices of a few pairs of disease and vendor. It saw each of these
# diseases from other vendors, and each of these vendors with other diseases. Now it is asked for
# the withheld pairs. Can the classifiers recognise both parts of the pair?

# %%
c15 = next(run for run in review_runs if run.system.withheld)
withheld = requirements.withheld_pairs(slices.table)
pair_banks = {}
if outlook["pairs of disease and vendor withheld (C15)"]:
    requests = concatenate([evaluator.conditions.with_columns(disease=disease, vendor=vendor)
                            for disease, vendor in withheld])
    bank = review_banks[c15.id]
    pair_banks["seen pairs"] = bank.take(~of_pairs(bank, c15.system.withheld))
    pair_banks["withheld pairs"] = draw(generators[c15.id], requests, c15.id, seed=study.seed)
print("withheld pairs in this cohort:", withheld or "none")

# %%
pair_rows = []
for name, bank in pair_banks.items():
    for row in accuracies(bank, [c for c in ("vendor", "disease") if c in classifiers]):
        pair_rows.append({"system": name, "family": name, **row})
pair_table = pd.DataFrame(pair_rows, columns=list(recognised.columns))
figures.publish(study, "07/withheld", pair_table, plots.score_plot,
                title="C15: condition accuracy of pairs seen and withheld in training")
pair_table[["system", "metric", "value", "low", "high", "floor", "ceiling"]].round(3)

# %% [markdown]
# **How to read it.** The withheld pairs may contain fewer diseases and fewer vendors than the
# seen pairs. The classifier then chooses among fewer categories, so chance is higher. The table
# gives the floor row by row: compare each value with its own floor. If the withheld pairs score as
# far above their floor as the seen pairs do, C15 has combined what it learnt separately.

# %% [markdown]
# ## Better labels or more data?
#
# Claim M6 needs two kinds of training data for the same system, the flow with LV + Myo + RV by
# concatenation:
#
# - **worse labels** of all patients: every mask is bent by a smooth random error of a few
#   millimetres, as if it had been drawn without care;
# - **fewer patients** with labels that are correct.
#
# The pretrained unconditional network has seen the images of all patients in both cases. This
# is a realistic situation: images without labels are cheap.

# %%
noisy_runs, doses = noisy_label_runs(study), []
for run in noisy_runs:
    bent, _ = training_slices(run, slices)
    dice = agreement(bent.masks, training.masks, training.table)["dice_mean"].mean()
    doses.append({"training data": run.variant.name, "Dice of bent and correct labels": dice})
pd.DataFrame(doses).round(3)

# %% [markdown]
# The table says how bad the bent labels are: their Dice with the correct labels. An error below
# half a pixel changes no label.
#
# The next cell chooses the patients. A smaller set of patients is contained in every larger one.

# %%
few_runs = fewer_label_runs(study, slices)
print(len(training_patients(study, slices)), "training patients in all;",
      ", ".join(run.id for run in few_runs))

# %%
label_runs = [*noisy_runs, *few_runs]
train_all(study, label_runs, slices)
for run in label_runs:
    banks[run.id] = evaluator.bank(run, train_or_load(study, run, slices))
    scores += evaluator.rows(run, banks[run.id])
labels = pd.DataFrame(scores)
labels = labels[labels["system"].isin([run.id for run in (mask_run, *label_runs)])
                & labels["metric"].isin(["dice_mean", "hd95_Myo_mm", *QUALITY])]
figures.publish(study, "07/labels", labels, plots.score_plot,
                title="Flow trained with worse labels, or with fewer labelled patients");

# %% [markdown]
# **How to read it.** The first row is the flow with all patients and correct labels. Compare each
# other row with it: how much Dice does it lose? If fewer patients lose less Dice than worse labels,
# that speaks for claim M6. The answer depends on the dose: on how bad the labels are, and on how
# many patients are missing.

# %% [markdown]
# ## Downstream use
#
# Are samples good enough to train a segmenter? This is the TSTR test. Samples are drawn under
# masks of *training* patients, because a student must not learn the hearts of test patients.
#
# - Samples of a mask-conditioned generator come with labels: the mask they were drawn for.
# - Samples of an unconditional generator have no labels. A segmenter labels them
#   (**pseudo-labels**). It has learnt from the same labelled patients as the generator with a mask,
#   so that both arms know as many labels, and it is not the frozen one that judges.
# - The reference student is trained on as many real slices, for as many steps. Its score is the
#   ceiling.

# %%
tstr_conditions = sampling_conditions(
    slices, params.conditional.samples, study.seed, split="train")
settings = replace(params.conditional.student, seed=study.seed)
labeller = downstream.train_student(
    training, settings, study.work("conditional") / "student-labeller")
training_sets = {"real": tstr_conditions}
tstr_runs = [Run(ablation_system(family, *factors)) for family in FAMILIES
             for factors in (NO_CONDITION, ("labels", "concat"))]

# %%
for run in tstr_runs:
    samples = draw(generators[run.id], tstr_conditions, run.id, seed=study.seed)
    if not samples.masks.any():
        samples = downstream.pseudo_label(labeller, samples)
    if samples.masks.any():
        training_sets[run.id] = samples
    else:
        print(f"{run.id}: left out, the segmenter sees no heart in its samples")
print({name: len(samples) for name, samples in training_sets.items()})

# %%
students = {}
for name, samples in training_sets.items():
    folder = study.work("conditional") / f"student-{file_name(name)}"
    students[name] = downstream.train_student(samples, settings, folder)
for run in [run for run in tstr_runs if run.id in students]:
    measured = downstream.tstr(test, students[run.id], students["real"], **options)
    scores += results.with_system_columns(run, measured)
useful = pd.DataFrame(scores).query("axis == 'utility'")
figures.publish(study, "07/downstream", useful, plots.score_plot,
                title="Train on synthetic, test on real (TSTR)");

# %% [markdown]
# **How to read it.** The ceiling is the student of real images. A student of samples that reaches
# it has lost nothing.
#
# Claim M2 needs two more students. A generator that was given the LV cavity alone cannot teach the
# myocardium or the RV. So both of its students, of the cavity arm and of the arm with LV + Myo +
# RV, learn the LV alone.

# %%
cavity_students = {}
for content in ("labels", "cavity"):
    run = Run(ablation_system("flow", content, "concat"))
    if run.id not in generators:  # the cohort has one structure: both contents are the same
        continue
    samples = draw(generators[run.id], tstr_conditions, run.id, seed=study.seed)
    lv_alone = np.where(samples.masks == LABELS["LV"], LABELS["LV"], 0).astype(np.uint8)
    folder = study.work("conditional") / f"student-lv-{file_name(run.id)}"
    cavity_students[run.id] = downstream.train_student(
        replace(samples, masks=lv_alone), settings, folder)
lv_dice = {name: agreement(student(test.images), test.masks, test.table)["dice_LV"].mean()
           for name, student in cavity_students.items()}
pd.Series(lv_dice, name="Dice of the LV on real patients").round(3).to_frame()

# %% [markdown]
# ## The claims
#
# Each claim has **one primary test**, stated before any result was looked at: what is compared, in
# which metric, in which direction, by which margin. All notebooks share one register of them
# (`cmri_lib/reporting/primary_tests.py`). The next table shows the part that this notebook tests.
# A test of several rows needs all of them, and fails with any one. Every other test of a claim is
# **exploratory**.

# %%
stated = primary_tests.register()
stated[stated["claim"].str.startswith("M")].set_index("claim")

# %% [markdown]
# A test is a difference of two systems with a 95 % interval. It is *supported* if the whole
# interval lies on the claimed side of the margin, *not supported* if it lies on the other side, and
# *undecided* otherwise.
#
# The systems of the primary tests are trained with several seeds where `params.yaml` asks for it
# (`fidelity.ablation_seeds`). Then the interval is over patients **and** trainings.

# %%
def trained(run):
    """A bank of every training of a run, each of another seed, the study's own first."""
    more = runs_over_seeds(study, run, params.fidelity.ablation_seeds)[1:]
    train_all(study, more, slices)
    others = [evaluator.bank(one, train_or_load(study, one, slices)) for one in more]
    return [banks[run.id], *others]


cells = [Run(ablation_system(*cell)) for cell in COMPARED]
label_parties = [*few_runs[:1], *noisy_runs[:1]]
compared_runs = [run for run in (*cells, *map(set_runs.get, COMPARED_SETS), *label_parties)
                 if run.id in banks]
several = {run.id: trained(run) for run in compared_runs}
pd.Series({name: len(found) for name, found in several.items()}, name="trainings").to_frame()

# %%
def difference(pair, metric):
    """The first system of a pair minus the second, over as many trainings as both have."""
    found = [several.get(name, [banks[name]]) for name in pair]
    fewest = min(map(len, found))
    return evaluator.difference(*(some[:fewest] for some in found), metric)

# %% [markdown]
# A difference to a system that shows no hearts, or that has not converged, says how short its
# training was. Such tests are *not testable at this budget*. A system counts as not converged if
# the last doubling of its training moved the distance of anatomy or of appearance by more than 5 %,
# and by more than its interval: this sees large changes only. Its weights were kept half-way for
# this purpose.

# %%
curves = LearningCurves(study, slices)
halves = pd.DataFrame([row for run in compared_runs for row in curves.over_compute(run)])
unfit = claims.unfit(pd.DataFrame(scores), halves)
ledger = claims.Ledger(unfit)
pd.Series(unfit, name="why claims about it are not testable", dtype=object).to_frame()

# %% [markdown]
# **M1**: the flow with a mask minus the flow without. Both must improve: the share of valid hearts,
# and the Dice of a student. The other families are exploratory. The labels that the mask carries
# are worth something by themselves, so the unconditional arm gets as many: its samples are labelled
# by a segmenter that has learnt from the same labelled patients as the mask arm.

# %%
for family in FAMILIES:
    pair = f"{family} labels concat", f"{family} none"
    valid = difference(pair, HEARTS)
    ledger.explore("M1", " − ".join(pair), valid, HEARTS, "above", parties=pair)
    if not set(pair) <= set(students):
        continue
    dice = downstream.tstr_difference(test, *(students[name] for name in pair), **options)
    if family == "flow":
        ledger.primary("M1", valid, dice, parties=pair)
    ledger.explore("M1", " − ".join(pair), dice, "downstream_dice", "above", parties=pair)
ledger.table("M1")

# %% [markdown]
# **M2**: masks of LV + Myo + RV minus masks of the cavity alone. A mean over structures would ask
# the cavity arm for what it was never given. So the test is the Dice of the LV, which both were
# given, and the Dice of the LV of students that learn the cavity alone from samples of either arm.
# Where the cohort has labels for every tissue, these are compared with LV + Myo + RV in the two
# distances.

# %%
for family in FAMILIES:
    pair = f"{family} labels concat", f"{family} cavity concat"
    if pair[1] not in banks:
        continue
    followed = difference(pair, "dice_LV")
    if family == "flow":
        learnt = downstream.tstr_difference(
            test, *(cavity_students[name] for name in pair), "LV", **options)
        ledger.primary("M2", followed, learnt, parties=pair)
        ledger.explore("M2", " − ".join(pair), learnt, "downstream_dice_LV", "above",
                       parties=pair)
    ledger.explore("M2", " − ".join(pair), followed, "dice_LV", "above", parties=pair)

# %%
for family in FAMILIES:
    tissues = f"{family} tissues concat", f"{family} labels concat"
    for metric in (ANATOMY, APPEARANCE) if tissues[0] in banks else ():
        ledger.explore("M2", " − ".join(tissues), difference(tissues, metric), metric, "below",
                       parties=tissues)
ledger.table("M2")

# %% [markdown]
# **M3**: SPADE minus concatenation in the GAN family. Both start from one pretrained network and
# have the same loss and the same number of steps. The whole systems C2 and C1 differ in more than
# the method: Pix2Pix has an L1 loss. They are exploratory.
#
# One thing is not equal. A network with SPADE layers has no place for the scale and shift of the
# pretrained norms, so its output changes at step 0. Concatenation and ControlNet start exactly at
# the pretrained network. SPADE therefore starts behind, and a short training counts against it.

# %%
for family in FAMILIES:
    for method in ("concat", "control"):
        pair = f"{family} labels spade", f"{family} labels {method}"
        effects = [difference(pair, metric) for metric in (ANATOMY, APPEARANCE)]
        if pair[1] == "GAN labels concat":
            ledger.primary("M3", *effects, parties=pair)
        for metric, effect in zip((ANATOMY, APPEARANCE), effects):
            ledger.explore("M3", " − ".join(pair), effect, metric, "below", parties=pair)

# %%
for rival in ("C1 Pix2Pix", "C1 Pix2PixHD"):
    for metric, side in ((ANATOMY, "below"), (APPEARANCE, "below"), ("dice_mean", "above")):
        effect = full_evaluator.difference(
            review_banks["C2 SPADE cGAN"], review_banks[rival], metric)
        ledger.explore("M3", f"C2 SPADE cGAN − {rival}", effect, metric, side)
ledger.table("M3")

# %% [markdown]
# **M4** names no winner. It holds if the methods differ in Dice by more than 0.01, in either
# direction. *Not supported* means here that they differ by less than that. The primary test is
# ControlNet minus concatenation in the flow.

# %%
for family in FAMILIES:
    for method in ("spade", "control"):
        pair = f"{family} labels {method}", f"{family} labels concat"
        effect = difference(pair, "dice_mean")
        if pair[0] == "flow labels control":
            ledger.primary("M4", effect, parties=pair)
            continue
        ledger.explore("M4", " − ".join(pair), effect, "dice_mean", "beyond",
                       primary_tests.LEAST_DICE, parties=pair)
ledger.table("M4")

# %% [markdown]
# **M5**: the flow with mask, vendor, phase and disease minus the flow with the mask alone. Both
# drop their conditions equally often in training: dropout by itself changes what a network learns.
# The primary test is the Dice with the mask, the condition that both have. Exploratory are the
# distances and the accuracy of each condition. The disease is read from a whole heart, see above.

# %%
pair = "flow mask + vendor + phase + disease", "flow mask"
ledger.primary("M5", difference(pair, "dice_mean"), parties=pair)
for metric in (ANATOMY, APPEARANCE):
    ledger.explore("M5", " − ".join(pair), difference(pair, metric), metric, "below",
                   parties=pair)

# %%
rich, plain = (banks[name] for name in pair)
for column, classifier in classifiers.items():
    if condition_accuracy.lacking(classifier, rich, plain):
        continue
    effect = condition_accuracy.condition_accuracy_difference(
        rich, plain, classifier, **options)
    ledger.explore("M5", " − ".join(pair), effect, f"accuracy_{column}", "above", parties=pair)

# %%
if reader is not None:
    effect = volume_accuracy.volume_accuracy_difference(
        rich, plain, reader, evaluator.segmenter, **options)
    ledger.explore("M5", " − ".join(pair), effect, "accuracy_disease_volumes", "above",
                   parties=pair)
ledger.table("M5")

# %% [markdown]
# **M6**: correct labels of fewer patients minus worse labels of all patients, in Dice. The primary
# test takes the largest of the smaller sets of patients and the smallest error of labels. If the
# network is not trained to the plateau, more data cannot show what it is worth: then the test is
# not testable.

# %%
for few in few_runs:
    for noisy in noisy_runs:
        pair = few.id, noisy.id
        effect = difference(pair, "dice_mean")
        if [few, noisy] == label_parties:
            ledger.primary("M6", effect, parties=pair)
            continue
        comparison = (f"{len(few.patients)} patients with correct labels"
                      f" − all patients with {noisy.variant.name}")
        ledger.explore("M6", comparison, effect, "dice_mean", "above", parties=pair)
ledger.table("M6")

# %% [markdown]
# All rows are written to the results of the study. Notebook 13 reads them from there.

# %%
results.write_claims(study, "07_conditioning", ledger.rows)
table = results.write_scores(study, "07_conditioning", scores + review_scores, seeds=1)
table.groupby("axis", sort=False)["metric"].agg(["size", "nunique"]).rename(
    columns={"size": "rows", "nunique": "metrics"})

# %% [markdown]
# ## Check
#
# A network may ignore a condition, and the tables would not say so at once. The next cell tests it
# directly. The noise is the same in each pair of images, so only the condition differs:
#
# - another mask must change the image;
# - a disease that the network is *not* given must change nothing;
# - another phase must change the image of the flow that is given the phase.

# %%
few_conditions = evaluator.conditions.take(range(4))
other_masks = evaluator.conditions.take(np.arange(4) + len(evaluator.conditions) // 2)


def images_of(run, some):
    """Samples with the noise of a fixed seed."""
    return draw(generators[run.id], some, "check", seed=0).images


moved = np.abs(images_of(mask_run, few_conditions) - images_of(mask_run, other_masks)).mean()
assert moved > 1e-4, "another mask, the same image"
same = [images_of(mask_run, few_conditions.with_columns(disease=disease))
        for disease in (vocabulary.categories["disease"] or ("unknown",))[:2]]
assert np.array_equal(same[0], same[-1]), "a disease that is not given changes the image"
print(f"mean change by another mask: {moved:.4f} (images range from -1 to 1)")

# %%
by_phase = [images_of(rich_run, few_conditions.with_columns(phase=phase))
            for phase in vocabulary.categories["phase"][:2]]
if len(by_phase) == 2:
    changed = np.abs(by_phase[0] - by_phase[1]).mean()
    assert changed > 1e-4, "another phase, the same image"
    print(f"mean change by another phase: {changed:.4f}")

# %% [markdown]
# The second check needs a real training, so the `smoke` profile skips it. Denoisers with a mask
# must follow it better than another patient's heart would (the floor of Dice). The system that
# was trained longest must come near to what real images score.

# %%
dice = table[table["metric"] == "dice_mean"].set_index("system")
best = dice.loc["C16 MOTFM SPADE"]
if study.profile != "smoke":  # ten steps of training teach nothing
    assert moved > 0.01, "another mask hardly moves the heart"
    for family in ("diffusion", "flow"):
        low = dice.loc[f"{family} labels concat", "low"]
        assert low > dice["floor"].max(), f"{family} follows no mask"
    assert best["value"] > best["ceiling"] - 0.05, "C16 follows less than real images do"
print(f"C16 MOTFM SPADE: Dice {best['value']:.3f}, real images {best['ceiling']:.3f}")

# %% [markdown]
# ## Exercises
#
# ### 1. The right ventricle alone
#
# C12 was trained with a random subset of the labels erased in every step. It can therefore be
# given any part of a mask. Give it the right ventricle alone. Where does it draw the left one?
# How well does the right ventricle follow?

# %% tags=["solution"]
some = evaluator.conditions.take(evenly(evaluator.conditions, 6))
lv, rv = LABELS["LV"], LABELS["RV"]
rv_alone = replace(some, masks=np.where(some.masks == rv, rv, 0).astype(np.uint8))
c12 = "C12 ablated-mask diffusion"
drawn = draw(generators[c12], rv_alone, c12, seed=study.seed)
seen = evaluator.segmenter(drawn.images)
print(f"LV seen in {(seen == lv).any((1, 2)).mean():.0%} of the samples, "
      f"though no sample was given one")
dice_rv = agreement(seen, rv_alone.masks, rv_alone.table)["dice_RV"].mean()
print(f"Dice of the right ventricle: {dice_rv:.2f}")
figures.slice_grid({"given the RV alone": drawn});
# If an LV appears, it should lie at the septal side of the RV: training showed it nowhere else.

# %% [markdown]
# ### 2. Whose fault is a low Dice?
#
# The segmenter reads the mask back from what C16 has drawn. It also makes mistakes on real images.
# Take the Dice of every volume twice, from the samples and from the real images of the same masks.
# Which volume loses most? How strongly are the two correlated, and what would a high correlation
# say?

# %% tags=["solution"]
by_volume = {}
for name, some in {"real": full_evaluator.conditions,
                   "C16": review_banks["C16 MOTFM SPADE"]}.items():
    by_volume[name] = agreement(full_evaluator.segmenter(some.images), some.masks, some.table)
volumes = by_volume["real"][["patient", "scan", "phase"]].assign(
    **{name: found["dice_mean"] for name, found in by_volume.items()})
volumes["lost"] = volumes["real"] - volumes["C16"]
print(f"rank correlation of both: {volumes['real'].corr(volumes['C16'], method='spearman'):.2f}")
volumes.nlargest(5, "lost").round(2)
# Volumes that are hard in both are the segmenter's fault, or their own: small, thin, cut by the
# border. Only what is lost beyond the real images speaks against the generator.

# %% [markdown]
# ### 3. Guidance in one step
#
# With guidance $w$ the velocity is $v_0 + w\,(v_c - v_0)$, where $v_0$ knows no condition. Draw
# four samples with a single Euler step, for several $w$. How must their distance to those of $w =
# 0$ depend on $w$? Does this hold for eight steps, too? And what does a negative $w$ ask for?

# %% tags=["solution"]
import torch

from cmri_lib.generators.base import batch_of

free, four = generators[rich_run.id], evaluator.conditions.take(range(4))
given = {key: value.to(free.device) for key, value in batch_of(four, free.conditioning).items()}
start = torch.randn(4, *free.noise_shape(slices.size)).to(free.device)
scales, moved_by = (-1.0, 0.0, 1.0, 2.0, 4.0), {}
for count in (1, 8):
    ends = {}
    for scale in scales:
        with guided(free, scale) as one:
            ends[scale] = one.sample(start, given, solver="euler", steps=count)
    unit = (ends[1.0] - ends[0.0]).norm()
    moved_by[f"{count} steps"] = {w: ((ends[w] - ends[0.0]).norm() / unit).item() for w in scales}
pd.DataFrame(moved_by).rename_axis("w").round(2)
# In one step the distance is |w| times that of w = 1, exactly. With more steps this no longer
# holds: after the first step, each w asks for the velocity at another place. A negative w leads
# away from the condition.

# %% [markdown]
# ## Summary
#
# The next cells collect the numbers behind the findings. The first table has the Dice of every
# content of the mask, as the mean over conditioning methods.

# %%
ablated = numbers[numbers["content"] != "none"]
by_content = ablated[ablated["metric"] == "dice_mean"].pivot_table(
    index="family", columns="content", values="value", sort=False)
print("Dice with the mask; real images:", round(float(best["ceiling"]), 3))
by_content.rename(columns=review.CONTENTS).round(3)

# %% [markdown]
# The second table compares conditioning methods at the content LV + Myo + RV.

# %%
at_labels = ablated[(ablated["content"] == "labels")
                    & ablated["metric"].isin(["dice_mean", *QUALITY, "seconds_per_image"])]
at_labels.assign(metric=at_labels["metric"].map(metrics.short)).pivot(
    index=["family", "method"], columns="metric", values="value").round(3)

# %% [markdown]
# The third table shows the systems of the review that follow a mask, ordered by Dice.

# %%
followed_masks = dice.index.intersection(list(CONDITIONAL), sort=False)
order = dice.loc[followed_masks, "value"].sort_values(ascending=False).index
score_table(review_scores, order,
            ["dice_mean", *QUALITY, "seconds_per_image"])

# %% [markdown]
# Do the two segmenters agree? The next cell gives the rank correlation (Spearman) of their Dice
# over all systems with a mask, and lists the pairs of systems that they put in a different order.
# Trust such an order only if the gaps are larger than the intervals of the systems.

# %%
agreed, swapped = review.rank_agreement(table, "dice_mean", "dice_mean_second")
print(f"rank correlation of the two segmenters: {agreed:.2f}; "
      f"pairs in another order: {len(swapped)}")
swapped.head(10).round(3)

# %% [markdown]
# The last table counts the verdicts of all tests of each claim.

# %%
verdicts = pd.DataFrame(ledger.rows).groupby(["claim", "verdict"]).size().unstack(fill_value=0)
verdicts.reindex(columns=[v for v in results.VERDICTS if v in verdicts])

# %% [markdown]
# 1. **Content of the mask (M1, M2).** Read the first table from left to right. If the Dice rises,
#    a mask that says more is followed more closely. The rows M1 say whether a mask also gives
#    more valid hearts and better students than no mask.
# 2. **Conditioning method (M3, M4).** Read the second table within one family. The method with
#    the highest Dice need not have the lowest distances: to follow the mask and to look real are
#    two things. All methods had the same number of steps, and methods that learn slowly suffer from
#    a small budget.
# 3. **Whole systems.** In the third table, compare the Dice with the one of real images, and look
#    for systems that are also near in anatomy *and* in appearance. The last column says what a
#    sample costs.
# 4. **Several conditions (M5).** A condition counts as used only if its condition accuracy rises
#    above that of the mask alone. Dice and the two distances say what this costs.
# 5. **Labels or data (M6).** The verdicts can go both ways: they depend on how bad the labels are
#    and on how many patients are missing. Read them test by test in the table of M6.

# %% [markdown]
# ## Limits
#
# - A system of the ablation is trained briefly on top of an unconditional network. Methods that
#   learn slowly, ControlNet above all, would gain from longer training.
# - Only the systems of primary tests are trained with several seeds, and only where `params.yaml`
#   asks for it. Any other difference between two systems is one between two trainings, and its
#   interval is about patients alone.
# - Equal steps are not equal seconds. A step of a ControlNet costs more than a step by
#   concatenation. The training times in the tables say how much.
# - The tests use the Dice of one frozen segmenter. A generator that draws what this segmenter likes
#   scores well. The second segmenter has learnt from the same patients, so faults that both share
#   stay hidden.
# - The classifier of the disease is hardly better than chance on single real slices. Its
#   condition accuracy says little.
# - True scans of one heart by several vendors exist in the phantom alone.
