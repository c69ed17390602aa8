"""Prints the rate of output through the client, and that of bare `websockets` in the same run.

Run it as `python3 clients/python/bench.py`. It builds the server, and needs an idle machine.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "tests"))

import websockets
from support import Suite, Trouped, build_trouped

import troupe

BYTES = 256 << 20
ROUNDS = 5
COMMAND = ["head", "-c", str(BYTES), "/dev/zero"]

# The package-level name is the implementation that each version of websockets recommends.
connect: Any = getattr(websockets, "connect")  # noqa: B009  # mypy does not see names that are imported lazily


async def rate(receive: Callable[[], Awaitable[int]]) -> float:
    """Runs `receive`, and returns MB/s."""
    began = time.perf_counter()
    got = await receive()
    if got != BYTES:
        raise RuntimeError(f"{got} bytes arrived, want {BYTES}")
    return BYTES / 1e6 / (time.perf_counter() - began)


async def floor(url: str) -> int:
    """What `websockets` receives from a server that sends the bytes from memory."""
    size = 0
    async with connect(url, compression=None) as ws:
        async for message in ws:
            size += len(message)
    return size


async def bare(url: str) -> int:
    """What `websockets` receives from trouped, with no more on top than counting and acks at half a window."""
    size = acked = 0
    async with connect(f"{url}?frames=binary", compression=None) as ws:

        async def send(method: str, params: dict[str, Any], **id: int) -> None:
            await ws.send(json.dumps({"jsonrpc": "2.0", "method": method, "params": params, **id}))

        options = {"execution_id": "bare", "retain": "unread", "framing": "raw", "window": 1 << 20}
        await send("execute", {"argv": COMMAND, **options}, id=1)
        async for message in ws:
            if isinstance(message, str):
                if '"process.completed"' in message:
                    break
                continue
            size += len(message) - 12
            if size - acked >= 1 << 19:
                acked = size
                await send("ack", {"execution_id": "bare", "offset": acked})
    return size


async def client(session: troupe.Session) -> int:
    size = 0

    def count(piece: troupe.Output) -> None:
        nonlocal size
        size += len(piece.data)

    await session.run(COMMAND, retain="unread", on_output=count)
    return size


async def main() -> None:
    build_trouped()
    with Suite() as suite, Trouped() as server:
        rates: dict[str, list[float]] = {"floor": [], "bare": [], "client": []}
        async with troupe.open(server.url) as session:
            for _ in range(ROUNDS):
                rates["floor"].append(await rate(lambda: floor(f"{suite.url.replace('http', 'ws')}/bare/{BYTES}")))
                rates["bare"].append(await rate(lambda: bare(server.url)))
                rates["client"].append(await rate(lambda: client(session)))
    of = {name: statistics.median(all) for name, all in rates.items()}
    version = getattr(websockets, "__version__", "")
    print(f"troupe for Python: {of['client']:.0f} MB/s of output")
    print(f"bare websockets {version} on the same server: {of['bare']:.0f} MB/s, ratio {of['client'] / of['bare']:.2f}")
    print(f"bare websockets on a server that sends from memory: {of['floor']:.0f} MB/s")


if __name__ == "__main__":
    asyncio.run(main())
