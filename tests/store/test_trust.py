"""Forged metadata of a store are refused, key by key."""

import copy
import json
import shutil

import pytest
import small_store

from gradscope.errors import GradscopeError
from gradscope.store import open_store
from gradscope.store.untrusted import root as trust


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return small_store.save(small_store.evaluated(), tmp_path_factory.mktemp("stores") / "a.zarr")


@pytest.fixture(scope="module")
def document(store):
    return json.loads((store / "zarr.json").read_text())


NORM = ("consolidated_metadata", "metadata", "gradient_norm")
GRADIENT = ("consolidated_metadata", "metadata", "gradient")
REMOVED = object()
BYTES, ZSTD = {"name": "bytes", "configuration": {"endian": "little"}}, {"name": "zstd"}
INDEX = [BYTES, {"name": "crc32c"}]


def shards(**settings):
    return {
        "name": "sharding_indexed",
        "configuration": {"chunk_shape": [1] * 6, "codecs": [BYTES], "index_codecs": INDEX} | settings,
    }


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("zarr_format",), 2, "zarr_format must be 3, got 2"),
        (("node_type",), "array", "node_type must be 'group', got 'array'"),
        (("consolidated_metadata",), REMOVED, "not consolidated"),
        (("attributes", "schema_version"), REMOVED, "not one of gradscope's"),
        (("attributes", "schema_version"), "1", "schema_version must be a whole number of at least 1, got '1'"),
        (("attributes", "schema_version"), 99, "has schema version 99, this gradscope reads up to"),
        (("attributes",), [], r"attributes must be a mapping, got \[\]"),
        (("attributes", "cell_dims"), ["mine"], r"cell_dims must be classifier, .*further names, got \['mine'\]"),
        (("attributes", "sample_dims"), ["a", "a"], "sample_dims must be one to eight names, got"),
        (("attributes", "versions"), "[]", r"versions must be a mapping, got \[\]"),
        (("attributes", "resumed"), [1], r"resumed must be a list of mappings, got \[1\]"),
        (("attributes", "evaluation"), '{"excluded": {"a": 0.5}}', "evaluation.excluded must be a mapping of counts"),
        (("attributes", "status"), 1, "status must be a text, got 1"),
        (("attributes", "classes"), [1], r"classes must be a list of texts, got \[1\]"),
        (("attributes", "configuration"), {"a": 1}, "configuration must be JSON text"),
        (("attributes", "configuration"), "[1]", r"configuration must be a mapping, got \[1\]"),
        (("attributes", "configuration"), "{" * 9, "configuration cannot be read as JSON"),
        (("attributes", "configuration"), '{"guidance": {"interval": 3}}', "interval must be two timesteps.*, got 3"),
        (("attributes", "configuration"), '{"recording": {"tensor_samples": "x"}}', "tensor_samples must .* got 'x'"),
        (("attributes", "configuration"), '{"recording": {"tensor_samples": -1}}', "at least 0, got -1"),
        (("attributes", "configuration"), '{"recording": {"tensor_every": 0}}', "tensor_every must .* least 1, got 0"),
        (("attributes", "configuration"), '{"recording": {"tensor_every": true}}', "at least 1, got True"),
        (("attributes", "evaluation"), '{"distances": 3}', "evaluation.distances must be a list of texts, got 3"),
        ((*NORM, "zarr_format"), 2, "array gradient_norm: zarr_format must be 3, got 2"),
        ((*NORM, "node_type"), "group", "array gradient_norm: node_type must be 'array', got 'group'"),
        ((*NORM, "codecs"), [{"name": "numcodecs.pickle"}], "codecs.0 must be 'blosc', .*, got .*numcodecs.pickle"),
        ((*NORM, "codecs"), [shards(chunk_shape=[1])], "chunks of .* do not fit"),
        ((*NORM, "codecs"), [shards(chunk_shape=[0] * 6)], "chunk_shape must be a list of whole numbers of at least 1"),
        (
            (*NORM, "codecs"),
            [shards(codecs=["numcodecs.pickle"])],
            "codecs.0 must be a mapping, got 'numcodecs",
        ),
        ((*NORM, "codecs"), [shards(codecs=[shards()])], "codecs.0.name must be 'blosc', .* got 'sharding_indexed'"),
        ((*NORM, "codecs"), [shards(index_location="start")], "index_location must be 'end', got 'start'"),
        (
            (*NORM, "codecs"),
            [shards(index_codecs=["bytes"])],
            "index_codecs must be {'name': 'bytes'",
        ),
        ((*NORM, "codecs"), [shards(index_codecs=[*INDEX, INDEX[1]])], "index_codecs must be .* crc32c or nothing"),
        ((*NORM, "codecs"), [{"name": "sharding_indexed"}], "configuration is missing"),
        ((*NORM, "codecs"), [BYTES, {"name": "gzip"}], "codecs.1 must be 'blosc', .*got .*gzip"),
        ((*NORM, "codecs"), [BYTES, ZSTD, ZSTD], "compress twice; their decoded size is not known"),
        ((*NORM, "codecs"), [shards(), ZSTD], "sharding_indexed stands alone"),
        ((*NORM, "codecs"), 3, "codecs must be a list, got 3"),
        ((*NORM, "codecs"), [BYTES] * 9, "codecs must be shorter, got"),
        ((*NORM, "codecs"), REMOVED, "array gradient_norm: codecs is missing"),
        (NORM, 3, "array gradient_norm: its metadata must be a mapping, got 3"),
        ((*NORM, "codecs"), [], r"codecs must be longer, got \[\]"),
        ((*NORM, "data_type"), "object", "data_type must be one of: bool, .*, got 'object'"),
        ((*NORM, "data_type"), {"name": "structured"}, "data_type must be .*, got {'name': 'structured'}"),
        ((*NORM, "shape"), [-1] * 6, "shape must be a list of whole numbers of at least 0"),
        ((*NORM, "shape"), [10**400] * 6, "shape must be a list of whole numbers of at least 0"),
        ((*NORM, "shape"), [True] * 6, "shape must be a list of whole numbers of at least 0"),
        ((*NORM, "shape"), [2, 2, 2, 2, 17, 10], "'sample' has length 17, in another array 16|in another array 17"),
        ((*NORM, "dimension_names"), ["sample"], "do not name the 6 dimensions"),
        ((*NORM, "dimension_names"), ["sample"] * 6, "has a dimension twice"),
        ((*NORM, "dimension_names", 5), "time", "its dimensions are .*, wanted: .*'timestep'"),
        ((*NORM, "chunk_grid", "configuration", "chunk_shape"), [10**4] * 6, "takes more than 1073741824 bytes"),
        ((*NORM, "chunk_grid", "configuration", "chunk_shape"), [20] * 6, "are longer than shape"),
        ((*NORM, "chunk_grid", "configuration", "chunk_shape"), [0] * 6, "do not fit shape"),
        ((*NORM, "chunk_grid", "name"), "rectangular", "chunk_grid.name must be 'regular', got 'rectangular'"),
        ((*NORM, "storage_transformers"), ["x"], "storage_transformers must be absent: none is read, got"),
        (
            (*NORM, "chunk_key_encoding", "configuration"),
            3,
            "configuration must be a mapping, got 3",
        ),
        ((*NORM, "attributes"), 3, "attributes must be a mapping, got 3"),
        ((*NORM, "attributes", "units"), 3, "units must be a text, got 3"),
        ((*NORM, "attributes", "coordinates"), ["label"], "coordinates must be a text"),
        (
            (*NORM, "attributes", "scale_factor"),
            2.0,
            "attributes.scale_factor must be absent: it would .*, got 2.0",
        ),
        ((*GRADIENT, "data_type"), "int32", "array gradient: it holds int, wanted: float"),
        (("consolidated_metadata", "metadata", "../x"), {}, "an array cannot be named '../x'"),
        (("consolidated_metadata", "metadata", ".."), {}, "an array cannot be named '..'"),
        (("consolidated_metadata", "metadata", "a\nb"), {}, "an array cannot be named"),
        (("consolidated_metadata", "metadata", ".x"), {}, "an array cannot be named '.x'"),
        (("consolidated_metadata", "metadata", "\ud800"), {}, "an array cannot be named"),
        (("consolidated_metadata", "metadata", ""), {}, "an array cannot be named ''"),
        (("consolidated_metadata", "metadata", "written"), REMOVED, "it lacks written"),
    ],
)
def test_forged_metadata_are_refused_with_place_and_value(document, path, value, message):
    changed = inner = copy.deepcopy(document)
    for key in path[:-1]:
        inner = inner[key]
    if value is REMOVED:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    trust.parse(json.dumps(document).encode(), "a.zarr")
    with pytest.raises(GradscopeError, match=rf"^a\.zarr.*({message})"):
        trust.parse(json.dumps(changed).encode(), "a.zarr")


def test_metadata_are_bounded_in_size_and_depth(document, monkeypatch):
    with pytest.raises(GradscopeError, match="cannot be read as JSON"):
        trust.parse(b"[" * 10**6, "a.zarr")
    deep = copy.deepcopy(document)
    deep["attributes"]["mine"] = json.loads("[" * 50 + "]" * 50)
    with pytest.raises(GradscopeError, match="nested more than 25 deep at 'attributes.mine.0"):
        trust.parse(json.dumps(deep).encode(), "a.zarr")
    monkeypatch.setattr(trust, "MAX_METADATA_BYTES", 1000)
    with pytest.raises(GradscopeError, match="at most 1000 are read"):
        trust.parse(json.dumps(document).encode(), "a.zarr")


def test_a_second_description_in_an_older_format_is_not_read(store, tmp_path):
    """Zarr's format 2 has codecs that unpickle."""
    both = shutil.copytree(store, tmp_path / "a.zarr")
    (both / ".zgroup").write_text('{"zarr_format": 2}')
    assert open_store(both).sizes["sample"] == small_store.SAMPLES
    (both / "zarr.json").unlink()
    with pytest.raises(GradscopeError, match="is not a zarr store"):
        open_store(both)


@pytest.mark.parametrize("target", ["../elsewhere", "update"])
def test_links_in_a_store_are_not_followed(store, tmp_path, target):
    """Their targets might be overwritten, or be another array of the store."""
    mine = shutil.copytree(store, tmp_path / "a.zarr")
    shutil.move(mine / "gradient", tmp_path / "elsewhere")
    (mine / "gradient").symlink_to(target)
    with pytest.raises(GradscopeError, match=r"gradient is a link; links in a store are not followed"):
        open_store(mine)
    (tmp_path / "another.zarr").symlink_to(store)  # the store itself may be a link
    assert open_store(tmp_path / "another.zarr").sizes["sample"] == small_store.SAMPLES


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("classifier", ["a", "a"], "classifier has a value twice"),
        ("guidance_scale", [0.0, float("nan")], "guidance_scale is not finite"),
        ("bound", ["high", "low"], "bound must be low and high"),
    ],
)
def test_coordinates_are_those_of_a_run(tmp_path, name, values, message):
    path = small_store.save(small_store.evaluated().assign_coords({name: values}), tmp_path / "a.zarr")
    with pytest.raises(GradscopeError, match=message):
        open_store(path)


def test_attributes_do_not_change_values(tmp_path):
    """Neither units that look like dates nor a fill value that occurs in the data."""
    ds = small_store.evaluated()
    expected = ds["gradient_norm"].values.copy()
    path = small_store.save(ds, tmp_path / "a.zarr")
    file = path / "zarr.json"
    document = json.loads(file.read_text())
    attributes = document["consolidated_metadata"]["metadata"]["gradient_norm"]["attributes"]
    attributes |= {"units": "days since 2000-01-01", "_FillValue": "AAAAAAAAAAA=", "calendar": "noleap"}
    file.write_text(json.dumps(document))
    read = open_store(path)["gradient_norm"]
    assert read.attrs["units"] == "days since 2000-01-01"
    assert (read.values == expected).all()
