"""What a machine without torch and dash does with the wheel: read, summarise and verify stores.

``python read_a_store.py STORE.zip`` in an environment that has the wheel and none of these; see `make test-wheel`.
"""

import importlib.util
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

import gradscope
from gradscope.store import Array, Frame, Grid, Schema, StoreWriter, create


def made(path: Path) -> np.ndarray:
    """A store of two samples, and the norms that it holds."""
    grid = Grid(
        classifier=("mine",), classifier_input=("x_t",), stabilizer=("none",), guidance_scale=(0.5,),
        label=np.array([0, 1]), seed=np.arange(2), timestep=np.array([20, 10, 0]), sigma=np.ones(3),
        alphas_cumprod=np.array([0.1, 0.5, 0.9]), sample_shape=(4,), batch_size=2,
    )  # fmt: skip
    about = {"long_name": "l2 norm of the gradient", "units": "1", "equation": "|g|_2"}
    norms = np.arange(6, dtype=np.float32).reshape(2, 3)
    schema = Schema(grid, (Array("gradient_norm", "scalar", about),))
    create(path, schema, {"status": "complete"})
    writer = StoreWriter(path, schema)
    for step in range(3):
        writer.submit(Frame((0, 0, 0, 0), 0, step, {"gradient_norm": norms[:, step]}))
    writer.close()
    return norms


def main(archive: str) -> None:
    absent = [name for name in ("torch", "diffusers", "timm", "dash", "plotly") if importlib.util.find_spec(name)]
    assert not absent, f"this environment has {absent}"
    assert "site-packages" in gradscope.__file__
    with tempfile.TemporaryDirectory() as folder:
        norms = made(Path(folder, "made.zarr"))
        ds = gradscope.open(Path(folder, "made.zarr"))
        np.testing.assert_array_equal(ds["gradient_norm"].values.reshape(2, 3), norms)
        assert gradscope.summary(ds)["samples"].item() == 2
        assert gradscope.verify(Path(folder, "made.zarr")).sound
        zipfile.ZipFile(archive).extractall(folder)
        (path,) = Path(folder).glob("schema_*.zarr")
        ds = gradscope.open(path)
        hits = (ds["judge_prediction"] == ds["label"]).mean("sample")
        np.testing.assert_allclose(gradscope.summary(ds)["judge_accuracy"].values, hits.values)
        assert gradscope.verify(path).sound
        print(f"{len(gradscope.signatures(ds))} findings; read without torch and dash")


if __name__ == "__main__":
    main(sys.argv[1])
