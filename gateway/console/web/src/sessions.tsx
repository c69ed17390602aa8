import { useState } from "preact/hooks";
import { endSession, listSessions, type Scope, type SessionInfo, type SessionList } from "./api.js";
import { useActions } from "./palette.js";
import { go, sessionLink } from "./route.js";
import { attempt, Button, confirm, Note, type Polled, Prompt, State, useNow, usePoll } from "./ui.js";
import { ago, bytes, count, shortId } from "./words.js";
import { openWorkspace, runningIn } from "./workspace.js";

const pollMs = 2000;

/** What a session is called, for people. */
export function sessionTitle(s: { id: string; name?: string | undefined }): string {
  return s.name ?? shortId(s.id);
}

/** All sessions, live, and a line to run a command in a new one. */
export function Sessions() {
  const [scope, setScope] = useState<Scope | undefined>(undefined);
  const [filter, setFilter] = useState("");
  const list = usePoll(() => listSessions(scope), pollMs, [scope]);
  const [seesAll, setSeesAll] = useState(false);
  if (list.value?.scope === "all" && !seesAll) setSeesAll(true);
  const run = (command: string) =>
    attempt(async () => {
      const workspace = await openWorkspace();
      go(sessionLink(workspace.id, "commands", workspace.run(command).id));
    });
  const terminal = () =>
    attempt(async () => {
      const workspace = await openWorkspace();
      go(sessionLink(workspace.id, "terminals", workspace.openTerminal().id));
    });
  const open = () => attempt(async () => go(sessionLink((await openWorkspace()).id)));
  const sessions = (list.value?.sessions ?? []).filter((s) => matches(s, filter));
  useActions(() => [
    { title: "Open a new session", run: open },
    { title: "Open a terminal in a new session", run: terminal },
    ...sessions.map((s) => ({ title: `Go to ${sessionTitle(s)}`, hint: `${s.subject} · ${s.pod}`, run: () => go(sessionLink(s.id)) })),
  ]);
  return (
    <main class="page">
      <section class="start" aria-label="Run a command">
        <Prompt label="Command for a new session" placeholder="Run a command in a new session" focus action="Run" onRun={run} />
      </section>
      <header class="bar">
        <h1>Sessions</h1>
        <span class="quiet" role="status">{list.value && summary(list.value, sessions.length)}</span>
        <span class="spring" />
        <input
          type="search"
          aria-label="Filter sessions"
          placeholder="Filter by name, label, subject, pod, command"
          value={filter}
          onInput={(e) => setFilter(e.currentTarget.value)}
        />
        {seesAll && <ScopeSwitch all={scope !== "own"} onChange={(all) => setScope(all ? "all" : "own")} />}
        <Button onClick={open}>New session</Button>
        <Button onClick={terminal}>Terminal</Button>
      </header>
      <Troubles list={list} />
      {list.value && (sessions.length > 0 ? (
        <SessionTable sessions={sessions} all={list.value.scope === "all"} refresh={list.refresh} />
      ) : (
        <p class="empty">{filter ? "No session matches the filter." : "No sessions. Run a command above to open one."}</p>
      ))}
    </main>
  );
}

function matches(s: SessionInfo, filter: string): boolean {
  const labels = Object.entries(s.labels ?? {}).map(([key, value]) => `${key}=${value}`);
  const text = [s.id, s.name, s.subject, s.pod, s.state, ...labels, ...s.executions.map((e) => e.command)].join(" ").toLowerCase();
  return filter.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}

function summary(list: SessionList, shown: number): string {
  const total = list.sessions.length;
  const more = list.continue ? " and more: end some, or use the API to see the rest" : "";
  return (shown < total ? `${shown} of ${count(total, "session")}` : count(total, "session")) + more;
}

function ScopeSwitch({ all, onChange }: { all: boolean; onChange: (all: boolean) => void }) {
  return (
    <span class="switch" role="group" aria-label="Whose sessions">
      <Button pressed={!all} onClick={() => onChange(false)}>Own</Button>
      <Button pressed={all} onClick={() => onChange(true)}>All</Button>
    </span>
  );
}

/** What the list lacks, and why. */
function Troubles({ list }: { list: Polled<SessionList> }) {
  return (
    <>
      {list.error && (
        <Note kind={list.value ? "warning" : "error"}>
          {list.value ? "Not up to date: " : "Sessions cannot be listed: "}
          {list.error.message}
        </Note>
      )}
      {list.value?.missing?.map((m) => (
        <Note key={m.pod} kind="warning">The sessions of {m.pod} are missing: {m.reason}</Note>
      ))}
    </>
  );
}

function SessionTable({ sessions, all, refresh }: { sessions: SessionInfo[]; all: boolean; refresh: () => void }) {
  const now = useNow();
  const end = (s: SessionInfo) =>
    attempt(async () => {
      const running = runningIn(s).length;
      const what = running > 0 ? ` ${count(running, "command")} in it will be canceled.` : "";
      if (!(await confirm(`End the session ${sessionTitle(s)} of ${s.subject}?${what} Its files are removed.`, "End session"))) return;
      await endSession(s.id);
      refresh();
    });
  return (
    <div class="table-frame">
      <table>
        <thead>
          <tr>
            <th scope="col">Session</th>
            <th scope="col">State</th>
            <th scope="col" class="wide">Running</th>
            {all && <th scope="col">Subject</th>}
            <th scope="col" class="roomy">Pod</th>
            <th scope="col" class="number roomy">Memory</th>
            <th scope="col" class="number">Age</th>
            <th scope="col" class="number roomy">Active</th>
            <th scope="col"><span class="hidden">Actions</span></th>
          </tr>
        </thead>
        <tbody>
          {sessions.map((s) => (
            <tr key={s.id}>
              <th scope="row">
                <a href={sessionLink(s.id)} title={s.id} class={s.name ? "" : "mono"}>{sessionTitle(s)}</a>
                <Labels labels={s.labels} />
              </th>
              <td><State state={s.state} /></td>
              <td class="wide"><Running session={s} /></td>
              {all && <td>{s.subject}</td>}
              <td class="roomy">{s.pod}</td>
              <td class="number roomy">{memory(s)}</td>
              <td class="number" title={s.created_at}>{ago(s.created_at, now)}</td>
              <td class="number roomy" title={s.last_activity}>{ago(s.last_activity, now)}</td>
              <td class="actions">
                <Button kind="quiet" label={`End session ${sessionTitle(s)}`} onClick={() => end(s)}>End</Button>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export function Labels({ labels }: { labels: Record<string, string> | undefined }) {
  return (
    <>
      {Object.entries(labels ?? {}).map(([key, value]) => <span key={key} class="label">{key}={value}</span>)}
    </>
  );
}

function memory(s: SessionInfo): string {
  const total = s.executions.reduce((sum, e) => sum + (e.memory_bytes ?? 0), 0);
  return total > 0 ? bytes(total) : "";
}

function Running({ session }: { session: SessionInfo }) {
  const running = runningIn(session);
  const [first, ...rest] = running;
  if (!first) return <span class="quiet">nothing</span>;
  const more = rest.length + (session.executions_omitted ?? 0);
  return (
    <>
      {first.command === undefined ? <span class="quiet">a command</span> : <code class="command">{first.command}</code>}
      {more > 0 && <span class="quiet"> and {more} more</span>}
    </>
  );
}
