"""`verde demo`: a whole task on an embedded chain, with a liar among the providers."""
