"""Verify a store: check its metadata and chunks, and recompute its scalars from its tensors."""
