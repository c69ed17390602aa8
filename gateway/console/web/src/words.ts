import type { Completed, Reason } from "@troupe/client";

export function bytes(n: number): string {
  if (n < 1024) return `${n} B`;
  let value = n / 1024;
  for (const unit of ["KiB", "MiB", "GiB"]) {
    if (value < 1024) return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${unit}`;
    value /= 1024;
  }
  return `${value.toFixed(1)} TiB`;
}

export function seconds(s: number): string {
  if (s < 1) return `${Math.round(s * 1000)} ms`;
  if (s < 60) return `${s < 10 ? s.toFixed(1) : Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`;
}

/** How long ago that was, in a few characters. */
export function ago(time: string | undefined, now = Date.now()): string {
  if (!time) return "";
  const s = Math.max(0, (now - Date.parse(time)) / 1000);
  if (s < 5) return "now";
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86_400)} d`;
}

export function count(n: number, one: string, many = `${one}s`): string {
  return `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
}

/** The first part of a session's random id; its pod is shown beside it. */
export function shortId(id: string): string {
  return id.slice(id.lastIndexOf(".") + 1).slice(0, 8);
}

const reasons: Record<Reason, string> = {
  exited: "exited",
  signaled: "ended by a signal",
  canceled: "canceled",
  stream_timeout: "ended: it printed nothing for too long",
  deadline: "ended: it ran longer than it may",
  output_limit: "ended: it reached its output limit",
  session_closed: "ended with its session",
  reader_gone: "ended: nothing read its output",
  drain: "ended: the server is stopping",
  out_of_memory: "ended: out of memory",
  process_limit: "ended: too many processes",
  disk_limit: "ended: its session's disk space is used up",
  runner_lost: "lost: the runner has stopped",
  start_failed: "could not be started",
  internal: "ended by an error of the server",
};

/** Why a command has ended, in a few words. */
export function reasonWords(reason: string | undefined, exitCode: number | undefined): string {
  if (reason === "exited" || reason === undefined) return exitCode === undefined ? "ended" : `exit code ${exitCode}`;
  if (reason === "signaled" && exitCode !== undefined && exitCode < 0) return `ended by signal ${-exitCode}`;
  return reasons[reason as Reason] ?? reason;
}

/** The end of a command in words: why, and everything that is not in its output. */
export function endWords(c: Completed): { headline: string; details: string[] } {
  let headline = reasonWords(c.reason, c.exit_code);
  if (c.reason === "signaled" && c.signal) headline = `ended by ${c.signal}`;
  if (c.error && c.reason !== "exited") headline += ` (${c.error.message})`;
  const details = [`ran ${seconds(c.execution_time)}`];
  if (c.usage) {
    details.push(`${seconds(c.usage.user_seconds + c.usage.system_seconds)} CPU`, bytes(c.usage.max_rss_bytes));
  }
  details.push(`${bytes(c.output_bytes)} output`);
  return { headline, details };
}

/** What the output lacks; empty: nothing. */
export function lossWords(c: Completed): string[] {
  const losses: string[] = [];
  if (c.dropped_lines > 0) {
    const why = c.dropped_reason === "transcript_write" ? "the server could not store them" : "past the output limit";
    losses.push(`${count(c.dropped_lines, "line")} (${bytes(c.dropped_bytes)}) dropped: ${why}`);
  }
  if (c.truncated_lines > 0) {
    losses.push(`${count(c.truncated_lines, "line was", "lines were")} cut, ${bytes(c.truncated_bytes)} are missing`);
  }
  if (c.survivors) {
    const names = c.survivors.commands.slice(0, 5).join(", ");
    const fate = c.survivors.kept ? "lives on" : "was killed";
    const fates = c.survivors.kept ? "live on" : "were killed";
    losses.push(`${count(c.survivors.count, `process ${fate}`, `processes ${fates}`)} after it: ${names}`);
  }
  return losses;
}

/** Output that was evicted before it was read. */
export function goneWords(n: number): string {
  return `${bytes(n)} of the output are no longer on the server`;
}

/** A name as it is, without characters that would turn the text around it (https://trojansource.codes). */
export function visible(name: string): string {
  return name.replace(/[\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
}
