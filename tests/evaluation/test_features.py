import pickle
import sys

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch_fidelity import feature_extractor_inceptionv3
from torchmetrics.image.fid import NoTrainInceptionV3

from gradscope.config import Inception, TimmClassifier
from gradscope.errors import GradscopeError
from gradscope.evaluation.features import Features, distance_names, load_extractor

SHAPE = (3, 32, 32)
OPTIONS = {"channels": [8, 8, 8, 8], "stem_width": 8, "stem_type": ""}
WHERE = "evaluation.extractor"


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return timm.create_model("resnet10t", num_classes=4, **OPTIONS).eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_a_timm_classifier_gives_what_its_last_layer_sees(resnet, images):
    features = Features(resnet, SHAPE)
    assert features.num_features == 8
    with torch.no_grad():
        torch.testing.assert_close(resnet.fc(features(images)), resnet(images))


def test_of_a_timm_classifier_by_name_the_normalisation_is_kept(resnet, images, tmp_path):
    save_file(resnet.state_dict(), tmp_path / "weights.safetensors")
    spec = TimmClassifier(
        timm="resnet10t",
        num_classes=4,
        checkpoint=str(tmp_path / "weights.safetensors"),
        mean=[0.1, 0.2, 0.3],
        std=[0.5, 0.6, 0.7],
        options=OPTIONS,
    )
    features = load_extractor(spec, WHERE, SHAPE)
    normalised = images.clone()
    for channel, (mean, std) in enumerate(((0.1, 0.5), (0.2, 0.6), (0.3, 0.7))):
        normalised[:, channel] = (images[:, channel] * 0.5 + 0.5 - mean) / std
    with torch.no_grad():
        wanted = resnet.forward_head(resnet.forward_features(normalised), pre_logits=True)
    torch.testing.assert_close(features(images), wanted, rtol=1e-4, atol=1e-5)


def test_any_other_module_gives_its_output(tmp_path, monkeypatch, images):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "users_features.py").write_text(
        "from torch import nn\n"
        "class Means(nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x.mean(dim=(2, 3))\n"
        "class Maps(nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x\n"
    )
    features = load_extractor("users_features:Means", WHERE, SHAPE)
    assert features.num_features == 3
    found = features.of([images[:2], images[2:]])
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, images.mean(dim=(2, 3)), rtol=1e-5)
    assert features.of([]).shape == (0, 3)
    with pytest.raises(GradscopeError, match=r"^evaluation.extractor: a classifier must give logits of shape \(n, cla"):
        load_extractor("users_features:Maps", WHERE, SHAPE)
    sys.modules.pop("users_features")


def test_features_that_are_not_finite_are_refused():
    class Log(nn.Module):
        def forward(self, x):
            return x.flatten(1).log()

    images = torch.ones(4, 1, 1, 2)
    images[1] = 0
    message = "^evaluation.extractor: its features are not finite for 1 of 4 images"
    with pytest.raises(GradscopeError, match=message):
        Features(Log(), (1, 1, 2)).of([images])


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ("zoo:sportballs32/extractor", ("fd_extractor", "kd_extractor")),
        ("folder/my-net.yaml", ("fd_my_net", "kd_my_net")),
        ("package.module:Dino", ("fd_Dino", "kd_Dino")),
        (TimmClassifier(timm="resnet18.a1_in1k", num_classes=2), ("fd_resnet18_a1_in1k", "kd_resnet18_a1_in1k")),
        (Inception(inception="weights.pth"), ("fid", "kid")),
    ],
)
def test_a_distance_is_called_after_its_features_and_fid_only_with_inception(spec, names):
    assert distance_names(spec) == names


def test_inception_without_its_weights_is_refused(tmp_path):
    with pytest.raises(GradscopeError, match=r"^evaluation\.extractor\.inception: no file 'none\.pth'"):
        load_extractor(Inception(inception="none.pth"), WHERE, SHAPE)
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")

    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "unpickled"), "w")

    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil(), protocol=2))
    for name in ("other.pth", "evil.pth"):
        with pytest.raises(GradscopeError, match=f"{name} does not hold the weights of torch-fidelity's Inception"):
            load_extractor(Inception(inception=str(tmp_path / name)), WHERE, SHAPE)
    assert not (tmp_path / "unpickled").exists()


@pytest.fixture
def inception(tmp_path):
    """A file of Inception's weights, random ones."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(feature_extractor_inceptionv3, "load_state_dict_from_url", lambda *_, **__: None)
        patched.setattr(nn.Module, "load_state_dict", lambda *_: None)
        torch.manual_seed(0)
        made = feature_extractor_inceptionv3.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    torch.save(made.state_dict(), tmp_path / "inception.pth")
    return tmp_path / "inception.pth"


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_inceptions_features_are_those_that_torchmetrics_has_for_fid(inception, images, channels):
    images = 1.1 * images[:3, :channels]  # beyond [-1, 1] it is cut
    features = load_extractor(Inception(inception=str(inception)), WHERE, (channels, 32, 32))
    levels = ((images.clamp(-1, 1) + 1) / 2 * 255).round().to(torch.uint8).expand(-1, 3, -1, -1)
    wanted = NoTrainInceptionV3("inception-v3-compat", ["2048"], str(inception), antialias=False)(levels)
    assert features.num_features == 2048
    assert wanted.std() > 0
    torch.testing.assert_close(features(images), wanted)


def test_inception_without_torch_fidelity_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(GradscopeError, match=r"torch-fidelity is not installed: pip install 'gradscope\[inception\]'"):
        load_extractor(Inception(inception="none.pth"), WHERE, SHAPE)
