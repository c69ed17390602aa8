import { useEffect, useRef, useState } from "preact/hooks";
import { useActions } from "./palette.js";
import { Player } from "./player.js";
import { go, sessionLink } from "./route.js";
import { screenReader, searching, type Shell, toggleScreenReader } from "./shell.js";
import { useStore } from "./store.js";
import { attempt, Button, confirm, pasted } from "./ui.js";
import { EndOfRun } from "./commands.js";
import type { Run, Workspace } from "./workspace.js";

/** A run that has a terminal. */
type TerminalRun = Run & { shell: Shell };

/** The terminals of a session, in tabs. */
export function Terminals({ id, workspace, chosen }: { id: string; workspace: Workspace; chosen: string }) {
  const runs = useStore(workspace.runs).filter((r): r is TerminalRun => r.shell !== undefined);
  const current = runs.find((r) => r.id === chosen) ?? runs.at(-1);
  const ended = useStore(workspace.link).state === "ended";
  const [played, play] = useState("");
  const open = () => go(sessionLink(id, "terminals", workspace.openTerminal().id));
  const close = (run: TerminalRun) =>
    attempt(async () => {
      if (!run.ended) {
        if (!(await confirm(`End ${run.shell.title.value}, and what runs in it?`, "End terminal"))) return;
        await run.control("CANCEL");
      }
      workspace.forget(run);
      go(sessionLink(id, "terminals"));
    });
  useActions(() => [
    { title: "Open a terminal", run: open },
    ...runs.map((r) => ({ title: r.shell.title.value, hint: "terminal of this session", run: () => go(sessionLink(id, "terminals", r.id)) })),
    ...(current ? [
      { title: "Search this terminal", hint: "Ctrl-Shift-F", run: () => searching.set(current.shell) },
      { title: "Play the recording of this terminal", run: () => play(current.id) },
      { title: "End this terminal", run: () => close(current) },
    ] : []),
    { title: screenReader.value ? "Terminals: stop helping screen readers" : "Terminals: help screen readers", run: () => toggleScreenReader(runs.map((r) => r.shell)) },
  ]);
  return (
    <div class="terminals">
      <div class="bar tabbar">
        <div role="tablist" aria-label="Terminals">
          {runs.map((r) => <Tab key={r.id} run={r} selected={r === current} to={sessionLink(id, "terminals", r.id)} />)}
        </div>
        {!ended && <Button kind="quiet" label="Open a terminal" onClick={open}>+</Button>}
        <span class="spring" />
        {current && <Button kind="quiet" label="Search (Ctrl-Shift-F)" onClick={() => searching.set(current.shell)}>Search</Button>}
        {current && <Button kind="quiet" pressed={played === current.id} onClick={() => play(played === current.id ? "" : current.id)}>Recording</Button>}
        {current && <Button kind="quiet" label={`Close ${current.shell.title.value}`} onClick={() => close(current)}>Close</Button>}
      </div>
      {current && played === current.id ? <Player key={current.id} id={id} execution={current.id} onClose={() => play("")} /> : current ? <Screen key={current.id} run={current} /> : (
        <div class="empty">
          <p>No terminal is open.</p>
          {!ended && <Button kind="primary" onClick={open}>Open a terminal</Button>}
        </div>
      )}
    </div>
  );
}

function Tab({ run, selected, to }: { run: TerminalRun; selected: boolean; to: string }) {
  useStore(run.changed);
  const title = useStore(run.shell.title);
  return (
    <button
      type="button"
      role="tab"
      aria-selected={selected}
      class={run.ended ? "ended" : ""}
      onClick={() => go(to)}
    >
      {title}{run.ended && " (ended)"}
    </button>
  );
}

function Screen({ run }: { run: TerminalRun }) {
  useStore(run.changed);
  const { shell } = run;
  const place = useRef<HTMLDivElement>(null);
  useEffect(() => {
    shell.show(place.current as HTMLElement);
    return () => {
      shell.hide();
      if (searching.value === shell) searching.set(undefined);
    };
  }, [shell]);
  return (
    <section class="screen" role="tabpanel" aria-label={shell.title.value}>
      {useStore(searching) === shell && <Search shell={shell} />}
      <div class="place" ref={place} />
      {run.ended ? <EndOfRun run={run} /> : <Keys shell={shell} />}
    </section>
  );
}

function Search({ shell }: { shell: Shell }) {
  const input = useRef<HTMLInputElement>(null);
  const [found, setFound] = useState("");
  useEffect(() => input.current?.focus(), []);
  const close = () => {
    shell.search.clearDecorations();
    searching.set(undefined);
    shell.terminal.focus();
  };
  const find = (back: boolean, incremental = false) => {
    const text = input.current?.value ?? "";
    const decorations = { matchOverviewRuler: "#8a97a2", activeMatchColorOverviewRuler: "#0b6e7f", matchBackground: "#8a7420", activeMatchBackground: "#b58900" };
    const hit = back || incremental ? shell.search.findPrevious(text, { decorations, incremental }) : shell.search.findNext(text, { decorations });
    setFound(text === "" || hit ? "" : "Not found");
  };
  return (
    <form
      class="search"
      role="search"
      onSubmit={(e) => {
        e.preventDefault();
        find(true);
      }}
      onKeyDown={(e) => e.key === "Escape" && close()}
    >
      <input ref={input} type="search" aria-label="Search the terminal" placeholder="Search" onInput={() => find(false, true)} />
      <span class="quiet" role="status">{found}</span>
      <Button label="Earlier" onClick={() => find(true)}>↑</Button>
      <Button label="Later" onClick={() => find(false)}>↓</Button>
      <Button kind="quiet" label="Close the search" onClick={close}>×</Button>
    </form>
  );
}

const keys: [string, string, string][] = [
  ["Esc", "Escape", "\x1b"],
  ["Tab", "Tab", "\t"],
  ["⇧Tab", "Shift and Tab", "\x1b[Z"],
  ["←", "Left", "\x1b[D"],
  ["↑", "Up", "\x1b[A"],
  ["↓", "Down", "\x1b[B"],
  ["→", "Right", "\x1b[C"],
  ["^C", "Ctrl and C", "\x03"],
];

/** Keys that the keyboards of phones lack; shown where there is a touch screen. */
function Keys({ shell }: { shell: Shell }) {
  const held = useStore(shell.held);
  const hold = (key: "ctrl" | "alt") => {
    shell.held.set(held === key ? "" : key);
    shell.terminal.focus();
  };
  const application = () => shell.terminal.modes.applicationCursorKeysMode;
  const paste = () => attempt(async () => shell.paste(await pasted()));
  return (
    <div class="keys" role="toolbar" aria-label="Keys">
      <Button pressed={held === "ctrl"} onClick={() => hold("ctrl")}>Ctrl</Button>
      <Button pressed={held === "alt"} onClick={() => hold("alt")}>Alt</Button>
      {keys.map(([text, label, sequence]) => (
        <Button
          key={text}
          label={label}
          onClick={() => shell.type(application() ? sequence.replace(/\[([ABCD])$/, "O$1") : sequence)}
        >
          {text}
        </Button>
      ))}
      <Button onClick={paste}>Paste</Button>
    </div>
  );
}
