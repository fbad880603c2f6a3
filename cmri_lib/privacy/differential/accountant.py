"""What a private training spends: (ε, δ) of the subsampled Gaussian mechanism, by two of Opacus' accountants.

Both are upper bounds. Rényi's (Mironov, Talwar & Zhang 2019, arXiv 1908.10530) is the older and the looser
one; that of privacy loss random variables (Gopi, Lee & Wutschitz 2021, arXiv 2106.02848) is numerical and
nearly tight.
"""

from __future__ import annotations

import math
import warnings
from functools import cache

import numpy as np

from cmri_lib.errors import ParameterError

#: Names of the accountants, and Opacus' names of them.
ACCOUNTANTS = {"RDP": "rdp", "PRV": "prv"}
#: Rényi's orders that are tried. Fractional ones are slow, and matter where they are small.
ORDERS = (*np.arange(11, 30) / 10, 3.5, 4.5, *range(3, 64))
#: How near to ε the search for the noise comes, from below, as a share of ε.
PRECISION = 0.01


@cache
def noise_multiplier(epsilon: float, delta: float, rate: float, steps: int) -> float:
    """The noise σ, in units of the clipping norm, at which `steps` steps with sampling rate `rate` spend at
    most (ε, δ) by the accountant of Rényi; 0 for ε = ∞.

    Raises:
        ParameterError: if no noise is enough.
    """
    if math.isinf(epsilon):
        return 0.0
    # Here: it loads torch's distributed tensors, a second for everybody.
    from opacus.accountants.utils import get_noise_multiplier

    try:
        with warnings.catch_warnings():
            # Much noise asks for orders beyond the list: the bound is then looser, and still one.
            warnings.simplefilter("ignore", UserWarning)
            return float(get_noise_multiplier(
                target_epsilon=epsilon, target_delta=delta, sample_rate=rate, steps=steps, alphas=ORDERS,
                accountant=ACCOUNTANTS["RDP"], epsilon_tolerance=PRECISION * epsilon))
    except ValueError as cause:
        raise ParameterError(f"no noise gives ε = {epsilon:g} at δ = {delta:g}", field="epsilons",
                             remedy="allow a larger ε, or take fewer steps") from cause


@cache
def spent(noise: float, rate: float, steps: int, delta: float) -> dict[str, float]:
    """Accountant → the ε that `steps` steps have spent at δ; ∞ without noise."""
    if not noise:
        return dict.fromkeys(ACCOUNTANTS, math.inf)
    from opacus.accountants import create_accountant

    found: dict[str, float] = {}
    for name, kind in ACCOUNTANTS.items():
        options = {"alphas": ORDERS} if name == "RDP" else {}
        accountant = create_accountant(kind)
        accountant.history = [(noise, rate, steps)]
        with warnings.catch_warnings(), np.errstate(divide="ignore"):  # log(1 − q) at q = 1
            warnings.simplefilter("ignore", UserWarning)
            found[name] = float(accountant.get_epsilon(delta, **options))
    return found
