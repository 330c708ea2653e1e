import hashlib
from importlib import resources
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file
from torch import nn

from gradscope.errors import GradscopeError
from gradscope.models import cards

ZOO = sorted((Path(str(resources.files("gradscope"))) / "models" / "zoo").rglob("*.yaml"))


def model(width: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.Conv2d(width, 2, 1))


def card(**changes) -> cards.Card:
    content = {
        "kind": "classifier",
        "architecture": {"timm": "resnet10t", "options": {}},
        "classes": ["a", "b"],
        "data": {"name": "sportballs"},
        "train_on": "clean",
        "seed": 0,
        "steps": 10,
        "batch_size": 2,
        "duration": 1.5,
        "device": "cpu",
        "versions": {"torch": "2"},
        "sha256": "0" * 64,
        "metrics": {"accuracy": {"value": 0.5, "n": 4, "interval": [0.1, 0.9], "about": "made up"}},
    }
    return cards.Card.model_validate(content | changes)


@pytest.fixture
def path(tmp_path):
    """A card with weights of `model`."""
    path = tmp_path / "mine.yaml"
    cards.write(path, card(sha256=cards.save_weights(path, model())))
    return path


def test_a_card_comes_back_as_it_was(tmp_path):
    written = card()
    cards.write(tmp_path / "mine.yaml", written)
    assert cards.read(tmp_path / "mine.yaml") == written


def test_a_card_of_before_temperatures_is_read(tmp_path):
    content = card().model_dump(mode="json")
    assert content.pop("temperature") == 1
    YAML().dump(content, tmp_path / "old.yaml")
    assert cards.read(tmp_path / "old.yaml") == card()


def test_weights_are_stored_as_float16_and_come_back_as_float32(path):
    weights = path.with_suffix(".safetensors")
    assert cards.read(path).sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    stored, original = load_file(weights), model().state_dict()
    loaded = model()
    for parameter in loaded.parameters():
        nn.init.zeros_(parameter)
    cards.load_weights(path, cards.read(path), loaded)
    for name, value in original.items():
        if value.is_floating_point():
            assert stored[name].dtype == torch.float16
            assert loaded.state_dict()[name].dtype == torch.float32
            torch.testing.assert_close(loaded.state_dict()[name], value, rtol=2**-11, atol=1e-7)
            assert torch.equal(loaded.state_dict()[name], value.half().float())
        else:
            assert torch.equal(stored[name], value)


def test_damaged_weights_are_refused(path):
    weights = path.with_suffix(".safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    changed = model(width=3)
    before = {k: v.clone() for k, v in changed.state_dict().items()}
    with pytest.raises(GradscopeError, match=rf"^judge: {weights}: its SHA-256 differs from the card's"):
        cards.load_weights(path, cards.read(path), changed, "judge")
    assert all(torch.equal(v, before[k]) for k, v in changed.state_dict().items())


def test_missing_weights_are_named(path):
    path.with_suffix(".safetensors").unlink()
    with pytest.raises(GradscopeError, match=r"mine\.yaml: its weights mine\.safetensors are missing"):
        cards.load_weights(path, cards.read(path), model())


def test_weights_of_another_shape_name_the_layers(path):
    message = r"0\.weight has shape \(3, 1, 3, 3\), the model wants \(5, 1, 3, 3\); 0\.bias .* and \d+ more$"
    with pytest.raises(GradscopeError, match=message):
        cards.load_weights(path, cards.read(path), model(width=5))


def test_missing_and_left_over_layers_are_named():
    state = model().state_dict()
    state["3.weight"] = state.pop("2.weight")
    with pytest.raises(GradscopeError, match=r"^here does not fit the model: 2\.weight is missing; 3\.weight is left"):
        cards.load_state(model(), state, "here")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "classifer"}, r"kind: got 'classifer'; did you mean 'classifier'\?"),
        ({"kinds": "classifier"}, r"kinds: unknown key; did you mean 'kind'\?"),
        ({"architecture": {}}, r"architecture: a classifier has timm and options; timm and options missing"),
        ({"temperature": 0.0}, r"temperature: must be greater than 0"),
        ({"data": {"nam": "sportballs"}}, r"data\.nam: unknown key; did you mean 'name'\?"),
        ({"metrics": {"accuracy": {"valu": 1}}}, r"metrics\.accuracy\.valu: unknown key; did you mean 'value'\?"),
    ],
)
def test_wrong_keys_of_a_card_are_named(tmp_path, changes, message):
    path = tmp_path / "mine.yaml"
    YAML().dump(card().model_dump(mode="json") | changes, path)
    with pytest.raises(GradscopeError, match=rf"^judge: {path}: .*{message}"):
        cards.read(path, "judge")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"kind: [", "a card, is not valid YAML"),
        (b"kind: a\nkind: b\n", "a card, is not valid YAML.* duplicate key"),
        (b"\xff\xfe\x00", "a card, cannot be read as text"),
        (b"", "must be a mapping of keys, got None"),
    ],
)
def test_a_file_that_is_no_card_is_refused(tmp_path, content, message):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(GradscopeError, match=rf"^judge: {path}.*{message}"):
        cards.read(path, "judge")


def test_names_outside_the_zoo_are_refused(tmp_path):
    with pytest.raises(GradscopeError, match=r"^judge: no 'zoo:nothing/here' in the zoo; .*one of: "):
        cards.resolve("zoo:nothing/here", "judge")
    with pytest.raises(GradscopeError, match=r"^judge: no card at '.*/none\.yaml'"):
        cards.resolve(str(tmp_path / "none.yaml"), "judge")


@pytest.mark.parametrize("path", ZOO, ids=lambda path: path.stem)
def test_the_zoo_is_whole(path):
    card = cards.read(path)
    assert cards.resolve(f"zoo:{path.parent.name}/{path.stem}", "judge") == path
    weights = path.with_suffix(".safetensors")
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == card.sha256
    assert all(v.dtype == torch.float16 for v in load_file(weights).values() if v.is_floating_point())


def test_the_zoo_is_small():
    assert sum(path.with_suffix(".safetensors").stat().st_size for path in ZOO) <= 24e6
