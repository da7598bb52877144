"""Processes that tests start: `forever` writes until it is killed, `fill` until the disk is full.

python write.py forever|fill FOLDER
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from cloche.core.clock import ManualClock
from cloche.records.store import Resource, StorageFull, Store

NOW = ManualClock().now()


def resource(name: str, size: int) -> Resource:
    return Resource(
        account="1",
        region="r",
        kind="k",
        name=name,
        arn=name,
        created=NOW,
        modified=NOW,
        desired={"x": "x" * size},
    )


async def forever(folder: Path) -> None:
    """Tell each name on standard output, in one write, once it is acknowledged."""
    store = Store.open(folder / "cloche.db")
    start = len(store.each("k"))

    async def writer(number: int) -> None:
        count = start
        while True:
            count += 1
            name = f"{number}-{count}"
            new = await store.insert(resource(name, 500))
            await store.update(new, status="Second")
            sys.stdout.write(name + "\n")
            sys.stdout.flush()

    await asyncio.gather(*[writer(number) for number in range(8)])


async def fill(folder: Path) -> None:
    store = Store.open(folder / "cloche.db")
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(300_000))
    acknowledged: set[str] = set()
    try:
        for number in range(1000):
            acknowledged.add((await store.insert(resource(f"n{number}", 5000))).name)
    except StorageFull:
        pass
    else:
        raise SystemExit("the disk never filled")
    assert {one.name for one in store.each("k")} == acknowledged
    ballast.unlink()
    acknowledged.add((await store.insert(resource("after", 5000))).name)
    store.close()
    again = Store.open(folder / "cloche.db")
    assert {one.name for one in again.each("k")} == acknowledged
    print("all there")


if __name__ == "__main__":
    asyncio.run({"forever": forever, "fill": fill}[sys.argv[1]](Path(sys.argv[2])))
