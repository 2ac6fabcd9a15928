// What a TypeScript host writes; compiled, never run.
import { binaryPath, start, type EmbedReply, type Server } from "cortex-embed";

const path: string = binaryPath();
const server: Server = await start({
  args: ["--model", "bge-small-en-v1.5"] as const,
  binary: path,
  env: { ...process.env, TMPDIR: "/tmp" },
  signal: AbortSignal.timeout(1000),
  stderr: "ignore",
  timeout: 0,
});
server.child.on("exit", (code: number | null) => console.log(code));
server.child.stderr?.on("data", (data: Buffer | string) => console.log(data));
const reply: EmbedReply = await server.embed(["a"], { mode: "query", dimensions: 8 });
const first: number[] | undefined = reply.embeddings[0];
const cut: number | undefined = reply.truncated?.[0]?.used;
const fingerprint: string | undefined = server.fingerprint;
console.log(first, cut, fingerprint, server.port + server.dimensions + server.max_tokens);
// @ts-expect-error - no such mode
await server.embed(["a"], { mode: "question" });
// @ts-expect-error - texts, not a text
await server.embed("a");
// @ts-expect-error - what it gave is not to be changed
server.port = 1;
await server.stop();
