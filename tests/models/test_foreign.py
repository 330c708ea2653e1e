import sys

import pytest

from gradscope.errors import GradscopeError
from gradscope.models import foreign


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder; what is imported from it is forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_module_in_the_current_folder(here):
    (here / "own_module.py").write_text("ANSWER = 42\ndef make():\n    return [ANSWER]\n")
    assert foreign.load("own_module:ANSWER", "judge") == 42
    assert foreign.call("own_module:make", "judge") == [42]


def test_a_module_inside_a_package(here):
    (here / "users_package" / "deep").mkdir(parents=True)
    (here / "users_package" / "deep" / "models.py").write_text("def make():\n    return __name__\n")
    assert foreign.call("users_package.deep.models:make", "judge") == "users_package.deep.models"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere.at_all:make", r"^judge: cannot import 'nowhere\.at_all' of 'nowhere\.at_all:make': No module"),
        ("own_module:mak", r"^judge: own_module has no 'mak'; did you mean 'make'\? one of: ANSWER, make"),
        ("own_module:ANSWER", r"^judge: own_module:ANSWER is of type int, which cannot be called"),
        ("needy:make", r"^judge: cannot import 'needy' of 'needy:make': No module named 'something_else'"),
    ],
)
def test_what_is_not_there_is_named(here, spec, message):
    (here / "own_module.py").write_text("ANSWER = 42\ndef make():\n    return ANSWER\n")
    (here / "needy.py").write_text("import something_else\n")
    with pytest.raises(GradscopeError, match=message):
        foreign.call(spec, "judge")


@pytest.mark.parametrize(
    ("text", "is_spec"),
    [
        ("module:make", True),
        ("package.module:make", True),
        ("zoo:sportballs32/ddpm", False),
        ("google/ddpm-cifar10-32", False),
        ("module", False),
        ("module:", False),
        (":make", False),
        ("C:\\models", False),
        ("./module.py:make", False),
    ],
)
def test_the_form_of_a_spec(text, is_spec):
    assert foreign.is_spec(text) is is_spec
