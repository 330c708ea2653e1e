"""Configurations that nobody would write: a checked one, or an error that can be mended; never another exception."""

import copy
import json
import math
import re
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from typer.testing import CliRunner

from gradscope.cli import app
from gradscope.config import AuditConfig, RunConfig, TrainClassifierConfig, TrainDenoiserConfig, check, load
from gradscope.errors import GradscopeError
from gradscope.recording.prepare import prepare
from gradscope.recording.run import record_run
from gradscope.store import open_store

COMMON = {"derandomize": True, "deadline": None, "suppress_health_check": list(HealthCheck), "database": None}
RUNS = Path(__file__).parents[2] / "runs"
PRESETS = sorted([*RUNS.glob("*.yaml"), *RUNS.glob("train/**/*.yaml")])


def model_of(content):
    if "recording" in content:
        return RunConfig
    if "unet" in content:
        return TrainDenoiserConfig
    return TrainClassifierConfig if "timm" in content else AuditConfig


CONTENTS = [YAML(typ="safe", pure=True).load(path.read_text()) for path in PRESETS]
VALUES = st.one_of(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    st.sampled_from([10**400, -(10**30), 2**63, 5e-324, 1e308, math.nan, math.inf, -math.inf, -0.0]),
    st.sampled_from(["", " ", "\u202e", "\ud800", "a" * 20_000, "x\x00y", "\x1b[31m", "cycle", "x0", "../..", b"ab"]),
    st.sampled_from(
        [[], {}, [[]], {"": {}}, {1: 2}, {None: 1}, [math.nan], {1.5}, (1, 2), json.loads("[" * 90 + "]" * 90)]
    ),
)


def places(value, at=()):
    if at:
        yield at
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield from places(inner, (*at, key))


def changed(data, content):
    """A configuration with one to three values changed, removed or added."""
    content = copy.deepcopy(content)
    for _ in range(data.draw(st.integers(1, 3))):
        *path, last = data.draw(st.sampled_from(list(places(content)) or [("denoiser",)]))
        inner = content
        for key in path:
            inner = inner[key]
        how = data.draw(st.sampled_from(["change", "change", "remove", "add"]))
        if how == "remove" and (isinstance(inner, list) or last in inner):
            del inner[last]
        elif how == "add" and isinstance(inner, dict):
            inner[data.draw(st.sampled_from(["", "none", "x/y", "samples", 1, None]))] = copy.deepcopy(
                data.draw(VALUES)
            )
        else:
            inner[last] = copy.deepcopy(data.draw(VALUES))
    return content


@pytest.mark.slow
@settings(max_examples=2000, **COMMON)
@given(content=st.sampled_from(CONTENTS), data=st.data())
def test_a_changed_preset_is_refused_or_comes_back_from_json_the_same(content, data):
    model, content = model_of(content), changed(data, content)
    try:
        config = check(model, content, "mine.yaml")
    except GradscopeError:
        return
    again = check(model, json.loads(config.model_dump_json()), "mine.yaml")
    assert again == config
    if model is RunConfig:
        assert again == config


ODD = [
    *("!!python/object/apply:os.system ['touch pwned']", "&a [*a]", "&a {x: *a}", "*nope", "<<: 3", "2020-99-99"),
    *('!!binary "x"', "!!set {a, b}", "!!omap [a: 1]", "!!pairs [a: 1]", "0o99", "0x", "\x00", "%YAML 1.1", "---"),
    *("? [a]", "yes", "~", ".nan", "!!float abc", "!!int abc", "!!timestamp x", "!local {a: 1}", '"\\ud800"', "|"),
    *("{a: 1, a: 2}", "!!map []", "12:30:45", "{? {a: b} : c}", "[[[[[[[[", "{{{{{{{{", "=", "@", "`", "\u2028", '"'),
]


@pytest.mark.slow
@settings(max_examples=150, **COMMON)
@given(path=st.sampled_from(PRESETS), data=st.data())
def test_a_damaged_file_is_refused_or_read(path, data, tmp_path_factory):
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        first = data.draw(st.integers(0, len(content)))
        put = data.draw(st.sampled_from(ODD).map(lambda text: text.encode("utf-8", "replace")) | st.binary(max_size=4))
        content[first : first + data.draw(st.sampled_from([0, 0, 1, 10]))] = put
    file = tmp_path_factory.getbasetemp() / "damaged.yaml"
    file.write_bytes(content)
    override = data.draw(st.sampled_from(["a", "=", "a=", "..=1", "guidance=3", "x=[", "sampling..samples=2"]))
    model = model_of(YAML(typ="safe", pure=True).load(path.read_text()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ruamel's, about anchors
        try:
            assert isinstance(load(model, str(file), data.draw(st.sampled_from([[], [override]]))), model)
        except GradscopeError:
            pass


@settings(max_examples=300, **COMMON)
@given(override=st.text(max_size=40) | st.text(max_size=10).map(lambda text: f"sampling.samples={text}"))
def test_any_override_is_refused_or_taken(override, tmp_path_factory):
    file = tmp_path_factory.getbasetemp() / "least.yaml"
    file.write_text("{denoiser: a, classifiers: {b: c}, guidance: {guidance_scale: [1]}, recording: {path: d}}")
    try:
        assert isinstance(load(RunConfig, str(file), [override]), RunConfig)
    except GradscopeError:
        pass


REPEATED = "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [{f'*a{i - 1},' * 10}]\n" for i in range(1, 15))
STRANGE = [
    ("stabilizers: {adam: {x: &a [*a]}}", "stabilizers.adam.x.0: nested too deeply"),
    (f"probes: {'[' * 21}1{']' * 21}", r"is not valid YAML: maximum depth .* probes: \[\["),
    ("[" * 2000, "is not valid YAML: maximum depth"),
    (REPEATED, r"is not valid YAML: its aliases repeat more than 100000 values, the last one is \*a4"),
    ("denoiser: 2020-01-01", r"denoiser: must be text, got datetime.date\(2020, 1, 1\)"),
    ("stabilizers: {adam: {x: 2020-01-01}}", r"stabilizers.adam.x: must be text, a number, .* got datetime.date"),
    ("stabilizers: {adam: {x: [1, !!set {a, b}]}}", r"stabilizers.adam.x.1: must be text, a number, .* got {"),
    ("judge: !!binary aGk=", "judge: must be a name .* got b'hi'"),
    ("stabilizers: {adam: {x: .nan}}", "stabilizers.adam.x: must be a finite number, got nan"),
    ("execution: {tolerance: .inf}", "execution.tolerance: must be a finite number, got inf"),
    ("1: 2", "1: a key must be text, got 1"),
    ("stabilizers: {adam: {1: 2}}", "stabilizers.adam.1: a key must be text, got 1"),
    ('denoiser: "\\u001b[31m"', r"denoiser: must have no control characters, got '\\x1b\[31m'"),
    ('stabilizers: {adam: {x: "\\u0085"}}', r"stabilizers.adam.x: must have no control characters, got '\\x85'"),
    ('"\\u001b[31m": 2', r"'\\x1b\[31m': unknown key"),
    ('denoiser: "\\ud800"', r"denoiser: must be text, got '\\ud800'"),
    (f"denoiser: {'a' * 10_001}", "denoiser: string must have at most 10000 characters, got 'a"),
    ("sampling: {seed: 1" + "0" * 30 + "}", "sampling.seed: must be less than 9223372036854775808, got 1000"),
    ("recording: {tensor_every: 1" + "0" * 400 + "}", "recording.tensor_every: must be less than 9223372036854775808"),
    ("stabilizers: {adam: {x: 1" + "0" * 30 + "}}", "stabilizers.adam.x: must be less than 9223372036854775808"),
    ("denoiser: 1" + "0" * 5000, "is not valid YAML: Exceeds the limit .* digits"),
    ("# " + "x" * 2**20, "has more than 1048576 bytes"),
    ("a: !!python/object/apply:os.system ['touch pwned']", "is not valid YAML: could not determine a constructor"),
]


@pytest.mark.parametrize(("text", "message"), STRANGE, ids=lambda text: text[:40])
def test_what_yaml_has_and_a_configuration_has_not_is_refused_by_key(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(GradscopeError, match=message):
        load(RunConfig, "mine.yaml")
    assert not (tmp_path / "pwned").exists()


def test_aliases_and_merged_keys_are_read(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "denoiser: &name a.b:c\nclassifiers: {one: *name}\nguidance: {guidance_scale: &scales [0, 1]}\n"
        "stabilizers: {adam: &adam {eps: 1e-8}, other: {<<: *adam, method: adam}}\nrecording: {path: a.zarr}\n"
    )
    config = load(RunConfig, str(tmp_path / "mine.yaml"))
    assert config.classifiers == {"one": "a.b:c"}
    assert config.stabilizers["other"] == {"eps": 1e-8, "method": "adam"}


MODELS = """
from diffusers import DDPMScheduler
from small_models import LinearClassifier, ZeroUNet
import torch


def denoiser():
    return ZeroUNet(), DDPMScheduler()


def robust():
    torch.manual_seed(0)
    return LinearClassifier()


def broken():
    raise KeyError("no such weights")
"""
RUN = {
    "denoiser": "property_models:denoiser",
    "classifiers": {"robust": "property_models:robust"},
    "guidance": {"classifier_input": ["x_t", "x0"], "guidance_scale": [0, 0.5], "interval": [0, 900]},
    "stabilizers": {"none": {}, "adam": {"betas": [0.9, 0.99]}, "mine": {"method": "ema", "beta": 0.9}},
    "sampling": {"num_inference_steps": 3, "samples": 3, "batch_size": 2, "labels": [0, 1], "seed": 0},
    "probes": ["gradient", "norms", {"snr": {"draws": 2}}, {"layers": {"names": ["classifier.linear"]}}],
    "recording": {"path": "a.zarr", "tensor_samples": 2, "tensor_every": 1},
}
SETTINGS = st.one_of(
    st.sampled_from([None, True, 0, -1, 1, 2, 3, 1000, 1001, 10**7, 10**12, 2**62, 1e308, 5e-324, 0.5, -0.5]),
    st.sampled_from(["", ".", "..", "/", "/dev/null", "~", "a/b", "x" * 5000, "[/red]", "é", "none", "ddim", "adam"]),
    st.sampled_from(
        ["property_models:broken", "property_models:nope", "nope:x", "os.path:join", "probes:Norm", "zoo:a/b"]
    ),
    st.sampled_from([[], {}, [0], [1, 2], [5, 1], [1e308], {"a": {}}, {"method": ["adam"]}, {"method": "lion"}]),
    st.sampled_from(
        [{"timm": "nope", "num_classes": 4}, {"snr": {"draws": 10**12}}, {"layers": {"names": [""]}}, "variance"]
    ),
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "property_models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def contents_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


@pytest.mark.slow
@settings(max_examples=400, **COMMON)
@given(data=st.data())
def test_a_run_is_refused_before_anything_is_written_or_fits_its_grid(here, data):
    content = copy.deepcopy(RUN)
    for _ in range(data.draw(st.integers(1, 2))):
        *path, last = data.draw(st.sampled_from(list(places(content))))
        inner = content
        for key in path:
            inner = inner[key]
        inner[last] = copy.deepcopy(data.draw(SETTINGS))
    before = contents_of(here)
    try:
        run = prepare(check(RunConfig, content, "mine.yaml"), "cpu")
    except GradscopeError:
        pass
    else:
        config, schema = run.config, run.schema
        assert schema.shape(schema.arrays[-1])[:5] == (
            len(config.classifiers),
            len(config.guidance.classifier_input),
            len(config.stabilizers),
            len(config.guidance.guidance_scale),
            config.sampling.samples,
        )
        assert schema.grid.timesteps == config.sampling.num_inference_steps
    assert contents_of(here) == before


@pytest.mark.slow
@settings(max_examples=6, **COMMON)
@given(
    samples=st.integers(1, 4),
    batch_size=st.integers(1, 5),
    steps=st.integers(1, 4),
    kept=st.integers(0, 5),
    every=st.integers(1, 5),
    dtype=st.sampled_from(["float32", "float16"]),
)
def test_what_is_recorded_is_what_the_sampler_gives(here, samples, batch_size, steps, kept, every, dtype):
    sampling = {"num_inference_steps": steps, "samples": samples, "batch_size": batch_size, "seed": 3}
    recording = {"path": "a.zarr", "tensor_samples": kept, "tensor_every": every, "dtype": dtype}
    probes = [probe for probe in RUN["probes"] if "snr" not in probe]
    config = check(RunConfig, RUN | {"sampling": sampling, "recording": recording, "probes": probes}, "mine.yaml")
    run = prepare(config, "cpu", overwrite=True)
    record_run(run, overwrite=True)
    image = open_store("a.zarr")["image"].values
    for cell in run.cells():
        for first in range(0, samples, batch_size):
            labels = run.grid.label[first : first + batch_size].tolist()
            expected = run.sampler(cell).sample(labels, steps, 3, first).numpy()
            assert (image[cell][first : first + batch_size] == expected).all()
    before = contents_of(here)
    with pytest.raises(GradscopeError, match="a.zarr exists"):
        prepare(config, "cpu")
    with pytest.raises(GradscopeError, match="sampling.labels"):
        prepare(check(RunConfig, RUN | {"sampling": {"labels": [99]}}, "mine.yaml"), "cpu", overwrite=True)
    assert contents_of(here) == before


@pytest.mark.slow
@settings(max_examples=100, **COMMON)
@given(
    command=st.sampled_from([["info"], ["report"], ["evaluate"], ["record", "--config"], ["record", "--device"], []]),
    rest=st.lists(
        st.text(max_size=20) | st.sampled_from(["--set", "--json", "--html", "a.zarr", "x" * 5000]), max_size=3
    ),
)
def test_any_text_on_the_command_line_is_refused_in_words(here, command, rest):
    """What is raised is what `main` prints as one paragraph, with status 2, or the words of the parser of arguments."""
    result = CliRunner().invoke(app, [*command, *rest])
    assert isinstance(result.exception, GradscopeError | SystemExit | None), (command, rest)
    assert isinstance(result.exception, GradscopeError) or result.exit_code in (0, 2)


def test_an_error_in_the_users_own_code_says_which_and_where(here):
    with pytest.raises(
        GradscopeError, match=r"property_models:broken raised KeyError: .*no such weights.*property_models.py"
    ):
        prepare(check(RunConfig, RUN | {"denoiser": "property_models:broken"}, "mine.yaml"), "cpu")
    (here / "property_wrong.py").write_text("1 / 0")
    with pytest.raises(GradscopeError, match=re.escape("importing 'property_wrong' raised ZeroDivisionError")):
        prepare(check(RunConfig, RUN | {"denoiser": "property_wrong:x"}, "mine.yaml"), "cpu")
