import { asError } from "./connection.js";
import {
  DetachedError,
  DiscardedError,
  GapError,
  InputConflictError,
  InputError,
  InputUnavailableError,
  LimitError,
  NoProcessError,
  ServerError,
} from "./errors.js";
import { Queue } from "./queue.js";
import { randomId } from "./random.js";
import type { Session } from "./session.js";
import type { Completed, Event, ExecuteResult, ExecutionStatus, Gap, Output, Warning } from "./wire.js";

/** How much of an input one request carries: a pipe's capacity, far below max-message. */
const inputChunk = 64 << 10;

/** Acks are sent when this part of a window was taken. */
const ackParts = 2;

/**
 * The state of the receiving side.
 *
 * - pending: execute is not answered yet. A resume does not name the execution.
 * - receiving: messages are queued.
 * - discarding: `discard` was called. Output is only counted, and acknowledged.
 * - ended: the end was received, and nothing follows it.
 * - failed: the session ended first.
 */
type Phase = "pending" | "receiving" | "discarding" | "ended" | "failed";

/** Thrown to ask for a new connection, because output is missing. */
export class HoleError extends Error {}

/** A piece of output as it has arrived. `exact`: its length is that of the transcript's bytes. */
export interface Piece {
  stream: "stdout" | "stderr";
  data: Uint8Array;
  truncated: boolean;
  offset: number;
  gap: number;
  exact: boolean;
}

/** One command of a session. */
export class Execution implements AsyncDisposable {
  /** The server's answer to execute. */
  result: ExecuteResult;

  // Receive state.
  /** @internal */ phase: Phase = "pending";
  #offset: number; // transcript position after the last queued event
  #gapRetriedAt = -1; // where missing bytes were asked for again
  #lastWarning: Warning | undefined; // recognizes what a resumed transcript repeats
  #endQueued = false; // survivors may still write after it

  // Consumer state.
  #queue = new Queue();
  #waiting: (() => void)[] = [];
  #delivered: number; // position after the last event that was taken
  #endTaken = false;
  #atEnd: Error | "end" | undefined; // what comes once the queue is empty; undefined: more events

  // What the current connection has brought, and what it was told.
  #arrived: number;
  #endArrived = false;
  #acked: number;
  #endAcked = false;

  // End.
  #completed: Completed | undefined;
  #error: Error | undefined;

  // Input.
  #inputTurn: Promise<unknown> = Promise.resolve();
  #inputOffset = 0;
  #writer: string | undefined; // of a terminal: names this client among those that type

  /** @internal */
  constructor(
    private readonly session: Session,
    /** By which another client of the session can follow it. */
    readonly id: string,
    offset = 0,
  ) {
    this.#offset = this.#delivered = this.#arrived = this.#acked = offset;
    this.result = { status: "started", execution_id: id, pid: 0, pgid: 0 };
  }

  /** Transcript position after the last event that was read. */
  get offset(): number {
    return this.#delivered;
  }

  /**
   * The next event, or undefined when all were read: then all output was delivered but for what a Gap, or the
   * counts of Completed, have reported. If the session ends first, it rejects with its end.
   */
  async next(options?: { signal?: AbortSignal }): Promise<Event | undefined> {
    for (;;) {
      options?.signal?.throwIfAborted();
      if (this.#queue.length > 0) return this.#take();
      if (this.#atEnd === "end") return undefined;
      if (this.#atEnd) throw this.#atEnd;
      await this.#change(options?.signal);
    }
  }

  /** All events. Leaving the loop leaves the rest for another one. */
  get events(): AsyncIterable<Event> {
    return { [Symbol.asyncIterator]: () => this.#iterate() };
  }

  async *#iterate(): AsyncGenerator<Event> {
    for (let event = await this.next(); event; event = await this.next()) yield event;
  }

  /**
   * The output alone, in order, both streams. Each piece is acknowledged when the next is asked for, so a
   * slow loop holds at most a window of output. It throws a GapError where bytes are missing; another
   * loop goes on behind them. The end is `await execution.wait()`.
   */
  get output(): AsyncIterable<Output> {
    return { [Symbol.asyncIterator]: () => this.#iterateOutput() };
  }

  async *#iterateOutput(): AsyncGenerator<Output> {
    for await (const event of this.events) {
      if (event.type === "output") yield event;
      else if (event.type === "gap") throw new GapError(this.id, event.bytes, event.offset);
    }
  }

  /**
   * Waits for the end without reading. The end comes behind the output: a command that prints more than a
   * window has no end before its output is read or discarded.
   */
  async wait(options?: { signal?: AbortSignal }): Promise<Completed> {
    for (;;) {
      options?.signal?.throwIfAborted();
      if (this.#completed) return this.#completed;
      if (this.#error) throw this.#error;
      await this.#change(options?.signal);
    }
  }

  /** Drops the unread output and all further output. `wait` still works. */
  discard(): void {
    if (this.phase === "pending" || this.phase === "receiving") this.phase = "discarding";
    this.#atEnd = new DiscardedError(`output of ${this.id} is discarded`);
    this.#queue.clear();
    this.#delivered = this.#offset;
    this.#endTaken = this.#endQueued;
    this.#acknowledge();
    if (this.phase === "ended") this.session.forget(this);
    this.#wake();
  }

  /** Stops the whole process tree and its timers. */
  pause(options?: { signal?: AbortSignal }): Promise<void> {
    return this.#control("PAUSE", options);
  }

  /** Lets a paused execution go on. */
  resume(options?: { signal?: AbortSignal }): Promise<void> {
    return this.#control("RESUME", options);
  }

  /**
   * Begins the end: SIGTERM to the whole tree, SIGKILL after the server's grace. It does not wait for the end,
   * `wait` does. It may be repeated, also after the end.
   */
  cancel(options?: { signal?: AbortSignal }): Promise<void> {
    return this.#control("CANCEL", options);
  }

  async #control(type: "PAUSE" | "RESUME" | "CANCEL", options?: { signal?: AbortSignal }): Promise<void> {
    await this.session.control({ type, execution_id: this.id }, options);
  }

  /**
   * Says how large this client's view of the execution's terminal is. The terminal takes the size of whoever typed
   * last; a `resized` event says when it has changed. The server forgets the size with the connection: say it again
   * when the session was resumed.
   */
  resize(cols: number, rows: number, options?: { signal?: AbortSignal }): Promise<void> {
    return this.session.resize({ execution_id: this.id, cols, rows }, options);
  }

  /** Sends a signal, such as "INT", to the command's process group; KILL to the whole tree. */
  signal(name: string, options?: { signal?: AbortSignal }): Promise<void> {
    return this.session.signal({ execution_id: this.id, signal: name }, options);
  }

  /**
   * Writes to stdin, and resolves when the bytes are in the command's pipe, which paces a writer. The
   * command gets every byte once and in order, whatever happens to the connection. It rejects with an
   * InputError. What an abort leaves in doubt may arrive later, still before the next write.
   */
  async write(data: Uint8Array | string, options?: { signal?: AbortSignal }): Promise<void> {
    const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
    const size = Math.min(inputChunk, Math.floor((this.session.limits.max_message || 1 << 20) / 2));
    for (let at = 0; at < bytes.length; at += size) {
      const chunk = bytes.slice(at, at + size);
      const { error, inDoubt } = await this.#input(chunk, false, options?.signal);
      if (error) throw new InputError(at, inDoubt ? chunk.length : 0, error);
    }
  }

  /** Closes stdin. Closing it twice is no error. A terminal cannot be closed so: write Ctrl-D, `"\x04"`. */
  async closeInput(options?: { signal?: AbortSignal }): Promise<void> {
    const { error } = await this.#input(new Uint8Array(0), true, options?.signal);
    if (error && !(error instanceof InputUnavailableError)) throw error;
  }

  /** A stream for `write` and `closeInput`, as in `file.stream().pipeTo(execution.stdin)`. */
  get stdin(): WritableStream<Uint8Array | string> {
    return new WritableStream({
      write: (chunk) => this.write(chunk),
      close: async () => {
        await this.closeInput().catch((e: unknown) => {
          if (!(e instanceof NoProcessError)) throw e; // it ended without reading all of it
        });
      },
      abort: () => this.closeInput().catch(() => {}),
    });
  }

  /** Cancels the execution if it runs, drops its output, and waits until its tree is dead. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#completed || this.#error) {
      this.discard();
      return;
    }
    this.discard();
    try {
      await this.cancel();
      await this.wait();
    } catch (e) {
      if (!this.#error && !(e instanceof NoProcessError)) throw e;
    }
  }

  // Input: one at a time for each execution, so that the offsets have no holes.

  async #input(data: Uint8Array, eof: boolean, signal?: AbortSignal): Promise<{ error?: Error; inDoubt?: boolean }> {
    const turn = this.#inputTurn;
    let release!: () => void;
    this.#inputTurn = new Promise<void>((resolve) => (release = resolve));
    await turn;
    try {
      signal?.throwIfAborted();
      const offset = this.#inputOffset;
      const input = { execution: this.id, offset, data, eof, writer: this.#writer };
      const { error, sent } = await this.session.sendInput(input, signal);
      // A server that has no room for an input takes nothing of it.
      if (sent && !(error instanceof LimitError)) this.#inputOffset += data.length;
      const answered = error instanceof ServerError || error instanceof InputConflictError;
      return error ? { error, inDoubt: sent && !answered } : {};
    } catch (e) {
      return { error: asError(e) };
    } finally {
      release();
    }
  }

  // Receiving.

  /** @internal */
  answered(result: ExecuteResult): void {
    if (this.phase === "pending") this.phase = "receiving";
    this.result = result;
  }

  /** @internal Several clients may type. */
  hasTerminal(): void {
    this.#writer = randomId();
  }

  /** @internal Takes over what a resume says of an execution that another client has started. */
  attachedTo(status: ExecutionStatus): void {
    this.phase = "receiving";
    this.result = { ...this.result, pid: status.pid, pgid: status.pgid, attached: true };
    if (status.terminal) this.hasTerminal();
    else this.#inputOffset = status.input_offset ?? 0;
    const done = status.completed;
    // The end lies before what survivors wrote, and the server does not go back for it.
    if (done && done.output_bytes < this.#offset && done.survivors?.kept) {
      this.#completed = done;
      this.#endQueued = this.#endArrived = true;
      this.#queue.push({ type: "completed", completed: done });
    }
  }

  /** @internal Queues a piece after making it contiguous with what was queued before. */
  receiveOutput(piece: Piece): void {
    this.#arrived = Math.max(this.#arrived, piece.offset);
    if (this.phase === "discarding") {
      this.#delivered = this.#offset = Math.max(this.#offset, piece.offset);
      this.#acknowledge();
      return;
    }
    let { data, gap } = piece;
    const longest = data.length;
    const shortest = piece.exact ? longest : longest - 2 * replacements(data);
    const advance = piece.offset - this.#offset; // new bytes that the gap and data cover
    if (!this.#queues() || advance <= 0) {
      this.#acknowledge(); // a repetition
      return;
    }
    if (advance > longest + gap) {
      this.#askAgain();
      gap = advance - longest;
    } else if (advance < shortest) {
      data = lastBytes(data, advance, piece.exact);
      gap = 0;
    } else if (advance < shortest + gap) {
      gap = advance - shortest;
    }
    if (gap > 0) this.#pushGap(gap, this.#offset + gap, gap > piece.gap);
    this.#offset = piece.offset;
    if (data.length > 0) {
      const { stream, truncated, offset } = piece;
      this.#push({ type: "output", stream, data, truncated, offset });
    }
  }

  /** Throws once for each place where bytes are missing: a new connection may bring them. */
  #askAgain(): void {
    if (this.#gapRetriedAt !== this.#offset) {
      this.#gapRetriedAt = this.#offset;
      throw new HoleError(`output of ${this.id} is not contiguous at ${this.#offset}`);
    }
  }

  #pushGap(bytes: number, offset: number, unreported: boolean): void {
    const gap: Gap = { type: "gap", bytes, offset, unreported };
    this.#offset = offset;
    this.#push(gap);
  }

  /** @internal */
  receiveCompleted(completed: Completed): void {
    this.#endArrived = true;
    if (!this.#completed && !this.#error) {
      this.#completed = completed;
      this.#wake();
    }
    if (!this.#queues() || this.#endQueued) {
      this.#acknowledge();
      return;
    }
    const discarding = this.phase === "discarding";
    const missing = discarding ? 0 : completed.output_bytes - this.#offset;
    if (missing > 0) {
      this.#askAgain();
      this.#pushGap(missing, completed.output_bytes, true);
    }
    this.#endQueued = true;
    if (discarding) this.#endTaken = true;
    else this.#push({ type: "completed", completed });
    if (!completed.survivors?.kept) {
      this.phase = "ended";
      this.#atEnd ??= "end";
      if (discarding) this.session.forget(this);
    }
    this.#acknowledge();
    this.#wake();
  }

  /** @internal Queues a warning unless it repeats one after a resume. */
  receiveWarning(warning: Warning): void {
    const last = this.#lastWarning;
    if (last?.code === warning.code && last.offset === warning.offset) return;
    this.#lastWarning = warning;
    this.#push(warning);
  }

  /** @internal */
  receive(event: Event): void {
    this.#push(event);
  }

  #queues(): boolean {
    return this.phase !== "ended" && this.phase !== "failed";
  }

  #push(event: Event): void {
    if (!this.#queues() || this.phase === "discarding") return;
    this.#queue.push(event);
    this.#wake();
  }

  #take(): Event {
    const event = this.#queue.shift();
    if (event.type === "output" || event.type === "gap") this.#delivered = event.offset;
    if (event.type === "completed") this.#endTaken = true;
    this.#acknowledge();
    if (this.phase === "ended" && this.#queue.length === 0) this.session.forget(this);
    return event;
  }

  // Acknowledging.

  /**
   * Acknowledges what was taken, where that is due. Of what this connection has brought, that is: the server
   * ignores an ack of what it has not sent on it.
   */
  #acknowledge(): void {
    const offset = Math.min(this.#delivered, this.#arrived);
    const completed = this.#endTaken && this.#endArrived;
    const progress = offset - this.#acked;
    const due =
      progress >= this.session.window / ackParts ||
      (completed && !this.#endAcked) ||
      (completed && progress > 0 && this.#queue.length === 0); // no mark follows what survivors write
    if (due && this.session.sendAck({ execution_id: this.id, offset, completed })) {
      this.#acked = offset;
      this.#endAcked = completed;
    }
  }

  /** @internal */
  connectionLost(): void {
    this.#arrived = this.#acked;
    this.#endArrived = false;
  }

  /** @internal A new connection follows from `offset`, which acknowledges that and nothing else. */
  resumedAt(offset: number): void {
    this.#acked = this.#arrived = offset;
    this.#endAcked = this.#endArrived = false;
  }

  /** @internal Where a resume continues, or undefined if it must not name the execution. */
  position(): number | undefined {
    return this.phase === "pending" || this.phase === "failed" ? undefined : this.#delivered;
  }

  /** @internal Whether everything that the server has for the execution was received. */
  get received(): boolean {
    return this.phase === "pending" || !this.#queues() || this.#endQueued;
  }

  /** @internal Ends the execution with its session. What is queued stays readable. */
  fail(error: Error): void {
    if (this.#queues()) this.phase = "failed";
    this.#atEnd ??= error;
    this.#error ??= error;
    this.#wake();
  }

  /** @internal Ends it for this client, and returns where another continues, if there is anything left. */
  detach(): number | undefined {
    const follow = this.phase !== "pending" && !(this.phase === "ended" && this.#queue.length === 0);
    this.#queue.clear();
    const error = new DetachedError("the client is detached");
    if (follow && this.#atEnd === "end") this.#atEnd = error; // the events before the end were dropped
    this.fail(error);
    return follow ? this.#delivered : undefined;
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }

  /** Resolves at the next change. */
  #change(signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (!signal) {
        this.#waiting.push(resolve);
        return;
      }
      const abort = () => {
        this.#waiting = this.#waiting.filter((w) => w !== wake);
        reject(asError(signal.reason));
      };
      const wake = () => {
        signal.removeEventListener("abort", abort);
        resolve();
      };
      signal.addEventListener("abort", abort, { once: true });
      this.#waiting.push(wake);
    });
  }
}

/** Whether U+FFFD, which stands for one to three bytes of the transcript, is at `i`. */
function isReplacement(data: Uint8Array, i: number): boolean {
  return data[i] === 0xef && data[i + 1] === 0xbf && data[i + 2] === 0xbd;
}

function replacements(data: Uint8Array): number {
  let n = 0;
  for (let i = data.indexOf(0xef); i >= 0; i = data.indexOf(0xef, i + 1)) if (isReplacement(data, i)) n++;
  return n;
}

/** The last n bytes of the transcript. Where U+FFFD makes that inexact, each is taken for one byte. */
function lastBytes(data: Uint8Array, n: number, exact: boolean): Uint8Array {
  if (exact) return data.subarray(data.length - n);
  let i = data.length;
  for (; n > 0 && i > 0; n--) i -= i >= 3 && isReplacement(data, i - 3) ? 3 : 1;
  return data.subarray(i);
}
