import type { Event, Output } from "./wire.js";

/** Pieces are joined up to this size, so that a window of tiny ones costs little more than their bytes. */
const joinBelow = 16 << 10;

/** The events that an execution's reader has not taken yet. */
export class Queue {
  #events: Event[] = [];
  #head = 0;
  #room: Uint8Array | undefined; // the buffer that the last event's data begins

  get length(): number {
    return this.#events.length - this.#head;
  }

  push(event: Event): void {
    const last = this.length > 0 ? this.#events[this.#events.length - 1] : undefined;
    if (last?.type === "output" && event.type === "output" && this.#join(last, event)) return;
    this.#room = undefined;
    this.#events.push(event);
  }

  /** Takes the first event. The queue must not be empty. */
  shift(): Event {
    const event = this.#events[this.#head] as Event;
    this.#head++;
    if (this.#head === this.#events.length) this.clear();
    else if (this.#head >= 1024) {
      this.#events.splice(0, this.#head);
      this.#head = 0;
    }
    return event;
  }

  clear(): void {
    this.#events = [];
    this.#head = 0;
    this.#room = undefined;
  }

  /** Appends a piece to the last one if they belong together. */
  #join(last: Output, next: Output): boolean {
    const size = last.data.length + next.data.length;
    if (last.stream !== next.stream || last.truncated || next.truncated || size > joinBelow) return false;
    if (!this.#room || this.#room.length < size) {
      this.#room = new Uint8Array(Math.min(joinBelow, 2 * size));
      this.#room.set(last.data);
    }
    this.#room.set(next.data, last.data.length);
    last.data = this.#room.subarray(0, size);
    last.offset = next.offset;
    return true;
  }
}
