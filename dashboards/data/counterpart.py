"""Cells after a change of store: those of the same names, where a URL has the numbers of another store."""

from collections.abc import Mapping, Sequence
from typing import Any

from dashboards.data.library import Library
from dashboards.data.masks import mask, unmask
from dashboards.data.open_run import OpenRun
from gradscope.analysis.cells import cell_name


def counterpart(cell: Mapping[str, Any], run: OpenRun, taken: int = -1) -> tuple[int, bool]:
    """Find a cell by its names in another store.

    Parameters
    ----------
    taken
        Number of a cell that is not wanted, unless it is the only one.

    Returns
    -------
    int, bool
        Number of the cell with the same names; where the store has none, of the cell with the most equal names, and
        among these with the nearest guidance scale. True if all names are the same.
    """

    def likeness(other: Mapping[str, Any]) -> tuple[int, float]:
        equal = sum(other.get(dim) == name for dim, name in cell.items() if dim != "guidance_scale")
        return equal, -abs(other["guidance_scale"] - cell["guidance_scale"])

    numbers = [i for i in range(len(run.cells)) if i != taken] or [taken]
    number = max(numbers, key=lambda i: likeness(run.cells[i]))
    found = run.cells[number]
    return number, all(found.get(dim) == name for dim, name in cell.items())


def moved(
    query: Mapping[str, str], run: OpenRun, other: OpenRun, library: Library, notices: list[str]
) -> dict[str, str]:
    """The query with the cells of the same names in the stores that are shown now.

    ``was`` is the key of the store to which the numbers ``cell`` and ``cells`` belong; ``other_was`` that of ``other``.

    Parameters
    ----------
    run, other
        The stores of ``cell`` and of ``other``.
    notices
        Gets a notice for each cell that the new store does not have.
    """
    query = dict(query)
    before = _run(library, query.get("was"), run)
    of_other = _run(library, query.get("other_was"), other if query.get("other_store") else before)
    for key, then, now in (("cell", before, run), ("cells", before, run), ("other", of_other, other)):
        if then is now or key not in query:
            continue
        try:
            numbers = unmask(query[key]) if key == "cells" else (int(query[key][:20]),)
        except ValueError:
            continue  # the reader of the parameter adds a notice
        known = [number for number in numbers if 0 <= number < len(then.cells)]
        # b must not become a: two cells of one store are compared
        taken = int(query["cell"]) if key == "other" and now is run and query.get("cell", "").isdigit() else -1
        if cells := _counterparts(known, then, now, notices, taken):
            query[key] = mask(cells) if key == "cells" else str(cells[0])
    return query


def _run(library: Library, key: str | None, otherwise: OpenRun) -> OpenRun:
    found = library.runs.get(key) if key else None
    return found if isinstance(found, OpenRun) else otherwise


def _counterparts(
    numbers: Sequence[int], then: OpenRun, now: OpenRun, notices: list[str], taken: int
) -> tuple[int, ...]:
    """Distinct counterparts of some cells. Among several, those that the store has are enough."""
    found = [(number, *counterpart(then.cells[number], now, taken)) for number in numbers]
    exact = tuple(dict.fromkeys(number for _, number, same in found if same))
    if found and not exact:
        lost, number, _ = found[0]
        shown = cell_name(now.cells[number])
        notices.append(f"{now.path.name} has no cell {cell_name(then.cells[lost])}; shown: {shown}")
    return exact or tuple(dict.fromkeys(number for _, number, _ in found))
