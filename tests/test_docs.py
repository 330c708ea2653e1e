"""The documentation is right: its code runs, its configurations are valid, its links lead somewhere, it builds."""

import doctest
import importlib
import re
import shutil
from pathlib import Path
from typing import Any

import docs_names
import pytest
from documentation import PAGES, ROOT, blocks, name_of, prose

import gradscope
from gradscope.config import AuditConfig, RunConfig, TrainClassifierConfig, check, read_yaml

REFERENCE = ROOT / "docs" / "reference"
WITH_EXAMPLES = [
    path
    for package in ("gradscope", "probes")
    for path in sorted((ROOT / package).rglob("*.py"))
    if re.search(r"^\s*>>> ", path.read_text(encoding="utf-8"), re.M)
]


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stores")
    docs_names.make_stores(folder)
    return folder


@pytest.fixture
def names(stores, tmp_path, monkeypatch) -> dict[str, Any]:
    """Names for the examples of one page, which run in a folder with stores of their own."""
    shutil.copytree(stores, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return docs_names.names()


def run_examples(examples: doctest.DocTest) -> None:
    said: list[str] = []
    doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE).run(
        examples, out=said.append, clear_globs=False
    )
    assert not said, "".join(said)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name_of)
def test_python_of_a_page_runs_from_top_to_bottom(page, names):
    for number, block in enumerate(blocks(page, "python")):
        where = f"{name_of(page)}, block {number}"
        if block.startswith(">>>"):
            run_examples(doctest.DocTestParser().get_doctest(block, names, where, None, None))
        else:
            exec(compile(block, where, "exec"), names)


@pytest.mark.slow
@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=name_of)
def test_examples_of_docstrings_run(path, names):
    module = importlib.import_module(name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    found = doctest.DocTestFinder(exclude_empty=True).find(module, globs=vars(module) | names)
    assert any(test.examples for test in found)
    for test in found:
        run_examples(test)


def test_every_public_function_and_class_has_an_example():
    public = {name: getattr(gradscope, name) for name in gradscope.__all__}
    assert [name for name, value in public.items() if callable(value) and ">>> " not in (value.__doc__ or "")] == []


@pytest.mark.parametrize(("page", "block"), [(page, block) for page in PAGES for block in blocks(page, "yaml")])
def test_configurations_of_the_pages_are_valid(page, block, tmp_path):
    """A whole one by itself; some keys of a run in the place of those of both.yaml."""
    (tmp_path / "page.yaml").write_text(block, encoding="utf-8")
    content = read_yaml(tmp_path / "page.yaml", name_of(page))
    for key, model in {"timm": TrainClassifierConfig, "class_index": AuditConfig}.items():
        if key in content:
            check(model, content, name_of(page))
            return
    check(RunConfig, read_yaml(ROOT / "runs" / "both.yaml", "both.yaml") | content, name_of(page))


def test_the_configuration_that_the_reference_shows_is_both_yaml(tmp_path):
    (tmp_path / "shown.yaml").write_text(blocks(REFERENCE / "configuration.md", "yaml")[0], encoding="utf-8")
    assert read_yaml(tmp_path / "shown.yaml", "page") == read_yaml(ROOT / "runs" / "both.yaml", "both.yaml")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_of_the_repository(page):
    """As on a code host; the build looks at the anchors."""
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", prose(page))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_are_named_are_there(page):
    named = re.findall(r"`((?:tests|gradscope|dashboards|probes|runs|docs)/[\w/]+(?:\.py|/))`", prose(page))
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_the_citation_names_the_paper():
    cited = read_yaml(ROOT / "CITATION.cff", "CITATION.cff")
    assert cited["cff-version"] == "1.2.0"
    assert [identifier["value"] for identifier in cited["references"][0]["identifiers"]] == ["arXiv:2406.17399"]
