"""The conditional systems of the review, and the cells of the ablation: who is told what, by which way.

As `systems`, each entry names a network, an objective, a sampler and a conditioning. Denoisers start from the trained
unconditional system of their family, adversarial ones from a generator that was told nothing, so that a cell of the
ablation costs a fraction of a training and all cells have the same past.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from safetensors import safe_open

from cmri_lib.config.study import Study
from cmri_lib.errors import ParameterError
from cmri_lib.generators.base import Generator
from cmri_lib.generators.diffusion import Diffusion, DiffusionSettings
from cmri_lib.generators.factorised import CODE, Factorised
from cmri_lib.generators.flow import FlowMatching, FlowSettings
from cmri_lib.generators.gan import GAN, GANSettings
from cmri_lib.generators.latent import Latent
from cmri_lib.generators.masked import MaskGIT, MaskedSettings
from cmri_lib.generators.vae import VAE, VAEObjective
from cmri_lib.networks.adapter import ControlledGenerator
from cmri_lib.networks.autoencoder import KLAutoencoder, KLSettings, VQAutoencoder, VQSettings
from cmri_lib.networks.conditioning.base import Conditioning
from cmri_lib.networks.conditioning.embeddings import Given, Several
from cmri_lib.networks.controlnet import Controlled
from cmri_lib.networks.mask_to_image import (ConditionalGenerator, MaskToImageSettings, PatchCritic, TranslationUNet)
from cmri_lib.networks.projection import ProjectionCritic
from cmri_lib.networks.transformer import TokenTransformer, TransformerSettings
from cmri_lib.networks.unet import Denoiser, UNetSettings
from cmri_lib.networks.vae import Decoder, Encoder, VAESettings
from cmri_lib.systems.conditions import CONTENTS, mask, prompt, scalars, words
from cmri_lib.systems.unconditional import SYSTEMS, System

Told = Callable[[Study], Conditioning]
Make = Callable[[Study, str], Generator]

#: Probability with which a condition is hidden in training, where it should be possible to leave it out or to be guided by it.
HIDE = 0.15


def richest(study: Study) -> str:
    """The fullest content of masks that the cohort has: every tissue on the phantom, elsewhere the heart's labels."""
    file = study.work("slices") / "slices.safetensors"
    if not file.exists():
        return "labels"
    with safe_open(file, "np") as opened:
        return "tissues" if "tissues" in opened.keys() else "labels"


def _denoiser(family: str, told: Told, *, control: bool = False) -> Make:
    """Diffusion ("diffusion") or flow matching ("flow") in pixels, told something directly or through a ControlNet."""
    def make(study: Study, section: str) -> Generator:
        way_in, sizes = told(study), study.settings(f"{family}.network", UNetSettings)
        network = Controlled(sizes, Conditioning(), way_in) if control else Denoiser(sizes, way_in)
        if family == "diffusion":
            return Diffusion(network, way_in, study.settings("diffusion.objective", DiffusionSettings))
        # Noise must not be paired with images by transport here: the pairing would tie it to the condition.
        settings = replace(study.settings("flow.objective", FlowSettings), coupling="independent")
        return FlowMatching(network, way_in, settings)
    return make


def _latent(told: Told, hint: Told | None = None, stage: str = "latent.kl") -> Make:
    """Latent diffusion told something; a `hint`, as large as the images, is shown to a ControlNet on top of it, frozen."""
    def make(study: Study, section: str) -> Generator:
        autoencoder = KLAutoencoder(study.settings(f"{stage}.network", KLSettings))
        way_in, sizes = told(study), study.settings("latent.ldm_kl.network", UNetSettings)
        objective = study.settings("latent.ldm_kl.objective", DiffusionSettings)
        if hint is None:
            return Latent(autoencoder, Diffusion(Denoiser(sizes, way_in, autoencoder.channels), way_in, objective))
        shown = hint(study)
        network = Controlled(sizes, way_in, shown, autoencoder.channels, autoencoder.levels)
        return Latent(autoencoder, Diffusion(network, Several(way_in, shown), objective))
    return make


def _tokens(told: Told) -> Make:
    def make(study: Study, section: str) -> Generator:
        autoencoder, way_in = VQAutoencoder(study.settings("latent.vq.network", VQSettings)), told(study)
        sizes = study.settings("latent.maskgit.network", TransformerSettings)
        return MaskGIT(autoencoder, TokenTransformer(sizes, autoencoder.codes, way_in),
                       study.settings("latent.maskgit.objective", MaskedSettings), way_in)
    return make


def _factorised(told: Told) -> Make:
    """What is told to the prior is told to the first stage too, so that the code need not hold it."""
    def make(study: Study, section: str) -> Generator:
        first, stage = told(study), "conditional.domain_vae"
        sizes = study.settings(f"{stage}.network", VAESettings)
        objective = study.settings(f"{stage}.objective", VAEObjective)
        domain = VAE(Encoder(sizes, first), Decoder(sizes, first), sizes.latent, first, objective)
        way_in = told(study)  # one of its own: the first stage's is frozen with it
        told_both = Several(way_in, Given(CODE, sizes.latent))
        network = Denoiser(study.settings("diffusion.network", UNetSettings), told_both)
        return Factorised(domain, network, way_in, study.settings("diffusion.objective", DiffusionSettings))
    return make


def _prompt(study: Study) -> Conditioning:
    """Words in the place of the sentences of Skorupko et al. ("Fairness-Aware Data Augmentation for Cardiac MRI using
    Text-Conditioned Diffusion Models", 2025, arXiv 2403.19508), who wrote sex, age, BMI and health into them."""
    return Several(prompt("vendor", "phase", "disease", "level"), hide=HIDE)


def _gan(told: Told, generator: type = ConditionalGenerator, **changes: object) -> Make:
    """`changes` are of the settings of the networks."""
    def make(study: Study, section: str) -> Generator:
        way_in, objective = told(study), study.settings(f"{section}.objective", GANSettings)
        sizes = replace(study.settings(f"{section}.network", MaskToImageSettings), **changes)
        maker = generator(objective.latent, study.values["preprocess"]["size"], sizes, way_in)
        return GAN(maker, PatchCritic(sizes, way_in), way_in, objective)
    return make


def _wgan(told: Told) -> Make:
    """As `_gan`, for a Wasserstein critic with a gradient penalty."""
    def make(study: Study, section: str) -> Generator:
        way_in, objective = told(study), study.settings(f"{section}.objective", GANSettings)
        sizes, size = study.settings(f"{section}.network", MaskToImageSettings), study.values["preprocess"]["size"]
        return GAN(ConditionalGenerator(objective.latent, size, sizes, way_in), ProjectionCritic(size, sizes, way_in),
                   way_in, objective)
    return make


def _system(id: str, family: str, conditioning: str, section: str, make: Make, start: System | None = None,
            first_stage: str = "") -> System:
    return System(id, family, conditioning, f"conditional.{section}", make, first_stage, start)


#: Untold denoisers, the past of those that are told something.
START = {"diffusion": SYSTEMS["U6 DDPM"], "flow": SYSTEMS["U10 FM"], "latent": SYSTEMS["U7 LDM-KL"],
         "tokens": SYSTEMS["U9 MaskGIT"]}
#: Untold, the common past of the adversarial cells.
PLAIN = _system("C0 GAN", "GAN", "none", "gan", _gan(lambda study: Conditioning()))
#: Told words, the frozen base of C9.
PROMPTED = _system("C9 prompt LDM", "latent diffusion", "prompt", "latent", _latent(_prompt), START["latent"],
                   "latent.kl")

CONDITIONAL: dict[str, System] = {s.id: s for s in (
    _system("C1 Pix2Pix", "GAN", "mask (concat)", "pix2pix", _gan(lambda study: mask(), TranslationUNet)),
    _system("C1 Pix2PixHD", "GAN", "mask (concat)", "pix2pix", _gan(lambda study: mask(), TranslationUNet, scales=2)),
    _system("C2 SPADE cGAN", "GAN", "tissues (spade)", "gan", _gan(lambda study: mask(richest(study), "spade"))),
    _system("C3 vendor-style cGAN", "GAN", "mask (spade) + vendor", "gan",
            _gan(lambda study: Several(mask(way="spade"), words("vendor")))),
    _system("C4 SPADE cGAN", "GAN", "mask (spade)", "gan", _gan(lambda study: mask(way="spade"))),
    _system("C6 covariate cGAN", "GAN", "age + bmi + phase", "covariate",
            _wgan(lambda study: Several(scalars("age", "bmi", "height"), words("phase")))),
    _system("C8 phenotype tokens", "masked", "lvef + lvedv + rvedv + phase", "tokens",
            _tokens(lambda study: Several(scalars("lvef", "lvedv", "rvedv", "height"), words("phase"), hide=HIDE)),
            START["tokens"], "latent.vq"),
    PROMPTED,
    _system("C9 ControlNet LDM", "latent diffusion", "mask (ControlNet) + prompt", "latent",
            _latent(_prompt, lambda study: mask()), PROMPTED, "latent.kl"),
    _system("C10 SPADE LDM", "latent diffusion", "mask (spade)", "latent", _latent(lambda study: mask(way="spade")),
            START["latent"], "latent.kl"),
    _system("C12 ablated-mask diffusion", "diffusion", "mask (concat, ablated)", "denoiser",
            _denoiser("diffusion", lambda study: mask(ablated=True)), START["diffusion"]),
    _system("C14 factorised diffusion", "diffusion", "mask (concat) + domain code", "denoiser",
            _factorised(lambda study: mask()), START["diffusion"], "conditional.domain_vae"),
    _system("C15 class-conditioned LDM", "latent diffusion", "disease + vendor", "classes",
            _latent(lambda study: Several(words("disease", "vendor"), hide=HIDE), stage="conditional.classes_kl"),
            first_stage="conditional.classes_kl"),
    _system("C16 MOTFM", "flow", "mask (ControlNet)", "denoiser",
            _denoiser("flow", lambda study: mask(), control=True), START["flow"]),
    _system("C16 MOTFM SPADE", "flow", "mask (spade) + vendor + phase + disease", "denoiser",
            _denoiser("flow", lambda study: Several(mask(way="spade"), words("vendor", "phase", "disease"), hide=HIDE)),
            START["flow"]),
)}

#: Those that serve masks which no patient has (C4, C5, C10). Told the heart's labels only, whatever the cohort knows,
#: because such masks have no other tissue.
ON_MASKS = {name: CONDITIONAL[name] for name in ("C4 SPADE cGAN", "C10 SPADE LDM")}

#: (disease, vendor) that C15 never sees, neither its autoencoder nor its prior: no other system's weights may serve it.
WITHHELD = (("DCM", "Phantom B"), ("HCM", "Phantom C"), ("RV", "Phantom D"))

#: What the several conditions of claim M5 add, one by one, to the mask.
MORE: dict[str, Told] = {
    "mask + vendor": lambda study: Several(mask(), words("vendor"), hide=HIDE),
    "mask + vendor + phase + disease": lambda study: Several(mask(), words("vendor", "phase", "disease"), hide=HIDE),
    "mask + prompt": lambda study: Several(mask(), prompt("vendor", "phase", "disease", "level"), hide=HIDE),
}
FAMILIES = ("GAN", "diffusion", "flow")
#: Ways in for a mask; every family takes all of them.
WAYS = ("concat", "spade", "control")
#: Content and way of the cells that are told nothing.
UNTOLD = ("none", "none")


def cell(family: str, content: str, way: str) -> System:
    """A cell of the ablation: one of `FAMILIES`, `content` of `conditions.CONTENTS`, `way` of `WAYS`.

    A denoiser takes "control" by a ControlNet; a GAN, which has no encoder to copy, by a trained encoder of the mask
    beside its frozen generator (`ControlledGenerator`). Content "none" by way "none" goes on from the same past for the
    same steps, told nothing: what the steps alone are worth.

    Raises:
        ParameterError: on a combination that does not exist; "none" goes with "none" alone.
    """
    if family not in FAMILIES or (content, way) != UNTOLD and (content not in CONTENTS or way not in WAYS):
        raise ParameterError(f"{family}, {content}, {way}", field="cell", remedy="choose a cell that exists")
    if (content, way) == UNTOLD:
        name, label, told = f"{family} none", "none", lambda study: Conditioning()
    else:
        name, label = f"{family} {content} {way}", f"{content} ({way})"
        told = lambda study: mask(content, "concat" if way == "control" else way)  # noqa: E731
    if family == "GAN":
        network = ControlledGenerator if way == "control" else ConditionalGenerator
        return _system(name, family, label, "gan_cell", _gan(told, network), PLAIN)
    return _system(name, family, label, "denoiser_cell", _denoiser(family, told, control=way == "control"), START[family])


def several(family: str, extra: str) -> System:
    """A denoiser told what `MORE` names."""
    return _system(f"{family} {extra}", family, extra, "denoiser_cell", _denoiser(family, MORE[extra]), START[family])
