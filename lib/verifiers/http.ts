/**
 * A verifier behind HTTP: POST { id, prompt, messages, completion, finish, row } and back { reward, reason?, detail? }.
 * A service that fails is never the answer's fault: null.
 */
import { RlsdError } from "../errors.js";
import { deadline, pause } from "./deadline.js";
import { define } from "./definition.js";
import { badVerdict, stringMap, toVerdict } from "./function.js";
import { integer, number, text } from "./options.js";
import { MOST_BYTES, sampleJson } from "./sample-json.js";
import type { Verdict } from "./verifier.js";

const readers = {
  url: text(),
  /** Sent with every request; a value "env:NAME" is read from the environment, so that no secret is written into a run. */
  headers: stringMap,
  /** For each attempt, including the body. */
  timeoutMs: integer(30_000, 1, 3_600_000),
  /** Further attempts after a failure to connect, a timeout, 408, 429 or 5xx. */
  retries: integer(2, 0, 20),
  /** Wait before the first retry; doubles each time. A Retry-After header in seconds has precedence, up to one minute. */
  backoffMs: number(250, 0, 60_000),
  /** Requests at the same time. */
  concurrency: integer(16, 1, 1024),
};

const RETRIED = new Set([408, 429]);
const MAX_WAIT_MS = 60_000;

/** The next of a queue of waiters gets a place when one is released. */
function semaphore(places: number) {
  let free = places;
  const waiting: (() => void)[] = [];
  return {
    async acquire(): Promise<void> {
      if (free > 0) free--;
      else await new Promise<void>((resolve) => waiting.push(resolve));
    },
    release(): void {
      const next = waiting.shift();
      if (next === undefined) free++;
      else next();
    },
  };
}

function resolveHeaders(headers: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(headers).map(([name, value]) => {
      if (!value.startsWith("env:")) return [name, value];
      const secret = process.env[value.slice(4)];
      if (secret !== undefined) return [name, secret];
      const message = `The header "${name}" of the verifier "http" names the environment variable ${value.slice(4)}, which is not set.`;
      throw new RlsdError("ERR_RLSD_VERIFIER_OPTION", message);
    }),
  );
}

/** The answer's text; undefined where it is longer than MOST_BYTES. */
async function textOf(response: Response): Promise<string | undefined> {
  const decoder = new TextDecoder();
  let bytes = 0;
  let read = "";
  for await (const chunk of response.body ?? []) {
    bytes += (chunk as Uint8Array).length;
    // Leaving the loop cancels the rest.
    if (bytes > MOST_BYTES) return undefined;
    read += decoder.decode(chunk as Uint8Array, { stream: true });
  }
  return read + decoder.decode();
}

type Attempt = { readonly verdict: Verdict } | { readonly failure: Verdict; readonly retryAfterMs?: number };

async function attempt(url: string, init: RequestInit, timeoutMs: number, signal: AbortSignal): Promise<Attempt> {
  using limit = deadline(signal, timeoutMs);
  try {
    const response = await fetch(url, { ...init, signal: limit.signal });
    const reply = await textOf(response);
    if (response.ok) {
      if (reply === undefined) return { verdict: badVerdict(`The answer is longer than ${MOST_BYTES} bytes`) };
      try {
        return { verdict: toVerdict(JSON.parse(reply)) };
      } catch {
        return { verdict: badVerdict(`Not JSON: ${reply.slice(0, 200)}`) };
      }
    }
    const failure = {
      reward: null,
      reason: "http",
      detail: { status: response.status, body: reply?.slice(0, 200) ?? "" },
    };
    if (response.status < 500 && !RETRIED.has(response.status)) return { verdict: failure };
    const after = Number(response.headers.get("retry-after") ?? Number.NaN);
    return Number.isFinite(after) ? { failure, retryAfterMs: Math.max(0, after * 1000) } : { failure };
  } catch (error) {
    signal.throwIfAborted();
    const cause = error instanceof Error && error.cause !== undefined ? `: ${error.cause}` : "";
    return {
      failure: { reward: null, reason: limit.late() ? "timeout" : "http", detail: { message: `${error}${cause}` } },
    };
  }
}

export const http = define({
  type: "http",
  summary: "a service of your own: POST the sample, get { reward }",
  where: "inline",
  drawnAlone: true,
  readers,
  create(options) {
    if (!URL.canParse(options.url) || !/^https?:$/.test(new URL(options.url).protocol)) {
      const message = `Expected an http or https address for option "url" of the verifier "http" but received "${options.url}".`;
      throw new RlsdError("ERR_RLSD_VERIFIER_OPTION", message);
    }
    const headers = { "content-type": "application/json", ...resolveHeaders(options.headers) };
    const places = semaphore(options.concurrency);
    return {
      async judge(sample, signal) {
        const init = { method: "POST", headers, body: sampleJson(sample) };
        await places.acquire();
        try {
          for (let tried = 0; ; tried++) {
            signal.throwIfAborted();
            const outcome = await attempt(options.url, init, options.timeoutMs, signal);
            if ("verdict" in outcome) return outcome.verdict;
            if (tried === options.retries) return outcome.failure;
            const wait = outcome.retryAfterMs ?? options.backoffMs * 2 ** tried;
            await pause(signal, Math.min(wait, MAX_WAIT_MS));
          }
        } finally {
          places.release();
        }
      },
    };
  },
});
