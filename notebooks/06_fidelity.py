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
# # 06 · Fidelity, anatomy and near copies: every system under one protocol
#
# **Question.** How far are the samples of each system from real images, do they show the anatomy they were asked for, and are
# they new?
#
# **What the review says.** 79 % of published studies report fidelity, mostly a Fréchet distance without interval, sample size or a
# value for real against real; not one row of its comparison has a measured privacy value. A low Fréchet distance alone can hide mode
# collapse or memorisation (claim F6).
#
# ## Method
#
# **Fréchet distance** between Gaussians fitted to features of both sets, $\|\mu_1-\mu_2\|^2 + \mathrm{tr}\,(\Sigma_1+\Sigma_2-2(\Sigma_1^{1/2}
# \Sigma_2\Sigma_1^{1/2})^{1/2})$. It is biased by about $D^2/N$: at a few hundred slices even *real against real* is far from zero.
# So every value stands beside its **floor**: real patients against other real patients, at the same numbers of slices. **KID**, the
# squared maximum mean discrepancy with a cubic kernel, has no such bias.
#
# **Two feature spaces**: the study's own frozen network, trained on real training patients, and a training-free one (Gabor energies on
# a grid). A ranking that holds in only one of them is not a ranking.
#
# **Adherence**: Dice and HD95 of what a frozen segmenter sees with the mask that was asked for, per patient. Ceiling: the same
# segmenter on real images. Floor: real images with somebody else's mask.
#
# **Near copies**: is a sample nearer to patients the generator learnt from than to patients nobody learnt from? Without memory the
# share is ½; for copies it is 1.
#
# Intervals are 95 % bootstrap **over patients**.

# %% tags=["parameters"]
profile = None  # None: as params.yaml says
dataset = None

# %%
import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from cmri_lib import figures, protocol, results
from cmri_lib.generators.systems import SYSTEMS
from cmri_lib.measures.anatomy import adherence
from cmri_lib.measures.fidelity import copied_training, fidelity, fidelity_floor
from cmri_lib.privacy.neighbours import Pixels, audit_neighbours

study, params = protocol.open_study(profile, dataset)
figures.use_style()

# %%
slices = protocol.load_slices(study)
test, training, holdout = (slices.where(split=s) for s in ("test", "train", "holdout"))
banks = {name: protocol.load_bank(study, s) for name, s in SYSTEMS.items()}
{name: len(bank) for name, bank in banks.items()}

# %% [markdown]
# Every bank was drawn under the masks of test patients, by its own notebook. Side by side:

# %%
columns = np.linspace(0, min(map(len, banks.values())) - 1, 9).astype(int)
real = protocol.sampling_conditions(slices, params.samples, study.seed)
figures.publish_slices(study, "06_samples", {"real": real.take(columns), **{n: b.take(columns) for n, b in banks.items()}});

# %% [markdown]
# ## Fidelity
#
# Samples follow masks of test patients, so they are compared with real images of **other** patients (validation and hold-out). The
# floor is then the honest one: the real images of those same test patients in place of the synthetic ones.

# %%
spaces, segmenter = protocol.feature_spaces(study, slices), protocol.segmenter(study, slices)
options = {"seed": study.seed, "resamples": params.fidelity.resamples}
others = slices.where(split=["validation", "holdout"])

def rows_of(name, bank):
    """All fidelity rows of one bank."""
    found = [row for space in spaces for row in
             fidelity(others, bank, space, reference_real=test, training=training, repeats=params.fidelity.repeats, **options)]
    return [{"system": name, "family": SYSTEMS[name].family, "conditioning": SYSTEMS[name].conditioning, **r} for r in found]

scores = [row for name, bank in banks.items() for row in rows_of(name, bank)]
pd.DataFrame(scores).pivot(index="system", columns="metric", values="value").round(3)

# %% [markdown]
# ## Anatomy
#
# An unconditional sample was not asked for any anatomy; adherence is measured where a mask was given.

# %%
followed = {name: bank for name, bank in banks.items() if bank.masks.any()}
for name, bank in followed.items():
    found = adherence(test, bank, segmenter, **options)
    scores += [{"system": name, "family": SYSTEMS[name].family, "conditioning": SYSTEMS[name].conditioning, **r} for r in found]
pd.DataFrame(scores).query("axis == 'anatomy'").set_index(["system", "metric"])[["value", "low", "high", "floor", "ceiling"]].round(3)

# %% [markdown]
# ## Near copies

# %%
audits = {}
for name, bank in banks.items():
    for space in (spaces[0], Pixels()):
        audits[name, space.name] = audit_neighbours(test, bank, training, holdout, space, **options)
        scores += [{"system": name, "family": SYSTEMS[name].family, "conditioning": SYSTEMS[name].conditioning, **r}
                   for r in audits[name, space.name].rows]
pd.DataFrame(scores).query("axis == 'privacy'").set_index(["system", "metric"])[["value", "low", "high", "floor"]].round(3)

# %% [markdown]
# The most suspicious sample of each system beside the training slice it is nearest to. A number alone does not tell a copy from a
# likeness; eyes do.

# %%
pairs = {}
for name, bank in banks.items():
    suspects = audits[name, "pixel"].suspects.head(6)
    if len(suspects):
        pairs[f"{name}\nsample"] = bank.take(suspects["sample"].to_numpy())
        pairs[f"{name}\nnearest in training"] = training.take(suspects["train_index"].to_numpy())
figures.publish_slices(study, "06_nearest", pairs or {"no suspects: samples": banks["U10 OT-FM"].take(range(6))}, outline=False);

# %% [markdown]
# ## The table and its figure

# %%
def real_rows(space):
    """Real against real, and what copied training images would score."""
    copied = copied_training(others, training, params.samples, space, seed=study.seed)
    floor = fidelity_floor(others, params.samples, space, reference_real=test, seed=study.seed, repeats=params.fidelity.repeats)
    return [{"system": "real", "family": "real", "conditioning": "none",
             **score.against(score.value, copied[metric]).row(f"{metric}_{space.name}", "fidelity", "lower")}
            for metric, score in floor.items()]

floors = [row for space in spaces for row in real_rows(space)]
table = results.write_scores(study, "06_fidelity", [*floors, *scores], seeds=1)
figures.publish(study, "06_fidelity", table[table["axis"] == "fidelity"], figures.score_plot)
figures.publish(study, "06_anatomy", table[table["axis"] == "anatomy"], figures.score_plot)
figures.publish(study, "06_near_copies", table[table["axis"] == "privacy"], figures.score_plot)
metrics = {f"{row.system} {row.metric}": round(row.value, 5) for row in table.itertuples()}
(study.results / "metrics.json").write_text(json.dumps(metrics, indent=1, sort_keys=True) + "\n", encoding="utf-8")

# %% [markdown]
# ## Two claims that can be tested here
#
# **P3, apical and basal slices are harder.** Dice of the mask-conditioned samples on mid-ventricular slices minus that on the others, per
# patient; and because such slices are also harder to *segment*, the same gap on real images is subtracted.
#
# **F6, a low distance can hide memorisation.** Training images handed out as samples: how far above the floor is their KID?

# %%
from cmri_lib.measures.anatomy import agreement
from cmri_lib.measures.intervals import mean_score

def level_gap(some):
    """Per patient: Dice at mid-ventricle minus mean Dice at apex and base."""
    seen, kept = segmenter(some.images), {}
    for level in ("mid", "apical", "basal"):
        at = np.flatnonzero(some.table["level"] == level)
        volumes = agreement(seen[at], some.masks[at], some.table.iloc[at].reset_index(drop=True))
        kept[level] = volumes.groupby("patient")["dice_mean"].mean()
    return kept["mid"] - (kept["apical"] + kept["basal"]) / 2

gaps = pd.DataFrame({"samples": level_gap(followed["U10 OT-FM + mask"]), "real": level_gap(test)}).dropna()
excess = mean_score((gaps["samples"] - gaps["real"]).to_numpy(), gaps.index.to_numpy(), **options)
gaps.mean().round(3).to_dict(), excess

# %%
copies = training.take(np.arange(min(len(training), params.samples))).with_columns(source="copies")
copied = [r for r in fidelity(others, copies, spaces[0], reference_real=test, repeats=params.fidelity.repeats, **options)
          if r["metric"] == "kid_study"][0]
audited = {r["metric"]: r for r in audit_neighbours(test, copies, training, holdout, spaces[0], **options).rows}["nearest_share_study"]
hidden = copied["low"] <= copied["floor"] and audited["low"] > 0.9
claims = [
    {"claim": "P3", "test": "Dice gap mid − (apical, basal), samples − real", "effect": excess.value, "low": excess.low,
     "high": excess.high, "unit": "Dice", "verdict": "supported" if excess.low > 0 else "not supported" if excess.high < 0 else "undecided"},
    {"claim": "F6", "test": "KID of copied training images − floor; share nearest to training "
     f"{audited['value']:.2f}", "effect": copied["value"] - copied["floor"], "low": copied["low"] - copied["floor"],
     "high": copied["high"] - copied["floor"], "unit": "KID", "verdict": "supported" if hidden else "not supported"}]
results.write_claims(study, "06_fidelity", claims)

# %% [markdown]
# **Reading.** Dashed: the floor. A system whose interval reaches it cannot be told from other real patients by that measure. Dotted: what
# handing out training images would score. That line lies *near the floor*, and that is claim F6 in one stroke: a machine that copies has a
# perfect Fréchet distance. Only the third figure tells it from an honest one.
#
# A Fréchet distance can also lie *below* its floor. That is no miracle: the real slices of the floor come from a few dozen patients, a
# dozen or more slices each, while every sample is a draw of its own. Clustered data look further apart than they are. KID leaves out
# pairs within a patient and has no such bias, so between a system and real data it is KID that decides.
#
# ## Check
#
# The same rulers on sets whose answer is known: training images handed out as "synthetic" must be caught by the audit while
# their distance is excellent, and noisy images must be far.

# %%
assert audited["low"] > 0.9, "the audit does not find exact copies"
rng = np.random.default_rng(study.seed)
broken = type(test)(np.clip(test.images + rng.normal(0, 0.5, test.images.shape), -1, 1).astype(np.float32), test.masks, test.table)
for row in fidelity(others, broken, spaces[0], reference_real=test, repeats=params.fidelity.repeats, **options):
    assert row["low"] > row["floor"], f"{row['metric']} does not see heavy noise"

# %% [markdown]
# ## Exercise
#
# Halve the number of synthetic slices. Which of the two distances changes by more than its interval, and in which direction?

# %% tags=["solution"]
name, bank = next(iter(banks.items()))
half = fidelity(others, bank.take(np.arange(0, len(bank), 2)), spaces[0], reference_real=test, repeats=params.fidelity.repeats, **options)
pd.DataFrame(half).set_index("metric")[["value", "low", "high", "floor"]].round(3)
# The Fréchet distance rises, and its floor with it: the bias grows as 1/N. KID stays where it was.

# %% [markdown]
# ## Limits
#
# - Distances live in feature spaces. The study's own knows what its training tasks needed; the Gabor energies know texture, not anatomy.
# - Adherence contains the segmenter's errors on real images: read it against its ceiling.
# - The audit looks for near copies. Membership of a patient can leak without any.
