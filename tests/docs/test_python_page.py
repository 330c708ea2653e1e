"""The page that pairs the keys of a configuration with Python: every key and every argument is there."""

import re
from inspect import signature

import pytest
from documentation import ROOT

import gradscope
from gradscope.cli import record_workflow
from gradscope.config import (
    DataConfig,
    EnergyGuide,
    MeasurementGuide,
    ModuleClassifier,
    RunConfig,
    SumGuide,
    TimmClassifier,
)
from gradscope.config.reference import keys
from gradscope.recording.from_python import GridRecorder, SamplerRecorder

PAGE = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
CALLS = {
    "ClassifierGuidance": gradscope.ClassifierGuidance,
    "Energy": gradscope.Energy,
    "Measurement": gradscope.Measurement,
    "WeightedSum": gradscope.WeightedSum,
    "GuidedSampler": gradscope.GuidedSampler,
    "record": gradscope.record,
    "sample": SamplerRecorder.sample,
    "evaluate": gradscope.evaluate,
}
SECTIONS = (TimmClassifier, ModuleClassifier, EnergyGuide, MeasurementGuide, SumGuide, DataConfig)
"""Sections that several keys have; each has a table of its own."""


@pytest.mark.slow
def test_both_forms_of_the_page_record_the_same_arrays(tmp_path, monkeypatch):
    """On the shipped models; the command comes last, as it flushes denormals."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(re.findall(r"```yaml\n(.*?)```", PAGE, re.S)[0], encoding="utf-8")
    exec(re.findall(r"```python\n(.*?)```", PAGE, re.S)[0], {})
    ours = gradscope.open("run.zarr").load()
    record_workflow.run(record_workflow.Request("run.yaml", None, "command.zarr", [], "cpu", False, False, None, None))
    theirs = gradscope.open("command.zarr").load()
    assert set(ours.variables) == set(theirs.variables)
    for name in ours.variables:
        a, b = ours[name].values, theirs[name].values
        assert a.tolist() == b.tolist() if a.dtype == object else a.tobytes() == b.tobytes(), name
    assert ours["judge_accuracy"].shape == (2, 2, 2, 2)
    assert ours.attrs["classes"] == theirs.attrs["classes"]
    assert ours.attrs["weights_sha256"] == theirs.attrs["weights_sha256"]


def tables() -> list[dict[str, str]]:
    """The rows of every table: the name in the first column, without backticks, and the text in the second."""
    found: list[dict[str, str]] = []
    for line in PAGE.splitlines():
        if line.startswith("| ---"):
            found.append({})
        elif (row := re.fullmatch(r"\| `([^`|]+)` \| (.+) \|", line)) is not None:
            found[-1][row[1]] = row[2]
    return found


def named(text: str) -> set[str]:
    """What stands in backticks."""
    return set(re.findall(r"`([^`]+)`", text))


def arguments(call) -> list[str]:
    return [name for name in signature(call).parameters if name != "self"]


def test_every_key_has_its_row():
    run, *shared, _ = tables()
    assert list(run) == [key.path for key in keys(RunConfig, apart=SECTIONS)]
    assert [list(table) for table in shared] == [
        [key.path for key in keys(model, apart=SECTIONS)] for model in SECTIONS
    ]


def test_every_argument_has_its_row():
    *_, ours = tables()
    assert list(ours) == [f"{call}.{name}" for call, function in CALLS.items() for name in arguments(function)]
    assert arguments(GridRecorder.sample) == arguments(SamplerRecorder.sample)


def test_both_directions_agree():
    """An argument that a key's row names has that key in its own row, and what has no equivalent says why."""
    run, *_, ours = tables()
    for key, text in run.items():
        for call, argument in re.findall(r"`(?:gradscope\.)?(\w+)\((\w+)=[^`]*`", text):
            if call in CALLS:
                back = named(ours[f"{call}.{argument}"])
                assert any(key == name or key.startswith(f"{name}.") for name in back), key
    for text in (*run.values(), *ours.values()):
        assert not text.startswith("none") or len(text.removeprefix("none: ")) > 20


def test_the_keys_that_arguments_name_exist():
    *_, ours = tables()
    known = {key.path for key in keys(RunConfig)}
    for text in ours.values():
        for name in named(text):
            assert name in known or name.startswith("--") or " " in name or ":" in name, name
