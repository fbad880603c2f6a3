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
# **Which profile shows what.** The `smoke` profile only checks that the notebook runs; its
# numbers mean nothing. The `laptop` profile is a workshop's budget: it shows how things work,
# not which family wins. Compare systems only under the larger profiles of `params.yaml`.
#
# **Question.** A mask-to-image system needs masks. Can masks be synthesised too? Are such masks
# valid, diverse and no copies of training masks? Can we choose how ill the heart is?
#
# **What the review says.** Three systems make masks before they make images:
#
# - **C4** (Amirrajab et al. 2023) encodes masks with a VAE. In the space of its codes it moves a
#   healthy heart towards a disease. A SPADE GAN then makes the images.
# - **C5** (Gheorghiță et al. 2022) draws real masks from the cohort so that the ejection fraction
#   is uniform. A GAN with SPADE (GauGAN) makes the images.
# - **C10** (Li, Ma & Shi 2025) draws masks by diffusion, removes implausible ones, and lets a
#   latent diffusion model with SPADE make the images.

# %% [markdown]
# ## Method
#
# ### Terms
#
# - A **mask** (or label map) is an image of labels. It says for every pixel whether it belongs to
#   the left ventricular cavity (LV), the myocardium (Myo), the right ventricular cavity (RV) or the
#   background.
# - **ED** (end-diastole) and **ES** (end-systole) are the phases in which the heart is widest and
#   most contracted. **EDV** and **ESV** are the LV volumes in these phases. Volumes are sums of
#   discs: the area in each slice times the distance between slices.
# - The **ejection fraction** (EF) is $(\mathrm{EDV} - \mathrm{ESV}) / \mathrm{EDV}$.
# - Diseases have the names of the ACDC data set: **NOR** is healthy, **DCM** is dilated
#   cardiomyopathy (a wide LV that contracts weakly), **HCM** is hypertrophic cardiomyopathy (a
#   thick wall).
# - A **chain** is a source of masks followed by a mask-to-image system. Each of the three systems
#   above is a chain.
#
# ### Masks as images
#
# A mask with $K$ labels is an image of $K$ planes, $x_k = 2\,[\text{label} = k] - 1$. Any generator
# of images can draw these planes. In each pixel, the largest plane gives the label. The diffusion
# model of C10 can draw the planes at a fraction of the size (`masks.diffusion.shrink`). There, a
# pixel holds the share of each label in its square.

# %% [markdown]
# ### Moving a mask towards a disease (C4)
#
# The encoder of the VAE gives every mask $m$ a code. Let $\mu(m)$ be its mean. The step from
# disease $a$ to disease $b$ in phase $p$ is the difference of the mean codes
# $\overline{\mu}$ of both groups, averaged over the $L$ levels $\ell$ of the heart:
#
# $$\Delta_p = \frac1L \sum_{\ell}
#   \bigl(\overline{\mu}_{b,\ell,p} - \overline{\mu}_{a,\ell,p}\bigr).$$
#
# A mask of **severity** $s$ is decoded from $\mu(m) + s\,\Delta_p$. Severity 0 is the VAE's own
# reconstruction. Severity 1 is the full step from the average heart of group $a$ to that of $b$.
#
# ### Uniform ejection fractions (C5)
#
# The range of EFs (`masks.ejection`) is cut into $n$ equal parts. One EF is drawn at random in each
# part. The training scan whose EF is nearest to it is taken. Nothing is trained.
#
# ### Screening (C10)
#
# **Screening** applies rules to a drawn mask. Rules of topology ask for one LV, one closed wall,
# and one RV beside it. A rule of size compares areas and wall thickness with those of training
# masks. A mask that breaks a rule is **invalid** and is drawn again, up to five times. If it never
# passes, it is left out.

# %% [markdown]
# ### What is measured on masks
#
# - The **share of valid masks**.
# - The **Wasserstein distance** of areas, ratios and wall thickness to those of real masks. It is
#   given in standard deviations (SD) of the real ones.
# - The **Dice of random pairs**. Dice is $2|A \cap B| / (|A| + |B|)$, the overlap of two masks. A
#   high mean over random pairs means little diversity.
# - The **Dice with the nearest training mask**. Masks can leak too: an outline can show whose
#   heart it is. A mask is a **near copy** if it is nearer to a training mask than 95 % of the
#   real test masks are.
#
# Two values stand beside each result. The **floor** is what masks of other real patients score in
# the place of synthetic ones. The **ceiling** is what training masks score if they are handed out
# as new. Intervals are 95 % bootstrap intervals over patients. Each drawn mask counts as a patient
# of its own.

# %% tags=["parameters"]
profile = None  # None: as params.yaml says
dataset = None

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from scipy.stats import wasserstein_distance

from cmri_lib.cohort import requirements
from cmri_lib.cohort.cardiac_function import phenotype_table, with_phenotypes
from cmri_lib.cohort.slices import concatenate
from cmri_lib.config.study import open_study
from cmri_lib.experiments.banks import draw_bank
from cmri_lib.experiments.evaluator import Evaluator
from cmri_lib.experiments.instruments import load_slices
from cmri_lib.experiments.mask_screening import sample_valid_masks
from cmri_lib.experiments.parallel import train_all
from cmri_lib.experiments.training import cost_rows, train_or_load

# %%
from cmri_lib.generators.base import draw
from cmri_lib.generators.disease_shift import disease_direction, shift_to_disease, uniform_ef
from cmri_lib.generators.label_maps import draw_masks, masks_only
from cmri_lib.measures.anatomy.mask_overlap import mask_diversity
from cmri_lib.measures.anatomy.shapes import anatomy_of_masks
from cmri_lib.measures.anatomy.validity import Ranges, validity, validity_of_masks
from cmri_lib.measures.statistics.bootstrap import (
    MINIMUM, bootstrap, mean_score, paired_difference)
from cmri_lib.privacy.mask_memory import mask_memory
from cmri_lib.reporting import figures, metrics, plots, results
from cmri_lib.reporting.primary_tests import ANATOMY, APPEARANCE, HEARTS
from cmri_lib.systems.label_maps import CHAINS, LABEL_MAPS, LABEL_VAE
from cmri_lib.systems.system import Run, runs

# %% [markdown]
# ### The data
#
# The next cell opens the study and loads the preprocessed slices. The **evaluator** scores the
# images later on. It also holds the **conditions**: slices of test patients. Their levels and
# phases are the ones for which new masks are drawn. The table shows how many patients of each
# disease every split has.

# %%
study = open_study(profile, dataset)
params = study.params
figures.use_style()
slices = load_slices(study)
evaluator = Evaluator(study, slices, params.conditional.bank, "all")
test, training, conditions = evaluator.test, evaluator.training, evaluator.conditions
options = evaluator.options
print(f"profile {study.profile}, cohort {study.dataset}, {len(conditions)} conditions")
patients = slices.table.groupby(["split", "disease"], sort=False)["patient"].nunique()
patients.unstack(fill_value=0)

# %% [markdown]
# What this cohort does not have, the notebook leaves out. The next cell says it in words. A chain
# whose source of masks is left out makes no images either.

# %%
outlook = requirements.outlook(slices)
outlook.need("networks trained on this cohort", "distance to real patients")
even_possible = bool(outlook["uniform ejection fractions (C5)"])
chains = {name: chain for name, chain in CHAINS.items() if chain.masks or even_possible}
print(outlook.left_out("08"))

# %% [markdown]
# ## Drawing masks, and screening them
#
# The next cell trains the two generators of masks, or loads them if they are stored. The label
# diffusion of C10 is conditioned on level and phase. The label VAE of C4 is unconditional. Each one
# draws a mask for every condition.

# %%
VAE = LABEL_VAE.id
train_all(study, runs(LABEL_MAPS), slices)
generators, raw = {}, {}
for name, system in LABEL_MAPS.items():
    generators[name] = train_or_load(study, Run(system), slices)
    raw[name] = draw_masks(generators[name], conditions, name, study.seed)
{name: f"{len(some)} masks" for name, some in raw.items()}

# %% [markdown]
# Which rules do these raw masks break, and how often do real masks break them? The ranges of sizes
# come from training masks. The table shows the share of masks that break each rule. The last
# row counts masks that break any rule.
#
# The rules are stricter at mid-ventricle and apex than at the base, where the wall may open. Masks
# of the VAE have no known level, so the rule of the base is applied to them. Their shares cannot be
# compared directly with those of the diffusion model.

# %%
ranges = Ranges.of(training)
broken = {}
for name, some in {"real test masks": test, **raw}.items():
    broken[name] = 1 - validity(some.masks, some.table, ranges).mean()
pd.DataFrame(broken).rename(index={"valid": "any rule"}).round(3)

# %% [markdown]
# Some real masks break rules as well, because annotators leave gaps. Compare each column with the
# first one.
#
# Now the masks are screened. If fewer than `FEWEST` masks of a generator pass, screening is given
# up and all of its raw masks are used: a handful of masks would say nothing about the generator.

# %%
FEWEST = 10
screened, draws, kept = {}, {}, []
for name, generator in generators.items():
    some = sample_valid_masks(generator, conditions, name, ranges, study.seed,
                              first=raw[name], fewest=FEWEST)
    draws[name] = max(1.0, some.table["draws"].mean())
    if some.table["draws"].min() > 0:  # 0 where screening was given up
        screened[name] = some
    kept.append({"generator": name, "masks drawn": len(raw[name]), "kept": len(some),
                 "screened": name in screened, "draws per kept mask": draws[name]})
pd.DataFrame(kept).set_index("generator").round(2)

# %% [markdown]
# The figure shows real masks, raw masks, some of those that broke a rule, and masks after
# screening.

# %%
def evenly(some, count=10):
    """At most `count` slices, spread over the set."""
    return some.take(np.linspace(0, len(some) - 1, min(count, len(some))).astype(int))


real = evenly(test)
rows = {"real": masks_only(real.masks, real.table)}
for name, some in raw.items():
    rows[name] = evenly(some)
    invalid = some.take(~validity(some.masks, some.table, ranges)["valid"].to_numpy())
    if len(invalid):
        rows[f"{name}\ninvalid"] = evenly(invalid)
    if name in screened:
        rows[f"{name}\nscreened"] = evenly(screened[name])
figures.publish_slices(study, "08/masks", rows, title="Masks: real, drawn, invalid, screened");

# %% [markdown]
# **How to read it.** LV is outlined in red, the myocardium in yellow, the RV in blue. Look at the
# invalid masks: second cavities, open walls and an RV away from the wall are the common faults.
# Screening removes them. It cannot repair a generator that draws few kinds of hearts. A generator
# whose screening was given up has no row of screened masks.

# %% [markdown]
# ## Uniform ejection fractions
#
# C5 needs no training. Whole scans of training patients are drawn with replacement. The next cell
# draws two sets: `even`, with about as many slices as there are conditions, is used for images
# later. A larger set of scans shows how uniform the EFs can become.

# %%
LOW, HIGH = params.masks.ejection
SCANS = 200  # scans of the larger set
scans = max(10, round(len(conditions) * training.table["scan"].nunique() / len(training)))
sets = {"cohort": with_phenotypes(training).with_columns(drawn_from=training.patients)}
if even_possible:
    even = uniform_ef(training, scans, study.seed, LOW, HIGH)
    sets["uniform EF"] = uniform_ef(training, SCANS, study.seed, LOW, HIGH)
fractions = []
for name, some in sets.items():
    of_scan = some.table.drop_duplicates(["patient", "scan"]).dropna(subset="lvef")
    fractions.append(of_scan.assign(masks=name)[["masks", "drawn_from", "lvef"]])
fractions = pd.concat(fractions)
fractions.groupby("masks")["lvef"].describe()[["count", "mean", "min", "max"]].round(1)

# %% [markdown]
# How far are the EFs from a uniform distribution? The next cell computes the Wasserstein distance
# in percentage points of EF, with an interval over the patients whose scans were drawn.

# %%
grid = np.linspace(LOW, HIGH, 1001)
uniformity = {}
measurable = fractions.groupby("masks")["drawn_from"].transform("nunique") >= MINIMUM
for name, part in fractions[measurable].groupby("masks", sort=False):
    found = part["lvef"].to_numpy()
    uniformity[name] = bootstrap(
        lambda counts: wasserstein_distance(found, grid, counts),
        part["drawn_from"].to_numpy(), centred=True, **options)
pd.DataFrame({name: {"distance (percentage points)": score.value, "low": max(score.low, 0),
                     "high": score.high, "patients": score.n}
              for name, score in uniformity.items()}).T.round(2)

# %%
# A figure's file holds numbers of scans, not the EF of each: of real patients that is theirs.
EDGES = [*range(0, 101, 5)]  # % of EF
middle = np.array(EDGES)[np.digitize(fractions["lvef"], EDGES) - 1] + 2.5
counted = fractions.assign(middle=middle).groupby(["masks", "middle"], sort=False).size()

# %%
def draw_fractions(numbers):
    """Histograms of EFs; the dashed line is the uniform density."""
    figure, axis = plt.subplots(figsize=(6, 3))
    sns.histplot(numbers, x="middle", weights="scans", hue="masks", stat="density",
                 common_norm=False, bins=EDGES, alpha=0.5, ax=axis)
    uniform = axis.axhline(1 / (HIGH - LOW), ls="--", color=figures.REAL_COLOUR)
    axis.get_legend().set_title("scans")
    axis.set(xlabel="LV ejection fraction (%)", ylabel="density (per % of EF)")
    figures.legend_below(figure, {f"uniform from {LOW:g} to {HIGH:g} %": uniform})
    return figure


figures.publish(study, "08/ejection", counted.reset_index(name="scans"), draw_fractions,
                title="Ejection fractions of the cohort, and after uniform sampling");

# %% [markdown]
# **How to read it.** Bars at the dashed line would be a uniform distribution. C5 can repeat what
# the cohort has, and nothing else. Where the cohort has no EF, a gap stays, and the scans at its
# edges are repeated often.

# %% [markdown]
# ## From a healthy heart to a diseased one
#
# The next cell computes the steps from healthy hearts (NOR) to dilated (DCM) and to hypertrophic
# (HCM) ones. The steps come from training patients. They are then applied to healthy patients from
# whom no network has learnt. A cohort may lack one of these groups. The cell says what is left out.

# %%
HEALTHY, DISEASES = "NOR", ("DCM", "HCM")
unseen = slices.where(split=["validation", "test", "holdout"])
healthy = unseen.where(disease=HEALTHY)
moves = outlook["moves towards a disease (C4)"]
targets = [name for name in DISEASES if f"{HEALTHY} → {name}" in moves.kept]
directions = {name: disease_direction(generators[VAE], training, HEALTHY, name)
              for name in targets}
print("moves:", ", ".join(moves.kept) or "none", f"· left out: {moves.why}" if moves.why else "")

# %% [markdown]
# Three quantities describe what a move does to a heart: the LV volume at end-diastole, the ejection
# fraction, and the volume of the myocardium at end-diastole. They are computed from whole moved
# scans. The table shows their true means for healthy and diseased patients.

# %%
INDICES = {"lvedv": "LV EDV (mL)", "lvef": "LV EF (%)", "myoedv": "myocardium at ED (mL)"}


def indices(some):
    """Three quantities of every patient, averaged over his or her scans."""
    of_scan = phenotype_table(some).groupby("patient")[list(INDICES)].mean()
    return of_scan.rename(columns=INDICES)


shown = [name for name in (HEALTHY, *DISEASES) if name in set(unseen.table["disease"])]
true = pd.DataFrame({name: indices(unseen.where(disease=name)).mean() for name in shown})
true.round(1)

# %% [markdown]
# Now every healthy heart is moved to every severity. For each severity the cell keeps the mean of
# the three quantities, with its interval over the patients moved.

# %%
moved, curve = {}, []
for target, direction in directions.items():
    for severity in params.masks.severities:
        some = shift_to_disease(generators[VAE], healthy, direction, severity)
        found = moved[target, severity] = indices(some)
        for column in found:
            score = mean_score(found[column].to_numpy(), found.index.to_numpy(),
                                          **options)
            curve.append({"disease": target, "severity": severity, "index": column,
                          "value": score.value, "low": score.low, "high": score.high,
                          "n": score.n, "healthy": true.loc[column, HEALTHY],
                          "diseased": true.loc[column, target]})
print(f"{len(moved)} sets of moved masks")

# %%
def draw_curve(numbers):
    names, diseases = (list(dict.fromkeys(numbers[c])) for c in ("index", "disease"))
    figure, axes = plt.subplots(len(diseases), len(names), squeeze=False, sharex=True,
                                figsize=(9.5, 2.5 * len(diseases) + 0.2))
    for (disease, name), part in numbers.groupby(["disease", "index"]):
        axis = axes[diseases.index(disease), names.index(name)]
        band = axis.fill_between(part["severity"], part["low"], part["high"], alpha=0.25)
        [hearts] = axis.plot(part["severity"], part["value"], "o-", ms=3)
        handles = {"moved hearts": hearts, "95 % interval": band}
        for group, style in ("healthy", "--"), ("diseased", ":"):
            handles[f"true mean, {group} patients"] = axis.axhline(
                part[group].iloc[0], ls=style, color=figures.REAL_COLOUR, lw=1)
        axis.set(title=f"{HEALTHY} → {disease}", ylabel=name, xlabel="severity")
    figures.legend_below(figure, handles)
    return figure

# %%
if curve:
    figures.publish(study, "08/curve", pd.DataFrame(curve), draw_curve,
                    title="What moving healthy hearts towards a disease does to them")
else:
    print("no disease to move to in this cohort")

# %% [markdown]
# **How to read it.** The band is the 95 % interval. The dashed line is the true mean of healthy
# patients, the dotted line that of diseased ones. At severity 0 the curve shows the VAE's
# reconstruction. Its distance from the dashed line is an error of the VAE, not a disease. At
# severity 1 a good move has carried the curve over the gap between dashed and dotted line.
#
# ### One heart at growing severity
#
# Next, one healthy heart is moved, and the SPADE GAN of C4 makes an image of each mask. The noise
# of the GAN stays the same, so only the mask changes.

# %%
painters = {chain.images.id: chain.images for chain in CHAINS.values()}
train_all(study, runs(painters), slices)
image_makers = {name: train_or_load(study, Run(system), slices)
                for name, system in painters.items()}
print("mask-to-image systems:", ", ".join(image_makers))

# %%
GAN = "C4 SPADE cGAN"
severities = params.masks.severities
steps = {}
for target, direction in directions.items():
    middle = healthy.where(level="mid", phase="ED").take([0])
    masks = [shift_to_disease(generators[VAE], middle, direction, s) for s in severities]
    images = [draw(image_makers[GAN], mask, GAN, seed=study.seed) for mask in masks]
    steps[f"{HEALTHY} → {target}\nmask"] = concatenate(masks)
    steps[f"{HEALTHY} → {target}\nimage"] = concatenate(images)
if steps:
    figures.publish_slices(study, "08/severity", steps,
                           titles=[f"severity {s:g}" for s in severities],
                           title="One healthy heart at growing severity")

# %% [markdown]
# **How to read it.** Towards DCM, the cavity should widen and the wall should become thin. Towards
# HCM, the wall should thicken. The image should follow its outlines at every severity.

# %% [markdown]
# ## Every source of masks, measured
#
# A **source** is one way to obtain masks. The next cell lists all of them: drawn and screened masks
# of both generators, C5's draws from the cohort, and healthy *training* hearts moved to severity 1.
# The last is how a training set would be enlarged.

# %%
UNIFORM = "C5 uniform EF"
sources = {UNIFORM: even} if even_possible else {}
for name in LABEL_MAPS:
    sources[name] = raw[name]
    if name in screened:
        sources[f"{name}, screened"] = screened[name]
sufficient = outlook["moved training hearts as masks (C4)"].kept
for target, direction in directions.items():
    if f"{HEALTHY} → {target}" not in sufficient:
        continue
    sources[f"{VAE}, moved to {target}"] = shift_to_disease(
        generators[VAE], training.where(disease=HEALTHY), direction, 1.0)
pd.Series({name: len(some) for name, some in sources.items()}, name="masks").to_frame()

# %% [markdown]
# A second evaluator scores masks alone. It compares them with masks of test patients. The first row
# of the table is the floor: masks of other real patients.

# %%
mask_measures = [validity_of_masks(ranges), anatomy_of_masks(), mask_diversity(),
                 mask_memory(training)]
mask_evaluator = Evaluator(study, slices, params.conditional.bank, mask_measures, real=("test",))
mask_scores = [row for name, some in sources.items() for row in mask_evaluator.rows(name, some)]
quality = pd.DataFrame(mask_scores)
table = pd.DataFrame([*mask_evaluator.real_rows(), *mask_scores])
wide = table.pivot(index="system", columns="metric", values="value")
wide.loc[["real", *sources], quality["metric"].unique()].rename(columns=metrics.short).round(3)

# %%
remembered = ["mask_nearest_dice", "mask_near_copies", "mask_dice_pairs"]
is_memory = quality["metric"].isin(remembered)
figures.publish(study, "08/validity", quality[~is_memory], plots.score_plot,
                title="Are synthetic masks valid, and do they have real proportions?");

# %% [markdown]
# **How to read it.** The dashed line is what real masks score against each other, the dotted line
# what training masks would score. Screened masks are valid, because invalid ones were removed.
# Whether screening also narrows the set is shown by the Wasserstein distances: compare the raw
# and the screened row of one generator.

# %%
figures.publish(study, "08/memory", quality[is_memory], plots.score_plot,
                title="Do synthetic masks differ from each other, and from training masks?");

# %% [markdown]
# **How to read it.** C5 hands out masks of training patients, so its masks are copies. A moved
# heart may still show whose heart it was, above all after a small step: compare it with the dashed
# line. Removing the name from a mask does not make it anonymous.

# %% [markdown]
# ## Images from synthetic masks
#
# Now the three chains are completed. C4 and C5 use a SPADE GAN, C10 uses a latent diffusion model
# with SPADE. Both are conditioned on the labels LV, Myo and RV, and on nothing else. Each chain
# gets its own masks: scans of uniform EF for C5, drawn masks for C4 and C10, screened unless
# screening was given up.

# %%
source_of, banks = {}, {}
for name, chain in chains.items():
    source = chain.masks.id if chain.masks else UNIFORM
    source_of[name] = f"{source}, screened" if source in screened else source
    masks = sources[source_of[name]]
    banks[name] = draw_bank(study, chain, image_makers[chain.images.id], masks, name="new")
pd.DataFrame([{"chain": name, "source of masks": source_of[name], "images": len(bank)}
              for name, bank in banks.items()]).set_index("chain")

# %%
rows = {"real": evenly(test), **{name: evenly(bank) for name, bank in banks.items()}}
figures.publish_slices(study, "08/images", rows,
                       title="Images of the three chains, with real slices at the top");

# %% [markdown]
# **How to read it.** The outlines are those of the mask that was given. In a good image, the dark
# wall and the bright cavities fill them.
#
# The evaluator of notebook 06 scores the images. Two distances to real images lead: that of
# **anatomy** compares what the segmenter recognises and sees hearts, that of **appearance**
# compares the energies of Gabor filters and sees texture and blur. Both are an MMD: how alike
# samples are to real images, compared with how alike real images are to each other. A chain must do
# well in both. KID and the Fréchet distance are there for comparison with other papers.
#
# A third number is the **adherence** to the mask. It is the Dice between the given mask and what a
# frozen segmenter finds in the image. Its ceiling is the segmenter's Dice on real images.

# %%
scores = [row for name, chain in chains.items() for row in evaluator.rows(chain, banks[name])]
found = pd.DataFrame(scores)
dice = ["dice_LV", "dice_Myo", "dice_RV"]
measured = set(found["metric"])
headline = [name for name in (*metrics.headline(measured), *dice) if name in measured]
board = found[found["metric"].isin(headline)].set_index(["metric", "system"])
board = board[["value", "low", "high", "floor", "ceiling"]].round(3).loc[headline]
board.rename(index=metrics.label, level="metric")

# %% [markdown]
# **How to read it.** The floor of a distance is what real patients score against other real
# patients; no chain can be expected to do better. Start with the share of valid hearts. Below
# half of its floor the images show no hearts, whatever the distance of appearance says.
#
# ### Costs
#
# A chain costs what its two halves cost. A mask that is drawn again must be paid for again. C5 has
# no generator of masks, so only its image generator counts.

# %%
def add_costs(row, first, draws_each):
    """Cost `row` of an image generator plus that of its generator of masks."""
    times = draws_each if row["metric"] in ("seconds_per_image", "nfe") else 1.0
    joined = {}
    for key in ("value", "low", "high"):
        both = row[key], times * first[key]
        joined[key] = max(both) if row["metric"] == "peak_memory_gib" else sum(both)
    return row | joined

# %% [markdown]
# `cost_rows` reports the cost of each half: the recorded training, and 16 samples drawn now.

# %%
def chain_costs(chain):
    """Cost rows of both halves of a chain together."""
    masks, images = sources[source_of[chain.id]], image_makers[chain.images.id]
    rows = cost_rows(study, Run(chain.images), images, masks)
    if chain.masks is None:
        return rows
    firsts = cost_rows(study, Run(chain.masks), generators[chain.masks.id], conditions)
    first = {row["metric"]: row for row in firsts}
    return [add_costs(row, first[row["metric"]], draws[chain.masks.id])
            for row in rows if row["metric"] in first]

# %%
costs = {name: chain_costs(chain) for name, chain in chains.items()}
cost_table = pd.DataFrame({name: {row["metric"]: row["value"] for row in rows}
                           for name, rows in costs.items()})
cost_table.rename(index=metrics.label).round(4)

# %% [markdown]
# All rows of a chain are now written under its name: its images, its masks and its costs.

# %%
complete = list(scores)
for name, chain in chains.items():
    of_masks = [row for row in mask_scores if row["system"] == source_of[name]]
    columns = {"system": name, "family": chain.family, "conditioning": chain.conditioning}
    complete += [{**row, **columns} for row in [*of_masks, *costs[name]]]
table = results.write_scores(study, "08_masks", complete, seeds=1)
shown = [*metrics.headline(table["metric"]), *dice]
figures.publish(study, "08/scores", table[table["metric"].isin(shown)], plots.score_plot,
                title="The three chains: fidelity, anatomy and cost");

# %% [markdown]
# **How to read it.** Images can be no better than the system that makes them. Compare with the
# mask-conditioned systems of notebook 07 before you blame the masks. Read adherence against its
# dashed line, the segmenter on real images. If adherence is lower for synthetic masks than for
# those of patients, the image generator was asked for hearts that it has never seen.

# %% [markdown]
# ## Check
#
# Four things must hold. Moves must change the heart as the disease does. Sampled EFs must be more
# uniform than those of the cohort. Screening must keep valid masks only. Copies must be found.

# %%
first, last = min(severities), max(severities)


def change(target, column):
    """Mean change from the smallest to the largest severity, paired over patients."""
    before, after = (moved[target, severity][column] for severity in (first, last))
    return paired_difference(after.to_numpy(), before.to_numpy(),
                                        after.index.to_numpy(), **options)


if "DCM" in targets:
    grown, weaker = change("DCM", "LV EDV (mL)"), change("DCM", "LV EF (%)")
    assert grown.low > 0, "moved towards DCM, the left ventricle does not dilate"
    assert weaker.high < 0, "moved towards DCM, the left ventricle does not weaken"
    volumes = [moved["DCM", severity]["LV EDV (mL)"].mean() for severity in severities]
    assert np.corrcoef(severities, volumes)[0, 1] > 0.8, "more severity is not more dilatation"
print("moves that were checked:", "NOR → DCM" if "DCM" in targets else "none in this cohort")

# %%
if {"uniform EF", "cohort"} <= set(uniformity):
    more_even = uniformity["uniform EF"].value < uniformity["cohort"].value
    assert more_even, "EFs are no more uniform"
scored = quality.set_index(["system", "metric"])["value"]
for name in screened:
    assert scored[f"{name}, screened", "mask_valid"] == 1, "the screen lets faults through"
print("screened:", ", ".join(screened) or "neither generator had enough valid masks")
if even_possible:
    copies = scored[UNIFORM, "mask_near_copies"]
    assert copies > 0.95, "copies of training masks go unnoticed"
    print(f"near copies among the masks of C5: {copies:.0%}")

# %% [markdown]
# ## Exercises
#
# ### 1. Healthier than healthy
#
# Move the healthy hearts *backwards*, to severity −1. What happens to the volume, and to the share
# of valid masks? Which disease is it?

# %% tags=["solution"]
for target, direction in directions.items():
    back = shift_to_disease(generators[VAE], healthy, direction, -1.0)
    valid = validity(back.masks, back.table, ranges)["valid"].mean()
    print(f"away from {target}: valid {valid:.0%}, {indices(back).mean().round(1).to_dict()}")
# Away from DCM the ventricle shrinks. "Healthier than healthy" is no disease of the cohort. The
# decoder extrapolates to codes that no training mask has. The screen notices part of it.

# %% [markdown]
# ### 2. An interval half as wide
#
# Take the mean EF of the training patients with its 95 % interval: of all patients, of a random
# half and of a random quarter of them, ten times each. How does the mean width of the interval
# depend on the number of patients? So how many would it take to halve the interval of all of them?

# %% tags=["solution"]
known = fractions[fractions["masks"] == "cohort"]
names, chosen = known["drawn_from"].unique(), np.random.default_rng(study.seed)
for part in (1, 2, 4):
    if (count := len(names) // part) < MINIMUM:
        continue
    widths = []
    for _ in range(10):
        some = known[known["drawn_from"].isin(chosen.choice(names, count, replace=False))]
        ef = mean_score(some["lvef"].to_numpy(), some["drawn_from"].to_numpy(), **options)
        widths.append(ef.high - ef.low)
    print(f"{count} patients: width {np.mean(widths):.1f} % points, × √n "
          f"{np.mean(widths) * count ** 0.5:.0f}; half as wide with {4 * count}")
# The width falls with the root of the number of patients: width × √n stays about the same, so half
# the width takes four times as many. Of very few patients the bootstrap's interval is too narrow.

# %% [markdown]
# ### 3. Which rule decides?
#
# A mask is valid if it keeps every rule. Count, for each rule, the share of the drawn masks that
# break it, and the share that break it *and no other*. Only the second share would become valid if
# the rule were dropped. Which rule rejects the most masks, and which one could be dropped at no
# cost?

# %% tags=["solution"]
columns = {}
for name, some in raw.items():
    keeps = validity(some.masks, some.table, ranges).drop(columns="valid").astype(bool)
    faults = (~keeps).sum(axis=1)
    columns[name, "broken"] = (~keeps).mean()
    columns[name, "broken alone"] = (~keeps[faults == 1]).sum() / len(keeps)
    print(f"{name}: {(faults == 0).mean():.0%} valid, {faults.mean():.1f} rules broken on average")
pd.DataFrame(columns).round(2)
# Rules overlap: a cavity without a wall breaks the rule of the wall, that of its closing, and
# usually that of sizes. A rule that is never broken alone changes nothing if it is dropped.

# %% [markdown]
# ## Summary
#
# The next cell computes the findings of this run. Read the notes below it together with the
# numbers.

# %%
for name in LABEL_MAPS:
    print(f"1. {name}: {scored[name, 'mask_valid']:.0%} of the raw masks are valid;",
          f"screening took {draws[name]:.1f} draws per mask" if name in screened
          else "screening was given up")
print("2. distance to uniform EFs in percentage points:",
      ", ".join(f"{name} {score.value:.1f}" for name, score in uniformity.items()))
for target in targets:
    for column in INDICES.values():
        gap = true.loc[column, target] - true.loc[column, HEALTHY]
        step = change(target, column)
        print(f"3. towards {target}, {column}: severity {first:g} to {last:g} adds "
              f"{step.value:.1f} [{step.low:.1f}, {step.high:.1f}]; true difference {gap:.1f}")

# %%
for name in sources:
    print(f"4. near copies of training masks, {name}: {scored[name, 'mask_near_copies']:.0%}")
for name in chains:
    row = table.query("system == @name and metric == 'dice_mean'").iloc[0]
    print(f"5. {name}: Dice with the mask {row['value']:.2f} [{row['low']:.2f}, "
          f"{row['high']:.2f}], real images {row['ceiling']:.2f}")
    quality = table[(table["system"] == name) & table["metric"].isin([ANATOMY, APPEARANCE, HEARTS])]
    for row in quality.itertuples():
        print(f"   {metrics.short(row.metric)} {row.value:.3f}, real images {row.floor:.3f}")

# %% [markdown]
# 1. **Validity.** After screening all masks are valid. The price is the number of draws. A
#    generator with few valid masks becomes slow, and may lose variety. One with hardly any cannot
#    be screened.
# 2. **Uniform EFs.** C5 brings the EFs nearer to uniform without any training. The rest of the
#    distance is what the cohort does not have.
# 3. **Moves.** Compare each change with the true difference between the groups. The sign should
#    agree. Severity 1 stands for the true difference, and larger severities go beyond it. What the
#    VAE cannot reconstruct, it cannot move either.
# 4. **Leakage.** Near copies of 5 % are what real test masks reach. C5 hands out training masks, so
#    its share is that of copies. Moved training hearts need a look: the more they are above 5 %,
#    the more of them can be traced to a patient.
# 5. **Images.** The Dice with the mask says whether images follow synthetic masks. The distances of
#    anatomy and appearance say whether they look like patients. Compare both with the same image
#    systems under masks of patients in notebook 07.

# %% [markdown]
# ## Limits
#
# - Moves, draws and screens work slice by slice. Neighbouring slices of a moved scan agree only
#   because all slices of a phase take the same step.
# - Uniform EFs repeat the extremes of the cohort. No patient is added. The masks are training
#   masks: they can be used to train, but not to publish.
# - The audit for near copies looks at outlines of single slices. A whole stack of slices can reveal
#   a patient even where no single slice does.
# - On the phantom, some mask-to-image systems of notebook 07 are conditioned on every tissue. Those
#   of this notebook are conditioned on three structures, and invent the rest.
