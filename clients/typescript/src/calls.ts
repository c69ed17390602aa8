import type { Connection } from "./connection.js";
import { InputConflictError, TooLargeError, UnknownOutcomeError, serverError } from "./errors.js";
import { inputFrame, toBase64 } from "./frames.js";
import type { WireError } from "./wire.js";

/**
 * What happens to a request whose connection ended before the answer: it is sent again, or it fails with an
 * UnknownOutcomeError. `offset`: as `safe` if the server takes inputs by their offset, else as `never`.
 */
export type Repeat = "safe" | "never" | "offset";

/** What a call carries to the stdin of an execution. */
export interface Input {
  execution: string;
  /** Position in stdin of the first byte. */
  offset: number;
  data: Uint8Array;
  eof: boolean;
  /** Of a terminal: who of those that share it types. */
  writer: string | undefined;
}

/** One request. */
export interface Call {
  id: number;
  method: string;
  frame: string;
  input: Input | undefined;
  repeat: Repeat;
  /** On the current connection. */
  sent: boolean;
  /** On any connection. */
  written: boolean;
  binary: boolean;
  /** Called with the answer before any later message is received. */
  answered: (result: never) => void;
  done: Promise<unknown>;
  resolve: (result: unknown) => void;
  reject: (error: Error) => void;
}

/** The unanswered requests of a session, in order. */
export class Calls {
  /** Whether the server takes inputs by their offset. */
  offsets = false;
  #calls = new Map<number, Call>();
  #lastId = 0; // 0 is resume's

  make(method: string, params: unknown, repeat: Repeat, maxMessage: number, input?: Input): Call {
    const id = ++this.#lastId;
    const frame = input ? "" : JSON.stringify({ jsonrpc: "2.0", id, method, params });
    const size = maxMessage > 0 && frame.length * 3 > maxMessage ? new TextEncoder().encode(frame).length : 0;
    if (size > maxMessage) {
      throw new TooLargeError(`${method} of ${size} bytes: the server accepts ${maxMessage}`);
    }
    let resolve!: (result: unknown) => void;
    let reject!: (error: Error) => void;
    const done = new Promise((yes, no) => ([resolve, reject] = [yes, no]));
    done.catch(() => {}); // a call whose caller has gone may fail
    const common = { sent: false, written: false, binary: false, answered: () => {} };
    return { id, method, frame, input, repeat, done, resolve, reject, ...common };
  }

  add(call: Call): void {
    this.#calls.set(call.id, call);
  }

  /** Sends what the connection was not sent yet. */
  flush(connection: Connection): void {
    for (const call of this.#calls.values()) {
      if (call.sent) continue;
      call.sent = call.written = true;
      if (!call.input) {
        connection.send(call.frame);
        continue;
      }
      const { execution, offset, data, eof, writer } = call.input;
      const stream = writer === undefined ? connection.numbers.get(execution) : undefined;
      call.binary = stream !== undefined;
      if (stream !== undefined) connection.send(inputFrame(stream, offset, data, eof));
      else {
        const params = { execution_id: execution, data: toBase64(data), encoding: "base64", eof, offset, writer };
        connection.send(JSON.stringify({ jsonrpc: "2.0", id: call.id, method: "input", params }));
      }
    }
  }

  answer(id: number, result: unknown, error: WireError | undefined): void {
    const call = this.#calls.get(id);
    if (!call) return;
    this.#calls.delete(id);
    if (error) call.reject(serverError(error));
    else {
      call.answered(result as never);
      call.resolve(result);
    }
  }

  /** Passes the answer to a binary input to the oldest one of the execution. */
  inputTaken(execution: string, offset: number, error: WireError | undefined): void {
    let oldest: Call | undefined;
    let end = 0; // of what this client has sent
    for (const call of this.#calls.values()) {
      if (!call.sent || !call.binary || call.input?.execution !== execution) continue;
      oldest ??= call;
      end = call.input.offset + call.input.data.length;
    }
    if (!oldest) return;
    this.#calls.delete(oldest.id);
    if (error) oldest.reject(serverError(error));
    else if (offset > end) oldest.reject(new InputConflictError(`another client writes to the stdin of ${execution}`));
    else oldest.resolve({});
  }

  /**
   * Drops a call whose caller has gone, and says whether the server may have received it. Input that was
   * written stays, since later input follows it: if the connection ends, it must be repeated.
   */
  withdraw(call: Call): boolean {
    if (!call.written || !call.input) this.#calls.delete(call.id);
    return call.written;
  }

  /** Decides what is sent again on the next connection. `tooBig`: the server has refused one for its size. */
  connectionLost(tooBig: boolean): void {
    for (const call of this.#calls.values()) {
      const never = call.repeat === "never" || (call.repeat === "offset" && !this.offsets);
      if (call.sent && (tooBig || never)) {
        this.#calls.delete(call.id);
        const cause = new UnknownOutcomeError(`the connection ended before the answer to ${call.method}`);
        call.reject(tooBig ? new TooLargeError("a request is larger than the server accepts", { cause }) : cause);
      }
      call.sent = false;
    }
  }

  fail(error: Error): void {
    for (const call of this.#calls.values()) call.reject(error);
    this.#calls.clear();
  }
}
