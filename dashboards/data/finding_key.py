"""Keys of findings in URLs, and their names.

A key has the number of the cell, the signature and, where the finding concerns one class, the number of the class.
"""

from dashboards.data.open_run import OpenRun
from gradscope.analysis.cells import cell_name
from gradscope.analysis.findings import Finding
from gradscope.analysis.verdicts import class_names

KEY = r"[0-9]{1,4}\.[a-z_0-9]{1,40}(\.[0-9]{1,5})?"
"""What a key looks like: ``3.unstable``, ``3.vanishing.2``."""


def finding_key(run: OpenRun, finding: Finding) -> str:
    """The key of a finding; it stays while a run grows."""
    text = f"{run.cells.index(finding.cell)}.{finding.signature}"
    if not finding.target_class:
        return text
    return f"{text}.{class_names(run.ds).index(finding.target_class)}"


def finding_of(run: OpenRun, key: str) -> Finding | None:
    """The finding of a key; None where the run has none."""
    return next((finding for finding in run.findings() if finding_key(run, finding) == key), None)


def finding_name(finding: Finding) -> str:
    """The signature and the cell, and the class where the finding concerns one."""
    name = f"{finding.signature}: {cell_name(finding.cell)}"
    return f"{name}, class {finding.target_class}" if finding.target_class else name
