"""Analysis of a store. No torch here."""

from gradscope.analysis.comparison import Comparison, compare, compare_all
from gradscope.analysis.contents import require, written
from gradscope.analysis.stability import curves, from_tensors, permutation_null
from gradscope.analysis.summary import summary

__all__ = [
    "Comparison",
    "compare",
    "compare_all",
    "curves",
    "from_tensors",
    "permutation_null",
    "require",
    "summary",
    "written",
]
