"""The messages of docs/protocol.md that callers see, and the events of an execution."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Required, TypeAlias, TypedDict, TypeVar

T = TypeVar("T")


def decode(cls: type[T], message: Mapping[str, Any], **nested: Any) -> T:
    """Makes a dataclass of a message. A newer server may send members that it does not have."""
    known = {f.name: message[f.name] for f in dataclasses.fields(cls) if message.get(f.name) is not None}
    return cls(**{**known, **nested})


class Terminal(TypedDict, total=False):
    """A terminal for a command to run in."""

    cols: Required[int]
    rows: Required[int]
    term: str
    """Its type, for the variable TERM. Absent: xterm-256color."""


class ExecuteOptions(TypedDict, total=False):
    """How to run a command. What is absent has the server's default."""

    execution_id: str
    """Chosen by the client when absent. A repeated id attaches to the same execution."""
    cwd: str
    """Working directory, relative to the session's."""
    env: Mapping[str, str]
    """Variables in addition to those that the server sets."""
    stdin: bool
    """Open a pipe for `write`; otherwise stdin is /dev/null."""
    timeout: float
    """Seconds without output after which the server ends it. For all of its time, there is max_duration."""
    max_duration: float
    """Seconds of running time after which the server ends it."""
    retain: Literal["first", "unread", "last"]
    """Which output is kept: the first bytes, what was not read yet (the command waits), or the last bytes."""
    output_limit: int
    """Bytes of output, with `retain` `first`."""
    on_output_limit: Literal["drop", "cancel"]
    scrollback: int
    """Bytes that are kept, with `retain` `last`."""
    on_exit: Literal["kill", "keep"]
    """What happens to processes that outlive the command."""
    framing: Literal["lines", "raw"]
    """Whole lines, or the output as it was written."""
    terminal: Terminal
    """Run it in a terminal: implies `stdin`, `retain` `last` and `framing` `raw`."""
    encoding: Literal["utf-8", "base64"]
    """Matters only to servers that have no binary messages; `base64` keeps all bytes."""
    traceparent: str
    """The client's span, as W3C Trace Context writes it."""


class SavedSession(TypedDict, total=False):
    """What another client needs to attach to a session. It can be stored as JSON; `resume_token` is a secret."""

    session_id: str
    resume_token: str
    offsets: dict[str, int]
    """Positions in the outputs that are to be followed. Absent: all, from the beginning."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The server's limits, as the protocol names them. 0: no limit, or the server does not say."""

    max_sessions: int = 0
    max_executions: int = 0
    max_line: int = 0
    max_output: int = 0
    """Bytes of output that an execution keeps."""
    stream_timeout: float = 0
    """Seconds without output after which an execution is ended."""
    max_duration: float = 0
    max_memory: int = 0
    cancel_grace: float = 0
    resume_window: float = 0
    """Seconds for which a session without a connection is kept."""
    idle_timeout: float = 0
    max_message: int = 0
    """Bytes of the largest request."""


@dataclass(frozen=True, slots=True)
class Connected:
    """The server's greeting to a new session."""

    session_id: str = ""
    version: str = ""
    capabilities: tuple[str, ...] = ()
    resume_token: str = field(default="", repr=False)
    """A secret: whoever has it can attach to the session."""
    limits: Limits = Limits()
    pod: str = ""
    containment: str = ""
    isolation: str = "none"
    isolation_abi: int = 0
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def decode(cls, message: Mapping[str, Any]) -> Connected:
        limits = decode(Limits, message.get("limits") or {})
        return decode(cls, message, limits=limits, capabilities=tuple(message.get("capabilities") or ()))


@dataclass(frozen=True, slots=True)
class Started:
    """The server's answer to execute."""

    execution_id: str
    pid: int = 0
    pgid: int = 0
    status: str = "started"
    attached: bool = False
    """The execution existed already: another client, or an earlier attempt, has started it."""


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An error that the server reports of an execution."""

    code: int
    message: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Survivors:
    """Processes that outlived the command: they were killed or, if `kept`, they live on."""

    kept: bool = False
    count: int = 0
    commands: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """What the processes have used."""

    user_seconds: float = 0
    system_seconds: float = 0
    max_rss_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Completed:
    """The end of an execution, and its last event."""

    execution_id: str
    status: str = "completed"
    """`completed` (exit code 0), `failed` or `canceled`."""
    pid: int = 0
    pgid: int = 0
    exit_code: int = 0
    """Negative for a signal: -15 is SIGTERM."""
    signal: str | None = None
    reason: str = "exited"
    """Why: `exited`, `signaled`, `canceled`, `deadline` and so on; docs/protocol.md has all of them."""
    error: ErrorInfo | None = None
    dropped_lines: int = 0
    dropped_bytes: int = 0
    dropped_reason: str | None = None
    truncated_lines: int = 0
    truncated_bytes: int = 0
    output_bytes: int = 0
    survivors: Survivors | None = None
    execution_time: float = 0
    """Seconds."""
    usage: Usage | None = None

    @classmethod
    def decode(cls, message: Mapping[str, Any]) -> Completed:
        nested: dict[str, Any] = {}
        if error := message.get("error"):
            nested["error"] = decode(ErrorInfo, error)
        if survivors := message.get("survivors"):
            nested["survivors"] = decode(Survivors, survivors, commands=tuple(survivors.get("commands") or ()))
        if usage := message.get("usage"):
            nested["usage"] = decode(Usage, usage)
        return decode(cls, message, **nested)


@dataclass(frozen=True, slots=True)
class Result(Completed):
    """The result of `run`: the end, and what was written. With `on_output` the text is empty."""

    stdout: str = ""
    stderr: str = ""


@dataclass(frozen=True, slots=True)
class ExecutionStatus:
    """What the server says of an execution."""

    state: str = ""
    pid: int = 0
    pgid: int = 0
    offset: int = 0
    """Bytes of output so far."""
    input_offset: int = 0
    """Bytes of stdin that were taken."""
    started_at: str = ""
    terminal: Terminal | None = None
    """As it is now."""
    completed: Completed | None = None

    @classmethod
    def decode(cls, message: Mapping[str, Any]) -> ExecutionStatus:
        completed = message.get("completed")
        return decode(cls, message, completed=Completed.decode(completed) if completed else None)


@dataclass(frozen=True, slots=True)
class Status:
    """What the server says of a session."""

    session_id: str = ""
    pod: str = ""
    created_at: str = ""
    executions: Mapping[str, ExecutionStatus] = field(default_factory=dict)
    limits: Limits = Limits()
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def decode(cls, message: Mapping[str, Any]) -> Status:
        executions = {id: ExecutionStatus.decode(e) for id, e in (message.get("executions") or {}).items()}
        return decode(cls, message, executions=executions, limits=decode(Limits, message.get("limits") or {}))


@dataclass(frozen=True, slots=True)
class Output:
    """A piece of what the command wrote."""

    stream: Literal["stdout", "stderr"]
    data: bytes
    truncated: bool
    """`data` is one line that was cut."""
    offset: int
    """Position in the output after `data`."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes of the output are missing before the next event."""

    missing: int
    """Bytes."""
    offset: int
    """Position in the output after the gap."""
    unreported: bool
    """The server skipped the bytes without saying so."""


@dataclass(frozen=True, slots=True)
class ProcessWarning:
    """The server warns: output is dropped, or the session nears one of its bounds."""

    code: str
    message: str
    offset: int


@dataclass(frozen=True, slots=True)
class Resized:
    """The terminal has this size from here on. One may come again after a reconnection."""

    cols: int
    rows: int


@dataclass(frozen=True, slots=True)
class Screen:
    """What a terminal shows behind a Gap: `data`, written to a terminal of that size, draws it.

    It may come in several parts, and is no output.
    """

    cols: int
    rows: int
    data: bytes


@dataclass(frozen=True, slots=True)
class StateChange:
    """The command was started, paused, resumed, or is being canceled.

    The server does not repeat what it sent while there was no connection.
    """

    state: Literal["started", "paused", "resumed", "canceled"]


@dataclass(frozen=True, slots=True)
class ProcessFault:
    """Something went wrong with the execution, which goes on."""

    error: ErrorInfo


#: What an execution reports, in order. `Completed` is the last, but for the output of processes that were kept.
Event: TypeAlias = Output | Gap | ProcessWarning | Resized | Screen | StateChange | ProcessFault | Completed
