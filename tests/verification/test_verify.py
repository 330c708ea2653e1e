"""Stored scalars are compared with the stored tensors; wrong ones are found and named."""

import json
import re
import shutil
from functools import cache

import numpy as np
import pytest
import small_run
import sound_store
import xarray as xr
import zarr
from diffusers import DDPMScheduler
from google_crc32c import value as crc32c
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import LinearClassifier
from sound_store import KINDS, chunk, copied, edit, write
from typer.testing import CliRunner

import gradscope
from gradscope import cli
from gradscope.errors import GradscopeError
from gradscope.recording.prepare import prepare
from gradscope.recording.run import record_run
from gradscope.store import open_store
from gradscope.store.locations.location import locate
from gradscope.store.progress import unfinished
from gradscope.verification.ranges import outside
from gradscope.verification.recomputation import expected
from gradscope.verification.verify import verify

stores = sound_store.stores
AT = (1, 0, 0, 1, 1, 2)
PLACE = "classifier non_robust, classifier_input x_t, stabilizer none, guidance_scale 0.5, sample 1, timestep 400"


@pytest.fixture(scope="module")
def verified(stores):
    """What is found in the sound stores, by kind."""
    return cache(lambda kind: verify(stores(kind)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_sound_stores_are_sound(verified, kind):
    found = verified(kind)
    assert found.findings == ()
    assert found.sound
    assert (found.values > 0) == (kind != "just begun")


def test_every_scalar_with_tensors_is_recomputed(stores, verified):
    """Norms of 3 samples in 4 cells; cosines except at the first step, and at gradients that are zero or NaN."""
    values = {name: value for name, (value, _) in expected(open_store(stores("plain")).load()).items()}
    known = {name: int((~np.isnan(value)).sum()) for name, value in values.items()}
    assert known["gradient_norm"] == known["update_norm"] == known["finite_fraction"] == 4 * 3 * 7
    assert known["update_cosine"] == 4 * 3 * 6
    # Two blocks have a step with a NaN in their first sample and zeros in their last.
    # In one cell gradients fall from 1e-20 to 1e-38; at the last three steps they are below 1e-30 and unknown.
    assert known["gradient_cosine"] == 4 * 3 * 6 - 3 * 2 - 3 * 3
    # All samples, except at the last step, where sigma is 0.
    assert known["effective_strength"] == 4 * 5 * 6
    assert verified("plain").values == sum(known.values())


def test_every_kind_of_scalar_is_compared(verified):
    found = verified("plain")
    assert set(found.recomputed) == set(sound_store.SCALARS)
    assert found.remarks == ("not recomputed, because nothing in the store determines them: predicted_class",)
    assert set(verified("half").recomputed) == set(sound_store.SCALARS) - {
        "clipped_fraction", "gradient_lipschitz", "unit_gradient_lipschitz", "zero_fraction",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "sharded", "half"])
def test_scalars_that_differ_from_their_tensors_are_named(stores, verified, tmp_path, kind):
    path = copied(stores(kind), tmp_path)
    # The clamp and the score are not known everywhere; without a finite gradient the strength is not known.
    names = set(verified(kind).recomputed) - {"clipped_fraction", "score_cosine", "finite_fraction"}
    ds = open_store(path)
    for name in names:
        stored = float(ds[name][AT])
        write(path, name, AT, stored * 1.01 + (0 if "norm" in name or "lipschitz" in name else 0.01))
    assert {finding.array: finding.place for finding in verify(path).findings} == dict.fromkeys(names, PLACE)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "half"])
def test_the_fraction_of_finite_elements_is_compared_with_the_gradient(stores, tmp_path, kind):
    path = copied(stores(kind), tmp_path)
    write(path, "finite_fraction", AT, 0.5)
    at = {finding.array: finding.place for finding in verify(path).findings}
    assert at == {"finite_fraction": PLACE, "effective_strength": PLACE}


@pytest.mark.slow
def test_changed_tensors_are_found(stores, tmp_path):
    path = copied(stores("sharded"), tmp_path)
    for name in ("gradient", "update"):
        array = zarr.open_group(path, mode="r+")[name]
        array[AT] = array[AT] * 1.001
    norms = {finding.array: finding for finding in verify(path).findings if finding.array.endswith("_norm")}
    assert set(norms) == {"gradient_norm", "update_norm"}
    for norm in norms.values():
        assert norm.place == PLACE
        assert "1 of its values are wrong" in norm.what


@pytest.mark.slow
def test_a_score_and_a_clamp_are_compared_where_they_are_known(stores, tmp_path):
    path = copied(stores("plain"), tmp_path)
    write(path, "score_cosine", (0, 0, 0, 0, 2, 3), 0.9)
    write(path, "clipped_fraction", (0, 0, 0, 0, 1, 3), 0.5)
    at = {finding.array: finding.place for finding in verify(path).findings}
    first = "classifier robust, classifier_input x_t, stabilizer none, guidance_scale 0.0"
    assert at == {
        "score_cosine": f"{first}, sample 2, timestep 300",
        "clipped_fraction": f"{first}, sample 1, timestep 300",
    }


@pytest.mark.slow
def test_norms_without_tensors_must_be_numbers_where_the_gradient_is_finite(stores, tmp_path):
    path = copied(stores("plain"), tmp_path)
    write(path, "gradient_norm", (0, 0, 0, 0, 4, 5), np.nan)  # the last sample has no tensors
    (finding,) = verify(path).findings
    assert finding.array == "gradient_norm"
    assert finding.place.endswith("sample 4, timestep 100")
    assert finding.what.startswith("stored NaN, but the gradient is finite")


@pytest.mark.slow
def test_a_flipped_bit_without_a_checksum_is_found_by_recomputing(stores, tmp_path):
    path = copied(stores("old"), tmp_path)
    edit(chunk(path, "gradient"), lambda content: content.__setitem__(4 * 50 + 3, content[4 * 50 + 3] ^ 0x40))
    assert {finding.array for finding in verify(path).findings} >= {"gradient_norm", "gradient_cosine"}


@pytest.mark.slow
def test_values_of_damaged_chunks_are_not_reported_again(stores, tmp_path):
    path = copied(stores("plain"), tmp_path)
    file = chunk(path, "gradient")
    edit(file, lambda content: content.__setitem__(3, content[3] ^ 0x40))
    (finding,) = verify(path).findings
    assert finding.place == f"gradient/{file.name}"
    shutil.rmtree(path / "alphas_cumprod")
    assert "alphas_cumprod" in {finding.array for finding in verify(path).findings}


@pytest.mark.slow
def test_the_block_of_a_damaged_chunk_is_recorded_again(stores, tmp_path):
    """The remedy of the finding works: without the marker's chunk, the block is unfinished."""
    path = copied(stores("sharded"), tmp_path)
    chunk(path, "gradient", -1).unlink()
    (finding,) = verify(path).findings
    assert "remove written/c.1.0.0.1.1.*; then `gradscope.record(..., resume=True)` records" in finding.remedy
    (file,) = path.glob("written/c.1.0.0.1.1.*")
    file.unlink()
    assert unfinished(locate(path)) == [((1, 0, 0, 1), 1)]


@pytest.mark.slow
def test_the_command_reports_sound_and_damaged_stores(stores, tmp_path):
    def run(path):
        result = CliRunner().invoke(cli.app, ["verify", str(path)])
        return result, result.output.strip().splitlines()

    result, lines = run(stores("plain"))
    assert result.exit_code == 0
    assert lines[-1].startswith("sound: 230 chunks (")
    assert lines[-1].endswith(" values recomputed")
    path = copied(stores("plain"), tmp_path)
    file = chunk(path, "gradient")
    edit(file, lambda content: content.clear())
    (path / "x\x1b[31m\n").write_text("")
    result, lines = run(path)
    assert result.exit_code == 1
    assert any(line.startswith(f"gradient: gradient/{file.name}: it has 0 bytes, wanted ") for line in lines)
    assert lines[-1].startswith("damaged: gradient, x\\x1b[31m (2 findings; ")
    assert "\x1b" not in result.output
    result, _ = run(tmp_path / "none.zarr")
    assert isinstance(result.exception, GradscopeError)
    assert result.exception.exit_status == 2


@pytest.mark.slow
def test_a_store_behind_a_url_is_verified(stores, tmp_path):
    path = copied(stores("sharded"), tmp_path)
    here, there = verify(path), verify(f"file://{path}")
    assert (there.findings, there.chunks, there.bytes, there.values) == ((), here.chunks, here.bytes, here.values)
    file = chunk(path, "gradient", 3)
    file.unlink()
    assert [finding.place for finding in verify(f"file://{path}").findings] == [f"gradient/{file.name}"]


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 2**70), st.floats(), st.text(max_size=5), st.just([]), st.just({}),
    st.just(["sample"]), st.just([2**40] * 9), st.just([0] * 9),
    st.sampled_from(["string", "float64", "\ud800"]),
)  # fmt: skip


@pytest.mark.slow
def test_metadata_of_any_kind_are_findings_or_refused(stores, tmp_path):
    """One value in the metadata of the root or of an array is replaced."""
    path = copied(stores("plain"), tmp_path)
    whole = (path / "zarr.json").read_bytes()
    arrays = sorted(json.loads(whole)["consolidated_metadata"]["metadata"])

    @settings(max_examples=30, derandomize=True, deadline=None, database=None)
    @given(st.sampled_from(["", "", *arrays]), st.data(), VALUES)
    def change(name, data, value):
        root = json.loads(whole)
        arrays = root["consolidated_metadata"]["metadata"]
        inside = arrays[name] if name else root
        for _ in range(data.draw(st.integers(0, 3))):
            branches = [key for key in _keys(inside) if _keys(inside[key])]
            if branches:
                inside = inside[data.draw(st.sampled_from(branches))]
        if keys := _keys(inside):
            inside[data.draw(st.sampled_from(keys))] = value
        files = {path / "zarr.json": whole}
        if name:
            files[path / name / "zarr.json"] = (path / name / "zarr.json").read_bytes()
            (path / name / "zarr.json").write_text(json.dumps(arrays[name]))
        (path / "zarr.json").write_text(json.dumps(root))
        try:
            for finding in verify(path).findings:
                str(finding).encode(errors="replace")
        except GradscopeError:
            pass
        finally:
            for file, content in files.items():
                file.write_bytes(content)

    change()
    assert verify(path).sound


def _keys(value):
    if isinstance(value, dict):
        return sorted(value)
    return list(range(len(value))) if isinstance(value, list) else []


@pytest.mark.slow
@pytest.mark.parametrize(("gain", "variance_type"), [(300.0, "fixed_small"), (2.0, "fixed_large")])
def test_a_sound_recording_is_sound(tmp_path, monkeypatch, gain, variance_type):
    """With a saturated guide, whose gradients underflow in float32, and with steps that add more noise than sigma."""
    monkeypatch.setattr(small_run, "LinearClassifier", lambda **settings: LinearClassifier(gain=gain))
    monkeypatch.setattr(small_run, "DDPMScheduler", lambda: DDPMScheduler(variance_type=variance_type))
    path = tmp_path / "run.zarr"
    record_run(prepare(small_run.config(path, judge="none"), "cpu"))
    found = verify(path)
    assert found.findings == ()
    ds = gradscope.open(path)
    if gain > 100:
        lost = np.linalg.norm(ds["gradient"].values.reshape(*ds["gradient"].shape[:6], -1), axis=-1) == 0
        assert 0.05 < lost.mean() < 0.95
        assert np.isfinite(ds["update_cosine"].values[..., 1:]).mean() > 0.5
    else:
        strength, added = (ds[name].values[..., :-1] for name in ("effective_strength", "noise_added"))
        moved = ds["update_norm"].values[..., :-1] > 0  # where x0-hat is clamped everywhere, the gradient is zero
        np.testing.assert_allclose(strength[moved], (0.4 / 192**0.5 / added)[moved], rtol=1e-5)
        assert (added > ds["sigma"].values[:-1]).all()


OUTSIDE = [
    {
        "own_prediction": (-2, r"stored -2, which lies outside of \[-1, 1\]"),
        "alphas_cumprod": (-1.0, r"stored -1.0, which lies outside of \[0, 1.00001\]"),
        "sigma": (-0.5, r"stored -0.5, which lies outside"),
        "timestep": (-5, r"stored -5, which lies outside"),
        "step": (-1, r"stored -1, which lies outside"),
        "seed": (-3, r"stored -3, which lies outside"),
        "label": (7, r"stored 7, which lies outside of \[0, 1\]"),
        "predicted_class": (5, r"stored 5, which lies outside of \[0, 1\]"),
        "finite_fraction": (1.5, "which lies outside|recomputed"),
        "gradient_cosine": (1.5, "which lies outside|recomputed"),
    },
    {
        "own_prediction": (99, r"stored 99, which lies outside of \[-1, 1\]"),
        "alphas_cumprod": (1.5, r"stored 1.5, which lies outside"),
        "sigma": (np.inf, r"stored inf, which lies outside"),
    },
    {"alphas_cumprod": (np.nan, r"stored nan, which lies outside")},
    {"signal": (-0.5, r"stored -0.5, which lies outside"), "noise": (np.nan, r"stored nan, which lies outside")},
    {"alphas_cumprod": (0.5, "it is not that of signal and noise, as 1 of its values are not")},
    {"log_snr": (0.5, "it is not that of signal and noise, as 1 of its values are not")},
]


@pytest.mark.slow
@pytest.mark.parametrize("wrong", OUTSIDE, ids=range(len(OUTSIDE)))
def test_values_outside_of_their_range_are_named(stores, tmp_path, wrong):
    """The values are wrong, but the chunks are complete and have right checksums."""
    path = copied(stores("plain"), tmp_path)
    ds = open_store(path)
    for name, (value, _) in wrong.items():
        write(path, name, tuple(0 for _ in ds[name].dims) if ds[name].ndim < 6 else AT, value)
    found = verify(path).findings
    for name, (_, message) in wrong.items():
        (finding,) = (finding for finding in found if finding.array == name)
        assert re.search(message, finding.what), name


@pytest.mark.parametrize(
    ("name", "value", "wrong"),
    [
        ("judge_accuracy", 0.5, False), ("judge_accuracy", 3, True), ("class_accuracy", 7, True),
        ("own_accuracy", -1, True), ("judge_accuracy_interval", 2, True), ("coverage", 5, True), ("recall", 1.5, True),
        ("confusion", -5, True), ("density", 1.5, False), ("density", -1, True), ("transfer_ratio", -1, False),
        ("fd_extractor", -5, True), ("fd_extractor_interval", -5, False), ("kd_extractor", -0.1, False),
        ("judge_prediction", -2, True), ("judge_prediction", -1, False),
    ],
)  # fmt: skip
def test_values_of_an_evaluation_lie_in_their_ranges(name, value, wrong):
    ds = xr.Dataset({name: ("x", [0.5, value]), "label": ("sample", [0, 1])})
    assert outside(ds, name).tolist() == [False, wrong]


@pytest.mark.slow
@pytest.mark.parametrize("depth", [30, 400, 900, 10**5])
def test_deeply_nested_metadata_of_an_array_are_a_finding(stores, tmp_path, depth):
    path = copied(stores("plain"), tmp_path)
    (path / "image" / "zarr.json").write_text('{"attributes": ' + "[" * depth + "]" * depth + "}")
    (finding,) = verify(path).findings
    assert (finding.place, finding.what) == ("image/zarr.json", "it cannot be read as JSON")


@pytest.mark.parametrize("kind", ["plain", "old"])
def test_a_chunk_that_claims_many_texts_is_not_decoded(stores, tmp_path, kind):
    """The decoder would make room for four thousand million texts."""
    path = copied(stores(kind), tmp_path)
    file = chunk(path, "stabilizer")
    content = (2**32 - 1).to_bytes(4, "little") + file.read_bytes()[4 : -4 if kind == "plain" else None]
    file.write_bytes(content + (crc32c(content).to_bytes(4, "little") if kind == "plain" else b""))
    with pytest.raises(GradscopeError, match="stabilizer/c.0 is damaged: it claims 4294967295 texts, wanted 1"):
        open_store(path)
    assert "stabilizer" in {finding.array for finding in verify(path).findings}


def test_a_probability_is_at_most_one():
    ds = xr.Dataset({"log_prob": ("x", [-0.5, 0.5]), "label": ("sample", [0, 1])})
    assert outside(ds, "log_prob").tolist() == [False, True]
