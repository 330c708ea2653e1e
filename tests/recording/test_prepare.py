"""Configurations that do not fit are refused before anything runs."""

import sys

import own_models
import pytest
from own_models import changed, run_of

from gradscope.errors import GradscopeError
from gradscope.models.device import set_device

content = own_models.content


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("denoiser", "mymodels:nothing", "denoiser: mymodels has no 'nothing'"),
        ("denoiser", "zoo:sportballs32/ddmp", "denoiser: no 'zoo:sportballs32/ddmp' in the zoo"),
        (
            "classifiers.robust",
            "mymodels:wide",
            "classifiers.robust: the classifier does not take images of 3 x 8",
        ),
        ("classifiers.robust", "resnet18", "classifiers.robust: got 'resnet18'; possible: zoo:SET/NAME"),
        ("stabilizers", {"adm": {}}, "unknown stabilizer 'adm'; did you mean 'adam'"),
        (
            "stabilizers",
            {"a": {"method": "mymodels:Last"}},
            "stabilizers.a: mymodels has no 'Last'; did you mean 'Last",
        ),
        (
            "stabilizers",
            {"a": {"method": "mymodels:Peak"}},
            "stabilizers.a: mymodels:Peak must give a .*, it gave Peak",
        ),
        (
            "stabilizers",
            {"a": {"method": "mymodels:LastTwo", "share": 2}},
            "stabilizers.a: .* share must lie in .* got 2",
        ),
        (
            "stabilizers",
            {"a": {"method": "mymodels:LastTwo", "shar": 2}},
            "stabilizers.a: .* unexpected keyword .*'shar'",
        ),
        ("probes", ["gradients"], "unknown probe 'gradients'; did you mean 'gradient'"),
        ("probes", ["gradient", "gradient"], "two of them record 'gradient'"),
        ("probes", [{"snr": {"drws": 8}}], "probes.snr.drws: unknown key; did you mean 'draws'[?] one of: draws, seed"),
        ("probes", [{"snr": {"draws": "8"}}], "probes.snr.draws: must be a whole number, got '8'"),
        ("probes", [{"snr": {"draws": 1}}], "probes.snr: draws must be at least 2, got 1"),
        ("probes", [{"norms": {"draws": 1}}], "probes.norms: takes no options, got draws"),
        ("probes", [{"srn": {"draws": 8}}], "probes: unknown probe 'srn'; did you mean 'snr'"),
        ("probes", ["reference"], "probes.reference.classifier: this key is missing"),
        (
            "probes",
            [{"reference": {"classifier": 3}}],
            "probes.reference.classifier: must be a name .zoo:SET/NAME.*, got 3",
        ),
        (
            "probes",
            [{"reference": {"classifier": "resnet18"}}],
            "probes.reference.classifier: got 'resnet18'; possible: ",
        ),
        (
            "probes",
            [{"reference": {"classifier": "mymodels:wide"}}],
            "probes.reference.classifier: the classifier does not",
        ),
        (
            "probes",
            [{"reference": {"classifier": {"timm": "resnet18"}}}],
            "probes.reference.classifier.num_classes: this key is missing",
        ),
        ("probes", [{"layers": {"names": "unet"}}], "probes.layers.names: must be a list, got 'unet'"),
        ("probes", [{"layers": {"names": ["unet", 3]}}], "probes.layers.names.1: must be text, got 3"),
        (
            "probes",
            [{"layers": {"names": ["classifier.linaer"]}}],
            "probes.layers, at classifiers.robust: names: got 'classifier.linaer', but classifier .LinearClassifier. "
            "has no layer 'linaer'; one of: linear",
        ),
        ("probes", ["mymodels:Scaled"], "probes.mymodels:Scaled.scale: this key is missing"),
        ("probes", [{"mymodels:Scaled": {"scale": "x"}}], "probes.mymodels:Scaled.scale: must be a number, got 'x'"),
        (
            "probes",
            [{"mymodels:Scaled": {"scale": 1, "power": 0}}],
            "probes.mymodels:Scaled: power must be at least 1, got 0",
        ),
        (
            "probes",
            ["mymodels:robust"],
            "probes.mymodels:robust: takes a probes.Probe, got an object of type LinearClassifier",
        ),
        ("probes", ["mymodels:sys"], "probes: mymodels has no 'sys'"),
        ("sampling.labels", [0, 4], "sampling.labels: the classifiers have classes 0 to 3, got 4"),
        ("sampling.labels", [-1], "sampling.labels: the classifiers have classes 0 to 3, got -1"),
        ("sampling.num_inference_steps", 2000, "at most the scheduler's 1000, got 2000"),
        ("sampling.scheduler", "ddim", None),
    ],
)
def test_wrong_settings_are_refused_before_anything_runs(content, tmp_path, key, value, message):
    content = changed(content, key, value)
    if key == "sampling.scheduler":
        content = changed(content, "guidance.weight", "variance")
        message = "guidance.weight: 'variance' weighs DDPM's noise"
    with pytest.raises(GradscopeError, match=message):
        run_of(content)
    assert not (tmp_path / "run.zarr").exists()


def test_classifiers_that_do_not_agree_in_their_classes_are_refused(content, tmp_path):
    with (tmp_path / "mymodels.py").open("a") as file:
        file.write("\n\ndef five():\n    return LinearClassifier(classes=5)\n")
    sys.modules.pop("mymodels", None)
    with pytest.raises(GradscopeError, match=r"probes.reference.classifier: has 5 classes, classifiers.robust has 4"):
        run_of({**content, "probes": [{"reference": {"classifier": "mymodels:five"}}]})
    with pytest.raises(GradscopeError, match=r"classifiers.non_robust: has 5 classes, classifiers.robust has 4"):
        run_of(changed(content, "classifiers.non_robust", "mymodels:five"))


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cpu:0x", "cuda:99"])
def test_missing_devices_are_refused(name):
    with pytest.raises(GradscopeError, match="device: "):
        set_device(name)
