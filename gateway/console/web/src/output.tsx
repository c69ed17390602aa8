import { useEffect, useRef, useState } from "preact/hooks";
import type { Line, OutputLog } from "./log.js";
import { count } from "./words.js";

/** Lines of one element, which the browser lays out only when it comes into view. */
const blockLines = 200;

/** Lines that are added in one frame, so that typing stays quick while much output comes. */
const frameLines = 3000;

/** Draws a log into an element, once for each frame at most, and only what is new. */
class Drawing {
  #next = 0; // number of the next line, counted from the first that there ever was
  #blocks: { element: HTMLElement; end: number }[] = [];
  #count = 0; // lines of the last block
  #open = document.createElement("span");
  #frame = 0;
  /** Whether the view follows the end. */
  #follows = true;

  constructor(
    private readonly element: HTMLElement,
    private readonly log: OutputLog,
    private readonly onDropped: (lines: number) => void,
  ) {
    this.element.append(this.#open);
    this.element.addEventListener("scroll", this.#scrolled, { passive: true });
    log.onChange = () => this.#schedule();
    this.#schedule();
  }

  stop(): void {
    cancelAnimationFrame(this.#frame);
    this.log.onChange = undefined;
    this.element.removeEventListener("scroll", this.#scrolled);
    this.element.replaceChildren();
  }

  #scrolled = () => {
    const { scrollTop, scrollHeight, clientHeight } = this.element;
    this.#follows = scrollHeight - scrollTop - clientHeight < 32;
  };

  #schedule(): void {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw();
    });
  }

  #draw(): void {
    const { log } = this;
    while (this.#blocks[0] && this.#blocks[0].end <= log.dropped) this.#blocks.shift()?.element.remove();
    this.#next = Math.max(this.#next, log.dropped);
    const end = Math.min(log.dropped + log.lines.length, this.#next + frameLines);
    while (this.#next < end) this.#add(log.lines.slice(this.#next - log.dropped, end - log.dropped));
    const open = log.open;
    this.#open.textContent = open?.text ?? "";
    this.#open.className = open?.kind ?? "";
    this.onDropped(log.dropped);
    if (this.#follows) this.element.scrollTop = this.element.scrollHeight;
    if (end < log.dropped + log.lines.length) this.#schedule();
  }

  /** Adds as many of the lines as the last block takes. */
  #add(lines: Line[]): void {
    let block = this.#blocks.at(-1);
    if (!block || this.#count >= blockLines) {
      block = { element: document.createElement("div"), end: this.#next };
      block.element.className = "block";
      this.element.insertBefore(block.element, this.#open);
      this.#blocks.push(block);
      this.#count = 0;
    }
    const taken = lines.slice(0, blockLines - this.#count);
    for (let i = 0; i < taken.length; ) {
      const kind = (taken[i] as Line).kind;
      let text = "";
      for (; taken[i]?.kind === kind; i++) text += `${(taken[i] as Line).text}\n`;
      const span = document.createElement("span");
      span.className = kind;
      span.textContent = text;
      block.element.append(span);
    }
    this.#count += taken.length;
    this.#next += taken.length;
    block.end = this.#next;
  }
}

/** The output of a command, which follows its end until it is scrolled back. */
export function Output({ log, label }: { log: OutputLog; label: string }) {
  const element = useRef<HTMLDivElement>(null);
  const [dropped, setDropped] = useState(0);
  useEffect(() => {
    const drawing = new Drawing(element.current as HTMLElement, log, setDropped);
    return () => drawing.stop();
  }, [log]);
  return (
    <>
      {dropped > 0 && <p class="note info">{count(dropped, "earlier line is", "earlier lines are")} not shown here</p>}
      {/* A screen reader would read out every line; the end of the command is what is announced. */}
      <div ref={element} class="output" role="log" aria-live="off" aria-label={label} tabIndex={0} />
    </>
  );
}
