import { listPods, listSessions, type Pod, type SessionInfo } from "./api.js";
import { Plot, type Series } from "./plot.js";
import { Note, State, usePoll } from "./ui.js";
import { bytes, count, seconds } from "./words.js";
import { runningIn } from "./workspace.js";

const pollMs = 2000;

/** Samples that are kept: a quarter of an hour. */
const maxSamples = 450;

/** What is known about a pod at one time. */
interface Sample {
  time: number; // seconds
  pods: Map<string, PodSample>;
}

interface PodSample {
  pod: Pod;
  commands: number;
  memory: number;
  rate: number; // bytes of output per second
  refused: number; // since the sample before
  start: number; // mean seconds until a command ran, of those since the sample before
}

/** What happened to a pod. */
interface Occurrence {
  time: number;
  text: string;
}

// They outlive the page, so that its plots have no hole when somebody looks at a session meanwhile.
const samples: Sample[] = [];
const occurrences: Occurrence[] = [];
let offsets = new Map<string, number>(); // of the output of each command, at the last sample

/** Forgets them, for whoever signs out. */
export function forgetPods(): void {
  samples.length = occurrences.length = 0;
  offsets.clear();
}

/** Asks for the pods and the sessions, and adds a sample. */
async function sample(): Promise<{ pods: Pod[]; all: boolean; missing: string[] }> {
  const pods = await listPods();
  const list = await listSessions(undefined);
  const time = Date.now() / 1000;
  const before = samples.at(-1);
  const written = new Map<string, number>();
  const rates = new Map<string, number>();
  for (const s of list.sessions) {
    for (const e of s.executions) {
      const key = `${s.id} ${e.id}`;
      written.set(key, e.offset);
      rates.set(s.pod, (rates.get(s.pod) ?? 0) + Math.max(0, e.offset - (offsets.get(key) ?? e.offset)));
    }
  }
  const took = before ? time - before.time : 1;
  offsets = written;
  samples.push({
    time,
    pods: new Map(pods.map((pod) => {
      const sessions = list.sessions.filter((s) => s.pod === pod.name);
      const old = before?.pods.get(pod.name)?.pod;
      const rate = (rates.get(pod.name) ?? 0) / took;
      return [pod.name, { pod, ...held(sessions), rate, refused: refusedSince(old, pod), start: startSince(old, pod) }];
    })),
  });
  if (samples.length > maxSamples) samples.shift();
  for (const pod of pods) note(time, before?.pods.get(pod.name)?.pod, pod);
  return { pods, all: list.scope === "all", missing: (list.missing ?? []).map((m) => `${m.pod}: ${m.reason}`) };
}

/** A pod that has started anew counts from 0 again. */
function refusedSince(old: Pod | undefined, pod: Pod): number {
  const [before, now] = [old?.refused, pod.refused];
  return before === undefined || now === undefined || now < before ? 0 : now - before;
}

function startSince(old: Pod | undefined, pod: Pod): number {
  const started = (pod.started ?? 0) - (old?.started ?? pod.started ?? 0);
  return started > 0 ? ((pod.start_seconds ?? 0) - (old?.start_seconds ?? 0)) / started : 0;
}

function held(sessions: SessionInfo[]): { commands: number; memory: number } {
  const executions = sessions.flatMap((s) => s.executions);
  return {
    commands: sessions.reduce((sum, s) => sum + runningIn(s).length, 0),
    memory: executions.reduce((sum, e) => sum + (e.memory_bytes ?? 0), 0),
  };
}

const stateWords = { ready: "is ready", draining: "is draining: it opens no new sessions", dead: "is dead", unknown: "was not heard yet" };

function note(time: number, old: Pod | undefined, pod: Pod): void {
  const words: string[] = [];
  if (old?.state !== pod.state) words.push(stateWords[pod.state]);
  if (pod.sessions >= pod.max_sessions && old && old.sessions < old.max_sessions) words.push("is full: it refuses sessions");
  const refused = refusedSince(old, pod);
  if (refused > 0) words.push(`has refused ${count(refused, "session or command", "sessions or commands")}`);
  for (const text of words) occurrences.unshift({ time, text: `${pod.name} ${text}` });
  occurrences.length = Math.min(occurrences.length, 100);
}

/** The pods of the service, what they hold, and what has happened to them while this page was open. */
export function Pods() {
  const polled = usePoll(sample, pollMs, []);
  const pods = polled.value?.pods ?? [];
  const times = samples.map((s) => s.time);
  const series = (value: (p: PodSample) => number): Series[] =>
    pods.map(({ name }) => ({
      name,
      values: samples.map((s) => {
        const p = s.pods.get(name);
        return p ? value(p) : null;
      }),
    }));
  const last = samples.at(-1);
  return (
    <main class="page" tabIndex={0}>
      <header class="bar">
        <h1>Pods</h1>
        <span class="quiet" role="status">{polled.value && count(pods.length, "pod")}</span>
      </header>
      {polled.error && <Note kind={polled.value ? "warning" : "error"}>{polled.error.message}</Note>}
      {polled.value?.missing.map((text) => <Note key={text} kind="warning">{text}</Note>)}
      {polled.value && !polled.value.all && (
        <Note kind="info">Commands, output and memory are those of your own sessions: for all of them you need the verb list.</Note>
      )}
      {polled.value && (
        <>
          <div class="table-frame">
            <table>
              <thead>
                <tr>
                  <th scope="col">Pod</th>
                  <th scope="col">State</th>
                  <th scope="col" class="number">Sessions</th>
                  <th scope="col" class="roomy">Filled</th>
                  <th scope="col" class="number">Commands</th>
                  <th scope="col" class="number roomy">Output</th>
                  <th scope="col" class="number roomy">Memory</th>
                  <th scope="col" class="number roomy">Refused</th>
                </tr>
              </thead>
              <tbody>
                {pods.map((pod) => {
                  const now = last?.pods.get(pod.name);
                  return (
                    <tr key={pod.name}>
                      <th scope="row">{pod.name}{pod.self && <span class="label">answers you</span>}</th>
                      <td><State state={pod.state} /></td>
                      <td class="number">{pod.sessions} of {pod.max_sessions}</td>
                      <td class="roomy"><meter aria-label={`${pod.name}: sessions`} max={pod.max_sessions} value={pod.sessions} high={pod.max_sessions * 0.9} optimum={0} /></td>
                      <td class="number">{now?.commands}</td>
                      <td class="number roomy">{now && `${bytes(Math.round(now.rate))}/s`}</td>
                      <td class="number roomy">{now && bytes(now.memory)}</td>
                      <td class="number roomy" title="Sessions and commands, since it started">{pod.refused}</td>
                    </tr>
                  );
                })}
              </tbody>
            </table>
          </div>
          <div class="plots">
            <Plot title="Sessions" times={times} series={series((p) => p.pod.sessions)} format={whole} />
            <Plot title="Commands that run" times={times} series={series((p) => p.commands)} format={whole} />
            <Plot title="Output per second" times={times} series={series((p) => p.rate)} format={(v) => bytes(Math.round(v))} />
            <Plot title="Start of a command, mean" times={times} series={series((p) => p.start)} format={(v) => seconds(v)} />
            <Plot title="Refused sessions and commands" times={times} series={series((p) => p.refused)} format={whole} />
            <Plot title="Memory of commands" times={times} series={series((p) => p.memory)} format={(v) => bytes(Math.round(v))} />
          </div>
          <section class="occurrences">
            <h2>Since you opened this page</h2>
            <ol>
              {occurrences.map((o, i) => (
                <li key={i}><time class="quiet mono">{new Date(o.time * 1000).toLocaleTimeString("en-GB")}</time> {o.text}</li>
              ))}
            </ol>
          </section>
        </>
      )}
    </main>
  );
}

function whole(value: number): string {
  return Number.isInteger(value) ? String(value) : "";
}
