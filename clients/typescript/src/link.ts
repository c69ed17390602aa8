import { Connection, asError, type Message, type Receiver } from "./connection.js";
import * as errors from "./errors.js";
import { Execution } from "./execution.js";
import { backoff, type Options, type Settings } from "./options.js";
import { routeBinary, routeNotification } from "./route.js";
import type { SavedSession, Session } from "./session.js";
import type * as wire from "./wire.js";

/** How long a connection must last to reset the backoff: others must not be made at full rate. */
const stableAfterMs = 5000;

/** Bounds how long closing a connection, and telling the server before that, may take. */
export const closeTimeoutMs = 5000;

/** Used where the server does not announce its own. */
const defaultResumeWindowMs = 300_000;

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

/** Keeps a session connected: makes one connection after another until it has ended for this client. */
export class Link {
  /** The connection that is attached. */
  current: Connection | undefined;
  /** Why the session has ended for this client. */
  error: Error | undefined;
  /** Resolves with `error`. */
  readonly ended: Promise<Error>;
  /** Set when the session is to end for this client. */
  leaving: Error | undefined;

  #opening: Opening | undefined;
  #draining = false;
  #end!: (e: Error) => void;
  #hangUp = new AbortController(); // the connection must not be made again
  #receiver: Receiver = {
    text: (connection, message) => this.#text(connection, message),
    binary: (connection, frame) => this.#binary(connection, frame),
  };

  constructor(
    private readonly session: Session,
    private readonly url: string,
    private readonly settings: Settings,
  ) {
    this.ended = new Promise((resolve) => (this.#end = resolve));
  }

  /** Makes the first connection. */
  async start(saved: SavedSession | undefined, options: Options): Promise<void> {
    const deadline = Date.now() + this.settings.openRetryMs;
    const signal = options.signal ? AbortSignal.any([options.signal, this.#hangUp.signal]) : this.#hangUp.signal;
    if (saved) {
      this.session.connected.session_id = saved.session_id;
      this.session.connected.resume_token = saved.resume_token;
    }
    for (let attempt = 1; ; attempt++) {
      try {
        const connection = await this.#connect(saved && { offsets: saved.offsets, attach: true }, signal);
        void this.#serve(connection);
        return;
      } catch (e) {
        options.signal?.throwIfAborted();
        const error = asError(e);
        const delayMs = Math.max(backoff(this.settings, attempt), retryAfterMs(error));
        const end = endOfSession(error);
        if (end) throw saved ? end : error;
        if (Date.now() + delayMs > deadline) throw error;
        this.settings.onNotice({ kind: "retry", error, attempt, delayMs });
        await sleep(delayMs, signal);
      }
    }
  }

  /** Makes one connection. When it resolves, the session is attached. */
  async #connect(resume: Resume | undefined, signal: AbortSignal): Promise<Connection> {
    const url = new URL(this.url);
    url.protocol = url.protocol.replace(/^http/, "ws");
    if (resume) url.searchParams.set("session", this.session.id);
    else for (const [name, value] of this.settings.query) url.searchParams.append(name, value);
    url.searchParams.set("frames", "binary"); // a server that does not know it sends text
    const timeout = new AbortController();
    const timer = setTimeout(
      () => timeout.abort(new errors.ConnectionError("the server did not answer the handshake in time")),
      this.settings.handshakeTimeoutMs,
    );
    const both = AbortSignal.any([signal, timeout.signal]);
    try {
      const attached = new Promise<void>((resolve, reject) => (this.#opening = { resume, resolve, reject }));
      attached.catch(() => {});
      const connection = await Connection.open(url.href, this.settings, this.#receiver, both);
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
    const { connected, window } = this.session;
    const params = { resume_token: connected.resume_token, executions: resume.offsets, window };
    connection.send(JSON.stringify({ jsonrpc: "2.0", id: 0, method: "resume", params }));
  }

  /** Sends what waits for a connection, now that one is attached. */
  #attached(connection: Connection): void {
    this.current = connection;
    this.#opening?.resolve();
    this.session.calls.flush(connection);
    connection.watch(this.settings.keepaliveTimeoutMs, () => void this.session.status().catch(() => {}));
  }

  /** Serves one connection after another until the session ends. */
  async #serve(connection: Connection): Promise<void> {
    for (let attempt = 0; ; ) {
      const begun = Date.now();
      const cause = await connection.ended;
      this.current = undefined;
      this.session.calls.connectionLost(cause instanceof errors.ConnectionError && cause.closeCode === 1009);
      for (const e of this.session.followed.values()) e.connectionLost();
      const end = this.#endBy(cause);
      if (end) return this.#finish(end);
      if (Date.now() - begun >= stableAfterMs) attempt = 0;
      this.settings.onNotice({ kind: "lost", error: cause });
      try {
        ({ connection, attempt } = await this.#reconnect(attempt, cause));
      } catch (e) {
        return this.#finish(this.leaving && !(e instanceof errors.UnreachableError) ? this.leaving : asError(e));
      }
    }
  }

  /** The end of the session that the end of a connection means, if any. */
  #endBy(cause: Error): Error | undefined {
    if (this.#hangUp.signal.aborted) return this.leaving;
    const end = endOfSocket(cause);
    if (end) return this.leaving ?? end;
    const drained = this.#draining && cause instanceof errors.ConnectionError && cause.closeCode === 1012;
    if (drained && [...this.session.followed.values()].every((e) => e.received)) {
      return new errors.SessionEndedError("the server has ended the session: it is stopping");
    }
    return undefined;
  }

  async #reconnect(attempt: number, lost: Error): Promise<{ connection: Connection; attempt: number }> {
    const began = Date.now();
    const servers = this.session.limits.resume_window * 1000;
    const windowMs = this.settings.resumeWindowMs ?? (servers > 0 ? servers : defaultResumeWindowMs);
    const { signal } = this.#hangUp;
    // The first attempt follows at once, nearly: usually only the connection was lost.
    for (let delayMs = backoff(this.settings, attempt); ; ) {
      const left = began + windowMs - Date.now();
      if (left <= 0) {
        const message = `no connection for the whole resume window: ${lost.message}`;
        throw new errors.UnreachableError(message, { cause: lost });
      }
      await sleep(Math.min(delayMs, left), signal);
      attempt++;
      try {
        const connection = await this.#connect({ offsets: this.#positions(), attach: false }, signal);
        this.settings.onNotice({ kind: "resumed", attempt, goneMs: Date.now() - began });
        return { connection, attempt };
      } catch (e) {
        signal.throwIfAborted();
        lost = asError(e);
        const end = endOfSession(lost);
        if (end) throw end;
        delayMs = Math.max(backoff(this.settings, attempt), retryAfterMs(lost));
        this.settings.onNotice({ kind: "retry", error: lost, attempt, delayMs });
      }
    }
  }

  /** Positions up to which output was taken: what is queued arrives again, and is dropped. */
  #positions(): Record<string, number> {
    const offsets: Record<string, number> = {};
    for (const [id, e] of this.session.followed) {
      const offset = e.position();
      if (offset !== undefined) offsets[id] = offset;
    }
    return offsets;
  }

  /** Ends the connection, with this close code, and everything with it. */
  async disconnect(why: Error, code: number | undefined): Promise<void> {
    if (this.error) return;
    this.leaving = why;
    this.#hangUp.abort(why);
    await this.current?.close(code, closeTimeoutMs);
    await this.ended;
  }

  #finish(end: Error): void {
    if (this.error) return;
    this.error = end;
    this.#hangUp.abort(end);
    this.session.calls.fail(end);
    for (const e of this.session.followed.values()) e.fail(end);
    this.#end(end);
  }

  // Receiving.

  #text(connection: Connection, m: Message): void {
    if (m.method === "ping") connection.send('{"jsonrpc":"2.0","method":"pong"}');
    else if (this.current !== connection) this.#greeted(connection, m);
    else if (m.method === "server.draining") {
      this.#draining = true;
      const { deadline_seconds } = m.params as { deadline_seconds: number };
      this.settings.onNotice({ kind: "draining", deadlineSeconds: deadline_seconds });
    } else if (m.method) routeNotification(this.session, connection, m.method, m.params);
    else if (typeof m.id === "number") this.session.calls.answer(m.id, m.result, m.error);
  }

  #binary(connection: Connection, frame: ArrayBuffer): void {
    if (this.current !== connection) throw new Error("the server sent output before the session is attached");
    routeBinary(this.session, connection, frame);
  }

  /** Handles a message up to `connected` or the answer to resume. */
  #greeted(connection: Connection, m: Message): void {
    const opening = this.#opening;
    if (!opening) return;
    if (m.error) opening.reject(errors.serverError(m.error));
    else if (m.method === "connected" && !opening.resume) {
      this.session.connected = m.params as wire.Connected;
      this.session.calls.offsets = this.session.connected.capabilities?.includes("input_offset") ?? false;
      this.#attached(connection);
    } else if (m.id === 0 && opening.resume) {
      this.#resumed(opening.resume, m.result as wire.Status & { unknown?: string[] });
      this.#attached(connection);
    }
  }

  #resumed(resume: Resume, result: wire.Status & { unknown?: string[] }): void {
    if (result.limits) this.session.connected.limits = result.limits;
    if (resume.attach) {
      for (const [id, status] of Object.entries(result.executions ?? {})) {
        if (resume.offsets && !(id in resume.offsets)) continue;
        const e = new Execution(this.session, id, resume.offsets?.[id] ?? 0);
        e.attachedTo(status);
        this.session.followed.set(id, e);
      }
    }
    for (const id of result.unknown ?? []) {
      const e = this.session.followed.get(id);
      this.session.followed.delete(id);
      e?.fail(new errors.UnknownExecutionError(`the session does not know execution ${id}`));
    }
    for (const [id, offset] of Object.entries(resume.offsets ?? {})) this.session.followed.get(id)?.resumedAt(offset);
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

