import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createVerifier } from "../../lib/verifiers/registry.js";
import { startVerifier } from "../../lib/verifiers/start.js";
import { disposeMade, fixture, harness, never, sample, until } from "./support.js";

afterEach(disposeMade);

describe("a verifier that cannot start is an error, not a reward", () => {
  test("a file that is not there, when the verifier is made", () => {
    expect(() => createVerifier({ type: "module", path: "./no-such-file.mjs" })).toThrow(
      expect.objectContaining({
        code: "ERR_RLSD_VERIFIER_MODULE",
        message: expect.stringContaining("no-such-file.mjs"),
      }),
    );
  });

  test("an export that is no function", async () => {
    const verdict = harness({ export: "notAFunction" }).verify(sample("x"), never);
    await expect(verdict).rejects.toMatchObject({ code: "ERR_RLSD_VERIFIER_MODULE" });
  });

  test("a module that fails when it is loaded is named", async () => {
    const path = join(mkdtempSync(join(tmpdir(), "rlsd-module-")), "broken file.mjs");
    const broken: [string, string][] = [
      ['\nthrow new Error("boom");', `Error: boom (${path}:2:7)`],
      ['throw "a text";', "a text"],
    ];
    for (const [source, why] of broken) {
      writeFileSync(path, source);
      await expect(harness({ path }).verify(sample("x"), never)).rejects.toMatchObject({
        code: "ERR_RLSD_VERIFIER_MODULE",
        message: `The module ${path} could not be loaded: ${why}`,
      });
    }
  });

  test("a module that its options break says where", async () => {
    const path = join(mkdtempSync(join(tmpdir(), "rlsd-module-")), "options.mjs");
    writeFileSync(path, "export const verify = (options) => options.of.nothing;");
    await expect(harness({ path, options: {} }).start?.()).rejects.toMatchObject({
      code: "ERR_RLSD_VERIFIER_MODULE",
      message: expect.stringMatching(
        /^"verify" of .*, called with its options, threw TypeError: .*options\.mjs:1:\d+\)\.$/,
      ),
    });
  });

  test("a worker that dies before it is ready, after three attempts", async () => {
    const verifier = harness({ path: fixture("never-starts.mjs") });
    await expect(verifier.verify(sample("x"), never)).rejects.toMatchObject({ code: "ERR_RLSD_VERIFIER_START" });
    expect(verifier.stats.workersStarted).toBe(3);
  });
});

describe("start", () => {
  test("says what a module took too much of", async () => {
    const message = (text: string) => ({ code: "ERR_RLSD_VERIFIER_START", message: expect.stringContaining(text) });
    const slow = harness({ path: fixture("never-ready.mjs"), startMs: 300 });
    await expect(slow.start?.()).rejects.toMatchObject(
      message('was not ready within 0.3 s: expected a module that loads sooner, or a larger "startMs"'),
    );
    const large = join(mkdtempSync(join(tmpdir(), "rlsd-module-")), "large.mjs");
    writeFileSync(large, "globalThis.kept = Buffer.alloc(3e8, 1); await new Promise((go) => setTimeout(go, 60_000));");
    await expect(harness({ path: large, memoryMb: 200 }).start?.()).rejects.toMatchObject(
      message('took more than 200 MiB before it was ready: expected less, or a larger "memoryMb"'),
    );
  });

  test("has a worker ready before the first sample, also when asked twice, and then does nothing", async () => {
    const verifier = harness();
    await Promise.all([verifier.start?.(), verifier.start?.()]);
    expect(verifier.stats).toMatchObject({ workersStarted: 1, workersAlive: 1, judged: 0 });
    await verifier.start?.();
    expect((await verifier.verify(sample("x", { answer: "x" }), never)).reward).toBe(1);
    expect(verifier.stats).toMatchObject({ workersStarted: 1, judged: 1 });
  });

  test("rejects with what keeps the worker from starting, and leaves none behind", async () => {
    const verifier = harness({ export: "constant" });
    await expect(verifier.start?.()).rejects.toMatchObject({ code: "ERR_RLSD_VERIFIER_MODULE" });
    await until(() => verifier.stats.workersAlive === 0);
    expect(verifier.stats.workersStarted).toBe(1);
  });

  test("of a sum and of a gate starts every part", async () => {
    const [good, bad] = [harness(), harness({ export: "constant" })];
    await expect(createVerifier({ type: "sum", parts: [{ verifier: good, name: "a" }] }).start?.()).resolves.toBe(
      undefined,
    );
    expect(good.stats.workersAlive).toBe(1);
    await expect(createVerifier({ type: "gate", gate: good, verifier: bad }).start?.()).rejects.toThrow("constant");
  });

  test("that still waits rejects when the verifier is disposed of", async () => {
    const verifier = harness();
    const started = verifier.start?.();
    const rejected = expect(started).rejects.toMatchObject({ code: "ERR_RLSD_DISPOSED" });
    await verifier.dispose?.();
    await rejected;
    await expect(verifier.start?.()).rejects.toMatchObject({ code: "ERR_RLSD_DISPOSED" });
  });

  test("of a worker that never becomes ready rejects when the signal aborts, and leaves none behind", async () => {
    const parts = [1, 2].map(() => harness({ path: fixture("never-ready.mjs"), startMs: 600_000 }));
    const [alone, part] = parts;
    const sum = createVerifier({ type: "sum", parts: [{ verifier: part, name: "a" }] });
    const controller = new AbortController();
    const started = [alone!, sum].map((verifier) => verifier.start?.(controller.signal));
    controller.abort(new Error("enough"));
    for (const start of started) await expect(start).rejects.toThrow("enough");
    await until(() => parts.every((verifier) => verifier.stats.workersAlive === 0));
    await expect(alone!.start?.(controller.signal)).rejects.toThrow("enough");
    expect(alone!.stats.workersStarted).toBe(1);
  });

  test("that is aborted takes no worker from another that waits", async () => {
    const verifier = harness();
    const controller = new AbortController();
    const [aborted, other] = [verifier.start?.(controller.signal), verifier.start?.()];
    controller.abort(new Error("enough"));
    await expect(aborted).rejects.toThrow("enough");
    await other;
    expect(verifier.stats).toMatchObject({ workersStarted: 1, workersAlive: 1 });
  });

  test("of a caller's own verifier ends with the signal, though it knows none", async () => {
    const own = { start: () => new Promise<void>(() => {}), verify: async () => ({ reward: 1 }) };
    const controller = new AbortController();
    const started = startVerifier(own, controller.signal);
    controller.abort(new Error("enough"));
    await expect(started).rejects.toThrow("enough");
  });
});
