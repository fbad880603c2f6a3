"""What training and sampling leave in a network beside its weights, and how it is taken away.

A digest of a network must not tell what has been done with it: just trained, it is the same as loaded.
"""

from __future__ import annotations

from torch import nn

#: Plain attributes: Accelerate's mark of what it has trained, whether a GAN's last step had a penalty, the image that was
#: translated last. What was built and loaded has them as here, or, where None, not at all.
MARKS: dict[str, object] = {"_is_accelerate_prepared": None, "penalise": True, "reference": None, "finest": None}


def unmarked(network: nn.Module) -> nn.Module:
    """The same network without `MARKS`, and grown as far as it grows."""
    for module in network.modules():
        own = vars(module)
        for name in MARKS.keys() & own.keys():
            if MARKS[name] is None:
                del own[name]
            else:
                own[name] = MARKS[name]
        if hasattr(module, "grow"):
            module.grow(1.0)
    return network
