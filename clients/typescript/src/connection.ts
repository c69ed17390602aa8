import { ConnectionError, HandshakeError } from "./errors.js";
import type { Settings, WebSocketLike } from "./options.js";
import { toBase64 } from "./frames.js";

/** Where the messages of a connection go. An exception ends the connection. */
export interface Receiver {
  text(connection: Connection, message: Message): void;
  binary(connection: Connection, frame: ArrayBuffer): void;
}

/** A JSON-RPC message of the server. */
export interface Message {
  id?: number | string | null;
  method?: string;
  params?: unknown;
  result?: unknown;
  error?: { code: number; message: string };
}

const subprotocol = "troupe.v1";
const bearerPrefix = "base64url.bearer.authorization.troupe.dev.";
const bodyLimit = 1024;

/** One WebSocket. It ends once, by whatever comes first, and then calls nothing more. */
export class Connection {
  /** Executions by the numbers of their binary messages, and the reverse. */
  readonly streams = new Map<number, string>();
  readonly numbers = new Map<string, number>();
  /** Settled when the connection has ended, with the cause. */
  readonly ended: Promise<Error>;

  #end!: (cause: Error) => void;
  #over = false;
  #heard = Date.now();
  #watchdog: ReturnType<typeof setInterval> | undefined;

  private constructor(
    private readonly ws: WebSocketLike,
    receiver: Receiver,
  ) {
    this.ended = new Promise((resolve) => (this.#end = resolve));
    ws.onmessage = (event: { data: string | ArrayBuffer }) => {
      if (this.#over) return;
      this.#heard = Date.now();
      try {
        if (typeof event.data === "string") receiver.text(this, JSON.parse(event.data) as Message);
        else receiver.binary(this, event.data);
      } catch (e) {
        this.fail(e instanceof Error ? e : new Error(String(e)));
      }
    };
    ws.onerror = () => {}; // close follows, and says as much: a WebSocket hides the reason from scripts
    ws.onclose = (event: { code: number; reason: string }) => {
      const reason = event.reason ? `: ${event.reason}` : "";
      this.#finish(new ConnectionError(`the connection ended with close code ${event.code}${reason}`, event.code));
    };
  }

  /** Makes a WebSocket. It throws a HandshakeError if the server refused, and a ConnectionError else. */
  static async open(url: string, s: Settings, receiver: Receiver, signal: AbortSignal): Promise<Connection> {
    const token = await s.token();
    signal.throwIfAborted();
    const protocols = token ? [subprotocol, bearerPrefix + base64url(token)] : [subprotocol];
    const ws = new s.WebSocket(url, protocols);
    ws.binaryType = "arraybuffer";
    const connection = new Connection(ws, receiver);
    const opened = new Promise<undefined>((resolve) => {
      ws.onopen = () => resolve(undefined);
    });
    const abort = () => connection.fail(asError(signal.reason));
    signal.addEventListener("abort", abort);
    const failure = await Promise.race([opened, connection.ended]);
    signal.removeEventListener("abort", abort);
    if (!failure) return connection;
    signal.throwIfAborted();
    throw (await whyRefused(url, token, s, signal)) ?? failure;
  }

  get isOpen(): boolean {
    return !this.#over;
  }

  send(data: string | Uint8Array<ArrayBuffer>): void {
    if (!this.#over) this.ws.send(data);
  }

  /**
   * Gives the connection up when nothing was received for a time. Browsers cannot send WebSocket pings, so
   * `probe` makes a live server answer when half of the time has passed.
   */
  watch(timeoutMs: number, probe: () => void): void {
    if (timeoutMs <= 0) return;
    let probed = false;
    this.#watchdog = setInterval(() => {
      const quiet = Date.now() - this.#heard;
      if (quiet >= timeoutMs) this.fail(new ConnectionError(`nothing heard from the server for ${timeoutMs} ms`));
      else if (quiet < timeoutMs / 2) probed = false;
      else if (!probed) {
        probed = true;
        probe();
      }
    }, timeoutMs / 6);
  }

  /** Ends the connection at once: the server keeps the session. */
  fail(cause: Error): void {
    if (this.#finish(cause)) this.#close();
  }

  /** Closes with a code, or with none, and waits for the server's answer for a bounded time. */
  async close(code: number | undefined, timeoutMs: number): Promise<void> {
    if (this.#over) return;
    this.#close(code);
    let timer: ReturnType<typeof setTimeout> | undefined;
    await Promise.race([this.ended, new Promise((resolve) => (timer = setTimeout(resolve, timeoutMs)))]);
    clearTimeout(timer);
    this.#finish(new ConnectionError("the server did not answer the close frame"));
  }

  #close(code?: number): void {
    try {
      if (code === undefined) this.ws.close();
      else this.ws.close(code);
    } catch {
      // It was not open yet; ws throws then.
    }
  }

  #finish(cause: Error): boolean {
    if (this.#over) return false;
    this.#over = true;
    clearInterval(this.#watchdog);
    this.#end(cause);
    return true;
  }
}

/**
 * Asks the server over HTTP why a handshake has failed, since a WebSocket does not tell. The server checks
 * the token first, and answers 426 if nothing but the upgrade is missing.
 */
async function whyRefused(url: string, token: string, s: Settings, signal: AbortSignal): Promise<Error | undefined> {
  if (!s.fetch) return undefined;
  try {
    const answer = await s.fetch(url.replace(/^ws/, "http"), {
      headers: token ? { Authorization: `Bearer ${token}` } : {},
      redirect: "manual",
      signal,
    });
    const body = (await answer.text()).slice(0, bodyLimit).trim();
    if (answer.status < 400 || answer.status === 426) return undefined;
    return new HandshakeError(answer.status, body);
  } catch {
    return undefined; // not reachable, or another origin that does not let scripts read its answers
  }
}

function base64url(text: string): string {
  return toBase64(new TextEncoder().encode(text)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

export function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error(String(reason));
}
