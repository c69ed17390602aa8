import type { Connection } from "./connection.js";
import { fromBase64, parseOutput } from "./frames.js";
import type { Piece } from "./execution.js";
import type { Session } from "./session.js";
import type { Completed, Control, Resized, Warning, WireError } from "./wire.js";

interface OutputParams {
  execution_id: string;
  type: "stdout" | "stderr";
  data: string;
  encoding?: string;
  truncated: boolean;
  offset: number;
  gap?: number;
}

const encoder = new TextEncoder();

/** Handles every notification that concerns an execution. Unknown ones are ignored: a newer server may add some. */
export function routeNotification(session: Session, connection: Connection, method: string, params: unknown): void {
  switch (method) {
    case "process.output":
      return routeText(session, params as OutputParams);
    case "process.stream": {
      const { execution_id, stream } = params as { execution_id: string; stream: number };
      connection.streams.set(stream, execution_id);
      connection.numbers.set(execution_id, stream);
      session.calls.offsets = true; // a server with binary messages takes inputs by their offset
      return;
    }
    case "process.input": {
      const { execution_id, offset, error } = params as { execution_id: string; offset: number; error?: WireError };
      session.calls.inputTaken(execution_id, offset, error);
      return;
    }
    case "process.completed": {
      const completed = params as Completed;
      const e = session.followed.get(completed.execution_id);
      if (e) e.receiveCompleted(completed);
      else {
        const { execution_id, output_bytes } = completed;
        session.sendAck({ execution_id, offset: output_bytes, completed: true });
      }
      return;
    }
    case "process.warning": {
      const { execution_id, code, message, offset } = params as Warning & { execution_id: string };
      session.followed.get(execution_id)?.receiveWarning({ type: "warning", code, message, offset });
      return;
    }
    case "process.resized": {
      const { execution_id, cols, rows, offset } = params as Resized & { execution_id: string };
      session.followed.get(execution_id)?.receive({ type: "resized", cols, rows, offset });
      return;
    }
    case "process.screen": {
      const { execution_id, cols, rows, data, offset } = params as ScreenParams;
      session.followed.get(execution_id)?.receive({ type: "screen", cols, rows, data: fromBase64(data), offset });
      return;
    }
    case "process.started":
    case "process.paused":
    case "process.resumed":
    case "process.canceled": {
      const { execution_id } = params as { execution_id: string };
      session.followed.get(execution_id)?.receive({ type: method.slice("process.".length) as Control["type"] });
      return;
    }
    case "process.error": {
      const { execution_id, error } = params as { execution_id: string; error: WireError };
      session.followed.get(execution_id)?.receive({ type: "error", error });
    }
  }
}

type ScreenParams = Resized & { execution_id: string; data: string };

function routeText(session: Session, params: OutputParams): void {
  const { execution_id, type, data, encoding, truncated, offset, gap } = params;
  const exact = encoding === "base64";
  const bytes = exact ? fromBase64(data) : encoder.encode(data);
  routePiece(session, execution_id, { stream: type, data: bytes, truncated, offset, gap: gap ?? 0, exact });
}

/** Handles a binary message. */
export function routeBinary(session: Session, connection: Connection, message: ArrayBuffer): void {
  const frame = parseOutput(message);
  const id = connection.streams.get(frame.stream);
  if (id === undefined) throw new Error(`binary message: stream ${frame.stream} was not opened`);
  const { data, truncated, offset, gap, stderr } = frame;
  routePiece(session, id, { stream: stderr ? "stderr" : "stdout", data, truncated, offset, gap, exact: true });
}

function routePiece(session: Session, id: string, piece: Piece): void {
  const e = session.followed.get(id);
  // What is not followed any more is acknowledged, so that it keeps neither the command nor its session waiting.
  if (e) e.receiveOutput(piece);
  else session.sendAck({ execution_id: id, offset: piece.offset });
}
