"""Routes of the pictures, as the browser requests them."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import small_store
from flask import Flask
from PIL import Image

from dashboards.data.library import Library
from dashboards.images import routes
from dashboards.images.tiles import Tiles

FOREVER = "public, max-age=31536000, immutable"


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    ds = small_store.evaluated()
    ds["written"][0, 0, 0, 1, 2, 5:] = 0
    return Library([small_store.save(ds, folder / "small.zarr"), folder / "missing.zarr"])


def client(library, prefix="/"):
    server = Flask("test")
    routes.register(server, library, prefix)
    return server.test_client()


def test_a_frame_is_the_picture_with_its_description(library):
    run = library.run("5f0c")
    got = client(library).get("/frames/5f0c/2/4.png?cells=205&limits=cell&v=abc")
    picture = Tiles().frame(run, 2, 4, [0, 2, 9], "cell")
    assert got.data == picture.png
    assert got.mimetype == "image/png"
    assert got.headers["Cache-Control"] == FOREVER
    assert json.loads(got.headers["Gradscope-Frame"]) == json.loads(picture.description)
    with Image.open(io.BytesIO(got.data)) as image:
        assert image.size == (4 * 8, 3 * 8)
    for query, drawn in {
        "": ("cell",),
        "&limits=shared": ("shared",),
        "&limits=fixed&scale=log&channel=2": ("fixed", "log", 2),
    }.items():
        other = client(library).get(f"/frames/5f0c/2/4.png?cells=205{query}")
        assert other.data == Tiles().frame(run, 2, 4, [0, 2, 9], *drawn).png
        assert (other.data == got.data) is (query == "")


def test_browsers_keep_only_complete_pictures(library):
    browser = client(library)
    assert browser.get("/frames/5f0c/2/4.png?cells=3").headers["Cache-Control"] == FOREVER
    part = browser.get("/frames/5f0c/2/5.png?cells=3")
    assert part.headers["Cache-Control"] == "no-store"
    assert json.loads(part.headers["Gradscope-Frame"])["written"] == [True, False]
    assert browser.get("/thumbnails/5f0c/0.png?samples=0-15").headers["Cache-Control"] == FOREVER
    assert browser.get("/thumbnails/5f0c/1.png?samples=0-15").headers["Cache-Control"] == "no-store"
    assert browser.get("/thumbnails/5f0c/1.png?samples=3-15").headers["Cache-Control"] == FOREVER


def test_the_values_of_a_tensor_are_its_bytes(library):
    got = client(library).get("/values/5f0c/2/4/9/update?v=abc")
    about = json.loads(got.headers["Gradscope-Tensor"])
    stored = small_store.evaluated()["update"].values.reshape(16, 16, 10, 3, 8, 8)[9, 2, 4]
    assert about == {"shape": [3, 8, 8], "dtype": "<f4" if stored.dtype == "f4" else "<f8"}
    np.testing.assert_array_equal(np.frombuffer(got.data, about["dtype"]).reshape(about["shape"]), stored)
    assert got.headers["Cache-Control"] == FOREVER


def test_thumbnails_are_the_picture(library):
    got = client(library).get("/thumbnails/5f0c/3.png?samples=2-12&v=1")
    assert got.data == Tiles().thumbnails(library.run("5f0c"), 3, 2, 12).png
    assert got.mimetype == "image/png"
    assert "Gradscope-Frame" not in got.headers


@pytest.mark.parametrize("prefix", ["/", "/gradscope/", "/gradscope"])
def test_addresses_begin_with_the_prefix(library, prefix):
    browser = client(library, prefix)
    base = prefix.rstrip("/")
    assert browser.get(f"{base}/frames/5f0c/0/0.png?cells=1").status_code == 200
    assert browser.get(f"{base}/thumbnails/5f0c/0.png?samples=0-3").status_code == 200
    assert (browser.get("/frames/5f0c/0/0.png?cells=1").status_code == 200) is (base == "")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("frames/nothing/0/0.png?cells=1", "run 'nothing': one of 5f0c, "),
        ("frames/5f0c/4/0.png?cells=1", "sample 4: there are 4 samples with tensors, from 0"),
        ("frames/5f0c/0/10.png?cells=1", "step 10: there are 10 steps, from 0"),
        ("frames/5f0c/0/0.png?cells=10001", "cell 16: there are 16 cells, from 0"),
        ("frames/5f0c/0/0.png", "cells '': a hexadecimal number with 1 to 16 bits set"),
        ("frames/5f0c/0/0.png?cells=0", "cells '0': a hexadecimal"),
        ("frames/5f0c/0/0.png?cells=1ffff", "cells '1ffff': a hexadecimal"),
        ("frames/5f0c/0/0.png?cells=" + "f" * 5000, "cells 'ffffffffffffffffffff': a hexadecimal"),
        ("frames/5f0c/0/0.png?cells=robust", "cells 'robust': a hexadecimal"),
        ("frames/5f0c/0/0.png?cells=1&limits=all", "limits 'all': one of cell, shared, fixed"),
        ("frames/5f0c/0/0.png?cells=1&scale=sqrt", "scale 'sqrt': one of linear, log"),
        ("frames/5f0c/0/0.png?cells=1&channel=3", "channel '3': one of mean, 0, 1, 2"),
        ("values/nothing/0/0/0/gradient", "run 'nothing': one of 5f0c, "),
        ("values/5f0c/4/0/0/gradient", "sample 4: there are 4 samples with tensors, from 0"),
        ("values/5f0c/0/10/0/gradient", "step 10: there are 10 steps, from 0"),
        ("values/5f0c/0/0/16/gradient", "cell 16: there are 16 cells, from 0"),
        ("values/5f0c/0/0/0/log_prob", "tensor 'log_prob': one of gradient, update, x_t, pred_original_sample"),
        ("values/5f0c/2/5/1/gradient", "step 5 of sample 2 is not recorded yet"),
        ("thumbnails/nothing/0.png?samples=0-3", "run 'nothing': one of 5f0c, "),
        ("thumbnails/5f0c/16.png?samples=0-3", "cell 16: there are 16 cells, from 0"),
        ("thumbnails/5f0c/0.png?samples=0-16", "sample 16: there are 16 samples, from 0"),
        ("thumbnails/5f0c/0.png?samples=5-3", "samples 5-3: ascending, and at most 256 at once"),
        ("thumbnails/5f0c/0.png", "samples '': the first and the last, such as 0-63"),
        ("thumbnails/5f0c/0.png?samples=0:3", "samples '0:3': the first and the last"),
        ("thumbnails/5f0c/0.png?samples=" + "9" * 40 + "-1", "samples '99999999999999999999': the first"),
    ],
)
def test_an_unknown_picture_is_answered_in_a_line(library, address, reason):
    got = client(library).get(f"/{address}")
    assert got.status_code == 404
    assert got.mimetype == "text/plain"
    assert got.headers["Cache-Control"] == "no-store"
    assert got.text.startswith(reason)
    assert got.text.count("\n") == 1


def test_a_store_that_cannot_be_opened_is_answered_in_a_line(library):
    key = list(library.runs)[1]
    got = client(library).get(f"/frames/{key}/0/0.png?cells=1")
    assert got.status_code == 404
    assert "missing.zarr is not a zarr store" in got.text


def test_no_path_reaches_the_file_system(library, tmp_path):
    """Keys, numbers and words of an address are looked up, never opened."""
    browser = client(library)
    path = str(library.run("5f0c").path)
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "0.png").write_bytes(b"secret")
    for key in ("..", "%2e%2e", "..%2f..", path, path.replace("/", "%2f"), f"..{tmp_path}", "5f0c/../../x"):
        for rest in ("0/0.png?cells=1", "0.png?samples=0-1", "..%2f0.png", "-1/0.png", "1e9/0.png", "0/0.png/../x"):
            for kind in ("frames", "thumbnails"):
                got = browser.get(f"/{kind}/{key}/{rest}")
                assert got.status_code in (308, 404), (kind, key, rest)
                assert b"secret" not in got.data


def test_a_damaged_chunk_is_answered_in_a_line(copy):
    library = Library([copy])
    chunks = [file for file in (copy / "gradient" / "c").rglob("*") if Path(file).is_file()]
    for file in chunks:
        file.write_bytes(file.read_bytes()[:50])
    got = client(library).get("/frames/5f0c/0/0.png?cells=1")
    assert got.status_code == 404
    assert "s.zarr/gradient is damaged" in got.text
