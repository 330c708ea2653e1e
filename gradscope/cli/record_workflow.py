"""`gradscope record`, from its options to the results that it prints.

What judges and summarises is imported when it is used: it takes seconds, and the first step need not wait for it.
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from rich.console import Console

from gradscope.cli.display import tables as display
from gradscope.config import RunConfig, apply, check, load
from gradscope.errors import GradscopeError
from gradscope.models.device import set_device
from gradscope.recording.judge import load_judge
from gradscope.recording.prepare import moved, prepare
from gradscope.recording.progress_bar import count, recording_progress
from gradscope.recording.resume import recorded_config, refuse_differences, remarks
from gradscope.recording.run import Outcome, record_run
from gradscope.store import Grid, open_store
from gradscope.store.dims import sample_dims
from gradscope.store.locations.location import locate
from gradscope.store.opening import read_attributes
from gradscope.store.progress import finished
from gradscope.store.session import remove_leftovers
from gradscope.text import size


@dataclass(frozen=True)
class Request:
    """The options of `gradscope record`."""

    config: str | None
    resume: str | None
    store: str | None
    overrides: Sequence[str]
    device: str
    overwrite: bool
    stop_on_nonfinite: bool
    workers: int | None
    scheduler: str | None


def run(request: Request) -> None:
    """Record a run and judge its samples, then print the results.

    Raises
    ------
    GradscopeError
        For mistakes in options or configuration.
    KeyboardInterrupt
        The run was interrupted. A note says how to continue, if anything was recorded.
    """
    console = display.LastingConsole(markup=False)  # names and paths may hold brackets
    config = _configuration(request)
    if request.resume is not None and _is_complete(request.resume):
        remove_leftovers(request.resume)
        console.print(f"{request.resume} is complete, nothing is left to record", highlight=False)
        return
    if request.workers is None and request.scheduler is None:
        outcome = _record_here(request, config, console)
    else:
        outcome = _record_on_cluster(request, config, console)
    for line in remarks(outcome.path) if request.resume else ():
        console.print(line, highlight=False)
    _print_outcome(console, outcome)


def _is_complete(store: str) -> bool:
    """Whether the run ended, every block is recorded, and the samples are judged."""
    attributes = read_attributes(store)
    judged = attributes.get("status") == "complete" and "evaluation" in attributes
    return judged and bool(finished(locate(store)).all())


def _configuration(request: Request) -> RunConfig:
    """The configuration of the run, with the path of its store."""
    if request.resume is None:
        if request.config is None:
            raise GradscopeError("--config: this option is missing (only --resume STORE does without it)")
        config = load(RunConfig, request.config, request.overrides)
        path = config.recording.path if request.store is None else request.store
    else:
        if request.store or request.overwrite:
            raise GradscopeError("--resume: continues the store that it names; leave out --store and --overwrite")
        recorded = recorded_config(request.resume)
        if request.config is None:
            content = recorded.model_dump(mode="json")
            for override in request.overrides:
                apply(content, override)
            config = check(RunConfig, content, "--set")
        else:
            config = load(RunConfig, request.config, request.overrides)
        refuse_differences(recorded.model_dump(mode="json"), config.model_dump(mode="json"), request.resume)
        path = request.resume
    return moved(config, path)


def _record_here(request: Request, config: RunConfig, console: Console) -> Outcome:
    resume = request.resume is not None
    run = prepare(config, request.device, overwrite=request.overwrite, resume=resume)
    judge = load_judge(run)
    _announce(console, run.grid, str(run.device), run.schema.bytes(), run.schema.files())
    done = int(finished(locate(config.recording.path)).sum()) if resume else 0
    with recording_progress(console, run.grid, done) as advance:
        outcome = record_run(
            run,
            overwrite=request.overwrite,
            resume=resume,
            stop_on_nonfinite=request.stop_on_nonfinite,
            on_step=partial(count, advance),
            command=sys.argv,
        )
    from gradscope.evaluation.evaluate import evaluate_store
    from gradscope.evaluation.evaluators import Evaluators, Settings

    # Verdicts alone, which take no time. `gradscope evaluate` compares with real images.
    settings = Settings(judge=config.judge, evaluation=config.evaluation)
    evaluate_store(outcome.path, Evaluators(settings, run.classifiers, judge), run.device)
    return outcome


def _record_on_cluster(request: Request, config: RunConfig, console: Console) -> Outcome:
    from gradscope.recording import distributed  # takes a second to load
    from gradscope.recording.cluster import cluster, threads_of

    if request.workers is not None and request.scheduler is not None:
        raise GradscopeError("--workers starts processes, --scheduler uses running ones: give one of the two")
    with cluster(request.workers, request.scheduler) as client:
        begun = distributed.begin(
            client,
            config,
            device=request.device,
            threads=threads_of(request.workers),
            overwrite=request.overwrite,
            resume=request.resume is not None,
            stop_on_nonfinite=request.stop_on_nonfinite,
            command=sys.argv,
        )
        workers = len(client.scheduler_info()["workers"])
        _announce(console, begun.grid, f"{begun.device}, {workers} workers", begun.bytes, begun.files)
        done = int(finished(locate(begun.path)).sum())
        with recording_progress(console, begun.grid, done) as advance:
            outcome = distributed.record_blocks(client, begun, lambda cell: advance(cell, begun.grid.timesteps))
    from gradscope.evaluation.evaluate import evaluate_store
    from gradscope.evaluation.evaluators import load_evaluators

    here = set_device("auto")  # this machine may lack the workers' device
    evaluators = load_evaluators(open_store(outcome.path), (), here, lambda text: None)
    evaluate_store(outcome.path, replace(evaluators, extractor=None), here)
    return outcome


def _announce(console: Console, grid: Grid, where: str, count: int, files: int) -> None:
    cells = len(list(np.ndindex(grid.cells)))
    console.print(
        f"{cells} cells x {grid.samples} samples x {grid.timesteps} timesteps on {where}; "
        f"the store takes up to {size(count)} in {files:,} files"
    )


def _print_outcome(console: Console, outcome: Outcome) -> None:
    from gradscope.analysis.independence import also_guides, warnings
    from gradscope.analysis.summary import summary

    rate = size(outcome.bytes / outcome.write_seconds) if outcome.write_seconds else "-"
    console.print(
        f"recorded {outcome.path}: {size(outcome.bytes)} written at {rate}/s, writer stalled {outcome.stalled:.1f} s"
    )
    for name, deviation in outcome.deviation.items():
        off = f"gradient by {deviation['gradient']:.2g} of its norm, x0-hat by {deviation['pred_original_sample']:.2g}"
        console.print(f"{name}: deviation from float32 in eager mode: {off}", highlight=False)
    for line in outcome.nonfinite[:10]:
        console.print(line, style="red")
    if len(outcome.nonfinite) > 10:
        console.print(f"and {len(outcome.nonfinite) - 10} more; see finite_fraction in the store", style="red")
    ds = open_store(outcome.path)
    for table in display.summary_tables(summary(ds), warnings(also_guides(ds)).get("judge", ""), console.width):
        console.print(table)
    path = shlex.quote(outcome.path)
    console.print(f"what fails, and what to try: gradscope report {path}", highlight=False, soft_wrap=True)
    of_images = "distances to real images, coverage, " if len(sample_dims(ds)) == 3 else ""
    console.print(f"{of_images}intervals: gradscope evaluate {path}", highlight=False, soft_wrap=True)
