/**
 * A random id of 128 bits, such as `exec` makes for an execution. crypto.randomUUID would be missing on pages that have
 * come over plain HTTP: https://developer.mozilla.org/docs/Web/API/Crypto/randomUUID.
 */
export function randomId(): string {
  const bytes = globalThis.crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
}
