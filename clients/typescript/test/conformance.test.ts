// Plays the client's half of the scripts in clients/conformance, whose README.md describes them.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import * as troupe from "@troupe/client";
import { call, fill, impatient, startSuite } from "./support.js";

interface Failure {
  kind: string;
  status?: number;
  code?: number;
  data?: unknown;
}

interface Expected {
  type: string;
  stream?: string;
  data?: string;
  base64?: string;
  fill?: [number, number];
  bytes?: number;
  code?: string;
  cols?: number;
  rows?: number;
  completed?: unknown;
  error?: Failure;
}

interface Action {
  do: string;
  execution_id: string;
  params: troupe.ExecuteParams;
  result?: unknown;
  completed?: unknown;
  events?: Expected[];
  error?: Failure;
  signal: string;
  cols: number;
  rows: number;
  data?: string;
  fill?: [number, number];
  mark: string;
  abort_at?: string;
  background?: string;
  session_id: string;
  resume_token: string;
  offsets?: Record<string, number>;
}

interface Run {
  url: string;
  ws: string;
  about: string;
  needs: string[] | null;
  client: Action[];
  options: {
    window?: number;
    tokens?: string[];
    resume_window_ms?: number;
    keepalive_ms?: number;
    dial_retry_ms?: number;
  } | null;
}

const kinds: Record<string, new (...args: never[]) => Error> = {
  closed: troupe.ClosedError,
  detached: troupe.DetachedError,
  no_session: troupe.NoSessionError,
  session_lost: troupe.SessionLostError,
  session_ended: troupe.SessionEndedError,
  unreachable: troupe.UnreachableError,
  unknown_execution: troupe.UnknownExecutionError,
  unknown_outcome: troupe.UnknownOutcomeError,
  input_conflict: troupe.InputConflictError,
  followed: troupe.FollowedError,
  discarded: troupe.DiscardedError,
  too_large: troupe.TooLargeError,
};

/** The class that belongs to each code. */
const codes: Record<number, new (...args: never[]) => Error> = {
  [-32700]: troupe.ParseError,
  [-32600]: troupe.InvalidRequestError,
  [-32601]: troupe.MethodNotFoundError,
  [-32602]: troupe.InvalidParamsError,
  [-32603]: troupe.InternalError,
  [-32001]: troupe.LimitError,
  [-32002]: troupe.NotAllowedError,
  [-32003]: troupe.NoProcessError,
  [-32004]: troupe.StreamTimeoutError,
  [-32005]: troupe.ExecutionLimitError,
  [-32006]: troupe.NoSessionError,
  [-32007]: troupe.SessionLostError,
  [-32008]: troupe.DrainingError,
  [-32009]: troupe.InputUnavailableError,
  [-32010]: troupe.StartFailedError,
};

const controls = new Set<string>(["started", "paused", "resumed", "canceled"]);

function matches(pattern: unknown, got: unknown, path = "it"): void {
  if (pattern === undefined || (pattern === null && got === undefined)) return;
  if (pattern === "*") assert.notEqual(got ?? null, null, path);
  else if (typeof pattern === "object" && pattern !== null && !Array.isArray(pattern)) {
    assert.equal(typeof got, "object", path);
    const members = got as Record<string, unknown>;
    for (const [key, value] of Object.entries(pattern)) matches(value, members[key], `${path}.${key}`);
  } else assert.deepEqual(got, pattern, path);
}

function matchesError(want: Failure, got: unknown): void {
  assert.ok(got instanceof Error, `want the error ${JSON.stringify(want)}`);
  const e = got instanceof troupe.InputError && got.cause instanceof Error ? got.cause : got;
  const context = `want the error ${JSON.stringify(want)}, it is ${e.name}: ${e.message}`;
  if (want.kind === "handshake") assert.ok(e instanceof troupe.HandshakeError && e.status === want.status, context);
  else if (want.kind === "aborted") assert.equal(e.name, "AbortError", context);
  else if (want.kind === "server") {
    assert.ok(e instanceof troupe.ServerError && e.code === want.code, context);
    assert.ok(e instanceof (codes[e.code] ?? troupe.ServerError), context);
    matches(want.data, e.data);
  } else assert.ok(kinds[want.kind] && e instanceof kinds[want.kind]!, context);
}

/** Does the client's half of one run. */
class Player {
  session!: troupe.Session;
  executions = new Map<string, troupe.Execution>();
  rest = new Map<string, troupe.Output>(); // of a piece that a read ended in
  background = new Map<string, Promise<unknown>>();
  options: troupe.Options;

  constructor(readonly run: Run) {
    const o = run.options ?? {};
    this.options = { ...impatient };
    if (o.window) this.options.window = o.window;
    if (o.resume_window_ms) this.options.resumeWindowMs = o.resume_window_ms;
    if (o.keepalive_ms) this.options.keepaliveTimeoutMs = o.keepalive_ms;
    if (o.dial_retry_ms) this.options.openRetryMs = o.dial_retry_ms;
    const tokens = o.tokens ?? [];
    let calls = 0;
    this.options.token = () => tokens[Math.min(calls++, tokens.length - 1)] ?? "";
  }

  async perform(a: Action): Promise<void> {
    if (a.background && a.do !== "join") {
      const done = this.#judged(a);
      done.catch(() => {});
      this.background.set(a.background, done);
    } else await this.#judged(a);
  }

  async #judged(a: Action): Promise<void> {
    const abort = new AbortController();
    if (a.abort_at) {
      const failed = (e: unknown) => assert.fail(String(e));
      call("GET", `${this.run.url}/marks/${a.abort_at}`).then(() => abort.abort(), failed);
    }
    let failure: unknown;
    try {
      await this.#do(a, a.abort_at ? { signal: abort.signal } : {});
    } catch (e) {
      failure = e;
    }
    if (a.error) matchesError(a.error, failure);
    else if (failure) throw failure;
  }

  async #do(a: Action, options: { signal?: AbortSignal }): Promise<void> {
    switch (a.do) {
      case "mark":
        await call("POST", `${this.run.url}/marks/${a.mark}`);
        return;
      case "await":
        await call("GET", `${this.run.url}/marks/${a.mark}`);
        return;
      case "join":
        await this.background.get(a.background ?? "");
        return;
      case "open":
        this.session = await troupe.open(this.run.ws, this.options);
        return;
      case "attach": {
        const saved: troupe.SavedSession = { session_id: a.session_id, resume_token: a.resume_token };
        if (a.offsets) saved.offsets = a.offsets;
        this.session = await troupe.attach(this.run.ws, saved, this.options);
        this.executions = this.session.executions;
        return;
      }
      case "execute": {
        const e = await this.session.exec(a.params, options);
        this.executions.set(e.id, e);
        return matches(a.result, e.result);
      }
      case "status":
        return matches(a.result, await this.session.status(options));
      case "close":
        return this.session.close();
      case "leave":
        return this.session.leave();
      case "detach":
        return matches(a.result, await this.session.detach());
      case "ended":
        throw await this.session.ended;
    }
    return this.#onExecution(a, options);
  }

  async #onExecution(a: Action, options: { signal?: AbortSignal }): Promise<void> {
    const e = this.executions.get(a.execution_id);
    assert.ok(e, `no execution ${a.execution_id}`);
    switch (a.do) {
      case "read":
        for (const [i, want] of (a.events ?? []).entries()) {
          await this.#read(e, want, options).catch((cause: unknown) => {
            throw new Error(`event ${i + 1}: ${String(cause)}`, { cause });
          });
        }
        return;
      case "wait":
        return matches(a.completed, await e.wait(options));
      case "input":
        return e.write(a.fill ? fill(...a.fill) : (a.data ?? ""), options);
      case "close_input":
        return e.closeInput(options);
      case "signal":
        return e.signal(a.signal, options);
      case "resize":
        return e.resize(a.cols, a.rows, options);
      case "pause":
        return e.pause(options);
      case "resume":
        return e.resume(options);
      case "cancel":
        return e.cancel(options);
      case "discard":
        return e.discard();
    }
    assert.fail(`unknown action ${a.do}`);
  }

  /** Takes one event: joins output until there is as much as is wanted, and skips controls that are not. */
  async #read(e: troupe.Execution, want: Expected, options: { signal?: AbortSignal }): Promise<void> {
    let data = want.fill
      ? fill(...want.fill)
      : want.base64 !== undefined
        ? Buffer.from(want.base64, "base64")
        : Buffer.from(want.data ?? "");
    for (;;) {
      let event: troupe.Event | undefined = this.rest.get(e.id);
      this.rest.delete(e.id);
      try {
        event ??= await e.next(options);
      } catch (failure) {
        if (!want.error) throw failure;
        return matchesError(want.error, failure);
      }
      if (event && controls.has(event.type) && event.type !== want.type) continue;
      assert.equal(event?.type ?? "end", want.type, JSON.stringify(event));
      if (event?.type === "gap") assert.equal(event.bytes, want.bytes);
      if (event?.type === "resized") assert.deepEqual([event.cols, event.rows], [want.cols, want.rows]);
      if (event?.type === "screen") {
        assert.deepEqual([event.cols, event.rows, Buffer.from(event.data).toString()], [want.cols, want.rows, want.data]);
      }
      if (event?.type === "warning") assert.equal(event.code, want.code);
      if (event?.type === "completed") matches(want.completed, event.completed);
      if (event?.type !== "output") return;
      const n = Math.min(data.length, event.data.length);
      assert.equal(event.stream, want.stream);
      const same = Buffer.from(event.data.subarray(0, n)).equals(data.subarray(0, n));
      assert.ok(same, `bytes up to ${event.offset} are wrong`);
      data = data.subarray(n);
      if (n < event.data.length) this.rest.set(e.id, { ...event, data: event.data.subarray(n) });
      if (data.length === 0) return;
    }
  }
}

const suite = await startSuite();
after(suite.stop);

for (const name of await call<string[]>("GET", `${suite.url}/scripts`)) {
  test(name, { timeout: 30_000 }, async (t) => {
    const run = await call<Run>("POST", `${suite.url}/runs/${name}`);
    const missing = run.needs?.filter((need) => need !== "terminal");
    if (missing?.length) return t.skip(`this client does not have ${missing.join(", ")}`);
    const player = new Player(run);
    const failures: string[] = [];
    for (const [i, action] of run.client.entries()) {
      try {
        await player.perform(action);
      } catch (e) {
        failures.push(`action ${i + 1}, ${action.do}: ${String(e)}`);
        break;
      }
    }
    if (failures.length > 0) await player.session?.detach();
    await call("POST", `${run.url}/end`).catch((e: unknown) => failures.push(String(e)));
    await player.session?.close().catch(() => {});
    assert.deepEqual(failures, [], run.about);
  });
}
