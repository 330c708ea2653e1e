"""The final images of a cell with their verdicts."""
