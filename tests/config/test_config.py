import copy
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradscope.config import (
    AuditConfig,
    RunConfig,
    TimmClassifier,
    TrainClassifierConfig,
    TrainDenoiserConfig,
    check,
    find,
    load,
    preset_folder,
)
from gradscope.config.oracle import GuideKind, OracleConfig
from gradscope.config.run import SchedulerName
from gradscope.errors import GradscopeError
from gradscope.store.config_hash import config_hash

SMALLEST = """
denoiser: zoo:sportballs32/ddpm
classifiers: {mine: "package.module:make"}
guidance: {guidance_scale: [0.4]}
recording: {path: mine.zarr}
"""
RUNS = Path(__file__).parents[2] / "runs"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(SMALLEST)
    return path


def content(**changes):
    """The smallest configuration as a mapping; `changes` by path, with two underscores between keys."""
    made = {
        "denoiser": "zoo:sportballs32/ddpm",
        "classifiers": {"mine": "package.module:make"},
        "guidance": {"guidance_scale": [0.4]},
        "recording": {"path": "mine.zarr"},
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        inner = made
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = value
    return made


def test_defaults(file):
    assert load(RunConfig, str(file)).model_dump() == {
        "denoiser": "zoo:sportballs32/ddpm",
        "classifiers": {"mine": "package.module:make"},
        "judge": "none",
        "evaluation": {"extractor": None, "data": None, "samples": 8192, "replicates": 200},
        "guidance": {
            "classifier_input": ["x_t"],
            "guidance_scale": [0.4],
            "objective": "log_prob",
            "normalize": "l2",
            "weight": "one",
            "interval": None,
            "smoothgrad": None,
            "timestep_at_x0": 0,
            "method": "classifier",
        },
        "stabilizers": {"none": {}},
        "sampling": {
            "scheduler": "ddpm",
            "eta": 0.0,
            "use_clipped_model_output": False,
            "condition": "none",
            "null_label": None,
            "classifier_free_scale": 1.0,
            "num_inference_steps": 50,
            "samples": 64,
            "batch_size": 32,
            "labels": "cycle",
            "seed": 0,
        },
        "execution": {"autocast": "none", "compile": False, "gradient_checkpointing": False, "tolerance": 0.05},
        "probes": ["gradient", "update", "norms", "cosines", "strength", "belief"],
        "recording": {
            "path": "mine.zarr",
            "dtype": "float32",
            "codec": "auto",
            "tensor_samples": 64,
            "tensor_every": 1,
            "sample_dims": None,
            "durable": False,
        },
    }


SCHEDULERS = ", ".join(get_args(SchedulerName))
UNKNOWN = [
    ({"samplin": {}}, "samplin: unknown key; did you mean 'sampling'? one of: denoiser, classifiers, judge"),
    ({"sampling__sample": 4}, "sampling.sample: unknown key; did you mean 'samples'? one of: scheduler, eta, use_c"),
    ({"classifiers__a": {"timm": "x", "num_classes": 2, "chekpoint": "y"}},
     "classifiers.a.chekpoint: unknown key; did you mean 'checkpoint'? one of: timm, checkpoint, weights, num_classes"),
    ({"classifiers__a": {"module": "m:f", "takes_timestp": True}},
     "classifiers.a.takes_timestp: unknown key; did you mean 'takes_timestep'? one of: module, takes_timestep"),
    ({"classifiers__a": {"energy": "m:f", "targt": [1.0]}},
     "classifiers.a.targt: unknown key; did you mean 'target'? one of: energy, target"),
    ({"classifiers__a": {"sum": [{"guide": {"energy": "m:f", "tar": 1}}]}},
     "classifiers.a.sum.0.guide.tar: unknown key; did you mean 'target'? one of: energy, target"),
    ({"classifiers__a": {"sum": [{"guide": "m:f", "weigth": 1}]}},
     "classifiers.a.sum.0.weigth: unknown key; did you mean 'weight'? one of: guide, weight"),
    ({"judge": {"timm": "x", "num_classes": 2, "meen": [0.5]}}, "judge.meen: unknown key; did you mean 'mean'?"),
    ({"evaluation": {"sampels": 4}}, "evaluation.sampels: unknown key; did you mean 'samples'? one of: extractor"),
    ({"evaluation": {"extractor": {"timm": "x", "num_classes": 2, "meen": [0.5]}}}, "evaluation.extractor.meen: "),
    ({"guidance__smoothgrad": {"samples": 4, "sd": 1}}, "guidance.smoothgrad.std: this key is missing; guidance."),
    ({"qqq": 1}, "qqq: unknown key; one of: denoiser"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), UNKNOWN)
def test_unknown_keys_at_every_depth(changes, message):
    with pytest.raises(GradscopeError) as caught:
        check(RunConfig, content(**changes), "run.yaml")
    assert str(caught.value).startswith(f"run.yaml: {message}")


SCALE, LABELS, INPUT = "guidance__guidance_scale", "sampling__labels", "guidance__classifier_input"
SPEC = "must be a name (zoo:SET/NAME, CARD.yaml, package.module:callable), a mapping of timm's keys, or {module: ...}"
GUIDE = SPEC.replace(" or {module: ...}", " {module: ...}, {energy: ...}, {measurement: ...} or {sum: [...]}")
PROBE = "must be a name, or a name with its options, for example {snr: {draws: 8}}"
WRONG = [
    ("sampling__samples", "4", "sampling.samples: must be a whole number, got '4'"),
    ("sampling__samples", 4.5, "sampling.samples: must be a whole number, got 4.5"),
    ("sampling__samples", True, "sampling.samples: must be a whole number, got True"),
    ("sampling__samples", 0, "sampling.samples: must be greater than or equal to 1, got 0"),
    ("sampling__seed", -1, "sampling.seed: must be greater than or equal to 0, got -1"),
    ("sampling__scheduler", "dpm", f"sampling.scheduler: got 'dpm'; did you mean 'ddpm'? one of: {SCHEDULERS}"),
    ("sampling", 4, "sampling: must be a mapping of keys, got 4"),
    ("sampling", None, "sampling: must be a mapping of keys, got None"),
    (LABELS, "cicle", "sampling.labels: got 'cicle'; did you mean 'cycle'? one of: cycle"),
    (LABELS, 3, "sampling.labels: must be `cycle` or a list of class indices, got 3"),
    (LABELS, [], "sampling.labels: list must have at least 1 item, got []"),
    (LABELS, [0, 1.5], "sampling.labels.1: must be a whole number, got 1.5"),
    ("classifiers__a", 3, f"classifiers.a: {GUIDE}, got 3"),
    ("classifiers__a", ["x"], f"classifiers.a: {GUIDE}, got ['x']"),
    (
        "classifiers__a",
        {"energy": "m:f", "target": 1.0},
        "classifiers.a.target: must be a list of numbers, or "
        "package.module:callable that gives a tensor (k, ...), got 1.0",
    ),
    ("classifiers__a", {"target": [1.0]}, "classifiers.a.energy: this key is missing"),
    ("classifiers__a", {"sum": []}, "classifiers.a.sum: list must have at least 1 item, got []"),
    (
        "classifiers__a",
        {"sum": [{"guide": "m:f", "weight": 0}]},
        "classifiers.a.sum.0.weight: must not be 0; leave the guide out",
    ),
    (
        "classifiers__a",
        {"sum": [{"guide": {"sum": []}}]},
        "classifiers.a.sum.0.guide: must be a name (zoo:SET/NAME, CARD.yaml, package.module:callable), a mapping of "
        "timm's keys, {module: ...}, {energy: ...} or {measurement: ...}, got {'sum': []}",
    ),
    ("judge", {"energy": "m:f"}, f"judge: {SPEC}, got {{'energy': 'm:f'}}"),
    ("classifiers__a", {"timm": "x"}, "classifiers.a.num_classes: this key is missing"),
    ("classifiers__a", {"timm": "x", "num_classes": "4"}, "classifiers.a.num_classes: must be a whole number, got '4'"),
    (
        "classifiers__a",
        {"timm": "x", "num_classes": 4, "std": [0]},
        "classifiers.a.std.0: must be greater than 0, got 0",
    ),
    ("classifiers", {}, "classifiers: dictionary must have at least 1 item, got {}"),
    ("classifiers", {1: "zoo:a/b"}, "classifiers.1: a key must be text, got 1"),
    ("judge", None, f"judge: {SPEC}, got None"),
    ("denoiser", None, "denoiser: must be text, got None"),
    (SCALE, 0.4, "guidance.guidance_scale: must be a list, got 0.4"),
    (SCALE, [1e39], "guidance.guidance_scale.0: must lie within float32, in which the shift is added, got 1e+39"),
    (SCALE, [-1e39], "guidance.guidance_scale.0: must lie within float32, in which the shift is added, got -1e+39"),
    (SCALE, [0.4, float("nan")], "guidance.guidance_scale.1: must be a finite number, got nan"),
    (SCALE, [0, 0.4, 0.0], "guidance.guidance_scale: names a value twice: [0.0, 0.4, 0.0]"),
    (INPUT, "x0", "guidance.classifier_input: must be a list, got 'x0'"),
    (INPUT, ["x_0"], "guidance.classifier_input.0: got 'x_0'; did you mean 'x0'? one of: x_t, x0, x0_detached"),
    (INPUT, ["x0", "x0"], "guidance.classifier_input: names a value twice: ['x0', 'x0']"),
    (
        "guidance__interval",
        [500, 500],
        "guidance.interval: is [first, end) and first must be below end, got [500, 500]",
    ),
    ("guidance__interval", [5], "guidance.interval: list must have at least 2 items, got [5]"),
    ("stabilizers__none", None, "stabilizers.none: must be a mapping, got None"),
    ("guidance__smoothgrad", 4, "guidance.smoothgrad: must be a mapping of keys, got 4"),
    ("guidance__smoothgrad", {"samples": 4}, "guidance.smoothgrad.std: this key is missing"),
    (
        "guidance__smoothgrad",
        {"samples": 0, "std": 0.1},
        "guidance.smoothgrad.samples: must be greater than or equal to 1, got 0",
    ),
    (
        "guidance__smoothgrad",
        {"samples": 4, "std": -0.1},
        "guidance.smoothgrad.std: must be greater than or equal to 0, got -0.1",
    ),
    ("probes", "norms", "probes: must be a list, got 'norms'"),
    ("probes", ["norms", 3], f"probes.1: {PROBE}, got 3"),
    ("probes", ["norms", ["snr"]], f"probes.1: {PROBE}, got ['snr']"),
    ("probes", [{"snr": None}], "probes.0.snr: must be a mapping, got None"),
    ("probes", [{"snr": 8}], "probes.0.snr: must be a mapping, got 8"),
    ("probes", [{}], "probes.0: is a name, or one name with its options, got {}"),
    (
        "probes",
        [{"snr": {}, "norms": {}}],
        "probes.0: is a name, or one name with its options, got {'snr': {}, 'norms': {}}",
    ),
    ("recording__dtype", "float8", "recording.dtype: got 'float8'; did you mean 'float32'? one of: float32, float16"),
    ("recording", {}, "recording.path: this key is missing"),
    ("evaluation__samples", 3, "evaluation.samples: must be greater than or equal to 4, got 3"),
    (
        "evaluation__extractor",
        3,
        "evaluation.extractor: must be a classifier, as under `classifiers`, or {inception: WEIGHTS}, got 3",
    ),
    ("evaluation__extractor", {"inception": 3}, "evaluation.extractor.inception: must be text, got 3"),
]


@pytest.mark.parametrize(("path", "value", "message"), WRONG)
def test_wrong_values_name_key_value_and_what_is_possible_once(path, value, message):
    with pytest.raises(GradscopeError) as caught:
        check(RunConfig, content(**{path: value}), "run.yaml")
    assert str(caught.value) == f"run.yaml: {message}"


def test_all_errors_come_at_once_and_long_values_are_shortened():
    with pytest.raises(GradscopeError) as caught:
        check(RunConfig, content(denoiser=["x" * 500], sampling__sampels=3), "run.yaml")
    first, second = str(caught.value).split("; ", 1)
    assert first == f"run.yaml: denoiser: must be text, got ['{'x' * 75}..."
    assert second.startswith("sampling.sampels: unknown key; did you mean 'samples'?")


def test_errors_of_optional_sections_know_their_keys(tmp_path):
    run = load(TrainDenoiserConfig, "train/ddpm32.yaml").model_dump()
    run["evaluation"]["jugde"] = run["evaluation"].pop("judge")
    with pytest.raises(
        GradscopeError, match=r"evaluation\.jugde: unknown key; did you mean 'judge'\? one of: judge, ext"
    ):
        check(TrainDenoiserConfig, run, "train.yaml")


def test_a_classifier_by_timms_name(file):
    config = load(RunConfig, str(file), ["classifiers.mine={timm: resnet18, num_classes: 4, mean: [0, 0.5, 1]}"])
    assert config.classifiers["mine"] == TimmClassifier(timm="resnet18", num_classes=4, mean=[0.0, 0.5, 1.0])
    assert config.model_dump(mode="json")["classifiers"]["mine"]["mean"] == [0, 0.5, 1]


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("sampling.samples=4", "sampling.samples", 4),
        ("sampling.labels=[1, 2]", "sampling.labels", [1, 2]),
        ("guidance.guidance_scale=[0, 1e-3]", "guidance.guidance_scale", [0.0, 0.001]),
        ("stabilizers.adam={eps: 1e-8}", "stabilizers.adam", {"eps": 1e-8}),
        ("stabilizers.mine.method=ema", "stabilizers.mine", {"method": "ema"}),
        ("denoiser=a=b", "denoiser", "a=b"),
        ("denoiser='4'", "denoiser", "4"),
        ("guidance.normalize=none", "guidance.normalize", "none"),
        ("guidance.smoothgrad={samples: 4, std: 1e-1}", "guidance.smoothgrad", {"samples": 4, "std": 0.1}),
        ("probes=[norms, {snr: {draws: 4}}]", "probes", ["norms", {"snr": {"draws": 4}}]),
    ],
)
def test_overrides_are_yaml(file, override, path, value):
    got = load(RunConfig, str(file), [override]).model_dump()
    for key in path.split("."):
        got = got[key]
    assert got == value
    assert type(got) is type(value)


def test_the_last_override_wins(file):
    assert load(RunConfig, str(file), ["sampling.seed=1", "sampling.seed=2"]).sampling.seed == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sampling.samples", "--set takes key=value, for example sampling.samples=4; got 'sampling.samples'"),
        ("=4", "--set takes key=value, for example sampling.samples=4; got '=4'"),
        ("denoiser.name=4", "--set denoiser.name=4: denoiser is a value, it has no keys"),
        ("guidance.guidance_scale.0=1", "guidance.guidance_scale is a value, it has no keys"),
        ("sampling.labels=[1", "--set sampling.labels=[1 is not valid YAML: "),
        ("sampling.sampels=4", "sampling.sampels: unknown key; did you mean 'samples'?"),
        ("sampling.samples=", "sampling.samples: must be a whole number, got None"),
    ],
)
def test_bad_overrides(file, override, message):
    with pytest.raises(GradscopeError) as caught:
        load(RunConfig, str(file), [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("denoiser: a\ndenoiser: b\n", 'duplicate key "denoiser"'),
        ("sampling: {samples: 4, samples: 5}", 'duplicate key "samples"'),
        ("denoiser: [", "is not valid YAML"),
        ("- denoiser", "a configuration is a mapping of keys, got list"),
        ("", "a configuration is a mapping of keys, got NoneType"),
    ],
)
def test_files_that_are_no_configuration(file, text, message):
    file.write_text(text)
    with pytest.raises(GradscopeError) as caught:
        load(RunConfig, str(file))
    assert str(file) in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_text(file):
    file.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(GradscopeError, match=r"run\.yaml cannot be read as text"):
        load(RunConfig, str(file))


def test_numbers_and_words_are_those_of_yaml_1_2(file):
    file.write_text(SMALLEST + "stabilizers: {adam: {eps: 1e-8}, no: {}, off: {beta: .5}}\n")
    stabilizers = load(RunConfig, str(file)).stabilizers
    assert stabilizers == {"adam": {"eps": 1e-8}, "no": {}, "off": {"beta": 0.5}}
    assert isinstance(stabilizers["adam"]["eps"], float)


def test_files_are_found_as_given_then_in_runs_then_among_the_presets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find("both.yaml") == preset_folder() / "both.yaml"
    assert find("train/ddpm32.yaml") == preset_folder() / "train" / "ddpm32.yaml"
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "both.yaml").write_text("")
    assert find("both.yaml") == Path("runs/both.yaml")
    (tmp_path / "both.yaml").write_text("")
    assert find("both.yaml") == Path("both.yaml")


def test_a_file_that_is_nowhere_names_the_presets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GradscopeError, match=r"^no file 'bot\.yaml' .*did you mean 'both\.yaml'\? one of: .*quick"):
        find("bot.yaml")


LEADERBOARDS = sorted(RUNS.glob("oracle*.yaml"))
TRAININGS = sorted((RUNS / "train").rglob("*.yaml"))


def load_training(path):
    return load(TrainDenoiserConfig if path.name.startswith("ddpm") else TrainClassifierConfig, str(path))


def test_the_shipped_audit_is_valid():
    audit = load(AuditConfig, str(RUNS / "audit.yaml"))
    assert all(name.startswith("zoo:") for name in (audit.denoiser, *audit.classifiers.values()))


def test_the_shipped_leaderboards_are_valid():
    for path in LEADERBOARDS:
        assert load(OracleConfig, str(path)).guides == [*get_args(GuideKind)]


@pytest.mark.parametrize(
    "path", sorted({*RUNS.glob("*.yaml")} - {RUNS / "audit.yaml", *LEADERBOARDS}), ids=lambda path: path.name
)
def test_shipped_runs_are_valid(path):
    """Their models are the zoo's, exact mixtures, or what the shipped trainings make."""
    run = load(RunConfig, str(path))
    made = {f"{load_training(training).output}.yaml" for training in TRAININGS}
    for name in (run.denoiser, run.judge, *run.classifiers.values()):
        assert name.startswith(("zoo:", "gradscope.models.mixture:", "gradscope.models.examples.")) or name in made


@pytest.mark.parametrize("path", TRAININGS, ids=lambda path: str(path.relative_to(RUNS)))
def test_shipped_trainings_are_valid(path):
    assert Path(load_training(path).output).name in path.stem


def test_there_are_shipped_files():
    assert {"both.yaml", "paper.yaml", "quickstart.yaml"} <= {path.name for path in RUNS.glob("*.yaml")}
    assert len(list((RUNS / "train").glob("*.yaml"))) >= 5


def hashed(**changes) -> str:
    return config_hash(check(RunConfig, content(**changes), "run.yaml").model_dump(mode="json"))


def test_the_hash_does_not_depend_on_how_it_is_stored_nor_on_the_order_of_keys():
    assert hashed() == hashed(recording__path="elsewhere.zarr", recording__durable=True)
    reversed_keys = dict(reversed(list(content().items())))
    assert config_hash(check(RunConfig, reversed_keys, "run.yaml").model_dump(mode="json")) == hashed()
    assert hashed(sampling__seed=0) == hashed()  # a default, written out
    assert len(hashed()) == 16


CHANGES = {
    "denoiser": "zoo:another/one",
    "classifiers": {"other": "package.module:make"},
    "judge": "zoo:sportballs32/judge",
    "guidance__classifier_input": ["x0"],
    "guidance__guidance_scale": [0.41],
    "guidance__objective": "logit",
    "guidance__normalize": "none",
    "guidance__weight": "sigma",
    "guidance__interval": [0, 999],
    "guidance__smoothgrad": {"samples": 4, "std": 0.1},
    "guidance__timestep_at_x0": 20,
    "guidance__method": {"lgd": {"draws": 2}},
    "stabilizers": {"none": {}, "adam": {}},
    "sampling__scheduler": "ddim",
    "sampling__eta": 0.5,
    "sampling__use_clipped_model_output": True,
    "sampling__condition": "label",
    "sampling__null_label": 3,
    "sampling__classifier_free_scale": 2.0,
    "sampling__num_inference_steps": 51,
    "sampling__samples": 65,
    "sampling__batch_size": 31,
    "sampling__labels": [0],
    "sampling__seed": 1,
    "execution__autocast": "bfloat16",
    "execution__compile": True,
    "execution__gradient_checkpointing": True,
    "execution__tolerance": 0.1,
    "probes": ["gradient"],
    "recording__dtype": "float16",
    "recording__codec": "lz4",
    "recording__tensor_samples": 63,
    "recording__tensor_every": 2,
    "recording__sample_dims": ["a", "b", "c"],
}


def test_the_hash_depends_on_everything_that_is_recorded():
    hashes = {path: hashed(**{path: value}) for path, value in CHANGES.items()}
    assert len({hashed(), *hashes.values()}) == len(CHANGES) + 1
    dumped = check(RunConfig, content(), "run.yaml").model_dump()
    keys = {
        f"{k}__{i}" for k in ("guidance", "sampling", "execution", "recording") for i in dumped.pop(k)
    } | dumped.keys()
    assert keys - {"recording__path", "recording__durable", "evaluation"} == CHANGES.keys()
    assert hashed(evaluation={"replicates": 9}) == hashed()


def test_a_configuration_does_not_change():
    config = check(RunConfig, content(), "run.yaml")
    with pytest.raises(ValueError, match="frozen"):
        config.denoiser = "another"


WORDS = sorted({key for path in CHANGES for key in path.split("__")} | {"timm", "num_classes", "mean", "std", "path"})
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from(["x0", "cycle", "ddpm", "zoo:a/b", "l2"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=5) | st.integers(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(changes=st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=5) | st.integers(), VALUES, max_size=5))
def test_any_mapping_gives_a_configuration_or_a_message(changes):
    tried = content() | changes
    before = copy.deepcopy(tried)
    try:
        outcome = config_hash(check(RunConfig, tried, "run.yaml").model_dump(mode="json"))
    except GradscopeError as error:
        outcome = str(error)
    assert outcome.startswith("run.yaml: ") or len(outcome) == 16
    assert repr(tried) == repr(before)


def test_an_interval_may_have_times_between_whole_numbers():
    """EDM's timesteps lie between 1.1 and -1.6. Whole numbers stay whole, so that a run's hash does."""
    assert check(RunConfig, content(guidance__interval=[-1.5, 0.8]), "it").guidance.interval == [-1.5, 0.8]
    whole = check(RunConfig, content(guidance__interval=[0, 1000]), "it").model_dump_json()
    assert '"interval":[0,1000]' in whole
