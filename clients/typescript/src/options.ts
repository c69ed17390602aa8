/** What this client uses of a WebSocket. Browsers, Deno, Node 22, `ws` and `undici` have it. */
export interface WebSocketLike {
  binaryType: string;
  readonly protocol: string;
  readonly bufferedAmount: number;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
  send(data: string | Uint8Array<ArrayBuffer>): void;
  close(code?: number, reason?: string): void;
}

export type WebSocketConstructor = new (url: string, protocols?: string[]) => WebSocketLike;

/** What happened to the connection, for logs and users. */
export type Notice =
  | { kind: "lost"; error: Error }
  | { kind: "retry"; error: Error; attempt: number; delayMs: number }
  | { kind: "resumed"; attempt: number; goneMs: number }
  | { kind: "draining"; deadlineSeconds: number };

export interface Options {
  /** A bearer token, or what supplies one: it is called before every connection. */
  token?: string | (() => string | Promise<string>);
  /** Default: the platform's. Node 20 has none by default; pass that of `ws` or `undici`. */
  WebSocket?: WebSocketConstructor;
  /** Asks why a handshake was refused, which a WebSocket does not tell. Default: the platform's. */
  fetch?: typeof fetch;
  /** What a new session is called, for people: `a-z 0-9 -`. */
  name?: string;
  /** What a new session belongs to, for programs. */
  labels?: Record<string, string>;
  /** Seconds without a connection after which a new session ends. Default: the server's `resume_window`. */
  resumeWindowSeconds?: number;
  /** `session`: refuse a session that the kernel does not separate from others. */
  isolation?: "session";
  /** Milliseconds: attempt n waits a random time up to min(maxMs, initialMs * 2^n). Default: 100 and 5,000. */
  backoff?: { initialMs?: number; maxMs?: number };
  /** How long to reconnect for before the session is given up. Default: the server's resume_window. */
  resumeWindowMs?: number;
  /** How long `open` tries again where that may help. Default: 0, one attempt. */
  openRetryMs?: number;
  /** Bounds one attempt to connect, up to the first message. Default: 15,000. */
  handshakeTimeoutMs?: number;
  /** A connection on which the server sends nothing for this long is given up. Default: 45,000; 0: never. */
  keepaliveTimeoutMs?: number;
  /** Bytes of unread output held per execution, 4,096 to 16,777,216. Default: 1,048,576. */
  window?: number;
  /** Called when the connection is lost, retried and resumed, and when the server drains. */
  onNotice?: (notice: Notice) => void;
  /** Bounds `open` and `attach` only. */
  signal?: AbortSignal;
}

/** Options whose defaults are filled in. */
export interface Settings {
  token: () => Promise<string>;
  WebSocket: WebSocketConstructor;
  fetch: typeof fetch | undefined;
  query: [string, string][];
  initialMs: number;
  maxMs: number;
  resumeWindowMs: number | undefined;
  openRetryMs: number;
  handshakeTimeoutMs: number;
  keepaliveTimeoutMs: number;
  window: number;
  onNotice: (notice: Notice) => void;
}

const minWindow = 4096;
const maxWindow = 16 << 20;

/** Fills in the defaults, and refuses what cannot work. */
export function settings(o: Options): Settings {
  const socket = o.WebSocket ?? (globalThis as { WebSocket?: WebSocketConstructor }).WebSocket;
  if (!socket) {
    throw new TypeError(
      'this platform has no WebSocket: pass one, as in { WebSocket: (await import("ws")).WebSocket }, or use Node 22',
    );
  }
  const window = o.window ?? 1 << 20;
  if (!Number.isInteger(window) || window < minWindow || window > maxWindow) {
    throw new RangeError(`window of ${window} bytes: it must be from ${minWindow} to ${maxWindow}`);
  }
  const { token } = o;
  return {
    token: async () => (typeof token === "function" ? await token() : (token ?? "")),
    WebSocket: socket,
    fetch: o.fetch ?? globalThis.fetch?.bind(globalThis),
    query: query(o),
    initialMs: o.backoff?.initialMs ?? 100,
    maxMs: o.backoff?.maxMs ?? 5000,
    resumeWindowMs: o.resumeWindowMs,
    openRetryMs: o.openRetryMs ?? 0,
    handshakeTimeoutMs: o.handshakeTimeoutMs ?? 15_000,
    keepaliveTimeoutMs: o.keepaliveTimeoutMs ?? 45_000,
    window,
    onNotice: o.onNotice ?? (() => {}),
  };
}

/** The parameters of the URL's query for a new session. */
function query(o: Options): [string, string][] {
  const all: [string, string][] = Object.entries(o.labels ?? {}).map(([key, value]) => ["label", `${key}=${value}`]);
  if (o.name !== undefined) all.push(["name", o.name]);
  if (o.resumeWindowSeconds !== undefined) all.push(["resume_window", String(o.resumeWindowSeconds)]);
  if (o.isolation !== undefined) all.push(["isolation", o.isolation]);
  return all;
}

/** A random time, which spreads the clients of a pod that has died. */
export function backoff(s: Settings, attempt: number): number {
  return Math.random() * Math.min(s.maxMs, s.initialMs * 2 ** Math.min(attempt, 30));
}
