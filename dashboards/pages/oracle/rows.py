"""The table of a leaderboard: one row for each guide, method and stabiliser."""

from itertools import product

import pandas as pd

from dashboards.data.open_leaderboard import OpenLeaderboard
from dashboards.widgets.export import Call
from dashboards.widgets.grid import Column, Row, interval_column, number_column, text_column

_DIGITS = "digits(params.value, 2)"
COLUMNS: list[Column] = [
    text_column("guide", "guide", 96),
    text_column("guidance_method", "method", 142),
    text_column("stabilizer", "stabiliser", 96),
    interval_column("update_cosine", "update cosine [95 %]", 146, digits=2,
                    headerTooltip="of the update with the exact gradient, at the x_t of the control"),
    number_column("gradient_cosine", "gradient", 78, _DIGITS, headerTooltip="the same before the stabiliser"),
    number_column("guided_cosine", "guided", 72, _DIGITS, headerTooltip="of the update, on its own trajectories"),
    number_column("bias", "bias", 62, _DIGITS, headerTooltip="of the gradient, over replicates"),
    number_column("variance", "variance", 80, _DIGITS, headerTooltip="of the gradient, over replicates"),
    interval_column("accuracy", "accuracy [95 %]", 130, digits=2,
                    headerTooltip="share of final samples in which the exact classifier sees the target"),
    interval_column("gain", "gain [95 %]", 140, digits=2, headerTooltip="accuracy minus that of none, paired"),
    number_column("kl", "KL", 62, headerTooltip="divergence from p(x|y) [nat]; the median over mixtures"),
    number_column("coverage", "coverage", 82, _DIGITS, headerTooltip="of the components of the mixture"),
]  # fmt: skip


def numbers_call(mixture: str | None) -> Call:
    """The call whose numbers are the table."""
    return Call("oracle_table", {"mixture": mixture})


def table_rows(run: OpenLeaderboard, mixture: str | None) -> list[Row]:
    """The rows, best first."""
    table: pd.DataFrame = numbers_call(mixture).numbers(run)
    named = table.assign(id=[str(numbers(run).index(name)) for name in _names(table)])
    named.loc[named["stabilizer"] == "none", ["gain", "gain_low", "gain_high"]] = None  # it is compared with itself
    return named.astype(object).where(named.notna(), None).to_dict("records")


def numbers(run: OpenLeaderboard) -> list[tuple[str, str, str]]:
    """Guide, method and stabiliser of each row by its number, which does not depend on the order of the table."""
    return list(product(*(run.ds[dim].values.tolist() for dim in ("guide", "guidance_method", "stabilizer"))))


def best(run: OpenLeaderboard, count: int) -> list[int]:
    """Numbers of the best row of each guide, at most `count`."""
    table = numbers_call(None).numbers(run).drop_duplicates("guide")
    return [numbers(run).index(name) for name in _names(table)][:count]


def _names(table: pd.DataFrame) -> list[tuple[str, str, str]]:
    return list(zip(table["guide"], table["guidance_method"], table["stabilizer"], strict=True))
