import { open } from "@troupe/client";
import { WebSocket } from "ws"; // Node 22, Deno and browsers need none

await using session = await open(process.env.TROUPE_SERVER ?? "ws://localhost:8003/ws", { WebSocket });
const build = await session.exec("for i in 1 2 3; do echo step $i; done; exit 3");
for await (const piece of build.output) process.stdout.write(piece.data);
const end = await build.wait();
console.log(`exit code ${end.exit_code}, ${end.reason}`);
