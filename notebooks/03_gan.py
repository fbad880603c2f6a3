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
# # 03 · Generative adversarial networks
#
# **Which profile shows what.** The profile `laptop` shows how things work, not which family wins;
# `overnight` is the budget for verdicts. `smoke` only tests that the code runs; its images are
# poor.
#
# **Question.** A generative adversarial network (GAN) learns to make images from the answers of a
# second network alone. Can it learn cardiac MR images in this way? What keeps its training stable
# when there are only a few hundred or a few thousand images?
#
# **What the review says.** Diffusion models beat GANs in unconditional fidelity (claim F1). GANs
# add high-frequency artefacts (F5). A low Fréchet distance can hide mode collapse (F6). A GAN
# needs one network evaluation per image, which makes it fast (E1). The review names four
# unconditional GANs, and all four are trained here: **U2** DCGAN, **U3** WGAN-GP, **U4**
# progressive GAN and **U5** StyleGAN2 with adaptive augmentation. *Unconditional* means that the
# network gets noise and nothing else: no mask, no vendor, no disease.
#
# ## Method
#
# A **generator** $G$ turns a vector of noise $z$ into an image. A **critic** $D$, also called
# discriminator, gives every image $x$ one number, its *logit*: high for an image that looks real.
# The two are trained in alternation. The critic learns to separate real images from generated ones,
# and the generator learns to raise the critic's logits of what it generates (Goodfellow et al.
# 2014). With the logistic function $\sigma$, the **non-saturating** losses are
#
# $$ \mathcal L_D = -\mathbb E \log \sigma(D(x)) - \mathbb E \log\bigl(1 - \sigma(D(G(z)))\bigr),
# \qquad \mathcal L_G = -\mathbb E \log \sigma(D(G(z))) . $$
#
# They are called non-saturating because $\mathcal L_G$ still has a slope when the critic recognises
# every generated image.
#
# The critic of a **Wasserstein GAN** estimates a distance between the distributions of real and
# generated images. The estimate is valid if the slope of the critic is at most one. The **gradient
# penalty** (Gulrajani et al. 2017, eq. 3) pulls the slope towards one at points $\hat x$ between
# real and generated images:
#
# $$ \mathcal L_D = \mathbb E\, D(G(z)) - \mathbb E\, D(x)
# + \lambda\, \mathbb E \bigl(\|\nabla D(\hat x)\| - 1\bigr)^2,
# \qquad \mathcal L_G = -\mathbb E\, D(G(z)) . $$
#
# The **R1 penalty** (Mescheder et al. 2018, eq. 9), $\tfrac{\gamma}{2}\, \mathbb E \|\nabla
# D(x)\|^2$, asks for a flat critic at the real images. Training can then come to rest once the
# generator is right. *Lazy* R1 computes the penalty at every few steps only (Karras et al. 2020).
#
# With few images the critic can memorise them. It then rejects every other image, and the generator
# learns nothing more. The penalties delay this. So does **augmentation**: the critic sees shifted,
# stretched or brightened versions of all images, real and generated alike.
#
# | system | loss | what makes it that system |
# |---|---|---|
# | U2 | non-saturating, lazy R1 | strided convolutions, batch norm (Radford et al. 2016) |
# | U3 | Wasserstein, gradient penalty | residual networks (Gulrajani et al. 2017) |
# | U4 | non-saturating, lazy R1 | both networks grow from 8² pixels (Karras et al. 2018) |
# | U5 | non-saturating, lazy R1 | a style for each layer, adaptive augmentation (Karras 2020) |
#
# The settings are in `params.yaml`, section `gan`. U3 takes `critic_steps` steps of the critic for
# each step of the generator. Gulrajani et al. take five, and so do `overnight` and `gpu`. In the
# short trainings of `smoke` and `laptop` it is one, or the generator would hardly move.
#
# **What is measured.** A toy with a known answer counts the modes that are found. On cardiac images
# this notebook measures the distance to real images during training, the memory of training
# patients, the similarity of samples to each other, and the cost.

# %% tags=["parameters"]
profile = None  # None: as params.yaml says
dataset = None

# %% [markdown]
# First the imports: general libraries, then the library of this study.

# %%
from dataclasses import replace
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from torch import nn

# %%
from cmri_lib.cohort import requirements
from cmri_lib.cohort.slices import Slices
from cmri_lib.config.study import open_study
from cmri_lib.experiments import banks, instruments, learning_curves, toy
from cmri_lib.experiments.parallel import train_all
from cmri_lib.experiments.training import (
    cost_rows, scored_runs, train_or_load, training_log)
from cmri_lib.generators.gan import GAN, GANSettings
from cmri_lib.networks.conditioning.base import Conditioning
from cmri_lib.reporting import curve_tables, figures, metrics, plots, results
from cmri_lib.systems.system import Run, file_name
from cmri_lib.systems.unconditional import UNCONDITIONAL
from cmri_lib.training import TrainSettings
from cmri_lib.training.checkpoint import load_weights
from cmri_lib.training.loop import snapshot_file

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
print(outlook.left_out("03"))

# %% [markdown]
# ## A toy with a known answer
#
# The toy is a distribution in the plane: eight narrow Gaussians on a circle. Each Gaussian is a
# **mode**, a place where many points lie. A generator that makes only some of the modes has
# **collapsed**; this failure is called mode collapse. On images it is hard to see. Here one can
# count it.
#
# Generator and critic are small perceptrons. The same networks are trained in four variants:
#
# 1. without a penalty and without momentum,
# 2. without a penalty and with momentum $\beta_1 = 0.9$, the usual value of the Adam optimiser,
# 3. with the R1 penalty and without momentum,
# 4. as a Wasserstein GAN with gradient penalty, without momentum.
#
# *Momentum* means that the optimiser moves along an average of the last gradients.

# %%
variants = {  # name: (objective, momentum of Adam)
    "no penalty": (GANSettings(latent=2), 0.0),
    "no penalty, momentum 0.9": (GANSettings(latent=2), 0.9),
    "R1": (GANSettings(latent=2, r1=0.1), 0.0),
    "WGAN-GP": (GANSettings("wasserstein", latent=2, gradient_penalty=0.1), 0.0),
}
toy_training = TrainSettings(steps=params.toy.steps, batch=128, learning_rate=2e-3, beta2=0.9,
                             grad_clip=0.0, ema=0.99, snapshots=5)
perceptron = partial(toy.Perceptron, hidden=3, activation=partial(nn.LeakyReLU, 0.2))

rng = torch.Generator().manual_seed(study.seed)
points = toy.eight_gaussians(2000, rng)
noise = torch.randn(2000, 2, generator=rng)
print(f"{len(points)} points of {toy.MODES} modes, {toy_training.steps} training steps per variant")

# %% [markdown]
# The next function trains one variant, or loads it if it has been trained before. The training
# keeps five snapshots of the weights on the way. They show whether a variant is stable.

# %%
def train_toy(name):
    """The trained toy GAN of a variant, and its files of weights: training step → file."""
    objective, momentum = variants[name]
    settings = replace(toy_training, beta1=momentum)
    folder = study.work("gan") / file_name(f"toy {name}")
    gan = toy.trained(lambda: GAN(perceptron(2), perceptron(1), Conditioning(), objective),
                      points, settings, folder, study.seed)
    files = {step: snapshot_file(folder, step) for step in settings.snapshot_steps()}
    return gan, {**files, settings.steps: folder / "weights.safetensors"}

# %% [markdown]
# Every snapshot turns the same noise into points. Two numbers describe them. The *share of samples
# on a mode* counts points within three standard deviations of a centre. A mode is *found* if at
# least a quarter of the points that are due to it lie there. The table counts the modes that are
# found.

# %%
rows, clouds = [], {"real points": points}
for name in variants:
    gan, files = train_toy(name)
    for step, file in files.items():
        load_weights(gan, file)
        clouds[name] = gan.sample(noise, {})
        rows.append({"variant": name, "step": step, **toy.mode_statistics(clouds[name])})

toy_table = pd.DataFrame(rows)
toy_table.pivot(index="step", columns="variant", values="modes found")[list(variants)]

# %% [markdown]
# The figure shows both numbers during training. The dashed lines are what the real points score.

# %%
truth = toy.mode_statistics(points)

def draw_toy(numbers):
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.2))
    for axis, column in zip(axes, ("on a mode", "modes found")):
        sns.lineplot(numbers, x="step", y=column, hue="variant", style="variant", markers=True,
                     legend=axis is axes[1], ax=axis)
        axis.axhline(truth[column], ls="--", color=figures.REAL_COLOUR, lw=1)
        axis.set_xlabel("training step")
    axes[0].set(ylabel="share of samples on a mode", ylim=(0, 1.03))
    axes[1].set(ylabel="modes found", ylim=(0, toy.MODES + 0.4))
    axes[1].legend(title="", loc="upper left", bbox_to_anchor=(1, 1))
    return figure

figures.publish(study, "03/toy", toy_table, draw_toy,
                title="Toy: four variants of adversarial training (dashed: real points)");

# %% [markdown]
# **How to read it.** A good variant reaches all eight modes and stays there, with a share near the
# dashed line. A line that rises and falls belongs to a training that does not come to rest.
#
# The next figure shows the points themselves, at the end of the training.

# %%
first_points = {name: cloud[:500] for name, cloud in clouds.items()}

def draw_clouds(numbers):
    variants = list(numbers.groupby("variant", sort=False))
    figure, axes = plt.subplots(1, len(variants), figsize=(11, 2.9), sharex=True, sharey=True)
    for axis, (name, part) in zip(axes, variants):
        axis.scatter(part["x"], part["y"], s=3)
        axis.set(title=name, xlim=(-4.5, 4.5), ylim=(-4.5, 4.5), aspect="equal")
        axis.set(xticks=[-3, 0, 3], yticks=[-3, 0, 3], xlabel="first coordinate")
    axes[0].set_ylabel("second coordinate")
    return figure

figures.publish(study, "03/clouds", toy.as_table(first_points, "variant"), draw_clouds,
                title="Toy: real points, and samples at the end of each training");

# %% [markdown]
# **How to read it.** Compare the panel with momentum with the others. Generator and critic answer
# each other: each step changes the problem of the other network. With momentum both keep moving
# in a direction that is already out of date, and they overshoot. This is why the systems below use
# a smaller momentum than other networks do (`beta1` in `params.yaml`). A penalty makes the critic
# less sharp, and the training more stable.
#
# ## Training on cardiac MR images
#
# The four systems learn from the images of the same patients. Their numbers of training steps are
# chosen so that each training takes about the same time on one idle core. The table of costs shows
# measured times, which also depend on the machine and on what else it did. U5 is also trained on
# fewer patients, for a learning curve at the end of this notebook. A training that has been done
# before is loaded.
#
# The first table lists the loss, the weight of each penalty, and the augmentation of every system.

# %%
names = ("U2 DCGAN", "U3 WGAN-GP", "U4 progressive GAN", "U5 StyleGAN2-ADA")
runs = {name: Run(UNCONDITIONAL[name]) for name in names}
curves = learning_curves.LearningCurves(study, slices)
patient_runs = learning_curves.runs_over_patients(study, slices, UNCONDITIONAL["U5 StyleGAN2-ADA"])

trainings = [one for run in runs.values() for one in scored_runs(study, run)]
train_all(study, [*trainings, *patient_runs], slices)
gans = {name: train_or_load(study, run, slices) for name, run in runs.items()}
columns = ["loss", "gradient_penalty", "r1", "r1_every", "critic_steps", "augment"]
pd.DataFrame({name: vars(gan.settings) for name, gan in gans.items()}).loc[columns].T

# %% [markdown]
# The next figure shows the losses of both networks. A critic that cannot tell real from generated
# images gives the logit 0 to all of them. Its non-saturating loss is then
# $2 \log 2 \approx 1.39$, the dashed line.

# %%
logs = {name: training_log(study, run).assign(system=name) for name, run in runs.items()}
losses = pd.concat(logs.values())[["system", "images", "loss_critic", "loss_generator"]]
uncertain = {name: 2 * np.log(2) if gan.settings.loss == "non-saturating" else np.nan
             for name, gan in gans.items()}
losses = losses.assign(loss_of_an_uncertain_critic=losses["system"].map(uncertain))
losses.groupby("system", sort=False).last().round(3)

# %%
def draw_losses(numbers):
    figure, axes = plt.subplots(1, numbers["system"].nunique(), figsize=(11, 2.8))
    for axis, (name, part) in zip(axes, numbers.groupby("system", sort=False)):
        values = part.drop(columns=["system", "images"]).stack()
        axis.plot(part["images"], part["loss_critic"], label="critic", lw=1)
        axis.plot(part["images"], part["loss_generator"], label="generator", lw=1)
        axis.plot(part["images"], part["loss_of_an_uncertain_critic"], ls="--", lw=1,
                  color=figures.REAL_COLOUR, label="a critic that cannot tell")
        axis.set(title=name, xlabel="training images seen")
        axis.set_ylim(*values.quantile([0.02, 0.98]) + np.array([-0.2, 0.2]))
    axes[0].set_ylabel("loss")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure

figures.publish(study, "03/training", losses, draw_losses,
                title="Losses of critic and generator during training");

# %% [markdown]
# **How to read it.** These losses do not measure quality, and they need not fall. Each is relative
# to an opponent that learns as well. They show whether both networks still learn:
#
# - U2, U4, U5: a critic loss near the dashed line means that the critic cannot tell real from
#   generated images. A loss near 0 means that it recognises all of them. The generator then gets
#   little useful information.
# - U3: the loss of the Wasserstein critic, with its sign changed, estimates how far apart real and
#   generated images still are.
# - U4: expect a jump where its networks grow to the next resolution.
#
# U5 adapts its augmentation. It increases the probability of each augmentation while the critic is
# too sure about real images, and decreases it otherwise. "Too sure" means that the mean sign of the
# critic's logits of real images exceeds the target `ada_target`.

# %%
adaptive = gans["U5 StyleGAN2-ADA"].augment
print(f"U5 applies each augmentation with probability {float(adaptive.p):.2f} at the end.")
print(f"Mean sign of its critic's logits of real images: {float(adaptive.overfitting):.2f} "
      f"(target {adaptive.target})")

# %% [markdown]
# ## Samples
#
# Each system draws `samples` images (see `params.yaml`). They are saved as a **bank**, a fixed set
# of samples, which later notebooks read and measure. The slices of *test* patients only set how
# many images are drawn: these systems are unconditional.

# %%
conditions = banks.sampling_conditions(slices, params.samples, study.seed)
for run in trainings:
    banks.draw_bank(study, run, train_or_load(study, run, slices), conditions)
samples = {name: banks.load_bank(study, run) for name, run in runs.items()}
shown = np.linspace(0, len(conditions) - 1, 10).astype(int)
rows = {"real": conditions.take(shown)}
rows |= {name: bank.take(shown) for name, bank in samples.items()}
figures.publish_slices(study, "03/samples", rows, outline=False,
                       title="Real slices of test patients, and samples of the four GANs");

# %% [markdown]
# **How to read it.** Columns do not belong together, because no sample follows a real slice. Look
# for chequered or ringing texture. It is typical of upsampling by transposed convolutions (claim
# F5), and notebook 06 measures it. Also look for the same heart twice in one row.
#
# ## Interpolation between two samples
#
# Take two noise vectors and move from one to the other. A generator that has learnt the
# distribution of hearts passes through hearts. A generator that has memorised its images jumps from
# one to the next. A collapsed generator hardly changes. Normal noise in many dimensions lies close
# to a sphere, so the path follows a great circle and not a straight line.

# %%
def interpolate(gan, columns=10):
    """Images (columns, 1, H, W) on the great circle between two noise vectors."""
    generator = torch.Generator().manual_seed(study.seed)
    first, last = torch.randn(2, *gan.noise_shape(slices.size), generator=generator)
    angles = torch.linspace(0, torch.pi / 2, columns)[:, None]
    path = angles.cos() * first + angles.sin() * last
    return gan.sample(path.to(gan.device), {}).clamp(-1, 1).float().cpu().numpy()

paths = {name: interpolate(gan) for name, gan in gans.items()}
rows = {name: Slices(path, bank.masks[:len(path)], bank.table[:len(path)])
        for (name, path), bank in zip(paths.items(), samples.values())}
figures.publish_slices(study, "03/interpolation", rows, outline=False,
                       title="From one noise vector (left) to another (right)");

# %% [markdown]
# The table puts numbers to it. A *step* is the mean absolute difference of two neighbouring images,
# in units of intensity; images range from −1 to 1.

# %%
steps = {name: np.abs(np.diff(path, axis=0)).mean((1, 2, 3)) for name, path in paths.items()}
interpolation = pd.DataFrame({
    "first to last image": {n: np.abs(p[0] - p[-1]).mean() for n, p in paths.items()},
    "mean step": {name: step.mean() for name, step in steps.items()},
    "largest step / mean step": {name: step.max() / step.mean() for name, step in steps.items()},
})
interpolation.round(3)

# %% [markdown]
# **How to read it.** A ratio near 1 is an even path. A large ratio is a jump. A first column near 0
# means that the generator ignores its noise.
#
# ## Mode collapse
#
# For every image, the next cell finds the most similar image of *another* patient in the same set.
# Every unconditional sample counts as a patient of its own. The distance is the root-mean-square
# (RMS) difference of the intensities. A collapsed generator repeats itself: its samples lie closer
# to each other than images of different real patients do.

# %%
def nearest_other(some):
    """(N,) RMS difference of each image to the nearest image of another patient."""
    flat = torch.from_numpy(some.images).flatten(1)
    distance = torch.cdist(flat, flat) / flat.shape[1] ** 0.5
    same = torch.from_numpy(some.patients[:, None] == some.patients[None, :])
    return distance.masked_fill(same, torch.inf).min(dim=1).values.numpy()

sets = {"real": slices.where(split="test"), **samples}
near = pd.concat([pd.DataFrame({"set": name, "distance": nearest_other(some)})
                  for name, some in sets.items()])
medians = near.groupby("set", sort=False)["distance"].agg(images="size", median="median")
medians.round(4)

# %%
def draw_near(numbers):
    figure, axis = plt.subplots(figsize=(8, 2.8))
    sns.boxplot(numbers, x="distance", y="set", hue="set", width=0.6, fliersize=2, ax=axis)
    axis.set(xlabel="RMS difference of intensity to the nearest image of another patient",
             ylabel="", xlim=(0, None))
    return figure

figures.publish(study, "03/collapse", near, draw_near,
                title="Similarity within each set: real test slices and samples");

# %% [markdown]
# **How to read it.** A box far to the left of the real one shows collapse. A box to the right of
# the real one does not prove variety: noise makes images differ as well. Larger sets have nearer
# neighbours, so compare the numbers of images too. Recall and coverage in notebook 06 measure
# variety more fairly.
#
# ## More training, fewer patients
#
# The next cell measures every system at its snapshots during training, and at the end. It also
# measures U5 trained anew on fewer patients, for the same number of steps. There are three
# measures:
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
rows = [row for run in runs.values() for row in curves.over_compute(run)]
rows += curves.over_patients(UNCONDITIONAL["U5 StyleGAN2-ADA"])
table = results.write_curves(study, "03_gan", rows)
figures.publish(study, "03/curves", table, plots.learning_curves,
                title="Quality and memory: during training, and with fewer training patients");

# %% [markdown]
# **How to read it.** Upper panels: a line that still falls at its right end belongs to a system
# that would profit from more training. Compare systems only where their lines are flat and their
# intervals apart. Lower panels: with fewer patients a GAN can memorise. A distance should then
# rise, or the share of samples nearest to training patients should, or both.
#
# ## Cost
#
# The next table lists what each training and each image took. *Network evaluations* count how often
# the generator runs for one image.

# %%
scores = [row for name, gan in gans.items()
          for row in cost_rows(study, runs[name], gan, conditions)]
costs = results.write_scores(study, "03_gan", scores, seeds=1)
shown_costs = costs.assign(
    what=costs["metric"].map(metrics.label),
    number=[metrics.number(m, v) for m, v in zip(costs["metric"], costs["value"])])
shown_costs.pivot(index="what", columns="system", values="number").rename_axis(index=None)

# %% [markdown]
# **How to read it.** A GAN is expensive in training only: two networks learn, and the gradient of a
# penalty needs second derivatives. Sampling is cheap, because an image takes a single evaluation.
#
# ## Check
#
# The assertions fail if the toy is not solved, if momentum does no harm in it, if a system makes
# one image only or ignores its noise, or if U5's augmentation leaves its limits. The toy is not
# checked in the profile `smoke`, which does not train it to the end.

# %%
final = toy_table[toy_table["step"] == toy_training.steps].set_index("variant")
if study.profile != "smoke":
    for name in ("R1", "WGAN-GP"):
        assert final.loc[name, "modes found"] == toy.MODES, f"{name} does not find all modes"
    with_momentum = final.loc["no penalty, momentum 0.9", "on a mode"]
    assert with_momentum < final.loc["R1", "on a mode"], "momentum does no harm in the toy"
for name, bank in samples.items():
    assert bank.images.std(axis=0).mean() > 0.02, f"{name} makes one image only"
    assert interpolation.loc[name, "first to last image"] > 0.01, f"{name} ignores its noise"
assert all(gan.nfe == 1 for gan in gans.values()) and 0 <= float(adaptive.p) <= 0.8
print("all checks passed")

# %% [markdown]
# ## Exercises
#
# ### 1. Smaller and larger noise
#
# During training the noise is standard normal. Draw samples of U2 and of U5 with noise of half that
# size, and of twice that size. For which system does the size matter? What is gained, what is lost?

# %% tags=["solution"]
for name in ("U2 DCGAN", "U5 StyleGAN2-ADA"):
    gan = gans[name]
    z = torch.randn(64, *gan.noise_shape(slices.size), generator=rng).to(gan.device)
    for scale in (0.5, 1.0, 2.0):
        spread = gan.sample(scale * z, {}).std(dim=0).mean().item()
        print(f"{name}: noise × {scale}: standard deviation between samples {spread:.3f}")
# U5 normalises its noise first, so its size does not matter. StyleGAN has another way to trade
# variety for quality: it moves the styles towards their mean ("truncation"). U2 does not normalise
# its noise: smaller noise means samples nearer to the average heart, and less variety.

# %% [markdown]
# ### 2. Does the critic know its patients?
#
# A critic that has memorised its training images gives them higher logits than images of patients
# whom it has never seen. Take the logits of training slices, test slices and samples. In how many
# pairs is that of the training slice higher than that of the test slice? And than that of the
# sample? This share is an AUC. What does ½ mean in the first case, and what in the second?

# %% tags=["solution"]
def logits(gan, some, most=48):
    """The critic's logits (N,) of slices spread over a set."""
    few = some.take(np.linspace(0, len(some) - 1, min(most, len(some))).astype(int))
    with torch.no_grad():
        return gan.critic(torch.from_numpy(few.images).to(gan.device), {}).cpu().numpy()


for name in ("U2 DCGAN", "U5 StyleGAN2-ADA"):
    compared = slices.where(split="train"), sets["real"], samples[name]
    learnt, stranger, fake = (logits(gans[name], some) for some in compared)
    print(f"{name}: AUC training against test {(learnt[:, None] > stranger).mean():.2f}, "
          f"training against samples {(learnt[:, None] > fake).mean():.2f}")
# Training against test: at ½ the critic does not know its patients. Above it, it may know them, or
# test patients look different, from another vendor for example: compare with a critic that has
# hardly been trained. Training against samples: near 1 the critic wins; at ½ it cannot tell, and
# has nothing left to teach.

# %% [markdown]
# ### 3. Neighbours in small and in large sets
#
# Larger sets have nearer neighbours. Take as many images of each set as the smallest one has, then
# half of them, then a quarter, and compute the median distance to the nearest other image again.
# How fast does it grow as sets shrink? Does the order of the systems change?

# %% tags=["solution"]
fewest = min(map(len, sets.values()))
by_size = {}
for count in (max(2, fewest // 4), max(2, fewest // 2), fewest):
    some = {name: each.take(np.linspace(0, len(each) - 1, count).astype(int))
            for name, each in sets.items()}
    by_size[f"{count} images"] = {n: np.median(nearest_other(each)) for n, each in some.items()}
by_size = pd.DataFrame(by_size)
by_size["last / real"] = by_size.iloc[:, -1] / by_size.loc["real"].iloc[-1]
by_size.round(3)
# As a rule the distance grows slowly as sets shrink; with a dozen images chance can turn that
# round. It can grow by as much as two rows differ, and not equally fast in all: compare sets of
# equal size only.

# %% [markdown]
# ## Summary
#
# The next cells print the numbers of this run. First the toy: modes found and share of samples on a
# mode, at the end of each training.

# %%
final[["modes found", "on a mode"]].loc[list(variants)].round(3)

# %% [markdown]
# Then one row for each system at the end of its training: the distances and the memory with their
# 95 % intervals, the distance between samples divided by that between real images, and the sampling
# time. The first row is the floor.

# %%
spread = (medians["median"] / medians.loc["real", "median"]).rename({"real": "floor"})
seconds = costs[costs["metric"] == "seconds_per_image"].set_index("system")["value"]
more = {"distance, samples / real": spread.round(3), "seconds per image": seconds.round(4)}
curve_tables.at_the_end(table).assign(**more).astype(object).fillna("")

# %% [markdown]
# Finally U5 against its number of training patients.

# %%
over_patients = table[table["curve"] == "patients"]
curve_tables.side_by_side(over_patients, "x").rename_axis("training patients")

# %% [markdown]
# 1. **Penalties keep the training stable; momentum does not.** In the toy table compare the rows
#    "R1" and "WGAN-GP" with the row "no penalty, momentum 0.9". The check above holds for every
#    run: the first two find all eight modes, and the last leaves more samples between the modes.
# 2. **Distance to real images.** Compare each distance with its floor. Far above the floor in
#    anatomy, the samples lack hearts like those of patients; far above it in appearance, they lack
#    the texture. Two systems differ only if their intervals do not overlap, and one is better only
#    if it is better in both. With the `laptop` profile this speaks of minutes of training.
# 3. **Collapse.** A ratio "distance, samples / real" well below 1 shows that a system repeats
#    itself. A ratio near or above 1 does not exclude it.
# 4. **Memory.** A share nearest to training patients whose interval lies above its floor, the
#    dashed line of the figures, hints at memory; notebook 06 tests it. In the last table see
#    whether the share, or a distance, is larger with fewer patients.
# 5. **Cost.** Every image takes one network evaluation (a check above). Notebook 06 compares the
#    seconds per image with those of the other families.
#
# ## Limits
#
# - One seed of training. Adversarial training varies more between seeds than the training of other
#   families does. The intervals describe the choice of patients, not the choice of the seed.
# - With the `laptop` profile the networks are small and train for minutes (see the table of costs).
#   Published StyleGANs see millions of images.
# - Equal training time favours systems with a cheap critic. Notebook 06 compares all families by
#   the same measures.
# - The distance between samples is a distance of pixels. Two images of one heart that differ by a
#   shift of a few pixels count as different.
