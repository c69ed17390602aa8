import type { Event, Execution } from "@troupe/client";
import { FitAddon } from "@xterm/addon-fit";
import { SearchAddon } from "@xterm/addon-search";
import { UnicodeGraphemesAddon } from "@xterm/addon-unicode-graphemes";
import { WebLinksAddon } from "@xterm/addon-web-links";
import { type ITerminalOptions, type ITheme, Terminal } from "@xterm/xterm";
import { Store } from "./store.js";
import { makeStylesStrict } from "./strictstyles.js";
import { isDark, onTheme } from "./theme.js";
import { attempt, confirm, copy } from "./ui.js";
import { bytes, visible } from "./words.js";

/** Lines that can be scrolled back. */
const scrollback = 10_000;

/** Output that is on its way to the screen: beyond the first, reading waits until it is less than the second. */
const highWater = 256 << 10;
const lowWater = 64 << 10;

const maxTitle = 60;

makeStylesStrict();

const light: ITheme = {
  background: "#ffffff", foreground: "#18212a", cursor: "#0b6e7f", cursorAccent: "#ffffff", selectionBackground: "#b9dfe6",
  black: "#18212a", red: "#b3202c", green: "#17703a", yellow: "#8a5200", blue: "#1f5fbf", magenta: "#8b35a8", cyan: "#0b6e7f", white: "#52606c",
  brightBlack: "#66727e", brightRed: "#c93440", brightGreen: "#1d8447", brightYellow: "#9a6200", brightBlue: "#2f6fd0", brightMagenta: "#9c46b9", brightCyan: "#0d7f92", brightWhite: "#18212a",
};

const dark: ITheme = {
  background: "#12161b", foreground: "#e4e9ee", cursor: "#5ec4d4", cursorAccent: "#12161b", selectionBackground: "#2b4b55",
  black: "#2c343d", red: "#ff8d8d", green: "#6ccb8b", yellow: "#e5b454", blue: "#82b4ff", magenta: "#d69bee", cyan: "#5ec4d4", white: "#c9d1d9",
  brightBlack: "#8593a0", brightRed: "#ffa9a9", brightGreen: "#8fdba8", brightYellow: "#f0c878", brightBlue: "#a5caff", brightMagenta: "#e4b8f5", brightCyan: "#86d7e3", brightWhite: "#ffffff",
};

export const themeNow = () => (isDark() ? dark : light);

export function terminalOptions(): ITerminalOptions {
  return {
    allowProposedApi: true, // for the widths of grapheme clusters, and for the marks of what was found
    scrollback,
    cursorBlink: true,
    fontFamily: getComputedStyle(document.documentElement).getPropertyValue("--mono").trim(),
    fontSize: 13,
    minimumContrastRatio: 4.5,
    screenReaderMode: screenReader.value,
    theme: themeNow(),
    // A link's text may say anything; where it leads is what is asked about.
    linkHandler: { activate: (_, url) => void openLink(url) },
  };
}

/** A terminal's screen and keys, for as long as the page lasts: it moves in and out of the view as a whole. */
export class Shell {
  readonly title = new Store("");
  /** The element that holds the screen. */
  readonly host = document.createElement("div");
  readonly terminal: Terminal;
  readonly search = new SearchAddon();
  /** Ctrl and Alt of the row of keys, which hold for the next key. */
  readonly held = new Store<"" | "ctrl" | "alt">("");

  readonly #fit = new FitAddon();
  readonly #observer = new ResizeObserver(() => this.fit());
  readonly #leaveTheme: () => void;
  #execution: Execution | undefined;
  #asked = ""; // the size that was asked for last
  #keys: (string | Uint8Array)[] = [];
  #sending = false;
  #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  #unwritten = 0;
  #resume: (() => void) | undefined;

  constructor(readonly name: string) {
    this.host.className = "terminal";
    this.title.set(name);
    this.terminal = new Terminal(terminalOptions());
    for (const addon of [this.#fit, this.search, new WebLinksAddon((_, url) => void openLink(url))]) this.terminal.loadAddon(addon);
    this.terminal.loadAddon(new UnicodeGraphemesAddon());
    this.terminal.onData((data) => this.#typed(data));
    this.terminal.onBinary((data) => this.#typed(Uint8Array.from(data, (c) => c.charCodeAt(0))));
    this.terminal.onTitleChange((title) => this.title.set(visible(title).slice(0, maxTitle) || name));
    this.terminal.attachCustomKeyEventHandler((event) => this.#handlesKey(event));
    this.#leaveTheme = onTheme(() => (this.terminal.options.theme = themeNow()));
  }

  /** Shows the screen in an element. */
  show(parent: HTMLElement): void {
    parent.append(this.host);
    if (!this.terminal.element) this.terminal.open(this.host);
    this.#observer.observe(this.host);
    this.fit();
    this.terminal.focus();
  }

  hide(): void {
    this.#observer.disconnect();
    this.host.remove();
  }

  /** The size that fits, if the screen is shown. */
  size(): { cols: number; rows: number } | undefined {
    const fits = this.#fit.proposeDimensions();
    if (!fits || !(fits.cols > 1) || !(fits.rows > 1)) return undefined;
    return { cols: Math.min(fits.cols, 1000), rows: Math.min(fits.rows, 500) };
  }

  /**
   * Asks for the size that fits. The screen changes when the server says from which byte on it holds, so that what was
   * written for the old size is laid out for that.
   */
  fit(again = false): void {
    const size = this.size();
    if (!size) return;
    if (!this.#execution) return this.terminal.resize(size.cols, size.rows);
    const text = `${size.cols}x${size.rows}`;
    if (text === this.#asked && !again) return;
    this.#asked = text;
    this.#execution.resize(size.cols, size.rows).catch(() => {}); // it has ended, or says so again when it is resumed
  }

  /** Draws an execution's output, and types into it, until it has ended. */
  use(execution: Execution): void {
    this.#execution = execution;
    this.fit(true);
    void this.#send();
  }

  /** Handles an event of the execution; the promise paces the reading of the next. */
  async draw(event: Event): Promise<void> {
    if (event.type === "resized" || event.type === "screen") {
      await this.#drawn();
      this.terminal.resize(event.cols, event.rows);
      if (event.type === "screen") this.#show(event.data);
    } else if (event.type === "gap") {
      this.#decoder = new TextDecoder("utf-8", { ignoreBOM: true });
      this.#write(`\r\n\x1b[0;7m ${bytes(event.bytes)} of earlier output are gone \x1b[0m\r\n`);
    } else if (event.type === "output") {
      this.#show(event.data);
      if (this.#unwritten > highWater) await new Promise<void>((resolve) => (this.#resume = resolve));
    }
  }

  /** Types something, as if it came from the keyboard. */
  type(keys: string): void {
    this.terminal.input(keys);
    this.terminal.focus();
  }

  paste(text: string): void {
    this.terminal.paste(text);
    this.terminal.focus();
  }

  dispose(): void {
    this.hide();
    this.#leaveTheme();
    this.terminal.dispose();
  }

  /** xterm.js 6.0.0 loses a character of three bytes that comes in two parts, behind the second byte. */
  #show(data: Uint8Array): void {
    this.#write(this.#decoder.decode(data, { stream: true }));
  }

  #write(data: string): void {
    const size = data.length;
    this.#unwritten += size;
    this.terminal.write(data, () => {
      this.#unwritten -= size;
      if (this.#unwritten < lowWater) {
        this.#resume?.();
        this.#resume = undefined;
      }
    });
  }

  #drawn(): Promise<void> {
    return new Promise((resolve) => this.terminal.write("", resolve));
  }

  #typed(data: string | Uint8Array): void {
    this.#keys.push(typeof data === "string" ? this.#withHeld(data) : data);
    void this.#send();
  }

  #withHeld(data: string): string {
    const held = this.held.value;
    if (!held || data.length !== 1) return data;
    this.held.set("");
    if (held === "alt") return `\x1b${data}`;
    const code = data.toUpperCase().charCodeAt(0);
    return code >= 0x3f && code <= 0x5f ? String.fromCharCode(code === 0x3f ? 0x7f : code & 0x1f) : data;
  }

  /** Sends what was typed, one request after the other. While the connection is lost the rest waits here. */
  async #send(): Promise<void> {
    if (this.#sending) return;
    this.#sending = true;
    while (this.#execution && this.#keys.length > 0) {
      const keys = this.#keys;
      this.#keys = [];
      try {
        const text = keys.every((k) => typeof k === "string");
        if (text) await this.#execution.write(keys.join(""));
        else for (const k of keys) await this.#execution.write(k);
      } catch {
        break; // it has ended: its end is shown
      }
    }
    this.#sending = false;
  }

  /** Copying and pasting, and the console's own keys. Returns whether the terminal gets the key. */
  #handlesKey(event: KeyboardEvent): boolean {
    if (event.type !== "keydown" || !event.ctrlKey || !event.shiftKey) return true;
    switch (event.key.toLowerCase()) {
      case "c":
        event.preventDefault();
        if (this.terminal.hasSelection()) attempt(() => copy(this.terminal.getSelection(), "Selection"));
        return false;
      case "v":
        return false; // the browser pastes
      case "f":
        event.preventDefault();
        searching.set(this);
        return false;
    }
    return true;
  }
}

/** Whose scrollback is being searched. */
export const searching = new Store<Shell | undefined>(undefined);

const screenReaderKey = "troupe.screenreader";

/** Whether terminals keep their text in elements for screen readers, which costs time. */
export const screenReader = new Store(localStorage.getItem(screenReaderKey) === "on");

export function toggleScreenReader(shells: Shell[]): void {
  screenReader.set(!screenReader.value);
  localStorage.setItem(screenReaderKey, screenReader.value ? "on" : "off");
  for (const shell of shells) shell.terminal.options.screenReaderMode = screenReader.value;
}

async function openLink(url: string): Promise<void> {
  if (!/^https?:\/\//i.test(url)) return;
  if (await confirm(`Open ${visible(url)}?`, "Open", "Stay here")) window.open(url, "_blank", "noopener,noreferrer");
}
