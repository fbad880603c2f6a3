"""Start a training from pretrained weights, those of a model with fewer conditions."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from monai.networks.blocks.spade_norm import SPADE
from torch import Tensor, nn

from cmri_lib.errors import ParameterError


@torch.no_grad()
def load_pretrained(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy `weights` to the parameters and buffers of `model` that have the same name.

    Where `model` has more inputs, as it has when a mask is concatenated, those that come last start at zero: at first the
    network does not see the condition, and does what the other one did. So it is where `model` has SPADE in the place of a
    plain normalisation: its maps start as the scale and shift that the weights hold, the same at every pixel. What only one of
    the two has is left alone. A part with a method ``load_pretrained`` (ControlNet) is given the weights of the part of the
    same name in its stead.

    Raises:
        ParameterError: if nothing is common, or a parameter's shape differs in more than the number of inputs.
    """
    willing = [name for name, part in model.named_modules() if hasattr(part, "load_pretrained")]
    for name in willing:
        model.get_submodule(name).load_pretrained({k.removeprefix(f"{name}."): v for k, v in weights.items()
                                                   if k.startswith(f"{name}.")})
    mine, parameters = model.state_dict(), {name for name, _ in model.named_parameters()}
    for name, part in model.named_modules():
        if isinstance(part, SPADE) and f"{name}.weight" in weights:
            _start_spade(part, {k.removeprefix(f"{name}."): v for k, v in weights.items() if k.startswith(f"{name}.")})
    common = [name for name in weights if name in mine]
    if not common and not willing:
        raise ParameterError("the two models have no layer in common", field="pretrained",
                             remedy="start from a system of its kind")
    for name in common:
        given, place = weights[name], mine[name]
        if given.shape == place.shape:
            place.copy_(given)
        elif given.dim() > 1 and _wider(place, given):
            place.zero_()[:, :given.shape[1]] = given
        elif name in parameters:  # buffers of another shape are estimates, which a training finds again
            raise ParameterError(f"{tuple(given.shape)} does not fit {tuple(place.shape)}", field=f"pretrained: {name}",
                                 remedy="give both networks the same sizes")


def _start_spade(part: SPADE, plain: Mapping[str, Tensor]) -> None:
    """Make it the normalisation whose weight, bias and estimates are given:
    x̂ (1 + γ) + β, with maps γ, β that are constant."""
    own = part.param_free_norm.state_dict()
    for name in own:
        own[name].copy_(plain[name])
    gamma, beta = part.mlp_gamma.conv, part.mlp_beta.conv
    for map_ in (gamma, beta):
        map_.weight.zero_()
        map_.bias.zero_()
    if "weight" not in own:
        gamma.bias.copy_(plain["weight"] - 1)
        beta.bias.copy_(plain["bias"])


def _wider(place: Tensor, given: Tensor) -> bool:
    """Equal but for a larger number of inputs, the second axis of a weight."""
    return place.shape[0] == given.shape[0] and place.shape[2:] == given.shape[2:] and place.shape[1] > given.shape[1]
