import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { endSession, getSession, Problem, type SessionInfo } from "./api.js";
import { Commands } from "./commands.js";
import { Files } from "./files.js";
import { useActions } from "./palette.js";
import { go, sessionLink, sessionsLink, type View } from "./route.js";
import { Labels, sessionTitle } from "./sessions.js";
import { useStore } from "./store.js";
import { attempt, Button, confirm, copy, Note, State, usePoll } from "./ui.js";
import { Terminals } from "./terminals.js";
import { ago, bytes, seconds } from "./words.js";
import { isTerminal, message, runningIn, type Workspace, workspace as connect } from "./workspace.js";

const pollMs = 2500;

/** The connection to a session. */
interface Connection {
  workspace?: Workspace;
  error?: Error;
}

/** One session: its commands, files, and what is known about it. */
export function SessionPage({ id, view, item }: { id: string; view: View; item: string }) {
  const [attempts, again] = useState(0);
  const [connection, setConnection] = useState<Connection>({});
  const info = usePoll(() => getSession(id), pollMs, [id]);
  useEffect(() => {
    let over = false;
    setConnection({});
    connect(id).then(
      (workspace) => over || setConnection({ workspace }),
      (error: Error) => over || setConnection({ error }),
    );
    return () => {
      over = true;
    };
  }, [id, attempts]);
  const { workspace, error } = connection;
  // Others' sessions can be looked at, and refuse to be attached to.
  const foreign = error instanceof Problem && (error.status === 403 || error.status === 404) && info.value !== undefined;
  const gone = info.error instanceof Problem && info.error.status === 404;
  return (
    <main class="session">
      <SessionHeader id={id} info={info.value} workspace={workspace} view={view} gone={gone} />
      {gone && <Note kind="warning">This session has ended. <a href={sessionsLink}>All sessions</a></Note>}
      {!gone && error && !foreign && (
        <Note kind="error">
          {message(error)} <Button onClick={() => again(attempts + 1)}>Try again</Button>
        </Note>
      )}
      {workspace && !gone && <LinkNote workspace={workspace} onAgain={() => again(attempts + 1)} />}
      {view === "commands" && (workspace || foreign) && (
        <Commands id={id} workspace={workspace} info={info.value} chosen={item} />
      )}
      {view === "terminals" && workspace && <Terminals id={id} workspace={workspace} chosen={item} />}
      {view === "files" && workspace && <Files id={id} path={item} />}
      {view === "about" && <About id={id} info={info.value} workspace={workspace} />}
    </main>
  );
}

function SessionHeader({ id, info, workspace, view, gone }: {
  id: string;
  info: SessionInfo | undefined;
  workspace: Workspace | undefined;
  view: View;
  gone: boolean;
}) {
  const end = () =>
    attempt(async () => {
      if (!(await confirm("End this session? What runs in it is canceled, and its files are removed.", "End session"))) return;
      await endSession(id);
      go(sessionsLink);
    });
  const running = info ? runningIn(info).filter((e) => !isTerminal(e)).length : 0;
  const tabs: [View, string][] = [
    ["commands", running > 0 ? `Commands (${running})` : "Commands"],
    ["terminals", "Terminals"],
    ["files", "Files"],
    ["about", "About"],
  ];
  useActions(() => [
    ...tabs.map(([to, title]) => ({ title, hint: "of this session", run: () => go(sessionLink(id, to)) })),
    { title: "Copy the id of this session", run: () => attempt(() => copy(id, "Id")) },
    { title: "End this session", run: end },
  ]);
  return (
    <header class="bar session-bar">
      <h1 title={id} class={info?.name ? "" : "mono"}>{sessionTitle({ id, name: info?.name ?? workspace?.session.connected.name })}</h1>
      <nav class="tabs" aria-label="Parts of this session">
        {tabs.map(([to, title]) => (
          <a key={to} href={sessionLink(id, to)} aria-current={view === to ? "page" : undefined}>{title}</a>
        ))}
      </nav>
      <span class="spring" />
      {info && !gone && <State state={info.state} />}
      {info && <span class="quiet roomy">{info.subject} on {info.pod}</span>}
      {!gone && <Button kind="danger" onClick={end}>End</Button>}
    </header>
  );
}

/** Says so when the connection is lost, and when it is back. */
function LinkNote({ workspace, onAgain }: { workspace: Workspace; onAgain: () => void }) {
  const link = useStore(workspace.link);
  const [hidden, hide] = useState<unknown>(undefined);
  useEffect(() => {
    if (link.state !== "connected" || !link.note) return;
    const timer = setTimeout(() => hide(link), 8000);
    return () => clearTimeout(timer);
  }, [link]);
  useEffect(() => {
    if (link.state === "ended" && link.outdated) onAgain();
  }, [link]);
  if (!link.note || link === hidden) return null;
  return (
    <Note kind={link.state === "connected" ? "info" : "warning"}>
      {link.note} {link.state === "ended" && <Button onClick={onAgain}>Connect again</Button>}
    </Note>
  );
}

/** What is known about a session: where it is, and what bounds it. */
function About({ id, info, workspace }: { id: string; info: SessionInfo | undefined; workspace: Workspace | undefined }) {
  const limits = workspace?.session.limits;
  const held = info?.executions.reduce((sum, e) => sum + (e.memory_bytes ?? 0), 0) ?? 0;
  const facts: [string, unknown][] = [
    ["Id", <code>{id}</code>],
    ["Name", info?.name],
    ["Labels", info?.labels && <Labels labels={info.labels} />],
    ["Subject", info?.subject],
    ["Pod", info?.pod],
    ["Opened", info?.created_at && `${ago(info.created_at)} ago`],
    ["Connections", info?.connections],
    ["Separated from other sessions", info?.isolation && (info.isolation === "session" ? "yes, by the kernel" : "no")],
    ["Kept without a connection", info?.resume_window && seconds(info.resume_window)],
    ["Memory of its commands", held > 0 ? bytes(held) : undefined],
  ];
  const bounds: [string, string | undefined][] = limits
    ? [
      ["Commands at a time", `${info ? runningIn(info).length : 0} of ${limits.max_executions}`],
      ["Output kept of a command", bytes(limits.max_output)],
      ["Longest line", bytes(limits.max_line)],
      ["Silence", seconds(limits.stream_timeout)],
      ["Running time", limits.max_duration > 0 ? seconds(limits.max_duration) : "not bounded"],
      ["Memory of a command", limits.max_memory > 0 ? bytes(limits.max_memory) : "not bounded"],
      ["From SIGTERM to SIGKILL", seconds(limits.cancel_grace)],
      ["Idle time", seconds(limits.idle_timeout)],
    ]
    : [];
  return (
    <div class="about">
      <section>
        <h2>This session</h2>
        <Facts facts={facts} />
      </section>
      {bounds.length > 0 && (
        <section>
          <h2>Its limits</h2>
          <Facts facts={bounds} />
        </section>
      )}
      <section>
        <h2>In a shell</h2>
        <p>The same session, from the command line:</p>
        <pre class="mono" tabIndex={0}>{`troupe attach ${id}\ntroupe cp data.csv ${id}:`}</pre>
      </section>
    </div>
  );
}

function Facts({ facts }: { facts: [string, unknown][] }) {
  return (
    <dl>
      {facts.filter(([, value]) => value !== undefined && value !== "").map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value as ComponentChildren}</dd>
        </div>
      ))}
    </dl>
  );
}
