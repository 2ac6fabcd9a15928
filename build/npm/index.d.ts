import type { ChildProcess } from "node:child_process";

/**
 * Path of the executable: that of the variable CORTEX_EMBED_BINARY, or the one in this platform's
 * package (in Electron, the one that was unpacked from `app.asar`). Throws where there is none.
 */
export function binaryPath(): string;

/**
 * Start a server for this program: a free port on 127.0.0.1 and a fresh token. It ends with
 * `stop()`, or when this program ends, however that happens; it does not keep it alive.
 *
 * Rejects, with no process left, with the server's own message when it does not start (`code`
 * and `exitCode` as in `cortex-embed sidecar-schema`).
 */
export function start(options?: StartOptions): Promise<Server>;

export interface StartOptions {
  /** Arguments after `serve --sidecar`: `["--model", "bge-small-en-v1.5"]`. */
  args?: readonly string[];
  /** The executable; default: `binaryPath()`. */
  binary?: string;
  /** The server's environment; default: `process.env`. */
  env?: NodeJS.ProcessEnv;
  /** Ends the server: while it starts (`start` rejects with the reason) and afterwards. */
  signal?: AbortSignal;
  /** Where its log goes; it can also be read from `child.stderr`. Default: "inherit". */
  stderr?: "inherit" | "ignore";
  /**
   * Milliseconds without a sign of life after which the start is given up; 0 for never.
   * Default: 60,000. A download, which tells its progress, may take longer.
   */
  timeout?: number;
}

/** The fields of the `ready` event, and what can be done with the server. */
export interface Server {
  /** Base of every route: `http://127.0.0.1:PORT`. OpenAI's clients take `${url}/v1`. */
  readonly url: string;
  readonly host: string;
  readonly port: number;
  /** For `Authorization: Bearer`; absent where the arguments say who may ask. */
  readonly token?: string;
  /** The Unix socket, where `--uds` asked for one; `embed()` needs a port. */
  readonly uds?: string;
  /** The process that serves. `child` may be the one that unpacked it. */
  readonly pid: number;
  readonly version: string;
  readonly model: string;
  /** Length of a vector. */
  readonly dimensions: number;
  /** What a longer text is cut to. */
  readonly max_tokens: number;
  readonly precision: string;
  /** Identity of the vector space: store it beside the vectors. */
  readonly fingerprint?: string;
  readonly child: ChildProcess;
  /** `POST /embed`. Rejects with `status`, `code` and `param` for what the server refuses. */
  embed(texts: readonly string[], options?: EmbedOptions): Promise<EmbedReply>;
  /** End the server; resolves when its process is gone. May be called twice. */
  stop(): Promise<void>;
}

export interface EmbedOptions {
  /** Which of the model's prefixes is put before the texts; without it none. */
  mode?: "query" | "passage";
  /** Of several served models. */
  model?: string;
  /** Shorten the vectors. */
  dimensions?: number;
  /** Default: true, vectors of length 1. */
  normalize?: boolean;
  /** What happens to a text over `max_tokens`. Default: its end is cut, and reported. */
  truncate?: boolean | "start" | "end" | "none";
  signal?: AbortSignal;
}

export interface EmbedReply {
  /** One vector a text, in order. */
  embeddings: number[][];
  model: string;
  dimensions: number;
  usage: { tokens: number };
  /** Texts that were cut: of `tokens`, `used` were embedded. Absent where none was. */
  truncated?: { index: number; tokens: number; used: number }[];
}
