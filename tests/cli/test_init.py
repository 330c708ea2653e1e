"""`gradscope init` writes a commented configuration."""

import pytest
from typer.testing import CliRunner

from gradscope.cli import app
from gradscope.config import RunConfig, load
from gradscope.errors import GradscopeError


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def init(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["init", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_quickstart_is_the_default(here):
    assert init() == "wrote quickstart.yaml\nedit it, then: gradscope record --config quickstart.yaml\n"
    assert load(RunConfig, "quickstart.yaml").recording.path == "runs/quickstart.zarr"


@pytest.mark.parametrize(
    ("preset", "name", "command"),
    [
        ("both", "both.yaml", "record"),
        ("both.yaml", "both.yaml", "record"),
        ("audit", "audit.yaml", "audit"),
        ("oracle", "oracle.yaml", "oracle"),
        ("train/ddpm32", "ddpm32.yaml", "train ddpm"),
        ("train/robust32", "robust32.yaml", "train classifier"),
    ],
)
def test_the_next_command_is_named(here, preset, name, command):
    assert init(preset) == f"wrote {name}\nedit it, then: gradscope {command} --config {name}\n"
    assert init(preset, "--out", "mine.yaml").endswith(f"gradscope {command} --config mine.yaml\n")
    assert (here / "mine.yaml").read_bytes() == (here / name).read_bytes()


def test_an_existing_file_is_kept_unless_it_is_to_be_overwritten(here):
    (here / "mine.yaml").write_text("precious")
    with pytest.raises(GradscopeError, match=r"^--out: mine\.yaml exists; choose another path, or .* \(--overwrite\)$"):
        init("both", "--out", "mine.yaml")
    assert (here / "mine.yaml").read_text() == "precious"
    init("both", "--out", "mine.yaml", "--overwrite")
    assert load(RunConfig, "mine.yaml").guidance.guidance_scale == [0, 0.5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bot"], r"^unknown preset 'bot'; did you mean 'both'\? one of: .*both, .*quickstart.*train/robust32"),
        (["../runs/both"], "^unknown preset '../runs/both'; "),
        (["both", "--out", "a.txt"], r"^--out: a configuration is saved as NAME\.yaml; got 'a\.txt'"),
        (["both", "--out", "nowhere/a.yaml"], "^--out: no folder nowhere"),
        (["both", "--out", "folder.yaml", "--overwrite"], r"^--out: folder\.yaml is a folder"),
    ],
)
def test_what_cannot_be_written_is_refused(here, arguments, message):
    (here / "folder.yaml").mkdir()
    with pytest.raises(GradscopeError, match=message):
        init(*arguments)
    assert [path.name for path in here.iterdir()] == ["folder.yaml"]
