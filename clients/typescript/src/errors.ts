import type { ErrorData, WireError } from "./wire.js";

/** Every error of this package, other than those of an AbortSignal and wrong arguments, is one. */
export class TroupeError extends Error {
  override get name(): string {
    return this.constructor.name;
  }
}

/** An error that the server has sent. Each code has a class; an unknown one is a plain ServerError. */
export class ServerError extends TroupeError {
  readonly code: number;
  readonly data: ErrorData;

  constructor(e: WireError, options?: ErrorOptions) {
    super(`${e.message} (${e.code})`, options);
    this.code = e.code;
    this.data = e.data ?? {};
  }
}

/** -32700: a frame was not JSON. */
export class ParseError extends ServerError {}
/** -32600: the JSON was not a request. */
export class InvalidRequestError extends ServerError {}
/** -32601: the server does not know the method. */
export class MethodNotFoundError extends ServerError {}
/** -32602: the params are wrong; the message says which and what is right. */
export class InvalidParamsError extends ServerError {}
/** -32603: a defect of the server, unless `data.retry_after_seconds` is set. */
export class InternalError extends ServerError {}
/** -32001: a limit of the server or of the subject, which `data.limit` names. */
export class LimitError extends ServerError {}
/** -32002: the command, or a variable of its environment, is not allowed. */
export class NotAllowedError extends ServerError {}
/** -32003: no such execution, or it has ended. */
export class NoProcessError extends ServerError {}
/** -32004: the execution was silent for the stream timeout. */
export class StreamTimeoutError extends ServerError {}
/** -32005: the session runs as many executions as it may. */
export class ExecutionLimitError extends ServerError {}
/** -32006: no such session, or the wrong resume token. One whose resume window has passed is gone, too. */
export class NoSessionError extends ServerError {}
/** -32007: the pod that owned the session is gone, with everything that ran in it. */
export class SessionLostError extends ServerError {}
/** -32008: the server is stopping and starts nothing new. */
export class DrainingError extends ServerError {}
/** -32009: stdin is closed or was not asked for. */
export class InputUnavailableError extends ServerError {}
/** -32010: the command could not be started; `data.exit_code` is 127 or 126, as a shell's. */
export class StartFailedError extends ServerError {}

const classes: Record<number, new (e: WireError, options?: ErrorOptions) => ServerError> = {
  [-32700]: ParseError,
  [-32600]: InvalidRequestError,
  [-32601]: MethodNotFoundError,
  [-32602]: InvalidParamsError,
  [-32603]: InternalError,
  [-32001]: LimitError,
  [-32002]: NotAllowedError,
  [-32003]: NoProcessError,
  [-32004]: StreamTimeoutError,
  [-32005]: ExecutionLimitError,
  [-32006]: NoSessionError,
  [-32007]: SessionLostError,
  [-32008]: DrainingError,
  [-32009]: InputUnavailableError,
  [-32010]: StartFailedError,
};

/** Makes the error of the class that belongs to the code. */
export function serverError(e: WireError, options?: ErrorOptions): ServerError {
  return new (classes[e.code] ?? ServerError)(e, options);
}

/** The server ended the session, for example after its idle timeout. */
export class SessionEndedError extends TroupeError {}
/** No connection could be made for the whole resume window. `cause` is the last failure. */
export class UnreachableError extends TroupeError {}
/** `close` or `leave` was called. */
export class ClosedError extends TroupeError {}
/** `detach` was called. The session goes on without this client. */
export class DetachedError extends TroupeError {}
/** The session does not know the execution. */
export class UnknownExecutionError extends TroupeError {}
/** The connection ended before the answer, and sending the request again could do it twice. */
export class UnknownOutcomeError extends TroupeError {}
/** Another client has written to the stdin of the execution too. */
export class InputConflictError extends TroupeError {}
/** This client already follows an execution of that id. */
export class FollowedError extends TroupeError {}
/** `discard` was called on the execution. */
export class DiscardedError extends TroupeError {}
/** The request is larger than the server's max-message. It was not sent. */
export class TooLargeError extends TroupeError {}

/** The HTTP answer to the WebSocket handshake was not 101. */
export class HandshakeError extends TroupeError {
  constructor(
    /** The HTTP status. */
    readonly status: number,
    /** At most the first 1,024 characters. */
    readonly body: string,
  ) {
    super(`the server answered the WebSocket handshake with ${status}${body ? `: ${body}` : ""}`);
  }

  /** Whether trying again may help. Some ingresses answer 404 while a service has no ready pod. */
  get temporary(): boolean {
    return [404, 408, 425, 429].includes(this.status) || this.status >= 500;
  }
}

/** A connection could not be made, or has ended. `closeCode` is the server's, or 1006 without one. */
export class ConnectionError extends TroupeError {
  constructor(
    message: string,
    readonly closeCode = 1006,
  ) {
    super(message);
  }
}

/** Bytes of the output are no longer on the server. Reading can go on behind them. */
export class GapError extends TroupeError {
  constructor(
    readonly executionId: string,
    readonly bytes: number,
    /** Transcript position after the gap. */
    readonly offset: number,
  ) {
    super(`${bytes} bytes of the output of ${executionId} are no longer on the server`);
  }
}

/** Says how much of an input was delivered. `cause` says why the rest was not. */
export class InputError extends TroupeError {
  constructor(
    /** Bytes that are known to be in the command's pipe. */
    readonly delivered: number,
    /** Bytes after those that may or may not have arrived, or may still. */
    readonly inDoubt: number,
    cause: unknown,
  ) {
    const doubt = inDoubt > 0 ? `, ${inDoubt} may have` : "";
    super(`input: ${delivered} bytes arrived${doubt}: ${cause instanceof Error ? cause.message : String(cause)}`, {
      cause,
    });
  }
}
