"""One training loop for every network of the study. It knows tensors, not hearts."""

from cmri_lib.training.augment import Augment
from cmri_lib.training.loop import Trainable, train
from cmri_lib.training.settings import AdversarialTraining, TrainSettings

__all__ = ["AdversarialTraining", "Augment", "TrainSettings", "Trainable", "train"]
