"""A population of guides: train them, record them, and tabulate how they guide.

python runs/population.py train [--kinds KIND ...]     every guide that is missing, one after the other
python runs/population.py record [--kinds KIND ...]    a guided run and a control of every guide that is there
python runs/population.py table                        one row per kind and input, with intervals over guides
python runs/population.py predict                      which guide fails, from the controls alone

--models FOLDER (default runs/models/population) holds the cards, and --stores FOLDER (default: FOLDER/stores of the
models) the runs. Whatever exists is skipped, and what was interrupted is continued.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gradscope import open as open_store

HERE = Path(__file__).parent
ZOO = {"noisy_zoo": "zoo:sportballs32/robust", "clean_zoo": "zoo:sportballs32/non_robust"}
CALIBRATE = (0, 100)
"""Timesteps of the temperature: below 50 the clean guides are always right, above 200 hardly better than chance."""
CONTROL = 32
"""Samples of a control; its diagnostics are averaged over samples and timesteps."""


class Kind(NamedTuple):
    """Guides that differ by their seeds alone."""

    guides: int
    seed: int
    """Seed of the first guide's training; the data's is 100 for the first guide of every kind."""


KINDS = {
    "clean": Kind(6, 100),
    "noisy": Kind(6, 200),
    "weak": Kind(2, 800),
    "resnet": Kind(2, 300),
    "timed": Kind(2, 600),
    "resnet_noisy": Kind(2, 700),
    "pgd": Kind(2, 500),
    "vit": Kind(2, 400),
}
"""The kinds that are trained, in this order, by ``runs/train/population/KIND.yaml``."""


def gradscope(*arguments: object) -> None:
    """Run a command in a process of its own; its failure ends this one."""
    command = [sys.executable, "-m", "gradscope", *map(str, arguments)]
    print(" ".join(command[2:]), flush=True)
    if status := subprocess.run(command, check=False).returncode:
        sys.exit(status)


def train(models: Path, kinds: Sequence[str]) -> None:
    """Train every guide that has no card yet; then calibrate the first two clean ones."""
    for kind, (guides, seed) in KINDS.items():
        for i in range(guides if kind in kinds else 0):
            output = models / f"{kind}_{i}"
            if not output.with_suffix(".yaml").exists() or Path(f"{output}.checkpoint.pt").exists():
                seeds = (f"data.seed={100 + i}", f"training.seed={seed + i}", f"output={output}")
                further = [word for setting in seeds for word in ("--set", setting)]
                config = HERE / "train" / "population" / f"{kind}.yaml"
                gradscope("train", "classifier", "--config", config, *further)
    for i in range(2 if "calibrated" in kinds else 0):
        card, output = models / f"clean_{i}.yaml", models / f"calibrated_{i}.yaml"
        if not output.exists():
            further = ("--output", output, "--timesteps", *CALIBRATE)
            gradscope("train", "temperature", "--card", card, *further)


def guides(models: Path, kinds: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Name and specification of every guide that is there, with the zoo's own."""
    for name, spec in ZOO.items():
        if kind_of(name) in kinds:
            yield name, spec
    for kind in (*KINDS, "calibrated"):
        for path in sorted(models.glob(f"{kind}_?.yaml")):
            if kind in kinds and not Path(f"{path.with_suffix('')}.checkpoint.pt").exists():
                yield path.stem, str(path)


def kind_of(name: str) -> str:
    """The kind of a guide, from its name KIND_SEED."""
    return name.rpartition("_")[0]


def record(models: Path, stores: Path, kinds: Sequence[str]) -> None:
    """Record a control (NAME.control.zarr) and a guided run (NAME.zarr) of every guide that is there."""
    for name, spec in guides(models, kinds):
        alone = f"classifiers={{{name}: '{spec}'}}"
        for path, settings in {
            stores / f"{name}.control.zarr": (alone, "guidance.guidance_scale=[0]", f"sampling.samples={CONTROL}"),
            stores / f"{name}.zarr": (alone,),
        }.items():
            if not path.exists():
                further = [word for setting in settings for word in ("--set", setting)]
                gradscope("record", "--config", HERE / "population.yaml", "--store", path, *further)
            elif not is_complete(path):
                gradscope("record", "--resume", path)


def is_complete(store: Path) -> bool:
    """Whether a run ended and its samples are judged."""
    attributes = open_store(store).attrs
    return attributes.get("status") == "complete" and "evaluation" in attributes


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["train", "record"])
    parser.add_argument("--models", type=Path, default=HERE / "models" / "population")
    parser.add_argument("--stores", type=Path)
    parser.add_argument("--kinds", nargs="+", choices=[*KINDS, "calibrated"], default=[*KINDS, "calibrated"])
    chosen = parser.parse_args(arguments)
    stores = chosen.stores or chosen.models / "stores"
    match chosen.command:
        case "train":
            train(chosen.models, chosen.kinds)
        case "record":
            record(chosen.models, stores, chosen.kinds)


if __name__ == "__main__":
    main()
