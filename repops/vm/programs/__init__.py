"""Every operator's RepVM program (docs/spec/repvm.md): its executable definition, one element a run."""

from __future__ import annotations

from functools import cache

from repops.vm.assembler import Assembler
from repops.vm.image import Image
from repops.vm.programs import movement, pointwise, pools, products, reductions, windows

_BUILDS = {
    **pointwise.PROGRAMS,
    **reductions.PROGRAMS,
    **products.PROGRAMS,
    **movement.PROGRAMS,
    **windows.PROGRAMS,
    **pools.PROGRAMS,
}

NAMES = tuple(_BUILDS)


@cache
def image(operator: str) -> Image:
    """The image of an operator. Raises KeyError for a name that is none."""
    assembler = Assembler()
    _BUILDS[operator](assembler)
    return assembler.assemble()
