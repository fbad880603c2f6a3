"""C11: a conditional VAE whose code is the anatomy, since it must serve for another phase and contrast than it was read from.

After Zou, Priya, Nagpal & Jacob, "Joint cardiac T1 mapping and cardiac cine using manifold modeling", Bioengineering
10:345, 2023: every image is a smooth function, a convolutional generator, of the phase of the motion and the inversion
time, so cine and T1 contrast lie on one manifold. They fit one generator to the k-space of one patient, phases
included. Here one generator serves all patients, phases are known, and what is fitted there for each patient is a code,
which an encoder reads from a single image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cmri_lib.errors import DataError, ParameterError
from cmri_lib.generators.vae import VAE, VAEObjective
from cmri_lib.networks.conditioning.base import Batch, Conditioning
from cmri_lib.training.augment import Augment


@dataclass(frozen=True)
class CrossObjective(VAEObjective):
    """`kl_weight`: of the divergence of codes from the prior in the bound; 1 is the evidence lower bound itself. In training
    source and target are moved alike: `rotation` (degrees), `scale` and `shift` (share of the side) as of `Augment`; 0 moves
    nothing. A hundred patients are soon known by heart, and these make hearts of other sizes and directions."""

    kl_weight: float = 1.0
    rotation: float = 0.0
    scale: float = 0.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("kl_weight", "rotation", "scale", "shift"):
            if not getattr(self, field) >= 0:
                raise ParameterError(f"{getattr(self, field)}", field=field, remedy="give 0 or more")


class CrossVAE(VAE):
    """Code z of a patient, inferred from one image x in state c (phase and inversion time); image x' of any other state c'.

    The loss is the negative evidence lower bound of x' given x, with the weight β on the divergence,

        L(x, c → x', c') = −E_{q(z | x, c)} log p(x' | z, c') + β KL(q(z | x, c) ‖ N(0, I)),

    for two states drawn at random of one patient (β = 1: Kingma & Welling 2014, eq. 3, with another target; β: Higgins et al.,
    β-VAE, ICLR 2017). What z holds of c is of no use for c', so phase and contrast are left to the condition. The likelihood is
    Gaussian with the σ of each batch, as in `VAE`.

    Args:
        encoder, decoder, latent, conditioning: as of `VAE`.
        objective: floor of σ, β, and random moves.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, latent: int, conditioning: Conditioning,
                 objective: CrossObjective = CrossObjective()):
        super().__init__(encoder, decoder, latent, conditioning, objective)
        self.kl_weight = objective.kl_weight
        self.moves = objective.rotation, objective.scale, objective.shift

    def loss(self, batch: Batch, group: str) -> Tensor:
        """Of a batch of patients, whose entries are (B, S, …): S states of each.
        In nats per pixel, source and target drawn anew.

        Raises:
            DataError: if a patient has fewer than two states.
        """
        source, target = self.draw_pair(batch)
        if self.training and any(self.moves):
            source, target = self.moved(source, target)
        log_likelihood, divergence = self.elbo_terms(source, target)
        return (self.kl_weight * divergence.mean() - log_likelihood) / target["image"][0].numel()

    def draw_pair(self, batch: Batch) -> tuple[Batch, Batch]:
        """Two different states of each patient: entries (B, S, …) → twice (B, …). Raises DataError if S is 1."""
        patients, states = batch["image"].shape[:2]
        if states < 2:
            raise DataError(f"{states} state of each patient", field="image", remedy="give at least two: a source and a target")
        device = batch["image"].device
        first = torch.randint(states, (patients,), device=device)
        second = (first + torch.randint(1, states, (patients,), device=device)) % states
        rows = torch.arange(patients, device=device)
        return tuple({name: values[rows, index] for name, values in batch.items()} for index in (first, second))

    def moved(self, source: Batch, target: Batch) -> tuple[Batch, Batch]:
        """Both images of each patient after one random affine map, another for each patient."""
        rotation, scale, shift = self.moves
        move = Augment(rotation, scale, shift, gamma=0.0, contrast=0.0, noise=0.0)
        both = move({"image": torch.cat([source["image"], target["image"]], dim=1)})["image"]
        return tuple({**part, "image": image} for part, image in zip((source, target), both.chunk(2, dim=1)))

    @torch.no_grad()
    def infer(self, sources: Sequence[Batch]) -> Tensor:
        """(B, latent): the mean code of each patient, from one image of him or her or from several.

        Each image is an expert q(z | x) / p(z); their product with the prior is a Gaussian whose precision is 1 + Σ τ, where
        τ = max(1/σ² − 1, 0) is what an image adds to the prior's (Wu & Goodman, "Multimodal generative models for scalable
        weakly-supervised learning", NeurIPS 2018, appendix A). Of one image it is the mean of its own code.

        Args:
            sources: entries (B, …) each; in the k-th the k-th image of every patient.
        """
        precision, weighted = 0.0, 0.0
        for source in sources:
            mean, log_variance = self.encoder(source["image"], source)
            added = ((-log_variance).exp() - 1).clamp_min(0)
            precision, weighted = precision + added, weighted + mean * (1 + added)
        return weighted / (1 + precision)

    @torch.no_grad()
    def transfer(self, sources: Sequence[Batch], target: Batch) -> Tensor:
        """(B, 1, H, W) in [−1, 1]: the patients of `sources`, see `infer`, in the states of `target`."""
        return self.decoder(self.infer(sources), target).clamp(-1, 1)
