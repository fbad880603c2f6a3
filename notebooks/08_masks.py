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
# # 08 · Where masks come from
#
# **Question.** A mask-to-image system needs masks. Can they be synthesised too: valid, diverse, nobody's copy, and as ill as one wants?
#
# **What the review says.** Three systems make masks before they make images. **C4** (Amirrajab et al. 2023) moves a healthy heart towards a
# disease in the latent space of a VAE of label maps. **C5** (Gheorghiță et al. 2022) draws real label maps so that the ejection fraction
# (EF) is uniform. **C10** (Li, Ma & Shi 2025) draws label maps by diffusion, *screens* them, and has a SPADE latent diffusion make the images.
#
# ## Method
#
# A label map with $K$ labels is an image of $K$ planes, $x_k = 2\,[\text{label} = k] - 1$; the largest plane names the label. Any generator of
# images can draw it. The diffusion of C10 draws it at half the side, where a pixel holds the share of each label in its square.
#
# **Moving** (C4). With $\mu(m)$ the mean of the code of mask $m$, the step from disease $a$ to $b$ in phase $p$ is
# $\Delta_p = \frac1L \sum_{\ell} \bigl(\overline{\mu}_{b,\ell,p} - \overline{\mu}_{a,\ell,p}\bigr)$, a mean over the levels $\ell$ of the heart; a mask of
# **severity** $s$ is the decoded $\mu(m) + s\,\Delta_p$.
#
# **Uniform EF** (C5). One EF is drawn in each of $n$ equal parts of a range (`params.yaml`, `masks.ejection`), and the scan nearest to it is taken.
#
# **Screening** (C10). A label map that breaks a rule of topology (one cavity, a closed wall, …) or has a size that no training mask has
# is drawn again, up to five times; what never passes is left out. If fewer than ten pass, the masks stay unscreened ("0 draws each").
#
# **What is measured on masks.** The share of valid ones; the 1-Wasserstein distance of their proportions to those of real masks; the Dice of random
# pairs (diversity); and the Dice with the *nearest training mask*, because masks can leak too. Floor: real test patients against other real
# patients; ceiling: training masks handed out. Intervals are 95 % bootstrap over patients; every synthetic mask is a patient of its own.

# %% tags=["parameters"]
profile = None  # None: as params.yaml says
dataset = None

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from scipy.stats import wasserstein_distance

# %%
from cmri_lib.cohort.cardiac_function import with_phenotypes
from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.experiments import protocol
from cmri_lib.experiments.mask_screening import draw_hearts
from cmri_lib.experiments.parallel import train_all
from cmri_lib.generators.label_maps import draw_masks, masks_only
from cmri_lib.generators.mask_moves import disease_direction, moved, uniform_ef
from cmri_lib.measures.statistics.bootstrap import bootstrap, mean_score, paired_difference
from cmri_lib.measures.statistics.comparison import ceilings, compare, floors
from cmri_lib.reporting import figures, results
from cmri_lib.systems.conditional import ON_MASKS
from cmri_lib.systems.label_maps import MASK_SYSTEMS

study, params = protocol.open_study(profile, dataset)
figures.use_style()

# %% [markdown]
# ## Masks, before and after screening
#
# The label diffusion (C10) is told level and phase, the label VAE (C4) nothing. A mask of unknown level is judged by the most lenient
# rule, that of the base, where the wall may open: the two shares of valid masks are not on one scale.

# %%
from cmri_lib.measures.anatomy.validity import Ranges, validity, validity_of_masks

slices = protocol.load_slices(study)
test, training = (slices.where(split=s) for s in ("test", "train"))
others, ranges = slices.where(split=["validation", "holdout"]), Ranges.of(training)
conditions = protocol.sampling_conditions(slices, params.conditional.bank, study.seed)
VAE, DIFFUSION = "C4 label VAE", "C10 label diffusion"
train_all(study, [(s, slices, None) for s in MASK_SYSTEMS.values()])
drawing = {name: protocol.trained(study, s, slices) for name, s in MASK_SYSTEMS.items()}
raw = {name: draw_masks(g, conditions, name, study.seed) for name, g in drawing.items()}
hearts = {name: draw_hearts(g, conditions, name, ranges, study.seed, first=raw[name], fewest=10) for name, g in drawing.items()}
{name: f"{len(some)} of {len(raw[name])}, {some.table['draws'].mean():.2f} draws each" for name, some in hearts.items()}

# %%
def shown(some, count=10):
    return some.take(np.linspace(0, len(some) - 1, count).astype(int))

rows = {"real": masks_only(shown(test).masks, shown(test).table)}
for name in drawing:
    bad = ~validity(raw[name].masks, raw[name].table, ranges)["valid"].to_numpy()
    rows |= {name: shown(raw[name])} | ({f"{name}\nrejected": shown(raw[name].take(bad), min(10, bad.sum()))} if bad.any() else {})
    rows[f"{name}\nscreened"] = shown(hearts[name])
figures.publish_slices(study, "08_masks", rows);

# %% [markdown]
# Which rules do the raw masks break, and how often do real ones?

# %%
broken = {name: 1 - validity(some.masks, some.table, ranges).mean() for name, some in {"real test masks": test, **raw}.items()}
pd.DataFrame(broken).round(3)

# %% [markdown]
# ## Uniform ejection fractions
#
# Nothing is trained for C5: whole scans of training patients are drawn with replacement. The distance of the EFs to the uniform distribution,
# in percentage points, says how far the cohort allows it.

# %%
LOW, HIGH = params.masks.ejection
even = uniform_ef(training, max(10, round(params.conditional.bank * training.table["scan"].nunique() / len(training))), study.seed, LOW, HIGH)
scans = {"cohort": with_phenotypes(training).with_columns(drawn_from=training.patients),
         "uniform EF": uniform_ef(training, 200, study.seed, LOW, HIGH)}
fractions = pd.concat([s.table.drop_duplicates(["patient", "scan"]).dropna(subset="lvef").assign(masks=name)[["masks", "drawn_from", "lvef"]]
                       for name, s in scans.items()])
grid, uniformity = np.linspace(LOW, HIGH, 1001), {}
for name, part in fractions.groupby("masks", sort=False):
    values = part["lvef"].to_numpy()
    uniformity[name] = bootstrap(lambda counts: wasserstein_distance(values, grid, counts), part["drawn_from"].to_numpy(), centred=True,
                                 seed=study.seed, resamples=params.fidelity.resamples)
pd.DataFrame({name: {"distance": s.value, "low": s.low, "high": s.high, "patients": s.n} for name, s in uniformity.items()}).T.round(2)

# %%
def histogram(numbers):
    figure, axis = plt.subplots(figsize=(6, 3))
    sns.histplot(numbers, x="lvef", hue="masks", stat="density", common_norm=False, bins=np.arange(0, 91, 5), ax=axis, alpha=0.5)
    axis.axhline(1 / (HIGH - LOW), ls="--", color=figures.REAL_COLOUR)
    axis.set(xlabel="LV ejection fraction (%)")
    return figure

figures.publish(study, "08_ejection", fractions[["masks", "lvef"]], histogram);

# %% [markdown]
# ## A healthy heart falls ill
#
# Hearts of healthy patients whom no network has learnt from, moved by the steps that training patients teach, one per phase. Ventricular volumes are sums of
# discs over whole moved scans; bands are 95 % intervals over the patients moved. Dashed and dotted: the mean of true patients, healthy
# and ill.

# %%
SEVERITIES, ILL = params.masks.severities, [d for d in ("DCM", "HCM") if (training.table["disease"] == d).any()]
unseen = slices.where(split=["validation", "test", "holdout"])
healthy = unseen.where(disease="NOR")
steps = {ill: disease_direction(drawing[VAE], training, "NOR", ill) for ill in ILL}

def indices(some):
    """EDV, EF and end-diastolic myocardium of every patient."""
    table = with_phenotypes(some).table
    disc = (some.masks == 2).sum((1, 2)) * table["spacing"] ** 2 * table["slice_mm"] / 1000 * (table["phase"] == "ED")
    wall = disc.groupby([table["patient"], table["scan"]]).sum().groupby("patient").mean()
    of_patient = table.groupby("patient")[["lvedv", "lvef"]].mean()
    return of_patient.assign(myo=wall).set_axis(["LV EDV (mL)", "LV EF (%)", "ED myocardium (mL)"], axis=1)

# %%
options = {"seed": study.seed, "resamples": params.fidelity.resamples}
ladder = {(ill, s): indices(moved(drawing[VAE], healthy, step, s)) for ill, step in steps.items() for s in SEVERITIES}
true = {disease: indices(unseen.where(disease=disease)).mean() for disease in ("NOR", *ILL)}

# %%
curve = [{"disease": ill, "severity": s, "index": column, "value": score.value, "low": score.low, "high": score.high, "n": score.n,
          "healthy": true["NOR"][column], "ill": true[ill][column]}
         for (ill, s), found in ladder.items() for column in found
         for score in [mean_score(found[column].to_numpy(), found.index.to_numpy(), **options)]]

# %%
def draw_curve(numbers):
    names = list(dict.fromkeys(numbers["index"]))
    figure, axes = plt.subplots(len(ILL), len(names), figsize=(9.5, 2.5 * len(ILL)), squeeze=False)
    for (ill, name), axis in zip([(r, c) for r in ILL for c in names], axes.flat):
        part = numbers[(numbers["disease"] == ill) & (numbers["index"] == name)]
        axis.plot(part["severity"], part["value"], "o-", ms=3)
        axis.fill_between(part["severity"], part["low"], part["high"], alpha=0.25)
        for column, style in (("healthy", "--"), ("ill", ":")):
            axis.axhline(part[column].iloc[0], ls=style, color=figures.REAL_COLOUR, lw=1)
        axis.set(title=f"{name}, NOR → {ill}", xlabel="severity")
    return figure

figures.publish(study, "08_curve", pd.DataFrame(curve), draw_curve);

# %% [markdown]
# At severity 0 a curve shows the VAE's reconstruction: how far it lies from the dashed line is the VAE's own fault, and no disease.
#
# The same healthy heart at growing severity, and what a SPADE GAN makes of it from one and the same noise:

# %%
paint = {name: protocol.trained(study, s, slices) for name, s in ON_MASKS.items()}
middle = healthy.where(level="mid", phase="ED").take([0])
steady = lambda mask: protocol.draw(paint["C4 SPADE cGAN"], mask, "C4 SPADE cGAN", seed=study.seed)
ladders = {}
for ill, step in steps.items():
    masks = [moved(drawing[VAE], middle, step, s) for s in SEVERITIES]
    ladders |= {f"NOR → {ill}\nmask": concatenate(masks), f"NOR → {ill}\nimage": concatenate([steady(m) for m in masks])}
figures.publish_slices(study, "08_severity", ladders, titles=[f"severity {s:g}" for s in SEVERITIES]);

# %% [markdown]
# ## Every source of masks, measured
#
# Beside what the three systems hand out: raw masks, and healthy *training* hearts moved to full severity, which is how a cohort would be enlarged.

# %%
from cmri_lib.measures.anatomy.shapes import anatomy_of_masks
from cmri_lib.privacy.mask_memory import mask_diversity, mask_memory

on_vae, on_uniform, on_diffusion = NAMES = ("C4 VAE masks + SPADE cGAN", "C5 uniform-EF masks + SPADE cGAN",
                                            "C10 label diffusion + SPADE LDM")
told = {on_vae: hearts[VAE], on_uniform: even, on_diffusion: hearts[DIFFUSION]}
sources = {"C4 drawn": raw[VAE], "C4 drawn, screened": told[on_vae],
           **{f"C4 moved to {ill}": moved(drawing[VAE], training.where(disease="NOR"), step, 1.0) for ill, step in steps.items()},
           "C5 uniform EF": even, "C10 drawn": raw[DIFFUSION], "C10 drawn, screened": told[on_diffusion]}

# %%
chance = {"seed": study.seed, "repeats": params.fidelity.repeats}

def judged(some, real, reference, measures):
    """source → rows of all measures, against the same floors and ceilings."""
    found = {name: [] for name in some}
    for m in measures:
        bound = {"floor": floors(real, len(conditions), m, reference_real=reference, **chance),
                 "ceiling": ceilings(real, training, len(conditions), m, **chance)}
        for name, made in some.items():
            found[name] += compare(real, made, m, **bound, **options)
    return found

on_masks = judged(sources, test, others, [validity_of_masks(ranges), anatomy_of_masks(), mask_diversity(), mask_memory(training)])
quality = pd.DataFrame([{"system": name, **row} for name, part in on_masks.items() for row in part])
quality.pivot(index="system", columns="metric", values="value").loc[list(sources)].round(3)

# %%
remembered = ["mask_nearest_dice", "mask_near_copies", "mask_dice_pairs"]
figures.publish(study, "08_validity", quality[~quality["metric"].isin(remembered)], figures.score_plot)
figures.publish(study, "08_memory", quality[quality["metric"].isin(remembered)], figures.score_plot);

# %% [markdown]
# **Reading.** Screening raises the share of valid masks to 1 by construction; whether it narrows the set is for the Wasserstein distances and
# the Dice of pairs to tell. C5 hands out masks of training patients: its share of near copies is that of copies, and a moved heart is
# the nearer to its patient the smaller the step. A mask without a name is no anonymous mask.
#
# ## Images
#
# C4 and C5 through a SPADE GAN, C10 through a SPADE latent diffusion. Both are told the heart's labels and nothing else.

# %%
painters = {name: ON_MASKS["C10 SPADE LDM" if name == on_diffusion else "C4 SPADE cGAN"] for name in NAMES}
images = {name: replace(painter, id=name) for name, painter in painters.items()}
made = {name: protocol.sample_bank(study, s, paint[painters[name].id], told[name]) for name, s in images.items()}
# Masks of C5 are those of patients, so its row bears no outlines.
bare = Slices(made[on_uniform].images, np.zeros_like(made[on_uniform].masks), made[on_uniform].table)
figures.publish_slices(study, "08_images", {"real": shown(test), **{n: shown(bare if n == on_uniform else b) for n, b in made.items()}});

# %%
from cmri_lib.measures import panel
from cmri_lib.measures.anatomy.adherence import adherence

spaces, segmenter = protocol.feature_spaces(study, slices), protocol.segmenter(study, slices)
scores = judged(made, others, test, panel.measures(spaces, training=training, segment=segmenter))
for name, source in zip(NAMES, ("C4 drawn, screened", "C5 uniform EF", "C10 drawn, screened")):
    scores[name] += on_masks[source] + adherence(test, made[name], segmenter, **options)
wanted = [*panel.HEADLINE, "dice_mean", "dice_LV", "dice_Myo", "dice_RV"]
board = pd.DataFrame([{"system": name, **row} for name, part in scores.items() for row in part])
board[board["metric"].isin(wanted)].set_index(["metric", "system"])[["value", "low", "high", "floor", "ceiling"]].round(3).sort_index()

# %% [markdown]
# What a system costs is what its two halves cost; a mask that is drawn again is paid for again.

# %%
def costs(name, masks=None):
    """Rows of the image generator, and where masks are drawn those of their generator added."""
    rows = protocol.cost_rows(study, painters[name], paint[painters[name].id], told[name])
    first = protocol.cost_rows(study, MASK_SYSTEMS[masks], drawing[masks], conditions) if masks else []
    draws = max(1.0, hearts[masks].table["draws"].mean()) if masks else 0.0
    for row, other in zip(rows, first):
        times = draws if row["metric"] in ("seconds_per_image", "nfe") else 1.0
        join = max if row["metric"] == "peak_memory_gib" else lambda a, b, times=times: a + times * b
        row |= {key: join(row[key], other[key]) for key in ("value", "low", "high")}
    return rows

# %%
for name, masks in zip(NAMES, (VAE, None, DIFFUSION)):
    scores[name] += costs(name, masks)
complete = [{**row, "system": n, "family": images[n].family, "conditioning": images[n].conditioning} for n, part in scores.items() for row in part]
table = results.write_scores(study, "08_masks", complete, seeds=1)
figures.publish(study, "08_scores", table[table["metric"].isin(wanted)], figures.score_plot);

# %% [markdown]
# **Reading.** The images can be no better than the system that makes them: compare with the mask-conditioned systems of notebook 07 before blaming
# the masks. Adherence is read against its ceiling, the segmenter on real images. Where it lies lower for synthetic masks than for those of
# patients, the image generator has been asked for hearts it has never seen.
#
# ## Check
#
# The curves must go the way of the disease; EFs must be more uniform than the cohort's; screening must keep valid masks only; copies must be found.

# %%
first, last = (ladder["DCM", s] for s in (min(SEVERITIES), max(SEVERITIES)))
grown, weaker = (paired_difference(last[c].to_numpy(), first[c].to_numpy(), last.index.to_numpy(), **options) for c in ("LV EDV (mL)", "LV EF (%)"))
assert grown.low > 0, "moved towards DCM, the left ventricle does not dilate"
assert weaker.high < 0, "moved towards DCM, the left ventricle does not weaken"
means = [ladder["DCM", s]["LV EDV (mL)"].mean() for s in SEVERITIES]
assert np.corrcoef(SEVERITIES, means)[0, 1] > 0.8, "more severity is not more dilatation"
assert uniformity["uniform EF"].value < uniformity["cohort"].value, "EFs are no more uniform than before"
found = quality.set_index(["system", "metric"])["value"]
screened = [n.split()[0] for n, some in hearts.items() if some.table["draws"].min() > 0]
assert all(found[f"{source} drawn, screened", "mask_valid"] == 1 for source in screened), "the screen lets faults through"
assert found["C5 uniform EF", "mask_near_copies"] > 0.95, "copies of training masks go unnoticed"
print(f"severity {max(SEVERITIES):g} adds {grown.value:.0f} mL [{grown.low:.0f}, {grown.high:.0f}] of LV EDV; true difference {true['DCM'].iloc[0] - true['NOR'].iloc[0]:.0f} mL; EF {weaker.value:.0f} %")

# %% [markdown]
# ## Exercise
#
# Move the healthy hearts *backwards*, to severity −1. What becomes of the volume, and of the share of valid masks? What disease is it?

# %% tags=["solution"]
back = moved(drawing[VAE], healthy, steps["DCM"], -1.0)
print(indices(back).mean().round(1).to_dict(), "valid:", validity(back.masks, back.table, ranges)["valid"].mean().round(2))
# The ventricle shrinks: "less than healthy" is no disease of the cohort, and the decoder extrapolates; the screen notices part of it.

# %% [markdown]
# ## Limits
#
# - Moves, draws and screens are slice by slice: neighbouring slices of a moved scan agree only because all of a phase take the same step.
# - Uniform EF repeats the cohort's extremes. It adds no patient, and its masks are training masks: fine to train on, not to publish.
# - The near-copy audit speaks of outlines of single slices. A patient may be known by a whole stack.
# - On the phantom, mask-to-image systems of notebook 07 may be told every tissue; those here are told three structures, and invent the rest.
