import { useEffect, useState } from "preact/hooks";
import { readOutput, type SessionExecution, type SessionInfo } from "./api.js";
import { OutputLog } from "./log.js";
import { Output } from "./output.js";
import { useActions } from "./palette.js";
import { Player } from "./player.js";
import { go, sessionLink } from "./route.js";
import { useStore } from "./store.js";
import { attempt, Button, copy, Note, Prompt, save, State, useNow } from "./ui.js";
import { ago, bytes, endWords, goneWords, lossWords, reasonWords, seconds } from "./words.js";
import { isTerminal, isTransfer, message, type Run, type Workspace } from "./workspace.js";

/** The commands of a session: the list of them, one with its output, and a line for the next. */
export function Commands({ id, workspace, info, chosen }: {
  id: string;
  /** Undefined: it is another subject's session, whose output takes the verb read. */
  workspace: Workspace | undefined;
  info: SessionInfo | undefined;
  /** The id of an execution; empty: the last one. */
  chosen: string;
}) {
  if (workspace) return <OwnCommands id={id} workspace={workspace} info={info} chosen={chosen} />;
  const executions = info?.executions ?? [];
  const current = executions.find((e) => e.id === chosen);
  return (
    <div class="commands">
      <CommandList id={id} runs={[]} others={executions} chosen={chosen} />
      <div class="pane">
        <Note kind="info">This is a session of another subject: to read its output you need the verb read.</Note>
        {current && <WatchedCommand key={current.id} id={id} execution={current} />}
      </div>
    </div>
  );
}

function OwnCommands({ id, workspace, info, chosen }: {
  id: string;
  workspace: Workspace;
  info: SessionInfo | undefined;
  chosen: string;
}) {
  const all = useStore(workspace.runs);
  const runs = all.filter((r) => !r.shell);
  const others = (info?.executions ?? []).filter((e) => !isTransfer(e) && !isTerminal(e) && !all.some((r) => r.id === e.id));
  const current = chosen ? runs.find((r) => r.id === chosen) : runs.at(-1);
  const other = chosen ? others.find((e) => e.id === chosen) : undefined;
  const ended = useStore(workspace.link).state === "ended";
  const run = (command: string) => go(sessionLink(id, "commands", workspace.run(command).id));
  useActions(() => runs.toReversed().map((r) => ({
    title: r.command,
    hint: "command of this session",
    run: () => go(sessionLink(id, "commands", r.id)),
  })));
  return (
    <div class="commands">
      <CommandList id={id} runs={runs} others={others} chosen={current?.id ?? other?.id ?? ""} />
      <div class="pane">
        {current && <CommandOutput key={current.id} run={current} />}
        {other && !current && (other.terminal
          ? <WatchedCommand key={other.id} id={id} execution={other} />
          : <OtherCommand key={other.id} execution={other} workspace={workspace} />)}
        {!current && !other && (
          <p class="empty">{chosen ? "This command is not known any more." : "Nothing has run here. Type a command below."}</p>
        )}
        {!ended && (
          <Prompt
            label="Command"
            placeholder="Run a command in this session"
            focus
            action="Run"
            history={runs.map((r) => r.command)}
            onRun={run}
          />
        )}
      </div>
    </div>
  );
}

function CommandList({ id, runs, others, chosen }: {
  id: string;
  runs: Run[];
  others: SessionExecution[];
  chosen: string;
}) {
  const entries = [
    ...runs.map((r) => ({ id: r.id, startedAt: r.startedAt, item: <RunEntry run={r} /> })),
    ...others.map((e) => ({ id: e.id, startedAt: Date.parse(e.started_at), item: <OtherEntry execution={e} /> })),
  ].toSorted((a, b) => b.startedAt - a.startedAt);
  return (
    <nav class="rail" aria-label="Commands of this session">
      <ol>
        {entries.map((e) => (
          <li key={e.id}>
            <a href={sessionLink(id, "commands", e.id)} aria-current={e.id === chosen ? "true" : undefined}>{e.item}</a>
          </li>
        ))}
      </ol>
      {entries.length === 0 && <p class="quiet">No commands yet</p>}
    </nav>
  );
}

function Entry({ command, state, words }: { command: string; state: string; words: string }) {
  return (
    <>
      <code class="command">{command}</code>
      <State state={state}>{words}</State>
    </>
  );
}

function RunEntry({ run }: { run: Run }) {
  useStore(run.changed);
  const now = useNow();
  const words = run.completed
    ? reasonWords(run.completed.reason, run.completed.exit_code)
    : run.ended ? "no output" : `${run.state} · ${seconds((now - run.startedAt) / 1000)}`;
  return <Entry command={run.command} state={runState(run)} words={words} />;
}

function OtherEntry({ execution: e }: { execution: SessionExecution }) {
  const over = e.state === "exited";
  const words = over ? reasonWords(e.reason, e.exit_code) : `${e.state} · ${ago(e.started_at)}`;
  const state = over ? (e.exit_code === 0 ? "succeeded" : "failed") : e.state;
  return <Entry command={e.command ?? "a command"} state={state} words={words} />;
}

/** The class of a run's colour. */
function runState(run: Run): string {
  if (!run.completed) return run.state;
  if (run.completed.status === "canceled") return "canceled";
  return run.completed.exit_code === 0 ? "succeeded" : "failed";
}

function CommandOutput({ run }: { run: Run }) {
  useStore(run.changed);
  const active = !run.ended;
  const paused = run.state === "paused";
  const saveOutput = () => save(run.log.toString(), "output.txt");
  useActions(() => active
    ? [
      { title: paused ? "Resume this command" : "Pause this command", run: () => attempt(() => run.control(paused ? "RESUME" : "PAUSE")) },
      { title: "Cancel this command", run: () => attempt(() => run.control("CANCEL")) },
    ]
    : [{ title: "Save the output of this command", run: saveOutput }]);
  return (
    <section class="run" aria-label={`Command ${run.command}`}>
      <header class="bar">
        <code class="command" title={run.command}>{run.command}</code>
        <span class="spring" />
        {active && (
          <>
            <Button onClick={() => attempt(() => run.control(paused ? "RESUME" : "PAUSE"))}>{paused ? "Resume" : "Pause"}</Button>
            <Button kind="danger" onClick={() => attempt(() => run.control("CANCEL"))}>Cancel</Button>
          </>
        )}
        <Button kind="quiet" onClick={() => attempt(() => copy(run.log.toString(), "Output"))}>Copy</Button>
        <Button kind="quiet" onClick={saveOutput}>Save</Button>
      </header>
      <Output log={run.log} label={`Output of ${run.command}`} />
      <EndOfRun run={run} />
    </section>
  );
}

/** The state of a command, and its end in words. */
export function EndOfRun({ run }: { run: Run }) {
  const now = useNow();
  if (run.error) return <Note kind="error">{run.error}</Note>;
  if (!run.completed) {
    return (
      <div class="end">
        <State state={run.state}>{run.state} for {seconds(Math.max(0, now - run.startedAt) / 1000)}</State>
      </div>
    );
  }
  const { headline, details } = endWords(run.completed);
  return (
    <div class="end" role="status">
      <State state={runState(run)}>{headline}</State>
      <span class="quiet">{details.join(" · ")}</span>
      {lossWords(run.completed).map((text) => <Note key={text} kind="warning">{text}</Note>)}
    </div>
  );
}

/** A command that another client has started: its output is shown once somebody asks. */
function OtherCommand({ execution: e, workspace }: { execution: SessionExecution; workspace: Workspace }) {
  const [asked, ask] = useState(false);
  return (
    <section class="run" aria-label={`Command ${e.command ?? e.id}`}>
      <header class="bar">
        <code class="command">{e.command ?? e.id}</code>
      </header>
      <div class="empty">
        <p>
          Another client has started this. {bytes(e.offset)} of output so far
          {e.memory_bytes ? `, ${bytes(e.memory_bytes)} of memory` : ""}.
        </p>
        <Button
          disabled={asked}
          onClick={() => {
            ask(true);
            attempt(() => workspace.follow(e));
          }}
        >
          Show its output
        </Button>
      </div>
    </section>
  );
}

const watchMs = 1000;

/** A command of another subject, or a terminal of another client, whose output is read once somebody asks. */
function WatchedCommand({ id, execution: e }: { id: string; execution: SessionExecution }) {
  const [log, setLog] = useState<OutputLog>();
  const [plays, play] = useState(false);
  const [error, setError] = useState("");
  useEffect(() => {
    if (!log) return;
    let over = false;
    const read = async () => {
      for (let offset = 0; !over; ) {
        const page = await readOutput(id, e.id, offset);
        for (const piece of page.pieces) {
          if (piece.gap) log.note(goneWords(piece.gap));
          else log.append(piece.stream ?? "stdout", piece.encoding ? fromBase64(piece.data) : encoder.encode(piece.data));
        }
        if (page.end) return log.end();
        if (page.next_offset === offset) await new Promise((resolve) => setTimeout(resolve, watchMs));
        offset = page.next_offset;
      }
    };
    read().catch((problem: unknown) => over || setError(message(problem)));
    return () => {
      over = true;
    };
  }, [log]);
  return (
    <section class="run" aria-label={`Command ${e.command ?? e.id}`}>
      <header class="bar">
        <code class="command">{e.command ?? e.id}</code>
        <span class="spring" />
        {e.terminal
          ? <Button onClick={() => play(!plays)}>{plays ? "Close" : "Watch it"}</Button>
          : !log && <Button onClick={() => setLog(new OutputLog())}>Show its output</Button>}
      </header>
      {error && <Note kind="error">{error}</Note>}
      {log && <Output log={log} label={`Output of ${e.command ?? e.id}`} />}
      {plays && <Player id={id} execution={e.id} follow />}
    </section>
  );
}

const encoder = new TextEncoder();

function fromBase64(text = ""): Uint8Array {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}
