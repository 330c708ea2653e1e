"""Write the measured figures into docs/reference/performance.md, and those of one or two whole runs into NOTES.md.

python tests/benchmarks/page.py bench.json
python tests/benchmarks/page.py bench.json second.json

The page gets the figures of the first file, NOTES.md those of all.
"""

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from measure import Result
from run import PARTS, figure

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "reference" / "performance.md"
NOTES = HERE / "NOTES.md"
RUNS = "whole runs"
"""Name of the place in NOTES.md; those of the page are `PARTS`."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="files that `make bench` wrote")
    runs = [json.loads(path.read_text()) for path in parser.parse_args().runs]
    for run in runs:
        refuse(run)
    PAGE.write_text(filled(PAGE.read_text(), {part: part_table(runs[0][part]) for part in PARTS}))
    notes = "\n\n".join(f"### Run {number}\n\n{run_tables(run)}" for number, run in enumerate(runs, 1))
    NOTES.write_text(filled(NOTES.read_text(), {RUNS: notes}))


def refuse(run: Mapping[str, Any]) -> None:
    """Refuse results that must not be cited."""
    if missing := [part for part in PARTS if part not in run]:
        raise SystemExit(f"not measured: {', '.join(missing)}; run.py --only {missing[0]} adds it")
    if quick := [part for part in PARTS if run[part]["quick"]]:
        raise SystemExit(f"measured with --quick, in sizes that must not be cited: {', '.join(quick)}")


def filled(text: str, contents: Mapping[str, str]) -> str:
    """The text with new contents between ``<!-- NAME -->`` and ``<!-- end of NAME -->``."""
    for name, content in contents.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise SystemExit(f"there must be one place {begin} ... {end}")
        pattern = re.escape(begin) + ".*?" + re.escape(end)
        text = re.sub(pattern, lambda _, new=f"{begin}\n\n{content}\n\n{end}": new, text, flags=re.S)
    return text


def part_table(part: Mapping[str, Any]) -> str:
    """One part as a table, with the machine and the duration."""
    lines = ["| what | median [quartiles] | goal | n |", "| --- | --- | --- | --- |"]
    for row in (Result(**row) for row in part["results"]):
        goal = f"{row.goal}{'' if row.met else ', missed'}" if row.goal else ""
        lines.append(f"| {row.what} | {measured(row)} | {goal} | {row.n or ''} |")
    return "\n".join([*lines, "", f"{part['machine']}; {part['seconds'] / 60:.1f} minutes."])


def measured(row: Result) -> str:
    """The median with its quartiles and unit, or why there is none."""
    if row.median is None:
        return row.detail
    quartiles = f" [{figure(row.low)}, {figure(row.high)}]" if row.n > 1 else ""
    return f"{figure(row.median)}{quartiles}{'' if row.unit == 'ratio' else ' ' + row.unit}"


def run_tables(run: Mapping[str, Any]) -> str:
    seconds = sum(run[part]["seconds"] for part in PARTS)
    parts = "\n\n".join(f"`{part}`\n\n{part_table(run[part])}" for part in PARTS)
    return f"{seconds / 60:.1f} minutes.\n\n{parts}"


if __name__ == "__main__":
    main()
