import { getEventListeners } from "node:events";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { createVerifier } from "../../lib/verifiers/registry.js";
import { judge, reward, sample } from "./support.js";

describe("http", () => {
  async function serve<T>(listener: RequestListener, use: (url: string) => Promise<T>): Promise<T> {
    const server = createServer(listener);
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    try {
      return await use(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
    } finally {
      server.closeAllConnections();
      server.close();
    }
  }

  test("sends the sample and returns the service's verdict", async () => {
    const bodies: string[] = [];
    const verdict = await serve(
      (request, response) => {
        let text = "";
        request.on("data", (chunk) => {
          text += chunk;
        });
        request.on("end", () => {
          bodies.push(text);
          response.end(JSON.stringify({ reward: 0.5, detail: { token: request.headers.authorization } }));
        });
      },
      (url) => {
        process.env.RLSD_TEST_TOKEN = "secret";
        return judge({ type: "http", url, headers: { authorization: "env:RLSD_TEST_TOKEN" } }, "x", { big: 2n ** 60n });
      },
    );
    expect(verdict).toEqual({ reward: 0.5, detail: { token: "secret" } });
    expect(JSON.parse(bodies[0]!)).toMatchObject({ completion: "x", row: { big: "1152921504606846976" } });
  });

  test("tries again after a failure and gives up with null, never 0", async () => {
    let calls = 0;
    const failing: RequestListener = (_, response) => {
      calls++;
      response.writeHead(calls < 3 ? 503 : 200).end(calls < 3 ? "" : '{"reward": 1}');
    };
    await serve(failing, async (url) => {
      expect(await reward({ type: "http", url, backoffMs: 1 }, "x")).toBe(1);
      calls = 0;
      expect(await judge({ type: "http", url, backoffMs: 1, retries: 1 }, "x")).toMatchObject({
        reward: null,
        reason: "http",
      });
      expect(calls).toBe(2);
    });
  });

  test("samples that wait for another try are one listener of the run's signal, and end with it", async () => {
    const controller = new AbortController();
    const { signal } = controller;
    let calls = 0;
    const failing: RequestListener = (_, response) => {
      calls++;
      response.writeHead(503).end();
    };
    await serve(failing, async (url) => {
      const verifier = createVerifier({ type: "http", url, backoffMs: 60_000, retries: 1 });
      const waiting = Array.from({ length: 12 }, (_, i) => verifier.verify(sample(String(i)), signal));
      const ended = Promise.allSettled(waiting);
      while (calls < 12) await new Promise((resolve) => setTimeout(resolve, 5));
      // All have had their answer, or will find the signal aborted.
      await new Promise((resolve) => setTimeout(resolve, 100));
      expect(getEventListeners(signal, "abort").length).toBeLessThan(3);
      controller.abort(new Error("enough"));
      expect(await ended).toEqual(waiting.map(() => ({ status: "rejected", reason: new Error("enough") })));
    });
    expect(calls).toBe(12);
  });

  test("does not repeat what can only fail again", async () => {
    let calls = 0;
    const refuse: RequestListener = (_, response) => {
      calls++;
      response.writeHead(400).end("no");
    };
    await serve(refuse, async (url) => {
      expect(await judge({ type: "http", url, backoffMs: 1 }, "x")).toMatchObject({
        reward: null,
        detail: { status: 400 },
      });
    });
    expect(calls).toBe(1);
  });

  test("a service that does not answer, or answers nonsense, is null", async () => {
    await serve(
      () => {},
      async (url) => {
        const spec = { type: "http", url, timeoutMs: 30, retries: 0 };
        expect(await judge(spec, "x")).toMatchObject({ reward: null, reason: "timeout" });
      },
    );
    await serve(
      (_, response) => void response.end("<html>"),
      async (url) =>
        expect(await judge({ type: "http", url }, "x")).toMatchObject({ reward: null, reason: "bad-verdict" }),
    );
    // An answer without an end is left off, in time and in memory.
    let sent = 0;
    await serve(
      (_, response) => {
        const block = Buffer.alloc(1 << 16, " ");
        const more = () => {
          while (!response.destroyed && response.write(block)) sent += block.length;
        };
        response.on("drain", more);
        more();
      },
      async (url) =>
        expect(await judge({ type: "http", url }, "x")).toMatchObject({
          reward: null,
          detail: { message: "The answer is longer than 1048576 bytes" },
        }),
    );
    expect(sent).toBeLessThan(64 << 20);
    const closed = { type: "http", url: "http://127.0.0.1:1/", retries: 0 };
    expect(await judge(closed, "x")).toMatchObject({ reward: null, reason: "http" });
  });
});
