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
# # 14 · Image to image: the heart contracted, on another scanner, from an eighth of its data
#
# **Which profile shows what.** The profile `laptop` shows how things work, not which family wins;
# `overnight` is the budget for verdicts. `smoke` only tests that the code runs; its images are
# poor.
#
# **Question.** Given the heart when it is full (end-diastole, ED), what does it look like when it
# has contracted (end-systole, ES)? What does it look like on a scanner of another maker? And what
# does it look like if the scanner measures only a quarter or an eighth of the data? All three are
# **paired translation**: each source image has one true target image. So, unlike in most notebooks,
# every sample can be held against *its* truth.
#
# **What the review says.** For paired translation a GAN (Pix2Pix) beats diffusion and flow matching
# in structure and in cost (claim F4). The systems are those of C17 for the first two questions. For
# the third it is C19, a conditional GAN for reconstruction.
#
# | system | family | how the source enters |
# |---|---|---|
# | C17 Pix2Pix | GAN | input of the generator, and of the critic |
# | C17 diffusion | diffusion | a plane beside the noisy image |
# | C17 Concat-FM | flow matching | a plane beside the noisy image |
# | C17 Direct-FM | flow matching | the flow *starts* from it: there is no noise |
# | C19 RecCGAN | GAN | input of the generator, and of the critic; losses in image and k-space |
# | C19 U-Net | none | the same generator and losses, without a critic |
#
# ## Method
#
# A **pair** is one slice of one scan at both phases. Both phases are cropped alike, so the chest
# wall lies on the chest wall; only what moves differs. Between vendors a pair is one slice of one
# heart, scanned twice (below). All systems of a question learn from the same pairs of training
# patients, from random weights.
#
# **Pix2Pix** (Isola et al. 2017) predicts the target from the source and has two losses: the
# distance to the true target, pixel by pixel, and that of a critic who must take the pair for real.
#
# **Conditional diffusion and Concat-FM** start from noise $x_0$, see the source $s$ in a plane of
# their own, and learn $p(x_1 \mid s)$: many targets for one source, if they are equally likely.
#
# **Direct-FM** puts the source in the place of the noise. Along the straight line
# $x_t = (1-t)\,s + t\,x_1$ a network learns the velocity
#
# $$ \mathcal L = \mathbb E_{t, (s, x_1)} \bigl\| v_\theta(x_t, t) - (x_1 - s) \bigr\|^2 . $$
#
# A source has one translation then. Where the contraction cannot be foretold from the full heart,
# it can only be a mean of what might follow.
#
# ### What is measured
#
# - **SSIM** (structural similarity) and **PSNR** (peak signal-to-noise ratio), between translation
#   and true target, in the heart and 10 mm around it. Floor: the source *unchanged*. It is a
#   translation as well, and a system that does not beat it has learnt nothing. Noise and the
#   contraction itself cannot be foretold, so 1 is out of reach.
# - **Dice** of the labels that the frozen segmenter finds in the translation, with those of the
#   true target. Ceiling: what it finds in the true target itself.
# - **Seconds per image**.
# - **Use as training data**: the Dice of a segmenter that has learnt from translations alone, on
#   true targets of test patients.
#
# Intervals are 95 % bootstrap intervals over test patients.

# %% tags=["parameters"]
profile = None  # None: as params.yaml says
dataset = None

# %%
from dataclasses import replace

import numpy as np
import pandas as pd

from cmri_lib.cohort import paired_scans, requirements
from cmri_lib.cohort.phase_pairs import phase_pairs
from cmri_lib.cohort.slices import Slices
from cmri_lib.cohort.undersampling import measured_lines, undersampled
from cmri_lib.config.study import open_study
from cmri_lib.errors import NothingToDo
from cmri_lib.experiments.banks import sampling_conditions
from cmri_lib.experiments.instruments import feature_spaces, load_slices, segmenter
from cmri_lib.experiments.parallel import train_all
from cmri_lib.experiments.training import cost_rows, train_or_load

# %%
from cmri_lib.experiments import vendor_pairs
from cmri_lib.experiments.students import Students
from cmri_lib.experiments.translation import (
    Truth, histogram_matched, of_another_patient, recognised)
from cmri_lib.generators.base import batch_of, draw
from cmri_lib.measures.conditioning.condition_accuracy import train_condition_classifier
from cmri_lib.measures.cost import log_time_ratio
from cmri_lib.reporting import claims, figures, plots, results
from cmri_lib.systems.system import runs
from cmri_lib.systems.translation import ACROSS_VENDORS, CONTRACTION, RECONSTRUCTION, STAGE

# %% [markdown]
# ### The data
#
# The next cell opens the study and counts the pairs of each split. A cohort without both phases
# has none; then nothing of this notebook can be done, and it says so.

# %%
study = open_study(profile, dataset)
params = study.params
figures.use_style()
slices = load_slices(study)
outlook = requirements.outlook(slices)
print(f"profile {study.profile}, cohort {study.dataset}: {outlook.left_out('14')}")
outlook.need("translation between phases (F4)", otherwise=NothingToDo)
pairs = phase_pairs(slices).table
pairs.groupby("split").agg(patients=("patient", "nunique"), pairs=("patient", "size"))

# %% [markdown]
# Patients of the test split are translated. Whole scans are drawn, at least one of every patient
# before any second one.

# %%
options = {"seed": study.seed, "resamples": params.fidelity.resamples}
whole = sampling_conditions(slices, 2 * params.samples, study.seed)
tested = slices.where(scan=list(dict.fromkeys(whole.table["scan"])), split="test")
truth = Truth(phase_pairs(tested), segmenter(study, slices), options)
print(len(truth.pairs), "pairs of", len(set(truth.pairs.patients)), "test patients")

# %% [markdown]
# ## Training
#
# About equal compute on an idle core, as in notebooks 02 to 05. The table of costs below has the
# measured times, which also depend on what else the machine did.

# %%
systems = runs(CONTRACTION.values())
train_all(study, systems, slices)
generators = {run.id: train_or_load(study, run, slices) for run in systems}
made = {name: draw(generator, truth.pairs, name, seed=study.seed)
        for name, generator in generators.items()}

# %% [markdown]
# ## Look at them
#
# Each column is one slice: the source, the true target, and what each system makes of the source.
# Outlines are the true labels of the *target*. A translation shows the patient it was made from, so
# the files hold this figure for the phantom alone.

# %%
some = np.flatnonzero((truth.pairs.table["level"] == "mid").to_numpy())
some = some[np.linspace(0, len(some) - 1, min(8, len(some))).astype(int)]
shown = {"source: ED": truth.copied, "true target: ES": truth.pairs} | made
figures.publish_slices(study, "14/samples", {name: each.take(some) for name, each in shown.items()},
                       derived=True, title="One slice a column: translations of test patients, "
                                           "with the labels of the true target");

# %% [markdown]
# **How to read it.** The cavity must shrink and the wall must thicken *to the outline*. A copy of
# the source overlaps the outline. Blur at the edge of the cavity is a mean of several contractions.
#
# ## Scores

# %%
rows = truth.rows("source unchanged", truth.copied)
for run in systems:
    rows += truth.rows(run, made[run.id])
    rows += cost_rows(study, run, generators[run.id], truth.pairs, images=8)
table = pd.DataFrame(rows)
chosen = ("ssim_target", "psnr_target", "dice_LV", "dice_Myo", "dice_mean", "seconds_per_image")
figures.publish(study, "14/scores", table[table["metric"].isin(chosen)], plots.score_plot,
                title="Translation of end-diastole into end-systole, test patients");

# %%
wide = table.pivot_table(index="system", columns="metric", values="value", sort=False)
wide[[name for name in (*chosen, "training_seconds", "nfe") if name in wide]].round(3)

# %% [markdown]
# **How to read it.** In SSIM and PSNR the dash-dotted line is the source unchanged, in Dice another
# patient's mask. The dashed line is the true image. SSIM and PSNR reward what is likely *pixel by
# pixel*: a mean of all possible contractions has the best PSNR and shows no sharp heart. Dice asks
# where the heart is. So a system can lead in one and trail in the other.
#
# ## Claim F4
#
# The primary test asks for four things at once: Pix2Pix must be ahead of Concat-FM *and* of
# diffusion in Dice, and take less time than either. Times are taken in turns, so that what else the
# machine does falls on both.

# %%
few = truth.pairs.take(np.arange(min(4, len(truth.pairs))))


def sampler(name):
    """Draws so many images of a system."""
    generator = generators[name]
    given = {key: values.to(generator.device) for key, values in batch_of(
        few, generator.conditioning).items()}
    noise = given["image"].new_ones(len(few), *generator.noise_shape(slices.size)).normal_()
    return lambda images: generator.sample(noise[:images],
                                           {k: v[:images] for k, v in given.items()})


def versus(name, metric):
    """Pix2Pix minus another system."""
    if metric == "log10_seconds_ratio":
        return log_time_ratio(sampler("C17 Pix2Pix"), sampler(name), images=len(few))
    return truth.difference(made["C17 Pix2Pix"], made[name], metric)

# %%
ledger = claims.Ledger()
rivals = ["C17 Concat-FM", "C17 diffusion"]
ledger.primary("F4", *(versus(name, metric) for metric in ("dice_mean", "log10_seconds_ratio")
                       for name in rivals), parties=["C17 Pix2Pix", *rivals])
for name in made:
    gain = truth.difference(made[name], truth.copied, "ssim_target")
    ledger.explore("F4", f"{name} − the source unchanged", gain, "ssim_target", "above")
for metric in ("ssim_target", "psnr_target", "dice_mean"):
    for name in (*rivals, "C17 Direct-FM"):
        ledger.explore("F4", f"C17 Pix2Pix − {name}", versus(name, metric), metric, "above")
ledger.table()

# %% [markdown]
# ## How much of it is foretold, how much made up?
#
# Concat-FM and diffusion can be asked twice: two noises, one source. Where the two answers differ,
# the source did not decide. Direct-FM has no noise and Pix2Pix hardly uses its own.

# %%
again = {name: draw(generator, truth.pairs, name, seed=study.seed + 1)
         for name, generator in generators.items()}


def apart(first, second):
    """Mean absolute difference of intensities in the region of the heart."""
    return float(np.abs(first.images - second.images)[:, 0][truth.region].mean())


spread = pd.DataFrame({"between two answers": {n: apart(made[n], again[n]) for n in made},
                       "to the truth": {n: apart(made[n], truth.pairs) for n in made}})
spread.round(3)

# %% [markdown]
# ## From one vendor's scan to another's
#
# A patient was scanned on a scanner of 1.5 T; what would the image be at 3 T, by another maker? The
# heart is the same, and hardly moves between the two images: what differs is contrast, sharpness,
# noise and shading. So here, unlike above, much of the target can be foretold, but not its noise.
#
# One direction is tested, from vendor A to vendor C (`translation.vendors` of `params.yaml`). A is
# one of the two vendors that the segmenters of notebook 10 learn from, C one of those that they
# have never seen; and between 1.5 T and 3 T the contrast itself changes.
#
# **Where pairs come from.** In a cohort the patients whom several vendors have scanned are few. The
# phantom's ten are all **test** patients. There they stay, for their true scans are what the
# translations are held against. A virtual patient can be scanned again: the *training* patients of
# the cohort are scanned once more by both vendors, at the same heights. Another cohort has no such
# pairs, and leaves this section out.
#
# **Registration.** Each scan is cropped around its own detection. The source is laid onto the
# target by the whole pixel at which most labels agree, in training and in test alike; about half a
# pixel is left and costs every system some likeness.
#
# **Nulls.** *Source unchanged*: the right heart in the wrong style. *Another patient*: a true scan
# by the target vendor at the same phase and height, the right style in the wrong heart. *Histogram
# matching*: the grey values of each source scan are mapped so that their quantiles are those of the
# target vendor's training scans. It is classical, costs nothing, and knows no place.

# %%
paired = bool(outlook["true scans of one heart"]) and study.dataset == vendor_pairs.DATASET
learnt = across = None
if paired:
    first, second = vendor_pairs.vendor_names(study)
    learnt = vendor_pairs.training_pairs(study, slices)
    true_scans = paired_scans.vendor_pairs(slices.where(split="test"), first, second)
    across = Truth(true_scans, truth.segment, options)
    assert not set(learnt.patients) & set(true_scans.patients), "a test patient was learnt from"
    for some, whose in ((learnt, "training and validation"), (true_scans, "test")):
        count = len(set(some.patients))
        print(f"{first} → {second}: {len(some)} pairs of {count} {whose} patients")
else:
    print("left out:", outlook["true scans of one heart"].why or "nobody can be scanned again")

# %% [markdown]
# The same four systems are trained for as many steps as above.

# %%
movers = runs(ACROSS_VENDORS) if paired else []
train_all(study, movers, learnt)
movers_trained = {run.id: train_or_load(study, run, learnt) for run in movers}
moved = {name: draw(generator, across.pairs, name, seed=study.seed)
         for name, generator in movers_trained.items()}
nulls = {}
if paired:
    nulls = {"source unchanged, vendors": across.copied,
             "another patient, vendors": of_another_patient(across.pairs),
             "histogram matching, vendors": histogram_matched(
                 across.pairs, learnt.where(split="train"))}

# %% [markdown]
# ### Look at them
#
# Each column is one slice of a test patient. Outlines are the true labels.

# %%
def errors(some):
    """Translation minus truth: grey where they agree, white where the translation is brighter."""
    gap = np.clip(some.images - across.pairs.images, -1, 1)
    return Slices(gap.astype(np.float32), some.masks, some.table)


named = {name.removesuffix(", vendors"): some for name, some in (nulls | moved).items()}
if paired:
    middle = np.flatnonzero((across.pairs.table["level"] == "mid").to_numpy())
    eight = middle[np.linspace(0, len(middle) - 1, min(8, len(middle))).astype(int)]
    shown = {"true scan": across.pairs} | named
    figures.publish_slices(study, "14/vendors", {n: s.take(eight) for n, s in shown.items()},
                           title=f"One slice a column, {first} → {second}: nulls, then systems")

# %%
if paired:
    gaps = {name: errors(some).take(eight) for name, some in named.items()}
    figures.publish_slices(study, "14/vendor_errors", gaps, outline=False,
                           title="The same slices: what is brighter and darker than the true scan")

# %% [markdown]
# **How to read it.** In the first figure follow one column: the wall must stay on the outline, and
# blood, fat and noise must look as in the true scan. In the second figure, grey is right. An edge
# that shows is a heart in another place, or a sharper or softer image; a wide cloud is shading; a
# fine grain is noise, which nobody can foretell.
#
# ### Scores
#
# Beside the measures from above, the **vendor accuracy** is the share of translations that a frozen
# classifier takes for the target vendor's, among all vendors. It was fitted on real training
# slices, as in notebook 07. The floor is chance, the ceiling its answer to the true scans.

# %%
across_rows, judge = [], None
if paired:
    seen = slices.where(split="train", source="real")
    judge = train_condition_classifier(seen, feature_spaces(study, slices)[0], "vendor")
for name, some in nulls.items():
    across_rows += across.rows(name, some)
    across_rows += results.with_system_columns(name, [recognised(across, some, judge)])
for run in movers:
    across_rows += across.rows(run, moved[run.id])
    across_rows += results.with_system_columns(run, [recognised(across, moved[run.id], judge)])
    across_rows += cost_rows(study, run, movers_trained[run.id], across.pairs, images=8)

# %%
if paired:
    table = pd.DataFrame(across_rows)
    judged = ("ssim_target", "psnr_target", "dice_mean", "accuracy_vendor", "seconds_per_image")
    figures.publish(study, "14/vendor_scores", table[table["metric"].isin(judged)],
                    plots.score_plot, title=f"Translation of {first} into {second}, test patients")

# %%
if paired:
    wide = table.pivot_table(index="system", columns="metric", values="value", sort=False)
    print(wide[[name for name in (*judged, "training_seconds") if name in wide]].round(3))

# %% [markdown]
# **How to read it.** Here Dice can only be lost: the source has the right heart already, and the
# segmenter knows both vendors. A system is worth its training if it beats *histogram matching* in
# SSIM and PSNR, is taken for the target vendor, and loses no Dice. *Another patient* is taken for
# the target vendor as often as a true scan is, and is no translation: the vendor accuracy alone
# says nothing of the heart.
#
# The primary test of F4 was stated for ED → ES alone, before this section was there. What follows
# is exploratory.

# %%
best_null = "histogram matching, vendors"
for name in moved:
    for metric in ("ssim_target", "dice_mean"):
        gain = across.difference(moved[name], nulls[best_null], metric)
        ledger.explore("F4", f"{name}: {name.split(',')[0]} − histogram matching", gain, metric,
                       "above")
for name in moved:
    for metric in ("ssim_target", "psnr_target", "dice_mean") if "Pix2Pix" not in name else ():
        gain = across.difference(moved["C17 Pix2Pix, vendors"], moved[name], metric)
        ledger.explore("F4", f"C17 Pix2Pix, vendors − {name}", gain, metric, "above")
results.write_claims(study, "14_translation", ledger.rows)
tests = ledger.table()
tests[tests["test"].str.contains("vendors")]

# %% [markdown]
# ## Reconstruction
#
# A scanner does not measure an image but its Fourier transform, **k-space**, one line after the
# other. To be four times as fast it measures a quarter of the lines: all near the centre, which
# holds the contrast, and others at random. With zeros for the missing lines the heart is blurred
# and folded onto itself (**zero-filled**). The target is the image of all lines.
#
# Here k-space is made from the magnitude images of the cohort, with a smooth phase of each slice's
# own. So it tells systems apart, and says little about a real scanner with its coils.
#
# Both systems have the loss
#
# $$ \lambda \, \mathbb E\, |\hat x - x| + \lambda_k \, \mathbb E\, |F \hat x - F x|, $$
#
# where $F$ is the Fourier transform; the GAN adds the critic's.

# %%
times = params.translation.accelerations
faster = {run.id: run for k in times for run in runs(RECONSTRUCTION[k])}
train_all(study, faster.values(), slices)
whole = tested.take(np.arange(min(len(tested), 2 * params.samples)))
filled = {k: Truth(undersampled(whole, k), truth.segment, options) for k in times}
rebuilt = {run.id: draw(train_or_load(study, run, slices), filled[k].pairs, run.id)
           for k in times for run in runs(RECONSTRUCTION[k])}

# %%
pieces = [filled[k].rows(f"zero-filled, {k} ×", filled[k].copied) for k in times]
pieces += [filled[k].rows(run, rebuilt[run.id]) for k in times for run in runs(RECONSTRUCTION[k])]
again_rows = [row for piece in pieces for row in piece]
costs = [row for k in times for run in runs(RECONSTRUCTION[k]) for row in
         cost_rows(study, run, train_or_load(study, run, slices), filled[k].pairs, images=8)]
table = pd.DataFrame(again_rows)  # likeness has a floor for each acceleration: the zero-filled rows
table.loc[table["metric"].isin(["ssim_target", "psnr_target"]), "floor"] = np.nan
figures.publish(study, "14/reconstruction", table[table["metric"].isin(chosen)], plots.score_plot,
                title="Images from a fraction of their k-space, test patients");

# %%
middle = np.flatnonzero((whole.table["level"] == "mid").to_numpy())
middle = middle[np.linspace(0, len(middle) - 1, min(8, len(middle))).astype(int)]
shown = {"all lines": whole}
for k in times:
    shown[f"zero-filled, {k} ×"] = filled[k].copied
    shown |= {run.id: rebuilt[run.id] for run in runs(RECONSTRUCTION[k])}
figures.publish_slices(study, "14/rebuilt", {name: s.take(middle) for name, s in shown.items()},
                       outline=False, derived=True,
                       title="One slice a column: the same heart from fewer lines");

# %% [markdown]
# The next figure follows one slice: the lines of its k-space that are measured (bright: large, on a
# logarithmic scale; black: not measured), and what is made of them.

# %%
def from_lines(k, one):
    """One slice at an acceleration: name of a picture → the picture."""
    lines = np.log10(np.abs(measured_lines(whole.images[one, 0], k)) + 1e-3)
    pictures = {"measured k-space": lines, "zero-filled": filled[k].copied.images[one, 0]}
    pictures |= {run.id.partition(",")[0]: rebuilt[run.id].images[one, 0]
                 for run in runs(RECONSTRUCTION[k])}
    return pictures | {"all lines": whole.images[one, 0]}


figures.publish_images(study, "14/k_space", {f"{k} ×": from_lines(k, middle[0]) for k in times},
                       title="One slice: the lines that are measured, and what is made of them");

# %% [markdown]
# **How to read it.** Look at papillary muscles, the valves and the border of the wall: what is
# there with all lines must be there with fewer, and nothing else. A critic rewards images that
# *look* measured. Whether what it adds is true, SSIM and Dice say. The next cell has the paired
# difference.

# %%
judged = ("ssim_target", "psnr_target", "dice_mean")
critic = {}
for k in times:
    both = [rebuilt[run.id] for run in runs(RECONSTRUCTION[k])]
    critic[k] = {metric: filled[k].difference(*both, metric) for metric in judged}
pd.DataFrame([{"acceleration": k, "RecCGAN − U-Net": metric, "difference": score.value,
               "low": score.low, "high": score.high}
              for k, found in critic.items() for metric, score in found.items()]).round(3)

# %% [markdown]
# ## What do translations teach a segmenter?
#
# A **student** is a segmenter that learns from translations alone, under the labels of their
# targets, and is tested on true targets of test patients (**TSTR**: train on synthetic, test on
# real). All students of a question have the same network, as many images under the same labels, and
# as many steps as those of notebook 09.
#
# - The *ceiling* is a student of the true targets.
# - The *nulls* are students of the sources as they are, under the labels of the targets, and
#   between vendors one of matched histograms.
#
# Here *training* patients are translated, for no label of a test patient may be learnt from. The
# systems have met these patients, so their translations are better than those of new ones would be.

# %%
def given(images, learn, trained):
    """Name → what a student learns from: nulls, the sources as they are first, and systems."""
    taken = {name: replace(learn, images=some) for name, some in images.items()}
    return taken | {name: draw(generator, learn, name, seed=study.seed)
                    for name, generator in trained.items()}


train = slices.where(split="train", source="real")
moving = phase_pairs(train)
samples = given({"source unchanged": moving.partners}, moving, generators)
questions = [("contraction", moving, truth, samples)]

# %%
if paired:
    twice = learnt.where(split="train")
    images = {"source unchanged, vendors": twice.partners,
              "histogram matching, vendors": histogram_matched(twice, twice).images}
    questions.append(("vendors", twice, across, given(images, twice, movers_trained)))
for k in times:
    trained = {run.id: train_or_load(study, run, slices) for run in runs(RECONSTRUCTION[k])}
    fewer = undersampled(train, k)
    samples = given({f"zero-filled, {k} ×": fewer.partners}, fewer, trained)
    questions.append(("reconstruction", fewer, filled[k], samples))

# %%
named = {run.id: run for run in (*systems, *movers, *faster.values())}
taught, gains = {}, []
for question, learn, held, samples in questions:
    school = Students(study, STAGE, learn, held.pairs, question)
    null = next(iter(samples))
    students = {f"true targets, {question}": school.ceiling} | {
        name: school.taught(name, some) for name, some in samples.items()}
    for name, student in students.items():
        taught[name] = school.rows(named.get(name, name), student)
        gain = school.difference(student, students[null])
        gains.append({"student of": name, "compared with": null, "Dice": gain.value,
                      "low": gain.low, "high": gain.high})

# %%
learnt_rows = [row for some in taught.values() for row in some]
everything = rows + across_rows + again_rows + costs + learnt_rows
results.write_scores(study, "14_translation", everything)
table = pd.DataFrame(learnt_rows)  # each question has a ceiling of its own: the true targets' rows
figures.publish(study, "14/students", table.assign(floor=np.nan, ceiling=np.nan), plots.score_plot,
                title="Segmenters that learnt from translations alone, on true test images")
pd.DataFrame(gains).set_index("student of").round(3)

# %% [markdown]
# **How to read it.** Compare each system with the true targets and with the null of its question.
# Under the labels of the contracted heart, the *full* heart teaches wrong edges; under labels that
# fit, as between vendors and from fewer lines, a null is as right as its images are like those of
# the test. Where a null reaches the true targets, a translation cannot be worth anything as
# training data. The table has the paired differences in Dice.
#
# ## Check
#
# The true target as a translation must reach the ceiling, and Direct-FM must not read its noise. A
# system must follow *its* source: with the sources of other patients in their place, its
# translations are less like the truth. Between vendors as well; and there another patient's true
# scan must be less like the truth than the source unchanged. And a student of full hearts under the
# labels of contracted ones must be worse than one of hearts that fit.

# %%
perfect = {row["metric"]: row for row in truth.rows("truth", truth.pairs)}
assert np.isclose(perfect["ssim_target"]["value"], 1, atol=1e-4)
assert np.array_equal(made["C17 Direct-FM"].images, again["C17 Direct-FM"].images)
others = np.roll(np.arange(len(truth.pairs)), len(truth.pairs) // 2)
for name in made:
    wrong = Slices(made[name].images[others], made[name].masks, made[name].table)
    loss = truth.difference(wrong, made[name], "ssim_target")
    print(f"{name}: SSIM {loss.value:+.3f} [{loss.low:+.3f}, {loss.high:+.3f}], others' sources")
    assert study.profile == "smoke" or loss.high < 0, f"{name} does not follow its source"
wrong_edges = gains[0]  # what true targets teach, minus what the full heart teaches
assert study.profile == "smoke" or wrong_edges["low"] > 0, "students do not learn from labels"

# %%
for name in moved:
    others = np.roll(np.arange(len(across.pairs)), len(across.pairs) // 2)
    wrong = Slices(moved[name].images[others], moved[name].masks, moved[name].table)
    loss = across.difference(wrong, moved[name], "ssim_target")
    print(f"{name}: SSIM {loss.value:+.3f} [{loss.low:+.3f}, {loss.high:+.3f}], others' sources")
    assert study.profile == "smoke" or loss.high < 0, f"{name} does not follow its source"
if paired:
    stranger, same = nulls["another patient, vendors"], nulls["source unchanged, vendors"]
    assert across.difference(stranger, same, "ssim_target").high < 0, "pairs do not belong together"

# %% [markdown]
# ## Exercises
#
# ### 1. The hardest hearts
#
# Take the SSIM of each translation of Concat-FM, and its mean by level of the heart and by disease.
# Which hearts are hardest to foretell, and why?

# %% tags=["solution"]
hardest = truth.pairs.table.assign(ssim=truth.likeness(made["C17 Concat-FM"])["ssim_target"])
print(hardest.groupby("level")["ssim"].mean().round(3).to_dict())
print(hardest.groupby("disease")["ssim"].mean().round(3).to_dict())
# Near the base the heart moves most along its axis as it contracts: what comes into view, valves
# and vessels among them, was not in the source. Near the apex there is little heart to foretell.

# %% [markdown]
# ### 2. The mean of two answers
#
# Concat-FM was asked twice. Take the mean of its two answers, pixel by pixel, and compare it with
# one answer in PSNR, SSIM and Dice. By how many dB can the PSNR rise at most? Which of the two
# images would you show to a cardiologist?

# %% tags=["solution"]
first, second = made["C17 Concat-FM"], again["C17 Concat-FM"]
mean = Slices((first.images + second.images) / 2, first.masks, first.table)
for metric in ("psnr_target", "ssim_target", "dice_mean"):
    rise = truth.difference(mean, first, metric)
    print(f"{metric}: {rise.value:+.3f} [{rise.low:+.3f}, {rise.high:+.3f}]")
# The error of an answer has a part that all answers share, and one of its own. The mean halves the
# square of the second: at most 10 log10(2) = 3 dB. So a mean, which is blurred and shows a heart
# that cannot be, is nearer to the truth in PSNR than any single answer that could be true.

# %% [markdown]
# ### 3. What a quarter of the lines holds
#
# By Parseval's theorem the energy of an image is that of its k-space. How large is the share of the
# energy in the lines that are measured, and how large is their share of all lines? Why does the
# zero-filled image look so much worse than the first share suggests?

# %% tags=["solution"]
one, held = whole.images[middle[0], 0], {}
every = np.abs(measured_lines(one, 1)) ** 2
for k in times:
    lines = np.abs(measured_lines(one, k)) ** 2
    held[f"{k} ×"] = {"share of lines": (lines.sum(axis=0) > 0).mean(),
                      "share of energy": lines.sum() / every.sum()}
pd.DataFrame(held).T.round(3)
# Nearly all of the energy is the mean and the slow changes of the image, in the few lines of the
# centre. Edges have little energy, but they are all that tells a wall from its cavity.

# %% [markdown]
# ## Summary

# %%
for name in made:
    gain = truth.difference(made[name], truth.copied, "ssim_target")
    print(f"{name}, SSIM over the source unchanged: "
          f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]")
for name in moved:
    gain = across.difference(moved[name], nulls[best_null], "ssim_target")
    print(f"{name}, SSIM over histogram matching: "
          f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]")
for k, found in critic.items():
    score = found["ssim_target"]
    print(f"{k} ×, RecCGAN − U-Net, SSIM: "
          f"{score.value:+.3f} [{score.low:+.3f}, {score.high:+.3f}]")
print("F4:", next(row["verdict"] for row in ledger.rows if row["primary"]))

# %% [markdown]
# ## Limits
#
# - The contraction is the easiest part of the cine: two phases of one breath-hold, already aligned.
# - Between vendors one direction is tested, on ten virtual patients, whose breath-holds are the
#   same on both scanners. Real patients who are scanned twice breathe differently and come another
#   day; and their pairs are too few to learn from, so systems without pairs are used there.
# - k-space is computed from images that are already magnitude, resampled and cropped. Nobody should
#   read an acceleration for a clinic from it.
# - One training of each system: the intervals are over patients, not over seeds.
# - The patch critic and the L1 weight of Pix2Pix are those of C1 in notebook 07, not tuned for
#   translation.
#
# ## References
#
# - Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017,
#   [arXiv 1611.07004](https://arxiv.org/abs/1611.07004).
# - Saharia et al., "Palette: Image-to-Image Diffusion Models", SIGGRAPH 2022,
#   [arXiv 2111.05826](https://arxiv.org/abs/2111.05826).
# - Shaul et al., "Subsampled brain MRI reconstruction by generative adversarial neural networks",
#   Medical Image Analysis 65, 2020.
# - Lipman et al., "Flow Matching for Generative Modeling", ICLR 2023,
#   [arXiv 2210.02747](https://arxiv.org/abs/2210.02747).
