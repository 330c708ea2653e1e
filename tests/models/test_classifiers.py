import pickle
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data.loader import adapt_to_chs

from gradscope.config import TimmClassifier
from gradscope.errors import GradscopeError
from gradscope.models import cards
from gradscope.models.classifiers import load_classifier
from gradscope.recording.prepare import check_classes

OPTIONS = {"channels": [8, 8, 8, 8], "stem_width": 8, "stem_type": ""}
SHAPE = (3, 32, 32)
MEAN, STD = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=4, **OPTIONS).eval()
    torch.nn.init.normal_(model.fc.weight, std=2.0)
    return model


@pytest.fixture(scope="module")
def images():
    return torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(1)) * 2 - 1


def spec(checkpoint, **changes) -> TimmClassifier:
    content = {"timm": "resnet10t", "num_classes": 4, "options": OPTIONS, "checkpoint": str(checkpoint)}
    return TimmClassifier.model_validate(content | changes)


def logits(model, images):
    with torch.no_grad():
        return model(images)


@pytest.fixture
def checkpoint(tmp_path, resnet):
    save_file(resnet.state_dict(), tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


@pytest.mark.parametrize("form", ["safetensors", "pt", "pt with state_dict"])
def test_a_timm_model_with_a_checkpoint(tmp_path, resnet, images, form):
    path = tmp_path / f"weights.{form.split()[0]}"
    if form == "safetensors":
        save_file(resnet.state_dict(), path)
    else:
        state = resnet.state_dict()
        torch.save({"state_dict": state, "epoch": 3} if "with" in form else state, path)
    loaded = load_classifier(spec(path, mean=MEAN, std=STD), "classifiers.mine", SHAPE)
    assert loaded.num_classes == 4
    assert not loaded.module.training
    normalised = torch.empty_like(images)
    for channel in range(3):
        normalised[:, channel] = (images[:, channel] * 0.5 + 0.5 - MEAN[channel]) / STD[channel]
    wanted = logits(resnet, normalised)
    torch.testing.assert_close(logits(loaded.module, images), wanted, rtol=1e-4, atol=1e-4)
    assert (logits(resnet, images) - wanted).abs().max() > 0.1  # the normalisation is seen


def test_without_mean_and_std_timms_card_gives_them(checkpoint, resnet, images):
    loaded = load_classifier(spec(checkpoint), "classifiers.mine", SHAPE)
    cfg = resnet.default_cfg
    mean, std = (torch.tensor(cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    wanted = logits(resnet, ((images + 1) / 2 - mean) / std)
    torch.testing.assert_close(logits(loaded.module, images), wanted, rtol=1e-4, atol=1e-4)


def test_a_card_gives_the_float16_model_for_images_from_minus_one_to_one(tmp_path, resnet, images):
    path = tmp_path / "mine.yaml"
    content = {
        "kind": "classifier",
        "architecture": {"timm": "resnet10t", "options": OPTIONS},
        "classes": ["a", "b", "c", "d"],
        "data": {"name": "sportballs"},
        "train_on": "clean",
        "seed": 0,
        "steps": 1,
        "batch_size": 1,
        "duration": 0.0,
        "device": "cpu",
        "versions": {},
        "sha256": cards.save_weights(path, resnet),
    }
    cards.write(path, cards.Card.model_validate(content))
    loaded = load_classifier(str(path), "judge", SHAPE)
    assert loaded.classes == ("a", "b", "c", "d")
    rounded = timm.create_model("resnet10t", num_classes=4, **OPTIONS).eval()
    rounded.load_state_dict(
        {k: v.half().float() if v.is_floating_point() else v for k, v in resnet.state_dict().items()}
    )
    torch.testing.assert_close(logits(loaded.module, images), logits(rounded, images))
    cards.write(
        path, cards.Card.model_validate(content | {"kind": "denoiser", "architecture": {"unet": {}, "scheduler": {}}})
    )
    with pytest.raises(GradscopeError, match=rf"^judge: {path} is the card of a denoiser"):
        load_classifier(str(path), "judge", SHAPE)


@pytest.mark.parametrize(
    ("changes", "shape", "message"),
    [
        ({"num_classes": 5}, SHAPE, r"^classifiers\.mine\.checkpoint: .* fc\.weight has shape \(4, 8\), .* \(5, 8\)"),
        ({"timm": "resnet14t"}, SHAPE, r"^classifiers\.mine\.checkpoint: .* layer1\.0\..* is missing"),
        ({"timm": "resnet10"}, SHAPE, r"^classifiers\.mine\.timm: timm has no model 'resnet10'; did you mean .*resnet"),
        ({"options": {"chanels": [8]}}, SHAPE, r"^classifiers\.mine\.timm: timm cannot build 'resnet10t'.*chanels"),
        (
            {"mean": [0.5]},
            SHAPE,
            r"^classifiers\.mine\.mean: must have one number per channel; .* 3 channels, got \[0\.5\]",
        ),
        (
            {},
            (1, 32, 32),
            r"checkpoint: .* \(resnet10t with 1 channels and 4 classes\) .* conv1\.weight .* \(64, 3, .* \(64, 1, ",
        ),
        ({"checkpoint": "no.safetensors"}, SHAPE, r"^classifiers\.mine\.checkpoint: no file 'no\.safetensors'"),
    ],
)
def test_what_does_not_fit_is_named(checkpoint, changes, shape, message):
    with pytest.raises(GradscopeError, match=message):
        load_classifier(spec(**({"checkpoint": checkpoint} | changes)), "classifiers.mine", shape)


def test_the_default_normalisation_of_a_grey_model_is_the_one_timm_trains_it_with(tmp_path, images):
    grey = timm.create_model("resnet10t", num_classes=4, in_chans=1, **OPTIONS).eval()
    torch.nn.init.normal_(grey.fc.weight, std=2.0)
    save_file(grey.state_dict(), tmp_path / "grey.safetensors")
    loaded = load_classifier(spec(tmp_path / "grey.safetensors"), "classifiers.mine", (1, 32, 32))
    mean, std = (adapt_to_chs(grey.default_cfg[key], 1)[0] for key in ("mean", "std"))
    wanted = logits(grey, ((images[:, :1] + 1) / 2 - mean) / std)
    torch.testing.assert_close(logits(loaded.module, images[:, :1]), wanted, rtol=1e-4, atol=1e-4)
    assert (wanted - logits(grey, images[:, :1])).abs().max() > 0.1


def test_pretrained_weights_that_cannot_be_had(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    wanted = TimmClassifier(timm="resnet10t", num_classes=1000)
    with pytest.raises(GradscopeError, match=r"^classifiers\.mine\.timm: timm cannot build 'resnet10t'"):
        load_classifier(wanted, "classifiers.mine", SHAPE)


def test_pretrained_weights_of_other_classes_are_refused_before_they_are_fetched():
    message = r"mine\.checkpoint: this key is missing, and .* of resnet10t have 1000 classes, got num_classes 4"
    with pytest.raises(GradscopeError, match=message):
        load_classifier(TimmClassifier(timm="resnet10t", num_classes=4), "classifiers.mine", SHAPE)


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 32, 32)])
def test_a_card_for_other_images_is_refused(shape):
    message = r"judge: judge was trained on images of 3 x 32 x 32 .*, but the denoiser makes images of " + " x ".join(
        map(str, shape)
    )
    with pytest.raises(GradscopeError, match=message):
        load_classifier("zoo:sportballs32/judge", "judge", shape)


class Payload:
    """Unpickled, it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_pickled_code_is_refused_and_not_run(tmp_path, how):
    path, proof = tmp_path / "weights.pt", tmp_path / "it ran"
    content = {"state_dict": Payload(proof)}
    if how == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(GradscopeError, match=rf"^classifiers\.mine\.checkpoint: {path} cannot be read as weights"):
        load_classifier(spec(path), "classifiers.mine", SHAPE)
    assert not proof.exists()
    torch.load(path, weights_only=False) if how == "torch" else pickle.loads(path.read_bytes())
    assert proof.exists()  # the payload does work where nobody guards


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), {"epoch": 3}, {"state_dict": {"fc.weight": 3}}])
def test_a_checkpoint_that_holds_no_weights_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(
        GradscopeError, match=r"^classifiers\.mine\.checkpoint: .* holds no mapping of layers to tensors"
    ):
        load_classifier(spec(tmp_path / "weights.pt"), "classifiers.mine", SHAPE)


def test_a_file_that_is_no_safetensors_is_refused(tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(GradscopeError, match=r"^classifiers\.mine\.checkpoint: .* cannot be read as weights"):
        load_classifier(spec(tmp_path / "weights.safetensors"), "classifiers.mine", SHAPE)


USERS = """
import torch
from torch import nn

class Means(nn.Module):
    def forward(self, x):
        return x.mean(dim=(2, 3))

def means():
    return Means().train()

def grey():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

def maps():
    return nn.Conv2d(3, 4, 3)

class Dictionary(nn.Module):
    def forward(self, x):
        return {"logits": x.mean(dim=(2, 3))}

def first():
    return nn.Sequential(Means(), nn.Flatten(0))

def function():
    return lambda x: x
"""


@pytest.fixture
def users_module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "users_classifiers.py").write_text(USERS)
    yield
    sys.modules.pop("users_classifiers", None)


def test_ones_own_callable_gets_images_as_they_are(users_module, images):
    loaded = load_classifier("users_classifiers:means", "judge", SHAPE)
    torch.testing.assert_close(logits(loaded.module, images), images.mean(dim=(2, 3)))
    assert (loaded.num_classes, loaded.classes) == (3, None)
    assert not loaded.module.training


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "grey",
            r"does not take images of 3 x 32 x 32 \(channel, height, width\), as the denoiser makes them: .*channels",
        ),
        ("maps", r"must give logits of shape \(n, classes\), .* it gave \(2, 4, 30, 30\) for n = 2"),
        (
            "Dictionary",
            r"must give logits of shape \(n, classes\), or an object with them as \.logits; .* gave dict for n = 2",
        ),
        ("first", r"must give logits of shape \(n, classes\), it gave \(6,\) for n = 2"),
        ("function", r"users_classifiers:function must give a torch\.nn\.Module, it gave function"),
        ("missing", r"users_classifiers has no 'missing'"),
    ],
)
def test_a_module_that_is_no_classifier_of_these_images(users_module, name, message):
    with pytest.raises(GradscopeError, match=rf"^judge: .*{message}"):
        load_classifier(f"users_classifiers:{name}", "judge", SHAPE)


def test_a_name_of_no_form_says_which_are_possible():
    with pytest.raises(GradscopeError, match=r"^judge: got 'resnet18'; possible: zoo:SET/NAME, .* \{timm: NAME"):
        load_classifier("resnet18", "judge", SHAPE)


def test_classifiers_must_agree_in_their_classes(checkpoint, users_module):
    four = load_classifier(spec(checkpoint), "classifiers.a", SHAPE)
    three = load_classifier("users_classifiers:means", "classifiers.b", SHAPE)
    check_classes({"classifiers.a": four, "judge": four})
    with pytest.raises(GradscopeError, match=r"^classifiers\.b: has 3 classes, classifiers\.a has 4; they must agree"):
        check_classes({"classifiers.a": four, "classifiers.b": three})
