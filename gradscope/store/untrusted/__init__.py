"""Checks of stores that may come from strangers, before anything in them is decoded."""
