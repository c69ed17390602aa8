import { auth } from "./auth.js";

// What /api/v1 answers: docs/api.md and docs/files.md.

export interface SessionExecution {
  id: string;
  state: "starting" | "running" | "paused" | "canceling" | "exiting" | "kept" | "exited";
  /** Absent: it is another subject's, and we may not see it. */
  command?: string;
  started_at: string;
  offset: number;
  memory_bytes?: number;
  /** It has one; absent: none, or the server's version does not say. */
  terminal?: boolean;
  reason?: string;
  exit_code?: number;
}

export interface SessionInfo {
  id: string;
  name?: string;
  labels?: Record<string, string>;
  subject: string;
  pod: string;
  state: "attached" | "detached" | "closing" | "unresponsive";
  created_at?: string;
  last_activity?: string;
  connections: number;
  isolation?: string;
  resume_window?: number;
  executions: SessionExecution[];
  executions_omitted?: number;
}

export interface Pod {
  name: string;
  state: "ready" | "draining" | "dead" | "unknown";
  sessions: number;
  max_sessions: number;
  /** Sessions and commands, since it started; absent: its version does not count them. */
  refused?: number;
  /** Commands, since it started, and the seconds from the requests for them until they ran, in all; absent: likewise. */
  started?: number;
  start_seconds?: number;
  self?: boolean;
}

export type Scope = "own" | "all";

export interface SessionList {
  scope: Scope;
  sessions: SessionInfo[];
  continue?: string;
  missing?: { pod: string; reason: string }[];
}

/** An error that the server has answered with (RFC 9457). */
export class Problem extends Error {
  constructor(
    readonly status: number,
    detail: string,
    readonly code = "",
  ) {
    super(detail);
  }
}

const timeoutMs = 15_000;

/** Sends a request with the token. It rejects with a Problem if the answer is an error. */
export async function request(path: string, init: RequestInit = {}, token = auth.token): Promise<Response> {
  const headers = new Headers(init.headers);
  if (token) headers.set("Authorization", `Bearer ${token}`);
  const answer = await fetch(path, { ...init, headers, credentials: "omit", redirect: "error" });
  if (answer.status === 401) auth.refused(token);
  if (!answer.ok) throw await problem(answer);
  return answer;
}

async function problem(answer: Response): Promise<Problem> {
  const text = (await answer.text()).slice(0, 4096);
  try {
    const body = JSON.parse(text) as { detail?: string; error?: string; code?: string };
    return new Problem(answer.status, body.detail ?? body.error ?? text, body.code);
  } catch {
    return new Problem(answer.status, text || `the server answered ${answer.status}`);
  }
}

async function json<T>(path: string, init: RequestInit = {}, token?: string): Promise<T> {
  const answer = await request(path, { cache: "no-cache", signal: AbortSignal.timeout(timeoutMs), ...init }, token);
  return (await answer.json()) as T;
}

const sessionPath = (id: string) => `/api/v1/sessions/${encodeURIComponent(id)}`;

/** Pages of a list that are read at most: 2,000 sessions. */
const maxPages = 4;

/** Lists sessions: own ones, or all, or, without a scope, all that we may see. */
export async function listSessions(scope: Scope | undefined): Promise<SessionList> {
  const query = new URLSearchParams({ limit: "500" });
  if (scope) query.set("scope", scope);
  const list = await json<SessionList>(`/api/v1/sessions?${query.toString()}`);
  for (let page = 1; list.continue && page < maxPages; page++) {
    query.set("continue", list.continue);
    const next = await json<SessionList>(`/api/v1/sessions?${query.toString()}`);
    list.sessions.push(...next.sessions);
    list.missing = [...(list.missing ?? []), ...(next.missing ?? [])];
    if (next.continue) list.continue = next.continue;
    else delete list.continue;
  }
  return list;
}

/** Asks whether the server accepts a token; it rejects with why not. */
export async function tryToken(token: string): Promise<void> {
  await json<SessionList>("/api/v1/sessions?limit=1", {}, token);
}

export const getSession = (id: string) => json<SessionInfo>(sessionPath(id));

export const endSession = (id: string) => json<SessionInfo>(sessionPath(id), { method: "DELETE" });

/** A resume token for an own session. */
export const attachSession = (id: string) =>
  json<{ session_id: string; resume_token: string }>(`${sessionPath(id)}/attach`, { method: "POST" });

export const listPods = async () => (await json<{ pods: Pod[] }>("/api/v1/pods")).pods;

/** Reads what a terminal has shown, as an asciicast, and if it follows, what it shows until it ends. */
export async function readRecording(
  id: string, execution: string, follow: boolean, signal: AbortSignal, onText: (text: string) => void,
): Promise<void> {
  const path = `${sessionPath(id)}/executions/${encodeURIComponent(execution)}/recording?follow=${follow}`;
  const { body } = await request(path, { signal, cache: "no-store" });
  const reader = body?.pipeThrough(new TextDecoderStream()).getReader();
  for (let piece = await reader?.read(); piece?.value !== undefined; piece = await reader?.read()) onText(piece.value);
}

/** A page of the output of an execution: pieces in the order of arrival, or gaps of so many bytes. */
export interface OutputPage {
  pieces: { stream?: "stdout" | "stderr"; data?: string; encoding?: "base64"; gap?: number }[];
  next_offset: number;
  end: boolean;
}

/** Reads output from an offset on; that of another subject takes the verb read. */
export const readOutput = (id: string, execution: string, offset: number) =>
  json<OutputPage>(`${sessionPath(id)}/executions/${encodeURIComponent(execution)}/output?offset=${offset}&limit=65536`);
