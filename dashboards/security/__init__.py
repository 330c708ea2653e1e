"""Who is let in, and what a callback's body may hold."""
