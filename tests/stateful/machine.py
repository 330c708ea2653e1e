"""A random user of two stores, with a second process that can be killed at any change of the disk."""

import shutil
from collections import Counter
from pathlib import Path
from tempfile import mkdtemp

from damage import faults
from hypothesis import event, note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from stateful.actions import ACTIONS, SEEDS
from stateful.model import Possible, begun, ended, seen
from stateful.other import DONE, STOPPED, Other

from gradscope.errors import GradscopeError, GradscopeWarning
from gradscope.verification.verify import verify

MOST = 400
"""An action changes the disk fewer times."""
SLOTS = st.sampled_from(["a.zarr", "b.zarr"])
WRITING = st.one_of(
    st.tuples(st.just("record"), st.tuples(st.sampled_from(SEEDS), st.booleans())),
    st.tuples(st.just("watch"), st.tuples(st.sampled_from(SEEDS))),
    st.tuples(st.just("evaluate"), st.just(())),
)
KINDS = (*("act", "other") * 3, "verify", "verify", "read", "copy", "damage", "damage")
"""What is possible in a step, as often as it is chosen; where it makes no sense, the store is written."""
taken: Counter[str] = Counter()
"""What was done how often, in all examples."""


class Stores(RuleBasedStateMachine):
    """Two stores, what each may be, and the action of the other process that has stopped."""

    @initialize()
    def begin(self) -> None:
        memory = Path("/dev/shm")
        self.folder = Path(mkdtemp(dir=memory if memory.is_dir() else None))
        self.possible: dict[str, Possible] = dict.fromkeys(("a.zarr", "b.zarr"), frozenset({None}))
        self.other = Other(self.folder, ACTIONS)
        self.stopped: tuple[str, str, tuple] | None = None

    def teardown(self) -> None:
        if hasattr(self, "other"):
            self.other.kill()
            shutil.rmtree(self.folder)

    def _is_still(self, slot: str) -> bool:
        return self.stopped is None or self.stopped[0] != slot

    def _count(self, what: str) -> None:
        taken[what] += 1
        event(what)

    def _see(self, slot: str) -> None:
        """What is on disk must be one of the possible states."""
        before = self.possible[slot]
        found = seen(self.folder / slot, before)
        assert found, (slot, before)
        self.possible[slot] = found if self._is_still(slot) else before

    @rule(kind=st.sampled_from(KINDS), slot=SLOTS, what=WRITING, number=st.integers(1, MOST), data=st.data())
    def step(self, kind: str, slot: str, what: tuple[str, tuple], number: int, data: st.DataObject) -> None:
        """One step of the user. One rule for all kinds: of several, hypothesis leaves some out for whole examples."""
        if kind == "other" and self.stopped:
            (self._go_on if number % 2 else self._kill)()
        elif kind == "other":
            self._begin_in_the_other(slot, *what, number % 40 + 1 if number % 2 else number)
        elif kind == "read" and self.stopped:
            self._count("read")
            self._see(slot)
        elif kind == "verify" and None not in self.possible[slot]:
            self._count("verify")
            assert verify(self.folder / slot).findings == ()  # whatever happened to it, and while it is written
        elif kind == "copy" and self.stopped is None and None not in self.possible[slot]:
            self._copy(slot)
        elif kind == "damage" and self._is_complete(slot):
            self._damage(slot, data)
        else:
            self._act(slot, *what)

    def _act(self, slot: str, action: str, arguments: tuple) -> None:
        """Write in this process. Where the other one has stopped, its lock may refuse that."""
        self._count(action)
        before = self.possible[slot]
        try:
            ACTIONS[action](self.folder / slot, *arguments)
        except (GradscopeError, GradscopeWarning) as error:
            self._check_refusal(slot, action, arguments, f"{type(error).__name__}: {error}")
        else:
            self.possible[slot] = after = ended(before, action, arguments)
            assert after, f"{action} {arguments} must be refused: {before}"
            if self.stopped and self.stopped[0] == slot:
                self.possible[slot] = after | begun(after, *self.stopped[1:])
        self._see(slot)

    def _check_refusal(self, slot: str, action: str, arguments: tuple, said: str) -> None:
        """An action may only be refused by an error of ours, and for a reason."""
        note(said)
        assert said.startswith("Gradscope"), said
        before = self.possible[slot]
        unsure = None in before or len({(state.kind, state.seed) for state in before if state}) > 1
        assert not ended(before, action, arguments) or unsure or not self._is_still(slot), said

    def _begin_in_the_other(self, slot: str, action: str, arguments: tuple, stop: int) -> None:
        """Let the other process write, up to some change of the disk."""
        self._count(f"other: {action}")
        answer = self.other.begin(action, (self.folder / slot, *arguments), stop)
        before = self.possible[slot]
        if answer == STOPPED:
            self.stopped = slot, action, arguments
            self.possible[slot] = begun(before, action, arguments)
        elif answer == DONE:
            self.possible[slot] = after = ended(before, action, arguments)
            assert after, f"{action} {arguments} must be refused: {before}"
        else:
            self._check_refusal(slot, action, arguments, answer)
        self._see(slot)

    def _go_on(self) -> None:
        """Let the other process end its action."""
        assert self.stopped
        slot, action, arguments = self.stopped
        self._count("go on")
        answer = self.other.go_on()
        note(answer)
        self.stopped = None
        if answer == DONE:
            self.possible[slot] = ended(self.possible[slot], action, arguments)
        else:
            assert answer.startswith("Gradscope"), answer
        self._see(slot)

    def _kill(self) -> None:
        """Kill the other process where it has stopped."""
        assert self.stopped
        slot = self.stopped[0]
        self._count("kill")
        self.other.kill()
        self.stopped = None
        self._see(slot)

    def _copy(self, slot: str) -> None:
        """Copy a store's folder over the other one."""
        to = next(name for name in self.possible if name != slot)
        self._count("copy")
        shutil.rmtree(self.folder / to, ignore_errors=True)
        shutil.copytree(self.folder / slot, self.folder / to)
        self.possible[to] = self.possible[slot]
        self._see(to)

    def _is_complete(self, slot: str) -> bool:
        return self._is_still(slot) and all(s and s.statuses == {"complete"} for s in self.possible[slot])

    def _damage(self, slot: str, data: st.DataObject) -> None:
        """Damage a complete store: it is found and never believed. Then undo it."""
        self._count("damage")
        store = self.folder / slot
        files = sorted(str(file.relative_to(store)) for file in store.rglob("*") if file.is_file())
        file = data.draw(st.sampled_from(files), "file")
        content = (store / file).read_bytes()
        fault = data.draw(st.sampled_from(list(faults.faults(file, content))), "fault")
        fault.make(store, content)
        try:
            assert self._is_found(store)
            try:
                self._see(slot)
            except GradscopeError as error:
                note(str(error))
        finally:
            fault.undo(store, content)

    def _is_found(self, store: Path) -> bool:
        try:
            return bool(verify(store).findings)
        except GradscopeError:
            return True

    @invariant()
    def nothing_is_unknown(self) -> None:
        if hasattr(self, "possible"):
            assert all(self.possible.values())
