"""Watch a sampling loop that is not ours: hooks on denoiser, guide and scheduler record its guidance into a store."""
