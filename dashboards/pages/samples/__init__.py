"""Samples: the final images of a cell with their verdicts."""
