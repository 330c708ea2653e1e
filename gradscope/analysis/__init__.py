"""Analysis of a store with NumPy and xarray; nothing here imports torch."""

from gradscope.analysis.comparison import Comparison, compare
from gradscope.analysis.missing import require
from gradscope.analysis.stability import curves, from_tensors, permutation_null
from gradscope.analysis.summary import summary
from gradscope.analysis.technique_effects import compare_all
from gradscope.analysis.written import written

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
