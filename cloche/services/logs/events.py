"""Reading and writing events: GetLogEvents, FilterLogEvents, PutLogEvents."""

from __future__ import annotations

import hashlib
import heapq
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from cloche.core import atomic, executors
from cloche.core.clock import to_ms
from cloche.core.errors import unsupported
from cloche.operation import Call, operation
from cloche.permissions import Permission
from cloche.records.resource import Resource
from cloche.services.logs.files import LogFile, LogRecord, PlacedRecord, format_record
from cloche.services.logs.logs import CLIENT, Logs, document_of, stream_name
from cloche.services.logs.lookup import find_group, find_stream, invalid
from cloche.services.logs.pattern import Pattern, parse_pattern
from cloche.services.logs.permissions import STREAM, group_arns, stream_arns

EVENTS, PAGE_BYTES, EVENT_BYTES = 10_000, 1_048_576, 26  # each event counts 26 bytes more
LARGEST = 1_048_576  # bytes of one event, as of one batch
HOUR_MS = 3_600_000
NEWEST_MS, OLDEST_MS, SPAN_MS = 2 * HOUR_MS, 14 * 24 * HOUR_MS, 24 * HOUR_MS
SCANNED = 200_000  # records that one FilterLogEvents looks at before it answers with a token
CHUNK = 64 * 1024  # bytes that FilterLogEvents reads of a stream at once
TOKEN = re.compile(r"([fb])/([0-9]{1,18})/s")
Key = tuple[int, str, int]  # a record's time, stream and offset
FILTER_TOKEN = re.compile(r"([fb])/([0-9]{1,18})/([0-9]{1,18})/(.*)", re.DOTALL)


@operation(permissions=[Permission("logs:GetLogEvents", stream_arns)], on=executors.LOGS)
def get_log_events(
    call: Call[Logs],
    *,
    logStreamName: str,
    logGroupName: str | None = None,
    logGroupIdentifier: str | None = None,
    startTime: int | None = None,
    endTime: int | None = None,
    nextToken: str | None = None,
    limit: int = EVENTS,
    startFromHead: bool = False,
) -> dict[str, Any]:
    """Return a page of one stream, oldest first; the newest page unless `startFromHead`.

    Tokens are positions: the forward one of the last page stays the same until more is written.
    """
    group = find_group(call, logGroupName, logGroupIdentifier)
    stream = find_stream(call, group, logStreamName)
    token = TOKEN.fullmatch(nextToken) if nextToken is not None else None
    if nextToken is not None and token is None:
        raise invalid("The specified nextToken is invalid.")
    path = call.service.file(stream)
    if not path.exists():
        return page_of([], 0, 0)
    with LogFile(path) as log:
        low = 0 if startTime is None else log.at_or_after(startTime)
        high = log.size if endTime is None else max(low, log.at_or_after(endTime))
        if token is not None:
            place = min(int(token[2]), log.size)
            if not log.is_start(place):
                raise invalid("The specified nextToken is invalid.")
            forward = token[1] == "f"
            low, high = (max(low, place), high) if forward else (low, min(high, place))
        else:
            forward = startFromHead
        if low > high:
            low = high = low if forward else high
        if forward:
            found = fill(log.forward(low, high), limit)
            return page_of(found, low, low)
        found = fill(log.backward(high, low), limit)[::-1]
        return page_of(found, high, high)


def fill(places: Iterator[PlacedRecord], limit: int) -> list[PlacedRecord]:
    """Take what fits a page: `limit` records, about 1 MB; one at the least."""
    page: list[PlacedRecord] = []
    size = 0
    for place in places:
        size += place.end - place.start + EVENT_BYTES
        if page and size > PAGE_BYTES:
            break
        page.append(place)
        if len(page) == limit:
            break
    return page


def page_of(places: list[PlacedRecord], start: int, end: int) -> dict[str, Any]:
    """Return the page; `start` and `end` are its ends when it is empty."""
    if places:
        start, end = places[0].start, places[-1].end
    return {
        "events": [
            {
                "timestamp": place.record.at_ms,
                "message": place.record.text,
                "ingestionTime": place.record.ingested_ms,
            }
            for place in places
        ],
        "nextForwardToken": f"f/{end:018d}/s",
        "nextBackwardToken": f"b/{start:018d}/s",
    }


# ---------------------------------------------------------------------- FilterLogEvents


@dataclass(frozen=True, slots=True)
class EventSearch:
    """What FilterLogEvents looks for. Times are milliseconds; `end_ms` is still looked at."""

    pattern: Pattern
    start_ms: int
    end_ms: int
    forward: bool
    limit: int
    after: tuple[int, str, int] | None  # time, stream and offset of the record before


@operation(permissions=[Permission("logs:FilterLogEvents", group_arns)], on=executors.LOG_SEARCH)
def filter_log_events(
    call: Call[Logs],
    *,
    logGroupName: str | None = None,
    logGroupIdentifier: str | None = None,
    logStreamNames: list[str] | None = None,
    logStreamNamePrefix: str | None = None,
    startTime: int = 0,
    endTime: int | None = None,
    filterPattern: str = "",
    nextToken: str | None = None,
    limit: int = EVENTS,
    startFromHead: bool = True,
    interleaved: bool = True,
) -> dict[str, Any]:
    """Return what fits, of several streams, in order of time. (AWS ignores `interleaved` too.)"""
    group = find_group(call, logGroupName, logGroupIdentifier)
    if logStreamNames is not None and logStreamNamePrefix is not None:
        raise invalid("LogStreamNamePrefix and LogStreamNames are mutually exclusive")
    if logStreamNames is not None:
        named = [find_stream(call, group, name) for name in dict.fromkeys(logStreamNames)]
    else:
        named = None
    token = FILTER_TOKEN.fullmatch(nextToken) if nextToken is not None else None
    if nextToken is not None and token is None:
        raise invalid("The specified nextToken is invalid.")
    search = EventSearch(
        pattern=parse_pattern(filterPattern),
        start_ms=startTime,
        end_ms=endTime if endTime is not None else 10**15,
        forward=token[1] == "f" if token else startFromHead,
        limit=limit,
        after=(int(token[2]), token[4], int(token[3])) if token else None,
    )
    streams = call.service.streams(group, logStreamNamePrefix or "") if named is None else named
    return run_search(sources(call.service, streams, search), search)


class Source(NamedTuple):
    """A stream that has events in the time looked for; `bound_ms` is where they begin, from
    where the search comes.
    """

    bound_ms: int
    name: str
    path: Path


def sources(logs: Logs, streams: Iterable[Resource], search: EventSearch) -> list[Source]:
    """Return the streams that may have what is looked for, in the order in which they may.

    What a stream holds is known unless it has changed: those that are out of the time looked for,
    and those behind what is shown, are not opened.
    """
    start_ms, end_ms = search.start_ms, search.end_ms
    if search.after is not None and search.forward:
        start_ms = max(start_ms, search.after[0])
    elif search.after is not None:
        end_ms = min(end_ms, search.after[0])
    found: list[Source] = []
    for stream in streams:
        extent = logs.extent(stream)
        if extent.first_ms is None or extent.last_ms is None:
            continue
        if extent.first_ms <= end_ms and extent.last_ms >= start_ms:
            bound_ms = extent.first_ms if search.forward else extent.last_ms
            found.append(Source(bound_ms, stream_name(stream), logs.file(stream)))
    return sorted(found, reverse=not search.forward)


@dataclass(slots=True)
class NextRecord:
    """A stream's next record, and those after it."""

    key: Key
    place: PlacedRecord
    rest: Iterator[tuple[Key, PlacedRecord]]
    forward: bool

    def __lt__(self, other: NextRecord) -> bool:
        """Tell whether this record comes before the other's."""
        return self.key < other.key if self.forward else other.key < self.key


def merge(found: Iterable[Source], search: EventSearch) -> Iterator[tuple[Key, PlacedRecord]]:
    """Yield the records of all streams in the order of the search; each is opened in its time."""
    unopened, heap = deque(found), list[NextRecord]()
    while True:
        while unopened and (not heap or reached(unopened[0], heap[0])):
            source = unopened.popleft()
            records = scan(source.path, source.name, search)
            if (first := next(records, None)) is not None:
                heapq.heappush(heap, NextRecord(*first, records, search.forward))
        if not heap:
            return
        waiting = heap[0]
        yield waiting.key, waiting.place
        if (following := next(waiting.rest, None)) is not None:
            heapq.heapreplace(heap, NextRecord(*following, waiting.rest, search.forward))
        else:
            heapq.heappop(heap)


def reached(source: Source, waiting: NextRecord) -> bool:
    """Tell whether a stream may have a record before the one that is next."""
    at_ms = waiting.key[0]
    return source.bound_ms <= at_ms if waiting.forward else source.bound_ms >= at_ms


def run_search(found: Sequence[Source], search: EventSearch) -> dict[str, Any]:
    """Look through the streams; a token says where to go on when there may be more."""
    events: list[dict[str, Any]] = []
    size = seen = 0
    last: tuple[int, str, int] | None = None
    more = False
    for key, place in merge(found, search):
        length = place.end - place.start + EVENT_BYTES
        full = len(events) == search.limit or (events and size + length > PAGE_BYTES)
        if full or seen == SCANNED:
            more = True
            break
        seen, last = seen + 1, key
        if search.pattern.matches(place.record.text):
            events.append(filtered(key, place.record))
            size += length
    result: dict[str, Any] = {"events": events, "searchedLogStreams": []}
    if more and last is not None:
        way = "f" if search.forward else "b"
        result["nextToken"] = f"{way}/{last[0]}/{last[2]}/{last[1]}"
    return result


def scan(path: Path, name: str, search: EventSearch) -> Iterator[tuple[Key, PlacedRecord]]:
    """Yield a stream's records in the range, after the token's, with their place in the order.

    The file is closed between chunks: a group may have more streams than a process open files.
    """
    with LogFile(path) as log:
        low, high = bounds(log, name, search)
    while low < high:
        with LogFile(path) as log:
            if search.forward:
                places = list(log.forward(low, high, limit_bytes=CHUNK))
            else:
                places = list(log.backward(high, low, limit_bytes=CHUNK))
        if not places:
            return
        for place in places:
            yield (place.record.at_ms, name, place.start), place
        low, high = (places[-1].end, high) if search.forward else (low, places[-1].start)


def bounds(log: LogFile, name: str, search: EventSearch) -> tuple[int, int]:
    """Return the offsets between which a stream's records are still to be looked at."""
    low, high = log.at_or_after(search.start_ms), log.at_or_after(search.end_ms + 1)
    if search.after is None:
        return low, high
    at_ms, stream, offset = search.after
    if name == stream:
        return (max(low, log.after(offset)), high) if search.forward else (low, min(high, offset))
    if search.forward:
        return max(low, log.at_or_after(at_ms if name > stream else at_ms + 1)), high
    return low, min(high, log.at_or_after(at_ms + 1 if name < stream else at_ms))


def filtered(key: tuple[int, str, int], record: LogRecord) -> dict[str, Any]:
    """Return an event with an id that is its own: 56 digits, as AWS's have."""
    at_ms, name, offset = key
    digest = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % 10**19
    return {
        "logStreamName": name,
        "timestamp": at_ms,
        "message": record.text,
        "ingestionTime": record.ingested_ms,
        "eventId": f"3{at_ms:016d}{digest:019d}{offset:020d}",
    }


# ---------------------------------------------------------------------- PutLogEvents


@operation(permissions=[Permission("logs:PutLogEvents", STREAM)])
async def put_log_events(
    call: Call[Logs],
    *,
    logGroupName: str,
    logStreamName: str,
    logEvents: list[dict[str, Any]],
    sequenceToken: str | None = None,
) -> dict[str, Any]:
    """Add events to a stream, durably. (AWS ignores `sequenceToken` too.)"""
    group = find_group(call, logGroupName, None)
    stream = find_stream(call, group, logStreamName)
    if document_of(stream).writer != CLIENT:
        raise unsupported("PutLogEvents to a log stream that the platform itself writes")
    now_ms = to_ms(call.now)
    records = [LogRecord(event["timestamp"], event["message"], now_ms) for event in logEvents]
    check_batch(records)
    too_old = sum(record.at_ms < now_ms - OLDEST_MS for record in records)
    in_time = sum(record.at_ms <= now_ms + NEWEST_MS for record in records)
    good = records[too_old:in_time]
    if good and good[-1].at_ms - good[0].at_ms > SPAN_MS:
        raise invalid(
            "The batch of log events in a single PutLogEvents request cannot span more than "
            "24 hours."
        )
    if good:
        async with call.service.lock(stream):
            await executors.LOGS.run(add_records, call.service.file(stream), good)
    rejected = {}
    if too_old:
        rejected["tooOldLogEventEndIndex"] = too_old
    if in_time < len(records):
        rejected["tooNewLogEventStartIndex"] = in_time
    return {"rejectedLogEventsInfo": rejected} if rejected else {}


def check_batch(records: list[LogRecord]) -> None:
    """Raise InvalidParameterException for a batch that is not in order, or too large."""
    if any(after.at_ms < before.at_ms for before, after in pairwise(records)):
        message = "Log events in a single PutLogEvents request must be in chronological order."
        raise invalid(message)
    sizes = [len(record.text.encode("utf-8", "replace")) + EVENT_BYTES for record in records]
    for size in sizes:
        if size > LARGEST:
            raise invalid(f"Log event too large: {size} bytes exceeds limit of {LARGEST}")
    if sum(sizes) > PAGE_BYTES:
        raise invalid(f"Upload too large: {sum(sizes)} bytes exceeds limit of {PAGE_BYTES}")


def add_records(path: Path, records: list[LogRecord]) -> None:
    """Append records; where the file has later ones, write it again, in order of time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    with LogFile(path) as log:
        last, size = log.last(), log.size
        if last is not None and last.at_ms > records[0].at_ms:
            kept = [place.record for place in log.forward(0, size)]
            everything = list(heapq.merge(kept, records, key=lambda record: record.at_ms))
            atomic.write(path, b"".join(map(format_record, everything)))
            return
    with path.open("r+b") as file:
        file.truncate(size)  # a line that was cut short by a crash
        file.seek(size)
        file.write(b"".join(map(format_record, records)))
        file.flush()
        os.fsync(file.fileno())
