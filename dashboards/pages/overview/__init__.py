"""The landing page: what fails, in which cells, and where along t."""
