"""Configurations with a comment for each key, and the keys that documentation lists."""

import copy
import re
from typing import get_args

import pytest
from ruamel.yaml import YAML

from gradscope.config import Strict, check, load, presets
from gradscope.config.commented import MODELS, commented, commented_preset
from gradscope.config.reference import keys, section
from gradscope.config.run import SchedulerName
from gradscope.errors import GradscopeError

PRESETS = [name.removesuffix(".yaml") for name in presets()]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_comes_back_as_the_same_configuration(tmp_path, preset):
    text, command = commented_preset(preset)
    (tmp_path / "mine.yaml").write_text(text)
    model = MODELS[command]
    assert load(model, str(tmp_path / "mine.yaml")) == load(model, f"{preset}.yaml")
    assert max(map(len, text.splitlines())) <= 122  # the widest comment of a preset's own


def written_keys(model: type[Strict], content: dict, path: str = ""):
    """Keys of a file that a model describes, with their path."""
    for name, key in section(model, path).items():
        yield key, content[name]
        annotation = model.model_fields[name].annotation
        kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
        for kind in kinds:
            if issubclass(kind, Strict) and isinstance(content[name], dict):
                yield from written_keys(kind, content[name], key.path)


@pytest.mark.parametrize("preset", ["quickstart", "fashion", "audit", "oracle", "train/ddpm32", "train/robust32"])
def test_every_key_is_written_below_its_description(preset):
    """Also those that the preset leaves at their default."""
    text, command = commented_preset(preset)
    lines = text.splitlines()
    content = YAML(typ="safe", pure=True).load(text)
    found = list(written_keys(MODELS[command], content))
    assert {key.path for key, _ in found} >= {key.path for key in keys(MODELS[command]) if "." not in key.path}
    row = 0
    for key, _ in found:
        name, depth = key.path.rpartition(".")[2], key.path.count(".")
        row = next(i for i in range(row, len(lines)) if re.match(f"{'  ' * depth}{name}:", lines[i]))
        above = []
        for line in reversed(lines[:row]):
            if not line.startswith(f"{'  ' * depth}# "):
                break
            above.insert(0, line.strip().removeprefix("# "))
        comment = " ".join(above)
        assert comment == f"{key.description} ({key.possible})".removesuffix(" ()")


def test_every_key_has_a_plain_description():
    listed = [key for model in MODELS.values() for key in keys(model)]
    assert len(listed) > 80
    for key in listed:
        assert re.fullmatch(r"\S.{5,250}[.]", key.description), key.path
        assert "  " not in key.description
        assert key.path.rpartition(".")[2] != key.description.lower().rstrip(".")


SCHEDULERS = get_args(SchedulerName)
POSSIBLE = {
    "sampling.seed": "whole number >= 0; default: 0",
    "sampling.samples": "whole number >= 1, <= 10000000; default: 64",
    "sampling.scheduler": f"{', '.join(SCHEDULERS[:-1])} or {SCHEDULERS[-1]} or mapping; default: ddpm",
    "sampling.labels": "cycle or list of whole numbers; default: cycle",
    "guidance.guidance_scale": "list of numbers; required",
    "guidance.interval": "list of 2: numbers or null; default: null",
    "guidance.classifier_input": "list of x_t, x0 or x0_detached; default: [x_t]",
    "guidance.smoothgrad": "mapping or null; default: null",
    "guidance.smoothgrad.std": "number >= 0; required",
    "execution.tolerance": "number > 0; default: 0.05",
    "execution.compile": "true or false; default: false",
    "stabilizers": "mapping of NAME to mapping; default: {none: {}}",
    "recording.path": "text; required",
    "judge": "text or mapping; default: none",
    "evaluation.data.channels": "1 or 3; default: 3",
    "classifiers.NAME.std": "list of numbers > 0 or null; default: null",
    "guidance": "",
}


def test_values_and_defaults():
    found = {key.path: key.possible for key in keys(MODELS["record"])}
    assert {path: found[path] for path in POSSIBLE} == POSSIBLE


SMALLEST = {
    "denoiser": "a",
    "classifiers": {"b": "c"},
    "guidance": {"guidance_scale": [1]},
    "recording": {"path": "d"},
}


def is_refused(path: str, value: object) -> bool:
    """Whether an error names this key, in a configuration that may lack others."""
    *parents, last = path.split(".")
    content = copy.deepcopy(SMALLEST)
    inner = content
    for parent in parents:
        inner = inner.setdefault(parent, {})
    inner[last] = value
    try:
        check(MODELS["record"], content, "it")
    except GradscopeError as error:
        return re.search(rf"(: |; ){re.escape(path)}(\.\d+)?: (?!this key is missing)", str(error)) is not None
    return False


def test_defaults_are_possible_and_limits_hold():
    """What a comment says is tried: the default, and numbers at, within and beyond each limit."""
    tried = 0
    for key in keys(MODELS["record"]):
        if "NAME" in key.path or not key.values:
            continue
        if key.default is not None:
            assert not is_refused(key.path, YAML(typ="safe", pure=True).load(key.default)), key
        if not re.match("(whole )?number", key.values):
            continue
        for sign, limit in re.findall(r"(>=|>|<=|<) ([\d.]+)", key.values):
            at, step = float(limit), 1 if sign[0] == ">" else -1
            for number, refused in ((at, len(sign) == 1), (at + step, False), (at - step, True)):
                value = int(number) if "whole" in key.values else number
                assert is_refused(key.path, value) == refused, (key, value)
                tried += 1
    assert tried > 40


def test_nothing_of_a_configuration_is_lost():
    odd = SMALLEST | {
        "classifiers": {"mine": {"timm": "resnet18", "num_classes": 4, "std": [0.5], "options": {"a": [{"b": None}]}}},
        "stabilizers": {"none": {}, "of mine: 1": {"method": "adam", "eps": 1e-20, "betas": [0.9, 0.99]}},
        "probes": ["norms", {"snr": {"draws": 8}}],
        "evaluation": {"extractor": {"inception": "weights.pth"}, "data": {"name": "image_folder", "path": "yes"}},
        "guidance": {"guidance_scale": [-1e-9, 1e30], "interval": [1, 2], "smoothgrad": {"samples": 4, "std": 0.25}},
    }
    config = check(MODELS["record"], odd, "odd")
    assert check(MODELS["record"], YAML(typ="safe", pure=True).load(commented(config)), "again") == config
