"""Every form of a checkpoint gives the weights that are in it."""

import argparse
import subprocess
import sys
import warnings

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from gradscope.config import TimmClassifier
from gradscope.errors import GradscopeError, GradscopeWarning
from gradscope.models.checkpoints import load_checkpoint
from gradscope.models.classifiers import load_classifier

SHAPE = (3, 32, 32)


def network(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    model = timm.create_model("test_resnet", num_classes=4).eval()
    for name, value in model.state_dict().items():
        if "running_mean" in name:
            value.normal_()
    return model


@pytest.fixture(scope="module")
def raw():
    return network(0)


@pytest.fixture(scope="module")
def ema():
    return network(1)


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return all(torch.equal(a[k], b[k]) for k in a)


def prefixed(model: torch.nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + k: v for k, v in model.state_dict().items()}


def loaded(content, folder, **changes) -> torch.nn.Module:
    """The timm model that a configuration makes of a checkpoint of this content."""
    path = folder / "weights.pth"
    torch.save(content, path)
    spec = TimmClassifier(timm="test_resnet", num_classes=4, checkpoint=str(path), **changes)
    return load_classifier(spec, "classifiers.c", SHAPE).module.module


WRAPS = {
    "alone": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "model": lambda state: {"model": state, "optimizer": {"state": {0: {"m": torch.zeros(2)}}, "param_groups": [{}]}},
    "model_state_dict": lambda state: {"model_state_dict": state, "loss": torch.tensor(0.1)},
    "another key": lambda state: {"net": state, "acc": 0.9},
    "timm's train.py": lambda state: {"state_dict": state, "args": argparse.Namespace(lr=0.1), "version": 2},
}
PREFIXES = [
    "",
    "module.",
    "_orig_mod.",
    "model.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "model.module.",
    "net.body.",
]


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_form(tmp_path, raw, wrap, prefix):
    assert same(loaded(WRAPS[wrap](prefixed(raw, prefix)), tmp_path), raw)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_prefix_in_safetensors(tmp_path, raw, prefix):
    path = tmp_path / "weights.safetensors"
    save_file({k: v.contiguous() for k, v in prefixed(raw, prefix).items()}, path)
    model = network(2)
    load_checkpoint(model, path, "classifiers.c")
    assert same(model, raw)


def test_wrappers_of_torch_themselves(tmp_path, raw, ema):
    averaged = torch.optim.swa_utils.AveragedModel(raw)
    for wrapped in (torch.nn.DataParallel(raw), torch.compile(raw), torch.compile(torch.nn.DataParallel(raw))):
        assert same(loaded(wrapped.state_dict(), tmp_path), raw)
    with pytest.warns(GradscopeWarning, match="not used: n_averaged$"):
        assert same(loaded(averaged.state_dict(), tmp_path), raw)


def test_counters_that_old_torch_did_not_write(tmp_path, raw):
    without = {k: v for k, v in raw.state_dict().items() if "num_batches" not in k}
    assert 0 < len(without) < len(raw.state_dict())
    model = loaded({"state_dict": {"module." + k: v for k, v in without.items()}}, tmp_path)
    assert all(torch.equal(model.state_dict()[k], v) for k, v in without.items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_become_float32(tmp_path, raw, dtype):
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in raw.state_dict().items()}
    model = loaded({"state_dict": state}, tmp_path)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert all(torch.equal(v, state[k].to(v.dtype)) for k, v in model.state_dict().items())


def test_without_batch_normalisation(tmp_path):
    torch.manual_seed(0)
    linear = torch.nn.Sequential(torch.nn.Linear(2, 3))
    torch.save({"model": prefixed(linear, "module.")}, tmp_path / "a.pt")
    model = torch.nn.Sequential(torch.nn.Linear(2, 3))
    load_checkpoint(model, tmp_path / "a.pt", "c")
    assert same(model, linear)


EMAS = {
    "timm": lambda raw, ema: {"state_dict": raw.state_dict(), "state_dict_ema": ema.state_dict()},
    "timm, DDP": lambda raw, ema: {"state_dict": prefixed(raw, "module."), "state_dict_ema": prefixed(ema, "module.")},
    "DeiT": lambda raw, ema: {"model": raw.state_dict(), "model_ema": prefixed(ema, "module."), "epoch": 1},
    "Lightning": lambda raw, ema: {"state_dict": prefixed(raw, "model.") | prefixed(ema, "model_ema.module.")},
    "another key": lambda raw, ema: {"net": raw.state_dict(), "ema": ema.state_dict()},
}


@pytest.mark.parametrize("form", EMAS)
@pytest.mark.filterwarnings("ignore:.*not the model's and are not used")
def test_the_moving_average_is_taken_and_a_key_chooses(tmp_path, raw, ema, form):
    content = EMAS[form](raw, ema)
    message = r"^classifiers\.c\.checkpoint: .*: took the moving average .*set classifiers\.c\.weights to ema or raw"
    with pytest.warns(GradscopeWarning, match=message):
        assert same(loaded(content, tmp_path), ema)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*took the moving average")
        assert same(loaded(content, tmp_path, weights="ema"), ema)
        assert same(loaded(content, tmp_path, weights="raw"), raw)


@pytest.mark.parametrize("form", ["timm", "timm, DDP"])
@pytest.mark.filterwarnings("ignore:.*took the moving average")
def test_timm_loads_the_same(tmp_path, raw, ema, form):
    torch.save(EMAS[form](raw, ema), tmp_path / "a.pth")
    wanted = timm.create_model("test_resnet", num_classes=4, checkpoint_path=str(tmp_path / "a.pth"))
    assert same(loaded(EMAS[form](raw, ema), tmp_path), wanted)


def test_weights_that_are_not_there(tmp_path, raw):
    message = r"^classifiers\.c\.weights: got ema, but .* has none under that name; it has 'state_dict'$"
    with pytest.raises(GradscopeError, match=message):
        loaded({"state_dict": raw.state_dict()}, tmp_path, weights="ema")
    with pytest.raises(GradscopeError, match=r"^classifiers\.c\.weights: got raw, .* it has 'state_dict_ema'"):
        loaded({"state_dict_ema": raw.state_dict()}, tmp_path, weights="raw")
    spec = TimmClassifier(timm="resnet18", num_classes=1000, weights="raw")
    with pytest.raises(GradscopeError, match=r"^c\.weights: chooses the weights of a checkpoint, but c\.checkp"):
        load_classifier(spec, "c", SHAPE)


def test_the_same_weights_twice_are_no_question_and_others_are(tmp_path, raw, ema):
    twice = prefixed(raw, "model.") | prefixed(raw, "attacker.model.") | {"normalizer.mean": torch.zeros(3)}
    with pytest.warns(
        GradscopeWarning, match=r"not the model's and are not used: attacker\.model\.conv1\.0\.weight, .* more"
    ):
        assert same(loaded({"model": twice}, tmp_path), raw)
    with pytest.raises(
        GradscopeError, match=r"several sets of weights of this model: 'state_dict' below 'a\.', .*'b\.'"
    ):
        loaded({"state_dict": prefixed(raw, "a.") | prefixed(ema, "b.")}, tmp_path)


def test_what_lies_beside_the_model_is_named(tmp_path, raw):
    content = {"state_dict": prefixed(raw, "model.") | {"criterion.weight": torch.ones(4)}}
    with pytest.warns(GradscopeWarning, match=r"^classifiers\.c\.checkpoint: .* not used: criterion\.weight$"):
        assert same(loaded(content, tmp_path), raw)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state | {"fc.more": torch.ones(1)}, r"does not fit the model: fc\.more is left over"),
        (lambda state: {k: v for k, v in state.items() if k != "fc.bias"}, r"'module\.', .* fc\.bias is missing"),
        (lambda state: state | {"fc.bias": torch.zeros(7)}, r"fc\.bias has shape \(7,\), the model wants \(4,\)"),
    ],
)
def test_what_does_not_fit_is_named_without_its_prefix(tmp_path, raw, change, message):
    state = {"module." + k: v for k, v in change(dict(raw.state_dict())).items()}
    with pytest.raises(GradscopeError, match=rf"^classifiers\.c\.checkpoint: .*{message}"):
        loaded({"state_dict": state}, tmp_path)


def test_another_model_is_told_by_its_layers(tmp_path):
    with pytest.raises(GradscopeError, match=r"whose layers are net\.weight, net\.bias, does not fit the model: conv1"):
        loaded({"state_dict": prefixed(torch.nn.Linear(2, 2), "net.")}, tmp_path)


class Mine:
    """A class that only the user's code knows."""


def test_objects_beside_the_weights_are_named_and_not_made(tmp_path, raw, monkeypatch):
    made = []
    monkeypatch.setattr(Mine, "__setstate__", lambda self, state: made.append(state), raising=False)
    own = Mine()
    own.a = 1
    content = {"state_dict": raw.state_dict(), "config": own, "accuracy": np.float64(0.5)}
    message = r"cannot be read as weights: it holds .*Mine.*save only tensors, model\.state_dict\(\)$"
    with pytest.raises(GradscopeError, match=message):
        loaded(content, tmp_path)
    assert made == []


def test_the_command_line_prints_a_warning_as_one_line():
    code = (
        "import warnings; from gradscope.cli import commands; from gradscope.errors import GradscopeWarning\n"
        "commands.app = lambda: (warnings.warn('a  b\\n c', GradscopeWarning), warnings.warn('anything else'))\n"
        "commands.main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, *others = result.stderr.splitlines()
    assert first == "gradscope: warning: a b c"
    assert "UserWarning: anything else" in others[0]


NESTED = {
    "ema.model": lambda raw, ema: {"model": raw, "ema": {"model": ema, "decay": 0.999}},
    "modelEMA": lambda raw, ema: {"model": raw, "modelEMA": ema},
    "shadow": lambda raw, ema: {"model": raw, "shadow": ema},
}


@pytest.mark.parametrize("form", NESTED)
def test_an_average_is_found_wherever_it_lies(raw, ema, tmp_path, form):
    content = NESTED[form](raw.state_dict(), ema.state_dict())
    with pytest.warns(GradscopeWarning, match=f"took the moving average of the weights, '{form}'"):
        assert same(loaded(content, tmp_path), ema)
    assert same(loaded(content, tmp_path, weights="raw"), raw)


def test_an_average_that_does_not_fit_is_not_passed_over(raw, ema, tmp_path):
    part = {name: value for name, value in ema.state_dict().items() if not name.startswith("fc.")}
    content = {"state_dict": raw.state_dict(), "state_dict_ema": part}
    with pytest.raises(GradscopeError, match=r"has a moving average .*'state_dict_ema'.* lacks fc\..*weights: raw"):
        loaded(content, tmp_path)
    assert same(loaded(content, tmp_path, weights="raw"), raw)


def test_weights_that_are_not_finite_are_no_second_set(raw, tmp_path):
    state = {name: value.clone() for name, value in raw.state_dict().items()}
    state["fc.weight"][0, 0] = torch.nan
    assert torch.isnan(loaded({"state_dict": state}, tmp_path).fc.weight[0, 0])
