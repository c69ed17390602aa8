import { Store } from "./store.js";

/** What a session's page shows. */
export type View = "commands" | "terminals" | "files" | "about";

export type Route =
  | { page: "sessions" }
  | { page: "pods" }
  | { page: "session"; id: string; view: View; item: string }
  | { page: "unknown"; path: string };

const views: readonly string[] = ["commands", "terminals", "files", "about"] satisfies View[];

/** Reads the fragment of the URL, which never reaches a server. */
export function parseRoute(hash: string): Route {
  const [page = "", ...rest] = hash.replace(/^#?\/?/, "").split("/");
  if (page === "" && rest.length === 0) return { page: "sessions" };
  if (page === "pods" && rest.length === 0) return { page: "pods" };
  const [id, view = "commands", ...item] = rest.map(decode);
  if (page === "sessions" && id && views.includes(view)) {
    return { page: "session", id, view: view as View, item: item.join("/") };
  }
  return { page: "unknown", path: hash };
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export const sessionsLink = "#/";
export const podsLink = "#/pods";

/** A link to a session: to one of its commands or terminals, or to a path of its files. */
export function sessionLink(id: string, view: View = "commands", item = ""): string {
  const parts = ["#/sessions", encodeURIComponent(id)];
  if (view !== "commands" || item) parts.push(view);
  if (item) parts.push(...item.split("/").map(encodeURIComponent));
  return parts.join("/");
}

export const route = new Store<Route>(parseRoute(location.hash));
addEventListener("hashchange", () => route.set(parseRoute(location.hash)));

export function go(link: string): void {
  location.hash = link;
}
