"""A user's own `probes` or `dashboards` in the current folder: errors name it, and it hides ours only where it must."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def hidden(tmp_path_factory):
    """A folder with both, whose content is a user's own."""
    folder = tmp_path_factory.mktemp("hidden")
    (folder / "probes").mkdir()
    (folder / "probes" / "__init__.py").write_text("DEPTH = 3\n")
    (folder / "dashboards.py").write_text("def serve_cakes():\n    pass\n")
    return folder


SAMPLER = "import gradscope; print(gradscope.GuidedSampler.__name__)"


def message(folder: Path, name: str, package: str) -> str:
    return f"{folder / name} hides gradscope's own package {package}, {ROOT / package}; rename it, "


def test_in_python_the_import_error_names_the_path(hidden):
    done = run(hidden, "-c", f"try:\n    {SAMPLER}\nexcept ImportError as error:\n    print(error)\n    raise")
    said = message(hidden, "probes/__init__.py", "probes") + "or start Python in another folder"
    assert done.stderr.splitlines()[-1] == f"gradscope.errors.HiddenPackage: {said}"
    assert done.stdout == f"{said}\n"


@pytest.mark.parametrize(
    ("arguments", "name", "package"),
    [
        (["record", "--config", "quickstart.yaml"], "probes/__init__.py", "probes"),
        (["dashboard", "a.zarr"], "dashboards.py", "dashboards"),
    ],
)
def test_on_the_command_line_it_is_one_paragraph(hidden, arguments, name, package):
    done = run(hidden, "-m", "gradscope", *arguments)
    further = "start in another folder, or type gradscope in place of python -m gradscope"
    assert done.stderr == f"gradscope: {message(hidden, name, package)}{further}\n"
    assert (done.returncode, done.stdout) == (2, "")
    assert {path.name for path in hidden.iterdir()} == {"probes", "dashboards.py"}


def test_what_needs_neither_works_beside_them(hidden):
    done = run(hidden, "-m", "gradscope", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    done = run(hidden, "-c", "import gradscope, probes; print(probes.DEPTH, gradscope.GradscopeError.__name__)")
    assert done.stdout == "3 GradscopeError\n"


def test_one_that_fails_by_itself_is_named_too(tmp_path):
    (tmp_path / "probes.py").write_text("import nothing_of_this_name\n")
    done = run(tmp_path, "-m", "gradscope", "record", "--config", "quickstart.yaml")
    assert done.stderr.startswith(f"gradscope: {message(tmp_path, 'probes.py', 'probes')}")
    assert done.returncode == 2


@pytest.mark.slow
def test_an_import_error_of_another_kind_stays_what_it_is(tmp_path):
    """A missing dependency is not laid on a user's folder."""
    code = "import sys; sys.modules['torch'] = None; import gradscope; gradscope.GuidedSampler"
    last = run(tmp_path, "-c", code).stderr.splitlines()[-1]
    assert last.startswith("ModuleNotFoundError: import of torch halted")


@pytest.mark.slow
def test_a_folder_without_init_hides_nothing(tmp_path):
    (tmp_path / "probes").mkdir()
    (tmp_path / "dashboards").mkdir()
    assert run(tmp_path, "-c", SAMPLER).stdout == "GuidedSampler\n"


@pytest.mark.slow
def test_a_users_module_is_found_in_the_current_folder_which_comes_last(hidden, tmp_path):
    """So its neighbours do not hide ours, where the current folder was not on the path before."""
    (hidden / "users_models.py").write_text("def make():\n    return 42\n")
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom gradscope.models import foreign\n"
        "print(foreign.call('users_models:make', 'judge'))\n"
        "import dashboards, probes\nprint(sys.path[-1], dashboards.serve.__name__, probes.GuidedStep.__name__)\n"
    )
    done = run(hidden, str(script))
    (hidden / "users_models.py").unlink()
    assert done.stdout == f"42\n{hidden} serve GuidedStep\n"
