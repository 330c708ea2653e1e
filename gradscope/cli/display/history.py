"""Output of `gradscope check history`: the verdict on each planted fault, and how many are named."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby

from rich.table import Table

from gradscope.checking.history import LOOPS
from gradscope.checking.history.trial import Answer


def history_table(answers: Sequence[Answer]) -> Table:
    """One row for each fault, one column for each loop, with the verdicts got; those that are wrong are in red."""
    table = Table(title="Planted faults: the verdicts of gradscope check", title_justify="left")
    table.add_column("fault")
    for loop in LOOPS:
        table.add_column(loop, overflow="fold")
    for name, row in groupby(answers, key=_name):
        of_loop = {loop: list(few) for loop, few in groupby(row, key=lambda answer: answer.loop)}
        table.add_row(name, *(_cell(of_loop.get(loop, [])) for loop in LOOPS))
    return table


def history_sentence(answers: Sequence[Answer], seeds: int) -> str:
    """How many are named and how often a correct loop is blamed."""
    faulty = [answer for answer in answers if answer.fault is not None]
    named, blamed = sum(answer.correct for answer in faulty), false_alarms(answers)
    correct = len(answers) - len(faulty)
    return (
        f"{named:,} of {len(faulty):,} named, {blamed} false alarms in {correct:,} checks of correct loops "
        f"({seeds} {'seed' if seeds == 1 else 'seeds'})"
    )


def false_alarms(answers: Iterable[Answer]) -> int:
    """How often a correct loop is blamed."""
    return sum(answer.fault is None and not answer.correct for answer in answers)


def _name(answer: Answer) -> str:
    return "no fault" if answer.fault is None else answer.fault.name


def _cell(answers: Sequence[Answer]) -> str:
    """The verdicts, the most frequent first, with their numbers where they differ."""
    got = Counter((answer.checked.verdict, answer.correct) for answer in answers).most_common()
    return ", ".join(
        f"{'' if correct else '[red]'}{verdict}{'' if correct else '[/red]'}"
        + (f" {number}/{len(answers)}" if len(got) > 1 else "")
        for (verdict, correct), number in got
    )
