"""The main job, on the shipped models: `gradscope record --config both.yaml`, read back by plain xarray."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
READ = """
import sys, warnings
warnings.simplefilter("error")
import xarray
ds = xarray.open_zarr(sys.argv[1])
assert not {"gradscope", "torch"} & set(sys.modules)
for name in ds.variables:
    assert ds[name].attrs["long_name"], name
    assert ds[name].attrs["units"], name
"""
VARIABLES = {
    "gradient", "update", "gradient_norm", "gradient_cosine", "update_cosine", "log_prob", "effective_strength",
    "written", "own_accuracy", "judge_accuracy",
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("both")
    command = [
        sys.executable, "-m", "gradscope", "record", "--config", "both.yaml", "--store", "b.zarr",
        "--set", "sampling.samples=4", "--set", "sampling.num_inference_steps=20", "--device", "cpu",
    ]  # fmt: skip
    # One thread: blocks of four samples are small, and several threads wait for each other on a busy machine.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "writer stalled" in done.stdout
    assert "What came out" in done.stdout
    return folder / "b.zarr"


@pytest.mark.slow
def test_both_is_the_papers_grid_and_opens_without_gradscope(store):
    scales = YAML(typ="safe").load(ROOT / "runs" / "both.yaml")["guidance"]["guidance_scale"]
    done = subprocess.run([sys.executable, "-c", READ, str(store)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ds = xr.open_zarr(store)
    assert dict(ds.sizes) == {
        "classifier": 2,
        "classifier_input": 2,
        "stabilizer": 2,
        "guidance_scale": len(scales),
        "sample": 4,
        "timestep": 20,
        "channel": 3,
        "height": 32,
        "width": 32,
        "class": 4,
        "judge_class": 4,
        "bound": 2,
    }
    assert set(ds.data_vars) >= VARIABLES
    assert (ds["written"] == 3).all()
    assert ds.attrs["status"] == "complete"


@pytest.mark.slow
def test_norms_and_cosines_recomputed_from_the_tensors_agree(store):
    """Where float32 holds the tensor: a convinced guide's gradient lies below its range, and probes see float64."""
    ds = xr.open_zarr(store)
    for name in ("gradient", "update"):
        g = ds[name].values.astype("float64")
        g = g.reshape(*g.shape[:6], -1)
        norm = np.sqrt((g**2).sum(-1))
        held = norm > 1e-30
        assert held.mean() > 0.9
        np.testing.assert_allclose(ds[f"{name}_norm"].values, norm, rtol=1e-5, atol=1e-35)
        with np.errstate(invalid="ignore"):
            cosine = (g[..., 1:, :] * g[..., :-1, :]).sum(-1) / (norm[..., 1:] * norm[..., :-1])
        both = held[..., 1:] & held[..., :-1]
        np.testing.assert_allclose(ds[f"{name}_cosine"].values[..., 1:][both], cosine[both], rtol=1e-5)


@pytest.mark.slow
def test_every_cell_starts_from_the_same_noise(store):
    x_T = xr.open_zarr(store)["x_t"].isel(timestep=0).values
    x_T = x_T.reshape(-1, *x_T.shape[4:])
    assert (x_T == x_T[0]).all()


@pytest.mark.slow
def test_the_wheel_holds_the_presets_and_the_zoo(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    zoo = {p.relative_to(ROOT).as_posix() for p in (ROOT / "gradscope" / "models" / "zoo").rglob("*.safetensors")}
    assert len(zoo) == 5
    assert zoo <= names
    runs = [*ROOT.glob("runs/*.yaml"), *ROOT.glob("runs/train/**/*.yaml")]  # runs/models holds what was trained here
    assert {f"gradscope/presets/{p.relative_to(ROOT / 'runs').as_posix()}" for p in runs} <= names
    assert {"probes/step.py", "gradscope/reporting/templates/report.html.jinja"} <= names
