"""Plays the client's half of the scripts in clients/conformance, whose README.md describes them."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import unittest
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from support import AsyncTestCase, Suite, acall, fill, impatient

import troupe

KINDS: dict[str, type[Exception]] = {
    "closed": troupe.ClosedError,
    "detached": troupe.DetachedError,
    "no_session": troupe.NoSessionError,
    "session_lost": troupe.SessionLostError,
    "session_ended": troupe.SessionEndedError,
    "unreachable": troupe.UnreachableError,
    "unknown_execution": troupe.UnknownExecutionError,
    "unknown_outcome": troupe.UnknownOutcomeError,
    "input_conflict": troupe.InputConflictError,
    "followed": troupe.FollowedError,
    "discarded": troupe.DiscardedError,
    "too_large": troupe.TooLargeError,
}

# The class that belongs to each code.
CODES: dict[int, type[troupe.ServerError]] = {
    -32700: troupe.ParseError,
    -32600: troupe.InvalidRequestError,
    -32601: troupe.MethodNotFoundError,
    -32602: troupe.InvalidParamsError,
    -32603: troupe.InternalError,
    -32001: troupe.LimitError,
    -32002: troupe.NotAllowedError,
    -32003: troupe.NoProcessError,
    -32004: troupe.StreamTimeoutError,
    -32005: troupe.ExecutionLimitError,
    -32006: troupe.NoSessionError,
    -32007: troupe.SessionLostError,
    -32008: troupe.DrainingError,
    -32009: troupe.InputUnavailableError,
    -32010: troupe.StartFailedError,
}

EVENTS = {
    troupe.Output: "output",
    troupe.Gap: "gap",
    troupe.ProcessWarning: "warning",
    troupe.Resized: "resized",
    troupe.Screen: "screen",
    troupe.ProcessFault: "error",
    troupe.Completed: "completed",
    type(None): "end",
}

Action = dict[str, Any]


def matches(pattern: Any, got: Any, path: str = "it") -> None:
    """Fails if `got` does not match the pattern of a script."""
    if dataclasses.is_dataclass(got):
        got = dataclasses.asdict(got)
    if pattern is None:
        # A member that is absent on the wire has a default here.
        assert not got, f"{path} is {got!r}, want none"
    elif pattern == "*":
        assert got is not None, f"{path} is missing"
    elif isinstance(pattern, dict):
        assert isinstance(got, dict), f"{path} is {got!r}"
        for key, value in pattern.items():
            matches(value, got.get(key), f"{path}.{key}")
    else:
        got = list(got) if isinstance(got, tuple) else got
        assert got == pattern, f"{path} is {got!r}, want {pattern!r}"


def matches_error(want: dict[str, Any], got: BaseException | None) -> None:
    """Fails if `got` is not the error that a script wants."""
    e = got.__cause__ if isinstance(got, troupe.InputError) else got
    match want["kind"]:
        case "handshake":
            ok = isinstance(e, troupe.HandshakeError) and e.status == want["status"]
        case "aborted":
            ok = isinstance(e, asyncio.CancelledError)
        case "server":
            ok = type(e) is CODES.get(want["code"], troupe.ServerError)
            if isinstance(e, troupe.ServerError):
                ok = ok and e.code == want["code"]
                matches(want.get("data", {}), e.data)
        case kind:
            ok = isinstance(e, KINDS[kind])
    if not ok:
        raise AssertionError(f"want the error {want}, it is {e!r}") from got


class Player:
    """Does the client's half of one run."""

    def __init__(self, run: dict[str, Any]) -> None:
        self.run = run
        self.session: troupe.Session | None = None
        self.executions: dict[str, troupe.Execution] = {}
        self.rest: dict[str, troupe.Output] = {}  # of a piece that a read ended in
        self.background: dict[str, asyncio.Task[None]] = {}
        o = run["options"] or {}
        self.options = impatient()
        if "window" in o:
            self.options["window"] = o["window"]
        if "resume_window_ms" in o:
            self.options["reconnect"] = o["resume_window_ms"] / 1000
        if "keepalive_ms" in o:
            self.options["keepalive"] = o["keepalive_ms"] / 1000
        if "dial_retry_ms" in o:
            self.options["open_retry"] = o["dial_retry_ms"] / 1000
        tokens: list[str] = list(o.get("tokens", []))
        if tokens:
            self.options["token"] = lambda: tokens.pop(0) if len(tokens) > 1 else tokens[0]

    def _mark(self, name: str) -> str:
        return f"{self.run['url']}/marks/{quote(name)}"

    async def perform(self, a: Action) -> None:
        if a["do"] == "join":
            await self.background[a["background"]]
        elif "background" in a:
            self.background[a["background"]] = asyncio.create_task(self._judged(a))
        else:
            await self._judged(a)

    async def _judged(self, a: Action) -> None:
        task = asyncio.create_task(self._do(a))
        if "abort_at" in a:
            await acall("GET", self._mark(a["abort_at"]))
            task.cancel()
        await asyncio.wait([task])
        failure = asyncio.CancelledError() if task.cancelled() else task.exception()
        if "error" in a:
            matches_error(a["error"], failure)
        elif failure:
            raise failure

    async def _do(self, a: Action) -> None:
        match a["do"]:
            case "mark":
                await acall("POST", self._mark(a["mark"]))
            case "await":
                await acall("GET", self._mark(a["mark"]))
            case "open":
                self.session = await troupe.open(self.run["ws"], **self.options)
            case "attach":
                saved: troupe.SavedSession = {"session_id": a["session_id"], "resume_token": a["resume_token"]}
                if "offsets" in a:
                    saved["offsets"] = a["offsets"]
                self.session = await troupe.attach(self.run["ws"], saved, **self.options)
                self.executions = self.session.executions
            case _:
                assert self.session, "no session"
                await self._on_session(self.session, a)

    async def _on_session(self, session: troupe.Session, a: Action) -> None:
        match a["do"]:
            case "execute":
                params = dict(a["params"])
                command = params.pop("command", None) or params.pop("argv")
                e = self.executions[params["execution_id"]] = await session.exec(command, **params)
                matches(a.get("result", {}), e.started)
            case "status":
                matches(a.get("result", {}), await session.status())
            case "close":
                await session.close()
            case "leave":
                await session.leave()
            case "detach":
                matches(a.get("result", {}), await session.detach())
            case "ended":
                raise await session.wait_ended()
            case _:
                await self._on_execution(self.executions[a["execution_id"]], a)

    async def _on_execution(self, e: troupe.Execution, a: Action) -> None:
        methods: dict[str, Callable[[], Any]] = {
            "close_input": e.close_input,
            "pause": e.pause,
            "resume": e.resume,
            "cancel": e.cancel,
        }
        match a["do"]:
            case "read":
                for i, want in enumerate(a["events"], 1):
                    try:
                        await self._read(e, want)
                    except Exception as failure:
                        raise AssertionError(f"event {i}: {failure!r}") from failure
            case "wait":
                matches(a.get("completed", {}), await e.wait())
            case "input":
                await e.write(fill(*a["fill"]) if "fill" in a else a.get("data", ""))
            case "signal":
                await e.signal(a["signal"])
            case "resize":
                await e.resize(a["cols"], a["rows"])
            case "discard":
                e.discard()
            case other:
                await methods[other]()

    async def _read(self, e: troupe.Execution, want: dict[str, Any]) -> None:
        """Takes one event: joins output until there is as much as is wanted, and skips controls that are not."""
        data = fill(*want["fill"]) if "fill" in want else want.get("data", "").encode()
        if "base64" in want:
            data = base64.b64decode(want["base64"])
        while True:
            try:
                event = self.rest.pop(e.id, None) or await e.next()
            except troupe.TroupeError as failure:
                if "error" not in want:
                    raise
                matches_error(want["error"], failure)
                return
            kind = event.state if isinstance(event, troupe.StateChange) else EVENTS[type(event)]
            if isinstance(event, troupe.StateChange) and kind != want["type"]:
                continue
            assert kind == want["type"], f"it is {event!r}, want {want}"
            match event:
                case troupe.Gap():
                    assert event.missing == want["bytes"], event
                case troupe.Resized() | troupe.Screen():
                    assert (event.cols, event.rows) == (want["cols"], want["rows"]), event
                    assert isinstance(event, troupe.Resized) or event.data == data, event
                case troupe.ProcessWarning():
                    assert event.code == want["code"], event
                case troupe.Completed():
                    matches(want.get("completed", {}), event)
            if not isinstance(event, troupe.Output):
                return
            n = min(len(data), len(event.data))
            assert event.stream == want["stream"], event
            assert event.data[:n] == data[:n], f"bytes up to {event.offset} are wrong"
            data = data[n:]
            if n < len(event.data):
                self.rest[e.id] = dataclasses.replace(event, data=event.data[n:])
            if not data:
                return


class Conformance(AsyncTestCase):
    suite: Suite

    @classmethod
    def setUpClass(cls) -> None:
        cls.suite = Suite()
        cls.addClassCleanup(cls.suite.stop)

    async def play(self, name: str) -> None:
        run = await acall("POST", f"{self.suite.url}/runs/{name}")
        if lacking := set(run["needs"] or ()) - {"terminal"}:
            self.skipTest(f"this client does not have {', '.join(lacking)}")
        player = Player(run)
        failures = []
        for i, action in enumerate(run["client"], 1):
            try:
                await player.perform(action)
            except Exception as e:
                failures.append(f"action {i}, {action['do']}: {e!r}")
                break
        if failures and player.session:
            await player.session.detach()
        for task in player.background.values():
            task.cancel()
        try:
            await acall("POST", f"{run['url']}/end")
        except AssertionError as e:
            failures.append(str(e))
        if player.session:
            await player.session.close()
        self.assertFalse(failures, run["about"])

    async def test_every_script_passes(self) -> None:
        names = await acall("GET", f"{self.suite.url}/scripts")
        self.assertGreaterEqual(len(names), 47)
        for name in names:
            with self.subTest(name):
                async with asyncio.timeout(30):
                    await self.play(name)


if __name__ == "__main__":
    unittest.main()
