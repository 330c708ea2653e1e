"""What `mkdocs build` does beside reading docs/: files from outside of it, generated parts of pages, equations.

- Pages link to files of the repository as on a code host (``../runs/both.yaml``). Those files join the site, and the
  links are shortened to lead there.
- A line ``<!-- generated: NAME -->`` is replaced by the text that `GENERATED` makes, of the
  words after the name where there are some.
- Equations become MathML, which browsers draw without a script.
"""

import re
from pathlib import Path

import command_line
import configuration
import diagnostics
import exactness_table
import layout
import mathematics
import methods
import needs
import population
import presets
import results
import signatures
import stabilizers
import verdicts
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
FROM_OUTSIDE = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "runs/*.md",
    "runs/*.py",
    "runs/**/*.yaml",
    "runs/**/*.png",
    "runs/examples/*.ipynb",
)
"""Files of the repository that are part of the site, at the same paths."""
GENERATED = {
    "commands": command_line.text,
    "configuration": configuration.text,
    "diagnostics": diagnostics.text,
    "exactness": exactness_table.text,
    "layout": layout.text,
    "methods": methods.text,
    "needs": needs.text,
    "population": population.text,
    "presets": presets.text,
    "results": results.text,
    "signatures": signatures.text,
    "stabilizers": stabilizers.text,
    "verdicts": verdicts.text,
}
_MARKER = re.compile(r"^<!-- generated: (\w+)((?: \w+)*) -->$", re.M)
_LINK = re.compile(r"(\]\()((?:\.\./)*docs/|(?:\.\./)+)(?=[\w.-])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for pattern in FROM_OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    markdown = _MARKER.sub(lambda found: GENERATED[found[1]](*found[2].split()), markdown)
    return _LINK.sub(lambda found: found[1] + within_site(found[2], page.file.src_uri), markdown)


def within_site(climb: str, page: str) -> str:
    """The beginning of a link without the step that leaves docs/ or enters it: docs/ is the root of the site."""
    if climb.endswith("docs/"):
        return climb.removesuffix("docs/")
    return climb[3:] if climb.count("../") > page.count("/") else climb


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    return mathematics.as_mathml(html)
