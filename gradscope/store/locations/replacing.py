"""A folder in which zarr replaces files as we do."""

import asyncio
from pathlib import Path

from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

from gradscope.store.locations.files import replace_file


class Replacing(LocalStore):
    """A zarr store in a folder. A killed process leaves at most one partial file of a key, which the next one replaces.

    With `durable` the content of a file reaches the disk before it replaces an earlier one.
    """

    def __init__(self, root: Path | str, *, read_only: bool = False, durable: bool = False) -> None:
        super().__init__(root, read_only=read_only)
        self._durable = durable

    async def set(self, key: str, value: Buffer) -> None:
        self._check_writable()
        await asyncio.to_thread(replace_file, self.root / key, value.as_buffer_like(), durable=self._durable)
