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
# **Question.** What does the review's comparison look like when every cell is measured under one protocol?
#
# This notebook computes nothing: it joins the tables that the other notebooks wrote (`results/<dataset>/*.csv`) into
# `results/scores.csv` and the claims they tested into `results/claims.csv`, and writes both as tables to read,
# [`results/README.md`](../results/README.md). What nobody has measured yet is shown as such.

# %% tags=["parameters"]
profile = None  # None: as params.yaml says
dataset = None

# %%
import pandas as pd

from cmri_lib.experiments import protocol
from cmri_lib.reporting import figures, readme as tables, results, review

study, _ = protocol.open_study(profile, dataset)
figures.use_style()
scores, claims = results.union(study.root), results.union(study.root, claims=True)
scores.to_csv(study.root / "results" / "scores.csv", index=False, float_format="%.6g")
claims.to_csv(study.root / "results" / "claims.csv", index=False, float_format="%.6g")
(study.root / "results" / "README.md").write_text(tables.page(scores, claims, study.profile), encoding="utf-8")
scores.groupby(["dataset", "profile", "system"]).size().unstack(fill_value=0)

# %% [markdown]
# ## Scoreboard
#
# One column per measure: the value with its 95 % interval. Green: the interval reaches what real patients score (the floor of distances and
# of the audit; for Dice and HD95 the segmenter's agreement with the annotators); yellow: it does not. Costs have no such mark.

# %%
mine = scores[(scores["dataset"] == study.dataset) & (scores["profile"] == study.profile)]
shown = [m for m in review.HEADLINE_METRICS if m in set(mine["metric"])]
listed = mine["system"].str.split(" ").str[0].isin([*review.SYSTEMS, "real"])  # cells of the ablation stay in its notebook
ordered = pd.concat([mine[listed & (mine["metric"] == metric)] for metric in shown])
board = ordered[["system", "conditioning", "axis", "metric", "value", "low", "high", "floor", "ceiling", "better", "n"]]
figures.publish(study, "13_scoreboard", board, figures.scoreboard);

# %% [markdown]
# ## What is still missing
#
# The review's systems, and whether this study has measured them.

# %%
measured = {s.split(" ")[0]: axes for s, axes in mine.groupby("system")["axis"].agg(lambda a: ", ".join(sorted(set(a)))).items()}
coverage = pd.DataFrame([{"id": i, "system": name, "measured": measured.get(i, "")} for i, name in review.SYSTEMS.items()])
coverage

# %% [markdown]
# ## The ledger of claims

# %%
tested = claims[(claims["dataset"] == study.dataset) & (claims["profile"] == study.profile)]
verdicts = tested.groupby("claim")["verdict"].agg(" · ".join)  # a claim may have several tests
ledger = pd.DataFrame([{"claim": i, "text": text, "verdict": verdicts.get(i, "not tested yet")} for i, text in review.CLAIMS.items()])
figures.publish(study, "13_coverage", pd.concat([
    coverage.assign(kind="system", done=coverage["measured"] != "").rename(columns={"system": "text"})[["kind", "id", "text", "done"]],
    ledger.assign(kind="claim", id=ledger["claim"], done=ledger["verdict"] != "not tested yet")[["kind", "id", "text", "done"]]]),
    figures.coverage)
ledger

# %%
tested[["claim", "test", "effect", "low", "high", "unit", "verdict"]].round(3)

# %% [markdown]
# ## Check

# %%
assert len(mine), f"no results of {study.dataset}, profile {study.profile}"
assert not scores.duplicated(["dataset", "profile", "system", "conditioning", "metric"]).any(), "one score, two values"
held = scores.dropna(subset=["low", "high"])
assert ((held["low"] <= held["value"]) & (held["value"] <= held["high"])).all()

# %% [markdown]
# ## Exercise
#
# Which measure separates the systems best, in units of its interval?

# %% tags=["solution"]
spread = board.assign(width=board["high"] - board["low"]).groupby("metric").agg(between=("value", "std"), within=("width", "mean"))
(spread["between"] / spread["within"]).sort_values(ascending=False).round(2)

# %% [markdown]
# ## Limits
#
# - One seed per system: a difference between two systems is one between two trainings.
# - Rows of other profiles and cohorts stay in `results/scores.csv`; they are not comparable with each other.
