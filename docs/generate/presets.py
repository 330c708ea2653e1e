"""The presets: the comment at the top of each file is what the page says."""

from itertools import takewhile

from markdown_tables import table

from gradscope.config import preset_folder


def text() -> str:
    """A row for each preset."""
    folder = preset_folder()
    rows = []
    for path in sorted(folder.rglob("*.yaml"), key=lambda path: (len(path.parts), path)):
        if "models" in path.relative_to(folder).parts:
            continue  # what a training wrote there
        name = path.relative_to(folder).as_posix()
        comment = takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
        said = " ".join(line.lstrip("# ") for line in comment)
        rows.append((f"[{name}](../runs/{name})", said))
    return table(("preset", "is"), rows)
