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
# # 15 · Whole stacks: image and mask of a heart, from apex to base, drawn at once
#
# **Which profile shows what.** The profile `laptop` shows how things work, not which family wins;
# `overnight` is the budget for verdicts. `smoke` only tests that the code runs; its images are
# poor.
#
# **Question.** All other systems of this study draw slices. A scan is a *stack* of slices of one
# heart. Does a generator that draws the whole stack at once, together with its mask, make slices
# that belong together? And what does it cost in the quality of each slice?
#
# **What the review says.** System C7 (Cheng et al.) is a 3D latent diffusion: a 3D VAE and DDIM
# over image and mask together. The review reports an FID of 28.37, an FRD of 2.92, and precision
# and recall. These numbers are distances of slices: they do not say whether slices fit each other.
# So this notebook measures that as well.
#
# ## Method
#
# **A stack.** Scans have between 7 and 11 slices, so each stack is resampled along the axis of the
# heart to $D$ planes from apex to base: the image linearly, the mask as one plane per label, of
# which the largest wins. A stack has the channels image, background, LV, myocardium, RV:
#
# $$ y \in \mathbb R^{(1 + 4) \times D \times H \times W} . $$
#
# **First stage.** A 3D variational autoencoder with encoder $q(z \mid y)$ and decoder
# $(\hat x, \hat s)$ for the image $x$ and the scores of the labels $s$ is trained with
#
# $$ \mathcal L_1 = \lVert \hat x - x \rVert_1 + \lVert \nabla \hat x - \nabla x \rVert_1
#    + \operatorname{CE}(\hat s, s) + \beta \operatorname{KL}\bigl(q(z \mid y) \,\Vert\,
#    \mathcal N(0, I)\bigr) . $$
#
# Planes lie some 10 mm apart and pixels 2 to 3 mm. So the code is smaller within the planes (by
# 4 along each side) and keeps all $D$ planes.
#
# **Second stage.** A 3D U-Net learns to remove noise from codes, $z_n = \alpha_n z_0 + \sigma_n
# \varepsilon$, by predicting $v = \alpha_n \varepsilon - \sigma_n z_0$ as in notebook 04:
#
# $$ \mathcal L_2 = \mathbb E_{n, \varepsilon} \lVert f_\theta(z_n, n) - v \rVert^2 . $$
#
# DDIM (Song et al. 2021) draws codes in a few steps; the decoder makes image *and* mask of each.
#
# ### What is measured along the axis
#
# | measure | of each stack |
# |---|---|
# | correlation | of the pixels of neighbouring planes, mean |
# | step of blood | change of the mean intensity of the LV cavity from plane to plane |
# | shift of LV | of the cavity's centre, in the plane, in mm |
# | roughness | $\lvert A_{k-1} - 2 A_k + A_{k+1} \rvert$ of the area, in % of the largest area |
# | one cavity | the LV is one connected piece in three dimensions |
# | closed wall | in each plane the cavity lies in myocardium; near the base it may open |
# | tapering | from its largest area on, the cavity does not widen towards the apex |
# | whole LV | the last three together |
#
# Labels are those that the frozen segmenter reads from the images, for all sets alike; the masks
# that come with stacks are judged by the same rules, with less tolerance. A good stack is as
# coherent as a real one, neither more nor less. So there are two controls: planes of *different
# patients* must be called incoherent, and *one plane repeated* too coherent. Intervals are 95 %
# bootstrap intervals over patients; each synthetic stack counts as one.

# %% tags=["parameters"]
profile = None  # None: as params.yaml says
dataset = None

# %%
from dataclasses import replace

import numpy as np
import pandas as pd

from cmri_lib.cohort import requirements
from cmri_lib.cohort.case import LABELS
from cmri_lib.cohort.stacks import mixed, resampled
from cmri_lib.config.study import open_study
from cmri_lib.errors import NothingToDo
from cmri_lib.experiments.instruments import load_slices
from cmri_lib.experiments.parallel import train_all
from cmri_lib.experiments.students import Students
from cmri_lib.experiments.training import cost_rows, train_or_load, training_log
from cmri_lib.experiments.volumes import (
    MASK_METRICS, READ_METRICS, StackEvaluator, area_profiles, middle_repeated, stack_costs,
    through_code)

# %%
from cmri_lib.generators.base import draw
from cmri_lib.generators.stacks import draw_stacks
from cmri_lib.measures.anatomy.adherence import agreement
from cmri_lib.measures.conditioning.paired_truth import likeness
from cmri_lib.reporting import figures, metrics, plots, results, stack_plots
from cmri_lib.systems.register import system
from cmri_lib.systems.system import Run
from cmri_lib.systems.volumes import STACK_LDM

# %% [markdown]
# ### The data
#
# The next cell opens the study and counts the stacks of each split.

# %%
study = open_study(profile, dataset)
params = study.params
figures.use_style()
slices = load_slices(study)
outlook = requirements.outlook(slices)
print(f"profile {study.profile}, cohort {study.dataset}: {outlook.left_out('15')}")
outlook.need("whole stacks of slices (C7)", otherwise=NothingToDo)
scans = slices.table.groupby(["split", "patient", "scan", "phase"], as_index=False)["index"].size()
scans.groupby("split").agg(patients=("patient", "nunique"), stacks=("scan", "size"),
                           fewest=("size", "min"), most=("size", "max"))

# %% [markdown]
# The evaluator is that of notebooks 06 and 07, with one change: real slices are resampled to stacks
# as well, so that both sides of a comparison have gone through the same interpolation.

# %%
evaluator = StackEvaluator(study, slices, params.volumes.slices)
planes, real = evaluator.planes, evaluator.conditions
print(f"{len(real) // planes} test stacks of {planes} planes, "
      f"{len(evaluator.others) // planes} of other patients to compare with")

# %% [markdown]
# ## Training
#
# The autoencoder is trained first, then the diffusion on its codes. Beside C7 stand systems that
# draw slice by slice under a test patient's mask: their slices share the mask's anatomy, and have
# no other way to know of each other.

# %%
run = Run(STACK_LDM)
slicewise = [Run(system(name)) for name in params.volumes.slicewise]
train_all(study, [run, *slicewise], slices)
generator = train_or_load(study, run, slices)
log = training_log(study, run)
print(f"C7: {log['images'].iloc[-1]:,} stacks seen, loss {log['loss_model'].iloc[-1]:.3f}")
stacks = {"C7 3D LDM": draw_stacks(generator, evaluator.whole, run.id, seed=study.seed)}
made = {r.id: train_or_load(study, r, slices) for r in slicewise}
for name, each in made.items():
    drawn = draw(each, evaluator.whole, name, seed=study.seed)
    stacks[name] = resampled(drawn, planes)

# %% [markdown]
# ### What the first stage keeps
#
# What the code of a stack cannot hold, C7 cannot draw. So stacks of validation patients go through
# the code and back: how like is the image (SSIM), and how well does the mask overlap (Dice)?

# %%
unseen = slices.where(split="validation")
unseen = resampled(unseen if len(unseen) else evaluator.whole, planes)
back = through_code(generator, unseen)
ssim = likeness(back.images, unseen.images, np.ones_like(unseen.masks, bool))[0].mean()
dice = agreement(back.masks, unseen.masks, unseen.table)["dice_mean"].mean()
print(f"stacks of unseen patients through the code and back: SSIM {ssim:.2f}, Dice {dice:.2f}")

# %% [markdown]
# ## Look at them
#
# Each row is one stack, from apex (left) to base (right), with the outlines of its mask. In the row
# of C7 the mask is drawn with the image; the slice-wise systems were given the mask of the first
# row.

# %%
rows = {"real": real, **stacks, "planes of different patients": mixed(real, planes, study.seed)}
plane = np.arange(planes)
figures.publish_slices(study, "15/stacks", {n: s.take(plane) for n, s in rows.items()},
                       titles=["apex", *[""] * (planes - 2), "base"],
                       title="One stack a row, from apex to base, with the outlines of its mask");

# %% [markdown]
# **How to read it.** Go along a row. The chest wall and the ribs must stay where they are or move
# slowly, blood must keep its brightness, and the ring of the wall must grow from apex to base
# without jumps. A slice-wise system gets the ring from its mask; look at everything else.
#
# ## Coherence along the axis

# %%
sets = {**rows, "one plane repeated": middle_repeated(real, planes)}
values = {name: evaluator.stack_values(each) for name, each in sets.items()}
others = evaluator.stack_values(evaluator.others)
named = {run.id: run, **{r.id: r for r in slicewise}}
coherence = []
for name, found in values.items():
    coherence += evaluator.stack_rows(named.get(name, name), found, others)
table = pd.DataFrame(coherence)
figures.publish(study, "15/coherence", table[table["metric"].isin(READ_METRICS)], plots.score_plot,
                title="Coherence along the axis, as the frozen segmenter reads the images");

# %% [markdown]
# **How to read it.** The dashed line is what stacks of *other* real patients show, the row "real
# images" what the test patients show: the distance between the two is what patients make. Planes of
# different patients must lie far on the one side, one plane repeated far on the other. In
# correlation, step, shift and roughness the best place is *on* the line, not beyond it.

# %%
def wide(names):
    """Values, a row per set."""
    found = table.pivot(index="system", columns="metric", values="value").loc[list(sets)]
    return found.reindex(columns=list(names)).dropna(axis=1, how="all").rename(
        columns=metrics.short).round(3)


wide(READ_METRICS)

# %% [markdown]
# The next table says the same of the *masks* that the stacks come with. Only C7 has drawn its own;
# those of the slice-wise systems are the real ones.

# %%
wide(MASK_METRICS)

# %% [markdown]
# ### Areas from apex to base

# %%
read = {name: evaluator.segmenter(each.images) for name, each in rows.items()}
inner = {name: LABELS[name] for name in ("LV", "Myo")}
figures.publish(study, "15/areas", area_profiles(rows, read, inner), stack_plots.area_profiles,
                title="Areas along the axis: thin, single stacks; thick, their median");

# %% [markdown]
# **How to read it.** A real cavity grows from the apex to the base and each thin line is smooth. If
# thin lines zigzag, planes do not know of each other. If they all run on the thick one, all stacks
# have the same heart.
#
# ## Slice by slice
#
# The usual scores: distances to real patients, valid hearts, and how well the segmenter's labels
# agree with the mask (of C7: with the mask that it has drawn itself). "Real" is the floor.

# %%
scores = evaluator.real_rows()
scores += stack_costs(study, run, generator, evaluator.conditions, 4, planes)
for name, each in stacks.items():
    scores += evaluator.rows(named[name], each)
for r in slicewise:
    scores += cost_rows(study, r, made[r.id], evaluator.whole, images=4)
usual = pd.DataFrame(scores)
chosen = [name for name in metrics.headline(usual["metric"]) if name in (
    "mmd_anatomy", "mmd_classical", "kid_study", "frechet_study", "precision_study",
    "recall_study", "heart_valid", "dice_mean")]
figures.publish(study, "15/scores", usual[usual["metric"].isin(chosen)], plots.score_plot,
                title="Slices of whole stacks, and of systems that draw slice by slice");

# %%
costs = usual.pivot(index="system", columns="metric", values="value").rename(columns=metrics.short)
some = [metrics.short(name) for name in (
    *chosen, "seconds_per_image", "training_seconds", "images_seen")]
costs.reindex(columns=some).round(3)

# %% [markdown]
# ### What do its stacks teach?
#
# C7 draws a mask with every image, so a segmenter can learn from its samples alone: train on
# synthetic, test on real (TSTR). Its **student** learns from as many stacks as there are real
# training stacks, and is compared with a student of these. Both are trained as those of notebook
# 17, where systems that draw slice by slice are asked the same, and are tested on the slices of the
# test patients as they were scanned.

# %%
training, test = (slices.where(split=split, source="real") for split in ("train", "test"))
school = Students(study, "volumes", evaluator.training, test)
drawn = draw_stacks(generator, training, run.id, seed=study.seed)
taught = []
if drawn.masks.any():  # in `smoke` there may be none at all
    taught = school.rows(run, school.taught(run.id, drawn))
scores += taught
columns = ["metric", "value", "low", "high", "ceiling", "n"]
pd.DataFrame(taught, columns=columns).set_index("metric").rename(metrics.title).round(3)

# %% [markdown]
# **How to read it.** *value* is the student of C7, *ceiling* that of real stacks. Both have seen
# planes that were resampled, which are smoother than the slices that they are tested on.

# %% [markdown]
# ### Does it remember its patients?
#
# There are far fewer stacks than slices to learn from, so a generator of stacks is quick to
# remember them. The audit of notebook 06 asks whether its slices are nearer to training patients
# than to patients never seen; real test slices are the floor.

# %%
audit = {}
if outlook["near-copy audit"]:
    found = evaluator.audit(stacks[run.id])
    audit = {row["metric"]: row for row in found.rows}
    scores += results.with_system_columns(run, found.rows)
pd.DataFrame(audit).T.reindex(columns=["value", "low", "high", "floor"]).rename(metrics.title)

# %% [markdown]
# ### What the resampling alone costs
#
# Between two slices a resampled plane is their mean, and a mean has less noise. So real slices as
# they are may lie farther from resampled ones than resampled ones of other patients do. The next
# cell puts both in the place of a system. If they differ little, the resampling is no matter.

# %%
priced = {"real, resampled": real, "real, as scanned": evaluator.whole}
prices = pd.DataFrame([{"slices": name, **row} for name, each in priced.items()
                       for row in evaluator.distances(each)])
prices = prices.pivot(index="slices", columns="metric", values="value")
prices.rename(columns=metrics.short).round(3)

# %% [markdown]
# Of the slice-wise systems only the coherence is written: their usual scores, of slices as they
# were scanned, are those of notebooks 06 and 07.

# %%
along = [row for row in coherence if row["system"] in named]
own = [row for row in scores if row["system"] == run.id]
results.write_scores(study, "15_volumes", along + own)[["system", "metric", "value"]].tail(3)

# %% [markdown]
# ## Check
#
# The controls must be found: planes of different patients are less coherent than real stacks, in
# all measures of images and places, and one plane repeated is more so. A stack is one draw: the
# same seed gives the same stack, another seed another one.

# %%
ways = {"stack_correlation": -1, "stack_blood_step": 1, "stack_drift_mm": 1,
        "stack_roughness_LV": 1}
for metric, sign in ways.items():
    for name, side in (("planes of different patients", 1), ("one plane repeated", -1)):
        gap = evaluator.stack_difference(values[name], values["real"], metric)
        print(f"{metrics.title(metric)}, {name} − real: {gap.value:+.2f} "
              f"[{gap.low:+.2f}, {gap.high:+.2f}]")
        assert (gap.low if sign * side > 0 else -gap.high) > 0, f"{metric} does not see {name}"
few = evaluator.whole.take(np.arange(len(evaluator.whole)) < 2 * planes)
again = [draw_stacks(generator, few, run.id, seed=seed).images for seed in (0, 0, 1)]
assert np.array_equal(again[0], again[1]) and not np.allclose(again[0], again[2], atol=1e-3)

# %% [markdown]
# ## Exercises
#
# ### 1. Where neighbours differ
#
# Compare the correlation of each pair of neighbouring planes with that in real stacks. Where along
# the axis do the planes of a slice-wise system differ most from each other: near the apex, in the
# middle or near the base?

# %% tags=["solution"]
def by_place(each):
    """Mean correlation of plane k and k + 1, for each k."""
    pixels = each.images.reshape(-1, planes, each.size**2)
    pixels = pixels - pixels.mean(-1, keepdims=True)
    pixels = pixels / np.linalg.norm(pixels, axis=-1, keepdims=True)
    return (pixels[:, :-1] * pixels[:, 1:]).sum(-1).mean(0).round(2)


pd.DataFrame({name: by_place(each) for name, each in {"real": real, **stacks}.items()}).T
# Column 0 is the pair at the apex. Look for the smallest number of each row. In the published run
# it stands at the apex in every row, in real stacks too: there the heart ends, and planes change
# fast. For slice-wise systems the pair at the base comes second.

# %% [markdown]
# ### 2. Upside down
#
# Turn every real stack upside down: image and mask of the apex in the place of the base. Think
# first: which measures of coherence can notice, by their definition? Then measure, and add a number
# of your own: the LV area of the lower third of the planes, divided by that of the upper third.
# Which of all these numbers tell that a heart stands on its head?

# %% tags=["solution"]
order = np.arange(len(real)).reshape(-1, planes)[:, ::-1].ravel()
turned = replace(real, images=real.images[order], masks=real.masks[order])
means = {}
for name, each in {"real": real, "upside down": turned}.items():
    areas = (each.masks == LABELS["LV"]).sum((1, 2)).reshape(-1, planes).sum(0)
    means[name] = evaluator.stack_values(each).drop(columns="patient").mean()
    means[name]["LV, lower third / upper third"] = (
        areas[:planes // 3].sum() / max(1, areas[-(planes // 3):].sum()))
means = pd.DataFrame(means).rename(index=metrics.short)
means.assign(change=means["upside down"] - means["real"]).round(3)
# Neighbours stay neighbours, so most measures cannot change. The taper is asked for from the apex
# up to the widest plane: upside down that plane comes first, and nothing is left to ask. Only the
# tolerance of the rule "closed" depends on the level. A heart on its head can even score better.
# The new number does notice: a measure is quickly written, once somebody has thought of the fault.

# %% [markdown]
# ### 3. The volume of a stack
#
# The volume of the left ventricle is proportional to the sum of its areas over the planes. Compare,
# for each stack, the sum that the segmenter reads from the images with that of the mask: the mean
# of the relative errors (*bias*), and 1.96 standard deviations. Whose error is the bias of the real
# stacks? For which set do image and mask belong together?

# %% tags=["solution"]
for name in ("real", *stacks):
    maps = read[name], rows[name].masks
    seen, given = ((some == LABELS["LV"]).sum((1, 2)).reshape(-1, planes).sum(1) for some in maps)
    error = 100 * (seen - given)[given > 0] / given[given > 0]
    print(f"{name}: {len(error)} of {len(given)} masks have an LV")
    if len(error) > 1:
        print(f"    bias {error.mean():+.1f} %, ± {1.96 * error.std(ddof=1):.1f} %")
# On real stacks the segmenter alone is wrong. A set that adds nothing to its bias and its spread
# has images that show what their masks say. A mask without an LV has no relative error.

# %% [markdown]
# ## Summary

# %%
for name in stacks:
    for metric in ("stack_correlation", "stack_blood_step", "stack_roughness_LV", "stack_whole"):
        gap = evaluator.stack_difference(values[name], values["real"], metric)
        print(f"{name} − real, {metrics.short(metric)}: {gap.value:+.3f} "
              f"[{gap.low:+.3f}, {gap.high:+.3f}]")
for row in taught:
    print(f"{metrics.title(row['metric'])}, C7: {row['value']:.2f} "
          f"[{row['low']:.2f}, {row['high']:.2f}], real stacks {row['ceiling']:.2f}")
valid = usual[usual["metric"] == "heart_valid"].set_index("system")["value"].round(2)
print("valid hearts:", valid.to_dict())
if "nearest_excess_study" in audit:
    row = audit["nearest_excess_study"]
    print(f"C7 nearest to training patients, above real test slices: {row['value']:+.2f} "
          f"[{row['low']:+.2f}, {row['high']:+.2f}]")

# %% [markdown]
# ## Limits
#
# - A stack is resampled to a fixed number of planes. The length of the heart is no part of it, and
#   fine noise is averaged between slices; see the cell on resampling.
# - C7 learns from one stack where slice-wise systems learn from some nine slices: 3D generators
#   need more patients. It is not conditioned: nobody can ask it for a phase.
# - Slice-wise systems were given real masks, which C7 must draw itself. So the anatomy of theirs is
#   real by design, and comparing valid hearts with C7 is not comparing like with like.
# - The distances here are those of the study's feature spaces; FID and FRD of the review come from
#   other features and other patients and cannot be set beside them.
# - One training of the generator and of each student: the intervals are over patients and stacks,
#   not over seeds.
#
# ## References
#
# - Kumarasinghe et al., "Synthetic Cardiac MRI Image Generation using Deep Generative Models",
#   2026, [arXiv 2603.24764](https://arxiv.org/abs/2603.24764), which describes C7 by Cheng et al.
# - Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", CVPR 2022,
#   [arXiv 2112.10752](https://arxiv.org/abs/2112.10752).
# - Song et al., "Denoising Diffusion Implicit Models", ICLR 2021,
#   [arXiv 2010.02502](https://arxiv.org/abs/2010.02502).
# - Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition", CVPR 2018,
#   [arXiv 1711.11248](https://arxiv.org/abs/1711.11248).
