// The messages of docs/protocol.md that callers see, by their names on the wire.

export interface Limits {
  max_sessions: number;
  max_executions: number;
  max_line: number;
  /** Bytes of output that an execution keeps. */
  max_output: number;
  /** Seconds without output after which an execution is ended. */
  stream_timeout: number;
  max_duration: number;
  max_memory: number;
  cancel_grace: number;
  /** Seconds that a session without a connection is kept for. */
  resume_window: number;
  idle_timeout: number;
  /** Bytes of the largest request. */
  max_message: number;
}

/** The server's greeting to a new session. */
export interface Connected {
  session_id: string;
  version: string;
  capabilities: string[];
  /** A secret: whoever has it can attach to the session. */
  resume_token: string;
  limits: Limits;
  pod: string;
  containment: string;
  isolation: "session" | "none";
  isolation_abi?: number;
  name?: string;
  labels?: Record<string, string>;
}

/** What to run, and how: either `command`, for `/bin/sh -c`, or `argv`, without a shell. */
export interface ExecuteParams {
  command?: string;
  argv?: string[];
  /** Chosen by the client when absent. A repeated id attaches to the same execution. */
  execution_id?: string;
  cwd?: string;
  env?: Record<string, string>;
  /** Open a pipe for `write`; otherwise stdin is /dev/null. */
  stdin?: boolean;
  /** Seconds without output after which it is ended. */
  timeout?: number;
  /** Seconds of running time after which it is ended. */
  max_duration?: number;
  /** Which output is kept: `first` (the default), `unread` (the command waits for its reader) or `last`. */
  retain?: "first" | "unread" | "last";
  output_limit?: number;
  on_output_limit?: "drop" | "cancel";
  /** Bytes that are kept with `retain` `last`. */
  scrollback?: number;
  on_exit?: "kill" | "keep";
  framing?: "lines" | "raw";
  encoding?: "utf-8" | "base64";
  traceparent?: string;
  /** Run it in a terminal: implies `stdin`, `retain` `last` and `framing` `raw`. */
  terminal?: Terminal;
}

export interface Terminal {
  /** 1 to 1,000. */
  cols: number;
  /** 1 to 500. */
  rows: number;
  /** The variable TERM; `xterm-256color` when absent. */
  term?: string;
}

export interface ExecuteResult {
  status: string;
  execution_id: string;
  pid: number;
  pgid: number;
  /** The execution existed already: another client, or an earlier attempt, has started it. */
  attached?: boolean;
}

export type Reason =
  | "exited"
  | "signaled"
  | "canceled"
  | "stream_timeout"
  | "deadline"
  | "output_limit"
  | "session_closed"
  | "reader_gone"
  | "drain"
  | "out_of_memory"
  | "process_limit"
  | "disk_limit"
  | "runner_lost"
  | "start_failed"
  | "internal";

/** The end of an execution. */
export interface Completed {
  execution_id: string;
  status: "completed" | "failed" | "canceled";
  pid: number;
  pgid: number;
  /** Negative for a signal: -15 is SIGTERM. */
  exit_code: number;
  signal?: string;
  reason: Reason;
  error?: WireError;
  dropped_lines: number;
  dropped_bytes: number;
  dropped_reason?: string;
  truncated_lines: number;
  truncated_bytes: number;
  /** Bytes of the transcript. */
  output_bytes: number;
  survivors?: { kept: boolean; count: number; commands: string[] };
  /** Seconds. */
  execution_time: number;
  usage?: { user_seconds: number; system_seconds: number; max_rss_bytes: number };
}

export interface ExecutionStatus {
  state: string;
  pid: number;
  pgid: number;
  /** Bytes of the transcript so far. */
  offset: number;
  /** Bytes of stdin that were taken. */
  input_offset?: number;
  started_at: string;
  completed?: Completed;
  /** Its size now; absent: it has none. */
  terminal?: Terminal;
}

export interface Status {
  session_id: string;
  pod: string;
  created_at: string;
  executions: Record<string, ExecutionStatus>;
  limits: Limits;
  name?: string;
  labels?: Record<string, string>;
}

export interface ErrorData {
  limit?: string;
  value?: number;
  retry_after_seconds?: number;
  exit_code?: number;
}

export interface WireError {
  code: number;
  message: string;
  data?: ErrorData;
}

/** A piece of what the command wrote. */
export interface Output {
  type: "output";
  stream: "stdout" | "stderr";
  /** The command's bytes, owned by the receiver. */
  data: Uint8Array;
  /** `data` is one line that was cut. */
  truncated: boolean;
  /** Transcript position after `data`. */
  offset: number;
}

/** Bytes of the transcript are missing before the next event. */
export interface Gap {
  type: "gap";
  bytes: number;
  /** Transcript position after the gap. */
  offset: number;
  /** The server skipped the bytes without saying so. */
  unreported: boolean;
}

export interface Warning {
  type: "warning";
  code: string;
  message: string;
  offset: number;
}

/** The terminal has this size from here on. One may come again after a reconnection. */
export interface Resized {
  type: "resized";
  cols: number;
  rows: number;
  offset: number;
}

/**
 * Follows a gap in a terminal's output: `data`, written to a terminal of that size, draws what was shown where the output
 * goes on. It may come in several parts, and is no output.
 */
export interface Screen {
  type: "screen";
  cols: number;
  rows: number;
  data: Uint8Array;
  /** Transcript position at which it stands. */
  offset: number;
}

/** The server does not repeat those that were sent while there was no connection. */
export interface Control {
  type: "started" | "paused" | "resumed" | "canceled";
}

export interface ProcessError {
  type: "error";
  error: WireError;
}

export interface End {
  type: "completed";
  completed: Completed;
}

/** What an execution reports, in order. */
export type Event = Output | Gap | Warning | Resized | Screen | Control | ProcessError | End;
