"""The operators of profile RO-1: their table, shape rules and float64 twins."""
