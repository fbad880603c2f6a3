"""The systems of the ablation: a factorial design of family × content of the mask × conditioning method.

All systems of a family start from the same pretrained unconditional network, so each costs a fraction of a training.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cmri_lib.cohort.vocabulary import Vocabulary
from cmri_lib.errors import ParameterError
from cmri_lib.systems import conditions
from cmri_lib.systems.builders import diffusion, flow, gan
from cmri_lib.systems.conditional import controlled, mask_to_image
from cmri_lib.systems.conditions import (CONDITION_DROPOUT, CONTENTS, Condition, categories, mask, prompt, together,
                                         unconditional)
from cmri_lib.systems.system import System
from cmri_lib.systems.unconditional import UNCONDITIONAL

#: Stage of the pipeline that trains them.
STAGE = "conditional"
FAMILIES = ("GAN", "diffusion", "flow")
#: Conditioning methods for a mask; every family takes all of them.
METHODS = (*conditions.METHODS, "control")
#: Content and method of the unconditional systems.
NO_CONDITION = ("none", "none")
#: What the several conditions of claim M5 add, one by one, to the mask. Each is dropped as often in all of them, the mask
#: alone included: dropout by itself changes what a network learns.
CONDITION_SETS: dict[str, Condition] = {
    "mask": together(mask(), dropout=CONDITION_DROPOUT),
    "mask + vendor": together(mask(), categories("vendor"), dropout=CONDITION_DROPOUT),
    "mask + vendor + phase + disease": together(mask(), categories("vendor", "phase", "disease"), dropout=CONDITION_DROPOUT),
    "mask + prompt": together(mask(), prompt("vendor", "phase", "disease", "level"), dropout=CONDITION_DROPOUT),
}
#: (family, content, method) that primary tests of claims compare: their weights at half of the way are published, too.
COMPARED = (("flow", *NO_CONDITION), ("flow", "cavity", "concat"), ("flow", "labels", "concat"), ("flow", "labels", "control"),
            ("GAN", "labels", "concat"), ("GAN", "labels", "spade"))
#: And the sets of conditions that they compare.
COMPARED_SETS = ("mask", "mask + vendor + phase + disease")
#: The pretrained unconditional network of every family.
PRETRAINED = {
    "GAN": System("C0 GAN", "GAN", "none", STAGE, lambda p: p.conditional.gan.training,
                  gan(lambda p: p.conditional.gan, mask_to_image)),
    "diffusion": UNCONDITIONAL["U6 DDPM"], "flow": UNCONDITIONAL["U10 FM"],
}


def ablation_system(family: str, content: str, method: str) -> System:
    """The system of one of `FAMILIES`, `content` of `conditions.CONTENTS`, conditioning method of `METHODS`.

    A denoiser takes "control" by a ControlNet; a GAN, which has no encoder to copy, by a trained encoder of the mask
    beside its frozen generator (`ControlledGenerator`). Content "none" by method "none" continues the pretrained network
    for as many steps without any condition: what the steps alone are worth.

    Raises:
        ParameterError: on a combination that does not exist; "none" goes with "none" alone.
    """
    if family not in FAMILIES or (content, method) != NO_CONDITION and (content not in CONTENTS or method not in METHODS):
        raise ParameterError(f"{family}, {content}, {method}", field="ablation", remedy="choose a combination that exists")
    if (content, method) == NO_CONDITION:
        name, label, condition = f"{family} none", "none", unconditional
    else:
        name, label = f"{family} {content} {method}", f"{content} ({method})"
        condition = mask(content, "concat" if method == "control" else method)
    if family == "GAN":
        networks = controlled if method == "control" else mask_to_image
        return System(name, family, label, STAGE, lambda p: p.conditional.gan_ablation.training,
                      gan(lambda p: p.conditional.gan_ablation, networks, condition), pretrained=PRETRAINED[family])
    return _denoiser(name, family, label, condition, method == "control")


def condition_set_system(family: str, conditions: str) -> System:
    """A denoiser with the conditions that `CONDITION_SETS` names."""
    return _denoiser(f"{family} {conditions}", family, conditions, CONDITION_SETS[conditions])


def ablation_systems(vocabulary: Vocabulary, contents: Iterable[str] = tuple(CONTENTS)
                     ) -> Iterator[tuple[str, str, str, System]]:
    """(family, content, method, system) of the design with these contents, the unconditional system of every
    family first. Every tissue of the slice is a content where the cohort has them, the LV cavity alone where
    something else is labelled too."""
    possible = {"cavity": "LV" in vocabulary.structures and len(vocabulary.structures) > 1, "tissues": vocabulary.tissues}
    contents = [content for content in contents if possible.get(content, True)]
    for family in FAMILIES:
        for content, method in (NO_CONDITION, *((c, m) for c in contents for m in METHODS)):
            yield family, content, method, ablation_system(family, content, method)


def _denoiser(name: str, family: str, label: str, condition: Condition, control: bool = False) -> System:
    build = {"diffusion": diffusion, "flow": flow}[family]
    return System(name, family, label, STAGE, lambda p: p.conditional.denoiser_ablation.training,
                  build(condition, control=control), pretrained=PRETRAINED[family])
