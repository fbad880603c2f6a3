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
# **Question.** How far does the cheapest generative model get, and what exactly is lost: in the code, or in drawing
# codes?
#
# **What the review says.** VAEs are the smooth, cheap baseline (system **U1**); they lose fine detail (claim F5), and
# of the families compared they have the largest Fréchet distance (F1).
#
# ## Method
#
# A code $z \sim \mathcal N(0, I)$ is decoded to a mean image, around which pixels scatter: $p_\theta(x|z) = \mathcal
# N(\hat x_\theta(z), \sigma^2 I)$. An encoder guesses the code, $q_\phi(z|x) = \mathcal N(\mu(x),
# \mathrm{diag}\,e^{\ell(x)})$. Both maximise a bound on $\ln p_\theta(x)$ (Kingma & Welling 2014, eq. 10):
#
# $$ \mathcal L = \mathbb E_q \ln p_\theta(x|z) - \mathrm{KL}\bigl(q_\phi(z|x)\,\|\,\mathcal N(0, I)\bigr). $$
#
# How much a sharp reconstruction is worth against codes that look like noise is decided by $\sigma$. It is often
# fixed at 1, or hidden in a weight $\beta$, and then VAEs look worse than they are. Here it has its
# maximum-likelihood value, the batch's mean squared error (Rybkin et al. 2021), so that for $D$ pixels the first term
# is
#
# $$ -\tfrac D2 \bigl(\ln 2\pi\sigma_*^2 + 1\bigr), \quad \sigma_*^2 = \overline{\|x - \hat x_\theta(z)\|^2} / D . $$
#
# A sample is the mean image of a random code: one network evaluation. Drawn from which density? By the model's own rule
# from $\mathcal N(0, I)$. But the divergence, some nats, weighs little beside thousands of pixels, and with a thousand
# images the codes match $\mathcal N(0, I)$ poorly. Ghosh et al. (2020) draw from a density fitted to the codes after
# training; here it is the Gaussian with their mean and covariance. Both ways are shown below.

# %% tags=["parameters"]
profile = None  # None: as params.yaml says
dataset = None

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from torch import nn
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

# %%
from cmri_lib.cohort.slices import Slices
from cmri_lib.experiments import learning_curves as curves, protocol
from cmri_lib.experiments.parallel import train_all
from cmri_lib.generators.base import batch_of
from cmri_lib.generators.vae import VAE
from cmri_lib.measures.fidelity.distances import fidelity
from cmri_lib.measures.fidelity.spectrum import radial_spectrum
from cmri_lib.networks.conditioning.base import Conditioning
from cmri_lib.reporting import figures, results
from cmri_lib.systems.unconditional import system
from cmri_lib.training import TrainSettings, train
from cmri_lib.training.checkpoint import load_weights
from cmri_lib.training.loop import snapshot_file

study, params = protocol.open_study(profile, dataset)
figures.use_style()

# %% [markdown]
# ## A toy with a known answer
#
# Eight narrow Gaussians on a circle, in the plane, as in 05. A code of two numbers is as large as the data, so nothing
# need be lost. Training begins with precise codes: from vague ones it would not start at all, since to a linear model
# this ring is round noise, about which a code cannot say anything worth its divergence ("posterior collapse").

# %%
class Perceptron(nn.Sequential):
    """Two numbers in; two out, or for an encoder two pairs."""

    def __init__(self, pairs, width=64):
        super().__init__(nn.Linear(2, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
                         nn.Linear(width, 2 * pairs))
        self.pairs = pairs
        if pairs == 2:
            nn.init.constant_(self[-1].bias[2:], -4.0)  # start with precise codes

    def forward(self, x, batch):
        out = super().forward(x)
        return out.chunk(2, dim=1) if self.pairs == 2 else out

angle = torch.arange(8) * torch.pi / 4
centres = 3 * torch.stack([angle.cos(), angle.sin()], dim=1)
rng = torch.Generator().manual_seed(study.seed)
points = centres[torch.randint(8, (2000,), generator=rng)] + 0.2 * torch.randn(2000, 2, generator=rng)

# %%
torch.manual_seed(study.seed)
plane = VAE(Perceptron(2), Perceptron(1), 2, Conditioning())
train(plane, {"image": points}, TrainSettings(steps=1500, batch=128, learning_rate=3e-3, ema=0.99, log_every=500),
      study.work("vae") / "toy")
plane.cpu()
clouds = {"truth": points[:1000], "reconstructions": plane.reconstruct(points[:1000], {}),
          "samples": plane.sample(torch.randn(1000, 2, generator=rng), {})}
toy = pd.concat([pd.DataFrame(c.numpy(), columns=["x", "y"]).assign(what=name) for name, c in clouds.items()])

def draw_toy(numbers):
    grid = sns.relplot(numbers, x="x", y="y", col="what", s=8, alpha=0.5, height=2.8, linewidth=0)
    grid.set_titles("{col_name}").set(aspect="equal")
    return grid.figure

figures.publish(study, "02_toy", toy, draw_toy);

# %% [markdown]
# The share of points between the modes, farther than four standard deviations from every centre, and of the rarest
# and commonest mode:

# %%
def wander(cloud):
    distance, nearest = torch.cdist(cloud, centres).min(dim=1)
    counts, between = torch.bincount(nearest, minlength=8) / len(cloud), distance > 0.8
    return {"between modes": between.float().mean().item(), "rarest": counts.min().item(),
            "commonest": counts.max().item()}

gaps = pd.DataFrame({name: wander(cloud) for name, cloud in clouds.items()}).T
gaps.round(3)

# %% [markdown]
# A likelihood punishes what it cannot explain, so no mode may be left out: that is its strength. But a decoder is
# continuous and the prior has no holes, so the paths between modes are sampled too. In images, what lies between two
# hearts is a blend of both.
#
# ## The heart
#
# Both networks are residual and convolutional (`params.yaml`, `vae.network`). If the training has been done before,
# the next cell loads it.

# %%
slices = protocol.load_slices(study)
u1 = system("U1 VAE")
train_all(study, [(u1, slices, None), *((u1, slices, n) for n in params.curves.patients)])  # the latter for a curve below
vae = protocol.trained(study, u1, slices)
folder = protocol.training_folder(study, u1)
log = pd.read_csv(folder / "log.csv")
test, training, unseen = (slices.where(split=s) for s in ("test", "train", "validation"))
vae.latent, sum(p.numel() for p in vae.parameters())

# %% [markdown]
# The two terms of the bound, computed anew from the weights kept on the way: $\sigma_*$, the error that is left, and
# the divergence, what the code says about an image. Training patients against unseen ones.

# %%
@torch.no_grad()
def terms(part, seed=0):
    """σ* in grey values of [−1, 1] and KL in nats per image."""
    torch.manual_seed(seed)
    images = batch_of(part.take(range(0, len(part), max(1, len(part) // 200))))["image"].to(vae.device)
    likelihood, divergence = vae.elbo_terms({"image": images})
    sigma = torch.exp(-likelihood / images[0].numel() - 0.5) / np.sqrt(2 * np.pi)
    return {"sigma": sigma.item(), "KL": divergence.mean().item()}

plan, rows = params.vae.training, []
for step in (*plan.snapshot_steps(), plan.steps):
    load_weights(vae, folder / "weights.safetensors" if step == plan.steps else snapshot_file(folder, step))
    rows += [{"images": step * plan.batch, "patients": name, **terms(part)} for name, part in
             (("training", training), ("unseen", unseen))]
parts = pd.DataFrame(rows)

# %%
def draw_training(numbers):
    figure, axes = plt.subplots(1, 3, figsize=(11, 3))
    sns.lineplot(numbers, x="images", y="loss_model", alpha=0.5, ax=axes[0])
    sns.lineplot(numbers.dropna(subset="validation_loss"), x="images", y="validation_loss", marker="o", ax=axes[0])
    axes[0].set(ylabel="−ELBO, nats per pixel (dots: unseen)", ylim=(None, numbers["loss_model"].iloc[1:].max()))
    for axis, column, label in ((axes[1], "sigma", "σ*, grey values"), (axes[2], "KL", "KL, nats per image")):
        sns.lineplot(numbers.dropna(subset=column), x="images", y=column, hue="patients", marker="o", ax=axis)
        axis.set(ylabel=label)
    return figure

kept = log[["step", "images", "loss_model", "validation_loss"]]
figures.publish(study, "02_training", pd.concat([kept, parts]), draw_training);

# %% [markdown]
# **Reading.** Where $\sigma_*$ keeps falling for training patients and not for unseen ones, the code learns these
# patients by heart.
#
# ## Samples

# %%
conditions = protocol.sampling_conditions(slices, params.samples, study.seed)
bank = protocol.sample_bank(study, u1, vae, conditions)
shown = np.linspace(0, len(conditions) - 1, 10).astype(int)
standard = protocol.draw(vae, conditions, u1.id, seed=study.seed, prior="standard")
rows = {"real": conditions.take(shown), "U1 VAE": bank.take(shown), "U1 VAE,\ncodes N(0, I)": standard.take(shown)}
figures.publish_slices(study, "02_samples", rows, outline=False);

# %% [markdown]
# ## Reconstructions
#
# Here every output has its own truth, so paired measures are legitimate: structural similarity and peak
# signal-to-noise ratio, in [−1, 1]. Beside it, what the mean training image scores, which knows nothing of the
# patient.

# %%
real = batch_of(test)["image"]
outputs = {"reconstruction": vae.reconstruct(real.to(vae.device), {}).cpu().clamp(-1, 1),
           "mean image": torch.from_numpy(training.images.mean(0)).expand_as(real)}

def fit(y):
    """SSIM and PSNR in dB of each image."""
    return {"SSIM": structural_similarity_index_measure(y, real, data_range=2.0, reduction="none").numpy(),
            "PSNR": peak_signal_noise_ratio(y, real, data_range=2.0, reduction="none", dim=(1, 2, 3)).numpy()}

paired = pd.concat([pd.DataFrame({"output": n, "patient": test.patients, **fit(y)}) for n, y in outputs.items()])

def draw_paired(numbers):
    each = numbers.groupby(["output", "patient"], sort=False, as_index=False).mean().melt(["output", "patient"])
    grid = sns.catplot(each, x="output", y="value", col="variable", kind="box", sharey=False, height=2.8)
    grid.set_titles("{col_name}").set_axis_labels("", "mean of a test patient")
    return grid.figure

figures.publish(study, "02_paired", paired, draw_paired);

# %%
# Still images of these patients, so their source stays "real", and those of real cohorts are not written to files.
restored = Slices(outputs["reconstruction"].numpy(), test.masks, test.table)
few = np.linspace(0, len(test) - 1, 10).astype(int)
rows = {"real": test.take(few), "reconstruction": restored.take(few)}
figures.publish_slices(study, "02_reconstructions", rows, outline=False);

# %% [markdown]
# ### A walk between two hearts
#
# Straight through the code from one test patient to another. A good code has hearts everywhere on the way, a poor one
# has double exposures.

# %%
def walk(first, second, steps=9):
    """The two slices' codes, and the decoded points between."""
    ends = vae.encoder(real[[first, second]].to(vae.device), {})[0].detach()
    way = torch.lerp(ends[:1], ends[1:], torch.linspace(0, 1, steps, device=vae.device)[:, None])
    images = vae.decoder(way, {}).detach().clamp(-1, 1).cpu().numpy()
    return Slices(images, test.masks[[first] * steps], test.table.iloc[[first] * steps])

pairs = [(few[0], few[5]), (few[2], few[8]), (few[4], few[9])]
figures.publish_slices(study, "02_walk", {f"pair {i + 1}": walk(*pair) for i, pair in enumerate(pairs)}, outline=False);

# %% [markdown]
# ## What is lost where?
#
# Reconstructions show what the code can hold; samples show, in addition, whether random codes are codes of hearts. The
# gap between the two is the price of the code's density, the gap between reconstructions and real images the price of
# the code. All are compared with real images of *other* patients.

# %%
others, spaces = slices.where(split=["validation", "holdout"]), protocol.feature_spaces(study, slices)
options = {"reference_real": test, "seed": study.seed, "resamples": params.fidelity.resamples}
compared = {"reconstructions": restored, "samples": bank, "samples, N(0, I)": standard}
gap = pd.DataFrame([{"system": name, **row} for name, made in compared.items() for space in spaces
                    for row in fidelity(others, made, space, repeats=params.fidelity.repeats, **options)])
figures.publish(study, "02_gap", gap, figures.score_plot);

# %% [markdown]
# ### Blur
#
# Power against spatial frequency, averaged over directions and images. Less power than real images at high
# frequencies is blur; more would be artefacts. A preview of claim F5, which is tested where all families are measured
# by the same protocol (06).

# %%
kinds = {"real": others, "reconstructions": restored, "samples": bank}
power = pd.concat([pd.DataFrame({"images": name, "frequency": np.arange(1, slices.size // 2 + 1) / slices.size,
                                 "log10 power": radial_spectrum(part.images).mean(0)}) for name, part in kinds.items()])

def draw_power(numbers):
    figure, axis = plt.subplots(figsize=(5.5, 3))
    sns.lineplot(numbers, x="frequency", y="log10 power", hue="images", ax=axis)
    axis.set(xlabel="cycles per pixel (Nyquist: 0.5)")
    return figure

figures.publish(study, "02_detail", power, draw_power);

# %% [markdown]
# ## More training, fewer patients

# %%
rows = curves.over_compute(study, params, u1, slices) + curves.over_patients(study, params, u1, slices)
table = curves.write(study, "02_vae", rows)
figures.publish(study, "02_curves", table, curves.draw);

# %% [markdown]
# **Reading.** Left, whether more training still helps. Right, whether more patients do: a low distance together with
# a share near 1 would be patients learnt by heart; blur hides details of a patient from this audit as well as from
# the eye.
#
# ## What it costs

# %%
costs = results.write_scores(study, "02_vae", protocol.cost_rows(study, u1, vae, conditions), seeds=1)
costs.pivot(index="metric", columns="system", values="value").round(4)

# %% [markdown]
# ## Check

# %%
assert gaps.loc["samples", "rarest"] > 0.02, "the toy has lost a mode"
between = gaps["between modes"]
assert between["samples"] > between["truth"], "no path between modes: look at the toy"
held = kept["validation_loss"].dropna()
assert held.min() < held.iloc[0], "nothing was learnt that holds for unseen patients"
mean_psnr = paired.groupby("output")["PSNR"].mean()
assert mean_psnr["reconstruction"] > mean_psnr["mean image"] + 0.5, "the code says nothing about an unseen patient"
again = protocol.draw(vae, conditions.take(range(4)), "check", seed=study.seed, batch=3).images
assert np.allclose(again, bank.images[:4], atol=1e-4), "a sample depends on its neighbours in the batch"

# %% [markdown]
# ## Exercise
#
# Which numbers of the code are used at all? Compute the divergence of each from the prior, averaged over test images:
# one that the decoder ignores costs nothing and has divergence 0 ("posterior collapse").

# %% tags=["solution"]
with torch.no_grad():
    mean, log_variance = vae.encoder(real.to(vae.device), {})
each = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean(0).sort(descending=True).values
print("nats, most to least informative:", each[[0, len(each) // 4, len(each) // 2, -1]].cpu().numpy().round(2),
      "· used (> 0.1 nats):", int((each > 0.1).sum()), "of", len(each))
# Their sum is the KL of the training figure: what the code tells of an image. A code longer than needed shows zeros.

# %% [markdown]
# ## Limits
#
# - One seed of training: intervals speak of patients, not of trainings.
# - σ is one number for all pixels. Errors of neighbouring pixels go together, which the bound does not know: it takes
#   one blurred edge for many independent mistakes and pays for codes that avoid it. With few patients the codes of
#   training images then lie far apart, and samples, drawn between them, are worse than reconstructions.
# - A VAE of stacked codes, or with a better density of codes than one Gaussian, would do better; the latter is what
#   latent diffusion is (U7, U8).
