"""A second verifier, written from docs/audit-format.md alone, to compare the first one with.

It takes an archive of OTLP JSON lines, public keys and, if only a window is to be verified, its time or number, and
returns the codes found, each with stream and number. Checkpoints that a restore lost are not for it.
"""

import hashlib
import json
from collections import defaultdict
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.support.small_checkpoints import FOR_EVER, Checkpoints, Finding
from tests.support.small_records import (
    NUMBER,
    RECORDS,
    STREAMS,
    TIPS,
    Record,
    body_codes,
    fields,
    index_codes,
    is_checkpoint,
)


class Verifier(Checkpoints):
    """Goes through one archive, or a window of it, under some keys; `found` is what it finds."""

    def __init__(self, archive: str, keys: list[bytes], since: int | None, behind: int | None) -> None:
        super().__init__(keys, since, behind)
        self.start: Record | None = None
        self.begins: dict[str, float] = {}
        for line in filter(None, archive.split("\n")):
            for group in json.loads(line)["resourceLogs"]:
                for record in (record for scope in group["scopeLogs"] for record in scope["logRecords"]):
                    self.take(record, group["resource"])
        self.rotate()
        of_records, self.found = self.found, set()
        checkpoints = self.check_checkpoints()
        relied = [one for one in checkpoints if one.is_relied_on]
        if self.is_window:
            self.start = self.start_of(relied)
        first = self.start[NUMBER] if self.start else 0
        all_of_them = [one for one in self.records.values() if one.event == "audit.checkpoint"]
        behind_start = {one.at for one in all_of_them if is_checkpoint(one.attributes) and one[NUMBER] > first}
        of_checkpoints = {finding for finding in self.found if finding[1:] in behind_start}
        self.found = set()
        self.check_streams(checkpoints, relied)
        self.found |= of_checkpoints | {
            (code, stream, number)
            for code, stream, number in of_records
            if stream is None or number is None or number > self.begins.get(stream, FOR_EVER if self.is_window else 0)
        }

    def begin_of(self, stream: str, claims: dict[int, list[Record]], relied: list[Record]) -> float:
        """Return the number behind which a stream begins."""
        if not relied:
            times = {number: [one.observed or 0 for one in claims[number]] for number in sorted(claims)}
            return next((number - 1 for number in times if max(times[number]) >= (self.since or 0)), FOR_EVER)
        if self.start is None:
            return 0
        first = self.start[NUMBER]
        named = [(one[NUMBER], tip) for one in relied for tip in one[TIPS] if tip["stream_id"] == stream]
        if any(number <= first for number, _ in named):
            return next(tip["number"] for number, tip in reversed(named) if number <= first)
        if self.is_line(relied, 0, first):
            return 0
        return named[0][1]["from"] - 1 if named else self.begin_of(stream, claims, [])

    def take(self, record: dict[str, Any], resource: dict[str, Any]) -> None:
        """Run steps 2 and 3."""
        text = record["body"]["stringValue"]
        body = json.loads(text)
        attributes = body.get("attributes", {})
        stream, number = attributes.get("audit.sequence.stream_id"), attributes.get("audit.sequence.number", 0)
        for code in body_codes(text, body) | index_codes(record, resource, text, body):
            self.found.add((code, stream, number if number > 0 else None))
        if stream and number > 0 and attributes.get("audit.record.id"):
            one = Record(text, body)
            signature = fields(record["attributes"]).get("audit.integrity.value", "")
            self.records.setdefault(one.digest, one).signatures.add(signature)

    def check_streams(self, checkpoints: list[Record], relied: list[Record]) -> None:
        """Run steps 4 to 6, 9 and 10."""
        last = relied[-1] if relied else None
        first = self.start[NUMBER] if self.start else 0
        tips: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        for tip in (tip | {"checkpoint": one[NUMBER]} for one in relied for tip in one[TIPS]):
            tips[tip["stream_id"]].append(tip)
        claims: defaultdict[str, defaultdict[int, list[Record]]] = defaultdict(lambda: defaultdict(list))
        for one in self.records.values():
            claims[one.at[0]][one.at[1]].append(one)
        losers: set[Record] = set()
        for stream in {*claims, *tips}:
            begin = self.begins[stream] = self.begin_of(stream, claims[stream], relied) if self.is_window else 0
            behind = {number: same for number, same in claims[stream].items() if number > begin}
            kept, others = self.settle(behind, tips[stream])
            losers |= others
            self.check_chain(stream, kept, begin)
            self.check_tips(stream, kept, [tip for tip in tips[stream] if tip["checkpoint"] > first], begin)
            self.check_rest(kept, tips[stream], last)
        self.check_ids(losers, tips)
        if last and self.start and self.is_line(relied, first, last[NUMBER]):
            since = [tip for one in relied for tip in one[TIPS] if one[NUMBER] > first]
            grown = sum(tip["number"] + 1 - tip["from"] for tip in since)
            totals = [self.start[STREAMS] + sum(tip["from"] == 1 for tip in since), self.start[RECORDS] + grown]
        elif last and not self.start:
            until = [tip for one in checkpoints for tip in one[TIPS] if one[NUMBER] <= last[NUMBER]]
            named = {tip["stream_id"]: tip["number"] for tip in until}
            totals = [len(named), sum(named.values())]
        else:
            return
        if [last[STREAMS], last[RECORDS]] != totals:
            self.add("checkpoint_total", last)

    def settle(
        self, claims: dict[int, list[Record]], tips: list[dict[str, Any]]
    ) -> tuple[dict[int, Record], set[Record]]:
        """Run step 4 within a stream."""
        kept: dict[int, Record] = {}
        losers: set[Record] = set()
        after: Record | None = None
        for number in sorted(claims, reverse=True):
            named = {*(tip["hash"] for tip in tips if tip["number"] == number), after.before[0] if after else None}
            kept[number], *others = sorted(claims[number], key=lambda one: (one.digest not in named, one.digest))
            after = kept[number]
            losers.update(others)
            for one in others:
                if one.here[1] != after.here[1]:
                    self.add("number_reused", one)
        return kept, losers

    def check_ids(self, losers: set[Record], tips: dict[str, list[dict[str, Any]]]) -> None:
        """Run step 4 over all streams."""
        ids: defaultdict[str, list[Record]] = defaultdict(list)
        for one in self.records.values():
            if one.at[1] > self.begins[one.at[0]]:
                ids[one.here[1]].append(one)

        def rank(one: Record) -> tuple[bool, bool, str, int, str]:
            anchored = max((tip["number"] for tip in tips.get(one.at[0], [])), default=0)
            return one in losers, one.at[1] > anchored, *one.at, one.digest

        for one in (one for same in ids.values() for one in sorted(same, key=rank)[1:]):
            self.add("conflicting_duplicate", one)

    def check_chain(self, stream: str, kept: dict[int, Record], begin: float) -> None:
        """Run steps 5 and 6."""
        has_start = self.start is not None and self.start.at[0] == stream and self.start[NUMBER] != self.behind
        for number, one in kept.items():
            before = kept.get(number - 1)
            below = [other for other in kept if other < number]
            may_be_first = has_start and not below and self.start is not None and number <= self.start.at[1]
            if before is None and number > begin + 1 and not may_be_first:
                self.found.add(("gap", stream, int(max(below, default=begin)) + 1))
            if number == 1 and one.before != [None, None]:
                self.add("genesis_has_prev", one)
            elif number > 1 and (None in one.before or (before and one.before != before.here)):
                self.add("link_broken", one)

    def check_tips(self, stream: str, kept: dict[int, Record], tips: list[dict[str, Any]], begin: float) -> None:
        """Run step 9; every checkpoint up to the last that is relied on is taken to be there."""
        for tip in tips:
            covered = [kept.get(number) for number in range(tip["from"], tip["number"] + 1)]
            raw = b"".join(bytes.fromhex(one.digest) for one in covered if one)
            if tip["number"] not in kept:
                if tip["number"] != begin or covered:
                    self.found.add(("tip_missing", stream, tip["number"]))
                continue
            if kept[tip["number"]].digest != tip["hash"]:
                self.found.add(("tip_hash", stream, tip["number"]))
            if None not in covered and hashlib.sha256(raw).hexdigest() != tip["leaves"]:
                self.found.add(("leaves", stream, tip["number"]))

    def check_rest(self, kept: dict[int, Record], tips: list[dict[str, Any]], last: Record | None) -> None:
        """Run step 10."""
        anchored = max((tip["number"] for tip in tips), default=0)
        closes = [number for number, one in kept.items() if one.event == "audit.stream.close"]
        end = min([*closes, *(tip["number"] for tip in tips if tip["closed"]), FOR_EVER])
        for number, one in kept.items():
            is_late = last and last.observed and one.observed and one.observed < last.observed - 5 * 60 * 10**9
            if number > anchored and is_late:
                self.add("record_unanchored", one)
            if number > end and one.event != "audit.checkpoint":
                self.add("after_close", one)


def check(archive: str, *keys: Ed25519PublicKey, since: int | None = None, behind: int | None = None) -> set[Finding]:
    """Return what is wrong with an archive, whose bodies are JSON objects.

    `since` and `behind` ask for a window: what was sealed since a time, in nanoseconds, or is behind a checkpoint.
    """
    return Verifier(archive, [key.public_bytes_raw() for key in keys], since, behind).found
