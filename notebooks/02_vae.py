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
# # 02 · Variational autoencoder
#
# **Which profile shows what.** The profile `laptop` shows how things work, not which family wins;
# `overnight` is the budget for verdicts. `smoke` only tests that the code runs; its images are
# poor.
#
# **Question.** How far does the cheapest generative model get? And where does it lose quality: when
# it compresses an image into a code, or when it draws new codes?
#
# **What the review says.** Variational autoencoders (VAEs) are the smooth, cheap baseline (system
# **U1**). They lose fine detail (claim F5), and diffusion models beat them in fidelity (F1).
# *Fidelity* means: how close the set of synthetic images is to the set of real ones.

# %% [markdown]
# ## Method
#
# **Two networks.** A *code* $z$ is a short list of numbers. The **decoder** turns a code into an
# image. The **encoder** turns an image into a code, or rather into a Gaussian of codes, since it
# also says how sure it is of each number. An image that is encoded and decoded is a
# *reconstruction*. A *sample* is a new image: a code drawn at random, then decoded.
#
# In formulas, the decoder gives a mean image $\hat x_\theta(z)$, around which pixels scatter, and
# codes have a standard Gaussian as prior:
#
# $$ z \sim \mathcal N(0, I), \qquad p_\theta(x|z) = \mathcal N(\hat x_\theta(z), \sigma^2 I),
# \qquad q_\phi(z|x) = \mathcal N(\mu(x), \mathrm{diag}\,e^{\ell(x)}). $$
#
# **What training maximises.** The probability $p_\theta(x)$ of the training images cannot be
# computed, but this lower bound on its logarithm can (Kingma & Welling 2014, eq. 10). It is called
# the evidence lower bound, *ELBO*:
#
# $$ \mathcal L = \mathbb E_q \ln p_\theta(x|z)
# - \mathrm{KL}\bigl(q_\phi(z|x)\,\|\,\mathcal N(0, I)\bigr). $$
#
# The first term rewards a reconstruction that is close to the image. The second is the
# Kullback–Leibler divergence (*KL*): how much the code says about the image, in nats. A nat is the
# natural unit of information; 1 nat = 1.44 bits. The KL is the price of a precise code.
#
# **The balance of the two terms** depends on $\sigma$. It is often fixed at 1, or hidden in a
# weight $\beta$, and then VAEs look worse than they are. Here $\sigma$ has its best value, computed
# from each batch: $\sigma_*^2$ is the mean squared error (Rybkin et al. 2021). For images of $D$
# pixels, the first term becomes
#
# $$ -\tfrac D2 \bigl(\ln 2\pi\sigma_*^2 + 1\bigr),
# \quad \sigma_*^2 = \overline{\|x - \hat x_\theta(z)\|^2} / D . $$
#
# **From which density are codes drawn?** The model's own rule says $\mathcal N(0, I)$. But the KL,
# some nats, weighs little beside thousands of pixels. With a thousand training images, real codes
# then match $\mathcal N(0, I)$ poorly. Ghosh et al. (2020) fit a density to the codes of the
# training images afterwards, and draw from that. Here it is a Gaussian with their mean and
# covariance. Both ways are shown below.
#
# **What is measured.** Reconstructions, each against its own original. Then reconstructions and
# samples as sets, against real images of other patients. The difference between the two sets says
# how much is lost by drawing codes.

# %% tags=["parameters"]
profile = None  # None: as params.yaml says
dataset = None

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio as psnr
from torchmetrics.functional.image import structural_similarity_index_measure as ssim

from cmri_lib.cohort import requirements
from cmri_lib.cohort.slices import Slices
from cmri_lib.config.study import open_study
from cmri_lib.experiments import learning_curves, toy, training
from cmri_lib.experiments.banks import draw_bank, load_bank
from cmri_lib.experiments.evaluator import Evaluator
from cmri_lib.experiments.instruments import load_slices
from cmri_lib.experiments.parallel import train_all

# %%
from cmri_lib.generators.base import batch_of, draw
from cmri_lib.generators.vae import VAE
from cmri_lib.measures.fidelity.spectrum import radial_spectrum, spectrum
from cmri_lib.networks.conditioning.base import Conditioning
from cmri_lib.reporting import curve_tables, figures, metrics, plots, results
from cmri_lib.reporting.primary_tests import ANATOMY, APPEARANCE, HEARTS
from cmri_lib.systems.unconditional import UNCONDITIONAL
from cmri_lib.systems.system import Run
from cmri_lib.training import TrainSettings
from cmri_lib.training.checkpoint import load_weights
from cmri_lib.training.loop import snapshot_file

# %% [markdown]
# The next cell opens the study, loads the slices that notebook 01 has made, and names the four
# splits. Networks learn from *train*; everything below is measured on other patients.

# %%
study = open_study(profile, dataset)
params = study.params
figures.use_style()
slices = load_slices(study)
learnt_from, unseen, test = (slices.where(split=s) for s in ("train", "validation", "test"))
print(study.dataset, study.profile, f"· {slices.size} × {slices.size} pixels ·",
      f"{len(learnt_from)} training slices")

# %% [markdown]
# What this cohort does not have, the notebook leaves out. The next cell says it in words.

# %%
outlook = requirements.outlook(slices)
outlook.need("networks trained on this cohort", "distance to real patients")
print(outlook.left_out("02"))

# %% [markdown]
# ## A toy with a known answer
#
# Before hearts, a problem that can be seen at a glance: points in the plane, drawn from eight
# narrow Gaussians on a circle (the *modes*). Notebooks 02 to 05 all use it. The code has two
# numbers, as many as a point, so nothing need be lost. Both networks are perceptrons, that is, a
# few layers of fully connected neurons.
#
# One detail of the start matters: the encoder begins with precise codes. If it began with vague
# ones, the decoder would learn to ignore them, because to a linear model this ring is round noise,
# and a code could say nothing about it that is worth its KL. A code that is ignored is called
# *posterior collapse*.
#
# The next cell trains the VAE on 2,000 points and makes three clouds: true points, their
# reconstructions, and samples. The number of steps is `toy.steps` in `params.yaml`; with that of
# the profile `smoke` the toy is not learnt to the end.

# %%
generator = torch.Generator().manual_seed(study.seed)
points = toy.eight_gaussians(2000, generator)
settings = TrainSettings(steps=params.toy.steps, batch=128, learning_rate=3e-3, ema=0.99,
                         log_every=500)

def plane_vae():
    encoder, decoder = toy.PerceptronEncoder(), toy.Perceptron(width=64)
    return VAE(encoder, decoder, 2, Conditioning())

plane = toy.trained(plane_vae, points, settings, study.work("vae") / "toy", study.seed)
shown = points[:1000]
clouds = {"true points": shown, "reconstructions": plane.reconstruct(shown, {}),
          "samples": plane.sample(torch.randn(1000, 2, generator=generator), {})}

# %%
def draw_toy(numbers):
    names = list(dict.fromkeys(numbers["cloud"]))
    figure, axes = plt.subplots(1, len(names), figsize=(3 * len(names), 2.9), sharex=True,
                                sharey=True)
    for axis, name in zip(axes, names):
        part = numbers[numbers["cloud"] == name]
        axis.scatter(part["x"], part["y"], s=4, alpha=0.5, linewidth=0)
        axis.set(title=name, aspect="equal", xlabel="x", ylabel="y" if name == names[0] else "")
    return figure

figures.publish(study, "02/toy", toy.as_table(clouds, "cloud"), draw_toy,
                title="A VAE with two numbers as its code, on eight Gaussians");

# %% [markdown]
# The table puts numbers to the picture: the median distance of a point to the nearest centre, the
# shares of the rarest and of the commonest mode (an eighth each, ideally), the share of points that
# lie on a mode (within three standard deviations of its centre), and how many modes were found.

# %%
gaps = pd.DataFrame({name: toy.mode_statistics(cloud) for name, cloud in clouds.items()}).T
gaps.round(3)

# %% [markdown]
# **How to read it.** Look first at the *rarest* mode of the samples: it should be far from 0. A
# likelihood punishes what it cannot explain, so a VAE may leave out no mode. That is its strength.
# Then compare *on a mode* for true points and samples. A decoder is continuous, and the density of
# codes has no holes, so the paths between modes are sampled too. That is its weakness: in images,
# what lies between two hearts is a blend of both.
#
# ## Hearts
#
# Now images. Both networks are convolutional with residual blocks (`params.yaml`, `vae.network`).
# The next cell trains **U1**, or loads it if that has been done before. It also trains the same
# system on fewer patients, for a curve near the end, and with as many seeds as `params.yaml` asks
# for. A `Run` names one training: a system, its patients, its seed.

# %%
curves = learning_curves.LearningCurves(study, slices)
u1 = Run(UNCONDITIONAL["U1 VAE"])
seeds = training.scored_runs(study, u1)
train_all(study, [*seeds, *learning_curves.runs_over_patients(study, slices, u1.system)], slices)
vae = training.train_or_load(study, u1, slices)
log = training.training_log(study, u1)
weights = sum(p.numel() for p in vae.parameters())
print(f"{vae.latent} numbers per code for {slices.size**2} pixels · {weights:,} weights ·",
      f"{log['images'].iloc[-1]:,} images seen in {log['seconds'].iloc[-1]:.0f} s")

# %% [markdown]
# How did the training go? The loss alone does not tell, because it is the sum of two terms. So the
# next cell computes both terms anew, from the weights that were kept on the way:
#
# - $\sigma_*$, the error that is left per pixel, in grey values of $[-1, 1]$;
# - the KL, what the code says about an image, in nats.
#
# Each is computed for training patients and for validation patients, whom the network has not seen.

# %%
@torch.no_grad()
def terms(part, seed=0):
    """σ* in grey values and KL in nats per image, on about 200 slices."""
    torch.manual_seed(seed)
    some = part.take(range(0, len(part), max(1, len(part) // 200)))
    images = batch_of(some)["image"].to(vae.device)
    likelihood, divergence = vae.elbo_terms({"image": images})
    per_pixel = likelihood / images[0].numel()
    sigma = torch.exp(-per_pixel - 0.5) / np.sqrt(2 * np.pi)
    return {"sigma": sigma.item(), "KL": divergence.mean().item()}

# %%
plan, folder = u1.settings(params, study.seed), training.training_folder(study, u1)
rows = []
sides = {"training": learnt_from, "validation": unseen}
for step in (*plan.snapshot_steps(), plan.steps):
    last = step == plan.steps
    load_weights(vae, folder / "weights.safetensors" if last else snapshot_file(folder, step))
    for name, part in [(name, part) for name, part in sides.items() if len(part)]:
        rows.append({"images": step * plan.batch, "patients": name, **terms(part)})
parts = pd.DataFrame(rows)
parts.round(3)

# %%
def draw_training(numbers):
    figure, axes = plt.subplots(1, 3, figsize=(11, 3))
    losses = {"loss_model": "training", "validation_loss": "validation"}
    for column, name in losses.items():
        line = numbers.dropna(subset=column)
        axes[0].plot(line["images"], line[column], marker="o", ms=3, label=name)
    axes[0].set(ylabel="−ELBO (nats per pixel)", xlabel="training images seen",
                ylim=(None, 1.05 * numbers[[*losses]].iloc[1:].max(axis=None)))
    axes[0].legend(title="patients")
    names = {"sigma": "Error left, σ* (grey values)", "KL": "KL (nats per image)"}
    for axis, (column, name) in zip(axes[1:], names.items()):
        line = numbers.dropna(subset=column)
        sns.lineplot(line, x="images", y=column, hue="patients", marker="o", ax=axis)
        axis.set(xlabel="training images seen", ylabel=name)
    return figure

# %%
kept = log[["step", "images", "loss_model", "validation_loss"]]
figure = figures.publish(study, "02/training", pd.concat([kept, parts]), draw_training,
                         title="Training of U1: loss, error and information, by images seen")

# %% [markdown]
# **How to read it.** Left, lower is better. In the middle, look at the two curves: where $\sigma_*$
# keeps falling for training patients but not for validation patients, the network memorises its
# patients instead of learning what hearts look like. Right, a code that says nothing has a KL of 0.
#
# ## Samples
#
# The next cell draws a *bank*: a set of samples that is saved, so that later notebooks measure the
# same images. There is one sample for each slice of a list of test slices. U1 is *unconditional*:
# it is given no mask and no other condition, so it makes any heart. A second set has codes drawn
# from $\mathcal N(0, I)$ instead of the fitted Gaussian.
#
# The **evaluator** holds what all systems share: the list of slices, the real images to compare
# with, and the measures.

# %%
measures = [*Evaluator(study, slices, params.samples, "brief").measures, spectrum()]
evaluator = Evaluator(study, slices, params.samples, measures)
for run in seeds:
    draw_bank(study, run, training.train_or_load(study, run, slices), evaluator.conditions)
bank = load_bank(study, u1)
standard = evaluator.bank(u1, vae, prior="standard")
ten = np.linspace(0, len(bank) - 1, 10).astype(int)
rows = {"real": evaluator.conditions.take(ten), "U1 VAE": bank.take(ten),
        "U1 VAE,\ncodes N(0, I)": standard.take(ten)}
figures.publish_slices(study, "02/samples", rows, outline=False,
                       title="Real test slices, and samples from two densities of codes");

# %% [markdown]
# **How to read it.** The pictures of a column have nothing to do with each other: an unconditional
# sample has no original. Ask of each sample: is there a ring of myocardium, and a cavity in it? Are
# edges as sharp as in the first row? Are the samples different from each other?
#
# ## Reconstructions
#
# A reconstruction does have an original. So here paired measures are legitimate. *SSIM* (structural
# similarity) compares local means, contrasts and patterns; 1 is best. *PSNR* (peak signal-to-noise
# ratio) is the mean squared error on a logarithmic scale, in decibels (dB); higher is better.
# Beside the reconstruction stands the mean training image, the best that can be done without any
# code. The next cell makes both for all test slices. The one after it computes the two measures.

# %%
def reconstruct(part):
    """The slices' images, encoded and decoded."""
    images = vae.reconstruct(batch_of(part)["image"].to(vae.device), {})
    # Still images of these patients: their source stays "real", so that those of a real cohort are
    # shown in the notebook and never written to a file.
    return Slices(images.clamp(-1, 1).cpu().numpy(), part.masks, part.table)

restored, real = reconstruct(test), batch_of(test)["image"]
mean_image = torch.from_numpy(learnt_from.images.mean(0)).expand_as(real)
outputs = {"reconstruction": torch.from_numpy(restored.images), "mean training image": mean_image}
print(len(restored), "reconstructions of", test.table["patient"].nunique(), "test patients")

# %%
tables = []
for name, images in outputs.items():
    similarity = ssim(images, real, data_range=2.0, reduction="none").numpy()
    ratio = psnr(images, real, data_range=2.0, reduction="none", dim=(1, 2, 3)).numpy()
    tables.append(pd.DataFrame({"output": name, "patient": test.patients, "SSIM": similarity,
                                "PSNR": ratio}))
paired = pd.concat(tables)
paired.groupby("output")[["SSIM", "PSNR"]].mean().round(3)

# %%
def draw_paired(numbers):
    each = numbers.groupby(["output", "patient"], sort=False, as_index=False).mean()
    figure, axes = plt.subplots(1, 2, figsize=(8, 2.2), sharey=True)
    for axis, (column, name) in zip(axes, {"SSIM": "SSIM", "PSNR": "PSNR (dB)"}.items()):
        sns.boxplot(each, x=column, y="output", ax=axis)
        axis.set(xlabel=f"{name}, mean of a patient's slices", ylabel="")
    return figure

figures.publish(study, "02/paired", paired, draw_paired,
                title="How close reconstructions of test patients are to their originals");

# %% [markdown]
# The next cell shows ten originals and their reconstructions.

# %%
few = np.linspace(0, len(test) - 1, 10).astype(int)
rows = {"real": test.take(few), "reconstruction": restored.take(few)}
figures.publish_slices(study, "02/reconstructions", rows, outline=False,
                       title="Test slices and their reconstructions");

# %% [markdown]
# Does the heart survive? Pixels can agree while a thin wall is gone. The frozen segmenter of
# notebook 01 labels the reconstructions, and these labels are compared with the true masks of the
# patients. *Dice* is the overlap, from 0 to 1. For this agreement the *ceiling* is what the
# segmenter scores on the originals, and the *floor* the score of another patient's mask. For the
# distances below, the floor is what real images score.

# %%
survived = pd.DataFrame(evaluator.adherence(restored)).set_index("metric")
survived.filter(like="dice", axis=0)[["value", "low", "high", "n", "floor", "ceiling"]].round(3)

# %% [markdown]
# **How to read it.** In the figure, the boxes of the reconstruction should lie clearly to the right
# of those of the mean image; otherwise the code says nothing about a new patient. In the table, a
# value near the ceiling means that a structure survives the code, a value near the floor that it is
# replaced by that of some average patient.
#
# ### A walk between two hearts
#
# What lies between two codes? The next cell encodes two test slices, walks from one code to the
# other along a straight line, and decodes nine points on the way.

# %%
def walk(first, second, steps=9):
    """The two slices' codes, and the decoded points between."""
    ends = vae.encoder(real[[first, second]].to(vae.device), {})[0].detach()
    position = torch.linspace(0, 1, steps, device=vae.device)[:, None]
    images = vae.decoder(torch.lerp(ends[:1], ends[1:], position), {})
    images = images.detach().clamp(-1, 1).cpu().numpy()
    return Slices(images, test.masks[[first] * steps], test.table.iloc[[first] * steps])

pairs = {"pair 1": (few[0], few[5]), "pair 2": (few[2], few[8]), "pair 3": (few[4], few[9])}
walks = {name: walk(*pair) for name, pair in pairs.items()}
figures.publish_slices(study, "02/walk", walks, outline=False,
                       title="From one test slice (left) to another (right), through the code");

# %% [markdown]
# **How to read it.** A good code has hearts everywhere on the way: the ring moves, widens or turns.
# A poor one has double exposures in the middle, two hearts on top of each other.
#
# ## What is lost where?
#
# Reconstructions show what the code can hold. Samples show, in addition, whether random codes are
# codes of hearts. So there are two gaps:
#
# - real images → reconstructions: the price of the code;
# - reconstructions → samples: the price of the density of codes.
#
# Both sets are compared with real images of *other* patients, from validation and hold-out.
# Three numbers say how good a set is:
#
# - **Distance of anatomy** to real images of other patients. A frozen segmenter, a network that
#   finds the parts of the heart, has learnt from real images (notebook 01). The distance compares
#   the output of its deepest layer, the bottleneck of the U-Net: there it has recognised a heart,
#   but not yet drawn its outline. It sees hearts, and hardly sees a mild blur.
# - **Distance of appearance** to the same images. It compares the energies of Gabor filters: how
#   strongly an image answers to small wave patterns of several sizes and directions. Nothing is
#   learnt for it. It sees texture and blur, but not whether the parts of a heart are in place.
# - **Share of valid hearts**: in how many images the segmenter finds one left ventricle in a closed
#   wall, with the right ventricle beside it, and sizes as those of training patients.
#
# Both distances are of the kind **MMD** (maximum mean discrepancy): how alike samples are to real
# images, compared with how alike real images are to each other. Equal sets have 0; an estimate can
# fall slightly below. The **floor** is what real patients score against other real patients. No
# generator can be expected to do better. A system must do well in anatomy *and* in appearance: a
# right texture without a heart is no heart, and a heart of wrong texture is no MR image. **KID**
# (kernel distance) is shown for comparison with other papers only.

# %%
compared = {"reconstructions": reconstruct(evaluator.conditions), "samples": bank,
            "samples, codes N(0, I)": standard}
gap = pd.DataFrame([row for name, images in compared.items()
                    for row in evaluator.rows(name, images)])
far = gap[gap["metric"].isin([ANATOMY, APPEARANCE, HEARTS, "kid_study"])]
figures.publish(study, "02/gap", far, plots.score_plot,
                title="Distance to real images of other patients, and valid hearts")
curve_tables.side_by_side(far, "system")

# %% [markdown]
# **How to read it.** The dashed line is the floor. From that line to the reconstructions is the
# first gap, from the reconstructions to the samples the second. The larger gap is where a better
# model should begin. Anatomy and appearance may name different gaps: blur, for example, shows in
# the distance of appearance. The third row shows what the fitted Gaussian is worth. Where the floor
# of valid hearts is below ½, the segmenter misses real hearts, and cannot judge those of samples.
#
# ### Blur
#
# Fine detail means high spatial frequencies. The next cell takes the power of every image at every
# frequency, averaged over directions and over images. Less power than real images at the right end
# is blur; more would be artefacts. This is a preview of claim F5, which notebook 06 tests for all
# families in the same way.

# %%
kinds = {"real": evaluator.others, **compared}
frequency = np.arange(1, slices.size // 2 + 1) / slices.size
power = pd.concat([
    pd.DataFrame({"images": name, "frequency": frequency,
                  "log10 power": radial_spectrum(part.images).mean(0)})
    for name, part in kinds.items()])

def draw_power(numbers):
    figure, axis = plt.subplots(figsize=(6, 3))
    sns.lineplot(numbers, x="frequency", y="log10 power", hue="images", ax=axis)
    axis.set(xlabel="spatial frequency (cycles per pixel; the finest is 0.5)",
             ylabel="power (log10)")
    return figure

# %%
figures.publish(study, "02/detail", power, draw_power, title="How much fine detail images have")
blur = gap[gap["metric"] == "band_excess"].set_index("system")
blur[["value", "low", "high", "floor"]].round(3)

# %% [markdown]
# **How to read it.** The table gives the mean difference in log10 power from real images over the
# upper half of the frequencies. −1 means a tenth of the power of real images; *floor* is the
# difference between groups of real patients.
#
# ## More training, fewer patients
#
# Two learning curves. In the first, x is the number of images seen during training. In the second,
# it is the number of training patients, each point trained anew. For each point, samples are drawn
# and the distances computed, and the *share nearest to training*. For the latter, each sample is
# asked whose slice lies nearest to it, a training patient's or a hold-out patient's, at equal
# numbers of patients. Its floor is what real test slices score; 1 means that samples repeat
# training patients.

# %%
rows = curves.over_compute(u1) + curves.over_patients(u1.system)
table = results.write_curves(study, "02_vae", rows)
figures.publish(study, "02/curves", table, plots.learning_curves,
                title="U1: quality and near copies, by images seen and by training patients")
over = {kind: curve_tables.side_by_side(part.sort_values("x"), "x")
        for kind, part in table.groupby("curve", sort=False)}
pd.concat(over, names=["curve", "x"]).fillna("")

# %% [markdown]
# **How to read it.** Does one of the distances still fall at the largest number of images? Then
# more training would still help, and this budget is no verdict on VAEs. Low distances together with
# a share near 1 mean that the samples are the training patients. Blur hides details of a patient
# from this audit as well as from the eye, so a share near 0.5 does not prove that nothing was
# memorised.
#
# ## What it costs
#
# A sample takes a single evaluation of the decoder. That is why the review calls VAEs cheap.

# %%
rows = training.cost_rows(study, u1, vae, evaluator.conditions)
costs = results.write_scores(study, "02_vae", rows, seeds=1)
costs.pivot(index="metric", columns="system", values="value").round(4)

# %% [markdown]
# ## Check
#
# The next cell stops the notebook if the toy lost a mode, if the networks learnt nothing that holds
# for patients they have not seen, or if a sample depends on the others in its batch. The toy is not
# checked in the profile `smoke`, which does not train it to the end.

# %%
if study.profile != "smoke":
    assert gaps.loc["samples", "rarest"] > 0.02, "the toy has lost a mode"
on_mode = gaps["on a mode"]
assert on_mode["samples"] < on_mode["true points"], "no path between modes: look at the toy"
held = kept["validation_loss"].dropna()
if outlook["checks on unseen patients"]:
    assert held.min() < kept["loss_model"].iloc[0], "nothing was learnt for unseen patients"
mean_psnr = paired.groupby("output")["PSNR"].mean()
gain = mean_psnr["reconstruction"] - mean_psnr["mean training image"]
if outlook["checks on unseen patients"]:
    assert gain > 0.5, "the code says nothing about an unseen patient"
again = draw(vae, evaluator.conditions.take(range(4)), "check", seed=study.seed, batch=3).images
assert np.allclose(again, bank.images[:4], atol=1e-4), "a sample depends on others in its batch"

# %% [markdown]
# ## Exercises
#
# ### 1. Which numbers are used?
#
# Compute the KL of each number of the code from the prior, averaged over test images. A number that
# the decoder ignores costs nothing and has a KL of 0 (posterior collapse). *Hint:* the KL of a
# Gaussian $\mathcal N(\mu, e^\ell)$ from $\mathcal N(0, 1)$ is $\tfrac12 (\mu^2 + e^\ell - 1 -
# \ell)$. Which numbers of the code are used at all?

# %% tags=["solution"]
with torch.no_grad():
    mean, log_variance = vae.encoder(real.to(vae.device), {})
each = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean(0)
each = each.sort(descending=True).values.cpu().numpy()
print("KL in nats, from the most to the least informative number:")
print(each.round(2))
print(f"used (more than 0.1 nats): {(each > 0.1).sum()} of {len(each)}; sum {each.sum():.0f} nats")
# The sum is about the KL of the training figure. A code that is longer than needed shows zeros.

# %% [markdown]
# ### 2. Half-way in the code, half-way in pixels
#
# The middle picture of a walk could be the mean of its two ends: a double exposure. How far is it
# from that mean, in units of the distance between the ends? Does it have more power than the mean
# at high frequencies? So is the walk through the code more than a cross-fade?

# %% tags=["solution"]
middles, fades = [], []
for name, steps in walks.items():
    start, middle, end = steps.images[[0, len(steps) // 2, -1]]
    fade = (start + end) / 2
    middles.append(middle), fades.append(fade)
    away = np.linalg.norm(middle - fade) / np.linalg.norm(end - start)
    fine = [radial_spectrum(one[None])[0, len(frequency) // 2:].mean() for one in (middle, fade)]
    print(f"{name}: {away:.2f} away from the cross-fade; "
          f"log10 power at high frequencies {fine[0]:.2f}, of the cross-fade {fine[1]:.2f}")
pictures = {"code": np.stack(middles), "pixels": np.stack(fades)}
figures.slice_grid({name: Slices(some, test.masks[:len(some)], test.table[:len(some)])
                    for name, some in pictures.items()}, outline=False);
# A cross-fade would be 0 away from itself. The more the decoder bends the way, the further its
# middle lies from it: look whether that picture shows one heart where the other shows two. Power
# alone does not tell, because two faint outlines have fine detail, too.

# %% [markdown]
# ### 3. The PSNR by hand
#
# Intensities run from −1 to 1, a range of 2, so $\text{PSNR} = 10 \log_{10} (4 / \text{MSE})$.
# Compute it from the mean squared error of each reconstruction, and average over slices. Then take
# the mean of all errors first, and its PSNR. Which of the two is higher, and must it be so on any
# data?

# %% tags=["solution"]
squared = ((torch.from_numpy(restored.images) - real) ** 2).mean((1, 2, 3)).numpy()
decibels = 10 * np.log10(4 / squared)
by_library = paired.loc[paired["output"] == "reconstruction", "PSNR"].to_numpy()
print(f"largest difference to the library: {np.abs(decibels - by_library).max():.1e} dB")
print(f"mean of the PSNRs {decibels.mean():.2f} dB; "
      f"PSNR of the mean error {10 * np.log10(4 / squared.mean()):.2f} dB")
# The mean of the PSNRs is never lower: −log is convex (Jensen's inequality). The gap grows with the
# spread of the errors. So never compare a PSNR with one that was averaged in the other order.

# %% [markdown]
# ## Summary
#
# The next cell prints the numbers of this run.

# %%
print(f"1. Toy, points on a mode: true {on_mode['true points']:.0%}, "
      f"samples {on_mode['samples']:.0%}; rarest mode {gaps.loc['samples', 'rarest']:.0%}")
print(f"2. PSNR of test patients: reconstruction {mean_psnr['reconstruction']:.1f} dB, "
      f"mean image {mean_psnr['mean training image']:.1f} dB")
for metric in (ANATOMY, APPEARANCE, HEARTS):
    part = far[far["metric"] == metric]
    print(f"3. {metrics.short(metric)}: real images {part['floor'].iloc[0]:.3f};",
          "; ".join(f"{row.system}: {row.value:.3f}" for row in part.itertuples()))

# %%
print("4. log10 power at high frequencies, minus that of real images:",
      "; ".join(f"{name}: {value:+.2f}" for name, value in blur["value"].items()))
for metric in (ANATOMY, APPEARANCE):
    line = table[(table["curve"] == "images") & (table["metric"] == metric)].sort_values("x")
    print(f"5. {metrics.short(metric)} by images seen:",
          "; ".join(f"{x:,} images: {value:.3f}" for x, value in zip(line["x"], line["value"])))

# %% [markdown]
# 1. **A VAE finds every mode and fills the gaps between them.** Line 1: the rarest mode is there,
#    but fewer samples than true points lie on a mode.
# 2. **The code holds what is particular to a new patient** if the first number of line 2 is clearly
#    larger than the second.
# 3. **Lines 3 locate the loss.** Compare the step from *real images* to *reconstructions* with the
#    step from *reconstructions* to *samples*. The larger one is the weak point: the code, or its
#    density. The answer can differ between anatomy and appearance.
# 4. **Negative values in line 4 are blur** (F5). If reconstructions are as blurred as samples, blur
#    comes from the decoder, not from drawing codes.
# 5. **Lines 5 say whether the training is long enough.** If the last value of one of them is much
#    lower than the one before it, the VAE has not converged, and its rank among the families means
#    nothing yet.
#
# ## Limits
#
# - One seed of training: intervals speak of patients, not of trainings.
# - σ is one number for all pixels. Errors of neighbouring pixels go together, which the bound does
#   not know: it takes one blurred edge for many independent mistakes and pays for codes that avoid
#   it. With few patients the codes of training images then lie far apart, and samples, drawn
#   between them, are worse than reconstructions.
# - A VAE of stacked codes, or with a better density of codes than one Gaussian, would do better;
#   the latter is what latent diffusion is (U7, U8, notebook 04).
