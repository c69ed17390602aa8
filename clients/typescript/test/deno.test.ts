// The client in Deno: the quick start, and the scripts that every client passes.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { once } from "node:events";
import { join } from "node:path";
import { test } from "node:test";
import { buildTrouped, root, startTrouped } from "./support.js";

const here = join(root, "clients/typescript");
const deno = join(here, "node_modules/.bin/deno");
const skip = existsSync(deno) ? false : "there is no Deno for this platform on npm";

/** Runs Deno and returns what it printed. */
async function run(args: string[], env: Record<string, string> = {}): Promise<{ code: number; text: string }> {
  const child = spawn(deno, args, {
    cwd: here,
    env: { ...process.env, DENO_NO_UPDATE_CHECK: "1", NO_COLOR: "1", ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let text = "";
  child.stdout.on("data", (data: Buffer) => (text += data.toString()));
  child.stderr.on("data", (data: Buffer) => (text += data.toString()));
  const [code] = (await once(child, "close")) as [number];
  return { code, text };
}

test("the quick start runs in Deno", { skip, timeout: 60_000 }, async () => {
  await buildTrouped();
  const server = await startTrouped();
  try {
    const args = ["run", "--no-check", "--allow-all", "build/quickstart.js"];
    const { code, text } = await run(args, { TROUPE_SERVER: server.url });
    assert.deepEqual({ code, text }, { code: 0, text: "step 1\nstep 2\nstep 3\nexit code 3, exited\n" });
  } finally {
    await server.stop();
  }
});

test("the scripts of clients/conformance pass in Deno, with its own WebSocket", { skip, timeout: 300_000 }, async (t) => {
  const { code, text } = await run(["test", "--no-check", "--allow-all", "build/conformance.test.js"]);
  const passed = /(\d+) passed/.exec(text)?.[1];
  t.diagnostic(`${passed} scripts passed`);
  assert.ok(code === 0 && Number(passed) >= 40, text);
});
