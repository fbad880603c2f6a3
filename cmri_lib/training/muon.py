"""Muon: momentum whose matrices are made orthogonal, so that a step moves a layer in all its directions alike.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024 (kellerjordan.github.io/posts/muon);
size of the step: Liu et al., "Muon is Scalable for LLM Training", 2025 (arXiv 2502.16982), section 2.2.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial

import torch
from torch import Tensor, nn


def orthogonal(matrices: Tensor) -> Tensor:
    """Nearly U Vᵀ of a matrix U S Vᵀ (rows, columns), or of each of several (N, rows, columns): five Newton–Schulz steps bring
    the singular values near 1 (Jordan et al.)."""
    if matrices.shape[-2] > matrices.shape[-1]:
        return orthogonal(matrices.mT).mT
    add = torch.addmm if matrices.dim() == 2 else torch.baddbmm
    matrices = matrices / torch.linalg.matrix_norm(matrices, keepdim=True).clamp(min=1e-12)
    for _ in range(5):
        gram = matrices @ matrices.mT
        matrices = add(matrices, add(gram, gram, gram, beta=-4.7750, alpha=2.0315), matrices, beta=3.4445)
    return matrices


class Muon(torch.optim.Optimizer):
    """Muon for weights, those of a convolution (out, in, h, w) as a matrix (out, in·h·w); AdamW for biases and gains.

    0.2 √max(rows, columns) makes an orthogonal step as large as Adam's usual ones, so one learning rate serves both. All
    tensors move at once, matrices of one shape as a stack: small networks on a GPU wait for launches, not for arithmetic.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, betas: tuple[float, float] = (0.9, 0.99),
                 weight_decay: float = 0.0, momentum: float = 0.95):
        super().__init__(parameters, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            vectors, matrices = [p for p in moved if p.dim() < 2], [p for p in moved if p.dim() >= 2]
            for weights, direction in ((vectors, partial(self._adam, betas=group["betas"])),
                                       (matrices, partial(self._muon, momentum=group["momentum"]))):
                if weights:
                    torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
                    torch._foreach_sub_(weights, direction(weights), alpha=group["lr"])

    def _muon(self, weights: Sequence[Tensor], momentum: float) -> list[Tensor]:
        gradients = [p.grad for p in weights]
        means = self._kept("mean", weights)
        torch._foreach_lerp_(means, gradients, 1 - momentum)
        ahead = torch._foreach_lerp(gradients, means, momentum)  # Nesterov's
        together: dict[tuple, list[int]] = defaultdict(list)
        for place, tensor in enumerate(ahead):
            # A CPU takes longer for a stack than for its matrices.
            together[tensor.flatten(1).shape, place * (tensor.device.type == "cpu")].append(place)
        found: dict[int, Tensor] = {}
        for (shape, _), places in together.items():
            matrices = [ahead[i].flatten(1) for i in places]
            directions = [orthogonal(matrices[0])] if len(matrices) == 1 else orthogonal(torch.stack(matrices))
            found |= {i: 0.2 * max(shape) ** 0.5 * d.view_as(weights[i]) for i, d in zip(places, directions)}
        return [found[i] for i in range(len(weights))]

    def _adam(self, weights: Sequence[Tensor], betas: tuple[float, float]) -> list[Tensor]:
        """Kingma & Ba 2015, alg. 1."""
        gradients = [p.grad for p in weights]
        means, squares = self._kept("mean", weights), self._kept("square", weights)
        steps = [self.state[p].setdefault("step", torch.zeros(())) for p in weights]
        torch._foreach_add_(steps, 1)
        torch._foreach_lerp_(means, gradients, 1 - betas[0])
        torch._foreach_lerp_(squares, torch._foreach_mul(gradients, gradients), 1 - betas[1])
        sizes = torch._foreach_div(squares, [1 - betas[1] ** float(step) for step in steps])
        torch._foreach_sqrt_(sizes)
        torch._foreach_add_(sizes, 1e-8)
        directions = torch._foreach_div(means, [1 - betas[0] ** float(step) for step in steps])
        torch._foreach_div_(directions, sizes)
        return directions

    def _kept(self, name: str, weights: Sequence[Tensor]) -> list[Tensor]:
        """What the optimiser remembers of each under `name`, zero at first."""
        for p in weights:
            if name not in self.state[p]:
                self.state[p][name] = torch.zeros_like(p)
        return [self.state[p][name] for p in weights]
