"""The conditional systems of the review: which condition, by which method, from which pretrained network.

Denoisers start from the trained unconditional system of their family; GANs are trained from random weights.
"""

from __future__ import annotations

from collections.abc import Callable

from cmri_lib.cohort.requirements import WITHHELD_PAIRS
from cmri_lib.config.parameters import Parameters
from cmri_lib.networks.adapter import ControlledGenerator
from cmri_lib.networks.mask_to_image import ConditionalGenerator, PatchCritic, TranslationUNet
from cmri_lib.networks.projection import ProjectionCritic
from cmri_lib.systems.builders import Networks, diffusion, factorised, flow, gan, kl_autoencoder, latent_diffusion, maskgit
from cmri_lib.systems.conditions import CONDITION_DROPOUT, Condition, categories, mask, numbers, prompt, together
from cmri_lib.systems.system import FirstStage, Make, System
from cmri_lib.systems.unconditional import KL, UNCONDITIONAL, VQ
from cmri_lib.training import TrainSettings

CLASSES_KL = FirstStage("classes-kl", "conditional", lambda p: p.conditional.classes_kl.training)
DOMAIN_VAE = FirstStage("domain-vae", "conditional", lambda p: p.conditional.domain_vae.training)


def pix2pix(sizes, latent, size, conditioning):
    """Networks of C1: a U-Net over the mask, and a critic of patches."""
    return TranslationUNet(latent, size, sizes, conditioning), PatchCritic(sizes, conditioning)


def mask_to_image(sizes, latent, size, conditioning):
    """Networks of C2 to C4: from a vector up, the condition entering at every level, and a critic of patches."""
    return ConditionalGenerator(latent, size, sizes, conditioning), PatchCritic(sizes, conditioning)


def controlled(sizes, latent, size, conditioning):
    """The same generator, frozen, with a trained branch that sees the mask."""
    return ControlledGenerator(latent, size, sizes, conditioning), PatchCritic(sizes, conditioning)


def _projection(sizes, latent, size, conditioning):
    return ConditionalGenerator(latent, size, sizes, conditioning), ProjectionCritic(size, sizes, conditioning)


def _gan(id: str, conditioning: str, section: Callable[[Parameters], object], networks: Networks, condition: Condition
         ) -> System:
    return System(id, "GAN", conditioning, "conditional", lambda p: section(p).training, gan(section, networks, condition))


def _ldm(condition: Condition, *, control: Condition | None = None) -> Make:
    return latent_diffusion(kl_autoencoder(lambda p: p.latent.kl), lambda p: p.latent.ldm_kl, condition, control=control)


def _fine_tuned(p: Parameters) -> TrainSettings:
    return p.conditional.denoiser.training


def _latent_fine_tuned(p: Parameters) -> TrainSettings:
    return p.conditional.latent.training


#: Categories in the place of the sentences of Skorupko et al. ("Fairness-Aware Data Augmentation for Cardiac MRI using
#: Text-Conditioned Diffusion Models", 2025, arXiv 2403.19508), which held sex, age, BMI and health.
_PROMPT = together(prompt("vendor", "phase", "disease", "level"), dropout=CONDITION_DROPOUT)

PROMPT_LDM = System("C9 prompt LDM", "latent diffusion", "prompt", "conditional", _latent_fine_tuned, _ldm(_PROMPT), KL,
                    UNCONDITIONAL["U7 LDM-KL"])

CONDITIONAL: dict[str, System] = {s.id: s for s in (
    _gan("C1 Pix2Pix", "mask (concat)", lambda p: p.conditional.pix2pix, pix2pix, mask()),
    _gan("C1 Pix2PixHD", "mask (concat)", lambda p: p.conditional.pix2pix_hd, pix2pix, mask()),
    _gan("C2 SPADE cGAN", "tissues (spade)", lambda p: p.conditional.gan, mask_to_image, mask("fullest", "spade")),
    _gan("C3 vendor-style cGAN", "mask (spade) + vendor", lambda p: p.conditional.gan, mask_to_image,
         together(mask(method="spade"), categories("vendor"))),
    _gan("C4 SPADE cGAN", "mask (spade)", lambda p: p.conditional.gan, mask_to_image, mask(method="spade")),
    _gan("C6 covariate cGAN", "age + bmi + phase", lambda p: p.conditional.covariate, _projection,
         together(numbers("age", "bmi", "height"), categories("phase"))),
    System("C8 phenotype tokens", "masked", "lvef + lvedv + rvedv + phase", "conditional",
           lambda p: p.conditional.tokens.training,
           maskgit(together(numbers("lvef", "lvedv", "rvedv", "height"), categories("phase"), dropout=CONDITION_DROPOUT)),
           VQ, UNCONDITIONAL["U9 MaskGIT"]),
    PROMPT_LDM,
    System("C9 ControlNet LDM", "latent diffusion", "mask (ControlNet) + prompt", "conditional", _latent_fine_tuned,
           _ldm(_PROMPT, control=mask()), KL, PROMPT_LDM),
    System("C10 SPADE LDM", "latent diffusion", "mask (spade)", "conditional", _latent_fine_tuned, _ldm(mask(method="spade")),
           KL, UNCONDITIONAL["U7 LDM-KL"]),
    System("C12 ablated-mask diffusion", "diffusion", "mask (concat, ablated)", "conditional", _fine_tuned,
           diffusion(mask(ablated=True)), pretrained=UNCONDITIONAL["U6 DDPM"]),
    System("C14 factorised diffusion", "diffusion", "mask (concat) + domain code", "conditional", _fine_tuned,
           factorised(mask()), DOMAIN_VAE, UNCONDITIONAL["U6 DDPM"]),
    System("C15 class-conditioned LDM", "latent diffusion", "disease + vendor", "conditional",
           lambda p: p.conditional.classes.training,
           latent_diffusion(kl_autoencoder(lambda p: p.conditional.classes_kl), lambda p: p.latent.ldm_kl,
                            together(categories("disease", "vendor"), dropout=CONDITION_DROPOUT)),
           CLASSES_KL, withheld=WITHHELD_PAIRS),
    System("C16 MOTFM", "flow", "mask (ControlNet)", "conditional", _fine_tuned, flow(mask(), control=True),
           pretrained=UNCONDITIONAL["U10 FM"]),
    System("C16 MOTFM SPADE", "flow", "mask (spade) + vendor + phase + disease", "conditional", _fine_tuned,
           flow(together(mask(method="spade"), categories("vendor", "phase", "disease"), dropout=CONDITION_DROPOUT)),
           pretrained=UNCONDITIONAL["U10 FM"]),
)}
