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
# **Question.** Can a network learn to make hearts from a critic's opinion alone, and what keeps that game from failing when there are
# only a thousand images?
#
# **What the review says.** Diffusion beats GANs in unconditional fidelity (claim F1), GANs add high-frequency artefacts (F5), a low
# Fréchet distance can hide mode collapse (F6), and one evaluation per image makes them fast (E1). Systems: **U2** DCGAN, **U3** WGAN-GP,
# **U4** progressive GAN, **U5** StyleGAN2 with adaptive augmentation.
#
# ## Method
#
# A generator $G$ turns noise $z$ into an image; a critic $D$ gives every image a number, high for what looks real. They learn in turns
# (Goodfellow et al. 2014), here in the form that does not saturate where the critic wins:
#
# $$ \mathcal L_D = -\mathbb E \log \sigma(D(x)) - \mathbb E \log\bigl(1 - \sigma(D(G(z)))\bigr), \qquad \mathcal L_G = -\mathbb E \log \sigma(D(G(z))) . $$
#
# The critic of a **Wasserstein** GAN reports a distance instead of an opinion, provided that its slope is bounded; the gradient penalty
# (Gulrajani et al. 2017, eq. 3) asks for slope one on lines between real images and fakes:
#
# $$ \mathcal L_D = \mathbb E\, D(G(z)) - \mathbb E\, D(x) + \lambda\, \mathbb E \bigl(\|\nabla D(\hat x)\| - 1\bigr)^2, \qquad \mathcal L_G = -\mathbb E\, D(G(z)) . $$
#
# **R1** (Mescheder et al. 2018, eq. 9) instead flattens the critic where the real images are, so that it comes to rest when the
# generator is right: $\tfrac{\gamma}{2}\, \mathbb E \|\nabla D(x)\|^2$. A critic that has learnt its thousand images by heart has
# nothing left to teach; penalties and augmentation put that off.
#
# | system | loss | what makes it that system |
# |---|---|---|
# | U2 | non-saturating, R1 | strided convolutions, batch norm in the generator (Radford et al. 2016) |
# | U3 | Wasserstein, gradient penalty | residual networks; one critic step per generator step, for a short training (Gulrajani et al. 2017 take five) |
# | U4 | non-saturating, lazy R1 | both networks grow from 8² to full size while they learn (Karras et al. 2018) |
# | U5 | non-saturating, lazy R1 | a mapped style modulates every layer; what the critic sees is augmented as often as it overfits (Karras et al. 2020) |

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

from cmri_lib.experiments import learning_curves as curves, protocol
from cmri_lib.experiments.parallel import train_all
from cmri_lib.generators.gan import GAN, GANSettings
from cmri_lib.networks.conditioning.base import Conditioning
from cmri_lib.reporting import figures, results
from cmri_lib.systems.unconditional import system
from cmri_lib.training.checkpoint import load_weights
from cmri_lib.training.loop import TrainSettings, snapshot_file, train

study, params = protocol.open_study(profile, dataset)
figures.use_style()

# %% [markdown]
# ## A toy with a known answer
#
# Eight narrow Gaussians on a circle, in the plane, and two small perceptrons. A generator that has collapsed makes only some of the
# eight. The same network plays four games: without a penalty and with little momentum, without a penalty and with the momentum that
# is usual elsewhere, with R1, and by Wasserstein's rules.

# %%
class Perceptron(nn.Module):
    """Point or noise → point (`outputs` 2) or logit (1)."""

    def __init__(self, outputs, width=128):
        super().__init__()
        act, hidden = nn.LeakyReLU(0.2), lambda: nn.Linear(width, width)
        self.layers = nn.Sequential(nn.Linear(2, width), act, hidden(), act, hidden(), act, nn.Linear(width, outputs))

    def forward(self, x, batch):
        return self.layers(x).squeeze(1)

angle = torch.arange(8) * torch.pi / 4
centres = 3 * torch.stack([angle.cos(), angle.sin()], dim=1)
rng = torch.Generator().manual_seed(study.seed)
points = centres[torch.randint(8, (2000,), generator=rng)] + 0.2 * torch.randn(2000, 2, generator=rng)

# %%
games = {"no penalty": (GANSettings(latent=2), 0.0), "no penalty, momentum 0.9": (GANSettings(latent=2), 0.9),
         "R1": (GANSettings(latent=2, r1=0.1), 0.0),
         "WGAN-GP": (GANSettings("wasserstein", latent=2, gradient_penalty=0.1), 0.0)}
settings = {"steps": 1500, "batch": 128, "learning_rate": 2e-3, "beta2": 0.9, "grad_clip": 0.0, "ema": 0.99, "snapshots": 5}
noise, ends, toys = torch.randn(2000, 2, generator=rng), {}, []
for label, (objective, momentum) in games.items():
    torch.manual_seed(study.seed)
    gan, training = GAN(Perceptron(2), Perceptron(1), Conditioning(), objective), TrainSettings(beta1=momentum, **settings)
    folder = study.work("gan") / f"toy-{label.replace(' ', '-')}"
    train(gan, {"image": points}, training, folder)
    for step in (*training.snapshot_steps(), training.steps):
        load_weights(gan, folder / "weights.safetensors" if step == training.steps else snapshot_file(folder, step))
        ends[label] = gan.sample(noise.to(gan.device), {}).cpu()
        toys.append({"game": label, "step": step, "points": ends[label]})

# %%
def wander(points):
    """Share of samples within three standard deviations of a centre, and how many centres have a fair part of them."""
    distance, nearest = torch.cdist(points, centres).min(dim=1)
    share = torch.bincount(nearest[distance < 0.6], minlength=8) / len(points)
    return {"on a mode": share.sum().item(), "modes found": int((share > 0.25 / 8).sum())}

toy = pd.DataFrame([{"game": t["game"], "step": t["step"], **wander(t["points"])} for t in toys])

def draw_toy(numbers):
    figure, axes = plt.subplots(1, 2, figsize=(9, 3))
    for axis, column in zip(axes, ("on a mode", "modes found")):
        sns.lineplot(numbers, x="step", y=column, hue="game", marker="o", legend=axis is axes[1], ax=axis)
    axes[0].set(ylim=(0, 1), ylabel="share of samples on a mode")
    axes[1].legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
    return figure

figures.publish(study, "03_toy", toy, draw_toy);

# %%
clouds = pd.concat([pd.DataFrame(end[:500].numpy(), columns=["x", "y"]).assign(game=game)
                    for game, end in {"truth": points, **ends}.items()])

def draw_clouds(numbers):
    figure, axes = plt.subplots(1, 5, figsize=(11, 2.5), sharex=True, sharey=True)
    for axis, (game, part) in zip(axes, numbers.groupby("game", sort=False)):
        axis.scatter(part["x"], part["y"], s=3)
        axis.set(title=game, xlim=(-4.5, 4.5), ylim=(-4.5, 4.5), aspect="equal")
        axis.title.set_fontsize("small")
    return figure

figures.publish(study, "03_clouds", clouds, draw_clouds);

# %% [markdown]
# **Reading.** A mode counts as found when it has a quarter of its due. Momentum makes two players who answer each other overshoot,
# which is why the systems below learn with less of it than other networks. Penalties cost the critic some sharpness and buy rest.
#
# ## The heart
#
# Four systems see images of the same patients for about the same time. If these trainings have been done before, the next cell
# loads them.

# %%
slices = protocol.load_slices(study)
systems = {name: system(name) for name in ("U2 DCGAN", "U3 WGAN-GP", "U4 progressive GAN", "U5 StyleGAN2-ADA")}
train_all(study, [*((s, slices, None) for s in systems.values()),
                  *((systems["U5 StyleGAN2-ADA"], slices, n) for n in params.curves.patients)])  # these for a curve below
gans = {name: protocol.trained(study, s, slices) for name, s in systems.items()}

# %%
logs = {name: pd.read_csv(protocol.training_folder(study, s) / "log.csv") for name, s in systems.items()}
losses = pd.concat([log.assign(system=name) for name, log in logs.items()])

def draw_losses(numbers):
    figure, axes = plt.subplots(1, 4, figsize=(12, 2.6))
    for axis, (name, part) in zip(axes, numbers.groupby("system", sort=False)):
        for player in ("critic", "generator"):
            axis.plot(part["images"], part[f"loss_{player}"], label=player, lw=1)
        axis.set(title=name, xlabel="images seen", ylim=tuple(part[["loss_critic", "loss_generator"]].stack().quantile([0.02, 0.98])))
    axes[0].legend(fontsize="small")
    return figure

figures.publish(study, "03_training", losses[["system", "images", "loss_critic", "loss_generator"]], draw_losses);

# %% [markdown]
# **Reading.** These losses do not measure quality, and do not fall: each is relative to an opponent that learns as well. What they tell is
# whether the game is alive. A non-saturating critic that cannot tell anything rests at $2 \log 2 \approx 1.39$ (U2, U4, U5); one near zero has
# won and teaches nothing. A Wasserstein critic (U3) reports, with its sign turned, how far apart real and fake still are. U4's
# losses jump where its networks grow.

# %%
adaptive = gans["U5 StyleGAN2-ADA"].augment
print(f"U5 ended with each augmentation applied to {float(adaptive.p):.0%} of what its critic saw")

# %% [markdown]
# ## Samples

# %%
conditions = protocol.sampling_conditions(slices, params.samples, study.seed)
banks = {name: protocol.sample_bank(study, systems[name], gans[name], conditions) for name in gans}
shown = np.linspace(0, len(conditions) - 1, 10).astype(int)
rows = {"real": conditions.take(shown), **{name: bank.take(shown) for name, bank in banks.items()}}
figures.publish_slices(study, "03_samples", rows, outline=False);

# %% [markdown]
# **Reading.** Look for chequered or ringing texture, the transposed convolution's mark (F5; notebook 06 measures it), and for the same
# heart twice in a row.
#
# ## Between two samples
#
# A generator that has understood hearts passes from one to another through hearts; one that has learnt its images by heart jumps, and
# one that has collapsed does not move. Noise lies on a sphere, so the way goes along its surface.

# %%
def interpolate(gan, columns=10):
    """Samples on the great circle between two noises."""
    z = torch.randn(2, *gan.noise_shape(slices.size), generator=torch.Generator().manual_seed(study.seed)).to(gan.device)
    turn = torch.linspace(0, torch.pi / 2, columns, device=gan.device)[:, None]
    return gan.sample(turn.cos() * z[:1] + turn.sin() * z[1:], {}).clamp(-1, 1).cpu().numpy()

ways = {name: interpolate(gan) for name, gan in gans.items()}
frame = {name: bank.take(range(10)) for name, bank in banks.items()}
figures.publish_slices(study, "03_interpolation", {name: type(f)(ways[name], f.masks, f.table) for name, f in frame.items()}, outline=False);

# %% [markdown]
# ## Collapsed?
#
# For every image, the root-mean-square difference to the most similar one of *another* patient in the same set; for samples, to the most
# similar other sample. A collapsed generator repeats itself: its distances are far below those of real patients.

# %%
def nearest_other(some):
    """(N,) RMS difference to the nearest image of another patient."""
    flat = torch.from_numpy(some.images).flatten(1)
    distance = torch.cdist(flat, flat) / flat.shape[1] ** 0.5
    same = some.patients[:, None] == some.patients[None, :]
    return distance.masked_fill(torch.from_numpy(same), torch.inf).min(dim=1).values.numpy()

near = pd.concat([pd.DataFrame({"set": name, "distance": nearest_other(some)})
                  for name, some in {"real": slices.where(split="test"), **banks}.items()])

def draw_near(numbers):
    figure, axis = plt.subplots(figsize=(6.5, 2.6))
    sns.boxplot(numbers, x="distance", y="set", hue="set", width=0.6, fliersize=2, ax=axis)
    axis.set(xlabel="RMS difference to the nearest of another patient", ylabel="", xlim=(0, None))
    return figure

figures.publish(study, "03_collapse", near, draw_near);

# %% [markdown]
# **Reading.** Noise makes images differ as well, so a set may lie to the right of the real one without being more varied: this figure can
# convict of collapse, not acquit of it. Recall and coverage in notebook 06 are the fairer measure.
#
# ## More training, fewer patients
#
# Quality on the way through the training, for all four; and for U5, trained anew with fewer patients. Left: KID to real images of other
# patients in the study's features (0: the same distribution). Right: the share of samples that lie nearer to training patients than
# to unseen ones (½: no memory).

# %%
rows = [row for s in systems.values() for row in curves.over_compute(study, params, s, slices)]
rows += curves.over_patients(study, params, systems["U5 StyleGAN2-ADA"], slices)
table = curves.write(study, "03_gan", rows)
figures.publish(study, "03_curves", table, curves.draw);

# %% [markdown]
# ## What it costs

# %%
scores = [row for name, gan in gans.items() for row in protocol.cost_rows(study, systems[name], gan, conditions)]
costs = results.write_scores(study, "03_gan", scores, seeds=1)
costs.pivot(index="metric", columns="system", values="value").round(4)

# %% [markdown]
# **Reading.** A GAN pays once: training has two networks and a penalty that differentiates twice, but an image takes a single evaluation.
#
# ## Check

# %%
final = toy[toy["step"] == settings["steps"]].set_index("game")
assert final.loc["R1", "modes found"] == 8 and final.loc["WGAN-GP", "modes found"] == 8, "the toy has not been solved"
assert final.loc["no penalty, momentum 0.9", "on a mode"] < final.loc["R1", "on a mode"], "momentum does no harm after all"
for name, bank in banks.items():
    assert bank.images.std(axis=0).mean() > 0.02, f"{name} makes one image only"
    assert np.abs(ways[name][0] - ways[name][-1]).mean() > 0.01, f"{name} does not answer its noise"
assert all(gan.nfe == 1 for gan in gans.values()) and 0 <= float(adaptive.p) <= 0.8

# %% [markdown]
# ## Exercise
#
# The noise of training is standard normal. Draw U5 with noise of half that size, and of twice. What is gained, what is lost?

# %% tags=["solution"]
for scale in (0.5, 1.0, 2.0):
    gan, z = gans["U5 StyleGAN2-ADA"], torch.randn(64, *gans["U5 StyleGAN2-ADA"].noise_shape(slices.size), generator=rng)
    drawn = gan.sample(scale * z.to(gan.device), {})
    print(f"noise × {scale}: spread between samples {drawn.std(dim=0).mean().item():.3f}")
# StyleGAN normalises its noise first, so the spread hardly changes: it truncates in the space of styles instead. For U2 to U4,
# which do not all normalise, less noise is less variety.

# %% [markdown]
# ## Limits
#
# - One seed of training; adversarial training varies more between seeds than the other families do. Intervals speak of patients.
# - Networks of about a million weights and minutes of training: published StyleGANs see ten thousand times as many images.
# - Equal time favours cheap critics; equal quality is compared in notebook 06.
