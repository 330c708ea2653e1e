"""Execute the notebooks of this folder and write them back with their outputs.

python runs/examples/execute.py                     all of them
python runs/examples/execute.py NOTEBOOK.ipynb ...  some

A second execution on the same machine gives the same file: one thread, no times, no versions.
"""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = sorted(Path(__file__).parent.glob("*.ipynb"))
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def executed(path: Path, folder: Path) -> nbformat.NotebookNode:
    """The notebook with fresh outputs.

    Parameters
    ----------
    path
        The notebook.
    folder
        Where its kernel runs. Temporary folders of the notebook are made in it, too.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        A cell raises.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=600,
        record_timing=False,
        coalesce_streams=True,  # how a stream is cut into parts depends on time
        resources={"metadata": {"path": str(folder)}},
    )
    settings = {
        "OMP_NUM_THREADS": "1",  # the number of threads changes the last digits, and sampling amplifies them
        "PYTHONWARNINGS": "ignore:IProgress not found",  # tqdm's, with a path of this machine
        "TMPDIR": str(folder),
    }
    client.execute(env=os.environ | settings)
    notebook.metadata = nbformat.from_dict(METADATA)
    return notebook


if __name__ == "__main__":
    for path in [Path(name) for name in sys.argv[1:]] or NOTEBOOKS:
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(executed(path, Path(folder)), path)
        print(path.name)
