// What the client does with a real trouped.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { connect, type AddressInfo, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { HttpsProxyAgent } from "https-proxy-agent";
import { WebSocket } from "ws";
import * as troupe from "@troupe/client";
import { buildTrouped, call, impatient, root, startPods, startSuite, startTrouped } from "./support.js";

await buildTrouped();
const server = await startTrouped();
after(server.stop);

const package_ = join(root, "clients/typescript");

async function node(args: string[], env: Record<string, string>): Promise<string> {
  const stdio: ["ignore", "pipe", "inherit"] = ["ignore", "pipe", "inherit"];
  const child = spawn(process.execPath, args, { env: { ...process.env, ...env }, stdio });
  let text = "";
  child.stdout.on("data", (data: Buffer) => (text += data.toString()));
  const [code] = await once(child, "exit");
  assert.equal(code, 0);
  return text;
}

test("the quick start of the README runs as it is printed", async () => {
  const code = await readFile(join(package_, "test/quickstart.ts"), "utf8");
  const readme = await readFile(join(package_, "README.md"), "utf8");
  assert.ok(readme.includes(code), "README.md differs from quickstart.ts");
  const text = await node([join(package_, "build/quickstart.js")], { TROUPE_SERVER: server.url });
  assert.equal(text, "step 1\nstep 2\nstep 3\nexit code 3, exited\n");
});

test("the platform's own WebSocket is enough", async () => {
  const script = `
    const { open } = await import("@troupe/client");
    const session = await open(process.env.TROUPE_SERVER);
    const { stdout } = await session.run(["echo", "hello"]);
    await session.close();
    process.stdout.write(stdout);`;
  const old = Number(process.versions.node.split(".")[0]) < 22;
  const flags = old ? ["--experimental-websocket"] : [];
  const text = await node([...flags, "--input-type=module", "--eval", script], { TROUPE_SERVER: server.url });
  assert.equal(text, "hello\n");
});

test("a platform without a WebSocket is told what to pass", { skip: "WebSocket" in globalThis }, async () => {
  await assert.rejects(troupe.open(server.url), /this platform has no WebSocket: pass one/);
});

test("the token goes by subprotocol, and its provider is asked for every connection", async () => {
  const dir = await mkdtemp(join(tmpdir(), "troupe-ts-"));
  const file = join(dir, "tokens");
  await writeFile(file, "alice correct-horse-battery-staple-1\n", { mode: 0o600 });
  const closed = await startTrouped("--auth=token", `--token-file=${file}`);
  try {
    let calls = 0;
    const token = async () => (calls++, "correct-horse-battery-staple-1");
    await using session = await troupe.open(closed.url, { ...impatient, token });
    await session.detach();
    await using again = await troupe.attach(closed.url, session.save(), { ...impatient, token });
    assert.equal((await again.run("echo $((6 * 7))")).stdout, "42\n");
    assert.equal(calls, 2);
    await assert.rejects(troupe.open(closed.url, { ...impatient, token: "wrong" }), (e) => {
      assert.ok(e instanceof troupe.HandshakeError && e.status === 401, String(e));
      return true;
    });
  } finally {
    await closed.stop();
    await rm(dir, { recursive: true });
  }
});

test("connections go through a proxy as the README shows it", async () => {
  const tunnels: string[] = [];
  const proxy = createServer().on("connect", (request, client: Socket) => {
    tunnels.push(request.url ?? "");
    const target = connect(Number(new URL(`http://${request.url}`).port), "127.0.0.1", () => {
      client.write("HTTP/1.1 200 Connection established\r\n\r\n");
      target.pipe(client).pipe(target);
    });
    target.on("error", () => client.destroy());
    client.on("error", () => target.destroy());
  });
  await once(proxy.listen(0, "127.0.0.1"), "listening");
  const agent = new HttpsProxyAgent(`http://127.0.0.1:${(proxy.address() as AddressInfo).port}`);
  class Proxied extends WebSocket {
    constructor(url: string, protocols?: string[]) {
      super(url, protocols, { agent });
    }
  }
  const options = { ...impatient, WebSocket: Proxied as unknown as troupe.WebSocketConstructor };
  await using session = await troupe.open(server.url, options);
  assert.equal((await session.run("echo through")).stdout, "through\n");
  const saved = await session.detach();
  await using again = await troupe.attach(server.url, saved, options);
  assert.equal((await again.run("echo again")).stdout, "again\n");
  assert.deepEqual(tunnels, [server.address, server.address]);
  await again.close();
  proxy.close();
});

test("name, labels and resume window reach the server", async () => {
  const options = { ...impatient, name: "nightly", labels: { team: "build", run: "4711" }, resumeWindowSeconds: 77 };
  await using session = await troupe.open(server.url, options);
  const status = await session.status();
  assert.equal(status.name, "nightly");
  assert.deepEqual(status.labels, { team: "build", run: "4711" });
  assert.equal(status.limits.resume_window, 77);
  await assert.rejects(troupe.open(server.url, { ...impatient, name: "No!" }), (e) => {
    assert.ok(e instanceof troupe.HandshakeError && e.status === 400 && /name/.test(e.body), String(e));
    return true;
  });
});

const size = 10 << 20;
const numbers = ["sh", "-c", `seq 1 1600000 | head -c ${size}`];

function digestOfNumbers(): string {
  const text = Array.from({ length: 1_600_000 }, (_, i) => `${i + 1}\n`).join("").slice(0, size);
  return createHash("sha256").update(text).digest("hex");
}

test("10 MiB through 50 random cuts and three pods: every byte once", { timeout: 120_000 }, async (t) => {
  const suite = await startSuite();
  const { pods, stop } = await startPods(3);
  try {
    const seed = Number(process.env.SEED ?? Date.now() % 1_000_000);
    t.diagnostic(`SEED=${seed}`);
    const proxy = await call<{ address: string; url: string }>("POST", `${suite.url}/proxies`, {
      targets: pods.map((pod) => pod.address),
      cuts: 50,
      max_bytes: 350_000,
      seed,
    });
    let resumed = 0;
    const onNotice = (notice: troupe.Notice) => (resumed += notice.kind === "resumed" ? 1 : 0);
    const options = { ...impatient, onNotice, openRetryMs: 30_000 };
    await using session = await troupe.open(`ws://${proxy.address}/ws`, options);
    const want = digestOfNumbers();
    while ((await call<{ cuts: number }>("GET", proxy.url)).cuts < 50) {
      const hash = createHash("sha256");
      let bytes = 0;
      await session.run({ argv: numbers, retain: "unread" }, {
        onOutput: (piece) => (hash.update(piece.data), (bytes += piece.data.length)),
      });
      assert.equal(bytes, size);
      assert.equal(hash.digest("hex"), want);
    }
    t.diagnostic(`${resumed} resumptions`);
    assert.ok(resumed >= 40, `only ${resumed} resumptions`);
  } finally {
    await suite.stop();
    await stop();
  }
});

test("input through cuts: every byte once", { timeout: 60_000 }, async () => {
  const suite = await startSuite();
  try {
    const proxy = await call<{ address: string }>("POST", `${suite.url}/proxies`, {
      targets: [server.address],
      cuts: 30,
      max_bytes: 3000, // answers to input are short
      seed: 1,
    });
    await using session = await troupe.open(`ws://${proxy.address}/ws`, { ...impatient, openRetryMs: 30_000 });
    const sum = await session.exec({ argv: ["sha256sum"], stdin: true });
    const data = new Uint8Array(4 << 20).map((_, i) => (i * 31 + (i >> 8)) & 255);
    await new Blob([data]).stream().pipeTo(sum.stdin);
    let text = "";
    for await (const piece of sum.output) text += Buffer.from(piece.data).toString();
    assert.equal(text.split(" ")[0], createHash("sha256").update(data).digest("hex"));
  } finally {
    await suite.stop();
  }
});

setFlagsFromString("--expose-gc");
const gc = runInNewContext("gc") as () => void;

/** Bytes that are held outside and inside the heap. */
async function held(): Promise<{ buffers: number; heap: number }> {
  for (let i = 0; i < 3; i++) {
    gc(); // buffers are freed beside it
    await new Promise(setImmediate);
  }
  const { arrayBuffers, heapUsed } = process.memoryUsage();
  return { buffers: arrayBuffers, heap: heapUsed };
}

test("a slow loop holds no more than its window of output", { timeout: 60_000 }, async (t) => {
  const window = 256 << 10;
  await using session = await troupe.open(server.url, { ...impatient, window });
  const before = await held();
  const slow = await session.exec({ argv: numbers, framing: "raw" });
  const most = { buffers: 0, heap: 0 };
  let bytes = 0;
  let pieces = 0;
  for await (const piece of slow.output) {
    bytes += piece.data.length;
    if (pieces++ % 20 === 0) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      const now = await held();
      most.buffers = Math.max(most.buffers, now.buffers - before.buffers);
      most.heap = Math.max(most.heap, now.heap - before.heap);
    }
  }
  t.diagnostic(`${bytes} bytes went through a window of ${window}; held: ${JSON.stringify(most)}`);
  assert.equal(bytes, size);
  assert.ok(most.buffers < 4 * window && most.heap < 8 * window, JSON.stringify(most));
});

test("a signal that aborts cancels the command, and run rejects when its tree is dead", async () => {
  await using session = await troupe.open(server.url, impatient);
  const abort = new AbortController();
  let pid = 0;
  const run = session.run("trap '' TERM; sleep 600 & echo $!; wait; wait", {
    signal: abort.signal,
    onOutput: (piece) => {
      pid = Number(Buffer.from(piece.data).toString());
      abort.abort();
    },
  });
  await assert.rejects(run, { name: "AbortError" });
  assert.ok(pid > 0);
  assert.throws(() => process.kill(pid, 0), { code: "ESRCH" });
  await assert.rejects(session.exec("true", { signal: abort.signal }), { name: "AbortError" });
});

test("a loop over an execution whose signal aborts ends with the end", async () => {
  await using session = await troupe.open(server.url, impatient);
  const abort = new AbortController();
  const e = await session.exec("echo ready; sleep 600", { signal: abort.signal });
  for await (const _ of e.output) abort.abort();
  assert.equal((await e.wait()).reason, "canceled");
});

test("an execution that leaves its scope is cancelled", async () => {
  await using session = await troupe.open(server.url, impatient);
  let id = "";
  {
    await using e = await session.exec("yes | head -c 3000000; sleep 600");
    id = e.id;
  }
  // The end reaches a client by way of the output, and may be there before the session has noted it.
  let seen: troupe.ExecutionStatus | undefined;
  for (let i = 0; !seen?.completed && i < 100; i++) seen = (await session.status()).executions[id];
  assert.equal(seen?.completed?.reason, "canceled");
});

test("a session that leaves its scope ends on the server", async () => {
  let saved: troupe.SavedSession;
  {
    await using session = await troupe.open(server.url, impatient);
    saved = session.save();
  }
  await assert.rejects(troupe.attach(server.url, saved, impatient), troupe.NoSessionError);
});

test("pause, resume and signal", async () => {
  await using session = await troupe.open(server.url, impatient);
  const e = await session.exec("trap 'echo int; exit 7' INT; echo ready; while :; do sleep 0.05; done");
  const events: string[] = [];
  for await (const event of e.events) {
    events.push(event.type);
    if (event.type === "output" && events.filter((type) => type === "output").length === 1) {
      await e.pause();
      await e.resume();
      await e.signal("INT");
    }
  }
  assert.deepEqual(events, ["started", "output", "paused", "resumed", "output", "completed"]);
  assert.equal((await e.wait()).exit_code, 7);
});

test("a command that cannot start is a StartFailedError with the shell's code", async () => {
  await using session = await troupe.open(server.url, impatient);
  await assert.rejects(session.exec(["nosuch-command"]), (e) => {
    assert.ok(e instanceof troupe.StartFailedError && e.data.exit_code === 127, String(e));
    return true;
  });
});
