"""Analysis of a store. No torch here."""

from gradscope.analysis.summary import summary

__all__ = ["summary"]
