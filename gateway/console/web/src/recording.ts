import type { Terminal } from "@xterm/xterm";
import { Store } from "./store.js";

/** What a terminal has shown: an asciicast of version 2 (https://docs.asciinema.org/manual/asciicast/v2/). */
export interface Recording {
  cols: number;
  rows: number;
  events: Recorded[];
  /** How long it plays. */
  seconds: number;
}

interface Recorded {
  at: number; // seconds from the start of playing
  kind: "output" | "resize";
  data: string;
}

/** Pauses are played no longer than this, in seconds. */
const longestPause = 2;

/** Reads an asciicast. What it does not know, and a last line that is not whole, it leaves out. */
export function parseRecording(text: string): Recording {
  const [first = "", ...lines] = text.split("\n");
  const { width, height } = JSON.parse(first) as { width: number; height: number };
  const events: Recorded[] = [];
  let at = 0;
  let before = 0;
  for (const line of lines) {
    let event: [number, string, string];
    try {
      event = JSON.parse(line) as [number, string, string];
    } catch {
      continue;
    }
    const [time, code, data] = event;
    at += Math.min(Math.max(time - before, 0), longestPause);
    before = time;
    if (code === "o" || code === "r") events.push({ at, kind: code === "o" ? "output" : "resize", data });
    else if (code === "m") events.push({ at, kind: "output", data: `\r\n\x1b[0;7m ${data} \x1b[0m\r\n` });
  }
  return { cols: width, rows: height, events, seconds: at };
}

/** Plays a recording on a terminal. */
export class Playback {
  /** Seconds from the start. */
  readonly at = new Store(0);
  readonly playing = new Store(false);
  speed = 1;
  #next = 0; // the first event that is not drawn
  #frame = 0;
  #drawnAt = 0;

  constructor(
    readonly recording: Recording,
    private readonly terminal: Terminal,
  ) {}

  toggle(): void {
    if (this.playing.value) return this.stop();
    if (this.at.value >= this.recording.seconds) this.seek(0);
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
    if (at < this.at.value) {
      this.#next = 0;
      this.terminal.write("\x1bc"); // a reset, behind what is still being drawn
      this.#resize(this.recording.cols, this.recording.rows);
    }
    const { events } = this.recording;
    for (; (events[this.#next]?.at ?? Infinity) <= at; this.#next++) this.#draw(events[this.#next] as Recorded);
    this.at.set(at);
  }

  #step = (now: number) => {
    const at = this.at.value + (Math.max(now - this.#drawnAt, 0) / 1000) * this.speed;
    this.#drawnAt = now;
    this.seek(Math.min(at, this.recording.seconds));
    if (this.at.value >= this.recording.seconds) return this.stop();
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
