"""What `small_verifier.py` makes of checkpoints: who may sign them, which can be relied on, and where a window begins.

It is written from docs/audit-format.md alone, steps 7 and 8 of its section 7.
"""

from collections import defaultdict

from tests.support.small_records import (
    NUMBER,
    PREV_HASH,
    PREV_SIGNATURE,
    TIPS,
    Record,
    is_checkpoint,
    is_signed,
    rotation_of,
)

Finding = tuple[str, str | None, int | None]
FOR_EVER = float("inf")
ALL = (1, FOR_EVER)


class Checkpoints:
    """The checkpoints of one archive, under some keys; `found` is what is wrong with them."""

    def __init__(self, keys: list[bytes], since: int | None, behind: int | None) -> None:
        self.found: set[Finding] = set()
        self.since, self.behind = since, behind
        self.is_window = since is not None or behind is not None
        self.records: dict[str, Record] = {}
        self.given = keys
        self.spans: dict[bytes, list[tuple[int, float]]] = {key: [ALL] for key in keys}
        self.former: dict[bytes, int] = {}

    def add(self, code: str, record: Record) -> None:
        """Report something at a record."""
        self.found.add((code, *record.at))

    def rotate(self) -> None:
        """Find out which keys may sign which checkpoints (section 6)."""
        rotations = [one for one in self.records.values() if one.event == "audit.key.rotate"]
        stated = [(form[2], one.at, form[:2], one) for one in rotations if (form := rotation_of(one.attributes))]
        refused: list[tuple[int, bytes, bytes, Record]] = []
        for first, _, (old, new), one in sorted(stated, key=lambda each: each[:2]):
            spans = self.spans.get(old, [(0, 0.0)])
            if not all(is_signed(one.text, signature, [old]) for signature in one.signatures):
                self.add("signature", one)
            elif spans[-1][1] == FOR_EVER and spans[-1][0] <= first:
                spans[-1] = (spans[-1][0], first)
                self.spans[new] = [*(span for span in self.spans.get(new, []) if span != ALL), (first, FOR_EVER)]
            else:
                refused.append((first, old, new, one))
        for first, old, new, one in reversed(refused):
            if old in self.spans or not (new in self.given or self.former.get(new, 0) > first):
                self.add("signature", one)
            else:
                self.former[old] = max(first, self.former.get(old, 0))

    def is_signed(self, one: Record, signature: str) -> bool:
        """Tell whether a key that may sign a checkpoint signed it (section 5)."""
        spans = [(key, span) for key, spans in self.spans.items() for span in spans]
        return is_signed(one.text, signature, [key for key, (first, end) in spans if first <= one[NUMBER] < end])

    def check_checkpoints(self) -> list[Record]:
        """Run steps 7 and 8; return the checkpoints that hold their numbers, by number."""
        claims: defaultdict[int, list[Record]] = defaultdict(list)
        for one in self.records.values():
            if one.event == "audit.checkpoint" and is_checkpoint(one.attributes):
                claims[one[NUMBER]].append(one)
        kept: dict[int, Record] = {}
        for number in sorted(claims, reverse=True):
            after = next((one for one in kept.values() if one.before_number == number), None)
            prev_hash, prev_signature = (after[PREV_HASH], after[PREV_SIGNATURE]) if after else (None, None)
            for one in claims[number]:
                good = {signature for signature in one.signatures if self.is_signed(one, signature)}
                vouched = after is not None and after.is_relied_on and one.digest == prev_hash
                one.is_relied_on = bool(good) or vouched or self.is_signed(one, prev_signature or "")
                former = [key for key, end in self.former.items() if number < end and one.is_relied_on]
                if not all(is_signed(one.text, signature, former) for signature in one.signatures - good):
                    self.add("signature", one)
            order = sorted(claims[number], key=lambda one: (not one.is_relied_on, one.digest != prev_hash, one.digest))
            kept[number], *others = order
            for one in others:
                self.add("checkpoint_number_reused", one)
        for number, one in kept.items():
            before = kept.get(one.before_number)
            stated = (one[PREV_HASH], one[PREV_SIGNATURE])
            is_linked = before is None or (
                stated[0] == before.digest and (stated[1] in before.signatures - {""} or self.has(before, stated[1]))
            )
            is_lowest = number == min(kept) and not any(other.is_relied_on for other in kept.values())
            if one.before_number and before is None and not (is_lowest and self.is_window):
                self.add("checkpoint_gap", one)
            if None in stated or not is_linked if one.before_number else stated != (None, None):
                self.add("checkpoint_link", one)
        return [kept[number] for number in sorted(kept)]

    def has(self, one: Record, signature: str) -> bool:
        """Tell whether a checkpoint carries no signature, or could carry this one."""
        return not one.signatures - {""} or self.is_signed(one, signature)

    def start_of(self, relied: list[Record]) -> Record | None:
        """Return the checkpoint that is trusted (section 7, a window)."""
        if self.behind is not None:
            before = [one for one in relied if one[NUMBER] <= self.behind]
        else:
            until = next((at for at, one in enumerate(relied) if (one.observed or FOR_EVER) > self.since), len(relied))
            before = [one for one in relied[:until] if len(one[TIPS]) < 200]
        if before or not relied or relied[0].before_number == 0:
            return before[-1] if before else None
        return next((one for one in relied if len(one[TIPS]) < 200), relied[0])

    def is_line(self, relied: list[Record], first: int, last: int) -> bool:
        """Tell whether no checkpoint is missing between two numbers."""
        before = {one[NUMBER]: one.before_number for one in relied}
        while last > first and last in before:
            last = before[last]
        return last == first
