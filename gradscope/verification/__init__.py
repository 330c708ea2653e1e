"""Is a store what was recorded? Its metadata, its chunks, and its scalars recomputed from its tensors."""
