"""The guided sampling loop: the process that a scheduler describes, the guidance, the noise, and how the models run."""
