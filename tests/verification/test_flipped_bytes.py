"""Every flipped byte of a store is found; tests/damage flips each byte of a smaller one."""

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


@pytest.mark.slow
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
        assert wrong
        if name != "zarr.json":
            assert name.partition("/")[0] in wrong

    flip()
    assert examine(locate(path)).findings == []
