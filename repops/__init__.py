"""RepOps: reproducible operators, programs and commitments."""
