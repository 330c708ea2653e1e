"""Every fault of one file of a store: each byte flipped, each length, removed, and other things in its place."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FLIPPED, TRUNCATED, REMOVED, PIPE, FOLDER, LINK = "flipped", "truncated", "removed", "pipe", "folder", "link"
KINDS = (FLIPPED, TRUNCATED, REMOVED, PIPE, FOLDER, LINK)
LINKS = ("itself", "nothing", "a copy", "another")
OTHER_SPACE = {ord(" "): ord("\t"), ord("\n"): ord(" ")}


@dataclass(frozen=True)
class Fault:
    """What happens to a file."""

    file: str
    """Its path in the store."""
    kind: str
    at: int = 0
    """Which byte is flipped, or the length that is left."""
    byte: int = 0
    """What the byte becomes."""
    target: str = ""
    """One of `LINKS`: what the file links to."""

    def make(self, store: Path, content: bytes) -> None:
        """Damage the file, which has this content."""
        file = store / self.file
        if self.kind == FLIPPED:
            file.write_bytes(content[: self.at] + bytes([self.byte]) + content[self.at + 1 :])
            return
        if self.kind == TRUNCATED:
            file.write_bytes(content[: self.at])
            return
        file.unlink()
        if self.kind == PIPE:
            os.mkfifo(file)
        elif self.kind == FOLDER:
            file.mkdir()
        elif self.kind == LINK:
            file.symlink_to(self._linked(store, content))

    def _linked(self, store: Path, content: bytes) -> Path:
        file, aside = store / self.file, store.parent
        if self.target == "itself":
            return file
        if self.target == "nothing":
            return aside / "nothing"
        if self.target == "a copy":
            (aside / "copy").write_bytes(content)
            return aside / "copy"
        metadata = file.name == "zarr.json"
        others = [other for other in store.rglob("*") if (other.name == "zarr.json") == metadata and other.is_file()]
        # Of the same array, and as long, where there is one: its checksum is right.
        return min(others, key=lambda other: (other.parent != file.parent, other.stat().st_size != len(content), other))

    def undo(self, store: Path, content: bytes) -> None:
        """Write the file as it was."""
        file = store / self.file
        if file.is_dir() and not file.is_symlink():
            file.rmdir()
        elif file.is_symlink() or file.is_fifo():
            file.unlink()
        file.write_bytes(content)


def faults(file: str, content: bytes) -> Iterator[Fault]:
    """All faults of a file; no two alike, and none leaves it as it is."""
    text = file.endswith("zarr.json")
    for at, byte in enumerate(content):
        # Of text the last bit: another digit or letter, which mostly leaves JSON; of values each bit in turn.
        others = {byte ^ (1 if text else 1 << at % 8)}
        if text and byte in OTHER_SPACE:
            others.add(OTHER_SPACE[byte])
        yield from (Fault(file, FLIPPED, at, other) for other in sorted(others))
    yield from (Fault(file, TRUNCATED, length) for length in range(len(content)))
    yield from (Fault(file, kind) for kind in (REMOVED, PIPE, FOLDER))
    yield from (Fault(file, LINK, target=target) for target in LINKS)
