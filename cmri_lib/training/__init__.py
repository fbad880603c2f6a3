"""One training loop for every network of the study. It knows tensors, not hearts."""

from cmri_lib.training.augment import Augment
from cmri_lib.training.loop import Trainable, train
from cmri_lib.training.settings import AdversarialSettings, TrainSettings

__all__ = ["AdversarialSettings", "Augment", "TrainSettings", "Trainable", "train"]
