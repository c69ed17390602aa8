import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { createInterface } from "node:readline";
import { WebSocket } from "ws";
import type { Options, WebSocketConstructor } from "@troupe/client";

/** The repository. */
export const root = fileURLToPath(new URL("../../../", import.meta.url));

/** Node 20 has no WebSocket, so tests that need none in particular use that of `ws`; Deno has its own. */
const native = (globalThis as { Deno?: unknown; WebSocket?: unknown }).Deno ? globalThis.WebSocket : undefined;
export const socket = (native ?? WebSocket) as unknown as WebSocketConstructor;

/** Reconnects at once, so that tests do not wait. */
export const impatient: Options = { WebSocket: socket, backoff: { initialMs: 1, maxMs: 10 } };

/** Builds a program of the repository, and returns where it is. */
export async function build(name: string): Promise<string> {
  const path = `${root}clients/typescript/build/${name.split("/").pop()}`;
  const child = spawn("go", ["build", "-o", path, `./${name}`], { cwd: root, stdio: ["ignore", "inherit", "inherit"] });
  const [code] = await once(child, "exit");
  if (code !== 0) throw new Error(`go build ./${name} failed`);
  return path;
}

/** Starts the server of the conformance suite, which ends with this process, and returns its URL. */
export async function startSuite(): Promise<{ url: string; stop: () => Promise<void> }> {
  const child = spawn(await build("clients/conformance/testserver"), { stdio: ["pipe", "pipe", "inherit"] });
  const url = await firstLine(child);
  return { url, stop: () => ended(child, () => child.stdin?.end()) };
}

export interface Trouped {
  /** host:port */
  address: string;
  url: string;
  /** Its process. */
  child: ChildProcess;
  stop: () => Promise<void>;
}

/** Builds trouped and its runner. */
export async function buildTrouped(): Promise<void> {
  await build("cmd/troupe-runner");
  await build("cmd/trouped");
}

/** Starts trouped on loopback. Without `--listen` it chooses a port. */
export async function startTrouped(...args: string[]): Promise<Trouped> {
  const dir = await mkdtemp(join(tmpdir(), "troupe-ts-"));
  const child = spawn(
    join(root, "clients/typescript/build/trouped"),
    ["--listen=127.0.0.1:0", "--admin-listen=", "--log-format=json", "--cancel-grace=1s", `--data-dir=${dir}`, ...args],
    { stdio: ["ignore", "ignore", "pipe"] },
  );
  const lines = createInterface({ input: child.stderr });
  let log = "";
  for await (const line of lines) {
    log += `${line}\n`;
    const ready = /"msg":"ready".*"listen":"([^"]+)"/.exec(line);
    if (!ready) continue;
    child.stderr.resume();
    const address = ready[1] as string;
    const stop = async () => {
      await ended(child, () => child.kill("SIGTERM") && child.kill("SIGTERM")); // the second does not wait
      await rm(dir, { recursive: true, force: true });
    };
    return { address, url: `ws://${address}/ws`, child, stop };
  }
  throw new Error(`trouped did not start: ${log}`);
}

/** Starts several trouped that are one service. */
export async function startPods(n: number): Promise<{ pods: Trouped[]; stop: () => Promise<void> }> {
  const ports = await freePorts(n);
  const peers = ports.map((port, i) => `pod-${i}=127.0.0.1:${port}`).join(",");
  const start = (port: number, i: number) =>
    startTrouped(`--pod=pod-${i}`, `--peers=${peers}`, "--peer-insecure", `--peer-listen=127.0.0.1:${port}`);
  const pods = await Promise.all(ports.map(start));
  return { pods, stop: async () => void (await Promise.all(pods.map((pod) => pod.stop()))) };
}

async function freePorts(n: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: n }, async () => {
      const server = createServer().listen(0, "127.0.0.1");
      await once(server, "listening");
      return server;
    }),
  );
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  for (const server of servers) server.close();
  return ports;
}

async function firstLine(child: ChildProcess): Promise<string> {
  if (!child.stdout) throw new Error("no stdout");
  const lines = createInterface({ input: child.stdout });
  for await (const line of lines) return line;
  throw new Error("the program has printed nothing");
}

async function ended(child: ChildProcess, stop: () => void): Promise<void> {
  if (child.exitCode !== null) return;
  const exit = once(child, "exit");
  stop();
  await exit;
}

/** Resolves a request of a test's control API, or throws what it answers. */
export async function call<T>(method: string, url: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  const init: RequestInit = { method, signal: signal ?? null };
  if (body !== undefined) init.body = JSON.stringify(body);
  const answer = await fetch(url, init);
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${method} ${url}: ${answer.status} ${text}`);
  return JSON.parse(text) as T;
}

/** The bytes of a range of the suite's transcript. */
export function fill(from: number, to: number): Uint8Array {
  const data = new Uint8Array(to - from);
  for (let p = from; p < to; p++) data[p - from] = 33 + ((p + Math.floor(p / 256) * 7) % 94);
  return data;
}
