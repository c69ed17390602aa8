"""How a client learns why it got no connection, from whatever answers on the server's port."""

from __future__ import annotations

import asyncio
import unittest

from support import AsyncTestCase

import troupe

LONG = "x" * 5000


class Refusals(AsyncTestCase):
    async def answered(self, *parts: str, keep: bool = True) -> Exception:
        """What `open` raises when its handshake gets this answer, part by part. `keep`: the connection stays open."""
        asked = 0

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal asked
            asked += 1
            await reader.readuntil(b"\r\n\r\n")
            for part in parts:
                writer.write(part.encode())
                await asyncio.sleep(0.02)
            if keep:
                await reader.read()
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1") as server:
            host, port = server.sockets[0].getsockname()
            with self.assertRaises(troupe.TroupeError) as raised:
                await troupe.open(f"ws://{host}:{port}/ws", token="secret", handshake_timeout=1)
            while len(asyncio.all_tasks()) > 1:
                await asyncio.sleep(0)
        self.assertEqual(asked, 1)
        return raised.exception

    async def refused(self, status: int, body: str, *parts: str, keep: bool = True) -> None:
        error = await self.answered(*parts, keep=keep)
        assert isinstance(error, troupe.HandshakeError), repr(error)
        self.assertEqual((error.status, error.body), (status, body))

    async def test_a_body_with_a_length_that_comes_in_parts(self) -> None:
        await self.refused(503, "busy", "HTTP/1.1 503 Busy\r\nContent-Le", "ngth: 4\r\n\r\nbu", "sy")

    async def test_a_body_in_chunks_as_an_ingress_may_send_it(self) -> None:
        head = "HTTP/1.1 502 Bad Gateway\r\nTransfer-Encoding: chunked\r\n\r\n"
        await self.refused(502, "bad gateway", head, "4\r\nbad ", "\r\n7\r\ngateway\r\n", "0\r\n\r\n")

    async def test_a_body_that_ends_with_the_connection(self) -> None:
        await self.refused(400, "no", "HTTP/1.0 400 No\r\n\r\nn", "o", keep=False)

    async def test_of_a_long_body_the_beginning(self) -> None:
        await self.refused(500, "x" * 1024, "HTTP/1.1 500 E\r\n\r\n" + LONG)
        await self.refused(500, "x" * 1024, "HTTP/1.1 500 E\r\nContent-Length: 9999\r\n\r\n" + LONG)
        head = "HTTP/1.1 500 E\r\nTransfer-Encoding: chunked\r\n\r\n"
        await self.refused(500, "x" * 1024, f"{head}1388\r\n{LONG}\r\n")

    async def test_no_body(self) -> None:
        await self.refused(401, "", "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")

    async def test_a_redirect_is_not_followed(self) -> None:
        await self.refused(302, "", "HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")

    async def test_a_server_that_is_none(self) -> None:
        for answer in ("SSH-2.0-OpenSSH_9.2p1\r\n\r\n", "\r\n\r\n", "y" * (65 << 10)):
            error = await self.answered(answer, keep=False)
            self.assertIs(type(error), troupe.TransportError)
        upgrade = "HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        for accept in ("", "Sec-WebSocket-Accept: d3Jvbmc=\r\n"):
            error = await self.answered(f"{upgrade}{accept}\r\n")
            self.assertRegex(str(error), "does not speak WebSocket.*Sec-WebSocket-Accept")

    async def test_a_server_that_says_nothing_or_goes(self) -> None:
        self.assertRegex(str(await self.answered()), "did not answer the handshake in time")
        self.assertRegex(str(await self.answered("HTTP/1.1 50")), "did not answer the handshake in time")
        self.assertRegex(str(await self.answered(keep=False)), "the connection was lost")


if __name__ == "__main__":
    unittest.main()
