import "./dispose.js";
import type { Options } from "./options.js";
import { Session, type SavedSession } from "./session.js";

/**
 * Opens a session. `url` has the scheme ws, wss, http or https and the path of the server's endpoint, usually
 * `/ws`. It rejects with a HandshakeError, a LimitError or a ConnectionError; with `openRetryMs` it tries
 * again where that may help.
 */
export async function open(url: string | URL, options: Options = {}): Promise<Session> {
  const session = new Session(String(url), options);
  await session.start(undefined, options);
  return session;
}

/**
 * Attaches to a session that another client has detached from, or still uses. It follows what `offsets` names,
 * each from its offset on; without `offsets` everything, from the beginning. `session.executions` has them.
 */
export async function attach(url: string | URL, saved: SavedSession, options: Options = {}): Promise<Session> {
  const session = new Session(String(url), options);
  await session.start(saved, options);
  return session;
}

export { Session, type RunResult, type SavedSession } from "./session.js";
export { Execution } from "./execution.js";
export type { Notice, Options, WebSocketConstructor, WebSocketLike } from "./options.js";
export * from "./errors.js";
export { randomId } from "./random.js";
export type * from "./wire.js";
