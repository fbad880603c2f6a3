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
# # 04 · Diffusion, in pixels, in latents and in tokens
#
# **Question.** What does it take to turn noise into hearts by undoing noise, and is it better done on pixels, on the
# latents of an autoencoder, or on its tokens?
#
# **What the review says.** Diffusion beats GANs and VAEs in unconditional fidelity (claim F1); flow matching needs
# far fewer steps (F2). Systems: **U6** DDPM on pixels; **U7** latent diffusion behind a KL and behind a VQ
# autoencoder; **U8** a diffusion transformer on the KL latents; **U9** MaskGIT, which guesses hidden VQ tokens, said
# to be robust when parts of an image are masked.
#
# ## Method
#
# Noise an image in $T$ small steps, $x_n = \alpha_n x_0 + \sigma_n \varepsilon$ with $\varepsilon \sim \mathcal N(0,
# I)$ and $\alpha_n^2 + \sigma_n^2 = 1$ (Ho et al. 2020, eq. 4), where $\alpha_n$ falls from 1 to nearly 0. A network
# learns what was added (eq. 14):
#
# $$ \mathcal L = \mathbb E_{n, x_0, \varepsilon}\; w_n \bigl\| \varepsilon_\theta(x_n, n) - \varepsilon \bigr\|^2 . $$
#
# Its minimiser is the *score* of the noisy images in disguise, $\nabla \log p_n(x) = -\mathbb E[\varepsilon \mid x_n
# = x] / \sigma_n$: the direction in which images become likelier. From $\varepsilon$ follows the clean image $\hat
# x_0 = (x_n - \sigma_n \varepsilon)/\alpha_n$, and the other way round, so the network may as well predict $x_0$, or
# $v = \alpha_n \varepsilon - \sigma_n x_0$ (Salimans & Ho 2022), which is $\varepsilon$ where there is only image and
# $-x_0$ where there is only noise. Every sampler below mixes $\hat x_0$ and $\hat\varepsilon$ anew for the next,
# lower level $m < n$:
#
# $$ x_m = \alpha_m \hat x_0 + \sqrt{\sigma_m^2 - s^2}\; \hat\varepsilon + s\, z, \qquad z \sim \mathcal N(0, I). $$
#
# **Ancestral** sampling draws fresh noise, $s^2 = \sigma_m^2 / \sigma_n^2 \,(1 - \alpha_n^2 / \alpha_m^2)$; **DDIM**
# (Song et al. 2021) draws none and follows an ordinary differential equation with first-order steps; **DPM-Solver++**
# (Lu et al. 2022) extrapolates $\hat x_0$ from the step before, which makes it second order for the same one
# evaluation per step.

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

from cmri_lib.cohort.slices import Slices
from cmri_lib.experiments import learning_curves as curves, protocol
from cmri_lib.experiments.parallel import train_all
from cmri_lib.generators.diffusion import SAMPLERS, Diffusion, DiffusionSettings
from cmri_lib.networks.conditioning.base import Conditioning
from cmri_lib.reporting import figures, results
from cmri_lib.systems.unconditional import system
from cmri_lib.training import TrainSettings, train

study, params = protocol.open_study(profile, dataset)
figures.use_style()

# %% [markdown]
# ## A toy whose score is known
#
# Eight narrow Gaussians on a circle. Noised, they stay Gaussians, centres $\alpha_n c_k$ and variance $\alpha_n^2\,
# 0.2^2 + \sigma_n^2$; so the score of the mixture can be written down, and what a small perceptron has learnt
# compared with it, at every level.

# %%
class Perceptron(nn.Module):
    """(x, t) → ε, v or x_0 in the plane."""

    def __init__(self, width=128):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
                                    nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2))

    def forward(self, x, t, batch):
        return self.layers(torch.cat([x, t[:, None]], dim=1))

angle = torch.arange(8) * torch.pi / 4
centres = 3 * torch.stack([angle.cos(), angle.sin()], dim=1)
rng = torch.Generator().manual_seed(study.seed)
points = centres[torch.randint(8, (2000,), generator=rng)] + 0.2 * torch.randn(2000, 2, generator=rng)

# %%
toys, noise = {}, torch.randn(1000, 2, generator=rng)
for prediction in ("epsilon", "v", "sample"):
    torch.manual_seed(study.seed)
    toys[prediction] = Diffusion(Perceptron(), Conditioning(), DiffusionSettings(prediction=prediction, clip=False))
    settings = TrainSettings(steps=1500, batch=256, learning_rate=1e-2, ema=0.99, log_every=500)
    train(toys[prediction], {"image": points}, settings, study.work("diffusion") / f"toy-{prediction}")
    toys[prediction].cpu()

def true_score(x, alpha, sigma):
    """∇ log p_n(x) of the noised mixture: a weighted mean of the pulls towards the eight centres."""
    variance = (0.2 * alpha) ** 2 + sigma**2
    pull = (alpha[:, None] * centres - x[:, None]) / variance[:, None]
    weights = torch.softmax(-torch.cdist(x[:, None], alpha[:, None] * centres)[:, 0] ** 2 / (2 * variance), dim=1)
    return (weights[..., None] * pull).sum(1)

# %%
@torch.no_grad()
def scores_at(prediction, x, n):
    """Learnt and true score at points x (N, 2) of level n."""
    level = torch.full((len(x),), n)
    alpha, sigma = toys[prediction].levels(level, x)
    return (alpha * toys[prediction].predict_x0(x, level, {}) - x) / sigma**2, true_score(x, alpha, sigma)

error = []
for n in range(50, 1000, 50):
    noised = toys["v"].add_noise(points, torch.randn(points.shape, generator=rng), torch.full((len(points),), n))
    for prediction in toys:
        learnt, true = scores_at(prediction, noised, n)
        relative = ((learnt - true).square().sum() / true.square().sum()).sqrt().item()
        error.append({"predicts": prediction, "level n": n, "error": relative})
error = pd.DataFrame(error)
error.pivot(index="level n", columns="predicts", values="error").iloc[::3].round(3)

# %%
side = torch.linspace(-4, 4, 15)
plane = torch.cartesian_prod(side, side)
fields = {n: torch.cat([plane, *scores_at("v", plane, n)], 1).numpy() for n in (300, 700)}
fields = [pd.DataFrame(f, columns=["x", "y", "lx", "ly", "tx", "ty"]).assign(level=n) for n, f in fields.items()]

# %%
def draw_score(numbers):
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.8))
    for axis, (level, part) in zip(axes, numbers.dropna(subset="x").groupby("level")):
        scale = 12 * np.hypot(part["tx"], part["ty"]).max()  # one for both, so that lengths can be compared
        for colour, u, v, label, width in (("0.7", "tx", "ty", "true", 0.009), ("C3", "lx", "ly", "learnt", 0.004)):
            axis.quiver(part["x"], part["y"], part[u], part[v], color=colour, label=label, width=width, scale=scale)
        axis.set(title=f"score at n = {level:.0f} of 1000", aspect="equal", xlabel="", ylabel="")
    axes[0].legend(fontsize="x-small")
    sns.lineplot(numbers.dropna(subset="error"), x="level n", y="error", hue="predicts", marker="o", ax=axes[2])
    axes[2].set(yscale="log", ylabel="relative error of the score")
    return figure

figures.publish(study, "04_score", pd.concat([*fields, error]), draw_score);

# %% [markdown]
# Left: where red arrows cover grey ones the score has been learnt; it can only be right where noisy points lie.
# Right: the same network, told to answer differently. An answer in $x_0$ is divided by $\sigma_n$ on its way to
# $\varepsilon$, one in $\varepsilon$ by $\alpha_n$ on its way to the image; $v$ is never divided by anything small.
#
# ### Samplers

# %%
def wander(diffusion, sampler, steps):
    """Distance of samples to the nearest true centre, and the share of the least visited centre."""
    end = diffusion.sample(noise, {}, sampler=sampler, steps=steps)
    distance, nearest = torch.cdist(end, centres).min(dim=1)
    return {"off by": distance.median().item(), "rarest": torch.bincount(nearest, minlength=8).min().item() / len(end)}

toy = pd.DataFrame([{"sampler": name, "steps": k, **wander(toys["v"], name, k)}
                    for name in SAMPLERS for k in (2, 4, 8, 16, 32, 100)])

# %%
def draw_toy(numbers):
    figure, axes = plt.subplots(1, 2, figsize=(8.5, 3))
    rayleigh = 0.2 * np.sqrt(2 * np.log(2))  # median of a Rayleigh distribution with σ = 0.2
    truths = {"off by": (rayleigh, "median distance to a centre"), "rarest": (1 / 8, "share of the rarest mode")}
    for axis, (column, (truth, label)) in zip(axes, truths.items()):
        sns.lineplot(numbers, x="steps", y=column, hue="sampler", marker="o", ax=axis, legend=column == "rarest")
        axis.axhline(truth, ls="--", color="gray")
        axis.set(xscale="log", ylabel=label, xlabel="network evaluations")
    return figure

figures.publish(study, "04_toy", toy, draw_toy);

# %% [markdown]
# Dashed: the truth. With few steps the samplers differ; with many they should agree.
#
# ## The heart, in pixels
#
# U6: the U-Net of the flow of notebook 05, attention at its lowest level, a cosine schedule (Nichol & Dhariwal 2021)
# since a linear one leaves small images in pure noise for much of its time, and $v$ as its answer (`params.yaml`,
# `diffusion`).

# %%
slices = protocol.load_slices(study)
systems = {name: system(name) for name in ("U6 DDPM", "U7 LDM-KL", "U7 LDM-VQ", "U8 DiT", "U9 MaskGIT")}
train_all(study, [*((s, slices, None) for s in systems.values()), *((systems["U6 DDPM"], slices, n) for n in params.curves.patients)])
generators = {"U6 DDPM": protocol.train_or_load(study, systems["U6 DDPM"], slices)}
ddpm = generators["U6 DDPM"]
conditions = protocol.sampling_conditions(slices, params.samples, study.seed)
banks = {"U6 DDPM": protocol.sample_bank(study, systems["U6 DDPM"], ddpm, conditions)}

# %% [markdown]
# ### The way from noise to image
#
# One sample on its way, eight evaluations of each sampler from the same noise. Upper rows: $x_n$; lower rows: what
# the network takes for the clean image at that moment.

# %%
def pictures(images, like, source):
    """Slices of `images` (N, 1, H, W), with the metadata of `like`, without masks."""
    array = images.clamp(-1, 1).float().cpu().numpy()
    return Slices(array, np.zeros_like(like.masks), like.table.assign(source=source))

first = torch.randn(1, 1, slices.size, slices.size, generator=rng).to(ddpm.device)
like, rows = banks["U6 DDPM"].take([0] * 8), {}
for sampler in SAMPLERS:
    states = list(ddpm.path(first, {}, sampler, ddpm.times(8)))
    rows[f"{sampler}: state"] = pictures(torch.cat([x for _, x, _ in states]), like, "U6 DDPM")
    rows[f"{sampler}: guess"] = pictures(torch.cat([clean for *_, clean in states]), like, "U6 DDPM")
figures.publish_slices(study, "04_path", rows, titles=[f"n = {n}" for n, *_ in states]);

# %% [markdown]
# **Reading.** The guess begins as the mean heart and gains detail as noise goes; where the heart lies is settled
# early. DDIM and DPM-Solver approximate the same path, the ancestral sampler wanders to another heart.
#
# ### Samplers against evaluations
#
# Left: KID to other patients (0: the same distribution); right: the share of samples nearer to training patients than
# to unseen ones (½: no memory).

# %%
few = params.diffusion.few_steps
evaluations = {"ddpm": few.ddpm, "ddim": few.ddim, "dpm-solver": few.dpm_solver}
wanted = {name: {n: {"sampler": name, "steps": n} for n in numbers} for name, numbers in evaluations.items()}
rows = curves.over_evaluations(study, params, systems["U6 DDPM"], ddpm, slices, wanted)
figures.publish(study, "04_few_steps", pd.DataFrame(rows), curves.draw);

# %%
few_conditions, shown = conditions.take(range(10)), {}
for sampler, numbers in evaluations.items():
    for steps in (min(numbers), max(numbers)):
        choices = {"sampler": sampler, "steps": steps}
        shown[f"{sampler} {steps}"] = protocol.draw(ddpm, few_conditions, "U6 DDPM", seed=study.seed, **choices)
figures.publish_slices(study, "04_samplers", shown);

# %% [markdown]
# Each column starts from the same noise.
#
# ## The heart, in latents
#
# An autoencoder learns to make images small and large again; diffusion then learns the small ones (Rombach et al.
# 2022). The network gets cheaper, and need not draw what the decoder knows anyway; but nothing the autoencoder loses
# comes back. Two kinds: **KL**, whose latents are pulled towards $\mathcal N(0, I)$ by a very small weight, and
# **VQ**, whose latent vectors are replaced by the nearest of a codebook (van den Oord et al. 2017):
#
# $$ \mathcal L_{\text{KL}} = \|x - D(z)\|_1 + \beta\, \mathrm{KL}\bigl(q(z \mid x)\,\|\,\mathcal N(0, I)\bigr), $$
# $$ \mathcal L_{\text{VQ}} = \|x - D(e_k)\|_1 + \lambda\, \|z - \mathrm{sg}[e_k]\|^2, \quad
#    k = \arg\min_j \|z - e_j\| , $$
#
# both with a term for fine detail (`networks/autoencoder.py`). Latents are scaled to unit variance, as the noise
# schedule expects, and not clipped. U7 puts a U-Net on them, U8 a transformer whose layers are modulated by $n$
# (Peebles & Xie 2023).

# %%
for name in ("U7 LDM-KL", "U7 LDM-VQ", "U8 DiT"):
    generators[name] = protocol.train_or_load(study, systems[name], slices)
    banks[name] = protocol.sample_bank(study, systems[name], generators[name], conditions)
stages = {"KL": generators["U7 LDM-KL"].first_stage, "VQ": generators["U7 LDM-VQ"].first_stage}
unseen = slices.where(split="test")
unseen = unseen.take(np.linspace(0, len(unseen) - 1, 10).astype(int))
images = torch.from_numpy(unseen.images).to(ddpm.device)
back = {name: pictures(stage.reconstruct(images), unseen, "real") for name, stage in stages.items()}
figures.publish_slices(study, "04_reconstructions", {"real": unseen, **back}, outline=False);

# %% [markdown]
# Slices of unseen patients through each autoencoder and back: the best that a latent system could do. In numbers, the
# mean absolute error (images range from −1 to 1), beside that of answering with the mean training image:

# %%
mean_image = slices.where(split="train").images.mean(0)
lost = {name: np.abs(part.images - unseen.images).mean() for name, part in back.items()}
lost["mean image"] = np.abs(mean_image - unseen.images).mean()
pd.Series(lost, name="mean absolute error").round(4).to_frame()

# %% [markdown]
# What diffusion sees instead of images: channels of the KL latents, and, one number per place, the VQ tokens.

# %%
with torch.no_grad():
    latents, tokens = stages["KL"].encode(images).cpu().numpy(), stages["VQ"].tokens(images).cpu().numpy()
channels = [{f"KL channel {c}": z for c, z in enumerate(latent, 1)} for latent in latents]
tiles = {f"slice {i}": {"image": unseen.images[i, 0], **channels[i], "VQ tokens": tokens[i]} for i in (0, 4, 9)}
figures.publish_images(study, "04_latents", tiles);

# %% [markdown]
# ## The heart, in tokens
#
# **MaskGIT** (Chang et al. 2022) has no noise. Of the VQ tokens $y$ of an image a random set $M$ is hidden, and a
# transformer guesses them from the rest:
#
# $$ \mathcal L = -\,\mathbb E \sum_{i \in M} \log p_\theta(y_i \mid y_{\setminus M}), \qquad
#    |M| = \lceil \gamma(r)\, N \rceil, \quad \gamma(r) = \cos\tfrac{\pi r}{2}, \quad r \sim \mathcal U(0, 1). $$
#
# To sample, hide everything, guess all, keep the tokens it is surest of (and some by chance), and repeat with fewer
# hidden.

# %%
generators["U9 MaskGIT"] = protocol.train_or_load(study, systems["U9 MaskGIT"], slices)
banks["U9 MaskGIT"] = protocol.sample_bank(study, systems["U9 MaskGIT"], generators["U9 MaskGIT"], conditions)
maskgit, size = generators["U9 MaskGIT"], slices.size
known = torch.ones(len(images), size, size, dtype=torch.bool, device=images.device)
known[:, size // 4:3 * size // 4, size // 4:size // 2] = False  # a box over the left half of the middle
filled = {"real": unseen, "hidden": pictures(images.masked_fill(~known[:, None], -1.0), unseen, "real")}
for name in ("once", "again"):
    start = torch.randn(len(images), *maskgit.noise_shape(size), generator=rng).to(images.device)
    filled[name] = pictures(maskgit.inpaint(images, known, start), unseen, "real")
figures.publish_slices(study, "04_inpainting", filled, outline=False);

# %% [markdown]
# **Reading.** What the review calls robust to masking: hidden regions of unseen patients are made up to fit what is
# seen, differently each time. A seam along the box is what the autoencoder loses.
#
# ## All five

# %%
columns = np.linspace(0, len(conditions) - 1, 10).astype(int)
samples = {"real": conditions.take(columns), **{name: bank.take(columns) for name, bank in banks.items()}}
figures.publish_slices(study, "04_samples", samples, outline=False);

# %%
logs = {name: pd.read_csv(protocol.training_folder(study, s) / "log.csv") for name, s in systems.items()}
losses = pd.concat([log.assign(system=name) for name, log in logs.items()])

def draw_losses(numbers):
    figure, axes = plt.subplots(1, 5, figsize=(15, 2.8))
    for axis, (name, part) in zip(axes, numbers.groupby("system", sort=False)):
        axis.plot(part["images"], part["loss_model"], alpha=0.5)
        seen = part.dropna(subset="validation_loss")
        axis.plot(seen["images"], seen["validation_loss"], "o-", ms=4)
        axis.set(title=name, xlabel="images seen", ylim=(None, part["loss_model"].quantile(0.95)))
    axes[0].set_ylabel("loss (dots: unseen patients)")
    return figure

losses = losses[["system", "step", "images", "loss_model", "validation_loss"]]
figures.publish(study, "04_training", losses, draw_losses);

# %% [markdown]
# Losses of different systems are in different units: read shapes, not heights. Dots that rise while the line falls
# are overfitting.
#
# ### Quality against compute
#
# The same judgement for all, against seconds of training; those of an autoencoder count in full for each system that
# stands on it.

# %%
rows += [row for name in systems for row in curves.over_compute(study, params, systems[name], slices)]

def draw_compute(numbers):
    grid = sns.relplot(numbers, x="seconds", y="value", hue="system", col="metric", kind="line", marker="o",
                       height=3.2, aspect=1.4, facet_kws={"sharey": False})
    for metric, axis in grid.axes_dict.items():
        axis.axhline(numbers.loc[numbers["metric"] == metric, "floor"].mean(), ls="--", color="gray")
    grid.set(xlabel="seconds of training, first stage included")
    grid.axes_dict["kid_study"].set_yscale("symlog", linthresh=0.1)
    grid.axes_dict["kid_study"].set_ylim(-0.1, 2 * numbers.loc[numbers["metric"] == "kid_study", "value"].max())
    return grid.figure

compute = pd.DataFrame(rows).query("curve == 'images'")
figures.publish(study, "04_compute", compute, draw_compute);

# %% [markdown]
# ### Fewer patients
#
# U6 again, for as many steps on fewer patients. A model that learns its patients by heart has a low distance *and* a
# share near 1.

# %%
rows += curves.over_patients(study, params, systems["U6 DDPM"], slices)
table = curves.write(study, "04_diffusion", rows)
figures.publish(study, "04_patients", table[table["curve"] == "patients"], curves.draw);

# %% [markdown]
# ### What it costs

# %%
scores = [row for name, generator in generators.items()
          for row in protocol.cost_rows(study, systems[name], generator, conditions)]
costs = results.write_scores(study, "04_diffusion", scores, seeds=1)
costs.pivot(index="metric", columns="system", values="value").round(4)

# %% [markdown]
# **Reading.** Compare systems at equal seconds, not at equal steps: a latent system trains and samples faster per
# image and has paid for its autoencoder first. A distance to real images that stays up while a latent system's own
# loss is low points at its autoencoder: look at the reconstructions.
#
# ## Check

# %%
best = toy.query("sampler == 'dpm-solver' and steps == 32").iloc[0]
assert best["off by"] < 0.5 and best["rarest"] > 0.04, "the toy has not been solved"
middle = error[(error["predicts"] == "v") & error["level n"].between(300, 900)]
assert middle["error"].max() < 0.3, "the learnt score is not the true one"
seen = losses[losses["system"] == "U6 DDPM"]["validation_loss"].dropna()
assert seen.iloc[-1] < seen.iloc[0], "nothing was learnt that holds for unseen patients"
other = unseen.images[::-1]
for name, part in back.items():
    assert lost[name] < np.abs(part.images - other).mean(), f"the {name} autoencoder gives back somebody else"
once, again, truth = (part.images[:, 0] for part in (filled["once"], filled["again"], unseen))
kept = known.cpu().numpy()
assert np.allclose(once[kept], truth[kept]), "inpainting changed what was known"
assert np.abs(once - again)[~kept].mean() > 0, "two fillings are one"

# %% [markdown]
# ## Exercise
#
# DDIM is deterministic: the same noise gives the same heart. Walk from one noise to another along the arc
# $\cos\theta\, z_1 + \sin\theta\, z_2$. Why an arc and not the straight line between them? (What is the variance of
# the mean of two independent standard normals?)

# %% tags=["solution"]
ends = torch.randn(2, 1, size, size, generator=rng).to(ddpm.device)
theta = torch.linspace(0, torch.pi / 2, 10, device=ddpm.device).view(-1, 1, 1, 1)
with torch.no_grad():
    walk = ddpm.sample(theta.cos() * ends[:1] + theta.sin() * ends[1:], {}, sampler="ddim", steps=max(few.ddim))
figures.slice_grid({"walk": pictures(walk, banks["U6 DDPM"].take([0] * 10), "U6 DDPM")});
# Half-way along the straight line the variance is ½: not noise that the network has ever seen. On the arc it stays 1.

# %% [markdown]
# ## Limits
#
# - One seed of training: intervals speak of patients, not of trainings.
# - A hundred seconds of training on one core are no verdict on latent diffusion, which was made for images a hundred times
#   larger: at 64² there is little to compress.
# - The number of steps of each first stage and prior was set for equal seconds in total, not tuned system by system
#   for quality.
# - The autoencoders have no adversarial or perceptual loss, whose pretrained networks know photographs, not hearts.
