"""One training loop for every network of the study. It knows tensors, not hearts."""

from cmri_lib.training.augment import Augment
from cmri_lib.training.loop import TrainSettings, Trainable, train

__all__ = ["Augment", "TrainSettings", "Trainable", "train"]
