"""Analysis of a store with NumPy and xarray; nothing here imports torch."""

from gradscope.analysis.comparison import Comparison, compare
from gradscope.analysis.missing import require
from gradscope.analysis.samples import samples
from gradscope.analysis.stability import curves, from_tensors, permutation_null
from gradscope.analysis.summary import summary
from gradscope.analysis.technique_effects import compare_all
from gradscope.analysis.vectors import cosine, norm
from gradscope.analysis.written import written

__all__ = [
    "Comparison",
    "compare",
    "compare_all",
    "cosine",
    "curves",
    "from_tensors",
    "norm",
    "permutation_null",
    "require",
    "samples",
    "summary",
    "written",
]
