import * as troupe from "@troupe/client";
import { attachSession, getSession, type SessionExecution, type SessionInfo } from "./api.js";
import { auth } from "./auth.js";
import { OutputLog } from "./log.js";
import { Shell } from "./shell.js";
import { Store } from "./store.js";
import { goneWords, seconds } from "./words.js";

/** How the page is connected to a session. */
export type Link =
  | { state: "connected"; note?: string }
  | { state: "lost"; note: string }
  /** outdated: it was refused with a token that another has replaced meanwhile. */
  | { state: "ended"; note: string; outdated: boolean };

/** Begins the ids of executions that a console has started: another one follows them by itself. */
const idPrefix = "console-";

/** Likewise, of those that have a terminal. */
const terminalPrefix = `${idPrefix}terminal-`;

/** What a terminal runs: the best login shell that there is. */
const loginShell = 'exec "$(command -v bash || echo /bin/sh)" -l';

/** Of a terminal that is not shown yet. */
const firstSize = { cols: 80, rows: 24 };

/** Output of a command that is read beyond what is drawn, so that the page stays quick. */
const pageTurnBytes = 256 << 10;

/** A command that this page follows. */
export class Run {
  readonly log = new OutputLog();
  /** Set anew at each change of the command's state. */
  readonly changed = new Store(0);
  state: SessionExecution["state"] | "failed" = "starting";
  completed: troupe.Completed | undefined;
  /** Why there is no output, or no more. */
  error: string | undefined;
  #execution: troupe.Execution | undefined;

  constructor(
    readonly id: string,
    readonly command: string,
    readonly startedAt: number,
    /** The screen and keys, if it runs in a terminal. */
    readonly shell?: Shell,
  ) {}

  get ended(): boolean {
    return this.completed !== undefined || this.state === "failed";
  }

  update(change: Partial<Pick<Run, "state" | "completed" | "error">>): void {
    Object.assign(this, change);
    this.changed.set(this.changed.value + 1);
  }

  /** Reads an execution to its end. */
  async follow(execution: troupe.Execution): Promise<void> {
    this.#execution = execution;
    this.shell?.use(execution);
    if (this.state === "starting") this.update({ state: "running" });
    let read = 0;
    try {
      for await (const event of execution.events) {
        this.#handle(event);
        if (this.shell) await this.shell.draw(event);
        if (event.type !== "output" || this.shell) continue;
        read += event.data.length;
        if (read > pageTurnBytes) {
          read = 0;
          await nextFrame();
        }
      }
    } catch (e) {
      if (!this.completed) this.fail(e);
    }
  }

  fail(e: unknown): void {
    this.log.end();
    this.update({ state: "failed", error: message(e) });
  }

  #handle(event: troupe.Event): void {
    switch (event.type) {
      case "output":
        if (this.shell) return;
        this.log.append(event.stream, event.data);
        return;
      case "gap":
        this.log.note(goneWords(event.bytes));
        return;
      case "warning":
        this.log.note(event.message);
        return;
      case "error":
        this.log.note(event.error.message);
        return;
      case "paused":
        return this.update({ state: "paused" });
      case "started":
      case "resumed":
        return this.update({ state: "running" });
      case "canceled":
        return this.update({ state: "canceling" });
      case "completed":
        this.log.end();
        return this.update({ state: event.completed.survivors?.kept ? "kept" : "exited", completed: event.completed });
    }
  }

  async control(type: "PAUSE" | "RESUME" | "CANCEL"): Promise<void> {
    const e = this.#execution;
    if (!e) return;
    await (type === "PAUSE" ? e.pause() : type === "RESUME" ? e.resume() : e.cancel());
    if (!this.ended) this.update({ state: type === "PAUSE" ? "paused" : type === "RESUME" ? "running" : "canceling" });
  }
}

/** A session that this page is connected to. It outlives the views that show it. */
export class Workspace {
  readonly link = new Store<Link>({ state: "connected" });
  /** By their start. */
  readonly runs = new Store<Run[]>([]);
  readonly session: troupe.Session;
  readonly #others = new Map<string, Promise<troupe.Session>>(); // by the executions of other clients that they follow

  private constructor(
    readonly saved: troupe.SavedSession,
    session: troupe.Session,
    { notices, outdated }: ReturnType<typeof connector>,
  ) {
    this.session = session;
    notices((n) => this.#notice(n));
    void session.ended.then((e) => {
      for (const other of this.#others.values()) void other.then((it) => it.detach()).catch(() => {});
      this.link.set({ state: "ended", note: message(e), outdated: outdated(e) });
    });
  }

  get id(): string {
    return this.saved.session_id;
  }

  static async open(name?: string): Promise<Workspace> {
    const connecting = connector();
    const session = await connecting.connect((options) => troupe.open(endpoint(), name ? { ...options, name } : options));
    auth.accepted();
    const { session_id, resume_token } = session.connected;
    return new Workspace({ session_id, resume_token }, session, connecting);
  }

  /** Attaches to an own session, and follows what consoles have started in it. */
  static async attach(id: string): Promise<Workspace> {
    const connecting = connector();
    const info = await getSession(id);
    const ours = info.executions.filter((e) => e.id.startsWith(idPrefix));
    const saved = { ...(await attachSession(id)), offsets: Object.fromEntries(ours.map((e) => [e.id, 0])) };
    const session = await connecting.connect((options) => troupe.attach(endpoint(), saved, options));
    const workspace = new Workspace(saved, session, connecting);
    for (const e of ours) void workspace.#follow(session, e);
    return workspace;
  }

  /** Runs a shell command. */
  run(command: string): Run {
    const run = new Run(idPrefix + troupe.randomId(), command, Date.now());
    this.runs.set([...this.runs.value, run]);
    this.session.exec({ command, execution_id: run.id }).then(
      (execution) => run.follow(execution),
      (e: unknown) => {
        run.log.note(message(e));
        run.fail(e);
      },
    );
    return run;
  }

  /** Opens a terminal with a login shell. */
  openTerminal(): Run {
    const run = this.#terminalRun(terminalPrefix + troupe.randomId(), Date.now());
    this.runs.set([...this.runs.value, run]);
    const terminal = { ...firstSize, term: "xterm-256color" };
    this.session.exec({ command: loginShell, execution_id: run.id, terminal, env: { COLORTERM: "truecolor" } }).then(
      (execution) => run.follow(execution),
      (e: unknown) => run.fail(e),
    );
    return run;
  }

  #terminalRun(id: string, startedAt: number): Run {
    const names = this.runs.value.flatMap((r) => r.shell?.name ?? []);
    let n = 1;
    while (names.includes(`Terminal ${n}`)) n++;
    return new Run(id, "terminal", startedAt, new Shell(`Terminal ${n}`));
  }

  /** Shows a run no more. */
  forget(run: Run): void {
    this.runs.set(this.runs.value.filter((r) => r !== run));
    run.shell?.dispose();
  }

  /**
   * Follows a command that another client has started, on a connection of its own. Not before somebody asks: of
   * one that keeps only `unread` output the console could become the reader.
   */
  async follow(e: SessionExecution): Promise<void> {
    if (this.#others.has(e.id) || this.runs.value.some((r) => r.id === e.id)) return;
    const saved = { ...this.saved, offsets: { [e.id]: 0 } };
    const connecting = connector().connect((options) => troupe.attach(endpoint(), saved, options));
    this.#others.set(e.id, connecting);
    try {
      const session = await connecting;
      void this.#follow(session, e).finally(() => {
        this.#others.delete(e.id);
        void session.detach();
      });
    } catch (error) {
      this.#others.delete(e.id);
      throw error;
    }
  }

  async #follow(session: troupe.Session, e: SessionExecution): Promise<void> {
    const startedAt = Date.parse(e.started_at);
    if (e.id.startsWith(terminalPrefix) && e.state === "exited") return; // its screen is of no use any more
    const run = e.id.startsWith(terminalPrefix)
      ? this.#terminalRun(e.id, startedAt)
      : new Run(e.id, e.command ?? e.id, startedAt);
    const execution = session.executions.get(e.id);
    run.state = e.state;
    this.runs.set([...this.runs.value, run].toSorted((a, b) => a.startedAt - b.startedAt));
    if (execution) await run.follow(execution);
    else run.fail(new Error("its output is no longer on the server"));
  }

  #notice(n: troupe.Notice): void {
    switch (n.kind) {
      case "lost":
        return this.link.set({ state: "lost", note: "Connection lost, reconnecting…" });
      case "retry":
        return this.link.set({ state: "lost", note: `Reconnecting… (attempt ${n.attempt}: ${n.error.message})` });
      case "resumed":
        for (const run of this.runs.value) run.shell?.fit(true); // the server has forgotten the size
        return this.link.set({ state: "connected", note: `Reconnected after ${seconds(n.goneMs / 1000)}: nothing was lost` });
      case "draining":
        this.link.set({
          state: "connected",
          note: `The server is stopping: what runs here may go on for ${seconds(n.deadlineSeconds)}`,
        });
    }
  }
}

const workspaces = new Map<string, Promise<Workspace>>();

/** The connection to a session; a new one if there is none. */
export function workspace(id: string): Promise<Workspace> {
  return workspaces.get(id) ?? remember(id, Workspace.attach(id));
}

/** Opens a session, which `workspace` then knows. */
export async function openWorkspace(name?: string): Promise<Workspace> {
  const opened = await Workspace.open(name);
  return remember(opened.id, Promise.resolve(opened));
}

/** Knows a connection until it has ended, or another has taken its place. */
function remember(id: string, connecting: Promise<Workspace>): Promise<Workspace> {
  workspaces.set(id, connecting);
  const forget = () => void (workspaces.get(id) === connecting && workspaces.delete(id));
  connecting.then((w) => w.session.ended).then(forget, forget);
  return connecting;
}

/** Aborted when whoever is signed in leaves. */
let visit = new AbortController();

/** Drops all connections, those that are being made as well, for whoever signs out. */
export function leaveAll(): void {
  visit.abort(new Error("you have signed out"));
  visit = new AbortController();
  for (const w of workspaces.values()) w.then((it) => it.runs.value.forEach((run) => run.shell?.dispose())).catch(() => {});
  workspaces.clear();
}

function endpoint(): string {
  return new URL("/ws", location.href).href;
}

/** Makes a connection for whoever is signed in now. */
function connector() {
  const { signal } = visit;
  let listener: (n: troupe.Notice) => void = () => {};
  let used = auth.token;
  const options: troupe.Options = { signal, token: () => (used = auth.token), onNotice: (n) => listener(n) };
  const connect = async (make: (options: troupe.Options) => Promise<troupe.Session>): Promise<troupe.Session> => {
    const session = await make(options);
    const leave = () => void session.detach();
    signal.addEventListener("abort", leave);
    if (signal.aborted) leave();
    void session.ended.then((e) => {
      signal.removeEventListener("abort", leave);
      if (unauthorized(e)) auth.refused(used);
    });
    signal.throwIfAborted();
    return session;
  };
  return {
    connect,
    notices: (l: (n: troupe.Notice) => void) => void (listener = l),
    outdated: (e: Error) => unauthorized(e) && used !== auth.token,
  };
}

function unauthorized(e: Error): boolean {
  return e instanceof troupe.HandshakeError && e.status === 401;
}

/** A file transfer, which is a command of its session too. */
export function isTransfer(e: SessionExecution): boolean {
  return /^\S*troupe-files(\s|$)/.test(e.command ?? "");
}

/** A terminal of a console. */
export function isTerminal(e: SessionExecution): boolean {
  return e.id.startsWith(terminalPrefix);
}

/** What runs of a session, file transfers left out. */
export function runningIn(s: SessionInfo): SessionExecution[] {
  return s.executions.filter((e) => e.state !== "exited" && !isTransfer(e));
}

function nextFrame(): Promise<void> {
  // A hidden page draws no frames, and reads on all the same.
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, 100);
    requestAnimationFrame(() => {
      clearTimeout(timer);
      resolve();
    });
  });
}

export function message(e: unknown): string {
  return e instanceof Error ? e.message : String(e);
}
