// The client in a page of a real browser, where chromium is installed.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { accessSync } from "node:fs";
import { test } from "node:test";
import { buildTrouped, root, startTrouped } from "./support.js";

const names = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"];
const browser = names
  .flatMap((name) => (process.env.PATH ?? "").split(delimiter).map((dir) => join(dir, name)))
  .find((path) => {
    try {
      accessSync(path);
      return true;
    } catch {
      return false;
    }
  });

/** The page: it runs commands, attaches to the session again, and posts what it saw. */
const page = (url: string) => `<!doctype html><script type="module">
import { open, attach } from "/dist/index.js";
const lines = [];
try {
  const token = "correct-horse-battery-staple-1";
  const session = await open(${JSON.stringify(url)}, { token });
  const { stdout, exit_code } = await session.run("echo hello; exit 3");
  lines.push(stdout.trim(), exit_code);
  const cat = await session.exec({ argv: ["cat"], stdin: true });
  await cat.write("grün");
  const saved = await session.detach();
  const again = await attach(${JSON.stringify(url)}, saved, { token });
  const cat2 = again.executions.get(cat.id);
  await cat2.write("!");
  await cat2.closeInput();
  let text = "";
  const decoder = new TextDecoder();
  for await (const piece of cat2.output) text += decoder.decode(piece.data, { stream: true });
  lines.push(text);
  await again.close();
  await open(${JSON.stringify(url)}, { token: "wrong" }).catch((e) => lines.push(e.name));
} catch (e) {
  lines.push(String(e));
}
await fetch("/seen", { method: "POST", body: lines.join("|") });
</script>`;

test("a page runs commands", { skip: !browser && "chromium is not installed", timeout: 60_000 }, async () => {
  await buildTrouped();
  const dir = await mkdtemp(join(tmpdir(), "troupe-ts-"));
  const tokens = join(dir, "tokens");
  await writeFile(tokens, "alice correct-horse-battery-staple-1\n", { mode: 0o600 });
  let html = "";
  let seen!: (text: string) => void;
  const report = new Promise<string>((resolve) => (seen = resolve));
  const files = createServer((request, response) => {
    if (request.method === "POST") {
      let body = "";
      request.on("data", (data: Buffer) => (body += data.toString()));
      request.on("end", () => (response.end(), seen(body)));
      return;
    }
    const script = /^\/dist\/[a-z]+\.js$/.exec(request.url ?? "")?.[0];
    response.setHeader("Content-Type", script ? "text/javascript" : "text/html; charset=utf-8");
    if (!script) response.end(html);
    else void readFile(join(root, "clients/typescript", script)).then((text) => response.end(text));
  }).listen(0, "127.0.0.1");
  await once(files, "listening");
  const origin = `http://127.0.0.1:${(files.address() as AddressInfo).port}`;
  const server = await startTrouped("--auth=token", `--token-file=${tokens}`, `--allowed-origins=${origin}`);
  html = page(server.url);
  const flags = ["--headless", "--no-sandbox", "--disable-gpu", `--user-data-dir=${join(dir, "profile")}`];
  // With a port for debugging it stays until it is stopped.
  const child = spawn(browser as string, [...flags, "--remote-debugging-port=0", origin], { stdio: "ignore" });
  const exit = once(child, "exit");
  const shown = await Promise.race([report, exit.then(([code]) => `the browser exited with ${code}`)]);
  child.kill("SIGTERM");
  await exit;
  files.closeAllConnections();
  files.close();
  await server.stop();
  await rm(dir, { recursive: true });
  // Of an allowed origin the page may read why it was refused.
  assert.equal(shown, "hello|3|grün!|HandshakeError");
});
