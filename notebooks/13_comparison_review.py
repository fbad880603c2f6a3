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
# # 13 · The comparison review, from results
#
# **Question.** What does the review's comparison look like when every system is measured under one
# protocol? Which of the review's claims hold?
#
# **What the review says.** The review compares published work on synthetic cardiac MRI. It runs
# nothing itself, and distances from different papers cannot be compared. As the next step it names
# a comparison of all models under identical protocols for *fidelity* (are samples close to real
# images?), *utility* (do they help to train other networks?) and *privacy* (do they reveal training
# patients?). This study makes that comparison.
#
# **Which profile shows what.** All results below belong to one profile, the one that was run. The
# profile `laptop` shows how things work, not which family wins; `overnight` is the budget for
# verdicts. `smoke` only tests that the code runs.

# %% [markdown]
# ## Method
#
# This notebook computes no measure. It joins the tables that the other notebooks have written,
# `results/<dataset>/*.csv`:
#
# - all **scores** become `results/scores.csv`. A score is one metric of one system.
# - all tests of **claims** become `results/claims.csv`. A claim is a sentence of the review that
#   can be tested, with an id such as F1.
# - both become two pages to read: tables, [`results/README.md`](../results/README.md), and what was
#   found, in words, [`results/FINDINGS.md`](../results/FINDINGS.md). Its sentences are written by
#   people, in `cmri_lib/reporting/findings.md`; its numbers are read from the tables.
#
# What nobody has measured yet is shown as missing. Each score has these columns:
#
# | column | meaning |
# |---|---|
# | value | the estimate |
# | low, high | ends of the 95 % interval, by resampling patients (bootstrap) |
# | n | number of images, patients or repeats behind it, as the metric counts |
# | floor, ceiling | two references for the metric, see below |
# | better | whether lower or higher values are better |
#
# **The headline** is a pair of distances to real images, and a share:
#
# - the **distance of anatomy** compares images in the deepest layer of a frozen segmenter, the
#   bottleneck of its U-Net: there it has recognised a heart, but not yet drawn its outline. It sees
#   hearts and hardly sees a mild blur;
# - the **distance of appearance** compares the energies of Gabor filters, small wave patterns of
#   several sizes and directions. It sees texture and blur, but not whether the parts of a heart are
#   in place;
# - **valid hearts** is the share of samples in which the segmenter finds a plausible heart.
#
# A system must do well in both distances. One with less than half of the valid hearts of real
# images *shows no hearts*, and nothing else of it is called good. Both distances are an MMD
# (maximum mean discrepancy): how alike samples are to real images, compared with how alike real
# images are to each other. KID and the Fréchet distance are there for comparison with other papers.
#
# **Floor and ceiling.** For distances and for the audit of near copies, the floor is what real
# images of other patients score. The ceiling is what training images would score if they were
# handed out as samples. For agreement with a mask (Dice, HD95), the ceiling is what real images
# score, and the floor is what another patient's mask would. One of the two is always what *real
# images* score, and this is the reference in the scoreboard.
#
# **Verdicts.** Each test of a claim has an effect, its interval, and a margin that was fixed
# before. The claim is *supported* by the test if the whole interval lies on the claimed side of
# the margin:
#
# $$ \text{verdict} = \begin{cases} \text{supported} & \text{low} > \text{margin} \\
# \text{not supported} & \text{high} < \text{margin} \\ \text{undecided} & \text{otherwise}
# \end{cases}
# $$
#
# (here for a claim that says "above"; for "below" the sides change places). Where a system that is
# compared shows no hearts, or has not converged, the test is *not testable at this budget*.
#
# **One primary test per claim.** It was stated before the results: what is compared, in which
# metric, in which direction, by which margin. A test with several criteria is supported only if all
# of them are. It is not supported if one fails clearly, its p-value times their number. So the
# formula above is that of one criterion. The other tests of a claim are **exploratory**: they show
# where an effect lies, and with so many of them a few reach a verdict by chance.
#
# **p-values.** An interval that just touches the margin has p = 0.05. Beyond, p is that of a normal
# variable with this interval, or of Student's t where the interval is over trainings, too.
#
# **Holm's correction.** With $m$ primary tests, the smallest p is multiplied by $m$, the next one
# by $m - 1$, and so on. Verdicts that stay below 0.05 stand together: the chance that any of them
# is wrong is at most 5 % (Holm 1979). The others become undecided. Each cohort has its own
# correction.

# %% tags=["parameters"]
profile = None  # None: as params.yaml says
dataset = None

# %%
import pandas as pd
from IPython.display import Image, Markdown, display

from cmri_lib.cohort import data_sets
from cmri_lib.config.study import open_study
from cmri_lib.reporting import (
    comparison, comparison_plots, figures, findings, metrics, primary_tests, questions,
    readme, results, review)
from cmri_lib.reporting.claims import after_holm
from cmri_lib.reporting.primary_tests import ANATOMY, APPEARANCE

# %% [markdown]
# The next cell opens the study and joins all tables of scores. The table counts the scores of each
# cohort and profile, by axis. An *axis* is what a metric is about: fidelity, anatomy, conditioning,
# utility, privacy or cost.

# %%
study = open_study(profile, dataset)
figures.use_style()
pd.set_option("display.max_colwidth", None, "display.max_rows", 200)
scores = results.union(study.root)
claims = after_holm(results.union(study.root, claims=True))
print(f"{len(scores):,} scores, {len(claims)} tests of claims")
scores.groupby(["dataset", "profile", "axis"]).size().unstack(fill_value=0)

# %% [markdown]
# The joint tables and the pages of results are written to files. The tables hold all cohorts and
# profiles that have been run. The pages show one profile; what its results do not bear out, or do
# not have, is left out of the findings.

# %%
folder = study.root / "results"
scores.to_csv(folder / "scores.csv", index=False, float_format="%.6g")
claims.to_csv(folder / "claims.csv", index=False, float_format="%.6g")
page = readme.page(scores, claims, study.profile)
(folder / "README.md").write_text(page, encoding="utf-8")
found = findings.page(study.root, study.profile)
(folder / "FINDINGS.md").write_text(found, encoding="utf-8")
for reason in findings.left_out(found):
    print("left out of the findings:", reason)
print("written:", ", ".join(sorted(file.name for file in folder.glob("*.*"))))

# %% [markdown]
# From here on, only one cohort and one profile are shown. Scores of different cohorts or profiles
# cannot be compared with each other.

# %%
def mine(table):
    """The rows of this cohort and this profile."""
    return table[(table["dataset"] == study.dataset) & (table["profile"] == study.profile)]

my_scores, my_claims = mine(scores), mine(claims)
listed = review.listed(my_scores["system"])
of_review = my_scores[listed | (my_scores["system"] == "real")]
of_review = pd.concat([of_review, comparison.strongest_attacks(of_review)])
print(f"cohort {study.dataset}, profile {study.profile}: {len(my_scores):,} scores of "
      f"{my_scores['system'].nunique()} systems and variants, "
      f"{of_review['system'].nunique() - 1} of them systems of the review or of one's own")

# %% [markdown]
# The others are variants: systems of the ablation study of notebook 07, in which one thing at a
# time is changed, arms of notebooks 09 and 10, private trainings of notebook 12. They stay there.
#
# ## Scoreboard
#
# One row for each system, one column for each headline metric. A cell shows the value and its 95 %
# interval. The list of headline metrics is the same in all notebooks
# (`cmri_lib.reporting.metrics.HEADLINE`).

# %%
shown = metrics.headline(of_review["metric"])
board = pd.concat([of_review[of_review["metric"] == metric] for metric in shown])
columns = ["system", "family", "conditioning", "axis", "metric", "value", "low", "high", "floor",
           "ceiling", "better", "n"]
board = board[columns]
figures.publish(study, "13/scoreboard", board, comparison_plots.scoreboard,
                title=f"Scoreboard of the cohort {study.dataset}, profile {study.profile}");

# %% [markdown]
# **How to read it.** The first row of each panel is what real images score. A green cell has an
# interval that reaches this reference, a yellow one does not. A grey cell has no such reference: a
# time or a number of images. A system without hearts is grey in all cells. Where the segmenter
# finds a heart in fewer than half of the *real* slices, as in the `smoke` profile, it cannot judge
# samples: the column of valid hearts is then grey, and a note below the figure says so. White means
# that the metric was not measured or does not apply. An unconditional system, for example, has no
# mask that it could follow.
#
# Begin with the two distances of the headline, and read on along the row. A generator that hands
# out training images is green in every distance, and shows only in the audit (*nearest to
# training*, *near copies*). A green cell is not always a success: with few samples an interval can
# be wide enough to reach anything. And for some metrics a value beyond that of real images is no
# merit: samples with less similarity (*MS-SSIM of pairs*) than real images, or less near to
# training patients, may just be noise.
#
# *The strongest of those tried* is the attack of notebook 11 that ranks training patients highest
# among strangers; ½ is guessing. It was picked after looking, and its interval does not know that:
# of many attacks that only guess, the best lies above ½, the more so the more were tried (twice as
# many on diffusion and flows as on others). So small differences here rank nobody. Notebook 11 has
# all attacks, with their controls.
#
# The table lists the metrics of the scoreboard: what each of them measures, its unit, which
# direction is better, how many systems have it, and when to use it.

# %%
by_metric = board[board["system"] != "real"].groupby("metric", sort=False)
explained = pd.DataFrame([{
    "metric": metrics.label(metric), "axis": part["axis"].iloc[0],
    "direction": metrics.direction(metric, part["better"].iloc[0]),
    "systems": part["system"].nunique(), "when to use": metrics.use(metric)}
    for metric, part in by_metric])
explained.set_index("metric")

# %% [markdown]
# ## The taxonomy, and who reports what
#
# The review sorts its systems by family and by what they are conditioned on. The figure repeats its
# taxonomy. A system has the colour of its family where this study has measured it.

# %%
figures.publish(study, "13/taxonomy", comparison.taxonomy(my_scores), comparison_plots.taxonomy,
                title="The review's systems by family and condition; grey: not measured here");

# %% [markdown]
# The review also counted what published studies report: 79 % of them fidelity, 50 % utility, 14 %
# privacy. No row of its table of systems has a measured privacy value. The next figure sets the
# systems of this study beside these numbers: the share that has at least one score on an axis.

# %%
reported = comparison.completeness(of_review)
figures.publish(study, "13/completeness", reported, comparison_plots.completeness,
                title="Share of the reviewed studies, and of this study's systems, with results");

# %% [markdown]
# **How to read it.** The review did not count anatomy, conditioning and cost. A study of the review
# has one or two systems of its own; here every system has the same tests, or none yet.
#
# ## The data sets
#
# The review's second table lists public data sets. These are the ones that the study can read. The
# numbers are those of their authors.

# %%
data_sets.table()

# %% [markdown]
# ## Which metric sees which fault?
#
# Notebook 06 shows known faults to every metric: real images that were blurred, torn or shaded, a
# few patients in the place of many, copies of training images. All have half their full strength,
# the 0.5 in brackets. The table lists what each metric tells from real images, what it is blind to,
# and when to use it.

# %%
corrupted = study.figures / "06" / "corruptions.csv"
seen = comparison.faults_seen(pd.read_csv(corrupted)) if corrupted.exists() else pd.DataFrame()
seen.assign(metric=seen["metric"].map(metrics.short)).set_index("metric").drop(
    columns="share") if len(seen) else "notebook 06 has not been run"

# %% [markdown]
# **How to read it.** No metric sees everything. A metric that sees many faults is a good alarm, but
# does not say what is wrong; one that sees a single fault names it. The headline asks two distances
# and valid hearts, because each is blind to what another sees. Copies of training images hardly
# move a distance; the audit sees them best.
#
# ## Fidelity against cost, anatomy, utility and privacy
#
# No system is best in everything. The figure has a panel for each pair of axes. A system is on the
# **Pareto front** if no other is better in both metrics. Systems without hearts are left out.

# %%
figures.publish(study, "13/fronts", comparison.fronts(of_review), comparison_plots.fronts,
                title="Distance of anatomy against what it costs and what it is good for");

# %% [markdown]
# **How to read it.** Ringed systems are on the front; their names are below each panel. Thin lines
# are their 95 % intervals: two systems whose intervals overlap may well change places. Times are of
# the machine that ran the notebooks.
#
# ## What is still missing
#
# The next table lists the systems of the review, and on which axes this study has measured them.
# An empty cell means that the system has not been built, or that its notebook has not been run.

# %%
axes = my_scores.assign(id=review.identity(my_scores["system"])).groupby("id")["axis"].unique()
coverage = pd.DataFrame([
    {"id": system_id, "system": name, "measured": ", ".join(sorted(axes.get(system_id, [])))}
    for system_id, name in review.SYSTEMS.items()])
coverage.set_index("id")

# %% [markdown]
# ## The ledger of claims
#
# First the register: one primary test per claim, the same in every cohort and profile. A test of
# several rows needs all of them, and fails with any one.

# %%
stated = primary_tests.register()
stated.assign(metric=stated["metric"].map(metrics.title)).set_index(["claim", "comparison"])

# %% [markdown]
# The next table is the answer to the claims: their primary tests in this cohort. The effect is that
# of the weakest criterion. The last column is the verdict that stands together with all others.

# %%
primary = readme.primary_tests(my_claims).drop(columns="cohort").set_index("claim")
primary

# %% [markdown]
# **How to read it.** *Undecided* means that an interval contains its margin: the data cannot tell.
# It does not mean that there is no effect. *Not supported* means that the data speak against the
# claim or one of its parts, at this budget and on this cohort. *Not testable at this budget* means
# that a difference would only show how short a training was.
#
# The next table counts the verdicts of all claims: that of the primary test, and those of the
# exploratory ones. A claim that is not tested has zeros only.

# %%
def count(rows):
    """Claims × verdicts."""
    found = pd.crosstab(rows["claim"], rows["verdict"])
    return found.reindex(index=list(review.CLAIMS), columns=list(results.VERDICTS), fill_value=0)


is_primary = my_claims["primary"].astype(bool)
counts = count(my_claims[is_primary])
ledger = pd.concat({"primary": counts, "exploratory": count(my_claims[~is_primary])}, axis=1)
ledger.set_index(pd.Series(review.CLAIMS, name="claim"), append=True)

# %% [markdown]
# The figure shows which systems and claims have been measured.

# %%
tested = counts.sum(axis=1) > 0
both = pd.concat([
    pd.DataFrame({"kind": "system", "id": coverage["id"], "text": coverage["system"],
                  "done": coverage["measured"] != ""}),
    pd.DataFrame({"kind": "claim", "id": list(review.CLAIMS), "text": review.CLAIMS.values(),
                  "done": tested.to_numpy()})])
figures.publish(study, "13/coverage", both, comparison_plots.coverage,
                title=f"What has been measured: cohort {study.dataset}, profile {study.profile}");

# %% [markdown]
# Now the exploratory tests, with their effects, 95 % intervals and units.

# %%
numbers = zip(my_claims["effect"], my_claims["low"], my_claims["high"])
tests = my_claims.assign(effect=[f"{e:.3g} [{l:.3g}, {h:.3g}]" for e, l, h in numbers])[~is_primary]
order = {claim: place for place, claim in enumerate(review.CLAIMS)}
tests = tests.sort_values("claim", key=lambda column: column.map(order), kind="stable")
tests[["claim", "test", "effect", "unit", "verdict"]].set_index("claim")

# %% [markdown]
# **How to read it.** "A − B" is the score of A minus that of B, on the same patients. The sign
# that the claim predicts depends on the metric: a claim that A is better predicts a negative
# difference of a distance, and a positive one of Dice. "A / B" is the logarithm of a ratio of
# times, with 0 as the margin. The verdict has taken all this into account.
#
# ## The five questions of the review
#
# The next cells answer the review's research questions from the numbers above: how the primary
# tests of the claims that bear on a question ended; metric by metric the best unconditional and the
# best conditional system, with what real images score; and what such numbers cannot answer. The
# figures of other notebooks that belong to an answer stand below it.

# %%
def answer(name):
    """A question, its answer, and its figures."""
    question = questions.QUESTIONS[name]
    text = questions.answer(question, of_review, my_claims)
    display(Markdown(f"### {name}. {question.text}\n\n{text}"))
    for figure in (study.figures / f"{one}.png" for one in question.figures):
        if figure.exists():
            print(figure.relative_to(study.root).as_posix())
            display(Image(filename=figure, width=720))


# %%
answer("RQ1")

# %%
answer("RQ2")

# %%
answer("RQ3")

# %%
answer("RQ4")

# %%
answer("RQ5")

# %% [markdown]
# **How to read it.** A best value is the best of many, so it flatters. Where the intervals of
# others overlap with it, no winner has been shown. *Not tested* means that the notebook of this
# claim has not been run for this cohort and profile.
#
# ## Check
#
# The assertions fail if there are no results of this cohort and profile, if two notebooks have
# written the same score, or if a value lies outside its interval.

# %%
assert len(my_scores), f"no results of {study.dataset}, profile {study.profile}"
key = ["dataset", "profile", "system", "conditioning", "metric"]
assert not scores.duplicated(key).any(), "one score, two values"
held = scores.dropna(subset=["low", "high"])
assert ((held["low"] <= held["value"]) & (held["value"] <= held["high"])).all()
assert (my_claims[is_primary].groupby("claim").size() == 1).all(), "a claim has two primary tests"
print("all checks passed")

# %% [markdown]
# ## Exercises
#
# ### 1. Which metric separates?
#
# Divide the standard deviation between systems by the mean width of the intervals. Which metric
# separates the systems best, in units of its interval?

# %% tags=["solution"]
systems = board[board["system"] != "real"]
widths = systems.assign(width=systems["high"] - systems["low"]).groupby("metric", sort=False)
spread = widths.agg(between=("value", "std"), within=("width", "mean"))
ratio = (spread["between"] / spread["within"]).sort_values(ascending=False)
ratio.rename(metrics.label).round(2).to_frame("between systems / interval")
# A large ratio means that few samples are enough to rank systems by this metric. It does not mean
# that the metric is about something that matters. Costs have narrow intervals or none.

# %% [markdown]
# ### 2. Nobody is better in everything
#
# A system is on the *front* if no other is at least as good in every column and better in one. Find
# the front by hand in the distance of anatomy and the seconds per image. Add the distance of
# appearance, then the share of invalid hearts. How does the front change with every column? What
# would a front with twenty columns tell you?

# %% tags=["solution"]
def front(loss):
    """Systems that no other one beats; lower is better in every column of `loss`."""
    beaten = [((loss <= row).all(axis=1) & (loss < row).any(axis=1)).any()
              for _, row in loss.iterrows()]
    return loss.index[[not lost for lost in beaten]]


losses = board[board["system"] != "real"].pivot_table(
    index="system", columns="metric", values="value").assign(
    invalid=lambda values: 1 - values["heart_valid"] if "heart_valid" in values else float("nan"))
wanted = [ANATOMY, "seconds_per_image", APPEARANCE, "invalid"]
losses = losses.reindex(columns=wanted).astype(float).dropna(axis=1, how="all").dropna()
for count in range(2, losses.shape[1] + 1):
    found = front(losses.iloc[:, :count])
    print(f"{count} columns: {len(found)} of {len(losses)} systems:", ", ".join(found))
# Each column can only add systems (but for ties): whoever is best in one thing stays. With twenty
# columns nearly everybody is on the front, and the front no longer chooses.

# %% [markdown]
# ### 3. Holm by hand
#
# Sort the p-values of the primary tests. Holm compares the smallest with 0.05 / m, the next one
# with 0.05 / (m − 1), and so on, and stops at the first that is larger. Which tests stand? How many
# of m true null hypotheses would be rejected without a correction, on average?

# %% tags=["solution"]
by_p = my_claims.loc[is_primary, ["claim", "p", "verdict", "after Holm"]]
by_p = by_p.dropna(subset="p").sort_values("p", kind="stable")
m = len(by_p)
by_p = by_p.assign(limit=[0.05 / (m - place) for place in range(m)])
by_p["stands"] = (by_p["p"] < by_p["limit"]).astype(int).cummin().astype(bool)
print(f"{m} tests; without a correction {0.05 * m:.1f} false verdicts on average, "
      f"at least one with a chance of {1 - 0.95**m:.0%}")
by_p.set_index("claim").round(4)
# A row that stands keeps its verdict; all below the first that fails are undecided, even those with
# p < 0.05.

# %% [markdown]
# ## Summary
#
# The next cells print the findings of this run. First how much of the review has been measured.

# %%
print(f"systems measured: {(coverage['measured'] != '').sum()} of {len(coverage)}")
print(f"claims tested: {tested.sum()} of {len(tested)}")
after = my_claims.loc[is_primary, "after Holm"].value_counts()
for verdict, found in counts.sum().items():
    print(f"primary tests {verdict}: {found}; after Holm's correction: {after.get(verdict, 0)}")

# %% [markdown]
# Then one row for each metric that has a reference: what real images score, the best unconditional
# and the best conditional system with their values, and how many systems reach the real images
# with their interval (the green cells).

# %%
def best(part):
    """The system with the best value of one metric, and the value."""
    part = part.dropna(subset="value")
    if part.empty:
        return ""
    metric = part["metric"].iloc[0]
    lower = part["better"].iloc[0] == "lower"
    loss = part["value"].abs() if metrics.describe(metric).zero else part["value"]
    row = part.loc[loss.idxmin() if lower or metrics.describe(metric).zero else loss.idxmax()]
    return f"{row['system']}: {metrics.number(metric, row['value'])}"

# %%
def reaching(part):
    """How many systems have an interval that reaches what real images score."""
    metric, lower = part["metric"].iloc[0], part["better"] == "lower"
    real = part[metrics.describe(metric).bounds.real]
    if review.cannot_judge(metric, real.min()):
        return "cannot judge"
    low, high = part["low"].fillna(part["value"]), part["high"].fillna(part["value"])
    found = (lower & (low <= real)) | (~lower & (high >= real))
    return f"{found.sum()} of {len(part)}"

# %%
rows = []
for metric, part in by_metric:
    everyone = board[board["metric"] == metric]
    found = [value for value, kind, _ in metrics.references(everyone, metric) if kind == "real"]
    free = review.unconditional(part)
    for real in found:
        rows.append({"metric": metrics.label(metric), "real images": metrics.number(metric, real),
                     "best unconditional": best(part[free]), "best conditional": best(part[~free]),
                     "reach real images": reaching(part)})
columns = ["metric", "real images", "best unconditional", "best conditional", "reach real images"]
pd.DataFrame(rows, columns=columns).set_index("metric")

# %% [markdown]
# At last the headline: the systems whose intervals reach real images in anatomy *and* in
# appearance, and the systems that show no hearts.

# %%
heartless = review.without_hearts(board)
near = board[board["metric"].isin([ANATOMY, APPEARANCE]) & (board["system"] != "real")]
reaches = (near["low"] <= near["floor"]).groupby(near["system"]).agg(["all", "size"])
reached = reaches.index[reaches["all"] & (reaches["size"] == 2)].difference(list(heartless))
print("reach real images in anatomy and in appearance:", ", ".join(reached) or "none")
print(review.hearts_note(board) or f"no hearts: {', '.join(sorted(heartless)) or 'none'}")

# %% [markdown]
# 1. **How much is measured.** The first lines count systems and claims. Those that are missing are
#    grey in the coverage figure.
# 2. **No metric alone ranks the systems.** In the table see whether the same system is best in many
#    rows, or another one in each. A best value is an estimate: look up its interval in the
#    scoreboard before you call it better than the second.
# 3. **How far from real images.** The last lines name the systems that reach the floor in both
#    headline distances. In the table, the last column says for which metrics some systems cannot be
#    separated from real images, and for which none can reach them: these show what to improve.
# 4. **The ledger.** Read the primary tests, after Holm's correction. Many undecided tests mean that
#    there are too few patients or trainings, or that the effects are small. Many that are not
#    testable mean that trainings were too short, as they are with the `laptop` profile.
#
# ## Limits
#
# - One seed per system, unless the column `seeds` of `results/scores.csv` says otherwise. A
#   difference between two systems is then one between two trainings.
# - Many exploratory tests are made. A few of them would reach a verdict by chance.
# - Intervals are percentiles of some hundred draws. A very small p rests on the shape of the normal
#   distribution, not on draws that have been seen.
# - Rows of other profiles and cohorts stay in `results/scores.csv`. They cannot be compared with
#   each other.
# - A claim of the review is a sentence. A test makes it precise, and other tests of the same
#   sentence are possible.
