"""Programs as graphs: representation, checks, canonical encoding, files, description."""
