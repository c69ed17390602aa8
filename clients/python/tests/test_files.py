"""The files of a session, with real servers and a network that breaks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import tempfile
import unittest
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

from support import AsyncTestCase, Trouped, build_trouped, impatient, start_pods

import troupe

DATA = random.Random(7).randbytes((8 << 20) + 5)


class Network:
    """Passes connections on to one server after the other, cuts those that carry much, or changes a byte."""

    def __init__(self, servers: list[Trouped]) -> None:
        self.servers = servers
        self.cuts = 0  # that are left
        self.every = 1 << 62  # bytes after which a connection is cut
        self.spoil = False  # the byte behind as many is changed
        self.carried = 0
        self.turn = 0

    @contextlib.asynccontextmanager
    async def listen(self) -> AsyncIterator[str]:
        tasks: set[asyncio.Task[None]] = set()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.turn += 1
            host, port = self.servers[self.turn % len(self.servers)].address.split(":")
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
            both = [
                asyncio.create_task(self.carry(reader, far_writer)),
                asyncio.create_task(self.carry(far_reader, writer)),
            ]
            tasks.update(both)
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            for w in (writer, far_writer):
                w.close()
            await asyncio.gather(*both, *(w.wait_closed() for w in (writer, far_writer)), return_exceptions=True)
            tasks.difference_update(both)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        try:
            yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws"
        finally:
            server.close()
            while tasks:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while piece := await reader.read(64 << 10):
                passed += len(piece)
                self.carried += len(piece)
                if passed > self.every and self.spoil:
                    piece = piece[:-1] + bytes([piece[-1] ^ 1])
                    self.spoil = False
                elif passed > self.every and self.cuts > 0:
                    self.cuts -= 1
                    return
                writer.write(piece)
                await writer.drain()


class FilesTestCase(AsyncTestCase):
    pods: list[Trouped]
    dir: Path

    @classmethod
    def setUpClass(cls) -> None:
        build_trouped()
        cls.dir = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.pods = start_pods(2, f"--workdir={cls.dir}")
        for pod in cls.pods:
            cls.addClassCleanup(pod.stop)

    def setUp(self) -> None:
        self.here = Path(self.enterContext(tempfile.TemporaryDirectory()))

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        for entry in self.dir.iterdir():
            if entry.is_file():
                entry.unlink()

    def open(self, url: str | None = None) -> troupe.Opening:
        return troupe.open(url or self.pods[0].url, **impatient())


class Transfers(FilesTestCase):
    async def test_a_file_comes_and_goes_with_its_mode_and_time(self) -> None:
        source = self.here / "source"
        source.write_bytes(DATA)
        source.chmod(0o640)
        os.utime(source, (1e9, 1e9))
        async with self.open() as session:
            info = await session.files.upload(source, "in/data", parents=True)
            self.assertEqual((info.name, info.kind, info.size, info.mode), ("data", "file", len(DATA), 0o640))
            self.assertEqual(info.modified, datetime.fromtimestamp(1e9, UTC))
            self.assertEqual((self.dir / "in/data").read_bytes(), DATA)
            await session.files.download("in/data", self.here / "copy")
            copy = self.here / "copy"
            self.assertEqual(copy.read_bytes(), DATA)
            self.assertEqual((copy.stat().st_mode & 0o777, copy.stat().st_mtime), (0o640, 1e9))
            self.assertEqual((await session.files.upload(b"", "empty")).size, 0)
            self.assertEqual(await session.files.read("empty"), b"")

    async def test_cuts_lose_nothing_and_repeat_little(self) -> None:
        network = Network(self.pods)
        async with network.listen() as url, self.open(url) as session:
            for transfer in ("up", "down"):
                network.carried, network.every, network.cuts = 0, 2 << 20, 3
                if transfer == "up":
                    await session.files.upload(DATA, "cut")
                else:
                    self.assertEqual(await session.files.read("cut"), DATA)
                self.assertEqual(network.cuts, 0, transfer)
                # In the buffers between there are some hundred KiB at each cut.
                self.assertLess(network.carried, len(DATA) + (6 << 20), transfer)
        self.assertEqual((self.dir / "cut").read_bytes(), DATA)

    async def test_what_arrives_otherwise_than_it_was_sent_is_refused(self) -> None:
        network = Network(self.pods[:1])
        async with network.listen() as url, self.open(url) as session:
            network.every, network.spoil = 1 << 20, True
            with self.assertRaises(troupe.FileError) as refused:
                await session.files.upload(DATA, "spoiled")
            self.assertEqual((refused.exception.status, refused.exception.code), (422, "digest"))
            self.assertFalse((self.dir / "spoiled").exists())
            network.every = 1 << 62
            await session.files.upload(DATA, "good")
            network.every, network.spoil = 1 << 20, True
            with self.assertRaisesRegex(troupe.TroupeError, "SHA-256"):
                await session.files.download("good", self.here / "copy")
            self.assertEqual(list(self.here.iterdir()), [])

    async def test_a_cancelled_upload_leaves_nothing(self) -> None:
        async with self.open() as session:
            upload = asyncio.create_task(session.files.upload(bytes(256 << 20), "cancelled"))
            while not any(id.startswith("upload-") for id in (await session.status()).executions):
                await asyncio.sleep(0.01)
            upload.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await upload
            [end] = [e for id, e in (await session.status()).executions.items() if id.startswith("upload-")]
            self.assertTrue(end.completed and end.completed.reason == "canceled", end)
            self.assertEqual([e.name async for e in session.files.list()], sorted(os.listdir(self.dir)))
            self.assertFalse((self.dir / "cancelled").exists())


class Directories(FilesTestCase):
    async def test_names_of_any_bytes(self) -> None:
        names = ["a b%?#", "é", os.fsdecode(b"\xff\n"), "..x"]
        async with self.open() as session:
            for name in names:
                await session.files.upload(name.encode("utf-8", "surrogateescape"), f"names/{name}", parents=True)
            found = {e.name: e.size async for e in session.files.list("names")}
            self.assertEqual(found, {name: len(os.fsencode(name)) for name in names})
            for name in names:
                self.assertEqual(await session.files.read(f"names/{name}"), os.fsencode(name))
            await session.files.move(f"names/{names[2]}", "moved")
            self.assertEqual((await session.files.stat("moved")).size, 2)
            await session.files.remove("names", recursive=True)
            with self.assertRaises(troupe.FileError) as gone:
                await session.files.stat("names")
            self.assertEqual((gone.exception.status, gone.exception.code), (404, "not_found"))

    async def test_a_listing_has_every_page(self) -> None:
        async with self.open() as session:
            await session.run("mkdir many; cd many; for i in $(seq 1500); do : >$i; done")
            self.assertEqual(len([e async for e in session.files.list("many")]), 1500)

    async def test_refusals(self) -> None:
        async with self.open() as session:
            await session.files.mkdir("d/e")
            await session.files.mkdir("d/e")
            await session.files.upload(b"x", "here")
            for status, code, request in [
                (403, "outside", session.files.read("../x")),
                (404, "not_found", session.files.download("none", self.here / "none")),
                (409, "exists", session.files.remove("d")),
                (409, "exists", session.files.upload(b"y", "here", new=True)),
            ]:
                with self.assertRaises(troupe.FileError) as refused:
                    await request
                self.assertEqual((refused.exception.status, refused.exception.code), (status, code))
                self.assertTrue(refused.exception.detail)
            self.assertEqual(await session.files.read("here"), b"x")

    async def test_a_watch_tells_what_changes(self) -> None:
        async with self.open() as session:
            async with contextlib.aclosing(session.files.watch()) as changes:
                self.assertEqual(await anext(changes), troupe.FileChange("ready"))
                await session.run(": >watched")
                self.assertEqual(await anext(changes), troupe.FileChange("created", "watched"))
            while any(not e.completed for e in (await session.status()).executions.values()):
                await asyncio.sleep(0.01)


if __name__ == "__main__":
    unittest.main()
