"""The stores that the dashboard shows: opened, read within limits, kept in bounded caches."""
