"""Norms and cosines of stored tensors against scipy and exact arithmetic, for any size, dtype and shape of a sample."""

import mpmath
import numpy as np
import pytest
import xarray as xr
from scipy.spatial.distance import cosine as cosine_distance
from small_store import evaluated, of_points, save

import gradscope
from gradscope.analysis import cosine, norm
from gradscope.errors import GradscopeError


def store(
    tensors: dict[str, np.ndarray], dims=("channel", "height", "width"), over=("sample", "timestep")
) -> xr.Dataset:
    return xr.Dataset({k: ((*over, *dims), v) for k, v in tensors.items()}, attrs={"sample_dims": list(dims)})


def exact_norm(x: np.ndarray) -> float:
    return float(mpmath.sqrt(mpmath.fsum(mpmath.mpf(float(v)) ** 2 for v in x.ravel())))


@pytest.mark.parametrize(
    ("size", "dtype"),
    [(1.0, "f4"), (1e-30, "f4"), (1e30, "f4"), (1e-40, "f4"), (1e-7, "f2"), (6e4, "f2"), (1e-300, "f8"), (1e300, "f8")],
)
@pytest.mark.parametrize(("shape", "dims"), [((3, 8, 8), ("channel", "height", "width")), ((5,), ("axis",))])
def test_any_size_is_right(size, dtype, shape, dims):
    rng = np.random.default_rng(0)
    a, b = ((size * rng.uniform(-1, 1, (2, 3, *shape))).astype(dtype) for _ in range(2))
    ds = store({"gradient": a, "update": b}, dims)
    lengths, angles = norm(ds, "gradient"), cosine(ds, "gradient", "update")
    assert lengths.dims == angles.dims == ("sample", "timestep")
    assert lengths.dtype == angles.dtype == np.float64
    for i, k in np.ndindex(2, 3):
        assert float(lengths[i, k]) == pytest.approx(exact_norm(a[i, k]), rel=1e-12)
        scaled = [(x[i, k].astype(np.longdouble) / np.abs(x[i, k]).max()).astype(float).ravel() for x in (a, b)]
        assert float(angles[i, k]) == pytest.approx(1 - cosine_distance(*scaled), abs=1e-12)


def test_very_different_sizes_have_a_cosine():
    x = np.random.default_rng(1).normal(size=(1, 1, 3, 4, 4))
    ds = store({"gradient": (1e-30 * x).astype("f4"), "update": (-1e30 * x).astype("f4")})
    assert cosine(ds, "gradient", "update").item() == pytest.approx(-1, abs=1e-6)


def test_zero_and_not_finite():
    x = np.ones((5, 1, 1, 2, 2), dtype=np.float32)
    x[0], x[1, ..., 0], x[2, ..., 0], x[3, 0, 0, 0] = 0, np.nan, np.inf, [np.inf, -np.inf]
    ds = store({"gradient": x, "update": np.ones_like(x)})
    np.testing.assert_array_equal(norm(ds, "gradient").values.ravel(), [0, np.nan, np.inf, np.inf, 2])
    for pair in (("gradient", "update"), ("update", "gradient"), ("gradient", "gradient")):
        np.testing.assert_allclose(cosine(ds, *pair).values.ravel(), [*[np.nan] * 4, 1], rtol=1e-15)


def test_a_store_gives_what_its_probes_recorded(tmp_path):
    ds = gradscope.open(save(evaluated(), tmp_path / "a.zarr"))
    length = ds.gradscope.norm("gradient")
    assert length.chunks is not None  # lazy
    kept = ds.written >= 3
    xr.testing.assert_allclose(length.compute(), ds.gradient_norm.where(kept).compute())
    before = ds.gradient.shift(timestep=1)
    xr.testing.assert_allclose(
        ds.gradscope.cosine("gradient", before).compute(), ds.gradient_cosine.where(kept).compute(), atol=1e-6
    )


def test_selections_first():
    ds = evaluated()
    one = ds.sel(classifier="robust", classifier_input="x_t", stabilizer="none", guidance_scale=0.5).isel(sample=1)
    assert one.gradscope.norm("gradient").dims == ("timestep",)
    np.testing.assert_allclose(one.gradscope.norm("gradient"), one.gradient_norm)
    a, b = (ds.gradient.sel(classifier=name).isel(sample=0, timestep=3) for name in ("robust", "non_robust"))
    between = ds.gradscope.cosine(a, b)  # classifier differs, and is gone
    assert between.dims == ("classifier_input", "stabilizer", "guidance_scale")
    x, y = (each[0, 1, 1].values.ravel() for each in (a, b))
    assert float(between[0, 1, 1]) == pytest.approx(1 - cosine_distance(x, y), abs=1e-12)
    red = ds.isel(channel=0).gradscope.norm("gradient")  # over the dimensions that are left
    np.testing.assert_allclose(red[0, 0, 0, 1, 0, 2], np.linalg.norm(ds.gradient[0, 0, 0, 1, 0, 2, 0]))


def test_points_and_broadcasting():
    ds = of_points(evaluated())
    np.testing.assert_allclose(ds.gradscope.norm("x_t"), np.linalg.norm(ds.x_t, axis=-1))
    last = ds.gradscope.cosine("x_t", "image")  # image has no timesteps
    assert last.dims == ds.gradient_norm.dims
    np.testing.assert_allclose(last[..., :4, -1], 1, atol=1e-12)


def test_errors_say_what_is_wrong():
    ds = evaluated()
    with pytest.raises(GradscopeError, match="did you mean 'gradient'"):
        ds.gradscope.norm("gradeint")
    with pytest.raises(GradscopeError, match="has none of the dimensions of a sample, channel, height, width"):
        ds.gradscope.norm("gradient_norm")
    with pytest.raises(GradscopeError, match="takes the name of a variable"):
        ds.gradscope.norm(3)
    with pytest.raises(GradscopeError, match="a lies over channel, height, width, b over height, width"):
        ds.gradscope.cosine("gradient", ds.gradient.isel(channel=0))
    with pytest.raises(GradscopeError, match="a and b do not match"):
        ds.gradscope.cosine("gradient", ds.gradient.isel(timestep=slice(3)))
