"""The privacy audit of a run: every attack that suits it, with its controls, and copies among its samples.

Whom a run has seen follows from the run and the cohort (`provenance.patients_seen`). Members are training
patients, non-members hold-out patients, whom nothing in the study has looked at; validation patients serve
attacks that need strangers of their own. An audit on shadow models takes all of them from training, see
`experiments.power_audit`.

The power of an audit is that of its cohort. With a larger one (``python -m cmri_lib.phantom.cohort
--patients 400``) nothing changes but the intervals.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np
from scipy.stats import false_discovery_control

from cmri_lib.cohort.slices import Slices
from cmri_lib.config.study import Study
from cmri_lib.experiments.banks import draw_bank, sampling_conditions
from cmri_lib.experiments.kept_attacks import Kept
from cmri_lib.experiments.privacy_runs import (STAGE, attacked_trainings, copy_detector_training, few_slices, known_groups,
                                               overfitted)
from cmri_lib.experiments.provenance import patients_seen
from cmri_lib.experiments.published import restore
from cmri_lib.experiments.training import train_or_load, training_folder, training_slices
from cmri_lib.measures.instruments.classical_features import ClassicalFeatures
from cmri_lib.measures.instruments.learned_features import Cached
from cmri_lib.measures.statistics.bootstrap import Score
from cmri_lib.privacy.attack import (Attack, PatientScores, Remembered, Sides, Target, attack_rows, membership_scores,
                                     score_of)
from cmri_lib.privacy.attacks.critic import CriticOutput, LatentInversion
from cmri_lib.privacy.attacks.denoising_error import FCRE, PIA, PIAN, DenoisingLoss, Fluctuation, SecMI, SimA
from cmri_lib.privacy.attacks.likelihood import ELBO, ODELikelihood, TokenLikelihood
from cmri_lib.privacy.attacks.samples_only import DensityRatio, NearestSamples, patient_p_values
from cmri_lib.privacy.controls import DISGUISES, Controls, blind_scores, null_sides, planted_copies, separation
from cmri_lib.privacy.copies import CopyAudit, cluster_scores
from cmri_lib.privacy.copy_detector import train_copy_detector
from cmri_lib.privacy.groups import against_others, within
from cmri_lib.privacy.nearest_neighbours import Pixels
from cmri_lib.reporting.claims import two_sided
from cmri_lib.reporting.privacy_report import FALSE_NAMES
from cmri_lib.reporting.results import with_system_columns
from cmri_lib.systems.system import Run
from cmri_lib.training.checkpoint import load_weights
from cmri_lib.training.loop import snapshot_file

#: What the rows of an audit that are no system's are called.
NULL, BLIND = "null: hold-out against hold-out", "blind baseline: no generator asked"
#: Scores of one audit: attack → aggregate over slices → patients.
Found = dict[str, dict[str, PatientScores]]


class PrivacyAudit:
    """``audit.rows(run)``, ``audit.controls(run)``, ``audit.copy_rows(run)``.

    Args:
        slices: the whole preprocessed cohort.

    Attributes:
        spaces: pixels and the copy detector's space.
        options: seed and resamples of every bootstrap.
    """

    #: Below whose trainings the scores of attacks, and samples that are searched for copies, are kept.
    stage = STAGE

    def __init__(self, study: Study, slices: Slices):
        self.study, self.slices, self.params = study, slices, study.params.privacy
        self.training, self.holdout, self.strangers, self.test = (
            slices.where(split=s) for s in ("train", "holdout", "validation", "test"))
        self.options = {"seed": study.seed, "resamples": study.params.fidelity.resamples}
        self.nonmembers = few_slices(self.holdout, self.params.patients, self.params.slices, study.seed)
        self._targets: dict[str, Target] = {}

    def overfitted(self, name: str) -> Run:
        """The positive control of a system."""
        return overfitted(self.study, self.slices, name)

    # --- what is attacked, and with what
    @cached_property
    def spaces(self) -> list[Cached]:
        settings, folder = copy_detector_training(self.study)
        restore(self.study, folder, settings)
        detector = train_copy_detector(self.training, settings, folder)
        return [Cached(Pixels()), Cached(detector)]

    @cached_property
    def unlearnt(self) -> Cached:
        """A space that has learnt from nobody. One that has learnt from members would itself tell them from
        non-members, without any generator."""
        return Cached(ClassicalFeatures())

    @cached_property
    def loss(self) -> Kept:
        """The denoising loss, which several attacks build on."""
        return self.kept(DenoisingLoss(self.params.times, self.params.draws, self.study.seed))

    def kept(self, attack: Attack) -> Kept:
        """An attack on weights that asks a network about a slice once, whenever that is."""
        return Kept(attack, self.study.work(self.stage) / "scores")

    @cached_property
    def attacks(self) -> list[Attack]:
        """All attacks on one target, in the order of tables."""
        times, seed = {"times": self.params.times, "seed": self.study.seed}, {"seed": self.study.seed}
        fewer = self.kept(DenoisingLoss(self.params.times, max(1, self.params.draws // 4), self.study.seed))
        elbo, tokens = (self.kept(kind(draws=self.params.draws, **seed)) for kind in (ELBO, TokenLikelihood))
        denoisers = [SecMI(**times), PIA(**times), PIAN(**times), SimA(**times),
                     FCRE(**times, draws=max(1, self.params.draws // 4))]
        ode, critic, inversion = map(self.kept, (ODELikelihood(steps=self.params.draws, **seed), CriticOutput(),
                                                 LatentInversion(steps=8 * self.params.draws, **seed)))
        nearest = [Remembered(NearestSamples(space)) for space in (self.spaces[0], self.unlearnt)]
        ratio = [DensityRatio(self.unlearnt, self.strangers)] if len(self.strangers) else []
        return [self.loss, *map(self.kept, denoisers),
                *(Fluctuation(a, seed=self.study.seed) for a in (fewer, elbo, tokens, critic)),
                ode, critic, inversion, *nearest, elbo, tokens, *ratio]

    def target(self, run: Run, **choices: object) -> Target:
        """The trained run with samples under the conditions of test patients, drawn once and kept; `choices` are for
        the sampler."""
        key = f"{run.id} ({run.folder}) {choices or ''}".strip()  # several runs may bear one id
        if key not in self._targets:
            generator = train_or_load(self.study, run, self.slices)
            conditions = sampling_conditions(self.slices, self.params.samples, self.study.seed)
            kept = self.study.work(self.stage) / "samples"
            samples = draw_bank(self.study, run, generator, conditions, below=kept, **choices)
            self._targets[key] = Target(key, patients_seen(run, self.slices), generator, samples)
        return self._targets[key]

    def trainings(self, run: Run) -> list[Run]:
        """The run and, where its system has several trainings, the others."""
        return attacked_trainings(self.study, run)

    def members(self, run: Run) -> Slices:
        """Some slices of patients that the run has learnt from, just as it has seen them."""
        return few_slices(training_slices(run, self.slices)[0], self.params.patients, self.params.slices,
                          self.study.seed)

    def sides(self, run: Run) -> Sides:
        """Those members, and hold-out patients."""
        return Sides(self.members(run), self.nonmembers)

    # --- scores
    def scores(self, run: Run, *, null: bool = False, only: Iterable[str] | None = None) -> Found:
        """All attacks that suit the run, or those named in `only`, on its patients, or between halves of the
        hold-out."""
        target = self.target(run)
        everyone = few_slices(self.holdout, len(self.holdout), self.params.slices, self.study.seed)
        sides = null_sides(everyone, self.study.seed) if null else self.sides(run)
        options = {"seed": self.study.seed, "null": null}
        return {attack.name: membership_scores(attack, target, sides, **options) for attack in self.attacks
                if attack.suits(target) and (only is None or attack.name in only)}

    def over_trainings(self, run: Run, only: Iterable[str] | None = None) -> dict[str, list[dict[str, PatientScores]]]:
        """Attack → its scores of each of `trainings`, on the same patients."""
        found = [self.scores(one, only=only) for one in self.trainings(run)]
        return {name: [each[name] for each in found] for name in found[0]}

    def by_patient(self, run: Run, attack: str) -> list[PatientScores]:
        """One attack on these trainings; a patient's score is the mean over slices."""
        return [one["mean"] for one in self.over_trainings(run, [attack])[attack]]

    def clusters(self, run: Run) -> Score:
        """AUC of the number of samples around each patient (claim R3)."""
        return score_of(cluster_scores(self.target(run).samples, self.sides(run), self.spaces[0]),
                        **self.options)

    def score(self, run: Run, attack: str) -> Score:
        """AUC of one attack, over the trainings of the run's system."""
        return score_of(self.by_patient(run, attack), **self.options)

    def blind(self, run: Run) -> Score:
        """AUC of the blind baseline between the run's members and the hold-out."""
        return score_of(blind_scores(self.sides(run), self.unlearnt, self.study.seed), **self.options)

    def group_rows(self, run: Run, attack: str) -> list[dict[str, object]]:
        """AUC of one attack among the patients of each disease and of each vendor: kind, group, value, low, high, n, and how it
        differs from the mean of the other groups of its kind: difference, p. Groups of fewer than `params.group` patients on
        either side are left out, and who belongs to none that is known."""
        found, rows = self.by_patient(run, attack), []
        for kind in ("disease", "vendor"):
            parts = {group: part for group, part in within(found, known_groups(self.slices, kind)).items()
                     if min(len(part[0].members), len(part[0].nonmembers)) >= self.params.group}
            for group, part in parts.items():
                score = score_of(part, **self.options)
                rows.append({"kind": kind, "group": group, "value": score.value, "low": score.low, "high": score.high,
                             "n": score.n})
                if len(parts) > 1:
                    other = against_others(parts, group, **self.options)
                    rows[-1] |= {"difference": other.value, "p": two_sided(other)}
        return rows

    def controls(self, run: Run) -> Controls:
        """What the controls of an audit of `run` show. The null is of the run itself, the positive control
        its overfitted twin."""
        positive, null = self.scores(self.overfitted(run.system.id)), self.scores(run, null=True)
        aucs = [{name: score_of(found["mean"], **self.options) for name, found in one.items()}
                for one in (positive, null)]
        apart = {name: separation(found["mean"]) for name, found in positive.items()}
        return Controls(*aucs, self.blind(run), self.planted_recall, apart)

    def rows(self, run: Run) -> list[dict[str, object]]:
        """Tidy rows of all attacks on the trainings of the run's system, and, each of one training, on its overfitted twin,
        its null and the blind baseline."""
        twin = self.overfitted(run.system.id)
        on_twin, null = ({name: [one] for name, one in found.items()}
                         for found in (self.scores(twin), self.scores(run, null=True)))
        found = [*self._attack_rows(run, run.id, self.over_trainings(run)), *self._attack_rows(run, twin.id, on_twin),
                 *self._attack_rows(run, f"{run.id}, {NULL}", null)]
        blind = self.blind(run).against(0.5, 1.0).row("attack_auc_blind", "privacy", "lower")
        clusters = [{**_columns(run, one.id),
                     **self.clusters(one).against(0.5, 1.0).row("attack_auc_clusters", "privacy", "lower")}
                    for one in (run, twin)]
        return [*found, {**_columns(run, f"{run.id}, {BLIND}"), **blind}, *clusters]

    def _attack_rows(self, run: Run, name: str, found: Mapping[str, list[dict[str, PatientScores]]]
                     ) -> list[dict[str, object]]:
        rows = [row for attack, scores in found.items() for row in attack_rows(attack, scores, **self.options)]
        return [{**_columns(run, name), **row, "low": max(row["low"], 0.0), "high": min(row["high"], 1.0)} for row in rows]

    # --- copies
    def copies(self, run: Run, space: Cached | None = None, **choices: object) -> CopyAudit:
        """The audit of the run's samples, in the copy detector's space unless another is given."""
        return self.copy_audit(self.target(run, **choices).samples, training_slices(run, self.slices)[0],
                               space)

    def copy_audit(self, samples: Slices, training: Slices, space: Cached | None = None) -> CopyAudit:
        """The audit of any samples, by default in the copy detector's space."""
        return CopyAudit(samples, training, self.holdout, self.test, space or self.spaces[1], **self.options)

    def copy_rows(self, run: Run) -> list[dict[str, object]]:
        """Tidy rows of the copy audit in every space."""
        return with_system_columns(run, [row for space in self.spaces
                                         for row in self.copies(run, space).rows()])

    @cached_property
    def planted(self) -> dict[tuple[str, str], float]:
        """(disguise, space) → share of planted copies below the threshold; space "either" counts what any of
        them finds."""
        found = {}
        for disguise in DISGUISES:
            copies = planted_copies(self.training, disguise, self.params.copies, self.study.seed)
            each = {space.name: self.copy_audit(copies, self.training, space).suspects
                    for space in self.spaces}
            each["either"] = np.logical_or.reduce(list(each.values()))
            found |= {(disguise, name): float(suspects.mean()) for name, suspects in each.items()}
        return found

    @property
    def planted_recall(self) -> dict[str, float]:
        """Disguise → share of planted copies that any of the spaces finds."""
        return {disguise: share for (disguise, space), share in self.planted.items() if space == "either"}

    # --- what drives leakage
    def along_training(self, run: Run) -> list[tuple[int, Score]]:
        """(images seen, AUC of the strongest plain attack of the family) at every snapshot of the training,
        and at its end."""
        target, settings = self.target(run), run.settings(self.study.params, self.study.seed)
        generator = copy.deepcopy(target.generator)  # the target keeps its own weights, whatever happens here
        attack = next(a for a in self.attacks if a.suits(target)
                      and a.name in ("loss", "elbo", "tokens", "critic"))
        folder, found = training_folder(self.study, run), []
        for step in (*settings.snapshot_steps(), settings.steps):
            file = folder / "weights.safetensors" if step == settings.steps else snapshot_file(folder, step)
            load_weights(generator, file)
            at_step = replace(target, name=f"{target.name}, step {step}", generator=generator)
            scores = membership_scores(attack, at_step, self.sides(run), seed=self.study.seed)
            found.append((step * settings.batch, score_of(scores["mean"], **self.options)))
        return found


def identified(found: PatientScores, wrong: float = FALSE_NAMES) -> tuple[int, int]:
    """How many members, of how many, dataset inference names if a share `wrong` of the names may be expected to be false.

    A member's p-value is its rank among the non-members; Benjamini and Hochberg's procedure keeps its promise for such p-values
    of common strangers (Bates et al., Annals of Statistics 2023). With m members and n strangers nobody can be named unless
    n + 1 ≥ 1 / `wrong`, and few only together: k of them need p ≤ `wrong` · k / m.
    """
    p = patient_p_values(found.members, found.nonmembers)
    return int((false_discovery_control(p) <= wrong).sum()), len(found.members)


def _columns(run: Run, name: str) -> Mapping[str, object]:
    return {"system": name, "family": run.family, "conditioning": run.conditioning}


def facts(audit: PrivacyAudit, run: Run) -> dict[str, object]:
    """What the page of a system says (`reporting.privacy_report`): machine-readable, and without images or
    names of patients."""
    controls, copies = audit.controls(run), audit.copies(run)
    found = {name: [one["mean"] for one in each] for name, each in audit.over_trainings(run).items()}
    aucs = {name: score_of(each, **audit.options).within(0.0, 1.0) for name, each in found.items()}
    low = {name: score_of(each, "tpr1", **audit.options) for name, each in found.items()}
    attacks = [{"attack": name, "auc": aucs[name].value, "low": aucs[name].low, "high": aucs[name].high, "df": aucs[name].df,
                "tpr1": low[name].value,
                "power": controls.power(name), "control": controls.positive[name].value
                if name in controls.positive else None,
                "null": controls.null[name].value} for name in aucs]
    strongest = found[controls.strongest][0]
    named, members = identified(strongest)
    rate, excess, share = copies.near_copies(), copies.near_copy_excess(), copies.swapped_share()
    return {"system": run.id, "dataset": audit.study.dataset, "profile": audit.study.profile,
            "verdict": controls.verdict(), "trainings": len(audit.trainings(run)),
            "members": members, "nonmembers": len(strongest.nonmembers), "slices_each": audit.params.slices,
            "strongest": controls.strongest, "named": named, "attacks": attacks,
            "blind": controls.blind.value,
            "samples": len(copies.distance), "near_copies": [rate.value, rate.low, rate.high, rate.floor],
            "near_copy_excess": [excess.value, excess.low, excess.high],
            "swapped_share": [share.value, share.low, share.high], "suspects": int(copies.suspects.sum()),
            "planted": dict(controls.copies)}
