"""Guidance: the gradient that steers a step, one method a file."""
