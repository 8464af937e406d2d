"""Draws ledgers that are intact, whatever happened to the processes that wrote them."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import strategies as st

from tests.support.ledger_maker import KEY, Ledger, Sealed, stream_id, tips_of

FORK = 1_000_000


class Intact:
    """A ledger, the keys that signed it, and what a restore lost of it; `alive` are the streams that grow."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.keys: list[Ed25519PrivateKey] = [KEY]
        self.lost: list[Sealed] = []
        self.alive: list[int] = []
        self.gone: list[int] = []
        self.streams = 0
        self.happened: list[str] = []

    def __repr__(self) -> str:
        return f"Intact({self.happened}, {len(self.ledger.records)} records, {len(self.lost)} lost)"

    def open(self) -> int:
        """Begin a process: another stream."""
        self.streams += 1
        # Ids do not sort as streams are opened.
        stream = (self.streams * 7) % 101
        self.ledger.append(stream)
        self.alive.append(stream)
        return stream

    def checkpoint(self, stream: int, number: int | None = None) -> None:
        """Write a checkpoint, which closes what was left open."""
        self.ledger.checkpoint(stream, closed=self.gone, number=number)
        self.gone = []

    def do(self, act: str, at: int) -> None:
        """Let something happen to one of the processes that are alive."""
        stream = self.alive[at % len(self.alive)] if self.alive else self.open()
        self.happened.append(f"{act} {stream}")
        match act:
            case "write":
                self.ledger.append(stream)
            case "checkpoint":
                self.checkpoint(stream)
            case "open":
                self.open()
            case "close" | "stop":
                self.ledger.append(stream, "audit.stream.close")
                self.alive.remove(stream)
                if act == "stop":
                    self.checkpoint(stream)
            case "kill" | "die idle":
                self.gone.append(stream)
                self.alive.remove(stream)
                if act == "die idle":
                    # Covered to its end by one checkpoint, and closed by the next one.
                    other = self.alive[0] if self.alive else self.open()
                    self.ledger.checkpoint(other, closed=[one for one in self.gone if one != stream])
                    self.gone = [stream]
            case "fence":
                # A process that was paused: another one closes its stream, and it goes on in a new one.
                self.gone.append(stream)
                self.alive.remove(stream)
                self.open()
            case "restart":
                self.gone += self.alive
                self.alive = []
                self.open()
            case _:
                self.keys.append(Ed25519PrivateKey.generate())
                self.ledger.rotate(stream, self.keys[-1])

    def restore(self, kept: int) -> None:
        """Set the ledger back to its first `kept` records, and go on as `migrate --after-restore` does."""
        self.happened.append(f"restore {kept}")
        self.lost += self.ledger.records[kept:]
        del self.ledger.records[kept:]
        self.ledger.step_minutes += 60
        self.ledger.first_id += 10_000
        ended = {one.stream for one in self.ledger.records if one.body["event_name"] == "audit.stream.close"}
        ended |= {tip["stream_id"] for seen in self.ledger.checkpoints() for tip in tips_of(seen) if tip["closed"]}
        self.alive, self.gone = [], []
        for stream in {one.stream for one in self.ledger.records} - ended:
            self.gone.append(next(at for at in range(101) if stream_id(at) == stream))
        self.streams += 1
        stream = (self.streams * 7) % 101
        self.ledger.append(stream, "audit.stream.open")
        self.ledger.append(stream, "audit.restore")
        self.checkpoint(stream, self.ledger.last_number() + FORK * int(self.ledger.step_minutes))
        self.alive.append(stream)

    def delivered(self) -> list[Sealed]:
        """Return everything that ever was, in the order in which it was sealed."""
        return sorted([*self.ledger.records, *self.lost], key=lambda one: str(one.body["observed_timestamp"]))


ACTS = (
    *("write", "write", "checkpoint", "checkpoint", "open", "close", "stop"),
    *("kill", "die idle", "fence", "restart", "rotate"),
)


@st.composite
def intact_ledgers(draw: st.DrawFn, *, max_acts: int = 14, with_restores: bool = True) -> Intact:
    """Return a ledger with up to so many acts, and at most two restores."""
    made = Intact()
    for _ in range(draw(st.integers(1, 3))):
        made.open()
    restores = draw(st.integers(0, 2)) if with_restores else 0
    for at_restore in range(restores + 1):
        for act, at in draw(
            st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, 3)), min_size=2, max_size=max_acts)
        ):
            # Who rotates in the time that a restore loses lets no old key sign the fork: not an intact ledger.
            made.do("write" if act == "rotate" and at_restore < restores else act, at)
        if at_restore < restores:
            made.restore(draw(st.integers(1, len(made.ledger.records))))
    return made
