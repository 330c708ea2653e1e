"""Trajectory: one cursor of cell, timestep and sample through maps, curves and numbers."""
