"""What adds a variable that a store lacks."""

import pytest
import torch

from gradscope.analysis.missing import require
from gradscope.errors import GradscopeError
from probes import CATALOGUE, NAMED


def test_missing_variables_name_the_probe_that_records_them(recorded):
    require(recorded, "gradient", "written")
    message = "reference_cosine is not in this store; the probe `reference` records it: add it under `probes`"
    with pytest.raises(GradscopeError, match=message):
        require(recorded, "gradient", "reference_cosine")
    with pytest.raises(GradscopeError, match="fd_extractor is not in this store; `gradscope evaluate STORE` adds it"):
        require(recorded, "fd_extractor")
    with pytest.raises(GradscopeError, match="judge_prediction is not in this store; `gradscope evaluate STORE`"):
        require(recorded, "judge_prediction")
    with pytest.raises(GradscopeError, match="the run has no judge"):
        require(recorded.assign(own_prediction=0), "judge_prediction")


def test_the_table_names_the_probe_that_records_each_diagnostic():
    options = {"reference": {"classifier": torch.nn.Identity()}, "layers": {"names": ["classifier.head"]}}
    there = {
        variable.name: entry
        for entry, make in NAMED.items()
        for probe in make(**options.get(entry, {}))
        for variable in probe.variables
    }
    assert there == {row.name: row.probe for row in CATALOGUE.values() if row.probe}
