"""How real is the phantom? A segmenter trained on it alone meets ACDC, histograms and spectra lie side by side, and
small classifiers tell vendors from images and diseases from anatomy.

``python benchmarks/phantom_realism.py --acdc DIR [--seconds 120]`` reads data/phantom, prints the table and writes
results/phantom/realism.csv and figures/phantom/realism.png with its CSV. Without ``--acdc`` only the measures that need
no real data are made. Of ACDC (Bernard et al., IEEE TMI 37:2514, 2018) only aggregates are written.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
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
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cmri_lib.cohort.case import LABELS, Case
from cmri_lib.cohort.readers.cases import read_cohort
from cmri_lib.measures.statistics.bootstrap import Score, mean_score
from cmri_lib.networks.segmentation import SegmentationUNet, dice_cross_entropy
from cmri_lib.phantom.disease import DISEASES, Person, violations
from cmri_lib.reporting.figures import use_style
from cmri_lib.reporting.results import SCORE_COLUMNS

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
FIELD_MM, SIDE = 192.0, 64           # crop about the heart and its size for the network: 3 mm per pixel
FINE_SIDE = 128                      # of the crops whose look is compared: 1.5 mm per pixel
STORED_MM, STORED_SIDE = 2.0, 136    # training crops are kept larger and finer, for shifts, turns and scales


# --- data
def crop(case: Case, side_mm: float, pixels: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """phase → (images, masks), each (Z, pixels, pixels): a square of `side_mm` about the centre of the ED label,
    antialiased by averaging; images are scaled by the 1st and 99th percentile of each volume's crop."""
    rows, columns = np.nonzero(case.volumes["ED"].mask.any(0))
    centre = np.array([(rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2])
    spacing = np.array(case.spacing[1:])
    fine = np.arange(2 * pixels) * side_mm / (2 * pixels) - side_mm / 2 + side_mm / (4 * pixels)
    index = [np.rint(centre[axis] + fine / spacing[axis]).astype(int) for axis in (0, 1)]
    out = {}
    for phase, volume in case.volumes.items():
        good = [(i >= 0) & (i < n) for i, n in zip(index, volume.image.shape[1:])]
        nearest = (np.clip(i, 0, n - 1) for i, n in zip(index, volume.image.shape[1:]))
        clipped = np.ix_(np.arange(len(volume.image)), *nearest)
        inside = good[0][:, None] & good[1][None]
        image, mask = volume.image[clipped] * inside, volume.mask[clipped] * inside
        shape = (len(image), pixels, 2, pixels, 2)
        votes = np.stack([(mask == k).reshape(shape).mean((2, 4)) for k in range(4)])
        votes[0] -= 1e-3  # of equals, the structure
        out[phase] = scaled(image.reshape(shape).mean((2, 4))), votes.argmax(0).astype(np.uint8)
    return out


def scaled(images: np.ndarray) -> np.ndarray:
    """Volume (Z, H, W) to about 0–1 by its 1st and 99th percentile."""
    low, high = np.percentile(images, (1, 99))
    return (np.clip((images - low) / max(high - low, 1e-6), 0, 1.5)).astype(np.float32)


# --- segmenter
def augmented(images: torch.Tensor, masks: torch.Tensor,
              generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Random views (B, 1, SIDE, SIDE), (B, SIDE, SIDE) of stored crops: rotation ±35°, scale 0.72–1.4, aspect ±10 %,
    shift ±21 mm; contrast by gamma 0.6–1.7, a smooth bias field, blur, noise, and a new percentile scaling."""
    n = len(images)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=generator)

    angle, scale = uniform(-0.6, 0.6), torch.exp(uniform(-0.33, 0.33))
    aspect = torch.exp(uniform(-0.1, 0.1))
    base = FIELD_MM / (STORED_MM * STORED_SIDE)
    cos, sin = base * scale * torch.cos(angle), base * scale * torch.sin(angle)
    shift = uniform(-1, 1, 2) * 21 / (STORED_MM * STORED_SIDE / 2)
    theta = torch.stack([torch.stack([cos * aspect, -sin, shift[:, 0]], 1),
                         torch.stack([sin * aspect, cos, shift[:, 1]], 1)], 1)
    grid = nn.functional.affine_grid(theta, (n, 1, SIDE, SIDE), align_corners=False)
    smooth = nn.functional.avg_pool2d(images, 3, 1, 1)
    mix = uniform(0, 1, 1, 1, 1)
    x = nn.functional.grid_sample(mix * images + (1 - mix) * smooth, grid, align_corners=False)
    y = nn.functional.grid_sample(masks[:, None].float(), grid, mode="nearest", align_corners=False)[:, 0].long()
    bias = torch.randn(n, 1, 3, 3, generator=generator) * uniform(0, 0.35, 1, 1, 1)
    x = x * torch.exp(nn.functional.interpolate(bias, (SIDE, SIDE), mode="bicubic", align_corners=True))
    x = x.clamp(min=0) ** torch.exp(uniform(-0.5, 0.55, 1, 1, 1))
    x = x + torch.randn(x.shape, generator=generator) * uniform(0, 0.06, 1, 1, 1)
    return normalised(x), y


def normalised(x: torch.Tensor) -> torch.Tensor:
    """(B, 1, H, W) to zero mean and unit variance per slice."""
    return (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True).clamp(min=1e-3)


def train_segmenter(cases: list[Case], seconds: float, seed: int) -> nn.Module:
    """2D U-Net of 4 classes trained `seconds` on slices of `cases`: AdamW, cosine rate, averaged weights."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    crops = [crop(c, STORED_MM * STORED_SIDE, STORED_SIDE)[phase] for c in cases for phase in ("ED", "ES")]
    images = torch.from_numpy(np.concatenate([i for i, _ in crops]))[:, None]
    masks = torch.from_numpy(np.concatenate([m for _, m in crops]))
    keep = (masks > 0).flatten(1).any(1) | (torch.rand(len(masks), generator=generator) < 0.3)
    images, masks = images[keep], masks[keep]
    network = SegmentationUNet(4, (16, 32, 64, 128))
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.99))
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3, weight_decay=1e-3)
    loss_of = dice_cross_entropy()
    start, steps = time.perf_counter(), 0
    while (passed := (time.perf_counter() - start) / seconds) < 1:
        rate = 0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * passed))
        optimiser.param_groups[0]["lr"] = 3e-3 * min(1, passed / 0.05) * rate
        index = torch.randint(len(images), (16,), generator=generator)
        x, y = augmented(images[index], masks[index], generator)
        optimiser.zero_grad()
        loss_of(network(x), y[:, None]).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        average.update_parameters(network)
        steps += 1
    print(f"{steps} steps of 16 on {len(images)} slices")
    return average.module.eval()


@torch.no_grad()
def patient_dice(network: nn.Module, cases: list[Case]) -> pd.DataFrame:
    """One row per case: Dice over the volume of each structure, averaged over ED and ES, 64 × 64 crops of 192 mm."""
    rows = []
    for case in cases:
        scores: dict[str, list[float]] = {name: [] for name in LABELS}
        for images, masks in crop(case, FIELD_MM, SIDE).values():
            found = network(normalised(torch.from_numpy(images)[:, None])).argmax(1).numpy()
            for name, label in LABELS.items():
                a, b = found == label, masks == label
                scores[name].append(2 * (a & b).sum() / max(a.sum() + b.sum(), 1))
        means = {name: float(np.mean(values)) for name, values in scores.items()}
        rows.append({"patient": case.patient, "disease": case.disease} | means)
    return pd.DataFrame(rows).assign(mean=lambda t: t[list(LABELS)].mean(axis=1))


# --- small classifiers
def ventricle_slices(case: Case) -> Iterator[np.ndarray]:
    """128 × 128 crops of the three middle labelled slices at ED, each of zero mean and unit variance."""
    images, masks = crop(case, FIELD_MM, FINE_SIDE)["ED"]
    labelled = np.flatnonzero((masks > 0).any((1, 2)))
    for z in labelled[len(labelled) // 2 - 1:len(labelled) // 2 + 2]:
        yield (images[z] - images[z].mean()) / max(images[z].std(), 1e-3)


def appearance(image: np.ndarray) -> np.ndarray:
    """(features,) of one image: quantiles of its intensities and the logarithm of its radial power spectrum."""
    return np.concatenate([np.quantile(image, np.linspace(0.02, 0.98, 17)), np.log10(radial_spectrum(image) + 1e-9)])


def anatomy_features(case: Case) -> np.ndarray:
    """(features,) of the masks: volumes, ejection fractions, wall thickness about the ring and its change."""
    features: list[float] = []
    voxel = float(np.prod(case.spacing)) / 1000
    volume = {p: [(v.mask == k).sum() * voxel for k in (1, 2, 3)] for p, v in case.volumes.items()}
    size = float(case.covariates.get("Height", 170)) * float(case.covariates.get("Weight", 70))
    features += [1 - volume["ES"][0] / volume["ED"][0], 1 - volume["ES"][2] / max(volume["ED"][2], 1e-6)]
    features += [v / np.sqrt(size / 3600) for phase in ("ED", "ES") for v in volume[phase]]
    walls = [ring_thickness(case, phase) for phase in ("ED", "ES")]
    for wall in (*walls, walls[1] / np.maximum(walls[0], 1)):
        features += [wall.min(), np.median(wall), wall.max()]
    return np.array(features)


def ring_thickness(case: Case, phase: str) -> np.ndarray:
    """(12,) mean thickness in mm of the myocardium in 12 sectors of the middle labelled slices: area over arc."""
    mask = case.volumes[phase].mask
    labelled = np.flatnonzero((mask == 2).any((1, 2)))
    middle = labelled[len(labelled) // 4:max(3 * len(labelled) // 4, len(labelled) // 4 + 1)]
    sectors = []
    for z in middle:
        rows, columns = np.nonzero((mask[z] == 1) | (mask[z] == 2))
        wall = mask[z][rows, columns] == 2
        y, x = (rows - rows.mean()) * case.spacing[1], (columns - columns.mean()) * case.spacing[2]
        sector = ((np.arctan2(y, x) + np.pi) / (2 * np.pi) * 12).astype(int) % 12
        area = case.spacing[1] * case.spacing[2]
        outer = np.bincount(sector, minlength=12) * area          # R²/2 · dθ
        inner = np.bincount(sector[~wall], minlength=12) * area   # r²/2 · dθ
        step = 2 * np.pi / 12
        sectors.append(np.sqrt(2 * outer / step) - np.sqrt(2 * inner / step))
    return np.mean(sectors, axis=0)


def cross_validated(model: object, features: np.ndarray, labels: np.ndarray, patients: np.ndarray) -> Score:
    """Accuracy with folds by patient, and its interval over patients; floor: always the commonest class."""
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    found = cross_val_predict(model, features, labels, groups=patients, cv=folds)
    commonest = max(np.mean(labels == k) for k in np.unique(labels))
    return mean_score((found == labels).astype(float), patients).against(commonest, 1.0)


def vendor_accuracy(cases: list[Case]) -> Score:
    """How often the vendor is told from one slice of known size; the crops hide matrix and pixel size."""
    images = [(image, case) for case in cases for image in ventricle_slices(case)]
    features = np.stack([appearance(image) for image, _ in images])
    vendors, patients = (np.array([getattr(case, name) for _, case in images]) for name in ("vendor", "patient"))
    return cross_validated(make_pipeline(StandardScaler(), SVC(C=10.0)), features, vendors, patients)


def disease_accuracy(cases: list[Case]) -> Score:
    """How often the group is told from the label map of one scan."""
    features = np.stack([anatomy_features(case) for case in cases])
    diseases, patients = (np.array([getattr(case, name) for case in cases]) for name in ("disease", "patient"))
    return cross_validated(RandomForestClassifier(300, random_state=0), features, diseases, patients)


# --- curves
def radial_spectrum(image: np.ndarray) -> np.ndarray:
    """(side / 2,) mean power over rings of equal spatial frequency of an image of unit variance."""
    image = image * np.outer(np.hanning(len(image)), np.hanning(len(image)))
    power = np.abs(np.fft.fftshift(np.fft.fft2(image))) ** 2 / image.size
    y, x = np.indices(power.shape) - len(power) // 2
    ring = np.rint(np.hypot(x, y)).astype(int).ravel()
    return (np.bincount(ring, power.ravel()) / np.bincount(ring))[:len(power) // 2]


def curves(cases: list[Case], name: str) -> pd.DataFrame:
    """Mean over patients, and its 10–90 % range between them, of histogram and spectrum of the ventricles' crops."""
    edges = np.linspace(-1.5, 4.5, 61)
    rows = []
    per_patient = {"histogram": [], "spectrum": []}
    for case in cases:
        images = np.stack(list(ventricle_slices(case)))
        per_patient["histogram"].append(np.histogram(images, edges, density=True)[0])
        per_patient["spectrum"].append(np.mean([radial_spectrum(i) for i in images], 0))
    axes = {"histogram": (edges[1:] + edges[:-1]) / 2, "spectrum": np.arange(FINE_SIDE // 2) / FIELD_MM}
    for kind, values in per_patient.items():
        low, high = np.percentile(values, (10, 90), axis=0)
        rows += [{"data": name, "curve": kind, "x": x, "mean": m, "p10": a, "p90": b}
                 for x, m, a, b in zip(axes[kind], np.mean(values, 0), low, high)]
    return pd.DataFrame(rows)


def draw(table: pd.DataFrame, file: Path) -> None:
    """Histogram and spectrum of every cohort in `table`, mean and 10–90 % of patients."""
    use_style()
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4))
    for axis, kind in zip(axes, ("histogram", "spectrum")):
        for name, part in table[table["curve"] == kind].groupby("data"):
            axis.plot(part["x"], part["mean"], label=name)
            axis.fill_between(part["x"], part["p10"], part["p90"], alpha=0.2)
    axes[0].set(xlabel="intensity (standard deviations of the slice)", ylabel="density")
    axes[1].set(xlabel="spatial frequency (1/mm)", ylabel="power", yscale="log")
    axes[0].legend()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Software": None})
    figure.savefig(file.with_suffix(".svg"), metadata={"Date": None})


def curve_distance(table: pd.DataFrame, kind: str) -> float:
    """Mean absolute difference of the two cohorts' mean curves: of density, or of the logarithm (base 10) of power."""
    first, second = (part["mean"].to_numpy() for _, part in table[table["curve"] == kind].groupby("data"))
    if kind == "spectrum":
        first, second = np.log10(first), np.log10(second)
    return float(np.abs(first - second).mean())


# --- report
def definitions(folder: Path) -> Score:
    """Share of the patients inside the ACDC definition of their group, by the cohort's table."""
    table = pd.read_csv(folder / "phantom.csv").drop_duplicates("Patient")
    inside = []
    for row in table.to_dict("records"):
        person = Person(row["Pathology"], row["Sex"], row["Age"], row["Height"], row["Weight"], row["HeartRate"])
        inside.append(not violations(person, row["LVEDV"], row["LVEF"] / 100, row["RVEDV"], row["RVEF"] / 100,
                                     row["WallThickness"]))
    bsa = np.sqrt(table["Height"] * table["Weight"] / 3600)
    shown = table.assign(LVEDVI=table["LVEDV"] / bsa, RVEDVI=table["RVEDV"] / bsa)
    print(shown.groupby("Pathology")[["LVEF", "LVEDVI", "RVEF", "RVEDVI", "WallThickness"]].agg(["min", "mean", "max"])
          .round(1).loc[list(DISEASES)].to_string())
    return mean_score(np.array(inside, float), table["Patient"].to_numpy()).against(0.0, 1.0)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--phantom", type=Path, default=ROOT / "data" / "phantom")
    parser.add_argument("--acdc", type=Path, help="folder of ACDC; without it only what needs no real data is measured")
    parser.add_argument("--seconds", type=float, default=120.0, help="training time of each segmenter")
    parser.add_argument("--seeds", type=int, default=1, help="segmenters trained; scores are means over them")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    phantom = read_cohort(options.phantom, layout="mnms").cases
    rows = [definitions(options.phantom).row("patients inside the definition of their group", "anatomy", "higher"),
            vendor_accuracy(phantom).row("vendor told from an image (accuracy)", "fidelity", "higher"),
            disease_accuracy(phantom).row("disease told from the masks (accuracy)", "anatomy", "higher")]
    table = curves(phantom, "phantom")
    if options.acdc:
        real = read_cohort(options.acdc, layout="acdc").cases
        table = pd.concat([table, curves(real, "ACDC")])
        rows += [Score(curve_distance(table, kind), np.nan, np.nan, len(real)).against(0.0, np.nan)
                 .row(f"{kind} difference to ACDC", "fidelity", "lower") for kind in ("histogram", "spectrum")]
        networks = [train_segmenter(phantom, options.seconds, seed) for seed in range(options.seeds)]
        tables = [patient_dice(network, real).set_index(["patient", "disease"]) for network in networks]
        scores = sum(tables) / options.seeds
        print(scores.groupby("disease").mean().round(3).to_string())
        names = scores.index.get_level_values("patient").to_numpy()
        rows += [mean_score(scores[s].to_numpy(), names).against(0.0, 1.0)
                 .row(f"Dice {s} on ACDC, trained on the phantom only", "utility", "higher") for s in (*LABELS, "mean")]
    common = {"dataset": "phantom", "profile": "laptop", "system": "real", "family": "real", "conditioning": "none",
              "seeds": options.seeds}
    scores = pd.DataFrame([common | row for row in rows])[list(SCORE_COLUMNS)]
    for kind, content in (("results", scores), ("figures", table)):
        (ROOT / kind / "phantom").mkdir(parents=True, exist_ok=True)
        content.to_csv(ROOT / kind / "phantom" / "realism.csv", index=False, float_format="%.6g")
    draw(table, ROOT / "figures/phantom/realism.png")
    print(scores[["axis", "metric", "value", "low", "high", "n", "floor"]].round(3).to_string(index=False))


if __name__ == "__main__":
    main()
