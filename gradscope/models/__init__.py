"""Denoisers and classifiers: building, loading, training, and the shipped zoo."""
