"""The Verde node: client, provider and referee."""
