"""Every flipped byte of a store is found."""

import json

import pytest
import sound_store
from hypothesis import given, settings
from hypothesis import strategies as st
from sound_store import copied

from gradscope.errors import GradscopeError
from gradscope.store.locations.location import locate
from gradscope.verification.chunks import examine

stores = sound_store.stores
SUMMED = ("plain", "lz4", "sharded")

CHECKED = {"coordinates", "schema_version", "recorded", "configuration", "configuration_hash", "status", "evaluation"}


def is_covered(name, before, after):
    """Whether `verify` must find the change of a file.

    Each byte of every file is covered by a checksum or compared with another copy, except for whitespace in JSON, and
    for values that a store has once: the root's attributes about the origin (run_id, created, versions, device,
    threads, weights_sha256, classes, command), the configuration's `recording.path` and `durable`, the evaluation's
    settings, and the name of the attribute `configuration_hash`.
    """
    if name == "zarr.json" and b'"configuration_hash"' not in after:
        return False
    try:
        return name.rpartition("/")[2] != "zarr.json" or _checked_content(name, before) != _checked_content(name, after)
    except ValueError:
        return True


def _checked_content(name, content):
    about = json.loads(content)
    if name == "zarr.json" and "attributes" in about:
        checked = {key: value for key, value in about["attributes"].items() if key in CHECKED}
        if "configuration" in checked:
            checked["configuration"] = json.loads(checked["configuration"])
            checked["configuration"].get("recording", {}).update(path="", durable="")
        if "evaluation" in checked:
            checked["evaluation"] = json.loads(checked["evaluation"]).get("variables")
        about["attributes"] = checked
    return about


@pytest.mark.parametrize("kind", SUMMED)
def test_any_flipped_byte_of_any_file_is_found(stores, tmp_path, kind):
    path = copied(stores(kind), tmp_path)
    files = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
    root = [name for name in files if name == "zarr.json"]
    metadata = [name for name in files if name.endswith("/zarr.json")]
    chunks = [name for name in files if not name.endswith("zarr.json")]

    @settings(max_examples=25, derandomize=True, deadline=None, database=None)
    @given(st.sampled_from([root, metadata, chunks, chunks]).flatmap(st.sampled_from), st.data(), st.integers(1, 255))
    def flip(name, data, mask):
        file = path / name
        before = file.read_bytes()
        at = data.draw(st.integers(0, len(before) - 1))
        after = before[:at] + bytes([before[at] ^ mask]) + before[at + 1 :]
        file.write_bytes(after)
        try:
            wrong = {finding.array for finding in examine(locate(path)).findings}
        except GradscopeError:
            wrong = {""}
        finally:
            file.write_bytes(before)
        if is_covered(name, before, after):
            assert wrong
            if name != "zarr.json":
                assert name.partition("/")[0] in wrong

    flip()
    assert examine(locate(path)).findings == []
