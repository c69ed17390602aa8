import { Calls, type Call, type Input, type Repeat } from "./calls.js";
import { Connection, asError, type Message, type Receiver } from "./connection.js";
import * as errors from "./errors.js";
import { Execution } from "./execution.js";
import { backoff, settings, type Options, type Settings } from "./options.js";
import { routeBinary, routeNotification } from "./route.js";
import type * as wire from "./wire.js";

/** How long a connection must last to reset the backoff: others must not be made at full rate. */
const stableAfterMs = 5000;

/** Bounds how long `close`, `leave` and `detach` may take to tell the server. */
const closeTimeoutMs = 5000;

/** Used where the server does not announce its own. */
const defaultResumeWindowMs = 300_000;

/** What another client needs to attach to a session. `resume_token` is a secret. */
export interface SavedSession {
  session_id: string;
  resume_token: string;
  /**
   * Transcript positions of what is to be followed. Absent: everything, from the beginning.
   * `detach` and `save` name what was not read to its end.
   */
  offsets?: Record<string, number>;
}

interface Aborting {
  signal?: AbortSignal;
}

/** A request to attach, and whether executions are new to this client. */
interface Resume {
  offsets: Record<string, number> | undefined;
  attach: boolean;
}

/** A connection that is not attached yet. */
interface Opening {
  resume: Resume | undefined;
  resolve: () => void;
  reject: (error: Error) => void;
}

/** The result of `run`. */
export interface RunResult extends wire.Completed {
  /** What was written, as text; empty with `onOutput`. */
  stdout: string;
  stderr: string;
}

/** A session on a server. It survives the loss of its connections. */
export class Session implements AsyncDisposable {
  /** The server's greeting. After `attach` it has only the id, the token and the limits. */
  connected: wire.Connected;
  /** Resolves with the reason when the session has ended for this client. */
  readonly ended: Promise<Error>;
  /** @internal */ readonly window: number;
  /** @internal */ readonly followed = new Map<string, Execution>();
  /** @internal */ readonly calls = new Calls();

  #settings: Settings;
  #current: Connection | undefined;
  #opening: Opening | undefined;
  #draining = false;
  #error: Error | undefined;
  #end!: (e: Error) => void;
  #leaving: Error | undefined; // `close`, `leave` or `detach` was called
  #hangUp = new AbortController(); // the connection must not be made again
  #receiver: Receiver = {
    text: (connection, message) => this.#text(connection, message),
    binary: (connection, frame) => this.#binary(connection, frame),
  };

  /** @internal Use `open` or `attach`. */
  constructor(
    private readonly url: string,
    options: Options,
  ) {
    this.#settings = settings(options);
    this.window = this.#settings.window;
    this.ended = new Promise((resolve) => (this.#end = resolve));
    this.connected = { session_id: "", resume_token: "", capabilities: [], limits: {} } as unknown as wire.Connected;
  }

  get id(): string {
    return this.connected.session_id;
  }

  get limits(): wire.Limits {
    return this.connected.limits;
  }

  /** Why the session has ended for this client, or undefined. */
  get error(): Error | undefined {
    return this.#error;
  }

  /** The executions that are followed and were not read to their end. */
  get executions(): Map<string, Execution> {
    return new Map([...this.followed].filter(([, e]) => e.phase !== "pending"));
  }

  /**
   * Starts a command: a string for `/bin/sh -c`, a list of arguments, or params.
   *
   * When `signal` aborts, the command is cancelled: CANCEL is sent, its output goes on to its end, and
   * `wait` resolves with the reason `canceled` when the tree is dead. If it aborts before `exec` has
   * resolved, `exec` rejects once that is so.
   */
  async exec(what: string | string[] | wire.ExecuteParams, options: Aborting = {}): Promise<Execution> {
    const { signal } = options;
    signal?.throwIfAborted();
    const params: wire.ExecuteParams =
      typeof what === "string" ? { command: what } : Array.isArray(what) ? { argv: what } : { ...what };
    params.execution_id ??= globalThis.crypto.randomUUID();
    const execution = new Execution(this, params.execution_id);
    const call = this.#call("execute", { ...params, window: this.window }, "safe");
    call.answered = (result: wire.ExecuteResult) => execution.answered(result);
    if (this.followed.has(execution.id)) throw new errors.FollowedError(`${execution.id} is followed already`);
    this.followed.set(execution.id, execution);
    const withdraw = () => {
      if (!call.written) {
        this.calls.withdraw(call);
        call.reject(asError(signal?.reason));
      }
    };
    signal?.addEventListener("abort", withdraw, { once: true });
    try {
      this.#submit(call);
      await call.done;
    } catch (e) {
      this.forget(execution);
      throw e;
    } finally {
      signal?.removeEventListener("abort", withdraw);
    }
    if (signal?.aborted) {
      await execution[Symbol.asyncDispose]();
      throw asError(signal.reason);
    }
    if (signal) this.#cancelOnAbort(execution, signal);
    return execution;
  }

  #cancelOnAbort(execution: Execution, signal: AbortSignal): void {
    const cancel = () => void execution.cancel().catch(() => {}); // it fails with the session, as `wait` does
    signal.addEventListener("abort", cancel, { once: true });
    const done = () => signal.removeEventListener("abort", cancel);
    execution.wait().then(done, done);
  }

  /**
   * Runs a command to its end. `onOutput` gets the output piece by piece, and is awaited, so that a slow
   * one slows the command down where `retain` is `unread`. Without it, the output is collected as text.
   *
   * When `signal` aborts, the command is cancelled, and `run` rejects with the signal's reason once its
   * whole tree is dead. It rejects with a GapError where output is missing.
   */
  async run(
    what: string | string[] | wire.ExecuteParams,
    options: Aborting & { onOutput?: (piece: wire.Output) => unknown } = {},
  ): Promise<RunResult> {
    const given: wire.ExecuteParams =
      typeof what === "string" ? { command: what } : Array.isArray(what) ? { argv: what } : what;
    if (!options.onOutput && (given.retain ?? "first") !== "first") {
      throw new TypeError(`output with retain "${given.retain}" has no bound: give onOutput`);
    }
    const execution = await this.exec({ framing: "raw", encoding: "base64", ...given }, options);
    const text = { stdout: "", stderr: "" };
    const decoders = { stdout: new TextDecoder(), stderr: new TextDecoder() };
    const collect = ({ stream, data }: wire.Output) => {
      text[stream] += decoders[stream].decode(data, { stream: true });
    };
    const onOutput = options.onOutput ?? collect;
    let gap: wire.Gap | undefined;
    try {
      for await (const event of execution.events) {
        if (event.type === "output") await onOutput(event);
        else if (event.type === "gap") gap = { ...event, bytes: event.bytes + (gap?.bytes ?? 0) };
      }
    } catch (e) {
      await execution[Symbol.asyncDispose]();
      throw e;
    }
    const completed = await execution.wait();
    if (options.signal?.aborted && completed.reason === "canceled") throw asError(options.signal.reason);
    if (gap) throw new errors.GapError(execution.id, gap.bytes, gap.offset);
    text.stdout += decoders.stdout.decode();
    text.stderr += decoders.stderr.decode();
    return { ...completed, ...text };
  }

  /** Pauses, resumes or cancels any execution of the session. */
  control(
    params: { type: "PAUSE" | "RESUME" | "CANCEL"; execution_id?: string },
    options?: Aborting,
  ): Promise<{ status: string; execution_id: string }> {
    return this.#request("control", params, "safe", options);
  }

  /**
   * Sends a signal to any execution of the session. It rejects with an UnknownOutcomeError if the connection ends
   * before the answer, unless the signal is KILL.
   */
  async signal(params: { execution_id?: string; signal: string }, options?: Aborting): Promise<void> {
    const kill = /^(SIG)?KILL$/i.test(params.signal);
    await this.#request("signal", params, kill ? "safe" : "never", options);
  }

  /** Asks for the session's executions and limits. */
  status(options?: Aborting): Promise<wire.Status> {
    return this.#request("status", {}, "safe", options);
  }

  /**
   * Ends the session and everything that runs in it. If the server cannot be told within 5 s, the session
   * ends there when its resume window has passed, and `close` rejects.
   */
  async close(): Promise<void> {
    if (this.#error) return;
    this.#leaving ??= new errors.ClosedError("the client is closed");
    let failure: Error | undefined;
    try {
      await this.#request("close", {}, "safe", { signal: AbortSignal.timeout(closeTimeoutMs) });
    } catch (e) {
      failure = asError(e);
    }
    await this.#disconnect(this.#leaving, 1000);
    const gone = [errors.ClosedError, errors.NoSessionError, errors.SessionLostError, errors.SessionEndedError];
    if (failure && !gone.some((c) => failure instanceof c)) {
      throw new errors.TroupeError(`closing session ${this.id}: ${failure.message}`, { cause: failure });
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Ends the connection only: the session ends with its last one. `close` ends it for everybody. */
  leave(): Promise<void> {
    return this.#disconnect(new errors.ClosedError("the client has left"), 1000);
  }

  /**
   * Ends the connection and leaves the session to its resume window. Events that were not read are dropped: the
   * offsets are those after the last ones that were.
   */
  async detach(): Promise<SavedSession> {
    const saved = this.save();
    saved.offsets = {};
    for (const [id, e] of this.executions) {
      const offset = e.detach();
      if (offset !== undefined) saved.offsets[id] = offset;
    }
    // Browsers may not close with 1001. Without a code the server keeps the session as well.
    await this.#disconnect(new errors.DetachedError("the client is detached"), undefined);
    return saved;
  }

  /** What `detach` would return now. */
  save(): SavedSession {
    const offsets = Object.fromEntries([...this.executions].map(([id, e]) => [id, e.offset]));
    return { session_id: this.id, resume_token: this.connected.resume_token, offsets };
  }

  // Connecting.

  /** @internal Makes the first connection. */
  async start(saved: SavedSession | undefined, options: Options): Promise<void> {
    const deadline = Date.now() + this.#settings.openRetryMs;
    const signal = options.signal ? AbortSignal.any([options.signal, this.#hangUp.signal]) : this.#hangUp.signal;
    if (saved) {
      this.connected.session_id = saved.session_id;
      this.connected.resume_token = saved.resume_token;
    }
    for (let attempt = 1; ; attempt++) {
      try {
        const connection = await this.#connect(saved && { offsets: saved.offsets, attach: true }, signal);
        void this.#serve(connection);
        return;
      } catch (e) {
        options.signal?.throwIfAborted();
        const error = asError(e);
        const delayMs = Math.max(backoff(this.#settings, attempt), retryAfterMs(error));
        const end = endOfSession(error);
        if (end) throw saved ? end : error;
        if (Date.now() + delayMs > deadline) throw error;
        this.#settings.onNotice({ kind: "retry", error, attempt, delayMs });
        await sleep(delayMs, signal);
      }
    }
  }

  /** Makes one connection. When it resolves, the session is attached. */
  async #connect(resume: Resume | undefined, signal: AbortSignal): Promise<Connection> {
    const url = new URL(this.url);
    url.protocol = url.protocol.replace(/^http/, "ws");
    if (resume) url.searchParams.set("session", this.id);
    else for (const [name, value] of this.#settings.query) url.searchParams.append(name, value);
    url.searchParams.set("frames", "binary"); // a server that does not know it sends text
    const timeout = new AbortController();
    const timer = setTimeout(
      () => timeout.abort(new errors.ConnectionError("the server did not answer the handshake in time")),
      this.#settings.handshakeTimeoutMs,
    );
    const both = AbortSignal.any([signal, timeout.signal]);
    try {
      const attached = new Promise<void>((resolve, reject) => (this.#opening = { resume, resolve, reject }));
      attached.catch(() => {});
      const connection = await Connection.open(url.href, this.#settings, this.#receiver, both);
      const abort = () => connection.fail(asError(both.reason));
      both.addEventListener("abort", abort);
      void connection.ended.then((cause) => this.#opening?.reject(cause));
      if (resume) this.#sendResume(connection, resume);
      try {
        await attached;
      } catch (e) {
        connection.fail(asError(e));
        throw e;
      } finally {
        both.removeEventListener("abort", abort);
      }
      return connection;
    } catch (e) {
      if (timeout.signal.aborted) throw timeout.signal.reason;
      throw e;
    } finally {
      this.#opening = undefined;
      clearTimeout(timer);
    }
  }

  #sendResume(connection: Connection, resume: Resume): void {
    const params = { resume_token: this.connected.resume_token, executions: resume.offsets, window: this.window };
    connection.send(JSON.stringify({ jsonrpc: "2.0", id: 0, method: "resume", params }));
  }

  /** Sends what waits for a connection, now that one is attached. */
  #attached(connection: Connection): void {
    this.#current = connection;
    this.#opening?.resolve();
    this.calls.flush(connection);
    connection.watch(this.#settings.keepaliveTimeoutMs, () => void this.status().catch(() => {}));
  }

  /** Serves one connection after another until the session ends. */
  async #serve(connection: Connection): Promise<void> {
    for (let attempt = 0; ; ) {
      const begun = Date.now();
      const cause = await connection.ended;
      this.#current = undefined;
      this.calls.connectionLost(cause instanceof errors.ConnectionError && cause.closeCode === 1009);
      for (const e of this.followed.values()) e.connectionLost();
      const end = this.#endBy(cause);
      if (end) return this.#finish(end);
      if (Date.now() - begun >= stableAfterMs) attempt = 0;
      this.#settings.onNotice({ kind: "lost", error: cause });
      try {
        ({ connection, attempt } = await this.#reconnect(attempt, cause));
      } catch (e) {
        return this.#finish(this.#leaving && !(e instanceof errors.UnreachableError) ? this.#leaving : asError(e));
      }
    }
  }

  /** The end of the session that the end of a connection means, if any. */
  #endBy(cause: Error): Error | undefined {
    if (this.#hangUp.signal.aborted) return this.#leaving;
    const end = endOfSocket(cause);
    if (end) return this.#leaving ?? end;
    const drained = this.#draining && cause instanceof errors.ConnectionError && cause.closeCode === 1012;
    if (drained && [...this.followed.values()].every((e) => e.received)) {
      return new errors.SessionEndedError("the server has ended the session: it is stopping");
    }
    return undefined;
  }

  async #reconnect(attempt: number, lost: Error): Promise<{ connection: Connection; attempt: number }> {
    const began = Date.now();
    const servers = this.limits.resume_window > 0 ? this.limits.resume_window * 1000 : defaultResumeWindowMs;
    const windowMs = this.#settings.resumeWindowMs ?? servers;
    const { signal } = this.#hangUp;
    // The first attempt follows at once, nearly: usually only the connection was lost.
    for (let delayMs = backoff(this.#settings, attempt); ; ) {
      const left = began + windowMs - Date.now();
      if (left <= 0) {
        const message = `no connection for the whole resume window: ${lost.message}`;
        throw new errors.UnreachableError(message, { cause: lost });
      }
      await sleep(Math.min(delayMs, left), signal);
      attempt++;
      try {
        const connection = await this.#connect({ offsets: this.#positions(), attach: false }, signal);
        this.#settings.onNotice({ kind: "resumed", attempt, goneMs: Date.now() - began });
        return { connection, attempt };
      } catch (e) {
        signal.throwIfAborted();
        lost = asError(e);
        const end = endOfSession(lost);
        if (end) throw end;
        delayMs = Math.max(backoff(this.#settings, attempt), retryAfterMs(lost));
        this.#settings.onNotice({ kind: "retry", error: lost, attempt, delayMs });
      }
    }
  }

  /** Positions up to which output was taken: what is queued arrives again, and is dropped. */
  #positions(): Record<string, number> {
    const offsets: Record<string, number> = {};
    for (const [id, e] of this.followed) {
      const offset = e.position();
      if (offset !== undefined) offsets[id] = offset;
    }
    return offsets;
  }

  async #disconnect(why: Error, code: number | undefined): Promise<void> {
    if (this.#error) return;
    this.#leaving = why;
    this.#hangUp.abort(why);
    await this.#current?.close(code, closeTimeoutMs);
    await this.ended;
  }

  #finish(end: Error): void {
    if (this.#error) return;
    this.#error = end;
    this.#hangUp.abort(end);
    this.calls.fail(end);
    for (const e of this.followed.values()) e.fail(end);
    this.#end(end);
  }

  // Requests.

  #call(method: string, params: unknown, repeat: Repeat, input?: Input): Call {
    return this.calls.make(method, params, repeat, this.limits.max_message ?? 0, input);
  }

  #submit(call: Call): void {
    if (this.#error) throw this.#error;
    this.calls.add(call);
    if (this.#current) this.calls.flush(this.#current);
  }

  async #request<T>(method: string, params: unknown, repeat: Repeat, options?: Aborting): Promise<T> {
    options?.signal?.throwIfAborted();
    const call = this.#call(method, params, repeat);
    this.#submit(call);
    const result = await this.#await(call, options?.signal);
    return result as T;
  }

  #await(call: Call, signal: AbortSignal | undefined): Promise<unknown> {
    if (!signal) return call.done;
    const abort = () => {
      this.calls.withdraw(call);
      call.reject(asError(signal.reason));
    };
    signal.addEventListener("abort", abort, { once: true });
    return call.done.finally(() => signal.removeEventListener("abort", abort));
  }

  /** @internal `sent`: the server may have received it. */
  async sendInput(input: Input, signal?: AbortSignal): Promise<{ error?: Error; sent: boolean }> {
    const call = this.#call("input", undefined, input.eof ? "safe" : "offset", input);
    try {
      this.#submit(call);
      await this.#await(call, signal);
      return { sent: true };
    } catch (e) {
      return { error: asError(e), sent: call.written };
    }
  }

  /** @internal Says whether there is a connection that takes it. */
  sendAck(params: { execution_id: string; offset: number; completed?: boolean }): boolean {
    if (!this.#current?.isOpen) return false;
    this.#current.send(JSON.stringify({ jsonrpc: "2.0", method: "ack", params }));
    return true;
  }

  /** @internal */
  forget(e: Execution): void {
    if (this.followed.get(e.id) === e) this.followed.delete(e.id);
  }

  // Receiving.

  #text(connection: Connection, m: Message): void {
    if (m.method === "ping") connection.send('{"jsonrpc":"2.0","method":"pong"}');
    else if (this.#current !== connection) this.#greeted(connection, m);
    else if (m.method === "server.draining") {
      this.#draining = true;
      const { deadline_seconds } = m.params as { deadline_seconds: number };
      this.#settings.onNotice({ kind: "draining", deadlineSeconds: deadline_seconds });
    } else if (m.method) routeNotification(this, connection, m.method, m.params);
    else if (typeof m.id === "number") this.calls.answer(m.id, m.result, m.error);
  }

  #binary(connection: Connection, frame: ArrayBuffer): void {
    if (this.#current !== connection) throw new Error("the server sent output before the session is attached");
    routeBinary(this, connection, frame);
  }

  /** Handles a message up to `connected` or the answer to resume. */
  #greeted(connection: Connection, m: Message): void {
    const opening = this.#opening;
    if (!opening) return;
    if (m.error) opening.reject(errors.serverError(m.error));
    else if (m.method === "connected" && !opening.resume) {
      this.connected = m.params as wire.Connected;
      this.calls.offsets = this.connected.capabilities?.includes("input_offset") ?? false;
      this.#attached(connection);
    } else if (m.id === 0 && opening.resume) {
      this.#resumed(opening.resume, m.result as wire.Status & { unknown?: string[] });
      this.#attached(connection);
    }
  }

  #resumed(resume: Resume, result: wire.Status & { unknown?: string[] }): void {
    if (result.limits) this.connected.limits = result.limits;
    if (resume.attach) {
      for (const [id, status] of Object.entries(result.executions ?? {})) {
        if (resume.offsets && !(id in resume.offsets)) continue;
        const e = new Execution(this, id, resume.offsets?.[id] ?? 0);
        e.attachedTo(status);
        this.followed.set(id, e);
      }
    }
    for (const id of result.unknown ?? []) {
      const e = this.followed.get(id);
      this.followed.delete(id);
      e?.fail(new errors.UnknownExecutionError(`the session does not know execution ${id}`));
    }
    for (const [id, offset] of Object.entries(resume.offsets ?? {})) this.followed.get(id)?.resumedAt(offset);
  }
}

/** The end of the session that a close code means. */
function endOfSocket(cause: Error): Error | undefined {
  if (!(cause instanceof errors.ConnectionError)) return undefined;
  switch (cause.closeCode) {
    case 1000:
      return new errors.SessionEndedError("the server has ended the session");
    case 4006:
      return errors.serverError({ code: -32006, message: "no such session" });
    case 4007:
      return errors.serverError({ code: -32007, message: "the pod that owned the session is gone" });
  }
  return undefined;
}

/** The end of the session that a failed attempt to connect means; undefined: another may succeed. */
function endOfSession(error: Error): Error | undefined {
  if (error instanceof errors.HandshakeError) return error.temporary ? undefined : error;
  if (error instanceof errors.ServerError) return isTemporary(error) ? undefined : error;
  if (error instanceof errors.ConnectionError && error.closeCode === 1009) return error;
  return error instanceof SyntaxError || error instanceof TypeError ? error : endOfSocket(error);
}

function isTemporary(e: errors.ServerError): boolean {
  const classes = [errors.LimitError, errors.DrainingError, errors.InternalError, errors.ExecutionLimitError];
  return classes.some((c) => e instanceof c);
}

function retryAfterMs(e: Error): number {
  return e instanceof errors.ServerError ? (e.data.retry_after_seconds ?? 0) * 1000 : 0;
}

function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const abort = () => {
      clearTimeout(timer);
      reject(asError(signal.reason));
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", abort);
      resolve();
    }, ms);
    signal.addEventListener("abort", abort, { once: true });
  });
}

