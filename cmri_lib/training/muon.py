"""Muon: momentum whose matrices are made orthogonal, so that a step moves a layer in all its directions alike.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024 (kellerjordan.github.io/posts/muon);
size of the step: Liu et al., "Muon is Scalable for LLM Training", 2025 (arXiv 2502.16982), section 2.2.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def orthogonal(matrix: Tensor) -> Tensor:
    """Nearly U Vᵀ of `matrix` = U S Vᵀ: five Newton–Schulz steps bring its singular values near 1 (Jordan et al.)."""
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonal(matrix.T).T
    matrix = matrix / matrix.norm().clamp(min=1e-12)
    for _ in range(5):
        gram = matrix @ matrix.T
        matrix = 3.4445 * matrix + torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315) @ matrix
    return matrix


class Muon(torch.optim.Optimizer):
    """Muon for weights, those of a convolution (out, in, h, w) as a matrix (out, in·h·w); AdamW for biases and gains.

    0.2 √max(rows, columns) makes an orthogonal step as large as Adam's usual ones, so one learning rate serves both.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, betas: tuple[float, float] = (0.9, 0.99),
                 weight_decay: float = 0.0, momentum: float = 0.95):
        super().__init__(parameters, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                direction = self._adam(p, group["betas"]) if p.dim() < 2 else self._muon(p, group["momentum"])
                p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * direction)

    def _muon(self, p: Tensor, momentum: float) -> Tensor:
        state = self.state[p]
        if not state:
            state["mean"] = torch.zeros_like(p)
        ahead = p.grad.lerp(state["mean"].lerp_(p.grad, 1 - momentum), momentum).flatten(1)  # Nesterov's
        return 0.2 * max(ahead.shape) ** 0.5 * orthogonal(ahead).view_as(p)

    def _adam(self, p: Tensor, betas: tuple[float, float]) -> Tensor:
        """Kingma & Ba 2015, alg. 1."""
        state = self.state[p]
        if not state:
            state.update(step=torch.zeros(()), mean=torch.zeros_like(p), square=torch.zeros_like(p))
        count = float(state["step"].add_(1))
        mean = state["mean"].lerp_(p.grad, 1 - betas[0]) / (1 - betas[0]**count)
        square = state["square"].lerp_(p.grad.square(), 1 - betas[1]) / (1 - betas[1]**count)
        return mean / (square.sqrt() + 1e-8)
