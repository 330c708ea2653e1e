"""Cells by their names."""

import numpy as np
import pytest
from probed_store import CELLS

from gradscope.analysis.cells import cells, place
from gradscope.errors import GradscopeError
from gradscope.store import CELL_DIMS


def test_cells_are_found_by_name(recorded):
    every = list(cells(recorded))
    assert len(every) == 4
    assert every[1] == dict(zip(CELL_DIMS, ("robust", "x_t", "adam", 0.4), strict=True))
    assert [tuple(place(recorded, cell).values()) for cell in every] == list(np.ndindex(CELLS))
    wanted = {"classifier": "robust", "stabilizer": "adam", "guidance_scale": 0.1 + 0.3}
    assert place(recorded, wanted) == dict(zip(CELL_DIMS, (0, 0, 1, 0), strict=True))


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ({"classifier": "robust"}, "cell: which stabilizer\\? one of: none, adam"),
        ({"classifier": "robst", "stabilizer": "adam"}, "unknown classifier 'robst'; did you mean 'robust'"),
        ({"stabiliser": "adam"}, "unknown dimension 'stabiliser'; did you mean 'stabilizer'"),
        ({"classifier": "robust", "stabilizer": "adam", "guidance_scale": 0.5}, "unknown guidance_scale 0.5; .*0.4"),
        ({"classifier": "robust", "stabilizer": "adam", "guidance_scale": "0.4"}, "unknown guidance_scale '0.4'"),
    ],
)
def test_unknown_cells_are_refused(recorded, cell, message):
    with pytest.raises(GradscopeError, match=message):
        place(recorded, cell)
