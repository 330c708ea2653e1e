"""The oracle: guidance methods, stabilisers and guides scored against the exact gradient of log p(y | x_t)."""
