import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Store, useStore } from "./store.js";
import { message } from "./workspace.js";

// The few parts that all pages are made of.

interface ButtonProps {
  children: ComponentChildren;
  onClick?: () => void;
  kind?: "primary" | "danger" | "quiet";
  label?: string; // where the text does not say it
  disabled?: boolean;
  pressed?: boolean;
  submit?: boolean;
}

/** Saves a text to a file of this machine. */
export function save(text: string, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

export function Button({ children, onClick, kind, label, disabled, pressed, submit }: ButtonProps) {
  return (
    <button
      type={submit ? "submit" : "button"}
      class={kind ? `button ${kind}` : "button"}
      aria-label={label}
      aria-pressed={pressed}
      title={label}
      disabled={disabled}
      onClick={onClick}
    >
      {children}
    </button>
  );
}

/** A state as a coloured dot and a word: colour alone says nothing to some. */
export function State({ state, children }: { state: string; children?: ComponentChildren }) {
  return (
    <span class={`state ${state}`}>
      <span class="dot" aria-hidden="true" />
      {children ?? state}
    </span>
  );
}

/** Says something that the reader should not miss. */
export function Note({ kind, children }: { kind: "info" | "warning" | "error"; children: ComponentChildren }) {
  return (
    <p class={`note ${kind}`} role={kind === "error" ? "alert" : "status"}>
      {children}
    </p>
  );
}

/** The line in which a command is typed. */
export function Prompt({ label, placeholder, focus, history = [], action, onRun }: {
  label: string;
  placeholder: string;
  focus?: boolean;
  history?: string[]; // the oldest first
  action: string;
  onRun: (command: string) => void;
}) {
  const [text, setText] = useState("");
  const input = useRef<HTMLInputElement>(null);
  const at = useRef(0); // how far back in the history
  useEffect(() => {
    // On a phone it would bring up the keyboard, over half of the page.
    if (focus && !matchMedia("(pointer: coarse)").matches) input.current?.focus();
  }, [focus]);
  const submit = (event: Event) => {
    event.preventDefault();
    if (!text.trim()) return;
    onRun(text);
    setText("");
    at.current = 0;
  };
  const recall = (event: KeyboardEvent) => {
    const step = event.key === "ArrowUp" ? 1 : event.key === "ArrowDown" ? -1 : 0;
    const next = at.current + step;
    if (step === 0 || next < 0 || next > history.length) return;
    event.preventDefault();
    at.current = next;
    setText(next === 0 ? "" : (history[history.length - next] as string));
  };
  return (
    <form class="prompt" onSubmit={submit}>
      <label>
        <span class="hidden">{label}</span>
        <span class="sigil" aria-hidden="true">$</span>
        <input
          ref={input}
          class="mono"
          value={text}
          placeholder={placeholder}
          autocomplete="off"
          autocapitalize="off"
          spellcheck={false}
          onInput={(e) => setText(e.currentTarget.value)}
          onKeyDown={recall}
        />
      </label>
      <Button submit kind="primary" disabled={!text.trim()}>{action}</Button>
    </form>
  );
}

/** A modal dialog, which the platform makes one: focus stays inside, and Escape closes it. */
export function Dialog({ label, kind, onClose, children }: {
  label: string;
  kind: string;
  onClose: () => void;
  children: ComponentChildren;
}) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog
      class={kind}
      ref={dialog}
      aria-label={label}
      onClose={onClose}
      onClick={(e) => e.target === dialog.current && dialog.current?.close()}
    >
      {children}
    </dialog>
  );
}

const questions = new Store<{ text: string; action: string; otherwise: string; answer: (yes: boolean) => void } | undefined>(undefined);

/** Asks before something that cannot be undone. */
export function confirm(text: string, action: string, otherwise = "Keep it"): Promise<boolean> {
  return new Promise((resolve) => {
    questions.set({
      text,
      action,
      otherwise,
      answer: (yes) => {
        questions.set(undefined);
        resolve(yes);
      },
    });
  });
}

/** Shows what `confirm` asks. */
export function Questions() {
  const question = useStore(questions);
  if (!question) return null;
  return (
    <Dialog label={question.action} onClose={() => question.answer(false)} kind="question">
      <p>{question.text}</p>
      <div class="row end">
        <Button onClick={() => question.answer(false)}>{question.otherwise}</Button>
        <Button kind="danger" onClick={() => question.answer(true)}>{question.action}</Button>
      </div>
    </Dialog>
  );
}

const toasts = new Store<{ id: number; text: string }[]>([]);
let lastToast = 0;

/** Tells of something that has failed, or was done, for some seconds. */
export function toast(text: string): void {
  const id = ++lastToast;
  toasts.set([...toasts.value.slice(-3), { id, text }]);
  setTimeout(() => toasts.set(toasts.value.filter((t) => t.id !== id)), 6000);
}

/** Runs something whose failure is told in a toast. */
export function attempt(what: () => Promise<unknown>): void {
  what().catch((e: unknown) => toast(message(e)));
}

export function Toasts() {
  return (
    <div class="toasts" role="status">
      {useStore(toasts).map((t) => <p key={t.id}>{t.text}</p>)}
    </div>
  );
}

export async function copy(text: string, what: string): Promise<void> {
  if (isSecureContext) await navigator.clipboard.writeText(text);
  else copyByEvent(text);
  toast(`${what} copied`);
}

/** Pages that have come over plain HTTP have no navigator.clipboard. */
function copyByEvent(text: string): void {
  const fill = (event: ClipboardEvent) => {
    event.clipboardData?.setData("text/plain", text);
    event.preventDefault();
    event.stopImmediatePropagation();
  };
  addEventListener("copy", fill, { capture: true });
  const copied = document.execCommand("copy");
  removeEventListener("copy", fill, { capture: true });
  if (!copied) throw new Error("The browser does not let this page copy.");
}

/** What the clipboard has. */
export async function pasted(): Promise<string> {
  if (!isSecureContext) throw new Error("A page that has come over plain HTTP may not read the clipboard: paste with the keyboard.");
  return navigator.clipboard.readText();
}

export interface Polled<T> {
  value: T | undefined;
  /** Why the value is missing or old. */
  error: Error | undefined;
  refresh: () => void;
}

/** Asks again and again while the page is visible, each time a while after the last answer. */
export function usePoll<T>(ask: () => Promise<T>, everyMs: number, keys: unknown[]): Polled<T> {
  const [polled, set] = useState<{ value?: T; error?: Error }>({});
  const wake = useRef(() => {});
  useEffect(() => {
    let over = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const once = async () => {
      clearTimeout(timer);
      try {
        const value = await ask();
        if (!over) set({ value });
      } catch (e) {
        if (!over) set((old) => ({ ...old, error: e as Error }));
      }
      if (!over && !document.hidden) timer = setTimeout(() => void once(), everyMs);
    };
    wake.current = () => void once();
    const shown = () => document.hidden || void once();
    document.addEventListener("visibilitychange", shown);
    set({});
    void once();
    return () => {
      over = true;
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", shown);
    };
  }, keys);
  return { value: polled.value, error: polled.error, refresh: () => wake.current() };
}

/** The time, every second, for what shows how long something lasts. */
export function useNow(): number {
  const [now, set] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => set(Date.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  return now;
}
