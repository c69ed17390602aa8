import { Store } from "./store.js";

/**
 * - unknown: no answer of the server has been seen.
 * - in: the server accepts this page's requests, with its token or without one.
 * - asked: it wants a token.
 * - expired: it has accepted a token and now refuses it.
 */
export type SignIn = "unknown" | "in" | "asked" | "expired";

const storageKey = "troupe.token";

/**
 * The bearer token. It is in this page's memory, and in sessionStorage (of this tab, until it is closed) only if its owner
 * asked for that. There is no cookie: a browser sends cookies by itself, also for pages of others, so the server
 * would have to tell apart who has caused a request. A header is sent by this page's code alone.
 */
class Auth {
  readonly state = new Store<SignIn>("unknown");
  #token = sessionStorage.getItem(storageKey) ?? "";

  get token(): string {
    return this.#token;
  }

  get kept(): boolean {
    return sessionStorage.getItem(storageKey) !== null;
  }

  /** Takes a token that the server has accepted. */
  signIn(token: string, keep: boolean): void {
    this.#token = token;
    if (keep) sessionStorage.setItem(storageKey, token);
    else sessionStorage.removeItem(storageKey);
    this.state.set("in");
  }

  signOut(): void {
    this.#token = "";
    sessionStorage.removeItem(storageKey);
    this.state.set("asked");
  }

  accepted(): void {
    if (this.state.value !== "in") this.state.set("in");
  }

  /** The server has answered 401 to a request with that token. */
  refused(token: string): void {
    if (token !== this.#token) return; // another was given meanwhile
    this.state.set(token === "" ? "asked" : "expired");
  }
}

export const auth = new Auth();
