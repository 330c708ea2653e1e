"""Security: which requests are answered, and what a callback's body may hold."""
