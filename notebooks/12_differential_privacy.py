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
# # 12 · Differential privacy by patient: what a guarantee costs
#
# **Which profile shows what.** The profile `smoke` only tests that the code runs. `laptop` shows
# how private training works. Use `overnight`, and a cohort of more patients, for verdicts.
#
# **Question.** A generator can be trained so that no patient can have changed it by much, whatever
# an attacker does. What does this cost in anatomy, at which strength of the guarantee? And how much
# of the privacy loss that the theory allows can an attacker prove?
#
# **What the review says.** Differential privacy is the one safeguard with a proof, and it is said
# to blur anatomy (claim R6). Few patients make it expensive. With public pre-training the cost
# falls: for one model of cardiac MRI, the Fréchet distance at ε = 10 was 27 with it and 93 without.

# %% [markdown]
# ## Method
#
# ### Terms
#
# - Two training sets are **neighbours** if one holds one patient more, with all of his or her
#   slices. The **patient** is the unit, as everywhere in this study. A guarantee for single slices
#   would protect nobody: the slices of one heart resemble each other.
# - A training is **(ε, δ)-differentially private** if for any two neighbours, and any set $S$ of
#   weights, $P(\text{weights} \in S) \le e^\varepsilon P'(\text{weights} \in S) + \delta$. A small
#   ε is a strong guarantee. At ε = 1, odds that a patient was in the training set rise at most
#   2.7-fold, at ε = 10 up to 22,000-fold. δ is the chance that this fails. It should be well below
#   $1/P$ for $P$ private patients; here it is a tenth of that, $1/(10P)$.
# - **Post-processing** costs nothing: samples, averaged weights, and whatever else is computed from
#   private weights alone, are as private as these.
# - An **accountant** sums up what the steps of a training spend, as an upper bound of ε.
# - A **canary** is a patient of whom a coin decided whether he or she is learnt from.

# %% [markdown]
# ### Private training
#
# In each of $T$ steps (DP-SGD, Abadi et al. 2016; by user, McMahan et al. 2018):
#
# 1. each private patient is drawn with probability $q$, independently of the others;
# 2. for each who is drawn, the gradient $g_p$ of the mean loss over a few of his or her slices is
#    clipped to the norm $C$;
# 3. Adam takes a step with
#
# $$ \tilde g = \frac{1}{qP} \Bigl( \sum_p g_p \min\bigl(1, C / \lVert g_p \rVert\bigr)
# + \mathcal N(0, \sigma^2 C^2 I) \Bigr) $$
#
# $qP$ is the *expected* number of patients in a step, not the actual one, and a step without any
# patient is taken too. ε = ∞ is the same loop with the same clipping and $\sigma = 0$.
#
# The last step's averaged weights are used. No step is chosen by its quality, since a choice would
# be one more look at the patients. For the same reason the log holds no losses.
#
# **Public pre-training.** A quarter of the training patients are declared public. A generator is
# trained on them as usual, and private training starts from it. With a cohort of one's own, these
# would be the patients of a published one.

# %% [markdown]
# ### How it is judged
#
# 1. **Anatomy and appearance**: the headline distances and the share of valid hearts, as in
#    notebook 06. Two lines frame them: the generator of public patients only, which a private one
#    should beat, and the ordinary generator of all patients, which is not private.
# 2. **Membership attack**: the denoising loss, members against held-out patients, with the null and
#    the blind baseline of notebook 11.
# 3. **Canaries** (Steinke, Nasr & Jagielski 2023). All private patients but two are canaries. Those
#    who were left out differ from those who were not by a coin alone. For half of the canaries an
#    attacker guesses which side the coin showed. If the guesses are right more often than an
#    ε-private training could allow, the true ε is larger: a **lower bound** from one training.
# 4. **Use as training data**: a **student** is a segmenter that learns from samples alone and is
#    tested on real test patients (**TSTR**, as in notebook 09). Samples have no labels. A segmenter
#    of the *public* patients labels them: one of the private patients would give these away. The
#    ceiling is a student of about as many real slices of private patients. Samples are of use if
#    their student is better than the segmenter of the public patients, which costs no privacy.
#
# **C18 RDP-CGAN** (Torfi, Fox & Reddy 2022) is made for this: a GAN of latents. Its autoencoder
# learns from public patients. Its critic alone looks at private ones, so its gradient alone is
# clipped and gets noise. What the generator learns, it learns from the critic, which costs no more
# privacy. The attack asks its critic, in the place of the denoising loss. A game of two needs an
# optimiser without momentum, and bears less noise than a flow: its learning rate is a tenth of that
# of the public training. Larger ones, and momentum, left no hearts.

# %% tags=["parameters"]
profile = None  # None: as params.yaml says
dataset = None

# %%
import math

import numpy as np
import pandas as pd

from cmri_lib.cohort import requirements
from cmri_lib.config.study import open_study
from cmri_lib.experiments import private_training as private
from cmri_lib.experiments.banks import draw_bank
from cmri_lib.experiments.evaluator import Evaluator
from cmri_lib.experiments.instruments import load_slices
from cmri_lib.experiments.parallel import train_all
from cmri_lib.experiments.private_audit import PrivateAudit
from cmri_lib.experiments.private_utility import PrivateStudents
from cmri_lib.experiments.training import training_log, training_seconds

# %%
from cmri_lib.measures.statistics.bootstrap import score_difference
from cmri_lib.privacy.differential.accountant import noise_multiplier
from cmri_lib.reporting import claims, differential_privacy_plots, figures, metrics, results
from cmri_lib.reporting.differential_privacy_plots import ORDINARY, PRIVATE, PUBLIC
from cmri_lib.reporting.primary_tests import ANATOMY, APPEARANCE, HEARTS
from cmri_lib.systems.private import RDP_CGAN
from cmri_lib.systems.register import system
from cmri_lib.systems.system import Run

# %%
study = open_study(profile, dataset)
params = study.params.differential_privacy
figures.use_style()
slices = load_slices(study)
outlook = requirements.outlook(slices)
print(outlook.left_out("12"))
lacks = outlook["differential privacy by patient"].parts
systems = () if lacks["private trainings"] else params.systems
who = private.roles(study, slices)
counts = {"public patients": len(who.public), "private patients": len(who.private),
          "canaries among them": len(who.canaries), "learnt from": len(who.included)}
print(f"{study.dataset}, {study.profile}, δ = {who.delta:.2g}")
pd.Series(counts, name="patients").to_frame()

# %% [markdown]
# ## How much noise?
#
# The next cell trains the public generators. Then, for each ε, it searches the smallest $\sigma$ at
# which the accountant of Rényi (RDP) stays within the budget. It also asks a second, tighter
# accountant (PRV) what has really been spent. The last two columns compare lengths: the mean
# gradient of a step is at most $C$ long, and the noise that is added to it has about
# $\sigma C \sqrt d / (qP)$, for $d$ weights.

# %%
public = {name: private.public_run(study, slices, name) for name in systems}
train_all(study, public.values(), slices)
starts = {name: private.train_or_load_any(study, run, slices) for name, run in public.items()}
size = max((sum(p.numel() for p in start.parameters()) for start in starts.values()), default=0)
budget = {}
for epsilon in (*sorted(params.epsilons), math.inf) if systems else ():
    step = private.mechanism(params, who, epsilon)
    run = private.private_run(study, slices, systems[0], epsilon)
    spent = private.accounted(study, slices, run)
    budget[epsilon] = {"σ": step.noise, "q": step.rate, "ε by RDP": spent["RDP"],
                       "ε by PRV": spent["PRV"], "longest mean gradient": step.clip,
                       "length of the noise": step.noise * step.clip * size**0.5 / step.patients}
pd.DataFrame(budget).T.rename_axis("ε").round(3)

# %% [markdown]
# **How to read it.** Where the noise is hundreds of times as long as the gradient, a step hardly
# points anywhere. Only the sum of many steps has a direction. More patients make the noise shorter
# in proportion; more weights make it longer.

# %% [markdown]
# ## Trainings
#
# The next cell trains each system privately at each ε, from its public weights. In the profile
# `overnight` two arms are added at ε = 10 for one system: private training *from nothing*, without
# public weights, and of the *last layers* only, where there are fewer weights to hide. That system
# is also trained again, at ε = 10 and without noise, with other coins (see *Other coins* below).

# %%
trained = {name: private.private_runs(study, slices, name) for name in systems}
runs = [run for some in trained.values() for run in some]
tossed = {name: private.tossed_runs(study, slices, name) for name in systems}
again = [run for some in tossed.values() for group in some.values() for run in group[1:]]
ordinary = {name: Run(system(name)) for name in systems if name != RDP_CGAN.id}
everything = [*public.values(), *runs, *again, *ordinary.values()]
train_all(study, everything, slices, private.train_or_load_any)
evaluator = Evaluator(study, slices, params.samples, "brief")
banks, named = {}, {}
for run in (*ordinary.values(), *public.values(), *runs):
    generator = private.train_or_load_any(study, run, slices)
    banks[run.id], named[run.id] = draw_bank(study, run, generator, evaluator.conditions), run
print(f"{len(runs) + len(again)} private trainings; {len(banks)} sets of samples")


# %% [markdown]
# ## Samples

# %%
def kind(run):
    """What a training is in the figures: private, from nothing …, or a reference."""
    if isinstance(run.variant, private.Private):
        return ", ".join([PRIVATE, *run.variant.name.split(", ")[1:]])
    return ORDINARY if run in ordinary.values() else PUBLIC


def row_name(run):
    """What the row of a training is called in the figure of samples."""
    epsilon = getattr(run.variant, "epsilon", np.nan)
    strength = {np.inf: "without noise"}.get(epsilon, f"ε = {epsilon:g}")
    return "\n".join([*kind(run).split(", "), "" if np.isnan(epsilon) else strength])


# %%
for place, name in enumerate(systems):
    shown = {"real": evaluator.test.take(np.arange(8))}
    for run in (public[name], *trained[name], *(ordinary[n] for n in ordinary if n == name)):
        shown[row_name(run)] = banks[run.id].take(np.arange(8))
    suffix = f"_{name.split()[0].lower()}" if place else ""
    title = f"Real slices, and samples of {name} at each ε, all from the same noise"
    figures.publish_slices(study, f"12/samples{suffix}", shown, outline=False, title=title)

# %% [markdown]
# **How to read it.** All rows start from the same noise, so a column shows what privacy does to one
# sample. Look for walls that open, cavities that fill, and grain.

# %% [markdown]
# ## Quality and attacks against ε

# %%
audit = PrivateAudit(study, slices)
found = {run.id: evaluator.rows(run, banks[run.id]) for run in named.values()}
for run in runs:
    found[run.id] += audit.canary_rows(run)
controls = []
if not lacks["attacks"]:
    for run in (*runs, *ordinary.values()):
        found[run.id] += audit.holdout_rows(run)
    controls = [row for run in runs if math.isinf(run.variant.epsilon)
                for row in audit.control_rows(run)]
pd.DataFrame(controls, columns=["system", "metric", "value", "low", "high"]).round(2)

# %%
school, students = (PrivateStudents(study, slices), {}) if systems else (None, {})
for run in named.values():
    student = school.of(run, banks[run.id])
    if student is None:
        print(f"{run.id}: no heart is found in any of its samples, so nothing can be learnt")
        continue
    students[run.id] = student
    found[run.id] += school.rows(run, student)
if systems:
    controls += school.rows("public patients' slices", school.labeller)

# %% [markdown]
# The table above holds the controls: a null, held-out patients against held-out patients, and a
# blind baseline, which never asks the generator. The intervals of both should hold 0.5. The cell
# after it trains the students. The next figure shows the results.

# %%
shown = [ANATOMY, APPEARANCE, HEARTS, "downstream_dice", "attack_auc_loss",
         "attack_auc_loss_calibrated"]
shown += ["attack_auc_critic", "attack_auc_critic_calibrated"] * (RDP_CGAN.id in systems)
columns = ["system", "generator", "family", "training", "epsilon", "metric", "value", "low", "high",
           "floor", "ceiling", "better"]
table = pd.DataFrame([{
    **row, "generator": run.system.id.removeprefix("private ").removeprefix("public "),
    "training": kind(run), "epsilon": getattr(run.variant, "epsilon", np.nan)}
    for id, run in named.items() for row in found[id]], columns=columns)
curve = pd.concat([table[table["metric"] == metric] for metric in shown])
figures.publish(study, "12/epsilon", curve, differential_privacy_plots.against_epsilon,
                title="What privacy costs, and what it hides from attackers");

# %% [markdown]
# **How to read it.** Towards the left the guarantee grows stronger. Compare each point with the
# dotted line of the same colour: a private generator beyond it is worse than one that has never
# seen the private patients at all. In that case, not to train would be better, and perfectly
# private. The *calibrated* attack is that on canaries: the loss under the private weights minus the
# loss under the public ones. An arrow with a number marks a point far beyond the panel.
#
# The next table asks what the samples are worth as training data: the Dice of their student minus
# that of the segmenter of the public patients, who labelled them.

# %%
worth = {name: school.difference(student, school.labeller) for name, student in students.items()}
pd.DataFrame({name: {"Dice − public segmenter": gain.value, "low": gain.low, "high": gain.high}
              for name, gain in worth.items()}).T.round(3)

# %%
pairs = differential_privacy_plots.trade_offs(table)
figures.publish(study, "12/trade_offs", pairs, differential_privacy_plots.worth_against_attack,
                title="What a private training is worth, against what an attacker learns");

# %% [markdown]
# **How to read it.** Low is private; good is to the left for distances, to the right for valid
# hearts and Dice. Marks grow with ε; the smallest, at ε = 0, is the generator of public patients
# only, which has met no private one. A private training is worth its price if it lies on the good
# side of that point. With some fifty canaries, chance alone moves a point by about 0.08 up or down.

# %% [markdown]
# ## What an attacker can prove
#
# Upper bounds come from the accountants, lower bounds from the canaries. Between the two lies what
# nobody knows. The crosses mark what the lower bound would be if *every* guess were right: with so
# few canaries, nobody can prove more.

# %%
proved = table[table["metric"].isin(differential_privacy_plots.BOUNDS)]
proved = proved.loc[proved["training"] == PRIVATE, ["generator", "epsilon", "metric", "value"]]
figures.publish(study, "12/bounds", proved, differential_privacy_plots.bounds,
                title="Privacy loss: upper bounds of the theory, lower bounds of an attack");

# %%
canaries = {run.id: audit.canaries(run) for run in runs}
pd.DataFrame({id: {"canaries": c.canaries, "guesses": c.guesses, "right": c.right,
                   "ε at least": c.lower, "ε at least, all right": c.most, "AUC": c.auc.value,
                   "low": c.auc.low, "high": c.auc.high} for id, c in canaries.items()}).T.round(2)

# %% [markdown]
# **How to read it.** A lower bound of 0 is no proof of privacy. It only says that this attacker,
# with so many canaries, found nothing. Where the training without noise has a lower bound of 0 too,
# the attack has no power here, and the upper bound is all that is known.

# %% [markdown]
# ## Other coins
#
# Above, all trainings share one toss of the coins. If those learnt from happen to be the ones whose
# images any training makes easier, every training seems to leak, even one that has learnt nothing.
# One more training with the same coins cannot tell luck from leakage. Other coins can: each patient
# is now on one side, now on the other. The next figure takes the mean over such trainings.

# %%
tosses = []
for name, some in tossed.items():
    for epsilon, group in some.items():
        found[group[0].id] += audit.toss_rows(group)
        each = [*(audit.canaries(run).auc for run in group), audit.over_tosses(group)]
        tosses += [{"generator": name, "epsilon": epsilon, "toss": toss, "value": score.value,
                    "low": score.low, "high": score.high}
                   for toss, score in zip([*range(1, len(group) + 1), np.nan], each)]
columns = ["generator", "epsilon", "toss", "value", "low", "high"]
tosses = pd.DataFrame(tosses, columns=columns)
figures.publish(study, "12/tosses", tosses, differential_privacy_plots.over_tosses,
                title="Do canaries give themselves away, whatever the coins?");

# %% [markdown]
# **How to read it.** Dots are single tosses. They scatter by chance alone by about 0.08 around the
# truth where there are some fifty canaries. Only the diamond, with its interval over patients and
# trainings, says whether the attack works. One toss alone, as in `laptop`, gives no such answer.

# %% [markdown]
# ## What it takes
#
# Hours of training, images seen, and what a step keeps in memory for its gradient, of the public
# and of the private trainings. Private hours are the median over ε. The autoencoder of C18 counts
# as a part of its public training.

# %%
takes = {}
for name, some in trained.items():
    kinds = {"public": [public[name]], "private": [run for run in some if kind(run) == PRIVATE]}
    for which, group in kinds.items():
        takes[name, which] = {
            "hours": np.median([training_seconds(study, run) for run in group]) / 3600,
            "images": training_log(study, group[0])["images"].iloc[-1],
            "MiB for a gradient": private.step_memory(study, group[0], slices)}
pd.DataFrame.from_dict(takes, orient="index").round({"hours": 2, "MiB for a gradient": 1})

# %% [markdown]
# **How to read it.** Here a private step takes the gradients of its patients one after another. So
# it keeps the images of one patient in memory, not of all. The price is time: these images are too
# few to keep a processor busy. Libraries that compute the gradients of all images at once save this
# time, and need memory for as many copies of the weights. Hours also depend on what else ran.

# %% [markdown]
# ## The claim
#
# R6 has one primary test, stated in `reporting/primary_tests.py` before any result was looked at:
# at ε = 10, anatomy lies farther from real patients than at ε = ∞, *and* there are fewer valid
# hearts. The training at ε = ∞ must show hearts. Otherwise there is nothing to lose.

# %%
ledger = claims.Ledger(claims.unfit(table))
by_epsilon = {(name, run.variant.epsilon): run for name, some in trained.items() for run in some
              if kind(run) == PRIVATE}
tested = "U10 FM" in systems and private.REFERENCE in params.epsilons
for name in systems if tested else ():
    strict, loose = (by_epsilon[name, e] for e in (private.REFERENCE, math.inf))
    changes = [evaluator.difference(banks[strict.id], banks[loose.id], metric)
               for metric in (ANATOMY, HEARTS)]
    if name == "U10 FM":
        ledger.primary("R6", *changes, parties=[loose.id])
    else:
        ledger.explore("R6", f"private {name}, ε = 10 − without noise", changes[0], ANATOMY,
                       "above", parties=[loose.id])

# %%
for name in systems if tested else ():
    strict, start = by_epsilon[name, private.REFERENCE], public[name]
    worth = evaluator.difference(banks[strict.id], banks[start.id], ANATOMY)
    ledger.explore("R6", f"private {name}, ε = 10 − public patients only", worth, ANATOMY,
                   "above", parties=[start.id])
    both = (audit.over_tosses(tossed[name][e]) for e in (private.REFERENCE, math.inf))
    attack = f"attack_auc_{audit.attack_on(strict).name}_calibrated"
    ledger.explore("R6", f"private {name}, ε = 10 − without noise, canaries",
                   score_difference(*both), attack, "below")

# %%
for name in systems if tested else ():
    strict, loose = (by_epsilon[name, e] for e in (private.REFERENCE, math.inf))
    if strict.id in students and loose.id in students:
        less = school.difference(students[strict.id], students[loose.id])
        ledger.explore("R6", f"private {name}, ε = 10 − without noise, students", less,
                       "downstream_dice", "below", parties=[loose.id])
results.write_claims(study, "12_differential_privacy", ledger.rows)
ledger.table().set_index("claim")

# %%
others = {run.id for run in ordinary.values()}  # notebook 06 has written theirs
own = [row for name, rows in found.items() if name not in others for row in rows]
scores = results.write_scores(study, "12_differential_privacy", own + controls)
print(f"{len(scores)} scores of {scores['system'].nunique()} trainings and controls")

# %% [markdown]
# ## Check
#
# Public and private patients must be different people, and nobody of the hold-out may have been
# learnt from. The budget must be kept by both accountants. And no lower bound may lie above the
# upper one: with 99.9 % confidence, that would be a fault in the training or in the proof.

# %%
assert not set(who.public) & set(who.private) and not set(who.left_out) & set(who.included)
for run in (*runs, *again):
    seen, left_out = audit.target(run).seen, set(who.canaries) - set(run.patients)
    assert not seen & set(audit.nonmembers.patients) and not seen & left_out
    upper = private.accounted(study, slices, run)
    assert upper["PRV"] <= 1.02 * upper["RDP"] and upper["RDP"] <= run.variant.epsilon
    assert audit.canaries(run).sure <= upper["RDP"], f"{run.id}: an attack proves too much"
noises = [budget[epsilon]["σ"] for epsilon in sorted(budget)]
assert noises == sorted(noises, reverse=True) and noises[-1:] in ([0], []), "noise is no use"
print("budgets kept:", {f"{e:g}": round(b["ε by PRV"], 2) for e, b in budget.items()})

# %% [markdown]
# ## Exercises
#
# ### 1. How many patients would it take?
#
# Keep ε, the rate and the number of steps. Compute, for as many private patients as here and for
# 100 times as many, how long the noise of a step is in units of the longest mean gradient. δ falls
# with their number, too. Does the larger σ or the larger number of patients win?

# %% tags=["solution"]
epsilon, needed = min(params.epsilons), []
for times in (1, 100) if systems else ():
    step = private.mechanism(params, who, epsilon)
    sigma = noise_multiplier(epsilon, who.delta / times, step.rate, params.training.steps)
    needed.append({"private patients": times * len(who.private), "σ": sigma,
                   "noise / gradient": sigma * size**0.5 / (times * step.patients)})
pd.DataFrame(needed).round(2)
# σ rises a little, because δ falls, but it is shared by so many more patients.

# %% [markdown]
# ### 2. What ε promises
#
# Every attack on an (ε, δ)-private training obeys $\text{TPR} \le e^\varepsilon\, \text{FPR} +
# \delta$ and $1 - \text{FPR} \le e^\varepsilon (1 - \text{TPR}) + \delta$. Which share of the
# members can an attacker find at most, with 1 % and with 10 % false alarms? From which ε on is the
# promise empty?

# %% tags=["solution"]
strengths = sorted({0.1, 1.0, 3.0, *params.epsilons})
promised = {}
for false in (0.01, 0.1):
    promised[f"TPR at {false:.0%} false alarms, at most"] = [
        min(np.exp(e) * false + who.delta, 1 - np.exp(-e) * (1 - false - who.delta))
        for e in strengths]
pd.DataFrame(promised, index=pd.Index(strengths, name="ε")).round(3)
# With ε = 0.1 an attacker does hardly better than guessing. The first bound reaches 1 at about
# ε = ln(1 / FPR): 4.6 at 1 % false alarms, 2.3 at 10 %. From there on the promise is nearly empty.
# At ε = 10 nearly all members may be found: if attacks find fewer, that is their weakness or luck.

# %% [markdown]
# ### 3. The price of more steps
#
# Train four times and sixteen times as long at the same ε. How much more noise does each step need?
# If steps were independent looks at a patient, by which factor would σ have to grow? Is a longer
# private training then better or worse than a short one?

# %% tags=["solution"]
loosest, longer = max(params.epsilons), []
for times in (1, 4, 16) if systems else ():
    rate, count = private.mechanism(params, who, loosest).rate, times * params.training.steps
    sigma = noise_multiplier(loosest, who.delta, rate, count)
    longer.append({"steps": count, "σ": sigma, "σ / √steps": sigma / count**0.5})
pd.DataFrame(longer).round(3)
# Independent looks add up like variances: four times the steps would need twice the noise. σ grows
# by less while it is small, and comes nearer to that factor as it grows. The noise of many steps
# also averages out: a longer training is worse only once its gradients have little left to say.

# %% [markdown]
# ## Summary

# %%
def value(run, metric):
    """The value of a metric of a training; NaN where it was not measured."""
    return next((row["value"] for row in found[run.id] if row["metric"] == metric), math.nan)


for name, some in trained.items():
    for run in (public[name], *(r for n, r in ordinary.items() if n == name), *some):
        proof = f", ε at least {canaries[run.id].lower:.2f}" if run.id in canaries else ""
        print(f"{2 if run in some else 1}. {run.id}: anatomy",
              f"{value(run, ANATOMY):.3f}, valid hearts {value(run, HEARTS):.0%}{proof}")
for row in tosses[tosses["toss"].isna()].itertuples():
    strength = "without noise" if math.isinf(row.epsilon) else f"ε = {row.epsilon:g}"
    print(f"3. {row.generator}, {strength}: AUC of the attack on canaries, over all tosses,",
          f"{row.value:.2f} [{row.low:.2f}, {row.high:.2f}]")
for row in ledger.rows:
    if row["primary"]:
        print(f"4. {row['claim']}: {row['verdict']}")

# %% [markdown]
# 1. **References.** What private patients can add at most is the difference between the two lines:
#    public patients only, and all patients.
# 2. **Cost.** The step from ε = ∞ to a finite ε is the price of the guarantee. With some dozen
#    patients, noise outweighs all gradients. A private generator then lives off its public weights.
# 3. **What pays.** More patients. A network with fewer weights to train, or one with better public
#    weights, helps as well. A larger ε helps least of all, and it soon promises nothing.
# 4. **Lower bounds.** One training with some dozen canaries can prove an ε of one or two at most.
#
# ## Limits
#
# - One training of each kind, but where coins are tossed anew. Intervals of all others are over
#   patients, not over noise.
# - The seeds of this study are public, and so is the noise that follows from them. Whoever releases
#   a private generator must draw the noise from a secret source, in a way that is safe with numbers
#   of finite precision.
# - The clipping norm, the learning rate and the number of steps were set beforehand, on public
#   weights. Where they are tuned on private patients, the tuning spends privacy too.
# - "Public" patients come from the same cohort. Those of another hospital would help less.
# - Instruments (segmenter, feature spaces) have learnt from all training patients. They measure and
#   are never released with a private generator.
# - The number of private patients is treated as public.
# - Sampling conditions are none: private labels would have to be protected, too.
