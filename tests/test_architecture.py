"""The arrows between the rooms."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import small_store

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_reading_and_analysing_load_no_torch():
    code = (
        "import importlib, sys\n"
        "for name in ('gradscope', 'gradscope.store', 'gradscope.analysis', 'gradscope.cli.display.tables',\n"
        "             'dashboards.app'):\n"
        "    importlib.import_module(name)\n"
        "    print(name, sorted({'torch', 'diffusers', 'timm'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [line.split()[1] for line in out.stdout.splitlines()] == ["[]"] * 5, out.stdout


def test_help_loads_nothing_heavy():
    code = (
        "import sys; sys.argv = ['gradscope', '--help']\n"
        "from gradscope.cli import main\n"
        "try:\n    main()\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'xarray', 'zarr', 'numpy', 'pandas', 'pydantic', 'rich'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip().endswith("[]")
    assert "gradscope record --config both.yaml" in out.stdout


@pytest.mark.slow
def test_recording_begins_without_what_judges_and_summarises():
    """Torchmetrics takes two seconds; it is loaded after the last step."""
    code = (
        "import sys\n"
        "import gradscope.cli.record_workflow\n"
        "late = {'torchmetrics', 'gradscope.evaluation.evaluate', 'distributed'}\n"
        "print(sorted(late & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "late"),
    [
        ("info", {"xarray", "pandas", "dask", "scipy", "torch", "gradscope.config"}),
        ("report", {"torch", "plotly", "gradscope.plots", "gradscope.config"}),
    ],
)
def test_commands_that_read_load_little(tmp_path, command, late):
    path = small_store.save(small_store.evaluated(), tmp_path / "a.zarr")
    code = (
        f"import sys; sys.argv = ['gradscope', {command!r}, {str(path)!r}]\n"
        "from gradscope.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end: assert not end.code\n"
        f"print(sorted({late!r} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_the_dashboard_listens_before_it_loads_what_only_stores_need(tmp_path):
    """Dask and scipy take a second."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from dashboards import serve\n"
        "from dashboards.security import connections\n"
        "class Server:\n"
        "    def __init__(self, app):\n"
        "        assert app.test_client().get('/').status_code == 200\n"
        "        print(sorted({'dask', 'scipy'} & set(sys.modules)))\n"
        "    def run(self): pass\n"
        "connections.listen = lambda app, host, port: (Server(app), port)\n"
        f"serve([Path({str(tmp_path)!r})], '127.0.0.1', 0, tell=lambda text: None)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


FLOORS: tuple[tuple[str, ...], ...] = (
    ("gradscope.errors", "gradscope.intervals", "probes"),
    ("gradscope.settings", "gradscope.text"),
    ("gradscope.stabilizers",),
    ("gradscope.config", "gradscope.store"),
    ("gradscope.analysis", "gradscope.data"),
    ("gradscope.models", "gradscope.plots", "gradscope.verification"),
    ("gradscope.reporting", "gradscope.sampling"),
    ("dashboards", "gradscope.evaluation", "gradscope.methods"),
    ("gradscope.accessor", "gradscope.recording"),
    ("gradscope.auditing", "gradscope.oracle", "gradscope.watching"),
    ("gradscope.checking",),
    ("gradscope.cli",),
    ("gradscope.__main__",),
)
"""Every room, from the ground up: a room imports from those on lower floors alone."""


def code():
    """Every file of ours, with its name as a module."""
    for path in [*ROOT.glob("gradscope/**/*.py"), *ROOT.glob("probes/*.py"), *ROOT.glob("dashboards/**/*.py")]:
        yield path, ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room(module):
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "gradscope" else parts[0]


def ours(path):
    """The modules of ours that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in ("gradscope", "probes", "dashboards"))


def test_every_import_leads_to_a_lower_floor():
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    wrong = []
    for path, module in code():
        if module == "gradscope":  # the public names, of all floors, loaded on first use
            continue
        for name in ours(path):
            if room(name) != room(module) and not floor[room(name)] < floor[room(module)]:
                wrong.append((module, name))
    assert wrong == []


def test_the_floors_name_every_room():
    rooms = {room(module) for _, module in code()} - {"gradscope"}
    assert rooms == {name for names in FLOORS for name in names}


def test_what_reads_strangers_stores_stands_on_what_finds_them():
    """Within the store: where it lies, then what may be read there, then reading."""
    lower = {"gradscope.store.locations": ("gradscope.store.untrusted",)}
    for path, module in code():
        for below, above in lower.items():
            if module.startswith(below):
                assert [name for name in ours(path) if name.startswith(above)] == []


def test_no_file_lies_outside_of_a_room():
    loose = {path.name for path in (ROOT / "gradscope").glob("*.py")}
    assert loose == {
        "__init__.py", "__main__.py", "accessor.py", "errors.py",
        "intervals.py", "methods.py", "settings.py", "text.py",
    }  # fmt: skip
    assert {path.name for path in (ROOT / "dashboards").glob("*.py")} == {
        "__init__.py", "app.py", "server.py", "shell.py", "state.py",
    }  # fmt: skip


def test_public_names_are_there():
    import gradscope

    for name in gradscope.__all__:
        assert getattr(gradscope, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        gradscope.nothing  # noqa: B018
