"""Overview: the findings, the cells, and a diagnostic along t."""
