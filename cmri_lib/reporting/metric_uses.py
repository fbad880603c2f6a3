"""When to use which metric: a sentence each, for tables that help to choose (`metrics.use`). What a metric sees is measured in
notebook 06.

Xu et al., "An empirical study on evaluation metrics of generative adversarial networks", 2018 (arXiv 1806.07755); Naeem et al.,
"Reliable Fidelity and Diversity Metrics for Generative Models", ICML 2020 (arXiv 2002.09797), for density and coverage.
"""

from __future__ import annotations

#: Metric, or the beginning of the names of a family (``kid`` of ``kid_study``) → when to use it.
USES = {
    "mmd_anatomy": "First, for anatomy: small sets suffice, but the segmenter must find hearts.",
    "mmd_classical": "First, for appearance: its features have learnt from nobody.",
    "mmd": "A further look at the same sets; never alone.",
    "kid": "To rank sets of different size, or small ones: their number does not bias it.",
    "frechet": "To compare with other papers, at equal numbers of images: it falls as these grow.",
    "precision": "Beside recall: is each sample like a real slice? A few good images may score high.",
    "recall": "Beside precision: is the variety of real slices reached?",
    "density": "In the place of precision, where outliers among real slices would raise it.",
    "coverage": "In the place of recall, where outliers among samples would raise it.",
    "c2st": "To find any difference, when nobody knows which; it does not say what is wrong.",
    "c2st_image": "The sternest test of all. It cannot rank systems that all fail it.",
    "inception": "To compare with older papers alone: real images are no part of it.",
    "spectrum_db": "If texture is in doubt, at any scale.",
    "band_excess": "To say how texture errs: below 0 it is blurred, above 0 it has noise or artefacts.",
    "ms_ssim_pairs": "If samples may all be alike. Below real images is no merit.",
    "heart_valid": "Before all others: of a system without hearts nothing else counts.",
    "anatomy_lv_missing": "To see what is wrong where few hearts are valid.",
    "anatomy_w1": "If sizes matter: are hearts as large, and as different, as real ones?",
    "dice": "If masks serve as labels: does the image follow its mask?",
    "hd95": "Beside Dice: the places where an outline is farthest off, which areas hide.",
    "accuracy": "If a condition is no mask: does the image show the vendor, disease or phase asked for?",
    "downstream_dice": "If samples are to teach a segmenter: no distance answers that.",
    "downstream_dice_unseen": "The same, for scanners that nobody has learnt from.",
    "nearest_share": "To suspect memory of training patients; read it against real test slices.",
    "nearest_excess": "The same, with what real test slices score taken off.",
    "near_copies": "Before samples are given away: is one nearly a training image?",
    "attack_auc": "Before weights or samples are given away: can it be seen who taught it?",
    "seconds_per_image": "If many samples are drawn; of one machine alone.",
    "nfe": "To compare the cost of sampling on any machine.",
    "images_seen": "To see whether budgets were equal.",
    "images_before": "Beside it: what a system owes to those it starts from.",
    "training_seconds": "To plan; of machines of one kind alone.",
}
