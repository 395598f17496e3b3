"""A network with a set delay: forwards bytes to a server on loopback. `python -m benchmarks.latency PORT SECONDS`.

A process of its own, so that its work is nobody's else. Prints its own port. Bytes arrive half the round trip later
in each direction, however many connections and requests are under way; a new connection costs one round trip more.
"""

from __future__ import annotations

import asyncio
import sys

CHUNK = 1 << 18
LOOPBACK = "127.0.0.1"


async def serve(port: int, round_trip: float) -> None:
    """Forward until the process is ended."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(round_trip)
        upstream_reader, upstream_writer = await asyncio.open_connection(LOOPBACK, port)
        async with asyncio.TaskGroup() as group:
            group.create_task(_pump(reader, upstream_writer, round_trip / 2))
            group.create_task(_pump(upstream_reader, writer, round_trip / 2))

    server = await asyncio.start_server(accept, LOOPBACK, 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    """Bytes in their order, each so much later; reading goes on meanwhile."""
    waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)
    loop = asyncio.get_running_loop()

    async def write() -> None:
        while True:
            due, data = await waiting.get()
            await asyncio.sleep(due - loop.time())
            if not data:
                writer.close()
                return
            writer.write(data)
            await writer.drain()

    async def read() -> None:
        data = b"x"
        while data:
            try:
                data = await reader.read(CHUNK)
            except ConnectionError:
                data = b""
            await waiting.put((loop.time() + delay, data))

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(read())
            group.create_task(write())
    except* ConnectionError:
        writer.close()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2])))
