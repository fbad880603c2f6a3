"""C13: what learns from the vendors that a segmenter has learnt from, and brings images of others into their style."""

from __future__ import annotations

from cmri_lib.cohort.requirements import vendors_apart
from cmri_lib.cohort.slices import Slices
from cmri_lib.generators.source_domain import SourceDomain
from cmri_lib.systems.builders import diffusion
from cmri_lib.systems.system import System


def of_seen_vendors(slices: Slices) -> Slices:
    """The slices of the vendors that are learnt from; all, where no vendor is named."""
    seen, _ = vendors_apart(slices.table)
    return slices.where(vendor=list(seen)) if seen else slices


SOURCE_DOMAIN = System("C13 source-domain diffusion", "diffusion", "image (noised)", "cross_vendor",
                       lambda p: p.diffusion.training, diffusion(kind=SourceDomain), slices=of_seen_vendors)
