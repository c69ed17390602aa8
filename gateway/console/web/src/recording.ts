import type { Terminal } from "@xterm/xterm";
import { Store } from "./store.js";

interface Recorded {
  at: number; // seconds from the start of playing
  kind: "output" | "resize";
  data: string;
}

/** Pauses are played no longer than this, in seconds. */
const longestPause = 2;

/**
 * Plays what a terminal has shown, an asciicast of version 2 (https://docs.asciinema.org/manual/asciicast/v2/), on
 * another one. It may play while more comes: at the end it then shows that at once.
 */
export class Playback {
  /** Seconds from the start. */
  readonly at = new Store(0);
  readonly seconds = new Store(0);
  readonly playing = new Store(false);
  speed = 1;
  /** The recording so far. */
  text = "";

  #size: { width: number; height: number } | undefined;
  #events: Recorded[] = [];
  #rest = ""; // the line that is not whole yet
  #recordedAt = 0; // of the last event, by its own clock
  #next = 0; // the first event that is not drawn
  #frame = 0;
  #drawnAt = 0;

  /** live: more may come, until `end`. */
  constructor(
    private readonly terminal: Terminal,
    private live: boolean,
  ) {}

  /** Adds more of the recording. */
  add(text: string): void {
    const atEnd = this.live && this.playing.value && this.at.value >= this.seconds.value;
    this.text += text;
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop() as string;
    for (const line of lines) this.#addLine(line);
    this.seconds.set(this.#events.at(-1)?.at ?? 0);
    if (atEnd) this.seek(this.seconds.value);
  }

  end(): void {
    this.live = false;
  }

  #addLine(line: string): void {
    const parsed = JSON.parse(line) as { width: number; height: number } | [number, string, string];
    if (!Array.isArray(parsed)) {
      this.#size = parsed;
      return this.#resize(parsed.width, parsed.height);
    }
    const [time, code, data] = parsed;
    const at = (this.#events.at(-1)?.at ?? 0) + Math.min(Math.max(time - this.#recordedAt, 0), longestPause);
    this.#recordedAt = time;
    if (code === "o" || code === "r") this.#events.push({ at, kind: code === "o" ? "output" : "resize", data });
    else if (code === "m") this.#events.push({ at, kind: "output", data: `\r\n\x1b[0;7m ${data} \x1b[0m\r\n` });
  }

  toggle(): void {
    if (this.playing.value) return this.stop();
    if (this.at.value >= this.seconds.value && !this.live) this.seek(0);
    this.playing.set(true);
    this.#drawnAt = performance.now();
    this.#frame = requestAnimationFrame(this.#step);
  }

  stop(): void {
    cancelAnimationFrame(this.#frame);
    if (this.playing.value) this.playing.set(false);
  }

  /** Shows the screen as it was at a time. */
  seek(at: number): void {
    if (at < this.at.value && this.#size) {
      this.#next = 0;
      this.terminal.write("\x1bc"); // a reset, behind what is still being drawn
      this.#resize(this.#size.width, this.#size.height);
    }
    for (; (this.#events[this.#next]?.at ?? Infinity) <= at; this.#next++) this.#draw(this.#events[this.#next] as Recorded);
    if (at !== this.at.value) this.at.set(at);
  }

  #step = (now: number) => {
    const at = this.at.value + (Math.max(now - this.#drawnAt, 0) / 1000) * this.speed;
    this.#drawnAt = now;
    this.seek(Math.min(at, this.seconds.value));
    if (this.at.value >= this.seconds.value && !this.live) return this.stop();
    this.#frame = requestAnimationFrame(this.#step);
  };

  #draw(event: Recorded): void {
    if (event.kind === "output") return this.terminal.write(event.data);
    const [cols, rows] = event.data.split("x").map(Number);
    if (cols && rows) this.#resize(cols, rows);
  }

  #resize(cols: number, rows: number): void {
    this.terminal.write("", () => this.terminal.resize(Math.min(cols, 1000), Math.min(rows, 500)));
  }
}
