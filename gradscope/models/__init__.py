"""Denoisers and classifiers: how they are built, loaded and trained, and the shipped zoo."""
