"""The node's way to the chain: bindings, reader, sender, and a chain in the process for development."""
