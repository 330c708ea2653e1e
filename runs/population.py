"""A population of guides: train them, record them, and predict which of them fail.

python runs/population.py train [--kinds KIND ...]     every guide that is missing, one after the other
python runs/population.py record [--kinds KIND ...]    a guided run and a control of every guide that is there
python runs/population.py collect                      one row per guide and input, from these stores into the table
python runs/population.py table                        accuracy per kind and input, with intervals over guides
python runs/population.py predict                      a rule that says from the controls which guide fails

--models FOLDER (default runs/models/population) holds the cards, --stores FOLDER (default its folder stores) the runs,
and --table FILE (default runs/results/population.csv) the rows, from which `table` and `predict` take everything. What
exists is not made again, and what was interrupted is continued. `collect` leaves the rows of guides that are not there
as they are. --rule FILE is where `predict` writes the rule; `gradscope audit` reads gradscope/auditing/rule.yaml.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from ruamel.yaml import YAML

from gradscope import open as open_store
from gradscope.analysis.logistic import auc, chosen, fit_logistic, grouped_interval, leave_one_out
from gradscope.auditing.prediction import FEATURES, VARIABLES, Rule, features, gap_closed
from gradscope.intervals import over_groups, wilson
from gradscope.models import cards

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
    """Name and specification of every guide that is there: the zoo's own, then the first of each kind, and so on."""
    for name, spec in ZOO.items():
        if kind_of(name) in kinds:
            yield name, spec
    for seed in range(max(kind.guides for kind in KINDS.values())):
        for kind in kinds:
            path = models / f"{kind}_{seed}.yaml"
            if path.exists() and not Path(f"{path.with_suffix('')}.checkpoint.pt").exists():
                yield path.stem, str(path)


def kind_of(name: str) -> str:
    """The kind of a guide, from its name KIND_SEED."""
    return name.rpartition("_")[0]


def record(models: Path, stores: Path, kinds: Sequence[str]) -> None:
    """Record a control (NAME.control.zarr) and a guided run (NAME.zarr) of every guide that is there.

    The judge's accuracy without guidance needs as many samples as that with it; they are the same for every guide, so
    one run has them (unguided.zarr).
    """
    unguided = "guidance.guidance_scale=[0]"
    _record(stores / "unguided.zarr", unguided, "guidance.classifier_input=[x_t]")
    for name, spec in guides(models, kinds):
        alone = f"classifiers={{{name}: '{spec}'}}"
        _record(stores / f"{name}.control.zarr", alone, unguided, f"sampling.samples={CONTROL}")
        _record(stores / f"{name}.zarr", alone)


def _record(path: Path, *settings: str) -> None:
    if not path.exists():
        further = [word for setting in settings for word in ("--set", setting)]
        gradscope("record", "--config", HERE / "population.yaml", "--store", path, *further)
    elif not is_complete(path):
        gradscope("record", "--resume", path)


def is_complete(store: Path) -> bool:
    """Whether a run ended and its samples are judged."""
    attributes = open_store(store).attrs
    return attributes.get("status") == "complete" and "evaluation" in attributes


def collect(models: Path, stores: Path, table: Path) -> pd.DataFrame:
    """One row per guide and input: how it guides, and the features of its control.

    Guides whose models or stores are not there keep the rows that the table has.
    """
    control = open_store(stores / "unguided.zarr")
    unguided = float(control["judge_accuracy"].squeeze())
    rows = []
    for name, spec in guides(models, [*KINDS, "calibrated"]):
        paths = [stores / f"{name}.zarr", stores / f"{name}.control.zarr"]
        if not all(path.exists() and is_complete(path) for path in paths):
            print(f"{name}: not recorded yet", file=sys.stderr)
            continue
        guided, alone = (open_store(path).isel(classifier=0, stabilizer=0, guidance_scale=0) for path in paths)
        metrics = cards.read(cards.resolve(spec, name)).metrics
        for kind in guided["classifier_input"].values:
            n, accuracy = guided.sizes["sample"], float(guided["judge_accuracy"].sel(classifier_input=kind))
            found = features(alone[list(VARIABLES)].sel(classifier_input=kind).load())
            rows.append(
                {"guide": name, "input": kind, "samples": n, "judged": round(accuracy * n)}
                | {"unguided": unguided, "fails": gap_closed(accuracy, unguided) < 0.5}
                | {key: metrics[key].value for key in ("accuracy_clean", "accuracy_x_t")}
                | {key: round(value, 4) for key, value in found.items()}
            )
    found = pd.DataFrame(rows)
    if table.exists():
        kept = pd.read_csv(table)
        found = pd.concat([kept[~kept["guide"].isin([row["guide"] for row in rows])], found])
    return found.sort_values("guide", key=lambda names: names.map(_place), kind="stable", ignore_index=True)


def _place(name: str) -> tuple[int, int]:
    """Place of a guide in the table: the zoo's own, then the first of each kind, and so on."""
    seed = name.rpartition("_")[2]
    return (-1, list(ZOO).index(name)) if name in ZOO else (int(seed), [*KINDS, "calibrated"].index(kind_of(name)))


def accuracies(rows: pd.DataFrame) -> str:
    """The judge's accuracy per kind and input, with intervals over guides and over samples alone, as Markdown."""
    unguided, n = rows["unguided"].iloc[0], rows["samples"].iloc[0]
    lines = [
        f"Unguided: {unguided:.3f}; a guide fails below {(1 + unguided) / 2:.3f}. N = {n} for each guide and input.",
        "",
        "| kind | input | guides | judge, 95 % over guides | over samples alone | lowest, highest | fail |",
        "|" + " --- |" * 7,
    ]
    kinds = rows["guide"].map(kind_of)
    for (kind, where), some in rows.groupby([kinds, "input"], sort=False):
        mean, low, high = over_groups(some["judged"], some["samples"])
        alone, beside = wilson(some["judged"].sum(), some["samples"].sum())
        share = some["judged"] / some["samples"]
        lines.append(
            f"| {kind} | {where} | {len(some)} | {mean:.3f} [{low:.3f}, {high:.3f}] | [{alone:.3f}, {beside:.3f}] | "
            f"{share.min():.3f}, {share.max():.3f} | {some['fails'].sum()} |"
        )
    return "\n".join(lines)


def assess(rows: pd.DataFrame) -> tuple[Rule, str]:
    """The rule, fitted on half of the guides; and how it does on the others, beside simpler scores, as Markdown."""
    x, fails = rows[list(FEATURES)].to_numpy(float), rows["fails"].to_numpy(bool)
    guide = rows["guide"].to_numpy(str)
    kind = np.array([kind_of(name) for name in guide])
    fitted = np.array([name[-1] in "024" for name in guide])
    columns = chosen(x[fitted], fails[fitted], kind[fitted])
    rule = fit_logistic(x[fitted][:, columns], fails[fitted])
    names = [list(FEATURES)[k] for k in columns]
    probability = rule(x[:, columns])
    scores = {
        f"the rule: {', '.join(names)}": (probability, ~fitted),
        "its features, one kind left out at a time": (leave_one_out(x[:, columns], fails, kind), fitted | ~fitted),
        "gradient cosine alone": (-rows["gradient_cosine"].to_numpy(float), ~fitted),
        "accuracy on clean images alone": (-rows["accuracy_clean"].to_numpy(float), ~fitted),
        "accuracy on x_t alone": (-rows["accuracy_x_t"].to_numpy(float), ~fitted),
        "the input alone: x_t fails": ((rows["input"] == "x_t").to_numpy(float), ~fitted),
    }
    areas, lines = [], ["| score | AUC, 95 % over kinds and guides | guides | cells | fail |", "|" + " --- |" * 5]
    for label, (score, where) in scores.items():
        area = auc(score[where], fails[where])
        low, high = grouped_interval(score[where], fails[where], [kind[where], guide[where]])
        areas.append((area, low, high))
        counts = f"{len(set(guide[where]))} | {where.sum()} | {fails[where].sum()}"
        lines.append(f"| {label} | {area:.3f} [{low:.3f}, {high:.3f}] | {counts} |")
    right = ((probability > 0.5) == fails)[~fitted]
    low, high = wilson(right.sum(), len(right))
    lines += [
        "",
        f"At probability 0.5 the rule is right for {right.sum()} of {len(right)} cells [{low:.3f}, {high:.3f}].",
    ]
    found = Rule(
        features={name: round(weight, 4) for name, weight in zip(names, rule.weights, strict=True)},
        intercept=round(rule.intercept, 4),
        guides=len(set(guide[fitted])),
        tested=len(set(guide[~fitted])),
        auc=round(areas[0][0], 3),
        auc_interval=[round(bound, 3) for bound in areas[0][1:]],
        about="SportBalls of 32 px: l2-normalised guidance of scale 0.5, 30 DDPM steps, 32 unguided samples",
    )
    return found, "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["train", "record", "collect", "table", "predict"])
    parser.add_argument("--models", type=Path, default=HERE / "models" / "population")
    parser.add_argument("--stores", type=Path)
    parser.add_argument("--table", type=Path, default=HERE / "results" / "population.csv")
    parser.add_argument("--rule", type=Path)
    parser.add_argument("--kinds", nargs="+", choices=[*KINDS, "calibrated"], default=[*KINDS, "calibrated"])
    given = parser.parse_args(arguments)
    stores = given.stores or given.models / "stores"
    match given.command:
        case "train":
            train(given.models, given.kinds)
        case "record":
            record(given.models, stores, given.kinds)
        case "collect":
            given.table.parent.mkdir(exist_ok=True)
            collect(given.models, stores, given.table).to_csv(given.table, index=False)
        case "table":
            print(accuracies(pd.read_csv(given.table)))
        case "predict":
            rule, text = assess(pd.read_csv(given.table))
            print(text)
            if given.rule is not None:
                YAML().dump(rule.model_dump(), given.rule)


if __name__ == "__main__":
    main()
