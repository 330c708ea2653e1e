"""The state of a disk after any part of a trace: what it holds at once, and what a power failure may leave.

A file holds what its last ``sync`` found, and changes after that, each of which may be lost. So may each change of a
name after the last ``sync`` of its folder, in any order: a later one may survive where an earlier one is lost. One
change of names, as a rename, is never half done: that is what journals of file systems give, and POSIX asks of readers.
"""

import random
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from crash.tracing import Event

from gradscope.store.replacement import JOURNAL

State = dict[str, bytes | None]
"""Content of every file by its path; None for a folder."""
ROOT = 0
MOST = 256
"""Up to this number, all combinations of lost changes at one point are made."""
FORMS = ("whole", "empty", "half", "zeros")
"""What may be left of a file whose changes were not synced: all, its old state or nothing, a part, or its length."""
Sets = tuple[tuple[int, str, int | None], ...]
"""One change of names: folder, name, and the node that it then names, or None."""


@dataclass
class Node:
    """A file or a folder, with what is certainly on the disk."""

    content: bytes | None = None
    """Content of a file; None for a folder."""
    synced: bytes = b""
    pending: bool = False
    """Whether the file has changed since it was synced."""
    names: dict[str, int] = field(default_factory=dict)
    synced_names: dict[str, int] = field(default_factory=dict)

    def form(self, form: str) -> bytes:
        """Content that a power failure leaves, one of `FORMS`."""
        whole = self.content
        assert whole is not None
        match form:
            case "whole":
                return whole
            case "empty":
                return self.synced
            case "half":
                return whole[: len(whole) // 2]
        return bytes(len(whole))


class Disk:
    """Nodes and names; `apply` follows a trace."""

    def __init__(self, state: State) -> None:
        self.nodes: list[Node] = [Node()]
        self.unsynced: list[Sets] = []
        self._files: dict[int, int] = {}
        for path in sorted(state):
            content = state[path]
            parent, name = self._parent(path)
            node = self._new(content)
            self.nodes[node].synced = content or b""
            self.nodes[parent].names[name] = node
        for node in self.nodes:
            node.synced_names = dict(node.names)

    def _new(self, content: bytes | None) -> int:
        self.nodes.append(Node(content))
        return len(self.nodes) - 1

    def _node(self, path: str) -> int:
        at = ROOT
        for name in filter(None, path.split("/")):
            at = self.nodes[at].names[name]
        return at

    def _parent(self, path: str) -> tuple[int, str]:
        folder, _, name = path.rpartition("/")
        return self._node(folder), name

    def _set(self, *sets: tuple[int, str, int | None]) -> None:
        for folder, name, node in sets:
            if node is None:
                self.nodes[folder].names.pop(name, None)
            else:
                self.nodes[folder].names[name] = node
        self.unsynced.append(sets)

    def apply(self, event: Event, most: int | None = None) -> None:
        """Follow one event; of a ``write`` only the first `most` bytes."""
        at = event.path
        match event.kind:
            case "create" | "mkdir":
                made = self._new(None if event.kind == "mkdir" else b"")
                self._set((*self._parent(at), made))
                self.nodes[made].pending = event.kind == "create"
                self._files[event.file] = made
            case "open" | "read":
                self._files[event.file] = self._node(at)
            case "write" | "truncate":
                self._change(self.nodes[self._files[event.file]], event, most)
            case "sync":
                self._sync(self._files[event.file])
            case "rename":
                self._set((*self._parent(at), None), (*self._parent(event.other), self._node(at)))
            case "exchange":
                mine, theirs = self._node(at), self._node(event.other)
                self._set((*self._parent(at), theirs), (*self._parent(event.other), mine))
            case "link":
                self._set((*self._parent(event.other), self._node(at)))
            case "unlink" | "rmdir":
                self._set((*self._parent(at), None))

    def _change(self, node: Node, event: Event, most: int | None) -> None:
        assert node.content is not None
        node.pending = True
        if event.kind == "truncate":
            node.content = node.content[: event.at].ljust(event.at, b"\0")
        else:
            data = event.data[:most]
            before = node.content[: event.at].ljust(event.at, b"\0")
            node.content = before + data + node.content[event.at + len(data) :]

    def _sync(self, number: int) -> None:
        node = self.nodes[number]
        if node.content is not None:
            node.synced, node.pending = node.content, False
            return
        kept = []
        for sets in self.unsynced:
            if all(folder != number for folder, _, _ in sets):
                kept.append(sets)
            else:
                self._survive(sets)
        self.unsynced = kept

    def _survive(self, sets: Sets) -> None:
        for folder, name, node in sets:
            names = self.nodes[folder].synced_names
            if node is None:
                names.pop(name, None)
            else:
                names[name] = node

    def now(self) -> State:
        """All that processes see, which survives if the process is killed."""
        return dict(self._walk(ROOT, "", [node.names for node in self.nodes], {}))

    def after_power_failure(self, kept: Set[int], forms: dict[int, str]) -> State:
        """The state if these of the unsynced changes of names survive, and these files survive in another form."""
        names = [dict(node.synced_names) if node.content is None else {} for node in self.nodes]
        for number in sorted(kept):
            for folder, name, node in self.unsynced[number]:
                if node is None:
                    names[folder].pop(name, None)
                else:
                    names[folder][name] = node
        return dict(self._walk(ROOT, "", names, forms))

    def _walk(self, at: int, path: str, names: Sequence[dict[str, int]], forms: dict[int, str]) -> Iterator:
        for name, number in names[at].items():
            node, inside = self.nodes[number], f"{path}/{name}".lstrip("/")
            if node.content is not None:
                yield inside, node.form(forms[number]) if number in forms else node.content
            else:
                yield inside, None
                yield from self._walk(number, inside, names, forms)

    def uncertain(self, hidden: str) -> tuple[list[int], list[int]]:
        """Unsynced changes of names, and files with unsynced content, that bear on names without the prefix `hidden`.

        What can only be reached through hidden names, as a store that is being created, is left out.
        """
        reached, todo, changes = set[int](), [ROOT], set[int]()
        while todo:
            at = todo.pop()
            if at in reached:
                continue
            reached.add(at)
            if self.nodes[at].content is not None:
                continue
            named = [*self.nodes[at].synced_names.items()]
            for number, sets in enumerate(self.unsynced):
                for folder, name, node in sets:
                    if folder == at and not (at == ROOT and name.startswith(hidden)):
                        changes.add(number)
                        named += [(name, node)] if node is not None else []
            todo += [node for name, node in named if not (at == ROOT and name.startswith(hidden))]
        return sorted(changes), sorted(node for node in reached if self.nodes[node].pending)

    def power_failures(self, hidden: str, draws: int, rng: random.Random) -> Iterator[State]:
        """States that a power failure may leave: all if there are at most `MOST`, else the extremes and random ones.

        The extremes: all names survive and no content, all content and no names, nothing; names up to each eighth of
        the changes; each single change lost, and each single file in each form, if these are no more than `MOST`.
        """
        changes, files = self.uncertain(hidden)
        others = set(range(len(self.unsynced))) - {*changes}
        if 2 ** len(changes) * len(FORMS) ** len(files) <= MOST:
            for kept in product((False, True), repeat=len(changes)):
                chosen = {number for number, stays in zip(changes, kept, strict=True) if stays}
                for forms in product(FORMS, repeat=len(files)):
                    yield self.after_power_failure(others | chosen, dict(zip(files, forms, strict=True)))
            return
        everything = {*changes}
        for form in FORMS:
            yield self.after_power_failure(others | everything, dict.fromkeys(files, form))
            yield self.after_power_failure(others, dict.fromkeys(files, form))
        for eighth in range(1, 8):
            yield self.after_power_failure(others | {*changes[: len(changes) * eighth // 8]}, {})
        if len(changes) + len(files) * len(FORMS) <= MOST:
            for number in changes:
                yield self.after_power_failure(others | everything - {number}, {})
            for file, form in product(files, FORMS[1:]):
                yield self.after_power_failure(others | everything, {file: form})
        for _ in range(draws):
            share = rng.random()
            chosen = {number for number in changes if rng.random() < share}
            yield self.after_power_failure(others | chosen, {file: rng.choice(FORMS) for file in files})


def state_of(folder: Path) -> State:
    """The state of a real folder."""
    return {
        file.relative_to(folder).as_posix(): file.read_bytes() if file.is_file() else None for file in folder.rglob("*")
    }


def lay_out(state: State, folder: Path) -> None:
    """Make a real folder of a state."""
    folder.mkdir(parents=True)
    for path in sorted(state):
        content = state[path]
        if content is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(content)


def digest(state: State, hidden: str = "\0") -> int:
    """A hash of what readers can see of a state.

    Only the names at the top count where they have the prefix `hidden`, and only the names of files ``*.partial``:
    nothing reads these, which `crash.points.Run` checks. The list of arrays that are being replaced is read.
    """
    seen = []
    for path, content in state.items():
        within = path.startswith(hidden)
        unseen = within or (path.endswith(".partial") and not path.endswith(f"/{JOURNAL}"))
        if not within or "/" not in path:
            seen.append((path, None if unseen else content))
    return hash(frozenset(seen))
