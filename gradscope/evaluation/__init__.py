"""Evaluation of final samples: verdicts of classifiers, distances to real images; and metrics for cards."""
