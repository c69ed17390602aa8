// Prints the rate of output through the client, and that of the bare WebSocket of the platform in the same run.
import { open } from "@troupe/client";
import { WebSocket } from "ws";
import { buildTrouped, socket, startSuite, startTrouped } from "./support.js";

const bytes = 256 << 20;
const rounds = 5;

/** Runs `receive` and returns MB/s. */
async function rate(receive: () => Promise<number>): Promise<number> {
  const began = performance.now();
  const got = await receive();
  if (got !== bytes) throw new Error(`${got} bytes arrived, want ${bytes}`);
  return bytes / 1000 / (performance.now() - began);
}

const argv = ["head", "-c", String(bytes), "/dev/zero"];

/** What `ws` receives from a server that sends the bytes from memory. */
function floor(url: string): Promise<number> {
  return new Promise((resolve, reject) => {
    let n = 0;
    const ws = new WebSocket(url);
    ws.binaryType = "arraybuffer";
    ws.onmessage = (event) => (n += (event.data as ArrayBuffer).byteLength);
    ws.onerror = () => reject(new Error("the bare WebSocket failed"));
    ws.onclose = () => resolve(n);
  });
}

/** What `ws` receives from trouped, with no more on top than counting and an ack for each half of a window. */
function bare(url: string): Promise<number> {
  return new Promise((resolve, reject) => {
    let n = 0;
    let acked = 0;
    const ws = new WebSocket(`${url}?frames=binary`);
    ws.binaryType = "arraybuffer";
    const send = (method: string, params: unknown, id?: number) =>
      ws.send(JSON.stringify({ jsonrpc: "2.0", method, params, ...(id && { id }) }));
    ws.onopen = () =>
      send("execute", { argv, execution_id: "bare", retain: "unread", framing: "raw", window: 1 << 20 }, 1);
    ws.onmessage = ({ data }) => {
      if (typeof data === "string") {
        if (data.includes('"process.completed"')) ws.close(1000);
        return;
      }
      n += (data as ArrayBuffer).byteLength - 12;
      if (n - acked >= 1 << 19) send("ack", { execution_id: "bare", offset: (acked = n) });
    };
    ws.onerror = () => reject(new Error("the bare WebSocket failed"));
    ws.onclose = () => resolve(n);
  });
}

const median = (all: number[]) => all.toSorted((a, b) => a - b)[Math.floor(all.length / 2)] as number;

await buildTrouped();
const suite = await startSuite();
const server = await startTrouped();
const session = await open(server.url, { WebSocket: socket });
const client = async () => {
  let n = 0;
  const onOutput = ({ data }: { data: Uint8Array }) => (n += data.length);
  await session.run({ argv, retain: "unread" }, { onOutput });
  return n;
};
const rates = { floor: [] as number[], bare: [] as number[], client: [] as number[] };
for (let i = 0; i < rounds; i++) {
  rates.floor.push(await rate(() => floor(`${suite.url.replace("http", "ws")}/bare/${bytes}`)));
  rates.bare.push(await rate(() => bare(server.url)));
  rates.client.push(await rate(client));
}
await session.close();
await server.stop();
await suite.stop();
const [f, b, c] = [median(rates.floor), median(rates.bare), median(rates.client)];
console.log(`@troupe/client: ${c.toFixed(0)} MB/s of output`);
console.log(`bare ws on the same server: ${b.toFixed(0)} MB/s, ratio ${(c / b).toFixed(2)}`);
console.log(`bare ws on a server that sends from memory: ${f.toFixed(0)} MB/s`);
