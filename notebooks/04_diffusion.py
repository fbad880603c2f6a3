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
# # 04 · Diffusion on pixels, on latents and on tokens
#
# **Which profile shows what.** The profile `laptop` shows how things work, not which family wins;
# `overnight` is the budget for verdicts. `smoke` only tests that the code runs; its images are
# poor.
#
# **Question.** A diffusion model learns to remove noise from images. It then makes new images from
# pure noise. Does this work for cardiac MR images? And is it better done on pixels, on the latents
# of an autoencoder, or on its tokens?
#
# **What the review says.** Diffusion beats GANs and VAEs in unconditional fidelity (claim F1).
# *Unconditional* means that the network gets noise and nothing else: no mask, no vendor, no
# disease. *Fidelity* means how close the set of synthetic images is to the set of real ones. Flow
# matching needs far fewer steps than diffusion (F2). Five systems are trained here:
#
# | system | what it models | network | method |
# |---|---|---|---|
# | U6 DDPM | pixels | U-Net | diffusion |
# | U7 LDM-KL | latents of a KL autoencoder | U-Net | diffusion |
# | U7 LDM-VQ | latents of a VQ autoencoder | U-Net | diffusion |
# | U8 DiT | latents of the same KL autoencoder | transformer | diffusion |
# | U9 MaskGIT | tokens of the same VQ autoencoder | transformer | masked prediction |
#
# DDPM stands for denoising diffusion probabilistic model, LDM for latent diffusion model, and DiT
# for diffusion transformer. The review calls MaskGIT robust when parts of an image are masked.
#
# ## Method
#
# **Adding noise.** There are $T$ noise levels. At level $n$ an image $x_0$ becomes
#
# $$ x_n = \alpha_n x_0 + \sigma_n \varepsilon, \qquad \varepsilon \sim \mathcal N(0, I), \qquad
# \alpha_n^2 + \sigma_n^2 = 1 $$
#
# (Ho et al. 2020, eq. 4). The signal $\alpha_n$ falls from 1 to nearly 0, and the noise $\sigma_n$
# rises from 0 to nearly 1. The list of these numbers is called the *noise schedule*.
#
# **What is learnt.** A network sees $x_n$ and $n$, and predicts the noise that was added (eq. 14):
#
# $$ \mathcal L = \mathbb E_{n, x_0, \varepsilon}\; w_n \bigl\| \varepsilon_\theta(x_n, n)
# - \varepsilon \bigr\|^2 . $$
#
# The best prediction is the mean of all noises that could have led to $x_n$. It gives the **score**
# of the noisy images, the gradient of their log-density:
# $\nabla \log p_n(x) = -\mathbb E[\varepsilon \mid x_n = x] / \sigma_n$. The score points to where
# images become more likely.
#
# **Three equivalent predictions.** From the noise follows the clean image,
# $\hat x_0 = (x_n - \sigma_n \hat\varepsilon)/\alpha_n$, and the other way round. So the network
# may predict $\varepsilon$, or $x_0$, or $v = \alpha_n \varepsilon - \sigma_n x_0$ (Salimans & Ho
# 2022). The last one is $\varepsilon$ at the level without noise, and $-x_0$ at the level of pure
# noise.
#
# **Sampling.** Start with pure noise. Predict the clean image and the noise, and mix them anew for
# a lower level $m < n$. Repeat this until $m = 0$:
#
# $$ x_m = \alpha_m \hat x_0 + \sqrt{\sigma_m^2 - s^2}\; \hat\varepsilon + s\, z,
# \qquad z \sim \mathcal N(0, I). $$
#
# Three *samplers* are compared. Each evaluates the network once per step.
#
# - **Ancestral** sampling (`ddpm`) adds fresh noise at each step:
#   $s^2 = \sigma_m^2 / \sigma_n^2 \,(1 - \alpha_n^2 / \alpha_m^2)$ (Ho et al., eq. 7).
# - **DDIM** (`ddim`, Song et al. 2021) adds none, $s = 0$. It follows an ordinary differential
#   equation with steps of first order.
# - **DPM-Solver++** (`dpm-solver`, Lu et al. 2022) does the same with steps of second order. It
#   extrapolates $\hat x_0$ from the present and the previous step.
#
# The settings are in `params.yaml`, sections `diffusion` and `latent`.
#
# **What is measured.** A toy with a known answer shows the error of the score, and how far samples
# are from the truth. On cardiac images this notebook measures the distance to real images, the
# memory of training patients, the error of the autoencoders, and the cost.

# %% tags=["parameters"]
profile = None  # None: as params.yaml says
dataset = None

# %% [markdown]
# First the imports: general libraries, then the library of this study.

# %%
from functools import partial
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch

from cmri_lib.cohort import requirements
from cmri_lib.cohort.slices import Slices
from cmri_lib.config.study import open_study
from cmri_lib.experiments import banks, instruments, learning_curves, toy
from cmri_lib.experiments.parallel import train_all
from cmri_lib.experiments.training import (
    cost_rows, scored_runs, train_or_load, training_log)

# %%
from cmri_lib.generators.base import draw
from cmri_lib.generators.diffusion import SAMPLERS, Diffusion, DiffusionSettings, cumulative_alpha
from cmri_lib.networks.autoencoder import perplexity
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
print(outlook.left_out("04"))

# %% [markdown]
# ## A toy whose score is known
#
# The toy is a distribution in the plane: eight narrow Gaussians on a circle. Each is a **mode**, a
# place where many points lie. The network is a small perceptron.
#
# The next cell trains the toy three times, once for each kind of prediction: the noise
# (`epsilon`), $v$, and the clean point (`sample`). Everything else is equal. A training that has
# been done before is loaded.

# %%
rng = torch.Generator().manual_seed(study.seed)
points = toy.eight_gaussians(2000, rng)
noise = torch.randn(1000, 2, generator=rng)
toy_training = TrainSettings(steps=params.toy.steps, batch=256, learning_rate=1e-2, ema=0.99,
                             log_every=500)

def toy_diffusion(prediction):
    def make():
        objective = DiffusionSettings(prediction=prediction, clip=False)
        return Diffusion(toy.Perceptron(timed=True, hidden=3), Conditioning(), objective)
    folder = study.work("diffusion") / f"toy-{prediction}"
    return toy.trained(make, points, toy_training, folder, study.seed)

toys = {prediction: toy_diffusion(prediction) for prediction in ("epsilon", "v", "sample")}
print(f"{toy_training.steps} training steps for each prediction: {', '.join(toys)}")

# %% [markdown]
# With noise, the eight Gaussians stay Gaussians. At level $n$ their centres are $\alpha_n c_k$, and
# their variance is $\alpha_n^2 \sigma^2 + \sigma_n^2$, where $\sigma$ is the width of a mode. So
# the score of the noisy points can be written down: at a point $x$ it is a weighted mean of the
# pulls towards the eight centres.
#
# The next cell defines this true score, and the score that a network has learnt.

# %%
def true_score(x, alpha, sigma):
    """∇ log p_n at the points `x` (N, 2) of a level with signal `alpha` and noise `sigma`."""
    towards = alpha[:, None] * toy.centres() - x[:, None]
    variance = (toy.SIGMA * alpha) ** 2 + sigma**2
    weights = torch.softmax(-towards.square().sum(-1) / (2 * variance), dim=1)
    return (weights[..., None] * towards).sum(1) / variance

@torch.no_grad()
def learnt_score(diffusion, x, level):
    """The same from a network: −ε̂/σ, computed from its prediction of the clean point."""
    alpha, sigma = diffusion.levels(level, x)
    return (alpha * diffusion.predict_x0(x, level, {}) - x) / sigma**2

# %% [markdown]
# Both are now compared at noisy points, at many levels. The *relative error* is the root mean
# square length of the difference, divided by that of the true score. 0 is perfect; 1 is as bad as
# the answer 0 everywhere. The table shows some of the levels.

# %%
last = toys["v"].last
rows = []
for n in range(last // 20, last, last // 20):
    level = torch.full((len(points),), n)
    noisy = toys["v"].add_noise(points, torch.randn(points.shape, generator=rng), level)
    true = true_score(noisy, *toys["v"].levels(level, noisy))
    for prediction, diffusion in toys.items():
        difference = learnt_score(diffusion, noisy, level) - true
        relative = (difference.square().sum() / true.square().sum()).sqrt().item()
        rows.append({"prediction": prediction, "level": n, "error": relative})

error = pd.DataFrame(rows)
by_level = error.pivot(index="prediction", columns="level", values="error")
by_level.iloc[:, ::3].round(3)

# %%
def draw_error(numbers):
    figure, axis = plt.subplots(figsize=(7, 3.2))
    sns.lineplot(numbers, x="level", y="error", hue="prediction", style="prediction",
                 markers=True, dashes=False, ax=axis)
    axis.set(yscale="log", xlabel=f"noise level n (of {last})", ylabel="relative error")
    axis.legend(title="the network predicts", loc="upper left", bbox_to_anchor=(1, 1))
    return figure

figures.publish(study, "04/score_error", error, draw_error,
                title="Toy: error of the learnt score, for three kinds of prediction");

# %% [markdown]
# **How to read it.** The networks are equal, but their errors are used differently. A prediction
# of $x_0$ is divided by $\sigma_n$ when the noise is computed from it, so it should suffer at the
# left end, where there is little noise. A prediction of $\varepsilon$ is divided by $\alpha_n$ when
# the image is computed, which matters for sampling at the right end. $v$ is never divided by a
# small number. This is why the systems below predict $v$.
#
# The next figure shows the score itself, as arrows, at a lower and at a higher noise level. The
# line above it gives the signal and the noise of the two levels.

# %%
side = torch.linspace(-4, 4, 15)
plane = torch.cartesian_prod(side, side)
fields = []
for n in (3 * last // 10, 7 * last // 10):
    level = torch.full((len(plane),), n)
    alpha, sigma = toys["v"].levels(level, plane)
    learnt = learnt_score(toys["v"], plane, level)
    for score, arrow in {"true": true_score(plane, alpha, sigma), "learnt": learnt}.items():
        arrows = torch.cat([plane, arrow], dim=1).numpy()
        columns = pd.DataFrame(arrows, columns=["x", "y", "dx", "dy"])
        fields.append(columns.assign(score=score, level=n))
    print(f"level {n}: signal α = {alpha[0].item():.2f}, noise σ = {sigma[0].item():.2f}")

# %%
def draw_score(numbers):
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), sharey=True)
    looks = {"true": {"color": "0.7", "width": 0.009}, "learnt": {"color": "C3", "width": 0.004}}
    for axis, (level, part) in zip(axes, numbers.groupby("level")):
        longest = np.hypot(part["dx"], part["dy"])[part["score"] == "true"].max()
        for score, look in looks.items():
            arrows = part.loc[part["score"] == score, ["x", "y", "dx", "dy"]].to_numpy().T
            axis.quiver(*arrows, label=f"{score} score", scale=12 * longest, **look)
        axis.set(title=f"noise level {level} of {last}", aspect="equal", xlabel="first coordinate")
    axes[0].set_ylabel("second coordinate")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure

figures.publish(study, "04/score", pd.concat(fields), draw_score,
                title="Toy: true score and the score learnt by predicting v");

# %% [markdown]
# **How to read it.** Where red arrows cover grey ones, the score has been learnt. The network only
# learns where noisy points lie. Far away from them it extrapolates, and its arrows may be wrong.
# With little noise the arrows lead to the nearest mode. With much noise they lead to the middle,
# because nothing is left that tells the modes apart.
#
# ### Samplers on the toy
#
# The three samplers now turn the same noise into points, with few and with many steps. The network
# is the one that predicts $v$. The table shows the median distance of a sample to the nearest
# centre. The line above the table says what it is for real points.

# %%
toy_steps = [2, 4, 8, 16, 32, 100]
rows = []
for sampler in SAMPLERS:
    for count in toy_steps:
        end = toys["v"].sample(noise, {}, sampler=sampler, steps=count)
        rows.append({"sampler": sampler, "steps": count, **toy.mode_statistics(end)})

toy_table = pd.DataFrame(rows)
print(f"real points: median distance {toy.TRUE_DISTANCE:.3f}")
toy_table.pivot(index="steps", columns="sampler", values="distance")[list(SAMPLERS)].round(3)

# %% [markdown]
# The figure adds a second number, the share of samples at the mode that is visited least. Dashed
# lines are what real points score.

# %%
draw_toy = partial(training_plots.toy_samples, by="sampler", truth=toy.TRUTH,
                   xlabel="network evaluations")
figures.publish(study, "04/toy", toy_table, draw_toy,
                title="Toy: three samplers with few and many steps (dashed: real points)");

# %% [markdown]
# **How to read it.** A sampler has enough steps where its curve becomes flat. With many steps the
# samplers should agree, since all of them approximate the same distribution. The gap to the dashed
# line that is then left is the error of the network, not of the sampler. A curve can also lie below
# the line: then points are too close to the centres, and the modes too narrow.
#
# ## Diffusion on pixels
#
# Now images. The next figure adds noise to one slice of a test patient, at the levels that a
# sampler with eight steps visits. The network has to find the way back, from right to left. The
# table gives signal and noise at each of these levels. The function of the next cell turns images
# into `Slices`, which figures need.

# %%
def as_slices(images, like, source):
    """Images (N, 1, H, W) as `Slices` with the metadata of `like`, without masks."""
    array = images.clamp(-1, 1).float().cpu().numpy()
    return Slices(array, np.zeros_like(like.masks), like.table.assign(source=source))

# %%
test = slices.where(split="test")
largest = np.argmax((test.masks > 0).sum(axis=(1, 2)))
schedule = Diffusion(torch.nn.Identity(), Conditioning(), params.diffusion.objective)
visited = torch.tensor(schedule.times(8)[::-1])
same = test.take([largest] * len(visited))
clean = torch.from_numpy(same.images)
noisy = schedule.add_noise(clean, torch.randn(clean.shape, generator=rng), visited)
alpha, sigma = (values.flatten().numpy() for values in schedule.levels(visited, clean))
levels = [f"n = {n}" for n in visited.tolist()]
pd.DataFrame({"signal α": alpha, "noise σ": sigma}, index=levels).T.round(3)

# %%
figures.publish_slices(study, "04/noising", {"noisy image": as_slices(noisy, same, "real")},
                       titles=levels, title="One test slice with more and more noise");

# %% [markdown]
# **How to read it.** Small details disappear first, the heart as a whole last. Find the first
# level at which you cannot see the heart. At this level and to the right of it, a network must
# decide where the heart lies; to the left of it, what it looks like in detail.
#
# Two schedules are in common use. In the *linear* one of Ho et al. the noise per step grows
# linearly. The *cosine* schedule (Nichol & Dhariwal 2021) adds noise more slowly. The next cell
# counts the levels at which less than 1 % of the variance of the image is left. Training at such
# levels teaches the network little.

# %%
steps = params.diffusion.objective.train_steps
for kind in ("linear", "cosine"):
    share = (cumulative_alpha(kind, steps) < 0.01).double().mean().item()
    print(f"{kind} schedule: {share:.0%} of the levels are nearly pure noise")
print(f"used here: {params.diffusion.objective.schedule}, "
      f"the network predicts {params.diffusion.objective.prediction}")

# %% [markdown]
# ### Training
#
# The network of U6 is a U-Net with attention at its lowest resolution. It is the same network as
# that of flow matching in notebook 05. The next cell trains all five systems, and U6 also on fewer
# patients, for a learning curve at the end. A `Run` names one training: a system, its patients, its
# seed. A training that has been done before is loaded.

# %%
names = ("U6 DDPM", "U7 LDM-KL", "U7 LDM-VQ", "U8 DiT", "U9 MaskGIT")
runs = {name: Run(UNCONDITIONAL[name]) for name in names}
curves = learning_curves.LearningCurves(study, slices)
patient_runs = learning_curves.runs_over_patients(study, slices, UNCONDITIONAL["U6 DDPM"])

trainings = [one for run in runs.values() for one in scored_runs(study, run)]
train_all(study, [*trainings, *patient_runs], slices)
generators = {name: train_or_load(study, run, slices) for name, run in runs.items()}
ddpm = generators["U6 DDPM"]
pd.DataFrame({"parameters": {
    name: f"{sum(p.numel() for p in generator.parameters()):,}"
    for name, generator in generators.items()}})

# %% [markdown]
# The parameters of a latent system include those of its autoencoder.
#
# The *validation loss* is the same loss for patients that the network does not learn from. The
# table shows both losses: at the first and at the last time they were logged, and the smallest
# validation loss in between.

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
draw_losses = partial(training_plots.losses, ylabel="loss (of each system's own kind)")
figures.publish(study, "04/training", losses, draw_losses,
                title="Loss during training, for training and for validation patients");

# %% [markdown]
# **How to read it.** The losses of different systems are in different units: errors on pixels, on
# latents, or the surprise about a token. So compare shapes, not heights. No loss goes to zero,
# because nobody can know the noise exactly. **Overfitting** shows where the validation loss rises
# while the training loss falls. In the table the last validation loss is then larger than the
# smallest.
#
# Each system now draws `samples` images (see `params.yaml`). They are saved as a **bank**, a fixed
# set of samples, which later notebooks read and measure. The slices of *test* patients only set how
# many images are drawn: these systems are unconditional.

# %%
conditions = banks.sampling_conditions(slices, params.samples, study.seed)
for run in trainings:
    banks.draw_bank(study, run, train_or_load(study, run, slices), conditions)
samples = {name: banks.load_bank(study, run) for name, run in runs.items()}
intensity = {"real": conditions, **samples}
pd.DataFrame({name: {"images": len(some), "mean intensity": some.images.mean(),
                     "standard deviation": some.images.std()}
              for name, some in intensity.items()}).T.round(3)

# %% [markdown]
# **How to read it.** Intensities run from −1 (black) to 1 (white). A system whose mean or
# standard deviation is far from the real one has not learnt the brightness and contrast of the
# images.
#
# ### The way from noise to image
#
# The next figure follows one sample of U6 through eight steps, for each sampler, from the same
# noise. Upper rows show the state $x_m$ after the step to level $m$. Lower rows show $\hat x_0$,
# the prediction of the clean image in that step.

# %%
image_noise = torch.randn(1, 1, slices.size, slices.size, generator=rng).to(ddpm.device)
like = samples["U6 DDPM"].take([0] * 8)
rows, predicted = {}, {}
for sampler in SAMPLERS:
    states = list(ddpm.path(image_noise, {}, sampler, ddpm.times(8)))
    predicted[sampler] = torch.cat([clean for _, _, clean in states])
    state = torch.cat([x for _, x, _ in states])
    rows[f"{sampler}: state"] = as_slices(state, like, "U6 DDPM")
    rows[f"{sampler}: prediction"] = as_slices(predicted[sampler], like, "U6 DDPM")

titles = [f"m = {m}" for m, _, _ in states]
figures.publish_slices(study, "04/path", rows, titles=titles,
                       title="One sample on its way from noise to image, in eight steps");

# %% [markdown]
# The table puts numbers to it: the mean absolute difference between the prediction of each step
# and the last prediction of the same sampler. The lines below it compare the last predictions of
# the samplers with each other.

# %%
def difference(one, other):
    """Mean absolute difference of the intensities, for each image."""
    return (one - other).abs().mean(dim=(1, 2, 3)).cpu().numpy()

settled = {name: difference(images, images[-1:]) for name, images in predicted.items()}
for one, other in combinations(SAMPLERS, 2):
    apart = difference(predicted[one][-1:], predicted[other][-1:]).item()
    print(f"{one} and {other}: last predictions differ by {apart:.3f}")
pd.DataFrame(settled, index=titles).T.round(3)

# %% [markdown]
# **How to read it.** The best first prediction is the mean image, since pure noise says nothing
# about the heart. Detail comes as noise goes. A small number in a middle column means that the
# position of the heart and its surroundings are settled by then. DDIM and DPM-Solver++ approximate
# the same path, so they should end closer to each other than to ancestral sampling, whose fresh
# noise leads to another image.
#
# ### How few steps?
#
# The number of network evaluations (**NFE**) decides how long sampling takes. The samplers are
# compared at several NFE, all with the same trained network. There are three measures:
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
few = params.diffusion.few_steps
evaluations = {"ddpm": few.ddpm, "ddim": few.ddim, "dpm-solver": few.dpm_solver}
choices = {sampler: {nfe: {"sampler": sampler, "steps": nfe} for nfe in counts}
           for sampler, counts in evaluations.items()}
few_steps = pd.DataFrame(curves.over_evaluations(runs["U6 DDPM"], ddpm, choices))
figures.publish(study, "04/few_steps", few_steps, plots.learning_curves,
                title="U6: quality and memory against network evaluations per image");

# %% [markdown]
# The table prints both distances. Empty cells have not been measured (`few_steps` in
# `params.yaml`).

# %%
both = few_steps[few_steps["metric"].isin([ANATOMY, APPEARANCE])]
by_steps = both.pivot(index="x", columns=["metric", "sampler"], values="value")
by_steps = by_steps[[ANATOMY, APPEARANCE]].rename_axis(index="NFE").round(3)
by_steps.rename(columns=metrics.short, level="metric")

# %% [markdown]
# **How to read it.** A sampler has enough steps where its curves become flat, in anatomy and in
# appearance. One may do so before the other: a heart can be in its place while its texture is still
# blurred or grainy. Curves that end at the same height show that the sampler no longer matters;
# what is left above the dashed line is the error of the network.
#
# The next figure shows images with the fewest and with the most steps of each sampler. Each column
# starts from the same noise.

# %%
first_ten, rows = conditions.take(range(10)), {}
for sampler, counts in evaluations.items():
    for nfe in sorted({min(counts), max(counts)}):
        rows[f"{sampler}, {nfe} steps"] = draw(ddpm, first_ten, "U6 DDPM", seed=study.seed,
                                               sampler=sampler, steps=nfe)
figures.publish_slices(study, "04/samplers", rows, outline=False,
                       title="U6: samples with the fewest and with the most steps");

# %% [markdown]
# **How to read it.** Compare two rows of one sampler. With too few steps images are blurred or
# grainy. For DDIM and DPM-Solver++ the heart of a column should stay in place when steps are
# added. For ancestral sampling it may become another heart.
#
# ## Diffusion on latents
#
# An **autoencoder** has two networks. The encoder makes an image small, and the decoder restores
# it. The small image is called the **latents**. Latent diffusion (Rombach et al. 2022) trains the
# autoencoder first, and then a diffusion model on the latents. The diffusion network becomes
# cheaper, and need not draw what the decoder knows anyway. But what the autoencoder loses does not
# come back. The autoencoder is called the *first stage* of the system. Two kinds are used:
#
# - **KL**: latents are pulled towards $\mathcal N(0, I)$ with a very small weight $\beta$.
# - **VQ** (vector quantisation): each latent vector is replaced by the nearest of a *codebook* of
#   vectors $e_j$ (van den Oord et al. 2017). The number of that vector is a **token**.
#
# $$ \mathcal L_{\text{KL}} = \|x - D(z)\|_1
# + \beta\, \mathrm{KL}\bigl(q(z \mid x)\,\|\,\mathcal N(0, I)\bigr), $$
# $$ \mathcal L_{\text{VQ}} = \|x - D(e_k)\|_1 + \lambda\, \|z - \mathrm{sg}[e_k]\|^2, \quad
#    k = \arg\min_j \|z - e_j\| . $$
#
# $D$ is the decoder; $\mathrm{sg}$ means that no gradient flows through the bracket. Both losses
# have one more term, for the slopes of the image, so that edges stay in place
# (`networks/autoencoder.py`). Latents are scaled to unit variance, because the noise schedule
# expects it. The next cell prints how much smaller the latents are.

# %%
stages = {"KL": generators["U7 LDM-KL"].first_stage, "VQ": generators["U7 LDM-VQ"].first_stage}
for name, stage in stages.items():
    channels, height, width = stage.latent_shape(slices.size)
    print(f"{name}: {slices.size} × {slices.size} pixels become {channels} × {height} × {width}",
          f"latents, {slices.size**2 / (channels * height * width):.0f} times fewer numbers")

# %% [markdown]
# Ten slices of test patients go through each autoencoder and back. These *reconstructions* are the
# best that a latent system could do.

# %%
unseen = test.take(np.linspace(0, len(test) - 1, 10).astype(int))
images = torch.from_numpy(unseen.images).to(ddpm.device)
with torch.no_grad():
    restored = {name: stage.reconstruct(images) for name, stage in stages.items()}
restored = {name: as_slices(result, unseen, "real") for name, result in restored.items()}
rows = {"real": unseen, **{f"{name} autoencoder": part for name, part in restored.items()}}
figures.publish_slices(study, "04/reconstructions", rows, outline=False,
                       title="Slices of test patients, and their reconstructions");

# %% [markdown]
# In numbers, the mean absolute error of the intensity, on a scale from −1 to 1. The last row is
# the error of a simple answer: the mean training image for every slice.

# %%
mean_image = slices.where(split="train").images.mean(0)
lost = {name: np.abs(part.images - unseen.images).mean() for name, part in restored.items()}
lost["mean training image"] = np.abs(mean_image - unseen.images).mean()
reconstruction = pd.Series(lost, name="mean absolute error").to_frame()
reconstruction.round(4)

# %% [markdown]
# **How to read it.** The smaller the error beside that of the mean training image, the more of an
# unseen heart survives. VQ has less room than KL: a token chooses among few vectors.
#
# The next figure shows what the second network sees instead of images: the channels of the KL
# latents, and the VQ tokens, one number per place. The line below counts how many tokens of the
# codebook are effectively in use (the *perplexity*: the number of equally frequent tokens that
# would have the same entropy).

# %%
with torch.no_grad():
    latents = stages["KL"].encode(images).cpu().numpy()
    tokens = stages["VQ"].tokens(images).cpu()

tiles = {}
for i in (0, 4, 9):
    channels = {f"KL channel {c}": plane for c, plane in enumerate(latents[i], start=1)}
    tiles[f"slice {i + 1}"] = {"image": unseen.images[i, 0], **channels,
                               "VQ tokens": tokens[i].numpy()}
print(f"tokens effectively in use: {perplexity(tokens, stages['VQ'].codes):.0f} "
      f"of {stages['VQ'].codes}")
figures.publish_images(study, "04/latents", tiles,
                       title="What the second network sees instead of three test slices");

# %% [markdown]
# **How to read it.** A channel that looks like a small image keeps the layout of the heart. The
# grey value of a token has no meaning, since tokens are numbered in no particular order. But equal
# tissue should have equal tokens.
#
# U7 trains a U-Net on the latents. U8 trains a transformer on the KL latents. It divides them into
# patches, and the noise level shifts and scales the layers (Peebles & Xie 2023).
#
# ## Masked prediction of tokens
#
# **MaskGIT** (Chang et al. 2022) works without noise. A random set $M$ of the VQ tokens $y$ of an
# image is hidden. A transformer predicts the hidden tokens from the others:
#
# $$ \mathcal L = -\,\mathbb E \sum_{i \in M} \log p_\theta(y_i \mid y_{\setminus M}), \qquad
#    |M| = \lceil \gamma(r)\, N \rceil, \quad \gamma(r) = \cos\tfrac{\pi r}{2},
#    \quad r \sim \mathcal U(0, 1). $$
#
# $N$ is the number of tokens of an image. To sample, hide all tokens and predict all of them. Keep
# those of which the network is most sure, and some by chance. Hide the others, and repeat this with
# fewer and fewer hidden tokens.
#
# A network that predicts hidden tokens can also fill a hole in a real image (*inpainting*). The
# next cell hides a box in slices of test patients: the left half of the middle. U9 fills it twice,
# with other random choices.

# %%
maskgit, size = generators["U9 MaskGIT"], slices.size
known = torch.ones(len(images), size, size, dtype=torch.bool, device=images.device)
known[:, size // 4:3 * size // 4, size // 4:size // 2] = False
hidden = images.masked_fill(~known[:, None], -1.0)
filled = {"real": unseen, "hidden": as_slices(hidden, unseen, "real")}
for name in ("filled once", "filled again"):
    start = torch.randn(len(images), *maskgit.noise_shape(size), generator=rng)
    result = maskgit.inpaint(images, known, start.to(images.device))
    filled[name] = as_slices(result, unseen, "real")
figures.publish_slices(study, "04/inpainting", filled, outline=False,
                       title="A hidden box in test slices, filled twice by U9 MaskGIT");

# %%
box = ~known[0].cpu().numpy()
inside = {name: part.images[:, 0][:, box] for name, part in filled.items()}
other = np.roll(inside["real"], 1, axis=0)
print("mean absolute differences inside the box:")
pd.Series({
    "filled once, filled again": np.abs(inside["filled once"] - inside["filled again"]).mean(),
    "filled once, real": np.abs(inside["filled once"] - inside["real"]).mean(),
    "next of the ten slices, real": np.abs(other - inside["real"]).mean(),
}, name="difference").to_frame().round(3)

# %% [markdown]
# **How to read it.** The review calls this robust to masking: a region that is hidden gets a
# content that fits what is seen. If the filling follows the surroundings, its difference to the
# real box is smaller than that of another slice. Read the table for this. The two fillings differ,
# because the surroundings do not determine the box. A seam along the box comes from what the
# autoencoder loses.
#
# ## All five systems
#
# Now to the samples themselves, beside real slices.

# %%
shown = np.linspace(0, len(conditions) - 1, 10).astype(int)
rows = {"real": conditions.take(shown)}
rows |= {name: bank.take(shown) for name, bank in samples.items()}
figures.publish_slices(study, "04/samples", rows, outline=False,
                       title="Real slices of test patients, and samples of the five systems");

# %% [markdown]
# **How to read it.** Columns do not belong together, because no sample follows a real slice. Ask of
# each sample: is there a ring of myocardium with a cavity in it? Are edges as sharp as in the first
# row? Compare U7 and U9 with the reconstructions above: the same blur or the same artefacts there
# come from the autoencoder.
#
# ### Quality against training time
#
# The next cell measures every system at its snapshots during training, and at the end. The x axis
# is the time of training in seconds. The time of an autoencoder counts in full for each system that
# uses it. So a latent system starts later.

# %%
rows = [row for run in runs.values() for row in curves.over_compute(run)]
compute = pd.DataFrame(rows, columns=list(results.CURVE_COLUMNS))
axis_label = "training time (s), first stage included"
against_time = compute.assign(x=compute["seconds"], curve=axis_label)
figures.publish(study, "04/compute", against_time, plots.learning_curves,
                title="Quality and memory against training time");

# %% [markdown]
# **How to read it.** Compare systems at equal seconds only if all were trained on one idle machine;
# the published ones were not. Compare only where their intervals are apart. A line that still falls
# at its right end belongs to a training that has not converged. If the distance of appearance of a
# latent system stays high while its own loss is low, look at the reconstructions: the autoencoder
# may be the limit.
#
# ### Fewer patients
#
# U6 again, trained anew on fewer patients for the same number of steps. A network that memorises
# its patients has a share near 1. Its distances can be small at the same time.

# %%
patients = curves.over_patients(UNCONDITIONAL["U6 DDPM"])
rows = [*few_steps.to_dict("records"), *compute.to_dict("records"), *patients]
table = results.write_curves(study, "04_diffusion", rows)
over_patients = table[table["curve"] == "patients"]
figures.publish(study, "04/patients", over_patients, plots.learning_curves,
                title="U6: quality and memory against the number of training patients");

# %% [markdown]
# **How to read it.** If the share rises towards the left, the network remembers more of each
# patient when there are few. If the distance of anatomy rises as well, its samples cover fewer
# kinds of hearts.
#
# ## Cost
#
# The next table lists what each training and each image took, with the default sampler and number
# of steps. Training time includes the first stage.

# %%
scores = [row for name, generator in generators.items()
          for row in cost_rows(study, runs[name], generator, conditions)]
costs = results.write_scores(study, "04_diffusion", scores, seeds=1)
shown_costs = costs.assign(
    what=costs["metric"].map(metrics.label),
    number=[metrics.number(m, v) for m, v in zip(costs["metric"], costs["value"])])
shown_costs.pivot(index="what", columns="system", values="number").rename_axis(index=None)

# %% [markdown]
# **How to read it.** Sampling time is the number of evaluations times the time of one evaluation,
# and for latent systems one pass through the decoder. Smaller latents make an evaluation cheaper.
# The autoencoder has to be paid for first, in training time.
#
# ## Check
#
# The assertions fail if the toy is not solved, if its score is wrong, or if U6 has learnt nothing
# that holds for unseen patients. They also fail if an autoencoder returns another slice, if
# inpainting changes known pixels, or if two fillings are equal. The toy is not checked in the
# profile `smoke`, which does not train it to the end.

# %%
best = toy_table.query("sampler == 'dpm-solver' and steps == 32").iloc[0]
middle = error[(error["prediction"] == "v") & error["level"].between(300, 900)]
if study.profile != "smoke":
    assert best["distance"] < 0.5 and best["rarest"] > 0.04, "the toy has not been solved"
    assert middle["error"].max() < 0.3, "the learnt score is not the true one"
validation = errors.loc["U6 DDPM", "validation"]
if outlook["checks on unseen patients"]:
    assert validation["last"] < validation["first"], "nothing was learnt for unseen patients"
for name, part in restored.items():
    to_others = np.abs(part.images - unseen.images[::-1]).mean()
    assert lost[name] < to_others, f"the {name} autoencoder returns another slice"
once, again, real = (filled[name].images[:, 0] for name in ("filled once", "filled again", "real"))
assert np.allclose(once[:, ~box], real[:, ~box]), "inpainting changed what was known"
assert np.abs(once - again)[:, box].mean() > 0, "two fillings are equal"
print("all checks passed")

# %% [markdown]
# ## Exercises
#
# ### 1. A walk between two noises
#
# DDIM is deterministic: the same noise gives the same heart. Walk from one noise to another along
# the arc $\cos\theta\, z_1 + \sin\theta\, z_2$. *Hint:* what is the variance of the mean of two
# independent standard normals? Why an arc, and not the straight line between them?

# %% tags=["solution"]
ends = torch.randn(2, 1, size, size, generator=rng).to(ddpm.device)
theta = torch.linspace(0, torch.pi / 2, 10, device=ddpm.device).view(-1, 1, 1, 1)
arc = theta.cos() * ends[:1] + theta.sin() * ends[1:]
walk = ddpm.sample(arc, {}, sampler="ddim", steps=max(few.ddim))
print(f"variance half-way: straight line {ends.mean(0).var().item():.2f}, "
      f"arc {((ends[0] + ends[1]) / 2**0.5).var().item():.2f}")
figures.slice_grid({"walk": as_slices(walk, samples["U6 DDPM"].take([0] * 10), "U6 DDPM")});
# Half-way along the straight line the variance is ½. The network has never seen such noise. On the
# arc the variance stays 1.

# %% [markdown]
# ### 2. Where an image drowns
#
# Let $S$ be the variance of the intensities, and $\bar\alpha_n = \alpha_n^2$. At level $n$ the
# signal has the variance $\bar\alpha_n S$ and the noise $1 - \bar\alpha_n$ (`cumulative_alpha`
# gives $\bar\alpha$). At which share of the levels is the noise stronger, for the linear and for
# the cosine schedule? And if images had a quarter of that variance? What can a network learn at
# those levels?

# %% tags=["solution"]
learnt_images = slices.where(split="train").images
drowned = {}
for part in (1.0, 0.25):
    variance = part * learnt_images.var()
    for kind in ("linear", "cosine"):
        signal = cumulative_alpha(kind, params.diffusion.objective.train_steps)
        share = (signal * variance < 1 - signal).double().mean().item()
        drowned.setdefault(f"variance {variance:.3f}", {})[kind] = share
pd.DataFrame(drowned).round(2)
# Where noise is stronger, only what is large and common to the images can be learnt: where the
# heart lies, how bright it is. With less contrast images drown earlier, so the scale of the
# intensities is part of the schedule. The cosine schedule keeps more levels on which details can be
# learnt.

# %% [markdown]
# ### 3. Of which order is a solver?
#
# If the number of steps doubles, the error of a solver of first order halves, and that of a solver
# of second order falls to a quarter. Take the points of `toys["v"]` with 500 steps as the truth,
# and measure the error of `"ddim"` and `"dpm-solver"` with 10, 20, 40 and 80 steps from the same
# noise. Of which order are they? Why can `"ddpm"` not be measured in this way?

# %% tags=["solution"]
def ends(solver, count):
    """Where the noise ends, (N, 2)."""
    return toys["v"].sample(noise, {}, sampler=solver, steps=count)


exact, counts, gaps = ends("dpm-solver", 500), (10, 20, 40, 80), {}
for solver in ("ddim", "dpm-solver"):
    far = [(ends(solver, count) - exact).norm(dim=1).median().item() for count in counts]
    gaps[solver] = dict(zip(counts, far)) | {"order": np.log2(far[0] / far[2]) / 2}
pd.DataFrame(gaps).T.round(4)
# DDIM: about 1, DPM-Solver++: more. Both follow one and the same curve from noise to data. DDPM
# draws new noise at every step, so the same start has many ends, and none of them is the true one.

# %% [markdown]
# ## Summary
#
# The next cells print the numbers of this run. First the toy: the relative error of the score for
# each kind of prediction, with little, medium and much noise. Then the distance to the nearest
# centre, divided by that of real points, for each number of steps.

# %%
three = by_level.iloc[:, [0, by_level.shape[1] // 2, -1]]
three.round(3)

# %%
relative = toy_table.assign(relative=toy_table["distance"] / toy.TRUE_DISTANCE)
relative.pivot(index="sampler", columns="steps", values="relative").loc[list(SAMPLERS)].round(2)

# %% [markdown]
# Next the samplers on images: both distances with the most evaluations and their 95 % intervals,
# and the fewest evaluations with which neither distance lies above the interval that it has with
# the most. The first row is the floor.

# %%
curve_tables.fewest_evaluations(few_steps)

# %% [markdown]
# Then one row for each system at the end of its training: the distances with their intervals, the
# share of samples nearest to training patients, the error of the autoencoder, and the times.

# %%
seconds = costs.pivot(index="system", columns="metric", values="value")
autoencoder = {name: lost[run.system.first_stage.name.upper()]
               for name, run in runs.items() if run.system.first_stage}
more = {"autoencoder error": pd.Series(autoencoder).round(4),
        "training (s)": seconds.get("training_seconds", pd.Series(dtype=float)).round(),
        "image (s)": seconds["seconds_per_image"].round(4)}
curve_tables.at_the_end(table).assign(**more).astype(object).fillna("")

# %% [markdown]
# Finally the memory of U6 against its number of training patients.

# %%
curve_tables.side_by_side(over_patients, "x").rename_axis("training patients")

# %% [markdown]
# 1. **The three predictions are equivalent in theory, not in practice.** In the first table look
#    for the largest number of each row: it says at which noise levels this prediction is weak.
# 2. **Better samplers save steps.** In the toy, compare the rows with few steps. 1 is the value of
#    real points; with less than 1 the modes are too narrow. On images the column "fewest NFE" says
#    how many evaluations each sampler needs for both distances. A distance that stays far above its
#    floor means that more steps will not help: the network needs more training. Whether flow
#    matching needs fewer steps (claim F2) is answered in notebook 06.
# 3. **Pixels, latents or tokens.** Two systems differ only if their intervals do not overlap, and
#    one is better only if it is better in anatomy *and* in appearance. Read the distances beside
#    the error of the autoencoder and the training time: the autoencoder makes sampling cheaper and
#    sets a limit to quality. With the `laptop` profile this speaks of minutes of training.
# 4. **MaskGIT fills hidden regions.** The table below the inpainting figure says how well a filling
#    fits the real slice, and how much two fillings differ.
# 5. **Memory.** A share whose interval lies above its floor, the dashed line of the figures, hints
#    at memory; notebook 06 tests it. In the last table see whether the share, or a distance, is
#    larger with fewer patients.
#
# ## Limits
#
# - One seed of training. The intervals describe the choice of patients, not the choice of the seed.
# - With the `laptop` profile the networks train for minutes. This is no verdict on latent
#   diffusion, which was made for images with a hundred times as many pixels. Small images leave
#   little to compress.
# - The numbers of steps of each first stage and second stage were set for equal time in total. They
#   were not tuned for the quality of each system.
# - The autoencoders have no adversarial and no perceptual loss. The pretrained networks of a
#   perceptual loss know photographs, not hearts.
