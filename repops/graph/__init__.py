"""Programs as graphs: representation, checks, canonical encoding, files, description."""

from repops.graph.describe import describe

__all__ = ["describe"]
