"""C13: what learns from the vendors that a segmenter has learnt from, and brings images of others into their style. And
the short flow that learns to draw after each way of preprocessing."""

from __future__ import annotations

from cmri_lib.cohort.requirements import vendors_apart
from cmri_lib.cohort.slices import Slices
from cmri_lib.generators.source_domain import SourceDomain
from cmri_lib.systems.builders import diffusion, flow
from cmri_lib.systems.system import System


def of_seen_vendors(slices: Slices) -> Slices:
    """The slices of the vendors that are learnt from; all, where no vendor is named."""
    seen, _ = vendors_apart(slices.table)
    return slices.where(vendor=list(seen)) if seen else slices


SOURCE_DOMAIN = System("C13 source-domain diffusion", "diffusion", "image (noised)", "cross_vendor",
                       lambda p: p.diffusion.training, diffusion(kind=SourceDomain), slices=of_seen_vendors)
#: U10 FM with fewer steps. It learns from slices that are preprocessed in other ways than the cohort
#: (`experiments.preprocessing_synthesis`), so it stands beside the register.
WAY_FLOW = System("short FM", "flow", "none", "cross_vendor", lambda p: p.cross_vendor.synthesis, flow())
