"""What the study knows of a system, read from its register, its code and its results. What makes it that
system, in words and formulas, is typed in ``ideas.yaml``.

`card` puts it together as plain data: it is the model card that lies beside the system's page, and the page is written from it.
"""

from __future__ import annotations

import ast
import inspect
import math
import re
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from cmri_lib.cohort.vocabulary import Vocabulary
from cmri_lib.config.pipeline import Stage, stages
from cmri_lib.config.reading import read_yaml
from cmri_lib.config.study import Study, open_study
from cmri_lib.reporting import metrics, review
from cmri_lib.reporting.claims import after_holm
from cmri_lib.reporting.primary_tests import PRIMARY
from cmri_lib.reporting.results import json_values, union
from cmri_lib.systems.contrast import MANIFOLD
from cmri_lib.systems.label_maps import CHAINS, Chain
from cmri_lib.systems.register import SYSTEMS
from cmri_lib.systems.system import System

#: A vocabulary with every kind of condition, for networks that are built to be looked at, not trained.
EVERYTHING = Vocabulary({c: ("a", "b") for c in ("vendor", "disease", "phase", "level")}, tissues=True)
#: The same with one category more of each: networks that it makes larger depend on the cohort.
MORE = Vocabulary({c: ("a", "b", "c") for c in ("vendor", "disease", "phase", "level")}, tissues=True)
#: Where a stage keeps what it trains.
WORK = "work/${dataset}/${profile}/"
#: The conditioning of systems without a condition.
NOTHING_GIVEN = "cmri_lib.networks.conditioning.base"
#: Metrics of an image that stands in the place of a known one, which short tables leave out.
OF_ONE_IMAGE = ("ssim_target", "psnr_target", "mae_target", "t1_error_Myo_ms", "t1_error_LV_ms", "cavity_error_cm2")
#: In the place of an idea that nobody has typed.
UNTYPED = {"idea": "Its idea is not written down yet: an entry in `cmri_lib/book/ideas.yaml`.", "formulas": [], "where": ""}
COSTS = ("images_seen", "images_before", "parameters", "nfe", "seconds_per_image", "training_seconds")


@dataclass(frozen=True)
class Results:
    """All scores and all tests of claims, of every cohort and profile, and the number of the notebook that tests each claim."""

    scores: pd.DataFrame
    claims: pd.DataFrame
    notebooks: dict[str, str]

    def of(self, study: Study) -> pd.DataFrame:
        """The scores of the study's cohort and profile."""
        return self.scores[(self.scores["dataset"] == study.dataset) & (self.scores["profile"] == study.profile)]


def results_of(root: Path) -> Results:
    """What the notebooks have written, and where each claim is tested: in the notebook whose code names it."""
    claims = union(root, claims=True)
    where = {}
    for source in sorted((root / "notebooks").glob("[0-9][0-9]_*.py")):
        named = set(re.findall(r'"([A-Z]\d+)"', source.read_text(encoding="utf-8"))) & set(review.CLAIMS)
        where |= {claim: source.stem[:2] for claim in named if claim not in where}
    for file in sorted(root.glob("results/*/[0-9][0-9]_*_claims.csv")):
        table = pd.read_csv(file)
        where |= {claim: file.name[:2] for claim in table.loc[table["primary"].astype(bool), "claim"]}
    return Results(union(root), after_holm(claims) if len(claims) else claims.assign(**{"after Holm": ""}), where)


def identities() -> dict[str, str]:
    """Id → name of every system that has a page: those of the review, then one's own in the register (`review.OWN_ID`), each
    named by its first variant."""
    own: dict[str, str] = {}
    for one in SYSTEMS.values():
        identity, _, name = one.id.partition(" ")
        if identity not in review.SYSTEMS and re.fullmatch(review.OWN_ID, identity):
            own.setdefault(identity, name)
    return {**review.SYSTEMS, **own}


def variants(identity: str) -> list[System | Chain]:
    """The systems and chains of the study that stand for one system of the review, or for one's own."""
    everything = [*SYSTEMS.values(), MANIFOLD, *CHAINS.values()]
    return [one for one in everything if one.id.split(" ")[0] == identity]


@cache
def ideas() -> dict[str, dict[str, Any]]:
    """Id of a system → its ``idea``, ``formulas`` (LaTeX), ``where``, the meaning of their letters;
    its ``paper`` if it has one; ``judged``, how, where it is not by the metrics of the table of all systems."""
    return read_yaml(Path(__file__).with_name("ideas.yaml"))


def card(study: Study, identity: str, results: Results) -> dict[str, Any]:
    """Everything about one of `identities` as plain data, for JSON."""
    found = variants(identity)
    mine = results.scores[review.identity(results.scores["system"]) == identity]
    return {"id": identity, "name": identities()[identity], "study": "cmri_lib", "licence": "Apache-2.0",
            **ideas().get(identity, UNTYPED), "systems": [_variant(study, one) for one in found],
            "claims": claims_of(identity, results.claims),
            "scores": json_values(mine.to_dict("records"))}


def claims_of(identity: str, claims: pd.DataFrame) -> list[str]:
    """The claims in whose tests a system is compared, by its id in their wording."""
    texts = {claim: test.text for claim, test in PRIMARY.items()}
    for row in claims.itertuples():
        texts[row.claim] = f"{texts.get(row.claim, '')} {row.test}"
    return [claim for claim in review.CLAIMS if re.search(rf"\b{identity}\b", texts.get(claim, ""))]


def systems_of(claim: str, claims: pd.DataFrame) -> list[str]:
    """The systems that are compared in the tests of a claim."""
    return [identity for identity in identities() if claim in claims_of(identity, claims)]


def notebook_of_stage(root: Path, stage: str) -> str:
    """The number of the notebook that trains what lies in the folder `stage`; "" if none does."""
    return next((one.notebook for one in _stages(root) if WORK + stage in one.outs), "")


@cache
def _stages(root: Path) -> list[Stage]:
    return stages(root)


def entry_file(root: Path, identity: str) -> str:
    """The file of `systems/` in which the entry of a system stands."""
    for file in sorted((root / "cmri_lib" / "systems").glob("*.py")):
        if re.search(rf'\(\s*f?"{identity} ', file.read_text(encoding="utf-8")):
            return file.relative_to(root).as_posix()
    return ""


def made_of(one: System | Chain, root: Path) -> list[str]:
    """The modules of the library whose networks and objectives a system is made of, its generator's first."""
    if isinstance(one, Chain):
        parts = [part for part in (one.masks, one.images) if part is not None]
        return list(dict.fromkeys(module for part in parts for module in made_of(part, root)))
    built = one.build(_small(root).params, EVERYTHING, 0)
    own = type(built).__module__
    found = {name for module in built.modules() if (name := type(module).__module__).startswith("cmri_lib.")}
    return sorted(found - {NOTHING_GIVEN}, key=lambda name: (name != own, name))


@cache
def _small(root: Path) -> Study:
    return open_study("smoke", "phantom", root)


def docstring(root: Path, module: str) -> list[str]:
    """The paragraphs of a module's docstring, each in one line; of a module in ``a.b`` or as a path."""
    path = root / (module if module.endswith(".py") else module.replace(".", "/") + ".py")
    written = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return [" ".join(part.split()) for part in inspect.cleandoc(written).split("\n\n")]


def headline(scores: pd.DataFrame) -> pd.DataFrame:
    """The headline metrics of one system in words, and those of single images: metric, value, interval, real images,
    direction."""
    rows, measured = [], set(scores["metric"])
    for metric in (*metrics.headline(measured), *(name for name in OF_ONE_IMAGE if name in measured)):
        if metric in COSTS:
            continue
        found = scores[scores["metric"] == metric]
        row = found.iloc[0]
        real = real_value(found, metric)
        rows.append({"metric": metrics.label(metric), "value": metrics.number(metric, row["value"]),
                     "95 % interval": interval(metric, row["low"], row["high"]), "real images": metrics.number(metric, real),
                     "better": metrics.direction(metric, row["better"])})
    return pd.DataFrame(rows)


def real_value(scores: pd.DataFrame, metric: str) -> float:
    """What real images score, by the references that rows of a metric bear; NaN where they bear none."""
    return next((value for value, kind, _ in metrics.references(scores, metric) if kind == "real"), math.nan)


def interval(metric: str, low: float, high: float) -> str:
    """"[0.1, 0.2]", or "" where there is none."""
    return "" if math.isnan(low) or math.isnan(high) else f"[{metrics.number(metric, low)}, {metrics.number(metric, high)}]"


def _variant(study: Study, one: System | Chain) -> dict[str, Any]:
    row: dict[str, Any] = {"id": one.id, "family": one.family, "conditioning": one.conditioning,
                           "stage": one.stage, "notebook": notebook_of_stage(study.root, one.stage),
                           "made of": made_of(one, study.root)}
    if isinstance(one, Chain):
        return row | {"masks": one.masks.id if one.masks else "drawn from the cohort", "images": one.images.id}
    return row | {"first stage": one.first_stage.name if one.first_stage else None,
                  "starts from": one.pretrained.id if one.pretrained else None,
                  "never learns from": [" + ".join(pair) for pair in one.withheld],
                  "training": json_values(asdict(one.training(study.params)))}
