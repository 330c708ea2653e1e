"""Analysis of a store. No torch here."""

from gradscope.analysis.accessor import Accessor
from gradscope.analysis.comparison import Comparison, compare, compare_all
from gradscope.analysis.contents import require, written
from gradscope.analysis.stability import curves, from_tensors, permutation_null
from gradscope.analysis.summary import summary
from gradscope.store import open_store

__all__ = [
    "Accessor",
    "Comparison",
    "compare",
    "compare_all",
    "curves",
    "from_tensors",
    "open_store",
    "permutation_null",
    "require",
    "summary",
    "written",
]
