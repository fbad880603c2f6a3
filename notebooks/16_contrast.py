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
# # 16 · Contrast: one anatomy at any phase of the heartbeat and any inversion time
#
# **Which profile shows what.** `smoke` only tests that the code runs; its images are poor.
# `laptop` shows how things work; draw conclusions from `overnight` and `gpu` only.
#
# **Question.** A cine shows how a heart moves, a T1 map what its muscle is made of. They are two
# scans. Can one network show both, for a patient of whom it has seen *one* image: this anatomy, at
# any moment of the heartbeat, with any T1 contrast?
#
# **What the review says.** It names one such system, C11: a conditional variational autoencoder
# (cVAE) with a manifold of motion. A motion signal and the inversion time are its conditions, so it
# shows cine and T1 contrast at once (Zou et al. 2023). The review makes no claim about it.
#
# No public cohort has images of one heart at many phases *and* many inversion times. The virtual
# patients of the phantom can be scanned again at will, and every answer has its true image. So this
# notebook exists for the data set `phantom` alone.

# %% [markdown]
# ## Method
#
# ### Contrast by inversion recovery
#
# An inversion pulse turns the magnetisation upside down, and it recovers. An image that is taken at
# the **inversion time** TI after the pulse shows how far each tissue has come. With a balanced SSFP
# read-out the signal is (Schmitt et al. 2004)
#
# $$ S(TI) = \bigl| A - B\,e^{-TI/T_1^*} \bigr|, \qquad
#    \frac{1}{T_1^*} = \frac{\cos^2(\alpha/2)}{T_1} + \frac{\sin^2(\alpha/2)}{T_2} . $$
#
# $A$ is the steady state, which is the contrast of a cine. The read-out with flip angle $\alpha$
# speeds the recovery up, so the apparent $T_1^*$ is shorter than T1. At $TI = T_1^* \ln(B/A)$ a
# tissue is black. A fit of $A$, $B$ and $T_1^*$ to several images gives a map of
# $T_1 = T_1^*\,(B/A - 1) \cos(\alpha/2)$.
#
# ### Motion
#
# The **motion signal** $m(t)$ is 0 at end-diastole (ED), 1 at end-systole (ES), smooth and
# periodic. The endocardium of a virtual heart moves with $m$, its base descends with $m$, and its
# muscle keeps its volume, so the wall thickens.
#
# ### The system
#
# C11 has an encoder $q(z \mid x, m, TI)$ and a decoder $\hat x(z, m', TI')$. Of one patient two
# states are drawn at random, a source and a target. The code is read from the source, and the
# *target* must be rebuilt (**cross-reconstruction**):
#
# $$ \mathcal L = -\,\mathbb E_{q(z \mid x, m, TI)} \log p(x' \mid z, m', TI')
#    + \beta \, \mathrm{KL}\bigl(q(z \mid x, m, TI) \,\|\, \mathcal N(0, I)\bigr) . $$
#
# Whatever $z$ holds of the source's phase or contrast is of no use for the target. So $z$ becomes
# the anatomy, and phase and TI are left to the condition.
#
# Zou et al. fit such a generator to the k-space of one patient, and estimate the phases with it.
# Here one network serves all patients, phases are known, and an encoder finds the code.
#
# ### What is measured, on test patients
#
# - **SSIM, PSNR and mean absolute error** between answer and true image, in the heart and 10 mm
#   around it, wherever source and target are different states;
# - **T1**: it is fitted to the answers at all inversion times, in the myocardium and in the blood
#   of the left ventricle (LV), and compared with the T1 that the patient was made with;
# - the **area of the LV cavity** over the heartbeat, in answers and in true images.
#
# Two answers take no network. The **source unchanged** shows the right patient in the wrong state.
# The **nearest training patient** is the one who looks most like the source in its state; his or
# her image in the state asked for shows the wrong patient in the right state. A network must beat
# both. Intervals are 95 % bootstrap intervals over test patients.

# %% tags=["parameters"]
profile = None  # None: as params.yaml says
dataset = None

# %%
from dataclasses import replace

import numpy as np
import pandas as pd

from cmri_lib.config.study import open_study
from cmri_lib.experiments import contrast, contrast_scores
from cmri_lib.experiments.contrast import TIME
from cmri_lib.experiments.students import Students
from cmri_lib.experiments.training import cost_rows, training_log
from cmri_lib.measures.statistics.bootstrap import mean_score, paired_difference

# %%
from cmri_lib.phantom.heartbeat import motion_signal
from cmri_lib.phantom.inversion_recovery import null_time
from cmri_lib.phantom.tissue import RELAXATION, Material
from cmri_lib.reporting import contrast_plots, figures, plots, results, training_plots
from cmri_lib.reporting.results import with_system_columns
from cmri_lib.systems.contrast import MANIFOLD, MOTION, STAGE
from cmri_lib.systems.system import Run

# %% [markdown]
# ### The data
#
# The next cell opens the study and scans virtual patients, or loads the scans: mid-ventricular
# slices, every patient in every state. Its patients are new ones, split by patient.

# %%
study = open_study(profile, dataset)
contrast.need_virtual_patients(study)
settings = study.params.contrast
figures.use_style()
series = {split: contrast.scan_patients(study, split) for split in ("train", "validation", "test")}
test, cine = series["test"], max(settings.inversion_times)
pd.DataFrame({split: {"patients": one.slices.table["patient"].nunique(), "states": len(one.states),
                      "images": len(one)} for split, one in series.items()})

# %% [markdown]
# When is a tissue black? The table gives the inversion time at which each of three tissues has no
# signal. Blood has the longest T1 and is the last.

# %%
tissues = {"fat": Material.BODY_FAT, "myocardium": Material.MYOCARDIUM, "blood": Material.LV_BLOOD}
field = 0  # column of 1.5 T
times = {name: (RELAXATION[m].t1[field], RELAXATION[m].t2[field]) for name, m in tissues.items()}
pd.DataFrame([{"tissue": name, "T1 (ms)": t1, "T2 (ms)": t2,
               "black at TI (ms)": float(null_time(t1, t2, settings.flip))}
              for name, (t1, t2) in times.items()]).round(0)

# %% [markdown]
# ## Training

# %%
generator = contrast.train_manifold(study, series["train"], series["validation"])
log = training_log(study, Run(MANIFOLD)).assign(system=MANIFOLD.id)
print(f"{log['images'].iloc[-1]:,} pairs of images in {log['seconds'].iloc[-1]:.0f} s")
figures.publish(study, "16/training", log, lambda table: training_plots.losses(
    table, ylabel="−ELBO of the target (nats per pixel)"), title="Training of C11");

# %% [markdown]
# ## Look at it
#
# Of each test patient some images are drawn as sources. From *one* of them the network makes the
# images in all other states. In the figure: one patient, rows are phases, columns inversion times.

# %%
questions = contrast_scores.ask(test, settings.sources, study.seed)
made = {MANIFOLD.id: contrast_scores.answers(generator, questions),
        "nearest training patient": contrast_scores.nearest_patient(questions, series["train"]),
        "source image unchanged": questions.unchanged}
block = questions.target.slices.table[:len(test.states)]
shown = {"the source": test.slices.take(questions.sources[0, :1])}
for m in (settings.contractions[k] for k in (0, len(settings.contractions) // 2, -1)):
    rows = np.flatnonzero(block[MOTION] == m)
    shown |= {f"m = {m:g}, true": questions.target.slices.take(rows),
              f"m = {m:g}, C11": made[MANIFOLD.id].take(rows)}
figures.publish_slices(study, "16/grid", shown, outline=False,
                       titles=[f"TI {time:.0f} ms" for time in settings.inversion_times],
                       title="One test patient in all states, made from one image");

# %% [markdown]
# **How to read it.** From left to right fat, muscle and blood go through black, each at its own
# time. The last column is a cine. Down the rows the cavity shrinks and the wall thickens. A row of
# C11 must look like the row above it. What it lacks is detail: a code is a short list of numbers,
# so small things (vessels of the lung, trabeculae) become a blur.
#
# ## Scores

# %%
options = {"seed": study.seed, "resamples": study.params.fidelity.resamples}
maps = {name: contrast_scores.t1_table(images, questions, settings.flip)
        for name, images in (made | {"true images": questions.target.slices}).items()
        if name != "source image unchanged"}
rows, named = [], {MANIFOLD.id: MANIFOLD}  # the others are nulls
for name, images in made.items():
    found = contrast_scores.likeness_rows(images, questions, options)
    if name in maps:
        found += contrast_scores.t1_rows(maps[name], maps["nearest training patient"],
                                         maps["true images"], options)
    rows += with_system_columns(named.get(name, name), found)

# %% [markdown]
# The figure holds the likeness and the error of T1. Dashed is what the true images score, the
# dash-dotted line the source unchanged, or for T1 the nearest training patient.

# %%
figures.publish(study, "16/scores", pd.DataFrame(rows), plots.score_plot,
                title="Answers of C11 from one image, test patients");

# %%
gains = {other: {metric: contrast_scores.likeness_difference(
    made[MANIFOLD.id], made[other], questions, metric, options)
    for metric in contrast_scores.LIKENESS} for other in list(made)[1:]}
pd.DataFrame([{"C11 minus": other, "metric": metric, "difference": score.value, "low": score.low,
               "high": score.high} for other, found in gains.items()
              for metric, score in found.items()]).round(3)

# %% [markdown]
# ### What the code holds
#
# Is the code the anatomy, and nothing else? A linear regression (ridge) on the codes of training
# patients tries to foretell three numbers; the table gives its R² on test patients. The area of the
# cavity is anatomy and should be there. Phase and inversion time of the source should not.

# %%
contents = contrast_scores.code_contents(generator, series["train"], test)
contents.round(2).to_frame("R² on test patients")

# %% [markdown]
# ## T1
#
# First the recovery of the mean signal of one region, in the true images and in the answers, for
# the patient of the first figure at ED.

# %%
first = np.flatnonzero(block[MOTION] == settings.contractions[0])
curves = []
for region, label in (("Myo", 2), ("LV", 1)):
    inside = (test.slices.masks[first[0]] == label) & np.isfinite(test.t1[first[0]])
    for what, images in (("true images", questions.target.slices), ("C11", made[MANIFOLD.id])):
        signal = contrast_scores.magnitudes(images.images[first, 0])[:, inside].mean(1)
        curves += [{"region": region, "what": what, TIME: time, "value": value}
                   for time, value in zip(settings.inversion_times, signal)]
figures.publish(study, "16/recovery", pd.DataFrame(curves), contrast_plots.recovery_curves,
                title="Recovery after inversion: mean signal of a region at end-diastole");

# %%
dots = pd.concat([table.groupby(["region", "patient"], as_index=False)[["true", "fitted"]].median()
                  .assign(way=name) for name, table in maps.items()])
figures.publish(study, "16/t1", dots, contrast_plots.t1_agreement,
                title="T1 fitted to images, test patients: the median of each region");

# %%
def agreement(part):
    """How far the fitted T1 follows that of the patient."""
    error = part["fitted"] - part["true"]
    return pd.Series({"mean error (ms)": error.mean(),
                      "mean absolute error (ms)": error.abs().mean(),
                      "correlation": part["fitted"].corr(part["true"]),
                      "spread of the true T1 (ms)": part["true"].std()})


dots.groupby(["way", "region"], sort=False)[["true", "fitted"]].apply(agreement).round(2)

# %% [markdown]
# **How to read it.** The fit to the true images shows what the method can do at all: noise, ghosts
# and the blur between tissues have their price. Blur of the *answers* costs more: it mixes the
# signals of blood and muscle, and pulls the T1 of the wall towards that of blood.
#
# A network that always answers with the *mean* T1 of the training patients has an error of about
# the spread of T1 and a correlation of 0. Look at the correlation: it says how much of the
# patient's own T1 was read from the source. One image cannot hold all of it, since one signal mixes
# T1, T2 and the density of protons.
#
# ### One image, or several
#
# Codes that are read from several images of a patient can be joined: each is a Gaussian, and their
# product is one as well (Wu & Goodman 2018).

# %%
joined = []
for images in (1, 2, 4):
    asked = contrast_scores.ask(test, 1, study.seed, images=images)
    given = contrast_scores.answers(generator, asked)
    table = contrast_scores.t1_table(given, asked, settings.flip).query("region == 'Myo'")
    ssim = mean_score(contrast_scores.likeness_values(given, asked)["ssim_target"],
                      given.patients, **options)
    t1 = mean_score((table["fitted"] - table["true"]).abs().to_numpy(),
                    table["patient"].to_numpy(), **options)
    joined += [{"sources": images, "metric": name, "value": s.value, "low": s.low, "high": s.high}
               for name, s in (("SSIM", ssim), ("error of T1, myocardium (ms)", t1))]
pd.DataFrame(joined).round(3)

# %% [markdown]
# ## Motion
#
# The same patients over a whole heartbeat, at phases between those of the training, as a cine. The
# cavity is found without a mask: bright blood around the axis of the ventricle, up to half way to
# the dark wall. Muscle within the cavity counts as wall where it lies at its edge, so this area is
# smaller than that of the mask. Both curves are measured in the same way. Where an answer is so
# blurred that no wall is dark, bright pixels run together, and its area is too large.

# %%
moments = np.arange(settings.moments) / settings.moments
beat = contrast.scan_patients(study, "test", contractions=motion_signal(moments), times=[cine])
asked = contrast_scores.ask(test, 1, study.seed, target=beat)
moving = contrast_scores.answers(generator, asked)
areas = contrast_scores.cavity_table({"true images": beat.slices, "C11": moving}, moments)
figures.publish(study, "16/cavity", contrast_scores.cavity_curves(
    areas, ["true images", "C11"], options), contrast_plots.cavity_curves,
    title="Area of the LV cavity over the heartbeat, mean of the test patients");

# %%
patients = areas["patient"].to_numpy()
still = areas.groupby("patient")["true images"].transform("first")  # as at end-diastole
error, floor = ((one - areas["true images"]).abs() for one in (areas["C11"], still))
motion = mean_score(error.to_numpy(), patients, n=len(areas), **options)
rows += with_system_columns(MANIFOLD, [motion.against(floor.mean(), 0.0).row(
    "cavity_error_cm2", "conditioning", "lower")])
rows += cost_rows(study, Run(MANIFOLD), generator, test.slices)
print("C11 and true images, correlation:", areas["C11"].corr(areas["true images"]).round(2))
print("the measure itself and the mask: ", areas["true images"].corr(areas["mask"]).round(2))

# %% [markdown]
# ### Between the inversion times of the training
#
# A manifold is smooth: the network must also be right where it was never trained. The next cell
# asks for phases and inversion times half way between those of the training.

# %%
def half_way(values):
    """Means of neighbours."""
    return (np.array(values[1:]) + np.array(values[:-1])) / 2


between = contrast.scan_patients(study, "test", contractions=half_way(settings.contractions),
                                 times=np.exp(half_way(np.log(settings.inversion_times))))
never = contrast_scores.ask(test, 1, study.seed, target=between)
new = contrast_scores.likeness_values(contrast_scores.answers(generator, never), never)
old = contrast_scores.likeness_values(made[MANIFOLD.id], questions)
pd.DataFrame({"states of the training": {name: np.nanmean(v) for name, v in old.items()},
              "states between them": {name: np.nanmean(v) for name, v in new.items()}}).round(3)

# %% [markdown]
# ## What do its images teach a segmenter?
#
# Of every *training* patient C11 sees one image and makes those in all states, whose labels are
# known. A **student** is a segmenter that learns from them alone and is tested on true images of
# test patients (**TSTR**: train on synthetic, test on real). It is trained as in notebook 17.
#
# - The *ceiling* is a student of the true images of the same patients.
# - The *source image unchanged* has a student as well: one image a patient, under the labels of all
#   phases.

# %%
learn = contrast_scores.ask(series["train"], 1, study.seed)
school = Students(study, STAGE, learn.target.slices, test.slices)
for name, images in {"source image unchanged": learn.unchanged,
                     MANIFOLD.id: contrast_scores.answers(generator, learn)}.items():
    rows += school.rows(named.get(name, name), school.taught(name, images))
results.write_scores(study, "16_contrast", rows)
table = pd.DataFrame(rows).query("axis == 'utility'")
table[["system", "metric", "value", "low", "high", "ceiling"]].set_index("system").round(3)

# %% [markdown]
# **How to read it.** The distance of C11 to the ceiling is the price of its blur, and of hearts
# that are not quite those of the labels: look at the first figure. The images unchanged are sharp,
# and their labels fit roughly, since a wall moves by a few pixels. Where their student is the
# better one, a segmenter learns more from sharp images with rough labels than from blurred ones.
#
# ## Check
#
# The true image as an answer must be perfect. An answer must show *its* patient: answers of other
# patients in their place are less like the truth. And the condition must reach the image: what the
# network answers at the first inversion time, where the blood has turned, and at the last differs.

# %%
perfect = contrast_scores.likeness_values(questions.target.slices, questions)
assert np.nanmin(perfect["ssim_target"]) > 0.999 and np.nanmax(perfect["mae_target"]) == 0
states, answer = len(test.states), made[MANIFOLD.id]
others = np.roll(np.arange(len(answer)), states)
shuffled = contrast_scores.likeness_values(
    replace(answer, images=answer.images[others]), questions)
loss = paired_difference(shuffled["ssim_target"], old["ssim_target"], answer.patients, **options)
print(f"SSIM {loss.value:+.3f} [{loss.low:+.3f}, {loss.high:+.3f}] with answers of other patients")
assert study.profile == "smoke" or loss.high < 0, "C11 does not follow its source"
ends = answer.images[block[TIME].argmin()], answer.images[block[TIME].argmax()]
reach = np.abs(ends[0] - ends[1]).mean()
assert reach > (0 if study.profile == "smoke" else 0.01), "the inversion time reaches no image"

# %% [markdown]
# ## Exercises
#
# ### 1. The best source
#
# From which inversion time is T1 read best? Group the error of T1 in the myocardium by the
# inversion time of the source. Which tissue is dark at the best one?

# %% tags=["solution"]
source_times = test.slices.table[TIME].to_numpy()[questions.sources[0]]
myocardium = maps[MANIFOLD.id].query("region == 'Myo'")
errors = (myocardium["fitted"] - myocardium["true"]).abs()
print(errors.groupby(source_times[myocardium["row"]]).agg(["median", "size"]).round(0))
# The table of null times says which tissue is dark near an inversion time; in a cine none is. One
# expects a cine to be the worst source: its steady state depends on T1/T2 only. Compare this with
# the table. Where the correlation above is near 0, the network reads no T1 of the patient's own
# from any source, and the order is chance.

# %% [markdown]
# ### 2. When is the muscle black?
#
# From T1 and T2, `null_time` gives the inversion time at which a tissue has no signal. Compute it
# for myocardium and blood of the patient in the recovery figure, with the median T1 of `test.t1`.
# At which inversion time of the study is each darkest in the true images? Do the two agree?

# %% tags=["solution"]
true_curve = pd.DataFrame(curves).query("what == 'true images'")
for region, label, tissue in (("Myo", 2, "myocardium"), ("LV", 1, "blood")):
    t1 = np.nanmedian(test.t1[first[0]][test.slices.masks[first[0]] == label])
    null = float(null_time(t1, times[tissue][1], settings.flip))
    part = true_curve[true_curve["region"] == region].set_index(TIME)["value"]
    print(f"{tissue}, T1 {t1:.0f} ms: black at {null:.0f} ms; darkest of "
          f"{sorted(settings.inversion_times)} is {part.idxmin():.0f} ms")
# The darkest image is one of the two whose inversion times lie around the null. Blood has a longer
# T1 than muscle and is black later. A study that is to null the muscle needs a time in between.

# %% [markdown]
# ### 3. One image, two answers
#
# A scanner stores the magnitude of the signal. Compute it with `recovery` for all T1 from 200 to
# 2500 ms, at the T2 of myocardium. Which T1 have, up to 0.02, the same magnitude as myocardium
# itself, at each inversion time alone? And at all of them together? Why are several sources better
# than one?

# %% tags=["solution"]
from cmri_lib.phantom.inversion_recovery import recovery

t1, t2 = times["myocardium"]
possible_t1, always = np.arange(200.0, 2501.0, 10.0), True
for time in [*sorted(settings.inversion_times), "all"]:
    if time == "all":
        alike = always
    else:
        signal = np.abs(recovery(possible_t1, t2, settings.flip, time))
        alike = np.abs(signal - np.abs(recovery(t1, t2, settings.flip, time))) < 0.02
        always = always & alike
    found = np.split(possible_t1[alike], np.flatnonzero(np.diff(possible_t1[alike]) > 10) + 1)
    print(f"TI {time}: T1", " or ".join(f"{part[0]:.0f}–{part[-1]:.0f} ms" for part in found))
# Before and after its null a tissue is equally bright, so one image can have two answers; a late
# one has nearly all. The true T1 alone fits every image. The earliest image would do by itself only
# if the steady state were known, the unit of these numbers: and it takes a late image to know it.

# %% [markdown]
# ## Summary

# %%
for other, found in gains.items():
    score = found["ssim_target"]
    print(f"SSIM, C11 minus {other}: {score.value:+.3f} [{score.low:+.3f}, {score.high:+.3f}]")
for row in rows:
    if row["system"] == MANIFOLD.id and row["metric"].startswith(("t1_error", "cavity")):
        print(f"{row['metric']}: {row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}], "
              f"floor {row['floor']:.2f}, true images {row['ceiling']:.2f}")

# %% [markdown]
# ## Limits
#
# - Virtual patients only. Their T1 varies from patient to patient, not within the muscle: a scar
#   has its own T1, but there is no diffuse fibrosis, no contrast agent, no partial inversion.
# - All blood is inverted. In a patient fresh blood flows in, and the heart rate limits which
#   inversion times can be had.
# - The motion signal is known. In the paper it is estimated from k-space, breathing included.
# - The encoder sees a complete image. The paper fits its generator to undersampled k-space of one
#   patient, and so has all of his or her data; here the code is all there is.
# - Contraction and filling pass through the same shapes, and all patients share one motion signal.
# - One training: the intervals are over patients, not over seeds.
#
# ## References
#
# - Zou, Priya, Nagpal, Jacob, "Joint Cardiac T1 Mapping and Cardiac Cine Using Manifold Modeling",
#   Bioengineering 10(3), 345, 2023,
#   [doi 10.3390/bioengineering10030345](https://doi.org/10.3390/bioengineering10030345).
# - Schmitt et al., "Inversion recovery TrueFISP: quantification of T1, T2, and spin density",
#   Magnetic Resonance in Medicine 51, 661–667, 2004.
# - Messroghli et al., "Modified Look-Locker inversion recovery (MOLLI) for high-resolution T1
#   mapping of the heart", Magnetic Resonance in Medicine 52, 141–146, 2004.
# - Barral et al., "A robust methodology for in vivo T1 mapping", Magnetic Resonance in Medicine 64,
#   1057–1067, 2010.
# - Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014,
#   [arXiv 1312.6114](https://arxiv.org/abs/1312.6114).
# - Wu & Goodman, "Multimodal Generative Models for Scalable Weakly-Supervised Learning", NeurIPS
#   2018, [arXiv 1802.05335](https://arxiv.org/abs/1802.05335).
