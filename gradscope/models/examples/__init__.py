"""Exact examples of samples that are not images: points, trajectories and signals, see `gradscope.models.mixture`."""
