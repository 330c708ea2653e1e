"""Reading a damaged or forged store gives an answer or a GradscopeError, and no other exception."""

import copy
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import dash_client
import pytest
import small_store
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from dashboards.app import app_of
from dashboards.data.library import Library
from dashboards.pages import PAGES
from gradscope.analysis import summary
from gradscope.cli.display import tables as console
from gradscope.cli.display.contents import print_contents
from gradscope.cli.display.report import report_parts
from gradscope.errors import GradscopeError
from gradscope.reporting.report import report, to_json
from gradscope.store import open_store
from gradscope.store.contents import contents
from gradscope.store.untrusted import root as trust

COMMON = {"derandomize": True, "deadline": None, "suppress_health_check": list(HealthCheck), "database": None}
TEXTS = "x|written|sample|timestep|float64|object|string|int8|NaN|../x|days since 2000-01-01|{}|[]|null|\x1b[31m|[/red]"
VALUES = st.one_of(
    st.none() | st.booleans() | st.floats() | st.sampled_from([-1, 0, 1, 2, 3, 10**9, 10**15, 2**63, 10**30]),
    st.sampled_from(TEXTS.split("|")) | st.text(max_size=5),
    st.sampled_from(["{" * 5000, '{"guidance": 3}', '{"interval": [0, 500]}', '{"distances": ["x"]}']),
    st.sampled_from([[], {}, [1], ["a"], [[]], {"a": 1}, {"name": "numcodecs.pickle"}, [{"name": "zstd"}]]),
)
ADDED = st.sampled_from("units coordinates _FillValue dtype calendar scale_factor .. a/b bound".split())


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A small evaluated store of four cells."""
    ds = small_store.evaluated().isel(classifier=[1], classifier_input=[0])
    for name in ds.data_vars:
        ds[name].attrs |= {"units": "1", "long_name": str(name)}
    return small_store.save(ds, tmp_path_factory.mktemp("stores") / "a.zarr")


@pytest.fixture(scope="module")
def root(original):
    return json.loads((original / "zarr.json").read_text())


@pytest.fixture(scope="module")
def places(root):
    return list(_places(root))


@pytest.fixture(scope="module")
def target(original, tmp_path_factory):
    """A copy that examples change and restore."""
    return Path(shutil.copytree(original, tmp_path_factory.mktemp("forged") / "a.zarr"))


def _places(value, at=()):
    if at:
        yield at
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield from _places(inner, (*at, key))


def forge(data, document, places):
    """A document with one to three values changed, removed or added."""
    document = copy.deepcopy(document)
    for _ in range(data.draw(st.integers(1, 3))):
        *path, last = data.draw(st.sampled_from(places))
        inner = document
        try:
            for key in path:
                inner = inner[key]
            how = data.draw(st.sampled_from(["change", "change", "remove", "add"]))
            if how == "remove":
                del inner[last]
            else:
                inner[last if how == "change" else data.draw(ADDED)] = data.draw(VALUES)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change removed this place
    return document


def look(path):
    """Read a store in every way that does not evaluate it."""
    ds = open_store(path)
    shown = Console(file=io.StringIO())
    print_contents(shown, contents(path))
    for table in console.summary_tables(summary(ds)):
        shown.print(table)
    if "evaluation" in ds.attrs:
        for table in console.evaluation_tables(ds):
            shown.print(table)


def analyse(path):
    ds = open_store(path)
    found = report(ds)
    to_json(found)
    shown = Console(file=io.StringIO())
    for part in report_parts(found, ds):
        shown.print(part)


def browse(path):
    """Open every page of the dashboard, a picture and thumbnails; each shows the store or an error."""
    library = Library([path])
    client = app_of(library, "/").server.test_client()
    client.get("/_dash-dependencies")
    outputs = ["page.children", "notices.children", "view.data", "store-select.value", "live.children", "poll.disabled"]
    for page in PAGES:
        address = ("address", "data", {"path": page, "query": {}})
        answer = client.post("/_dash-update-component", json=dash_client.body(outputs, [address], [], "address.data"))
        assert answer.status_code == 200
        assert "fault of gradscope" not in answer.text, answer.text
    key = next(iter(library.runs))
    for picture in (f"frames/{key}/0/0.png?cells=1", f"thumbnails/{key}/0.png?samples=0-3"):
        assert client.get(picture).status_code in (200, 404)


def answers(work, path):
    """Whether a function returns; False for a GradscopeError, and any other error is raised."""
    try:
        work(path)
    except GradscopeError:
        return False
    return True


@pytest.mark.slow
@settings(max_examples=600, **COMMON)
@given(data=st.data())
def test_forged_metadata_are_refused_before_anything_interprets_them(root, places, data):
    document = forge(data, root, places)
    answers(lambda content: trust.parse(content, "a.zarr"), json.dumps(document).encode())


@settings(max_examples=400, **COMMON)
@given(cuts=st.lists(st.tuples(st.integers(0, 10**6), st.binary(max_size=3)), min_size=1, max_size=4))
def test_damaged_metadata_are_refused(original, cuts):
    content = bytearray((original / "zarr.json").read_bytes())
    for at, put in cuts:
        content[at % len(content) : at % len(content) + len(put)] = put
    answers(lambda found: trust.parse(bytes(found), "a.zarr"), content)


def forged_store(data, root, places, target):
    (target / "zarr.json").write_text(json.dumps(forge(data, root, places)))


def damaged_store(data, original, target, restored):
    """One or more chunks cut off, changed, removed or made longer."""
    files = sorted(file for file in original.rglob("c/**/*") if file.is_file())
    for file in data.draw(st.lists(st.sampled_from(files), min_size=1, max_size=3, unique=True)):
        content, there = bytearray(file.read_bytes()), target / file.relative_to(original)
        restored.append((file, there))
        at = data.draw(st.integers(0, max(0, len(content) - 1)))
        match data.draw(st.sampled_from(["cut", "change", "remove", "longer"])):
            case "cut":
                there.write_bytes(content[:at])
            case "change":
                content[at : at + 4] = data.draw(st.binary(min_size=1, max_size=4))
                there.write_bytes(content)
            case "remove":
                there.unlink()
            case "longer":
                there.write_bytes(bytes(content) + b"more")


def one_example(data, original, root, places, target, work):
    restored = [(original / "zarr.json", target / "zarr.json")]
    if data.draw(st.booleans()):
        forged_store(data, root, places, target)
    else:
        damaged_store(data, original, target, restored)
    try:
        answers(work, target)
    finally:
        for file, there in restored:
            shutil.copyfile(file, there)


@pytest.mark.slow
@settings(max_examples=50, **COMMON)
@given(data=st.data())
def test_a_forged_or_damaged_store_is_an_answer_or_an_error(original, root, places, target, data):
    one_example(data, original, root, places, target, look)


@pytest.mark.slow
@settings(max_examples=10, **COMMON)
@given(data=st.data())
def test_the_dashboard_of_a_forged_or_damaged_store_shows_it_or_says_why(original, root, places, target, data):
    one_example(data, original, root, places, target, browse)


@pytest.mark.slow
@settings(max_examples=100, **COMMON)
@given(data=st.data())
def test_the_report_of_a_forged_or_damaged_store_is_an_answer_or_an_error(original, root, places, target, data):
    one_example(data, original, root, places, target, analyse)


@pytest.mark.slow
def test_an_unchanged_store_is_an_answer(original):
    assert answers(look, original)
    assert answers(analyse, original)
    browse(original)


@pytest.mark.slow
def test_a_claim_of_petabytes_takes_no_memory(original, tmp_path):
    """Opened and read in a process with at most 8 GiB of address space."""
    forged = shutil.copytree(original, tmp_path / "a.zarr")
    document = json.loads((forged / "zarr.json").read_text())
    for array in document["consolidated_metadata"]["metadata"].values():
        for axis, dim in enumerate(array.get("dimension_names", ())):
            if dim == "sample":
                array["shape"][axis] = 10**12
    (forged / "zarr.json").write_text(json.dumps(document))
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))\n"
        "from gradscope.errors import GradscopeError\n"
        "from gradscope.store import open_store\n"
        "try:\n    open_store(sys.argv[1])\n"
        "except GradscopeError as error:\n    print('refused:', error)"
    )
    out = subprocess.run([sys.executable, "-c", code, str(forged)], capture_output=True, text=True, check=True)
    assert re.search("refused: .* (more than 100000000 pieces|too large to be read)", out.stdout)
