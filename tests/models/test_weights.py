"""Weights are read, never run: no pickled code, and what does not fit is named."""

import ast
import json
import pickle
import re
from pathlib import Path

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from ruamel.yaml import YAML
from safetensors.torch import save_file
from small_models import UNET

from gradscope.config import RunConfig, TimmClassifier, TrainClassifierConfig, check
from gradscope.errors import GradscopeError
from gradscope.models import cards, training
from gradscope.models.classifiers import load_classifier
from gradscope.models.diffusion import load_denoiser

ROOT = Path(__file__).parents[2]
SHAPE = (3, 32, 32)
TIMM = {"timm": "resnet10t", "num_classes": 4}
TRAINING = {
    "data": {"name": "sportballs", "size": 32, "samples": 8},
    "timm": "resnet10t",
    "training": {"steps": 1, "batch_size": 2, "warmup_steps": 0},
}


class Payload:
    """Unpickled, it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def plant(path, target, how="torch"):
    """A file that runs code where it is unpickled, and no other."""
    content = {"model": Payload(target)}
    if how == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))


@pytest.fixture
def target(tmp_path):
    """What a payload would write; proves first that it would."""
    plant(tmp_path / "proof", tmp_path / "proven")
    torch.load(tmp_path / "proof", weights_only=False)
    assert (tmp_path / "proven").exists()
    return tmp_path / "pwned"


@pytest.mark.parametrize("how", ["torch", "pickle"])
@pytest.mark.parametrize("name", ["w.pt", "w.bin", "w.safetensors"])
def test_a_timm_checkpoint_is_not_unpickled(tmp_path, target, how, name):
    plant(tmp_path / name, target, how)
    spec = check(TimmClassifier, {**TIMM, "checkpoint": str(tmp_path / name)}, "x")
    with pytest.raises(GradscopeError, match=r"^classifiers\.mine\.checkpoint: .* cannot be read as weights"):
        load_classifier(spec, "classifiers.mine", SHAPE)
    assert not target.exists()


def pipeline(folder, **save):
    unet = UNet2DModel(sample_size=8, **UNET)
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(folder, **save)
    return folder


def test_a_folder_of_diffusers_is_not_unpickled(tmp_path, target):
    folder = pipeline(tmp_path / "ddpm", safe_serialization=False)
    assert load_denoiser(str(folder)).unet
    plant(folder / "unet" / "diffusion_pytorch_model.bin", target)
    with pytest.raises(GradscopeError, match=r"^denoiser: .* cannot load it as a folder"):
        load_denoiser(str(folder))
    assert not target.exists()


@pytest.mark.parametrize("part", ["unet", "scheduler"])
def test_a_folder_of_diffusers_names_no_module_of_its_own(tmp_path, target, monkeypatch, part):
    folder = pipeline(tmp_path / "ddpm")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "stranger.py").write_text(f"open({str(target)!r}, 'w')")
    index = json.loads((folder / "model_index.json").read_text())
    index[part] = ["stranger", "Model"]
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(GradscopeError, match=f"has {part} of stranger; only diffusers' own classes are loaded"):
        load_denoiser(str(folder))
    assert not target.exists()


def card(path, **changes):
    content = {
        "kind": "classifier",
        "architecture": {"timm": "resnet10t", "options": {}},
        "classes": ["a", "b", "c", "d"],
        "data": {"name": "sportballs", "size": 32},
        "train_on": "clean",
        "seed": 0,
        "steps": 1,
        "batch_size": 1,
        "duration": 1.0,
        "device": "cpu",
        "versions": {},
        "sha256": cards.file_hash(path.with_suffix(".safetensors")),
    }
    YAML().dump(content | changes, path)
    return path


def test_weights_with_a_card_are_not_unpickled(tmp_path, target):
    plant(tmp_path / "mine.safetensors", target)
    path = card(tmp_path / "mine.yaml")
    with pytest.raises(GradscopeError, match=r"^classifiers\.mine: .*mine\.safetensors cannot be read as safetensors"):
        load_classifier(str(path), "classifiers.mine", SHAPE)
    assert not target.exists()


def test_a_training_is_not_resumed_from_pickled_code(tmp_path, target):
    config = check(TrainClassifierConfig, TRAINING | {"output": str(tmp_path / "mine")}, "x")
    plant(tmp_path / "mine.checkpoint.pt", target)
    with pytest.raises(GradscopeError, match=r"^output: .*mine\.checkpoint\.pt cannot be read"):
        training.train_classifier(config, torch.device("cpu"))
    assert not target.exists()


def test_weights_that_do_not_fit_are_told_by_layer_and_shape(tmp_path):
    save_file({"stem.weight": torch.zeros(2)}, tmp_path / "mine.safetensors")
    path = card(tmp_path / "mine.yaml")
    with pytest.raises(GradscopeError, match=r"does not fit the model: .* is missing; .* and \d+ more"):
        load_classifier(str(path), "classifiers.mine", SHAPE)


def test_a_unet_that_does_not_fit_is_told_by_layer_and_shape(tmp_path):
    folder = pipeline(tmp_path / "ddpm")
    file = folder / "unet" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"block_out_channels": [8, 16]}))
    with pytest.raises(GradscopeError, match=r"^denoiser: .*(\[8|\(8|\[16|\(16)"):
        load_denoiser(str(folder))


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}


def modules(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def unsafe(source):
    """What of a module's text could run what it reads."""
    tree = ast.parse(source)
    found = [name for name in modules(tree) if name.split(".")[0] in ("pickle", "marshal", "shelve", "dill", "yaml")]
    for name, options in calls(tree):
        if name in ("eval", "exec", "compile", "__import__", "os.system") or "trust_remote_code" in options:
            found.append(name)
        elif name.endswith("torch.load") and options.get("weights_only") != "True":
            found.append(name)
        elif name.endswith("np.load") and options.get("allow_pickle", "False") != "False":
            found.append(name)
        elif name == "YAML" and options.get("typ", "'rt'") not in ("'safe'", "'rt'"):
            found.append(name)
        elif options.get("shell", "False") != "False":
            found.append(name)
    return found


@pytest.mark.parametrize(
    "source",
    [
        *("import pickle", "from pickle import loads", "eval(x)", "exec(x)", "torch.load(x)", "import yaml"),
        *("torch.load(x, weights_only=False)", "np.load(x, allow_pickle=True)", "YAML(typ='unsafe')"),
        *("f(trust_remote_code=True)", "subprocess.run(x, shell=True)"),
    ],
)
def test_what_is_unsafe_is_found(source):
    assert unsafe(source)


@pytest.mark.slow
def test_nothing_in_the_packages_runs_what_it_reads():
    files = [path for room in ("gradscope", "probes", "dashboards") for path in (ROOT / room).rglob("*.py")]
    assert len(files) > 100
    assert {str(path): found for path in files if (found := unsafe(path.read_text()))} == {}


def test_one_module_alone_imports_code_that_a_configuration_names():
    """Others import only modules of this very project, by names that are written out."""
    files = [path for room in ("gradscope", "probes", "dashboards") for path in (ROOT / room).rglob("*.py")]
    importing = {str(p.relative_to(ROOT)) for p in files if "import_module" in p.read_text()}
    lazily = {"gradscope/__init__.py", "gradscope/store/__init__.py", "dashboards/__init__.py", "probes/__init__.py"}
    assert importing - lazily == {"gradscope/models/foreign.py"}
    users = {
        str(p.relative_to(ROOT))
        for p in files
        if re.search(r"import .*\bforeign\b|models\.foreign import", p.read_text())
    }
    assert users == {
        "gradscope/models/calls.py",  # its `failure`
        "gradscope/models/classifiers.py",
        "gradscope/models/diffusion.py",
        "gradscope/checking/from_code.py",  # a function that gives the arguments of `check`
        "gradscope/recording/load_probes.py",
        "gradscope/recording/load_guides.py",
        "gradscope/recording/load_methods.py",
        "gradscope/recording/load_stabilizers.py",
        "gradscope/recording/rehearsal.py",
        "gradscope/sampling/guidance/energy.py",  # its `failure`
        "gradscope/sampling/guidance/classifier.py",
    }


def test_loading_a_configuration_imports_nothing_of_it(tmp_path, monkeypatch, target):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stranger.py").write_text(f"open({str(target)!r}, 'w')")
    content = {"denoiser": "stranger:x", "classifiers": {"a": "stranger:x"}, "guidance": {"guidance_scale": [1]}}
    check(RunConfig, content | {"recording": {"path": "a.zarr"}, "probes": ["stranger:x"]}, "x")
    assert not target.exists()
