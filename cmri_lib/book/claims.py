"""The pages of the review's claims: one each, and the ledger of all."""

from __future__ import annotations

import pandas as pd

from cmri_lib.book import systems
from cmri_lib.book.facts import Results, identities, systems_of
from cmri_lib.book.links import Links, anchor
from cmri_lib.config.study import Study
from cmri_lib.reporting import metrics, readme, review
from cmri_lib.reporting.primary_tests import PRIMARY, Criterion
from cmri_lib.reporting.results import VERDICTS

NOT_MEASURED = "not yet measured"
#: What a direction asks of the interval of the effect.
DIRECTIONS = {"above": "above the margin", "below": "below the margin", "beyond": "beyond the margin, on one side of 0",
              "within": "within the margin, on both sides of 0"}


def page_of(claim: str) -> str:
    """The page of a claim in the book."""
    return f"claims/{claim}.html"


def page(claim: str, results: Results, links: Links) -> str:
    """Markdown of one claim."""
    place, number = page_of(claim), results.notebooks.get(claim)
    tested = results.claims[results.claims["claim"] == claim]
    most = results.claims["dataset"].value_counts()  # cohorts in which more is tested come first
    tested = tested.sort_values("dataset", key=lambda cohorts: -cohorts.map(most), kind="stable")
    primary = tested["primary"].astype(bool)
    where = f"Tested in {links.to(links.notebook(number), f'notebook {number}', place)}." if number else ""
    named = ", ".join(systems.link(name, place, f"{name} {identities()[name]}") for name in systems_of(claim, results.claims))
    legend = anchor("results/tables.html", "what verdicts mean", place)
    parts = [f"# {claim}: {review.CLAIMS[claim]}", f"{where} {f'Systems that are compared: {named}.' if named else ''}".strip(),
             "## Primary test", _stated(claim), "## Result",
             markdown_of(tested[primary]) if primary.any() else f"{NOT_MEASURED.capitalize()}.",
             f"The verdict is that of the test alone; *after Holm* stands together with those of all claims ({legend})."
             if primary.any() else "",
             "## Exploratory tests" if (~primary).any() else "", markdown_of(tested[~primary]) if (~primary).any() else ""]
    return "\n\n".join(part for part in parts if part) + "\n"


def index(study: Study, results: Results, links: Links) -> str:
    """Markdown of the ledger: every claim with its verdict in the cohort and profile of the book."""
    place, rows = "claims/index.html", []
    mine = results.claims[(results.claims["dataset"] == study.dataset) & (results.claims["profile"] == study.profile)]
    mine = mine[mine["primary"].astype(bool)].drop_duplicates("claim").set_index("claim")
    for claim, text in review.CLAIMS.items():
        number = results.notebooks.get(claim)
        found = mine.loc[claim] if claim in mine.index else None
        rows.append({"claim": anchor(page_of(claim), claim, place), "it says": anchor(page_of(claim), text, place),
                     "verdict": badge(NOT_MEASURED if found is None else found["verdict"]),
                     "after Holm": "·" if found is None else badge(found["after Holm"]),
                     "effect": "·" if found is None else readme.effect(found), "unit": "·" if found is None else found["unit"],
                     "notebook": links.to(links.notebook(number), number, place) if number else "·"})
    counts = mine["after Holm"].value_counts()
    standing = [f"{verdict}: {counts[verdict]}" for verdict in VERDICTS if verdict in counts]
    standing += [f"{NOT_MEASURED}: {len(review.CLAIMS) - len(mine)}"] if len(mine) < len(review.CLAIMS) else []
    text = (f"The claims of the review, each with its primary test in the cohort `{study.dataset}`, profile `{study.profile}`. "
            f"The effect is that of the weakest criterion. {anchor('results/tables.html', 'All tables', place)} say what the "
            f"verdicts mean. After Holm's correction: {'; '.join(standing)}.")
    tree = "\n".join(f"{claim} <{claim}>" for claim in review.CLAIMS)
    return f"# Claims\n\n{text}\n\n{readme.markdown(pd.DataFrame(rows))}\n\n```{{toctree}}\n:hidden:\n{tree}\n```\n"


def badge(verdict: str) -> str:
    """A verdict in its colour."""
    return f'<span class="verdict {verdict.replace(" ", "-")}">{verdict}</span>'


def markdown_of(rows: pd.DataFrame) -> str:
    """A table of tests, verdicts first, where a narrow screen shows them. The profile is left out if there is one alone, and so
    are the words of primary tests, which stand above the table."""
    table = pd.DataFrame([{
        "cohort": row["dataset"], "profile": row["profile"], "test": "" if row["primary"] else readme.in_words(row["test"]),
        "verdict": badge(row["verdict"]), "after Holm": badge(row["after Holm"]) if row["after Holm"] else "",
        "effect": readme.effect(row), "unit": row["unit"], "p": readme.probability(row["p"])}
        for _, row in rows.iterrows()])
    if table["profile"].nunique() == 1:
        table = table.drop(columns="profile")
    empty = [name for name in ("test", "after Holm") if (table[name] == "").all()]
    return readme.markdown(table.drop(columns=empty).replace("", "·").fillna("·"))


def _stated(claim: str) -> str:
    test = PRIMARY[claim]
    table = pd.DataFrame([_criterion(criterion) for criterion in dict.fromkeys(test.criteria)])
    all_of = "Every criterion must hold." if len(test.criteria) > 1 else ""
    return "\n\n".join(filter(None, [f"{review.compared(test.comparison)}. {all_of}".strip(), readme.markdown(table)]))


def _criterion(criterion: Criterion) -> dict[str, object]:
    margin = criterion.margin if isinstance(criterion.margin, str) else f"{criterion.margin:.3g}"
    return {"metric": metrics.label(criterion.metric), "the interval lies": DIRECTIONS[criterion.direction], "margin": margin}
