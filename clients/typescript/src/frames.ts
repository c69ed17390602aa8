// Binary messages, as docs/protocol.md lays them out. Numbers are big-endian.

const kindOutput = 1;
const kindInput = 2;
const flagStderr = 1;
const flagTruncated = 2;
const flagGap = 4;
const flagEof = 1;
const header = 12;
const gapSize = 8;

export interface OutputFrame {
  stream: number;
  stderr: boolean;
  truncated: boolean;
  /** Position in the output after the piece. */
  offset: number;
  gap: number;
  data: Uint8Array;
}

/** Reads an output frame. `data` shares memory with `message`. */
export function parseOutput(message: ArrayBuffer): OutputFrame {
  const view = new DataView(message);
  if (view.byteLength < header || view.getUint8(0) !== kindOutput) {
    throw new Error(`malformed binary message of ${view.byteLength} bytes`);
  }
  const flags = view.getUint8(1);
  const hasGap = (flags & flagGap) !== 0;
  const begin = hasGap ? header + gapSize : header;
  if (flags > 7 || view.byteLength < begin) {
    throw new Error(`malformed binary message of ${view.byteLength} bytes with flags ${flags}`);
  }
  return {
    stream: view.getUint16(2),
    stderr: (flags & flagStderr) !== 0,
    truncated: (flags & flagTruncated) !== 0,
    offset: Number(view.getBigUint64(4)),
    gap: hasGap ? Number(view.getBigUint64(header)) : 0,
    data: new Uint8Array(message, begin),
  };
}

export function inputFrame(stream: number, offset: number, data: Uint8Array, eof: boolean): Uint8Array<ArrayBuffer> {
  const frame = new Uint8Array(header + data.length);
  const view = new DataView(frame.buffer);
  view.setUint8(0, kindInput);
  view.setUint8(1, eof ? flagEof : 0);
  view.setUint16(2, stream);
  view.setBigUint64(4, BigInt(offset));
  frame.set(data, header);
  return frame;
}

/** Standard base64, of data as small as an input's. */
export function toBase64(data: Uint8Array): string {
  let text = "";
  for (let i = 0; i < data.length; i += 8192) {
    text += String.fromCharCode(...data.subarray(i, i + 8192));
  }
  return btoa(text);
}

export function fromBase64(text: string): Uint8Array {
  const binary = atob(text);
  const data = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) data[i] = binary.charCodeAt(i);
  return data;
}
