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
# # 11 · Privacy: who was learnt from, and who was copied
#
# **Which profile shows what.** The profile `smoke` only tests that the code runs: its audits have
# no power, and say so. `laptop` shows how an audit works. Use `overnight`, and a larger cohort,
# for verdicts.
#
# **Question.** Can somebody who holds a generator, or only its samples, find out whose scans it was
# trained on? Are there copies of training scans among the samples? And how much would we have
# noticed?
#
# **What the review says.** Few studies of synthetic cardiac MRI measure privacy at all. Plain
# membership attacks are weak, and one on mid frequencies (FCRE) is stronger (claim R1). Nearest
# neighbours expose leakage, most of all where data are few (R2). Clusters of samples around one
# patient betray memory (R3). Models conditioned on the vendor leak through traits of the scanner
# (R4). Deterministic flow models leak more than stochastic ones (R5). Early stopping, augmentation,
# de-duplication and filtering lower memorisation at little cost (R7).

# %% [markdown]
# ## Method
#
# ### Terms
#
# - A **member** is a patient whose slices a generator has learnt from. A **non-member** is one whom
#   it has never seen. Both are patients, never slices: the slices of one patient resemble each
#   other, so a patient on both sides would make any attack look good.
# - A **membership attack** gives every slice a score, higher for likelier members. A patient's
#   score is the mean over his or her slices.
# - The **AUC** is the chance that a member scores above a non-member; 0.5 is guessing.
# - The **true-positive rate at 1 % false alarms** is the share of members that can be named while
#   at most one non-member in a hundred is named wrongly. An attack can be useless on average and
#   still name a few people with certainty, so this number matters more.
# - A **near copy** is a sample that lies nearer to a training slice than 99 % of the slices of
#   held-out patients do. (In notebooks 06 to 08 the limit is 95 %, and test patients set it.)

# %% [markdown]
# ### Attacks
#
# Let $x_u = a_u x_0 + b_u \varepsilon$ be a noisy image at time $u$, from 0 (image) to 1 (noise);
# flows of notebook 05 count the other way. $\hat\varepsilon(x_u)$ is the noise that the network
# sees in it. Attacks on **diffusion and flow matching** ask where the network errs less than it
# should:
#
# - denoising loss, $\|\hat\varepsilon(x_u) - \varepsilon\|^2$, mean over draws of the noise
#   (Matsumoto et al. 2023);
# - SecMI: one deterministic step there and back (Duan et al. 2023);
# - PIA, PIAN: the noise that the network sees in the image itself replaces the random one
#   (Kong et al. 2024);
# - SimA: the norm of that noise (Rao et al. 2025);
# - FCRE: the error of a reconstruction in one band of frequencies (Zhao et al. 2025);
# - the likelihood by the probability-flow ODE (Song et al. 2021).
#
# **VAE**: the evidence lower bound. **MaskGIT**: the likelihood of hidden tokens. **GAN**: what the
# critic says (Hayes et al. 2019). VAE and GAN: how closely the generator can be made to show the
# image (Chen et al. 2020). **All**: PFAMI, the score minus that of images slightly beside it (Fu et
# al. 2023); a GAN has no density, so the output of its critic takes that place.
#
# From **samples alone**: the distance to the nearest sample, and the density of samples against
# that of other real patients (DOMIAS, van Breugel et al. 2023).
#
# With **shadow models**, the same system trained on other halves of the patients: LiRA (Carlini et
# al. 2022) and RMIA (Zarifzadeh et al. 2024).

# %% [markdown]
# ### Rules of a fair audit
#
# 1. **Settings are chosen on other patients than those that are scored.** Each attack has times,
#    norms or bands to choose. Patients fall into two halves, and each half is scored with what
#    suits the other best.
# 2. **Positive control.** The same system, overfitted on a few slices, must be caught. An attack
#    that fails there has no power, and its failure elsewhere says nothing.
# 3. **Null.** Two halves of the held-out patients must look alike to the strongest attack. (Of many
#    intervals of 95 % one in twenty misses, so the others may stray.)
# 4. **Blind baseline.** A classifier that never asks the generator must fail. If it succeeds, the
#    two groups differ in other ways, for example in their scanners. Its features, like those of all
#    attacks on samples, have learnt from nobody: a network that was trained on members would
#    recognise them by itself.
# 5. **Planted copies.** Training slices, as they are and in disguise, are mixed in and must be
#    found.
#
# An audit that misses a control is *broken*. It is never reported as "private".

# %% tags=["parameters"]
profile = None  # None: as params.yaml says
dataset = None

# %%
import numpy as np
import pandas as pd
from sklearn.metrics import roc_curve

from cmri_lib.cohort import requirements
from cmri_lib.cohort.slices import concatenate
from cmri_lib.config.study import open_study
from cmri_lib.errors import NothingToDo
from cmri_lib.experiments import learning_curves, training
from cmri_lib.experiments.attack_choices import access_table, settings_summary, settings_table
from cmri_lib.experiments.evaluator import Evaluator
from cmri_lib.experiments.instruments import load_slices
from cmri_lib.experiments.leakage_drivers import LeakageAndQuality, equality, guided_samples
from cmri_lib.experiments.near_versions import versions_table
from cmri_lib.experiments.parallel import train_all
from cmri_lib.experiments.power_audit import PowerAudit

# %%
from cmri_lib.experiments.privacy_audit import NULL, PrivacyAudit, facts
from cmri_lib.experiments.privacy_runs import (
    audit_runs, guided_run, overfitted, shadows_possible, vendor_runs)
from cmri_lib.experiments.rare_groups import RareGroups
from cmri_lib.experiments.safeguards import CLAIMED, NONE, SAFEGUARDS, SYSTEM, Safeguards
from cmri_lib.measures.statistics.bootstrap import score_difference
from cmri_lib.privacy.attack import auc_difference, fpr_note, score_of
from cmri_lib.privacy.controls import EXACT
from cmri_lib.privacy.setting_scores import ALL
from cmri_lib.reporting import (
    claims, figures, leakage_plots, metrics, primary_tests, privacy_plots, privacy_report, results,
    utility_plots)
from cmri_lib.reporting.privacy_metrics import ATTACKS
from cmri_lib.systems.register import system
from cmri_lib.systems.system import Run

# %%
study = open_study(profile, dataset)
params = study.params.privacy
figures.use_style()
slices = load_slices(study)
outlook = requirements.outlook(slices)
outlook.need("networks trained on this cohort")
outlook.need("near-copy audit", "membership audit", otherwise=NothingToDo)
audit = PrivacyAudit(study, slices)
strangers = len(np.unique(audit.nonmembers.patients))
print(study.dataset, study.profile, f"· {strangers} non-members ·", fpr_note(strangers, 0.01))

# %% [markdown]
# The line above says what so many non-members can show. With few of them, a rate of 1 % means "no
# false alarm at all", and the true rate may be far higher. A larger cohort has more power. One of
# 400 virtual patients, 160 to learn from and 160 held out, is made by
#
#     python -m cmri_lib.phantom.cohort --out data/phantom-audit --patients 400 --paired 0
#     python -m cmri_lib.cohort.splits --dataset phantom-audit --shares 0.4 0.05 0.15 0.4
#     python -m cmri_lib.run 01 11 --dataset phantom-audit
#
# It serves this notebook alone, which therefore also measures there what notebook 06 measures of
# the other cohorts. Nothing else changes.
#
# ## Trainings
#
# Most systems were trained by earlier notebooks, some of them several times with other seeds. The
# next cell trains what is missing: an overfitted twin of every system; for the shadow models, one
# system on several thirds and halves of the training patients; and one on sets in which some
# diseases are rare.

# %%
flow, diffusion = Run(system("U10 FM")), Run(system("U6 DDPM"))
runs = {name: Run(system(name)) for name in params.systems}
fewest, *_, every = learning_curves.runs_over_patients(study, slices, system("U10 OT-FM"))
twin_of_flow = overfitted(study, slices, "U10 FM")
arms = [*((fewest, every) if "patients" in params.arms else ()),
        *(vendor_runs() if "vendor" in params.arms else ()),
        *([guided_run()] if "guidance" in params.arms else ())]
guards = Safeguards(audit) if "safeguards" in params.arms else None
new = [*audit_runs(study, slices), *(guards.runs.values() if guards else ())]
several = [one for run in (*runs.values(), flow, diffusion) for one in audit.trainings(run)]
train_all(study, [*several, twin_of_flow, *arms, *new], slices)
sizes = [(run.id, len(training.training_slices(run, slices)[0])) for run in new]
pd.DataFrame(sizes, columns=["trained for this notebook", "slices learnt from"])

# %% [markdown]
# ## Can copies be found at all?
#
# Before samples are searched for copies, the search is tested. Training slices are disguised: they
# are shifted, turned, mirrored, brightened, blurred, made noisy. How many are recognised as near
# copies? Two spaces are compared: **pixels**, and a **copy detector**. The detector is a small
# network that has learnt to give a slice and its disguises the same place, and other slices other
# places (contrastive learning, Chen et al. 2020).

# %%
planted = pd.DataFrame([{"disguise": disguise, "space": space, "recall": share}
                        for (disguise, space), share in audit.planted.items()])
figures.publish(study, "11/planted", planted, privacy_plots.recall,
                title="Share of planted copies that are found, at 1 % false alarms");

# %% [markdown]
# **How to read it.** A row with a low share in the last column is a disguise that would go
# unnoticed. Pixels lose a slice that is mirrored or moved by more than a pixel. What neither space
# finds, the audit below cannot find among samples.

# %% [markdown]
# ## Controls of the attacks
#
# The next cell mounts all attacks on every system, on its overfitted twin, and between the two
# halves of the held-out patients. It also asks the blind baseline. The *strongest attack* is the
# one with the highest AUC on the overfitted twin; of several with the same AUC, the one that sets
# members furthest apart from strangers, in standard deviations. The table gives the verdict.

# %%
controls = {name: audit.controls(run) for name, run in runs.items()}
verdicts = pd.DataFrame([
    {"system": name, "strongest attack": ATTACKS[c.strongest], "blind AUC": c.blind.value,
     "AUC on the overfitted twin": c.positive[c.strongest].value,
     "its AUC in the null": c.null[c.strongest].value} for name, c in controls.items()])
for name, one in controls.items():
    print(f"{name}: {one.verdict()}")
verdicts.set_index("system").round(2)

# %% [markdown]
# ## All attacks on all systems

# %%
rows = [row for run in runs.values() for row in audit.rows(run)]
attacked = pd.DataFrame(rows)
figures.publish(study, "11/attacks", attacked, privacy_plots.attack_map,
                title="AUC of membership attacks, with controls in the same table");

# %% [markdown]
# **How to read it.** Start with the rows of the overfitted twins: an attack without a dot there has
# no power. Then look at the nulls and the blind baselines: a dot there is a false alarm, and about
# one interval in twenty gives one by chance. Only then read the rows of the systems themselves. Of
# a system that was trained several times the row shows the mean, and its interval covers trainings
# as well as patients.
#
# **Mean and maximum over slices.** The figure shows `attack_auc_…`: a patient's score is the mean
# over his or her slices, so all of them bear witness. The results hold `attack_auc_max_…` too.
# There a patient's score is the **maximum**, that of the one slice that looks most as if it had
# been learnt. It would notice a generator that has memorised a single slice of each patient; it
# also goes by the slice with the largest error of chance. Exercise 1 compares the two.
#
# The next figure shows the strongest attack of one system at low rates of false alarms.

# %%
shown = "U10 FM" if "U10 FM" in runs else next(iter(runs))
strongest = controls[shown].strongest
curves = []
for name, found in {"overfitted twin": audit.scores(audit.overfitted(shown)),
                    shown: audit.scores(runs[shown]),
                    NULL: audit.scores(runs[shown], null=True)}.items():
    scores = found[strongest]["mean"]
    labels = np.repeat([1, 0], [len(scores.members), len(scores.nonmembers)])
    values = np.concatenate([scores.members, scores.nonmembers])
    false, true, _ = roc_curve(labels, values, drop_intermediate=False)
    curves.append(pd.DataFrame({"curve": name, "fpr": false, "tpr": true}))
figures.publish(study, "11/low_rates", pd.concat(curves), privacy_plots.low_rates,
                title=f"The strongest attack on {shown}: {ATTACKS[strongest]}");

# %% [markdown]
# ## How much do the settings of an attack matter?
#
# FCRE has three things to choose: the time $u$ up to which an image is made noisy, the band of
# frequencies in which it is compared with its reconstruction, and how they are compared. The audit
# chooses for each half of the patients what suits the other half best (rule 1). What would every
# other choice have given? The scores are there already; the next cell only counts.

# %%
asked = [twin_of_flow, flow, diffusion]
choices = settings_table(audit, asked, "fcre")
shown_choices = choices[(choices["training"] == 1) & (choices["half"] != ALL)]
figures.publish(study, "11/fcre_settings", shown_choices, leakage_plots.band_map,
                title="AUC of FCRE by time and band, in the two halves of the patients");

# %% [markdown]
# **How to read it.** A dot marks the setting that is best in this half of the patients, a ring the
# one that this half is scored with: it has its dot in the other panel of the row. Compare each dot
# with the value of the same cell in the other panel. If a setting is good for a reason, both values
# are high. If it was the best by luck, the other value lies near 0.5. A row of panels without a
# pattern that both halves share says that the choice is a matter of chance there. Where many cells
# tie, as those of the twin, the first is marked. With a dozen patients on either side an AUC of
# guessing has a standard deviation of 0.12, so blue cells of 0.25 may be chance, too.
#
# The next table repeats this for all patients and every training. The best of all settings has been
# picked by looking at the answer: an audit that reported it would find leakage where there is none.

# %%
few = choices.loc[choices["half"] != ALL, "n"].min()
print(f"{choices['setting'].nunique()} settings; a half has at least {few} patients on either side")
settings_summary(audit, asked, "fcre").round(2)

# %% [markdown]
# ## Is a patient recognised by a changed slice?
#
# So far attackers held the very slices that were learnt from. An attacker may hold another export
# of the same scan: cut a little differently, turned, with another window. **Range membership** (Tao
# & Shokri 2025) asks about a range around a slice. Here three slight changes stand for it, a shift
# by a pixel, a rotation by 3° and a gamma of 1.4, and a slice's score is the mean over them. The
# slice itself is never asked about. Non-members are changed in the same way. Two attacks are
# mounted: the one that PFAMI is made of (of a denoiser its loss), and the distance to samples.

# %%
held = [runs[shown], audit.overfitted(shown)] if "range" in params.arms else []
figures.publish(study, "11/range", versions_table(audit, held), leakage_plots.by_version,
                title="Membership attacks with the slices themselves, and with changed ones");

# %% [markdown]
# **How to read it.** Begin with the overfitted twin. If its AUC stays high under the changes,
# patients are recognised under changes as slight as these. Stronger ones (another reconstruction,
# another crop) were not tried, and an AUC near 1 has no room to show a small loss. If it falls, the
# attack recognises an image and not a patient: a weaker attacker, who holds no exact slice, learns
# less. For the system itself a row says something only where its twin is caught in the same row. An
# AUC of exactly 1 has a wide interval: drawing patients again cannot vary it, and a cautious bound
# takes its place. Of ten patients the narrow intervals just below 1 are rather too narrow.

# %% [markdown]
# ## What do weights add to samples alone?
#
# Whoever publishes samples and keeps the weights hopes that an attacker can do less with them. Is
# that so? Two attackers are compared on the same patients: one has the weights, and so as many
# samples as it likes; the other has samples and nothing else. Each mounts the **best attack** that
# is possible. Which one that is, is decided for each half of the patients on the other half, as
# settings are. Picked after all were scored, the best of many attacks would seem to find members
# even where nothing leaks.

# %%
both = [one for name, run in runs.items() for one in (run, audit.overfitted(name))]
access = access_table(audit, both)
figures.publish(study, "11/access", access, leakage_plots.by_access,
                title="The best attack with weights, and the best with samples alone");

# %% [markdown]
# **How to read it.** The left panel shows the AUC of both attackers. The right panel shows their
# difference, paired over the patients (and over the trainings, where there are several). An
# interval wholly right of 0 says that the weights give away more than the samples do. An interval
# that holds 0 does not say that weights are as safe as samples: so few patients cannot tell, and
# its width says how large a difference may have gone unnoticed. Look first at the overfitted twins,
# where there is something to find. Where both attackers make no error at all, the difference is 0
# without any interval, and the intervals of AUCs of 1 are wide for the reason given above.
#
# The table names the attacks that were chosen.

# %%
access[access["chosen"] != ""].pivot(index="system", columns="access", values="chosen").loc[
    list(dict.fromkeys(access["system"]))]

# %% [markdown]
# ## Who is exposed?
#
# An AUC over all patients may hide that those of one group are named more surely: of a rare disease
# (claim R2), or of a scanner whose traits the generator has learnt (claim R4). Here the strongest
# attack on each system is scored for the patients of one disease, and of one vendor, alone.
# Members are compared with non-members of the same group (Kulynych et al. 2022).

# %%
exposed = pd.DataFrame([{"arm": f"{name}: {ATTACKS[controls[name].strongest]}", **row}
                        for name, run in runs.items()
                        for row in audit.group_rows(run, controls[name].strongest)], columns=[
    "arm", "kind", "group", "value", "low", "high", "n", "difference", "p"])
exposed["p_holm"] = claims.holm(exposed["p"].to_numpy(float))
if len(exposed):
    figures.publish(study, "11/groups", exposed,
                    lambda table: utility_plots.by_group(table, "AUC (0.5: guessing)", 0.5),
                    title="The strongest attack among the patients of one group")
else:
    print(f"left out: no group has {params.group} patients on either side; see above how to make "
          "a larger cohort")

# %% [markdown]
# **How to read it.** n is the number of patients on the smaller side. Groups of so few have wide
# intervals. The next table tests each group against the mean of the others of its kind. `p_holm` is
# adjusted for the number of all these tests (Holm 1979).

# %%
differ, asked = int((exposed["p_holm"] < 0.05).sum()), exposed["p"].notna().sum()
print(f"{differ} of {asked} groups differ" if asked else "no two groups could be compared")
exposed.drop(columns=["low", "high"]).sort_values("p").head(8).round(4)

# %% [markdown]
# ## Is a rare disease more exposed?
#
# Diseases differ in more than their number, so groups as above cannot say whether being *rare*
# exposes. An experiment can. The same patients are learnt from twice: once with few others of their
# disease, once with as many of every disease. Both sets have the same size, and both trainings the
# same steps and first weights. How far do these patients stand out among strangers of the same
# disease? Two attacks are mounted, the denoising loss on weights, and the distance to samples.

# %%
rare = RareGroups(audit) if "rare" in params.arms else None
rare_table = rare.table() if rare else pd.DataFrame(columns=["attack", "disease"])
figures.publish(study, "11/rare", rare_table, privacy_plots.rare_exposure,
                title="How far the same patients stand out, by how common their disease is")
rare_changes = {a.name: rare.difference(a) for a in rare.attacks} if rare and rare.runs else {}
sets = rare.runs.items() if rare else ()
pd.DataFrame([{"pair": k, "patients in each set": len(some.rare), "watched": len(some.watched),
               "share of a rare disease": f"{params.rare.few / len(some.rare):.0%}"}
              for k, (some, _) in enumerate(sets, 1)])

# %% [markdown]
# **How to read it.** If rare diseases are more exposed, lines rise to the right, and the interval
# in the last panel lies above 0. In the first panels 0 is guessing, and 1 says that members lie one
# standard deviation of strangers above these.
#
# ## Copies among the samples
#
# Every system has drawn samples under the conditions of test patients. For each system the table
# shows, in the copy detector's space:
#
# - the share of **near copies**; 1 % is chance;
# - the **excess** of that share over the same with the hold-out in the place of training. A blurred
#   sample lies near everybody, so it is a "near copy" of strangers too; 0 is chance;
# - the share nearest to training, calibrated by the same swap; 0.5 is chance.

# %%
kept = ["near_copy_rate_copy", "near_copy_excess_copy", "swapped_share_copy"]
copy_rows = [row for name, run in runs.items() for r in (run, audit.overfitted(name))
             for row in audit.copy_rows(r)]
found = pd.DataFrame(copy_rows)
board = found[found["metric"].isin(kept)].pivot(index="system", columns="metric")
board = board[["value", "low", "high", "floor"]].swaplevel(axis=1).reindex(columns=kept, level=0)
board.rename(columns=metrics.short, level=0).round(3)

# %% [markdown]
# The closest pairs can be looked at. Above each training slice stands the sample that lies nearest
# to it, first of the system, then of its overfitted twin.

# %%
gallery = {}
for run in (runs[shown], audit.overfitted(shown)):
    seen = training.training_slices(run, slices)[0]
    pairs = audit.copies(run).closest(8)
    gallery[f"{run.id}\nsamples"] = audit.target(run).samples.take(pairs["sample"].to_numpy())
    gallery[f"{run.id}\ntraining"] = seen.take(pairs["training"].to_numpy())
figures.publish_slices(study, "11/closest", gallery, outline=False, derived=True,
                       title="The closest pairs of a sample and a training slice");

# %% [markdown]
# **How to read it.** A copy shows the same heart in the same surroundings. Two hearts of the same
# size at the same level are no copy, however alike they look.

# %% [markdown]
# ## Attacks with shadow models
#
# A slice may be easy for every generator of a kind. **Calibration** subtracts the score of a
# reference generator that has not seen the patient. **LiRA** compares the score with those of
# shadow models that have seen the slice, and of others that have not. Held-out patients may never
# be learnt from, so here members and non-members are thirds of the *training* patients, and the
# attacked system is trained on one of them.

# %%
possible = shadows_possible(study, slices)
power_rows = PowerAudit(audit).rows() if possible else []
print("" if possible else "left out: no shadow models, or too few training patients for them")
columns = ["metric", "value", "low", "high", "n"]
shadowed = pd.DataFrame(power_rows, columns=columns)
shadowed = shadowed[~shadowed["metric"].str.contains("max|tpr5", na=False)].set_index("metric")
shadowed.rename(index=metrics.title).astype(float).round(2)

# %% [markdown]
# ## What drives leakage
#
# **Training length.** The weights that were kept on the way are attacked as the last ones were.

# %%
length = []
if "length" in params.arms:
    length = [{"system": name, "images": images, "value": s.value, "low": s.low, "high": s.high}
              for name, run in runs.items() for images, s in audit.along_training(run)]
columns = ["system", "images", "value", "low", "high"]
figures.publish(study, "11/length", pd.DataFrame(length, columns=columns),
                privacy_plots.along_training, title="AUC of the plain attack along the training");

# %% [markdown]
# **Sampler.** The same diffusion model can draw deterministically (DDIM) or with fresh noise at
# every step (ancestral, DDPM), with as many steps. Does one of them hand out more near copies
# (claim R5)? The question makes sense between samples of **equal quality** only: worse samples lie
# further from everybody's slices, those of training included. Whether the quality is equal cannot
# be assumed, so it is measured on the very same samples: the distances of anatomy and of appearance
# to real slices, and the share of valid hearts.

# %%
evaluator = guards.evaluator if guards else Evaluator(study, slices, params.samples)
beside = LeakageAndQuality(audit, evaluator)
samplers = {"deterministic (DDIM)": "ddim", "ancestral (DDPM)": "ddpm"}
drawn = {label: audit.target(diffusion, sampler=name).samples
         for label, name in samplers.items() if "sampler" in params.arms}
figures.publish(study, "11/samplers", beside.table(diffusion, drawn),
                lambda table: leakage_plots.by_choice(table, "sampler"),
                title=f"One training of {diffusion.id}, sampled in two ways: leakage and quality");

# %%
apart = beside.differences(diffusion, *drawn.values()) if drawn else {}
if apart:
    margin = primary_tests.AT_LITTLE_COST
    print(f"distances of anatomy: {equality(apart[primary_tests.ANATOMY], margin)} (± {margin})")
pd.DataFrame({metrics.short(name): {"deterministic − ancestral": s.value, "low": s.low,
                                    "high": s.high} for name, s in apart.items()}).T.round(3)

# %% [markdown]
# **How to read it.** Begin with the last rows of the table, those of quality. The line above it
# says whether the distances of anatomy are *equal*, their difference surely within the margin, or
# *different*, surely beyond it, or whether so few patients leave that *undecided*. Of appearance
# and hearts an interval that holds 0 leaves it undecided, too. Only if quality is equal is a
# difference in the first three rows due to the kind of sampling. If one sampler draws the better
# samples and hands out more near copies, quality may be all that is behind it. Intervals of the
# first three rows are cautious: they treat both sets of samples as independent.

# %% [markdown]
# **Guidance.** Classifier-free guidance (notebook 07) makes a conditional flow follow its
# conditions more closely than it has learnt to. It also draws samples towards the middle of what
# the network takes for typical, where training slices are dense. Does a larger guidance scale $w$
# bring samples nearer to training slices than to those of strangers? The flow with mask, vendor,
# phase and disease is sampled under masks and conditions of **test** patients: a sample that
# follows the mask of a training patient would resemble this patient for that reason alone.

# %%
steered = {scale: guided_samples(audit, guided_run(), scale)
           for scale in study.params.conditional.guidance if "guidance" in params.arms}
by_scale = beside.table(guided_run(), steered)
figures.publish(study, "11/guidance", by_scale,
                lambda table: leakage_plots.by_choice(table, "guidance scale w"),
                title="Leakage and quality of a flow's samples under classifier-free guidance");

# %% [markdown]
# **How to read it.** $w = 1$ is the plain conditional network; at $w = 0$ the conditions are
# ignored. Guidance drives leakage if near copies and the nearest-training share rise with $w$ above
# their dashed lines. Look at the excess first: samples that become alike may lie near everybody's
# slices, those of strangers too, and then it stays at 0. The other panels show what is paid for it:
# adherence to the mask (Dice), distances, and valid hearts at the same scales.

# %% [markdown]
# ## Safeguards
#
# One flow, U10 FM, learns from few slices of few patients and memorises them. Then the same with
# one safeguard each (claim R7):
#
# - **early stopping**: of the weights kept on the way those with the least loss on validation
#   patients;
# - **augmentation**: each slice in eight versions, turned, scaled, shifted;
# - **de-duplication**: of slices that are nearer to each other than any two slices of different
#   patients are, one stays;
# - **filtered samples**: four samples are drawn under each condition, and the first that the pixel
#   audit does not suspect is kept. The audit below looks in another space, for a filter cannot be
#   judged by its own threshold;
# - **half the resolution**: the generator learns from coarse slices;
# - **heart alone**: it learns from slices that are black further than 6 mm from the heart.
#
# For each, the figure shows what it changes: leakage of the *same* real slices (samples nearest to
# training, calibrated; AUC of the loss attack on the weights), distance in anatomy, valid hearts,
# and the Dice on test patients of a segmenter that has learnt from the samples.

# %%
changes = {name: guards.differences(name) for name in SAFEGUARDS} if guards else {}
guarded = pd.DataFrame([
    {"group": f"{SYSTEM} of {len(guards.members)} slices", "arm": name, "family": "flow",
     "metric": metric, "value": s.value, "low": s.low, "high": s.high,
     "better": "higher" if metric in ("heart_valid", "downstream_dice") else "lower"}
    for name, found in changes.items() for metric, s in found.items()],
    columns=["group", "arm", "family", "metric", "value", "low", "high", "better"])
kept = guarded["metric"] != "near_copy_excess_copy"
figures.publish(study, "11/safeguards", guarded[kept],
                lambda table: utility_plots.forest(table, "none"),
                title="What safeguards change: leakage, fidelity, utility");

# %% [markdown]
# **How to read it.** The dashed line is the unguarded generator. A safeguard works if its dots lie
# left of it in the first two panels, and is cheap if they lie on it in the others. Samples that
# are worse are also further from training slices: look at all panels at once.

# %%
if guards:
    before = guards.copies(NONE)
    print(f"unguarded: near copies {before.near_copies().value:.1%}, nearest to training "
          f"{before.swapped_share().value:.2f}; stopped early at step {guards.stopped_at()}; "
          f"{len(training.training_slices(guards.run('de-duplication'), slices)[0])} of "
          f"{len(guards.members)} slices left without duplicates")
guarded.pivot(index="arm", columns="metric", values="value").rename(columns=metrics.short).round(3)

# %% [markdown]
# ## The claims
#
# Each claim has one primary test, stated in `reporting/primary_tests.py` before any result was
# looked at. A system that shows no hearts or has not converged cannot decide a claim.

# %%
quality, fidelity_rows = results.read_scores(study, "06_fidelity"), []
if quality.empty:  # a cohort that is there for audits alone
    fidelity_rows = evaluator.real_rows()
    for run in {run.id: run for run in (*runs.values(), flow, diffusion)}.values():
        fidelity_rows += evaluator.rows(run, audit.target(run).samples)
    quality = pd.DataFrame(fidelity_rows)

# %%
ledger = claims.Ledger(claims.unfit(quality, results.read_curves(study)))
options = audit.options
loss, fcre = (audit.by_patient(diffusion, name) for name in ("loss", "fcre"))
of_flow = audit.by_patient(flow, "loss")
ledger.primary("R1", score_of(loss, **options), auc_difference(fcre, loss, **options),
               parties=[diffusion.id])
pairs = min(len(of_flow), len(loss))  # trainings of both
ledger.primary("R5", auc_difference(of_flow[:pairs], loss[:pairs], **options),
               parties=[flow.id, diffusion.id])
if apart:
    ledger.explore("R5", "U6 DDPM, deterministic − ancestral sampling",
                   apart["near_copy_rate_copy"], "near_copy_rate_copy", "above",
                   parties=[diffusion.id])

# %%
if "patients" in params.arms:
    shares = [audit.copies(run).swapped_share() for run in (fewest, every)]
    ledger.primary("R2", score_difference(*shares), parties=[every.id])
for name, change in rare_changes.items():
    ledger.explore("R2", "U10 FM, patients of a rare disease − the same, of a common one", change,
                   f"attack_exposure_{name}", "above", parties=[flow.id])
ledger.primary("R3", audit.clusters(twin_of_flow))
if "vendor" in params.arms:
    without, vendor = ([audit.scores(run, only=["loss"])["loss"]["mean"]]
                       for run in vendor_runs())
    ledger.primary("R4", auc_difference(vendor, without, **options))

# %%
if guards:
    fidelity = primary_tests.ANATOMY
    ledger.primary("R7", *(changes[name][metric] for name in CLAIMED
                           for metric in ("swapped_share_copy", fidelity)), parties=[flow.id])
    for name, found in changes.items():
        for metric in ("swapped_share_copy", "near_copy_excess_copy", "attack_auc_loss"):
            if metric in found:
                ledger.explore("R7", f"{name} − none", found[metric], metric, "below")
results.write_claims(study, "11_privacy", ledger.rows)
ledger.table().set_index("claim")

# %% [markdown]
# **How to read it.** *Not testable at this budget* stands where a system shows no hearts yet.
# *Undecided* means that the interval holds the margin: so few patients cannot tell.
#
# ## A page for each system
#
# The next cell writes a page for every system, and the same as JSON, to `results`. It is meant for
# a data-protection officer: what was attacked, with what power, what was found, what remains.

# %%
rare_rows = rare.rows() if rare else []
every_row = [*rows, *copy_rows, *power_rows, *rare_rows, *fidelity_rows]
table = results.write_scores(study, "11_privacy", every_row)
pages = {name: privacy_report.write(study, facts(audit, run)) for name, run in runs.items()}
text = pages[shown].read_text(encoding="utf-8")
print(text[:text.index("## With what power")])

# %% [markdown]
# ## Check
#
# Exact copies must be found in both spaces, and a mirror must not deceive the copy detector. No
# non-member may have been learnt from. No page may call a broken audit private. And copies that are
# planted among slices of strangers must move the share of near copies.

# %%
assert audit.planted[EXACT, "pixel"] == audit.planted[EXACT, "copy"] == 1, "a copy goes unnoticed"
assert audit.planted["mirrored", "copy"] > audit.planted["mirrored", "pixel"], "mirrors deceive it"
for name, one in controls.items():
    first = pages[name].read_text(encoding="utf-8").split("**")[1]
    assert ("broken" in first) == bool(one.faults()), f"{name}: {first}"
    assert not set(audit.nonmembers.patients) & audit.target(runs[name]).seen
honest = audit.copy_audit(audit.strangers, audit.training).near_copies().value
copied = concatenate([audit.strangers, audit.training.take(range(0, len(audit.training), 9))])
more = audit.copy_audit(copied.with_columns(split="test"), audit.training).near_copies()
assert more.value > honest + 0.1, "planted copies do not move the rate"
print(f"near copies among strangers {honest:.1%}, with copies planted {more.value:.1%}")

# %% [markdown]
# ## Exercises
#
# ### 1. The aggregate
#
# The aggregate matters. Compare the AUC by the mean over a patient's slices with the AUC by the
# maximum, for all attacks on one overfitted twin. Which is better, and why?

# %% tags=["solution"]
twin = audit.scores(audit.overfitted(shown))
pd.DataFrame({ATTACKS[name]: {how: score_of(one, resamples=1).value for how, one in by.items()}
              for name, by in twin.items()}).T.round(2)
# The mean, as a rule: every slice of a member has been learnt, so every slice adds evidence. The
# maximum would be better if a generator had memorised one slice of a patient and no other.

# %% [markdown]
# ### 2. The AUC, pair by pair
#
# The AUC is the share of pairs of a member and a non-member in which the member has the higher
# score. Compute it so for the strongest attack on the overfitted twin. If scores knew nothing, its
# standard deviation would be $\sqrt{(m + n + 1) / (12\, m n)}$ for $m$ members and $n$ non-members.
# Which AUC would surprise you here? And how many patients does it take to notice an AUC of 0.55?

# %% tags=["solution"]
one = twin[strongest]["mean"]
m, n = len(one.members), len(one.nonmembers)
higher, equal = one.members[:, None] > one.nonmembers, one.members[:, None] == one.nonmembers
print(f"pair by pair {higher.mean() + equal.mean() / 2:.3f}, "
      f"library {score_of(one, resamples=1).value:.3f}")
for members, others in ((m, n), (30, 30), (180, 180)):
    deviation = ((members + others + 1) / (12 * members * others)) ** 0.5
    print(f"{members} and {others} patients: an AUC above {0.5 + 1.645 * deviation:.2f} has a "
          "chance of 5 % if nothing leaks")
# With some dozen patients an AUC of 0.55 is nothing; it takes about 180 on either side. A small
# audit that finds nothing has not shown that there is nothing.

# %% [markdown]
# ### 3. Another threshold
#
# A sample is a near copy if its distance to training lies below a threshold that only 1 % of the
# slices of held-out patients (the *strangers*) pass. Let 5 %, 10 %, 25 % or 50 % of them pass. How
# does the share of samples below the threshold grow, for the system and for its overfitted twin?
# Which numbers do you expect of a generator without memory?

# %% tags=["solution"]
allowed, passed = (0.01, 0.05, 0.1, 0.25, 0.5), {}
for name in (runs[shown], audit.overfitted(shown)):
    copies = audit.copies(name)
    limits = np.quantile(copies.null, allowed)
    passed[name.id] = (copies.distance[:, None] < limits).mean(axis=0)
pd.DataFrame(passed, index=[f"{rate:.0%} of strangers" for rate in allowed]).T.round(2)
# Without memory a row repeats the rates of its columns. It can lie below them, if samples look like
# nobody, and above them without memory, if they are blurred and lie near everybody. Where it is far
# above already at 1 %, no choice of the threshold hides the copies.

# %% [markdown]
# ## Summary

# %%
for name, run in runs.items():
    one = controls[name]
    best = audit.score(run, one.strongest)
    print(f"1. {name}: {ATTACKS[one.strongest]}, AUC {best.value:.2f} [{best.low:.2f}, "
          f"{best.high:.2f}]; on the overfitted twin {one.positive[one.strongest].value:.2f}")
    rate = audit.copies(run).near_copies()
    print(f"2. {name}: near copies {rate.value:.1%} [{rate.low:.1%}, {rate.high:.1%}], chance 1 %")
for name, change in rare_changes.items():
    print(f"2. rare − common disease, {ATTACKS[name]}: {change.value:+.2f} [{change.low:+.2f}, "
          f"{change.high:+.2f}] standard deviations of strangers")
for row in power_rows:
    if row["metric"].startswith("attack_auc_") and "max" not in row["metric"]:
        print(f"3. {metrics.short(row['metric'])}: {row['value']:.2f} "
              f"[{row['low']:.2f}, {row['high']:.2f}]")

# %% [markdown]
# 1. **Membership.** Read each AUC beside that of the overfitted twin. Only where the twin is caught
#    does a low AUC say anything.
# 2. **Copies.** The share of near copies has a threshold from patients whom nobody has learnt from.
#    A share whose interval lies above 1 % is a finding.
# 3. **Shadow models** cost several trainings. What they add to the plain loss is what difficulty
#    had hidden.
#
# ## Limits
#
# - A patient-level audit needs patients. With two dozen non-members no rate of 1 % can be shown.
# - The attacks know the weights, except for those on samples alone. Whoever publishes samples only
#   should read those.
# - On the phantom, patients are drawn from one simulator. Real patients differ more from each
#   other, which helps attackers.
# - No attack proves privacy. A bound needs differential privacy.
