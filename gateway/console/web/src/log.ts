/** A line of output as it is shown. A note is the console's own. */
export interface Line {
  text: string;
  kind: "stdout" | "stderr" | "note";
}

/** Lines that are kept at least, and how many more there may be until those go at once. */
const maxLines = 60_000;
const dropLines = 5000;

/** A line may be shown up to here: one without an end would stop the page. */
const maxLineLength = 20_000;

// Escape sequences (CSI, OSC and other strings, two-byte ones), and control characters but for tab.
// oxlint-disable-next-line no-control-regex -- it is what it removes
const escapes = /\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)|\x1b[ -/]*[0-~]|[\x00-\x08\x0a-\x1f\x7f-\x9f]/g;

/** What remains of a line for people: no escape sequence reaches the page, and none can restyle or hide its text. */
export function plain(text: string): string {
  return text.replace(escapes, "");
}

/** The output of a command, in lines. */
export class OutputLog {
  readonly lines: Line[] = [];
  /** How many lines were dropped before the first one. */
  dropped = 0;
  /** Called after each change. */
  onChange: (() => void) | undefined;

  readonly #decoders = { stdout: new TextDecoder(), stderr: new TextDecoder() };
  // What stands behind the last line's end, for each stream: lines of the two do not mix.
  readonly #open = { stdout: "", stderr: "" };
  #openKind: "stdout" | "stderr" | undefined;

  /** The line that has no end yet. */
  get open(): Line | undefined {
    return this.#openKind && { text: shown(this.#open[this.#openKind]), kind: this.#openKind };
  }

  append(stream: "stdout" | "stderr", data: Uint8Array): void {
    const text = this.#decoders[stream].decode(data, { stream: true });
    const parts = (this.#open[stream] + text).split("\n");
    const rest = parts.pop() as string;
    for (const part of parts) this.lines.push({ text: shown(part), kind: stream });
    this.#open[stream] = rest.length > maxLineLength ? rest.slice(0, maxLineLength) : afterReturn(rest);
    this.#openKind = this.#open[stream] ? stream : this.#open.stdout ? "stdout" : this.#open.stderr ? "stderr" : undefined;
    this.#changed();
  }

  note(text: string): void {
    this.#end();
    this.lines.push({ text: plain(text), kind: "note" });
    this.#changed();
  }

  /** No more follows. */
  end(): void {
    this.#end();
    this.#changed();
  }

  /** All that is kept, as text. */
  toString(): string {
    const all = this.lines.filter((l) => l.kind !== "note").map((l) => `${l.text}\n`);
    return all.join("") + (this.open?.text ?? "");
  }

  #end(): void {
    for (const kind of ["stdout", "stderr"] as const) {
      if (this.#open[kind]) this.lines.push({ text: shown(this.#open[kind]), kind });
      this.#open[kind] = "";
    }
    this.#openKind = undefined;
  }

  #changed(): void {
    if (this.lines.length > maxLines + dropLines) {
      const n = this.lines.length - maxLines;
      this.lines.splice(0, n);
      this.dropped += n;
    }
    this.onChange?.();
  }
}

/** A carriage return begins the line again, as a progress bar does. */
function afterReturn(line: string): string {
  const end = line.endsWith("\r") ? line.length - 1 : line.length;
  return line.slice(line.lastIndexOf("\r", end - 1) + 1);
}

function shown(line: string): string {
  const text = plain(afterReturn(line));
  return text.length > maxLineLength ? `${text.slice(0, maxLineLength)} …` : text;
}
