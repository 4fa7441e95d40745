"""RepVM: the executable definition of every operator, one element a run (docs/spec/repvm.md)."""

from repops.vm.image import Image
from repops.vm.run import NodeRun, Trace

__all__ = ["Image", "NodeRun", "Trace"]
