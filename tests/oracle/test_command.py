"""`gradscope oracle`."""

import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from gradscope.cli.commands import app
from gradscope.cli.oracle_workflow import choose
from gradscope.config import OracleConfig, load
from gradscope.errors import GradscopeError

SMALL = ["--mixtures", "points-separated-2", "--guides", "exact", "--samples", "8", "--set", "num_inference_steps=4"]


def oracle(*words: str) -> str:
    result = CliRunner().invoke(app, ["oracle", *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_it_prints_the_table_and_shows_that_of_a_store(tmp_path):
    chosen = ["--methods", "classifier@x_t, dps", "--stabilizers", "none,lion"]
    printed = oracle(*SMALL, *chosen, "--out", str(tmp_path / "a.zarr"))
    assert re.search(r"exact +classifier@x_t +none +1.00 ±0.00 +1.00 +1.00 +0.00 +0.00", printed)
    assert "points-separated-2" in printed
    assert "N = 8 samples, 2 replicates, 4 steps, mean over 1 mixtures" in " ".join(printed.split())
    ds = xr.open_zarr(tmp_path / "a.zarr")
    assert ds.guidance_method.values.tolist() == ["classifier@x_t", "dps"]
    assert ds.stabilizer.values.tolist() == ["none", "lion"]
    shown = oracle(str(tmp_path / "a.zarr"))
    assert printed.partition("a.zarr\n")[2] == shown  # after "wrote .../a.zarr", a long path of several lines


def test_names_keep_the_settings_of_the_configuration():
    config = load(OracleConfig, "oracle_full.yaml")
    found = choose(config, {"methods": "tfg@x0,dps", "guides": "noisy"}, {"samples": 9, "seed": None})
    assert found.methods == {"tfg@x0": config.methods["tfg@x0"], "dps": {}}
    assert found.guides == ["noisy"]
    assert (found.samples, found.seed) == (9, config.seed)
    assert choose(config, {"stabilizers": "adam,ema"}, {}).stabilizers == {"adam": {}, "ema": {}}
    assert choose(config, {"stabilizers": None}, {}).stabilizers is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--methods", "dps,,lgd"], "--methods: takes names, separated by commas"),
        (["--guides", "robust"], "guides"),
        (["--mixtures", "moons"], "mixtures: got 'moons'"),
        (["--stabilizers", "adm"], "unknown stabilizer 'adm'; did you mean 'adam'"),
        (["--methods", "pigdm"], "pigdm needs a linear measurement"),
        (["--samples", "1"], "samples"),
        (["--out", "a.csv"], "a leaderboard is saved as a zarr store"),
        (["nothing.zarr"], "is not a zarr store"),
    ],
)
def test_bad_input_is_refused(words, said):
    with pytest.raises(GradscopeError, match=said):
        CliRunner().invoke(
            app, ["oracle", *(SMALL if words[0] != "nothing.zarr" else []), *words], catch_exceptions=False
        )


@pytest.mark.slow
def test_an_interrupted_command_goes_on(tmp_path):
    words = [*SMALL, "--mixtures", "vectors-separated-2,vectors-separated-4", "--guides", "exact,clean,noisy,timed",
             "--out", str(tmp_path / "a.zarr")]  # fmt: skip
    command = [sys.executable, "-m", "gradscope", "oracle", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    parts = tmp_path / "a.zarr.parts"
    while process.poll() is None and (not parts.is_dir() or len(list(parts.glob("*.npz"))) < 5):
        time.sleep(0.02)  # the command needs the core
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert said == "gradscope: interrupted; the same command goes on from here\n"
    before = {path: path.stat().st_mtime_ns for path in parts.glob("*.npz")}
    assert len(before) >= 5
    assert not (tmp_path / "a.zarr").exists()
    subprocess.run(command, check=True, capture_output=True)
    assert not parts.exists()
    whole = xr.open_zarr(tmp_path / "a.zarr").load()
    subprocess.run([*command[:-1], str(tmp_path / "b.zarr")], check=True, capture_output=True)
    again = xr.open_zarr(tmp_path / "b.zarr").load()
    np.testing.assert_array_equal(whole.accuracy, again.accuracy)
    np.testing.assert_allclose(whole.update_cosine, again.update_cosine, rtol=1e-6)
