"""Guidance: the gradient that steers a step, with one method per file."""
