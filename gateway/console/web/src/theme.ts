import { Store } from "./store.js";

export type Theme = "system" | "light" | "dark";

const storageKey = "troupe.theme";
const order: Theme[] = ["system", "light", "dark"];
const stored = localStorage.getItem(storageKey) as Theme | null;

export const theme = new Store<Theme>(stored && order.includes(stored) ? stored : "system");

const systemDark = matchMedia("(prefers-color-scheme: dark)");

export function isDark(): boolean {
  return theme.value === "dark" || (theme.value === "system" && systemDark.matches);
}

/** Calls back when the page turns dark or light. */
export function onTheme(listener: () => void): () => void {
  const leave = theme.subscribe(listener);
  systemDark.addEventListener("change", listener);
  return () => {
    leave();
    systemDark.removeEventListener("change", listener);
  };
}

function apply(): void {
  document.documentElement.dataset["theme"] = theme.value;
}

apply();

export function nextTheme(): void {
  const next = order[(order.indexOf(theme.value) + 1) % order.length] as Theme;
  localStorage.setItem(storageKey, next);
  theme.set(next);
  apply();
}
