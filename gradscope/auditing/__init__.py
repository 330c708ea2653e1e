"""The audit of classifiers: it measures, before any sampling, at which timesteps each of them can guide."""
