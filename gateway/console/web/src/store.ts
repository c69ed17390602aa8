import { useEffect, useState } from "preact/hooks";

/** A value that components show, and are drawn again for when it changes. */
export class Store<T> {
  #value: T;
  readonly #listeners = new Set<() => void>();

  constructor(value: T) {
    this.#value = value;
  }

  get value(): T {
    return this.#value;
  }

  set(value: T): void {
    this.#value = value;
    for (const listener of Array.from(this.#listeners)) listener();
  }

  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}

/** The store's value; the component is drawn again when it is set. */
export function useStore<T>(store: Store<T>): T {
  const [, draw] = useState({});
  useEffect(() => {
    draw({}); // it may have changed between drawing and here
    return store.subscribe(() => draw({}));
  }, [store]);
  return store.value;
}
