"""The stores that the dashboard shows: opened read-only, read within limits, kept in bounded caches."""
