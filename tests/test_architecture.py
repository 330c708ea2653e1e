"""The arrows between the rooms."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    "module", ["gradscope", "gradscope.store", "gradscope.analysis", "gradscope.console", "dashboards.app"]
)
def test_reading_and_analysing_load_no_torch(module):
    code = f"import sys, {module}; print(sorted({{'torch', 'diffusers', 'timm'}} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


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


def test_the_dashboard_listens_before_it_loads_what_only_stores_need(tmp_path):
    """Dask and scipy take a second, and Mantine's components that no page has half of one."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "import waitress\n"
        "from dashboards import serve\n"
        "class Server:\n"
        "    effective_port = 1\n"
        "    def __init__(self, app, **options):\n"
        "        assert app.test_client().get('/').status_code == 200\n"
        "        print(sorted({'dask', 'scipy', 'dash_mantine_components.Table'} & set(sys.modules)))\n"
        "    def run(self): pass\n"
        "waitress.create_server = Server\n"
        f"serve([Path({str(tmp_path)!r})], '127.0.0.1', 0, tell=lambda text: None)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def imports(path):
    """Top-level and nested imports of a file, as dotted names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def room(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:2]) if parts[0] == "gradscope" else parts[0]


ALLOWED = {
    "dashboards": {
        "dashboards",
        "gradscope",
        "gradscope.analysis",
        "gradscope.errors",
        "gradscope.independence",
        "gradscope.store",
    },
    "gradscope.store": {
        "gradscope.store",
        "gradscope.errors",
        "gradscope.fingerprint",
        "gradscope.names",
        "gradscope.units",
    },
    "gradscope.analysis": {
        "gradscope.analysis",
        "gradscope.errors",
        "gradscope.independence",
        "gradscope.intervals",
        "gradscope.store",
    },
    "gradscope.stabilizers": {"gradscope.stabilizers", "gradscope.errors"},
    "gradscope.data": {"gradscope.data", "gradscope.config", "gradscope.errors"},
    "gradscope.models": {
        "gradscope.models",
        "gradscope.data",
        "gradscope.config",
        "gradscope.device",
        "gradscope.errors",
        "gradscope.schedule",
    },
    "gradscope.evaluation": {
        "gradscope.evaluation",
        "gradscope.models",
        "gradscope.store",
        "gradscope.data",
        "gradscope.config",
        "gradscope.errors",
        "gradscope.guidance",
        "gradscope.independence",
        "gradscope.intervals",
        "gradscope.objectives",
        "gradscope.provenance",
        "gradscope.schedule",
    },
    "gradscope.sampler": {
        "gradscope.guidance",
        "gradscope.models",
        "gradscope.noise",
        "gradscope.schedule",
        "gradscope.stabilizers",
        "gradscope.errors",
        "probes",
    },
    "gradscope.guidance": {
        "gradscope.config",
        "gradscope.errors",
        "gradscope.models",
        "gradscope.objectives",
        "gradscope.schedule",
        "gradscope.smoothgrad",
    },
    "gradscope.smoothgrad": {"gradscope.errors", "gradscope.objectives"},
    "gradscope.objectives": {"gradscope.config", "gradscope.errors", "probes"},
}


def test_rooms_import_only_where_the_arrows_point():
    wrong = []
    for path in [*ROOT.glob("gradscope/**/*.py"), *ROOT.glob("probes/*.py"), *ROOT.glob("dashboards/**/*.py")]:
        ours = [n for n in imports(path) if n.split(".")[0] in ("gradscope", "probes", "dashboards")]
        if path.is_relative_to(ROOT / "probes"):
            wrong += [(path.name, name) for name in ours if not name.startswith("probes")]
        for name in ours:
            allowed = ALLOWED.get(room(path))
            target = ".".join(name.split(".")[:2]) if name.startswith("gradscope") else name.split(".")[0]
            if allowed is not None and target not in allowed:
                wrong.append((str(path.relative_to(ROOT)), name))
    assert wrong == []


def test_public_names_are_there():
    import gradscope

    for name in gradscope.__all__:
        assert getattr(gradscope, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        gradscope.nothing  # noqa: B018
