"""Record the cells of a sampler by one call, without a configuration file."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from itertools import product
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from gradscope.config import ModuleClassifier, TimmClassifier
from gradscope.errors import GradscopeError, one_of, whole_number
from gradscope.evaluation.from_python import Spec
from gradscope.models.calls import frozen, logits_of
from gradscope.models.classifiers import Classifier, load_classifier
from gradscope.models.logits import timed
from gradscope.recording.cells import Cells
from gradscope.recording.codec import choose_codec
from gradscope.recording.load_probes import check_attaching, check_guide, probes_of
from gradscope.recording.make_schema import make_schema
from gradscope.recording.prepare import check_classes, repetitions_of
from gradscope.recording.progress_bar import OnProgress, check_progress, count, showing
from gradscope.recording.provenance import provenance
from gradscope.recording.recorder import Recorder
from gradscope.recording.rehearsal import rehearsed
from gradscope.recording.resume import resumption
from gradscope.recording.units import record_unit, units
from gradscope.recording.verdicts import Verdicts
from gradscope.sampling.guidance.guides import classifiers_in
from gradscope.sampling.inputs import class_labels
from gradscope.sampling.process import Schedule
from gradscope.sampling.sampler import GuidedSampler
from gradscope.sampling.seeds import sample_seeds
from gradscope.store import Grid
from gradscope.store.creation import refuse_path
from gradscope.store.locations.location import StorePath
from gradscope.text import check_name
from probes import GuidedStep

Cell = tuple[int, ...]
OnBlock = Callable[[Cell, int, Tensor], object]
"""Called with a cell, the block's first sample and its final samples."""
_CODECS = ("auto", "none", "lz4")


class CallRecorder:
    """Records the cells of one call of `sample`. Subclasses say what the call returns."""

    def __init__(
        self,
        cells: Cells,
        path: StorePath,
        probes: Any,
        *,
        classes: Sequence[str],
        judge: nn.Module | Spec | None,
        progress: bool | OnProgress,
        sample_dims: Sequence[str],
        options: dict[str, Any],
    ) -> None:
        self._cells, self._path, self._progress = cells, path, progress
        self._sample_dims, self._options = tuple(sample_dims), options
        self._references: dict[str, nn.Module] = {}
        self._probes = probes_of(probes, self._load_module)
        for name, guide in cells.guides.items():
            check_guide(self._probes, guide.module, name, "probes")
        self._classes = _class_names(classes) or next(iter(cells.classes.values()), ())
        check_progress(progress)
        if (codec := options["codec"]) not in _CODECS:
            raise GradscopeError(f"codec: got {codec!r}; {one_of(codec, _CODECS)}")
        if not options["resume"]:
            refuse_path(self._path, options["overwrite"])
        sampler = cells.sampler
        self._verdicts = None if judge is None else Verdicts.of(judge, sampler.image_shape, sampler.device)
        self._recorded = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def _load_module(self, spec: str | TimmClassifier | ModuleClassifier, where: str) -> nn.Module:
        """A classifier that a probe compares with, kept for its hash."""
        sampler = self._cells.sampler
        self._references[where] = load_classifier(spec, where, sampler.image_shape, sampler.device).module
        return self._references[where]

    def _record(
        self, labels: Sequence[int], num_inference_steps: int, seed: int, batch_size: int | None, on_block: OnBlock
    ) -> Sequence[int]:
        """Record the blocks that the store lacks, then judge; return the labels as integers."""
        if self._recorded:
            raise GradscopeError(
                f"{self._path} holds one call of sample, and it is recorded; give all labels to one call "
                "(labels=[...], batch_size=...), or record this one into another store: gradscope.record(sampler, "
                "ANOTHER_PATH, probes)"
            )
        labels, base = class_labels(labels), self._cells.sampler
        size = len(labels) if batch_size is None else whole_number(batch_size, "batch_size", least=1)
        grid = self._grid(labels, base.schedule(num_inference_steps), seed, size)
        attributes = self._attributes()
        guides, options = self._rehearse(grid, num_inference_steps, seed)
        options["picture_shape"] = None if base.decoder is None else base.image_shape
        if self._options["resume"]:
            attributes = resumption(self._path, attributes)
        with Recorder(self._path, grid, self._probes, device=base.device, attributes=attributes, **options) as recorder:
            finished = recorder.finished
            with showing(self._progress, grid, int(finished.sum())) as advance:
                left = [(tuple(cell), block) for *cell, block in np.argwhere(~finished).tolist()]
                for unit in units(left, recorder.schema, recorder.probes, alone=base.has_hooks):
                    images = record_unit(
                        unit, self._cells.sampler_of, recorder, num_inference_steps, seed,
                        lambda cell: partial(count, advance, cell),
                    )  # fmt: skip
                    for cell in unit.cells:
                        on_block(cell, unit.block * grid.block, images)
        if self._verdicts is not None:
            self._verdicts.add(self._path, guides)
        self._recorded = True
        return labels

    def _rehearse(
        self, grid: Grid, num_inference_steps: int, seed: int
    ) -> tuple[dict[str, Classifier], dict[str, Any]]:
        """Check the models, with a first step of each where there are several or their classes matter.

        Returns the guides that are classifiers by name, and the options for the recorder: ``codec="auto"`` is replaced
        by a codec.
        """
        cells, options, auto = self._cells, dict(self._options), self._options["codec"] == "auto"
        kept = {key: options[key] for key in ("tensor_samples", "tensor_every", "dtype")}
        make_schema(grid, self._probes, **kept)  # raises for a wrong option before a model runs
        pairs = list(product(*map(range, grid.cells[:2])))
        for i, j in pairs:
            check_attaching(self._probes, cells.sampler_of((i, j, 0, 0)).modules, "probes")
        known: dict[str, Classifier] = {}
        guides: dict[str, Classifier] = {}
        several = max(len(pairs), *(len(classifiers_in(guide.module)) for guide in cells.guides.values())) > 1
        if not several and not self._classes and self._verdicts is None and not auto:
            return guides, options
        labels = grid.label[: grid.block].tolist()
        for i, j in pairs:
            sampler = cells.sampler_of((i, j, 0, 0))
            step = rehearsed(sampler, self._probes, labels, num_inference_steps, seed)
            name = grid.classifier[i]
            found = self._classifiers_of(sampler, step)
            known |= {f"classifier {name!r}{key and f', {key}'}": classifier for key, classifier in found.items()}
            guides |= {name: found[""]} if "" in found else {}
        self._check_classes(known, grid.label)
        if auto:
            options["codec"] = choose_codec(step.gradient, options["dtype"])
        return guides, options

    def _classifiers_of(self, sampler: GuidedSampler, step: GuidedStep) -> dict[str, Classifier]:
        """The classifiers in the guide that made a step, by their key below it; those in a sum are asked about it."""
        found, names, guidance = {}, self._cells.classes, sampler.guidance
        for key, module in classifiers_in(guidance.classifier).items():
            logits = step.logits
            if logits is None:
                images = torch.zeros(1, *sampler.image_shape, device=step.x_t.device)
                with frozen(module), torch.no_grad():
                    logits = logits_of(module, images, step.timestep)
            asked = module if key else timed(module, guidance.takes_timestep)
            found[key] = Classifier(asked, logits.shape[1], names.get(module, self._classes) or None)
        return found

    def _check_classes(self, known: dict[str, Classifier], label: np.ndarray) -> None:
        """Raise GradscopeError if guides, judge, names of classes and labels do not fit each other."""
        if self._verdicts is not None and self._verdicts.judge is not None:
            known = known | {"judge": self._verdicts.judge}
        for name, classifier in known.items():
            if self._classes and len(self._classes) != classifier.num_classes:
                raise GradscopeError(
                    f"classes: must name the {classifier.num_classes} classes of {name}, got {list(self._classes)}"
                )
        check_classes(known)
        sizes = [len(self._classes)] if self._classes else [classifier.num_classes for classifier in known.values()]
        if sizes and (outside := [k for k in label.tolist() if not 0 <= k < sizes[0]]):  # an energy takes any label
            raise GradscopeError(f"labels: there are classes 0 to {sizes[0] - 1}, got {outside[0]}")

    def _grid(self, labels: Sequence[int], schedule: Schedule, seed: int, batch_size: int) -> Grid:
        cells, times = self._cells, schedule.coordinates()
        repetitions = repetitions_of(cells.sampler.guidance.method, schedule)
        return Grid(
            classifier=tuple(cells.guides),
            classifier_input=cells.classifier_inputs,
            stabilizer=tuple(cells.stabilizers),
            guidance_scale=cells.guidance_scales,
            label=np.array(labels),
            seed=sample_seeds(seed, range(len(labels))),
            sample_shape=cells.sampler.sample_shape,
            sample_dims=self._sample_dims,
            batch_size=batch_size,
            repeats=max(repetitions, default=0),
            repetitions=repetitions,
            timestep=times["timestep"],
            alphas_cumprod=times["alphas_cumprod"],
            sigma=times["sigma"],
            signal=times["signal"],
            noise=times["noise"],
        )

    def _attributes(self) -> dict[str, Any]:
        sampler, guidance = self._cells.sampler, self._cells.sampler.guidance
        settings = {
            "objective": guidance.objective,
            "normalize": guidance.normalize,
            "weight": guidance.weight,
            "interval": guidance.interval,
            "smoothgrad": None if guidance.smoothgrad is None else asdict(guidance.smoothgrad),
            "takes_timestep": guidance.takes_timestep,
            "timestep_at_x0": guidance.timestep_at_x0,
            "method": repr(guidance.method),
            "eta": sampler.eta,
            "use_clipped_model_output": sampler.use_clipped_model_output,
            "condition": asdict(sampler.condition),
            "autocast": None if sampler.autocast is None else str(sampler.autocast).removeprefix("torch."),
        }
        stabilizers = {name: repr(stabilizer) for name, stabilizer in self._cells.stabilizers.items()}
        if len(stabilizers) == 1:
            settings["stabilizer"] = next(iter(stabilizers.values()))
        else:
            settings["stabilizers"] = stabilizers
        guides = {f"classifiers.{name}": guide.module for name, guide in self._cells.guides.items()}
        decoder = {} if sampler.decoder is None else {"decoder": sampler.decoder}
        models = {"denoiser": sampler.unet} | decoder | guides | self._references
        return provenance(settings, sampler.scheduler, models, self._classes, sampler.device)


def _class_names(classes: Any) -> tuple[str, ...]:
    """The names of classes, checked."""
    if isinstance(classes, str) or not isinstance(classes, Iterable):
        raise GradscopeError(f"classes: takes a list of names, got {classes!r:.80}")
    names = tuple(check_name(name, "classes") for name in classes)
    if len(set(names)) < len(names):
        raise GradscopeError(f"classes: names a class twice: {list(names)}")
    return names
