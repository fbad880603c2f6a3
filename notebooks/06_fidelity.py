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
# # 06 · Fidelity, diversity, anatomy and near copies: every system under one protocol
#
# **Question.** How far are the samples of each family from real images, in what respect, and which measure can be trusted to tell?
#
# **What the review says.** Diffusion beats GANs and VAEs (F1); flow matching reaches diffusion's fidelity in far fewer steps and is
# more diverse than GANs (F2), but overfits small data sets (F3); VAEs lose fine detail, GANs add high-frequency artefacts (F5); a low
# Fréchet distance alone can hide mode collapse or memorisation (F6). 79 % of published studies report fidelity, mostly a Fréchet distance
# without interval, sample size or a value for real against real.
#
# ## Method
#
# **Fréchet distance** between Gaussians fitted to features, $\|\mu_1-\mu_2\|^2 + \mathrm{tr}\,(\Sigma_1+\Sigma_2-2(\Sigma_1^{1/2}
# \Sigma_2\Sigma_1^{1/2})^{1/2})$, is biased by about $D^2/N$; **KID**, the squared maximum mean discrepancy with a cubic kernel, is not.
# **Precision, recall, density, coverage** ask whether samples look like some patient, and patients like some sample. **C2ST** is the
# accuracy of a classifier that tells samples from real slices, cross-validated by patient: the machine's counterpart of the review's
# radiologists, who were right in 60 %. **Spectrum**: distance in dB, and excess power in the top octave (below 0: blur). **MS-SSIM** of pairs
# of samples: diversity. **Shapes** of the hearts that the frozen segmenter sees: Wasserstein distance to real ones. All that needs features
# is measured in **two spaces**: the study's own network, and a training-free one (Gabor energies). A ranking that holds in only one
# of them is not a ranking.
#
# Every value stands beside its **floor**: real patients against other real patients at the same numbers of slices, and its **ceiling**:
# training images handed out as samples. Intervals are 95 % bootstrap **over patients**.

# %% tags=["parameters"]
profile = None  # None: as params.yaml says
dataset = None

# %%
import json

import numpy as np
import pandas as pd

from cmri_lib.experiments import learning_curves as curves, protocol
from cmri_lib.measures import panel
from cmri_lib.measures.anatomy.adherence import adherence
from cmri_lib.measures.statistics.comparison import ceilings, compare, differences, floors
from cmri_lib.privacy.nearest_neighbours import Pixels, audit_neighbours
from cmri_lib.reporting import claims, figures, results
from cmri_lib.systems.unconditional import SYSTEMS

study, params = protocol.open_study(profile, dataset)
figures.use_style()

# %%
slices = protocol.load_slices(study)
test, training, holdout = (slices.where(split=s) for s in ("test", "train", "holdout"))
others = slices.where(split=["validation", "holdout"])
banks = {name: protocol.load_bank(study, s) for name, s in SYSTEMS.items()}
free = [name for name, s in SYSTEMS.items() if s.conditioning == "none"]
{name: len(bank) for name, bank in banks.items()}

# %% [markdown]
# Every bank was drawn by its own notebook, from as much training compute as every other. Side by side:

# %%
columns = np.linspace(0, min(map(len, banks.values())) - 1, 9).astype(int)
real = protocol.sampling_conditions(slices, params.samples, study.seed)
figures.publish_slices(study, "06_samples", {"real": real.take(columns), **{n: b.take(columns) for n, b in banks.items()}});

# %% [markdown]
# ## The panel
#
# Samples that follow masks follow those of test patients, so all are compared with real images of **other** patients (validation and
# hold-out). The floor is then the honest one: the real images of the test patients in place of the synthetic ones.

# %%
spaces, segmenter = protocol.feature_spaces(study, slices), protocol.segmenter(study, slices)
options = {"seed": study.seed, "resamples": params.fidelity.resamples}
against = {**options, "reference_real": test, "repeats": params.fidelity.repeats}
measures = panel.measures(spaces, training=training, segment=segmenter)
chance = {"seed": study.seed, "repeats": params.fidelity.repeats}
bounds = [{"floor": floors(others, len(real), m, reference_real=test, **chance),
           "ceiling": ceilings(others, training, len(real), m, **chance)} for m in measures]

scores = [row for name, bank in banks.items() for measure, bound in zip(measures, bounds)
          for row in results.named(SYSTEMS[name], compare(others, bank, measure, **bound, **options))]
pd.DataFrame(scores).pivot(index="system", columns="metric", values="value")[list(panel.HEADLINE)].loc[list(banks)].round(3)

# %% [markdown]
# Where a mask was given: does the heart lie in it? Ceiling: the same segmenter on real images; floor: somebody else's mask.

# %%
followed = {name: bank for name, bank in banks.items() if bank.masks.any()}
for name, bank in followed.items():
    scores += results.named(SYSTEMS[name], adherence(test, bank, segmenter, **options))
asked = [m for m in pd.DataFrame(scores)["metric"].unique() if m.startswith(("dice", "hd95"))]
pd.DataFrame(scores).query("metric in @asked").set_index(["system", "metric"])[["value", "low", "high", "floor", "ceiling"]].round(3)

# %% [markdown]
# ## Near copies
#
# Is a sample nearer to patients the generator learnt from than to patients nobody learnt from? Without memory the share is ½; for
# copies it is 1.

# %%
audits = {(name, space.name): audit_neighbours(test, bank, training, holdout, space, **options)
          for name, bank in banks.items() for space in (spaces[0], Pixels())}
for (name, _), audit in audits.items():
    scores += results.named(SYSTEMS[name], audit.rows)
pd.DataFrame(scores).query("axis == 'privacy'").pivot(index="system", columns="metric", values="value").loc[list(banks)].round(3)

# %% [markdown]
# The most suspicious samples of some systems beside the training slices they are nearest to. A number alone does not tell a copy from a
# likeness; eyes do.

# %%
pairs = {}
for name in ("U1 VAE", "U5 StyleGAN2-ADA", "U6 DDPM", "U10 OT-FM", "U10 OT-FM + mask"):
    suspects = audits[name, "pixel"].suspects.head(6)
    if len(suspects):
        pairs[f"{name}\nsample"] = banks[name].take(suspects["sample"].to_numpy())
        pairs[f"{name}\nnearest in training"] = training.take(suspects["train_index"].to_numpy())
figures.publish_slices(study, "06_nearest", pairs or {"no suspects: samples": banks["U10 OT-FM"].take(range(6))}, outline=False);

# %% [markdown]
# ## The table and its figures

# %%
def real_rows(measure, bound):
    """Real against real in the place of a system, and training images handed out."""
    direction = {m.name: "lower" if m.better == "zero" else m.better for m in measure.metrics}
    return [score.against(score.value, bound["ceiling"][name]).row(name, measure.axis, direction[name])
            for name, score in bound["floor"].items()]

bottom = [{"system": "real", "family": "real", "conditioning": "none", **r} for m, b in zip(measures, bounds) for r in real_rows(m, b)]
table = results.write_scores(study, "06_fidelity", [*bottom, *scores], seeds=1)
metrics = {f"{row.system} {row.metric}": round(row.value, 5) for row in table.itertuples()}
(study.results / "metrics.json").write_text(json.dumps(metrics, indent=1, sort_keys=True) + "\n", encoding="utf-8")

# %%
def chosen(*names):
    return table[table["metric"].isin(names)]

in_both = lambda *stems: [f"{stem}_{space.name}" for space in spaces for stem in stems]
figures.publish(study, "06_fidelity", chosen(*in_both("kid", "frechet")), figures.score_plot)
figures.publish(study, "06_support", chosen(*in_both("precision", "recall", "density", "coverage")), figures.score_plot)
figures.publish(study, "06_texture", chosen("spectrum_db", "band_excess", "ms_ssim_pairs", *in_both("c2st", "inception")), figures.score_plot)
figures.publish(study, "06_anatomy", table[table["axis"] == "anatomy"], figures.score_plot)
figures.publish(study, "06_near_copies", table[table["axis"] == "privacy"], figures.score_plot);

# %% [markdown]
# **Reading.** Dashed: the floor. A system whose interval reaches it cannot be told from other real patients by that measure. Dotted: what
# handing out training images would score. That it lies near the floor is claim F6 in one stroke: a machine that copies has a perfect
# Fréchet distance; only the last figure tells it from an honest one.
#
# A Fréchet distance can also lie *below* its floor. That is no miracle: the real slices of the floor come from a few dozen patients, a
# dozen or more slices each, while every sample is a draw of its own. Clustered data look further apart than they are. KID leaves out
# pairs within a patient and has no such bias, so between a system and real data it is KID that decides.
#
# ## What does each metric see?
#
# Real slices in the place of samples, spoilt in a known way at half strength: the response of every metric, in units of its spread between
# groups of real patients. A dot: beyond what real groups show. A metric that stays white does not see the fault and cannot vouch for
# its absence.

# %%
from cmri_lib.measures.anatomy.shapes import mean_dice
from cmri_lib.measures.fidelity.corruptions import corruptions, sensitivity

unseen, space = slices.where(split=["validation", "test"]), spaces[0]
values, better = panel.plain_values(measures)
values = {k: v for k, v in values.items() if not k.startswith("anatomy") or k in panel.HEADLINE}
values |= {"dice with the mask": mean_dice(segmenter), "nearest_share_study": lambda real, made: audit_neighbours(
    real, made, training, holdout, space, resamples=1).rows[0]["value"]}
better |= {"dice with the mask": "higher", "nearest_share_study": "lower"}
answers = sensitivity(unseen, values, better, corruptions(training), sizes=(len(unseen) // 2,) * 2, seed=study.seed,
                      partitions=params.fidelity.repeats)
figures.publish(study, "06_corruptions", answers, figures.heat_map);

# %% [markdown]
# **Reading.** Go along a row: what a metric answers to. Go down a column: who notices. Distances cannot tell copies of training slices
# from new patients; masks of another heart are seen by the Dice with the mask and by nothing else. So no metric alone will do:
# a distance, recall or coverage, a spectrum, the anatomy, *and* the audit.
#
# ## Curves
#
# Quality against network evaluations, training compute and training patients, as each family's notebook has measured it.

# %%
lines = curves.read(study)
by = {kind: part for kind, part in lines.groupby("curve")}
figures.publish(study, "06_curves_evaluations", by["NFE"], curves.draw)
figures.publish(study, "06_curves_compute", by["images"], curves.draw)
figures.publish(study, "06_curves_patients", by["patients"], curves.draw);

# %% [markdown]
# **Equal quality** instead of equal compute: what it took each system to come as near to real patients as the median system did at its
# end; empty where it never did. Snapshots are coarse, a few per training, and their learning rate had not come down yet, so
# these are upper bounds.

# %%
final = table[(table["metric"] == "kid_study") & table["system"].isin(free)]
quality = claims.time_to_quality(by["images"], float(final["value"].median()))
quality.to_csv(study.results / "06_equal_quality.csv", index=False, float_format="%.5g")
quality.round(3)

# %% [markdown]
# ## The claims
#
# **F1** diffusion beats GANs and VAEs: KID of U6 minus KID of each rival, both against the same draws of real patients.

# %%
kid, spectrum = (next(m for m in measures if m.metrics[0].name == name) for name in ("frechet_study", "spectrum_db"))
support, diversity = (next(m for m in measures if m.metrics[0].name == name) for name in ("precision_study", "ms_ssim_pairs"))
rivals, ledger = [name for name in free if SYSTEMS[name].family in ("VAE", "GAN")], []
for name in rivals:
    gap = differences(others, banks["U6 DDPM"], banks[name], kid, **options)["kid_study"]
    ledger.append(claims.decide("F1", f"KID, U6 DDPM − {name}", gap, "KID", claimed="below"))
pd.DataFrame(ledger)[["test", "effect", "low", "high", "verdict"]].round(3)

# %% [markdown]
# **F2** flow matching reaches diffusion's fidelity in far fewer steps: KID of the flow with four evaluations minus KID of the diffusion with
# all of its own. The bound is fixed beforehand by the ruler: what the KID of real patients against real patients reaches (97.5 %).
# And it is more diverse than GANs: recall minus that of each GAN.

# %%
flow = protocol.trained(study, SYSTEMS["U10 OT-FM"], slices)
quick = protocol.draw(flow, real, "U10 OT-FM", seed=study.seed, solver="midpoint", steps=2)
gap = differences(others, quick, banks["U6 DDPM"], kid, **options)["kid_study"]
resolution = bounds[measures.index(kid)]["floor"]["kid_study"].high
ledger.append(claims.decide("F2", f"KID, U10 with 4 evaluations − U6 with {params.diffusion.objective.steps}; bound {resolution:.3f}", gap,
                            "KID", claimed="below", bound=resolution))
for name in [n for n in free if SYSTEMS[n].family == "GAN"]:
    gap = differences(others, banks["U10 OT-FM"], banks[name], support, **options)["recall_study"]
    ledger.append(claims.decide("F2", f"recall, U10 OT-FM − {name}", gap, "share", claimed="above"))
pd.DataFrame(ledger)[["claim", "test", "effect", "low", "high", "verdict"]].tail(5).round(3)

# %% [markdown]
# **F3** flow matching overfits small data sets: the share of samples nearer to training patients, with few patients minus with all, and minus
# that of the other families with as few. **F5** blur and artefacts: power in the top octave against real slices. **E1** seconds per image.

# %%
cost = pd.concat([pd.read_csv(study.results / f"{n}.csv") for n in ("02_vae", "03_gan", "04_diffusion")])
ledger += claims.overfitting(by["patients"], "U10 OT-FM", {n: n for n in ("U1 VAE", "U5 StyleGAN2-ADA", "U6 DDPM")})
for name in rivals:
    texture = claims.score_of(table, "band_excess", system=name)
    side = "below" if SYSTEMS[name].family == "VAE" else "above"
    ledger.append(claims.decide("F5", f"excess power in the top octave, {name}", texture, "log10 power", claimed=side))
ledger += claims.slower(cost, "U6 DDPM", {"U5 StyleGAN2-ADA": 2.31 / 0.12, "U1 VAE": 2.31 / 0.08})
pd.DataFrame(ledger).query("claim in ['F3', 'F5', 'E1']")[["claim", "test", "effect", "low", "high", "verdict"]].round(3)

# %% [markdown]
# **F6** a low distance can hide memorisation: training images handed out as samples; how far above the floor is their KID?
# **P3** apical and basal slices are harder: the Dice of mask-conditioned samples at mid-ventricle minus that elsewhere, less the same gap on
# real images, because such slices are also harder to *segment*.

# %%
copies = training.take(np.arange(min(len(training), params.samples))).with_columns(source="copies")
copied = next(r for r in compare(others, copies, kid, **against) if r["metric"] == "kid_study")
audited = next(r for r in audit_neighbours(test, copies, training, holdout, spaces[0], **options).rows
               if r["metric"] == "nearest_share_study")
hidden = copied["low"] <= copied["floor"] and audited["low"] > 0.9
ledger.append({"claim": "F6", "test": f"KID of copied training images − floor; share nearest to training {audited['value']:.2f}",
               **{k: copied[v] - copied["floor"] for k, v in (("effect", "value"), ("low", "low"), ("high", "high"))},
               "unit": "KID", "verdict": "supported" if hidden else "not supported"})

# %%
from cmri_lib.measures.anatomy.adherence import agreement
from cmri_lib.measures.statistics.bootstrap import mean_score

def level_gap(some):
    """Per patient: Dice at mid-ventricle minus mean Dice at apex and base."""
    seen, levels = segmenter(some.images), {}
    for level in ("mid", "apical", "basal"):
        at = np.flatnonzero(some.table["level"] == level)
        volumes = agreement(seen[at], some.masks[at], some.table.iloc[at].reset_index(drop=True))
        levels[level] = volumes.groupby("patient")["dice_mean"].mean()
    return levels["mid"] - (levels["apical"] + levels["basal"]) / 2

gaps = pd.DataFrame({"samples": level_gap(followed["U10 OT-FM + mask"]), "real": level_gap(test)}).dropna()
excess = mean_score((gaps["samples"] - gaps["real"]).to_numpy(), gaps.index.to_numpy(), **options)
ledger.append(claims.decide("P3", "Dice gap mid − (apical, basal), samples − real", excess, "Dice", claimed="above"))
results.write_claims(study, "06_fidelity", ledger)[["claim", "test", "effect", "low", "high", "verdict"]].round(3)

# %% [markdown]
# A claim is *supported* if the whole interval lies on the claimed side, *not supported* if it lies wholly on the other, else *undecided*. Of a
# claim with several tests every one counts.
#
# ## Check
#
# The same rulers on sets whose answer is known: training images handed out as "synthetic" must be caught by the audit while
# their distance is excellent, noisy images must be far, and the heat map must be blank where nothing is to be seen.

# %%
assert audited["low"] > 0.9, "the audit does not find exact copies"
rng = np.random.default_rng(study.seed)
broken = type(test)(np.clip(test.images + rng.normal(0, 0.5, test.images.shape), -1, 1).astype(np.float32), test.masks, test.table)
for row in compare(others, broken, kid, **against):
    assert row["low"] > row["floor"], f"{row['metric']} does not see heavy noise"
blind = answers.query("corruption == 'masks shuffled' and metric != 'dice with the mask'")
assert (blind["response"].abs() < 1e-6).all(), "a metric of images answers to masks"
seen = answers.query("corruption == 'masks shuffled' and metric == 'dice with the mask'")
assert seen["beyond"].all(), "shuffled masks go unnoticed"

# %% [markdown]
# ## Exercise
#
# Halve the number of synthetic slices. Which of the two distances changes by more than its interval, and in which direction?

# %% tags=["solution"]
name, bank = "U10 OT-FM", banks["U10 OT-FM"]
half_bank = compare(others, bank.take(np.arange(0, len(bank), 2)), kid, **against)
pd.DataFrame(half_bank).set_index("metric")[["value", "low", "high", "floor"]].round(3)
# The Fréchet distance rises, and its floor with it: the bias grows as 1/N. KID stays where it was.

# %% [markdown]
# ## Limits
#
# - One training per system: a difference between two systems is one between two trainings; intervals speak of patients.
# - The budget is minutes of one core. An order of families at this budget need not be that of days on GPUs: see the curves over compute.
# - Not all systems are tuned alike. Those whose distance still falls steeply at the end, or rises again, would profit most from other
#   settings; adversarial systems are the most sensitive. A bad score of U4 or U5 here says what they reach, hardly tuned, at this budget.
# - Distances live in feature spaces. The study's own knows what its training tasks needed; the Gabor energies know texture, not anatomy.
# - Adherence contains the segmenter's errors on real images: read it against its ceiling.
# - The audit looks for near copies. Membership of a patient can leak without any.
