"""Output of `gradscope check history`: the verdict on each planted fault, and how many are named."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby

from rich.box import SIMPLE_HEAD
from rich.table import Table

from gradscope.checking.history import LOOPS
from gradscope.checking.history.trial import Answer


def history_table(answers: Sequence[Answer]) -> Table:
    """One row for each fault and verdict got, with how often each loop got it; verdicts that are wrong are in red."""
    title = "Planted faults: the verdicts of gradscope check"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=0)
    for head in ("fault", "verdict"):
        table.add_column(head, no_wrap=True)
    for loop in LOOPS:
        table.add_column(loop.replace("classifier", "classi-\nfier").replace("_", "-\n"), justify="right", no_wrap=True)
    for name, row in groupby(answers, key=_name):
        of_fault = list(row)
        asked = Counter(answer.loop for answer in of_fault)
        verdicts = dict.fromkeys((answer.checked.verdict, answer.correct) for answer in of_fault)
        for verdict, correct in verdicts:
            got = Counter(answer.loop for answer in of_fault if answer.checked.verdict == verdict)
            cells = (f"{got[loop]}/{asked[loop]}" if got[loop] else "" for loop in LOOPS)
            table.add_row(name, verdict if correct else f"[red]{verdict}[/red]", *cells)
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
