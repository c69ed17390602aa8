import { Calls, type Call, type Input, type Repeat } from "./calls.js";
import { asError } from "./connection.js";
import * as errors from "./errors.js";
import { Execution } from "./execution.js";
import { Link, closeTimeoutMs } from "./link.js";
import { settings, type Options } from "./options.js";
import { randomId } from "./random.js";
import type * as wire from "./wire.js";

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

  readonly #link: Link;

  /** @internal Use `open` or `attach`. */
  constructor(url: string, options: Options) {
    const filled = settings(options);
    this.window = filled.window;
    this.#link = new Link(this, url, filled);
    this.ended = this.#link.ended;
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
    return this.#link.error;
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
    params.execution_id ??= randomId();
    const execution = new Execution(this, params.execution_id);
    if (params.terminal) execution.hasTerminal();
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

  /** Says how large this client's view of the terminal of an execution is. */
  async resize(params: { execution_id: string; cols: number; rows: number }, options?: Aborting): Promise<void> {
    await this.#request("resize", params, "safe", options);
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
    if (this.#link.error) return;
    this.#link.leaving ??= new errors.ClosedError("the client is closed");
    let failure: Error | undefined;
    try {
      await this.#request("close", {}, "safe", { signal: AbortSignal.timeout(closeTimeoutMs) });
    } catch (e) {
      failure = asError(e);
    }
    await this.#link.disconnect(this.#link.leaving, 1000);
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
    return this.#link.disconnect(new errors.ClosedError("the client has left"), 1000);
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
    await this.#link.disconnect(new errors.DetachedError("the client is detached"), undefined);
    return saved;
  }

  /** What `detach` would return now. */
  save(): SavedSession {
    const offsets = Object.fromEntries([...this.executions].map(([id, e]) => [id, e.offset]));
    return { session_id: this.id, resume_token: this.connected.resume_token, offsets };
  }

  /** @internal Makes the first connection. */
  start(saved: SavedSession | undefined, options: Options): Promise<void> {
    return this.#link.start(saved, options);
  }

  // Requests.

  #call(method: string, params: unknown, repeat: Repeat, input?: Input): Call {
    return this.calls.make(method, params, repeat, this.limits.max_message ?? 0, input);
  }

  #submit(call: Call): void {
    if (this.#link.error) throw this.#link.error;
    this.calls.add(call);
    if (this.#link.current) this.calls.flush(this.#link.current);
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
    if (!this.#link.current?.isOpen) return false;
    this.#link.current.send(JSON.stringify({ jsonrpc: "2.0", method: "ack", params }));
    return true;
  }

  /** @internal */
  forget(e: Execution): void {
    if (this.followed.get(e.id) === e) this.followed.delete(e.id);
  }
}
