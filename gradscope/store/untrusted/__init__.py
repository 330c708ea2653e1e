"""Stores of strangers: what is checked before anything in them is decoded."""
