"""From a configuration, or a sampler, to a store."""
