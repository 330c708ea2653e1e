"""The audit of classifiers: at which timesteps can each one guide? Measured before any sampling."""
