"""How real is the phantom? Its patients against the definitions of their groups, its images against ACDC's.

``python benchmarks/phantom_realism.py [--acdc DIR]`` reads data/phantom, prints a table and writes it to
results/phantom/realism.csv, and the curves of intensity histogram and spectrum to figures/phantom/realism/.
Small classifiers recognise the vendor from images and the disease from label maps. With ``--acdc``, a U-Net
trained on phantom slices alone also segments ACDC (Bernard et al., IEEE TMI 37:2514, 2018), of which only
aggregates are written. Crops are centred on the labelled heart, so that no detector has a part in the result;
slices without a label are left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from cmri_lib.cohort.cardiac_function import case_surface, case_volumes, ejection_fraction
from cmri_lib.cohort.case import LABELS, PHASES, Case
from cmri_lib.cohort.preprocessing.heart_detector import Detector
from cmri_lib.cohort.preprocessing.pipeline import PreprocessSettings, preprocess
from cmri_lib.cohort.readers.cases import read_cohort
from cmri_lib.cohort.slices import Slices
from cmri_lib.measures.anatomy.adherence import agreement
from cmri_lib.measures.fidelity.spectrum import radial_spectrum
from cmri_lib.measures.instruments.segmenter import train_segmenter
from cmri_lib.measures.statistics.bootstrap import Score, mean_score
from cmri_lib.phantom.disease import Person, violations
from cmri_lib.reporting.figures import use_style
from cmri_lib.reporting.results import SCORE_COLUMNS
from cmri_lib.training import Augment, TrainSettings

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
FIELD_MM = 192.0                    # side of the crop about the heart
SIDE, FINE_SIDE = 64, 128           # pixels: for the segmenter (3 mm), and to compare images (1.5 mm)
EDGES = np.linspace(-1.5, 4.5, 61)  # of the histogram, in standard deviations of a slice
SECTORS = 12                        # of the ventricle's wall
#: Wide, because real scanners and hearts differ more than virtual ones.
AUGMENT = Augment(rotation=35.0, scale=0.3, shift=0.1, gamma=0.55, contrast=0.3, noise=0.12)


class LabelCentre(Detector):
    """Stands in for the trained detector: the centre is that of the ED label's bounding box."""

    def __init__(self) -> None:
        self.patients = ()

    def centre(self, case: Case) -> tuple[float, float]:
        """(row, column) in stored pixels."""
        rows, columns = np.nonzero(case.volumes["ED"].mask.any(0))
        return (rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2


def cropped(cases: list[Case], size: int, split: str, **options: object) -> Slices:
    """The labelled slices of `cases`: `size` × `size` pixels, `FIELD_MM` about the heart, in [−1, 1]."""
    settings = PreprocessSettings(size=size, field_of_view=FIELD_MM, jobs=1, **options)
    return preprocess(cases, settings, split={c.patient: split for c in cases}, detector=LabelCentre())


def middle_slices(cases: list[Case]) -> Slices:
    """The three middle labelled slices of every scan at ED, each of zero mean and unit variance."""
    slices = cropped(cases, FINE_SIDE, "test", phases=("ED",), clip=None)
    scans = slices.table.groupby("scan", sort=False).indices.values()
    some = slices.take(np.concatenate([rows[len(rows) // 2 - 1:len(rows) // 2 + 2] for rows in scans]))
    mean, spread = (f(some.images, axis=(1, 2, 3), keepdims=True) for f in (np.mean, np.std))
    return Slices((some.images - mean) / np.maximum(spread, 1e-6), some.masks, some.table)


# --- anatomy
def definitions(folder: Path) -> Score:
    """Share of the patients inside the ACDC definition of their group, by the true values in the table."""
    table = pd.read_csv(folder / "phantom.csv").drop_duplicates("Patient")
    inside = []
    for row in table.itertuples():
        person = Person(row.Pathology, row.Sex, row.Age, row.Height, row.Weight, row.HeartRate)
        inside.append(not violations(person, row.LVEDV, row.LVEF / 100, row.RVEDV, row.RVEF / 100,
                                     row.WallThickness))
    return mean_score(np.array(inside, float), table["Patient"].to_numpy()).against(0.0, 1.0)


def regional_thickness(case: Case, phase: str) -> np.ndarray:
    """(SECTORS,) wall thickness in mm in sectors about the LV axis, mean over the middle half of the slices:
    an infarct is thin in a few of them. A sector of angle θ and area A has the radius √(2 A / θ)."""
    mask, (_, height, width) = case.volumes[phase].mask, case.spacing
    walled = np.flatnonzero((mask == LABELS["Myo"]).any((1, 2)))
    first, angle, found = len(walled) // 4, 2 * np.pi / SECTORS, []
    for labels in mask[walled[first:max(3 * len(walled) // 4, first + 1)]]:
        rows, columns = np.nonzero((labels == LABELS["LV"]) | (labels == LABELS["Myo"]))
        turn = np.arctan2((rows - rows.mean()) * height, (columns - columns.mean()) * width) + np.pi
        sector, cavity = (turn / angle).astype(int) % SECTORS, labels[rows, columns] == LABELS["LV"]
        outer, inner = (np.sqrt(2 * np.bincount(s, minlength=SECTORS) * height * width / angle)
                        for s in (sector, sector[cavity]))
        found.append(outer - inner)
    return np.mean(found, axis=0)


def anatomy_features(case: Case) -> list[float]:
    """Ejection fractions, volumes per body surface, and least, median and largest `regional_thickness` at ED,
    at ES and of ES over ED: 17 numbers."""
    volumes, (ed, es) = case_volumes(case), (regional_thickness(case, phase) for phase in PHASES)
    return [*(ejection_fraction(volumes["ED"][name], volumes["ES"][name]) for name in ("LV", "RV")),
            *(volumes[phase][name] / case_surface(case) for phase in PHASES for name in LABELS),
            *(f(wall) for wall in (ed, es, es / np.maximum(ed, 1)) for f in (np.min, np.median, np.max))]


# --- recognition
def cross_validated(model: object, features: np.ndarray, labels: np.ndarray, patients: np.ndarray) -> Score:
    """Accuracy with folds by patient, and its interval over patients; floor: always the commonest class."""
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    found = cross_val_predict(model, features, labels, groups=patients, cv=folds)
    commonest = max(np.mean(labels == k) for k in np.unique(labels))
    return mean_score((found == labels).astype(float), patients).against(commonest, 1.0)


def vendor_accuracy(some: Slices) -> Score:
    """How often the vendor is recognised from quantiles of intensity and the radial spectrum of one slice."""
    quantiles = np.quantile(some.images, np.linspace(0.02, 0.98, 17), axis=(1, 2, 3)).T
    features = np.concatenate([quantiles, radial_spectrum(some.images)], axis=1)
    model = make_pipeline(StandardScaler(), SVC(C=10.0))
    return cross_validated(model, features, some.table["vendor"].to_numpy(), some.patients)


def disease_accuracy(cases: list[Case]) -> Score:
    """How often the group is recognised from the label map of one scan."""
    features = np.array([anatomy_features(case) for case in cases])
    diseases, patients = (np.array([getattr(c, name) for c in cases]) for name in ("disease", "patient"))
    return cross_validated(RandomForestClassifier(300, random_state=0), features, diseases, patients)


# --- images
def curves(some: Slices, name: str) -> pd.DataFrame:
    """Intensity histogram and log₁₀ radial power spectrum: mean and 10–90 % range of the scans."""
    scans, spectra = list(some.table.groupby("scan").indices.values()), radial_spectrum(some.images)
    density = [np.histogram(some.images[rows], EDGES, density=True)[0] for rows in scans]
    power = [spectra[rows].mean(0) for rows in scans]
    places, parts = (EDGES[1:] + EDGES[:-1]) / 2, []
    for kind, x, values in (("histogram", places, density),
                            ("spectrum", np.arange(1, FINE_SIDE // 2 + 1) / FIELD_MM, power)):
        low, high = np.percentile(values, (10, 90), axis=0)
        numbers = {"x": x, "mean": np.mean(values, 0), "p10": low, "p90": high}
        parts.append(pd.DataFrame({"data": name, "curve": kind, **numbers}))
    return pd.concat(parts)


def draw(table: pd.DataFrame, file: Path) -> None:
    """Write the curves of every cohort in `table`, mean and 10–90 % of scans, to the PNG `file`."""
    use_style()
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4))
    for axis, (_, curve) in zip(axes, table.groupby("curve")):
        for name, part in curve.groupby("data"):
            axis.plot(part["x"], part["mean"], label=name)
            axis.fill_between(part["x"], part["p10"], part["p90"], alpha=0.2)
    axes[0].set(xlabel="intensity (standard deviations of the slice)", ylabel="density")
    axes[1].set(xlabel="spatial frequency (1/mm)", ylabel="log₁₀ power")
    axes[0].legend()
    figure.savefig(file, metadata={"Software": None})


def transfer(phantom: list[Case], real: list[Case], options: argparse.Namespace) -> list[dict[str, object]]:
    """Dice per volume on `real` of segmenters trained on `phantom` alone, averaged over seeds."""
    training, unseen, tables = cropped(phantom, SIDE, "train"), cropped(real, SIDE, "test"), []
    for seed in range(options.seeds):
        settings = TrainSettings(options.steps, 16, learning_rate=3e-3, weight_decay=1e-3, ema=0.99,
                                 seed=seed)
        folder = options.out / "work/phantom_realism" / f"segmenter-{seed}"
        segment = train_segmenter(training, settings, folder, widths=(16, 32, 64, 128), augment=AUGMENT)
        tables.append(agreement(segment(unseen.images), unseen.masks, unseen.table))
    scores = pd.concat(tables).groupby(["patient", "scan", "phase"], as_index=False).mean()
    return [mean_score(scores[f"dice_{part}"].to_numpy(), scores["patient"].to_numpy()).against(0.0, 1.0)
            .row(f"Dice {part} on ACDC, trained on the phantom only", "utility", "higher")
            for part in (*LABELS, "mean")]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--phantom", type=Path, default=ROOT / "data" / "phantom")
    parser.add_argument("--acdc", type=Path, help="folder of ACDC; without it, what needs no real data")
    parser.add_argument("--steps", type=int, default=400, help="of a segmenter; 400: two minutes of a core")
    parser.add_argument("--seeds", type=int, default=1, help="segmenters trained; scores are means over them")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT, help="root of results/, figures/ and work/")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    phantom = read_cohort(options.phantom, layout="mnms").cases
    middle = middle_slices(phantom)
    inside, vendor, disease = definitions(options.phantom), vendor_accuracy(middle), disease_accuracy(phantom)
    rows = [inside.row("patients inside the definition of their group", "anatomy", "higher"),
            vendor.row("vendor told from an image (accuracy)", "fidelity", "higher"),
            disease.row("disease told from the masks (accuracy)", "anatomy", "higher")]
    table = curves(middle, "phantom")
    if options.acdc:
        real = read_cohort(options.acdc, layout="acdc").cases
        table = pd.concat([table, curves(middle_slices(real), "ACDC")])
        means = table.pivot(index=["curve", "x"], columns="data", values="mean")
        apart = (means["ACDC"] - means["phantom"]).abs().groupby("curve").mean()  # of density, of log₁₀ power
        rows += [Score(value, np.nan, np.nan, len(real), floor=0.0)
                 .row(f"{kind} difference to ACDC", "fidelity", "lower") for kind, value in apart.items()]
        rows += transfer(phantom, real, options)
    scores = pd.DataFrame(rows).assign(dataset="phantom", profile="laptop", system="real", family="real",
                                       conditioning="none", seeds=options.seeds)[list(SCORE_COLUMNS)]
    results, figures = options.out / "results/phantom", options.out / "figures/phantom/realism"
    for content, folder in ((scores, results), (table, figures)):
        folder.mkdir(parents=True, exist_ok=True)
        content.to_csv(folder / "realism.csv", index=False, float_format="%.6g")
    draw(table, figures / "realism.png")
    print(scores[["axis", "metric", "value", "low", "high", "n", "floor"]].round(3).to_string(index=False))


if __name__ == "__main__":
    main()
