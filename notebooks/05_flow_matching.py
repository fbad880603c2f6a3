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
# # 05 · Flow matching
#
# **Which profile shows what.** The profile `laptop` shows how things work, not which family wins;
# `overnight` is the budget for verdicts. `smoke` only tests that the code runs; its images are
# poor.
#
# **Question.** Flow matching trains a network to move noise to images along lines that are as
# straight as possible. Does it learn cardiac MR images, and how few steps does sampling take?
#
# **What the review says.** Flow matching reaches the fidelity of diffusion in far fewer steps
# (claim F2). It overfits small data sets (F3). With a mask as condition its images follow the
# anatomy of the mask (M1). The review's system is **U10**, flow matching with optimal transport.
# Three versions are trained here:
#
# | system | coupling of noise and images | condition |
# |---|---|---|
# | U10 OT-FM | minibatch optimal transport | none (unconditional) |
# | U10 FM | independent | none (unconditional) |
# | U10 FM + mask | independent | label map of LV, myocardium and RV |
#
# In the third system the label map is concatenated to the input of the network, one plane for each
# label. This *conditioning method* is called concatenation; notebook 07 compares it with others.
# The last two systems are called U10 as well, although their coupling is independent (see Limits).
#
# ## Method
#
# Draw noise $x_0 \sim \mathcal N(0, I)$ and take an image $x_1$. Join the two by a straight line,
# $x_t = (1-t)\,x_0 + t\,x_1$, where $t$ runs from 0 (noise) to 1 (image). The **velocity** along
# this line is $x_1 - x_0$. A network $v_\theta$ learns to predict it (Lipman et al. 2023, eq. 23
# with $\sigma_{\min} = 0$):
#
# $$ \mathcal L = \mathbb E_{t, x_0, x_1} \bigl\| v_\theta(x_t, t) - (x_1 - x_0) \bigr\|^2 . $$
#
# Many lines pass through the same point $x_t$. The best prediction is the mean of their
# velocities. To draw a sample, start at noise and follow the predicted velocity,
# $\dot x = v_\theta(x, t)$, from $t = 0$ to $t = 1$. This ordinary differential equation (ODE)
# turns noise into images with the right distribution. Its paths are not straight: where lines
# cross, the mean velocity changes along the way.
#
# **Minibatch optimal transport** (Tong et al. 2024) changes which noise is paired with which image.
# Within a pool of 256 noises and images (`flow.objective.pool`) it chooses the pairs for which
# $\sum \|x_1 - x_0\|^2$ is smallest. The batches are then cut from the pool. Fewer lines cross, the
# paths become straighter, and an ODE solver needs fewer steps. The alternative, random pairs, is
# called *independent coupling*.
#
# The settings are in `params.yaml`, section `flow`. There `times: logit-normal` draws training
# times $t$ mostly from the middle of the interval (Esser et al. 2024, eq. 19).
#
# **What is measured.** A toy with a known answer shows how far samples are from the truth, for each
# number of steps. On cardiac images this notebook measures the distance to real images, the memory
# of training patients, the agreement with the mask, and the cost.

# %% tags=["parameters"]
profile = None  # None: as params.yaml says
dataset = None

# %% [markdown]
# First the imports: general libraries, then the library of this study.

# %%
from functools import partial

import numpy as np
import pandas as pd
import torch

# %%
from cmri_lib.cohort import requirements
from cmri_lib.config.study import open_study
from cmri_lib.experiments import banks, instruments, learning_curves, toy
from cmri_lib.experiments.parallel import train_all
from cmri_lib.experiments.training import (
    cost_rows, scored_runs, train_or_load, training_log)
from cmri_lib.generators.base import draw
from cmri_lib.generators.flow import EVALUATIONS, FlowMatching, FlowSettings
from cmri_lib.networks.conditioning.base import Conditioning
from cmri_lib.reporting import curve_tables, figures, metrics, plots, results, training_plots
from cmri_lib.reporting.primary_tests import ANATOMY, APPEARANCE
from cmri_lib.systems.system import Run
from cmri_lib.systems.unconditional import UNCONDITIONAL
from cmri_lib.training import TrainSettings

# %% [markdown]
# The next cell opens the study and loads the preprocessed slices of notebook 01. The table counts
# patients and slices of each split. All networks below learn from the split `train` only.

# %%
study = open_study(profile, dataset)
params = study.params
figures.use_style()
slices = instruments.load_slices(study)
print(f"cohort {study.dataset}, profile {study.profile}, images of {slices.size}² pixels")
splits = slices.table.groupby("split")["patient"].agg(patients="nunique", slices="size")
splits

# %% [markdown]
# What this cohort does not have, the notebook leaves out. The next cell says it in words.

# %%
outlook = requirements.outlook(slices)
outlook.need("networks trained on this cohort", "distance to real patients")
print(outlook.left_out("05"))

# %% [markdown]
# ## A toy with a known answer
#
# The toy is a distribution in the plane: eight narrow Gaussians on a circle. Each is a **mode**, a
# place where many points lie. The network is a small perceptron. The truth is known: every sample
# should end near one of the eight centres, and an eighth of the samples at each.
#
# The next cell trains the toy twice, once with each coupling. A training that has been done before
# is loaded.

# %%
rng = torch.Generator().manual_seed(study.seed)
points = toy.eight_gaussians(2000, rng)
noise = torch.randn(1000, 2, generator=rng)
toy_training = TrainSettings(steps=params.toy.steps, batch=256, learning_rate=1e-2, ema=0.99,
                             log_every=500)

def toy_flow(coupling):
    def make():
        return FlowMatching(toy.Perceptron(timed=True), Conditioning(), FlowSettings(coupling))
    folder = study.work("flow") / f"toy-{coupling}"
    return toy.trained(make, points, toy_training, folder, study.seed)

toys = {"independent": toy_flow("independent"), "optimal transport": toy_flow("ot")}
print(f"{toy_training.steps} training steps for each coupling: {', '.join(toys)}")

# %% [markdown]
# Both networks now turn the same noise into points. The solver is **Euler's method**: it divides
# the time into equal steps and follows the velocity at the start of each. The table shows the
# median distance of a sample to the nearest centre. The line above the table says what it is for
# real points.

# %%
euler_steps = [1, 2, 4, 8, 16, 32]
rows = []
for coupling, flow in toys.items():
    for count in euler_steps:
        end = flow.integrate(noise, {}, "euler", count)
        rows.append({"coupling": coupling, "steps": count, **toy.mode_statistics(end)})

toy_table = pd.DataFrame(rows)
print(f"real points: median distance {toy.TRUE_DISTANCE:.3f}")
toy_table.pivot(index="steps", columns="coupling", values="distance").round(3)

# %% [markdown]
# The figure adds a second number, the share of samples at the mode that is visited least. Dashed
# lines are what real points score.

# %%
draw_toy = partial(training_plots.toy_samples, by="coupling", truth=toy.TRUTH,
                   xlabel="Euler steps")
figures.publish(study, "05/toy", toy_table, draw_toy,
                title="Toy: samples after few Euler steps (dashed: real points)");

# %% [markdown]
# **How to read it.** With independent coupling the noise says nothing about the point it is paired
# with. The best first velocity is the mean of all points minus the noise. So one Euler step moves
# every sample to the centre of the circle, as far from the modes as its radius. With optimal
# transport the noise is paired with a point nearby, and a sample starts towards a mode that is
# near. At the right end of the axis the number of steps is no longer the limit. There the distance
# to the dashed line is the error of the network itself.
#
# The next cell measures how straight the paths are. It divides the length of each path by the
# distance between its two ends. A straight path has the ratio 1.

# %%
@torch.no_grad()
def path_ratio(flow, x, steps):
    """Mean length of the paths from noise `x`, divided by the distance of their ends."""
    start, length = x, 0.0
    for k in range(steps):
        time = torch.full((len(x),), k / steps, device=x.device)
        move = flow.network(x, time, {}) / steps
        x, length = x + move, length + move.flatten(1).norm(dim=1)
    return (length / (x - start).flatten(1).norm(dim=1)).mean().item()

for coupling, flow in toys.items():
    ratio = path_ratio(flow, noise, max(euler_steps))
    print(f"{coupling}: path length / distance of the ends = {ratio:.4f}")

# %% [markdown]
# ## Training on cardiac MR images
#
# The network is a U-Net (`flow.network` in `params.yaml`). All three systems have the same network
# and see the same number of images. U10 OT-FM is also trained on fewer patients, for a learning
# curve below. A training that has been done before is loaded.

# %%
names = ("U10 OT-FM", "U10 FM", "U10 FM + mask")
runs = {name: Run(UNCONDITIONAL[name]) for name in names}
curves = learning_curves.LearningCurves(study, slices)
patient_runs = learning_curves.runs_over_patients(study, slices, UNCONDITIONAL["U10 OT-FM"])

trainings = [one for run in runs.values() for one in scored_runs(study, run)]
train_all(study, [*trainings, *patient_runs], slices)
flows = {name: train_or_load(study, run, slices) for name, run in runs.items()}
masked = flows["U10 FM + mask"]
pd.DataFrame({
    "parameters": {n: f"{sum(p.numel() for p in f.parameters()):,}" for n, f in flows.items()},
    "coupling": {name: flow.settings.coupling for name, flow in flows.items()},
})

# %% [markdown]
# The *validation error* is the same loss for patients that the network does not learn from. The
# table shows both errors: at the first and at the last time they were logged, and the smallest
# validation error in between.

# %%
logs = [training_log(study, run).assign(system=name) for name, run in runs.items()]
losses = pd.concat(logs)[["system", "step", "images", "loss_model", "validation_loss"]]
by_system = losses.groupby("system", sort=False)
errors = pd.concat({
    "training": by_system["loss_model"].agg(["first", "last"]),
    "validation": by_system["validation_loss"].agg(["first", "last", "min"]),
}, axis=1)
errors.round(4)

# %%
draw_losses = partial(training_plots.losses, ylabel="mean squared error\nof the velocity",
                      one_scale=True)
figures.publish(study, "05/training", losses, draw_losses,
                title="Error of the predicted velocity during training");

# %% [markdown]
# **How to read it.** The error does not go to zero, and should not: it contains the variance of all
# lines through a point, which no network can predict. Compare systems with the same coupling only,
# because optimal transport makes this variance smaller. **Overfitting** shows where the validation
# error rises while the training error falls. In the table the last validation error is then larger
# than the smallest.
#
# Does optimal transport make the paths of images straighter as well? The next cell repeats the
# measurement of the toy.

# %%
image_noise = torch.randn(16, 1, slices.size, slices.size, generator=rng)
for name in ("U10 OT-FM", "U10 FM"):
    ratio = path_ratio(flows[name], image_noise.to(flows[name].device), max(euler_steps))
    print(f"{name}: path length / distance of the ends = {ratio:.4f}")

# %% [markdown]
# **How to read it.** Compare by how much the ratios exceed 1. Both are small for images: an image
# has many pixels, most of the path removes noise from them, and this part is straight. Optimal
# transport works within a pool of 256 images. That is many for eight modes in the plane, and few
# for images: all are about equally far from a noise (exercise 2). So the two ratios can be close to
# each other.
#
# ## Samples
#
# Each system draws `samples` images (see `params.yaml`). They are saved as a **bank**, a fixed set
# of samples, which later notebooks read and measure. The conditions are masks of *test* patients.
# No network has learnt from these patients.

# %%
conditions = banks.sampling_conditions(slices, params.samples, study.seed)
for run in trainings:
    banks.draw_bank(study, run, train_or_load(study, run, slices), conditions)
samples = {name: banks.load_bank(study, run) for name, run in runs.items()}
shown = np.linspace(0, len(conditions) - 1, 10).astype(int)
rows = {"real": conditions.take(shown)}
rows |= {name: bank.take(shown) for name, bank in samples.items()}
figures.publish_slices(study, "05/samples", rows,
                       title="Real slices of test patients, and samples "
                             "(outlines: LV red, myocardium yellow, RV blue)");

# %% [markdown]
# **How to read it.** Samples without outlines are unconditional, and do not belong to the real
# slice above them. In the last row the outline is the mask that the network was conditioned on. A
# heart should lie inside it.
#
# ### One mask, many noises
#
# The mask leaves much open: contrast, surroundings, the look of the scanner. The noise decides
# these. The next cell draws nine samples of one mask, the largest of those above.

# %%
largest = shown[np.argmax((conditions.masks[shown] > 0).sum(axis=(1, 2)))]
same_mask = conditions.take([largest] * 9)
variety = draw(masked, same_mask, "U10 FM + mask", seed=study.seed + 1)
spread = variety.images[:, 0].std(axis=0)
inside = same_mask.masks[0] > 0
print(f"standard deviation between samples: {spread[inside].mean():.3f} in the heart, "
      f"{spread[~inside].mean():.3f} around it")
figures.publish_slices(study, "05/one_mask", {"same mask": variety},
                       title="Nine samples of one mask, from nine noises");

# %% [markdown]
# **How to read it.** Small deviations in the heart and larger ones around it mean that the mask
# fixes the heart, and the noise the rest. Deviations near 0 everywhere would mean that the network
# ignores its noise.
#
# ## How few steps?
#
# The number of network evaluations (**NFE**) decides how long sampling takes. Three solvers are
# compared at equal NFE. *Euler* evaluates the network once in each step. *Midpoint* and *Heun*
# evaluate it twice and use the second velocity to correct for the curvature of the path. There are
# three measures:
#
# - **Distance of anatomy** to real images of other patients. A frozen segmenter, a network that
#   finds the parts of the heart, has learnt from real images (notebook 01). The distance compares
#   the output of its deepest layer, the bottleneck of the U-Net: there it has recognised a heart,
#   but not yet drawn its outline. It sees hearts, and hardly sees a mild blur.
# - **Distance of appearance** to the same images. It compares the energies of Gabor filters: how
#   strongly an image answers to small wave patterns of several sizes and directions. Nothing is
#   learnt for it. It sees texture and blur, but not whether the parts of a heart are in place.
# - **Share of samples nearest to training patients.** Each sample has a nearest real slice. It
#   belongs either to a training patient or to a hold-out patient, whom no network has seen. The
#   share corrects for the numbers of patients. Without memory it is what real test slices score,
#   the dashed line; with few patients this is not exactly ½. For copies of training images it is 1.
#   If all samples look alike, they have the same few neighbours; the share then says little, and
#   its interval is wide.
#
# Both distances are of the kind **MMD** (maximum mean discrepancy): how alike samples are to real
# images, compared with how alike real images are to each other. Equal sets have 0; an estimate can
# fall slightly below. The dashed line is the **floor**, what real patients score against other real
# patients. No generator can be expected to do better. A system must do well in anatomy *and* in
# appearance: a right texture without a heart is no heart, and a heart of wrong texture is no MR
# image. **KID** (kernel distance) is in the figures for comparison with other papers only.

# %%
evaluations = params.flow.few_steps.evaluations

def choices(solver):
    """NFE → solver and steps, for every NFE that this solver can have."""
    per_step = EVALUATIONS[solver]
    return {nfe: {"solver": solver, "steps": nfe // per_step}
            for nfe in evaluations if nfe % per_step == 0}

compared = {"U10 OT-FM": ("euler", "midpoint", "heun"), "U10 FM": ("euler", "midpoint")}
rows = []
for name, solvers in compared.items():
    samplers = {solver: choices(solver) for solver in solvers}
    rows += curves.over_evaluations(runs[name], flows[name], samplers)
few_steps = pd.DataFrame(rows)

# %%
figures.publish(study, "05/few_steps", few_steps, plots.learning_curves,
                title="Quality and memory against network evaluations per image");

# %% [markdown]
# **How to read it.** A solver has enough steps where its curves become flat, in anatomy and in
# appearance. Heun can be at a
# disadvantage with few steps, although it has the same order as midpoint. Its last evaluation asks
# for the velocity at $t = 1$, where logit-normal training has hardly ever looked, and a long step
# multiplies the error. This is why midpoint is the default. The table prints both distances.

# %%
both = few_steps[few_steps["metric"].isin([ANATOMY, APPEARANCE])]
by_steps = both.pivot(index=["metric", "x"], columns=["system", "sampler"], values="value")
by_steps.rename(index=metrics.short, level="metric").rename_axis(["distance", "NFE"]).round(3)

# %% [markdown]
# And the anatomy? A frozen segmenter, trained on real training patients (notebook 01), segments the
# mask-conditioned samples. **Dice** is the overlap of its segmentation with the mask that was asked
# for: 1 for equal masks, 0 for masks without overlap. The *ceiling* is the Dice that the segmenter
# reaches on real images of the same patients. The *floor* is the Dice with the mask of another
# patient.

# %%
solver = params.flow.objective.solver
rows = []
for nfe, sampler in choices(solver).items():
    bank = curves.evaluator.bank(runs["U10 FM + mask"], masked, **sampler)
    scores = curves.evaluator.adherence(bank)
    rows += [{"NFE": nfe, **row} for row in scores if row["metric"] == "dice_mean"]

adherence = pd.DataFrame(rows).set_index("NFE")
print(f"U10 FM + mask, solver {solver}: {metrics.title('dice_mean')}")
adherence[["value", "low", "high", "floor", "ceiling"]].round(3)

# %% [markdown]
# **How to read it.** Compare this table with the one before. If Dice and the distance of anatomy
# become constant at a smaller NFE than the distance of appearance, then the first evaluations
# decide *where* the heart lies, and the later ones its texture.
#
# ## More training, fewer patients
#
# The same measures follow U10 OT-FM during its training. They also compare trainings on fewer
# patients, for the same number of steps. A network that memorises its patients has a share near 1.

# %%
rows = curves.over_compute(runs["U10 OT-FM"])
rows += curves.over_patients(UNCONDITIONAL["U10 OT-FM"])
table = results.write_curves(study, "05_flow_matching", [*few_steps.to_dict("records"), *rows])
figures.publish(study, "05/curves", table[table["curve"] != "NFE"], plots.learning_curves,
                title="U10 OT-FM: during training, and with fewer training patients");

# %% [markdown]
# **How to read it.** Upper panels: a line that still falls at its right end belongs to a training
# that has not converged. Lower panels: with fewer patients the share should rise if the network
# memorises (claim F3). A distance of anatomy that rises as well shows that the samples cover fewer
# kinds of hearts.
#
# ## Cost
#
# The next table lists what each training and each image took, with the default solver and number of
# steps.

# %%
scores = [row for name, flow in flows.items()
          for row in cost_rows(study, runs[name], flow, conditions)]
costs = results.write_scores(study, "05_flow_matching", scores, seeds=1)
shown_costs = costs.assign(
    what=costs["metric"].map(metrics.label),
    number=[metrics.number(m, v) for m, v in zip(costs["metric"], costs["value"])])
shown_costs.pivot(index="what", columns="system", values="number").rename_axis(index=None)

# %% [markdown]
# **How to read it.** Sampling time is proportional to the NFE. The label map adds a few weights in
# the first layer, so its sampling time should be about the same. Differences between systems with
# the same network and the same NFE show how much the clock varies.
#
# ## Check
#
# The assertions fail if another mask leads to the same image, if the toy is not solved, if optimal
# transport is no better with one step of the toy, or if the validation error has not become
# smaller during training. The profile `smoke` does not train the toy to the end, so there it need
# not be solved.

# %%
some = curves.evaluator.conditions
swapped = some.take(np.roll(np.arange(len(some)), len(some) // 2))
pair = [draw(masked, c.take(range(4)), "check", seed=0).images for c in (some, swapped)]
assert np.abs(pair[0] - pair[1]).mean() > 0.01, "another mask, the same image: condition ignored"
toy_scores = toy_table.set_index(["coupling", "steps"])
best = toy_scores.loc[("optimal transport", 32)]
if study.profile != "smoke":
    assert best["distance"] < 0.5 and best["rarest"] > 0.04, "the toy has not been solved"
one_step = toy_scores["distance"].xs(1, level="steps")
assert one_step["optimal transport"] < one_step["independent"], "transport does not save steps"
validation = errors["validation"]
if outlook["checks on unseen patients"]:
    assert (validation["last"] < validation["first"]).all(), "nothing learnt for unseen patients"
print("all checks passed")

# %% [markdown]
# ## Exercises
#
# ### 1. A single step
#
# Draw the unconditional flow with a single Euler step. *Hint:* what is the best prediction of the
# velocity at $t = 0$? What do you see, and why?

# %% tags=["solution"]
flow = flows["U10 FM"]
once = flow.integrate(image_noise.to(flow.device), {}, "euler", 1)
test = slices.where(split="test")
print(f"standard deviation between samples: {once.std(0).mean().item():.3f}")
print(f"standard deviation between real slices: {test.images.std(0).mean():.3f}")
# At t = 0 nothing is known about the image. The best velocity is the mean image minus the noise.
# One step of length 1 leads to the mean image, whatever the noise was. A network with little
# training leaves some of the noise.

# %% [markdown]
# ### 2. What optimal transport saves
#
# Pair 64 noises with 64 points of the toy: at random, and such that the sum of the squared
# distances is smallest (`scipy.optimize.linear_sum_assignment`). By how much is the way shorter? Do
# the same with 64 training slices. Why is so much less saved there?

# %% tags=["solution"]
from scipy.optimize import linear_sum_assignment

learnt_from = slices.where(split="train")
spread_out = np.linspace(0, len(learnt_from) - 1, 64).astype(int)
targets = {"toy": points[:64],
           "slices": torch.from_numpy(learnt_from.images[spread_out]).flatten(1)}
for name, target in targets.items():
    start = torch.randn(target.shape, generator=torch.Generator().manual_seed(study.seed))
    cost = torch.cdist(start, target).square().numpy()
    matched = cost[linear_sum_assignment(cost)].mean()
    print(f"{name}, {target.shape[1]} numbers each: mean squared way {cost.mean():.1f} at random, "
          f"{matched:.1f} matched: {1 - matched / cost.mean():.0%} saved")
# Toy at random, in closed form: 3² + 2 × 0.2² + 2 = 11.08. With thousands of numbers every noise is
# about equally far from every slice: whom one pairs with whom hardly matters.

# %% [markdown]
# ### 3. What the mask decides
#
# The variance of a pixel over all samples of "U10 FM + mask" is that between masks plus that within
# one mask. `variety` has nine samples of one mask. Which share of the variance does the mask
# decide, in the heart and around it? Which share should it be, if the flow used nothing but its
# mask?

# %% tags=["solution"]
over_all = samples["U10 FM + mask"].images[:, 0].var(axis=0, ddof=1)
within = variety.images[:, 0].var(axis=0, ddof=1)
for place, pixels in {"in the heart": inside, "around it": ~inside}.items():
    share = 1 - within[pixels].mean() / over_all[pixels].mean()
    print(f"{place}: standard deviation {over_all[pixels].mean() ** 0.5:.3f} over all samples, "
          f"{within[pixels].mean() ** 0.5:.3f} with one mask; decided {100 * share:.1f} %")
# If the flow used nothing but its mask, all samples of one mask would be equal: 100 %. A good flow
# stays below: a mask leaves brightness and texture open, and most of what lies around the heart.
# A flow that ignores its mask has 0 everywhere, up to chance, and so has one with little training.

# %% [markdown]
# ## Summary
#
# The next cells print the numbers of this run. First the toy: the median distance to the nearest
# centre, divided by that of real points, for each number of steps.

# %%
relative = toy_table.assign(relative=toy_table["distance"] / toy.TRUE_DISTANCE)
relative.pivot(index="coupling", columns="steps", values="relative").round(2)

# %% [markdown]
# Then one row for each system and solver: both distances with the most evaluations and their 95 %
# intervals, and the fewest evaluations with which neither distance lies above the interval that it
# has with the most. The first row is the floor.

# %%
curve_tables.fewest_evaluations(few_steps)

# %% [markdown]
# Finally the memory of U10 OT-FM against its number of training patients, and the sampling times.

# %%
over_patients = table[table["curve"] == "patients"]
seconds = costs[costs["metric"] == "seconds_per_image"].set_index("system")["value"]
for name, flow in flows.items():
    print(f"{name}: {seconds[name]:.4f} s per image with {flow.nfe} evaluations")
curve_tables.side_by_side(over_patients, "x").rename_axis("training patients")

# %% [markdown]
# 1. **Optimal transport saves steps in the toy.** Compare the two rows of the first table at one
#    step; the check above holds for every run. A value near 1 is as good as real points. The ratios
#    of path length explain the difference. With many steps the order of the rows may change: then
#    the error of the network counts, not the number of steps.
# 2. **On images look at the path ratios first.** If they are nearly equal for the two couplings,
#    then optimal transport has changed little, and the rows of U10 OT-FM and U10 FM in the second
#    table should be close as well.
# 3. **Few evaluations.** The column "fewest NFE" says how many evaluations each solver needs for
#    both distances. A distance that stays far above its floor means that more steps will not help:
#    the network needs more training. Whether flow matching needs fewer steps than diffusion (claim
#    F2) is answered in notebook 06.
# 4. **Anatomy.** In the Dice table compare the value with its ceiling and its floor. A value near
#    the ceiling means that images follow their masks as well as real images do (claim M1).
# 5. **Memory (claim F3).** In the last table compare the share nearest to training patients for few
#    and for all patients. An interval that contains the floor is no evidence of memory.
#
# ## Limits
#
# - The scores here are of one training. Their intervals describe the choice of patients, not the
#   choice of the seed.
# - Small pools limit what minibatch optimal transport can do. In a conditional system it would tie
#   the noise to the condition. So the mask-conditioned system couples independently.
# - Samples of the mask-conditioned system follow masks of test patients. Whether its images help to
#   train a segmenter is a question of notebook 07.
# - Whether flow matching needs fewer steps than *diffusion* is decided in notebook 06, where both
#   are measured in the same way.
