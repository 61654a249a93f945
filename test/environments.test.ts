import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Environment, Turn } from "../lib/environments/environment.js";
import { createEnvironment, type EnvironmentSpec } from "../lib/environments/registry.js";

const turn = (o: Partial<Turn> = {}): Turn => ({
  id: "0#0",
  turn: 1,
  messages: [
    { role: "user", content: "?" },
    { role: "assistant", content: "a" },
  ],
  completion: "a",
  raw: "a",
  row: { answer: "3" },
  state: undefined,
  ...o,
});
const signal = new AbortController().signal;
const silent = { messages: [], reward: 0, detail: {} };

function moduleFile(source: string): string {
  const file = join(mkdtempSync(join(tmpdir(), "rlsd-environment-")), "environment.mjs");
  writeFileSync(file, source);
  return file;
}

/** Answers one turn, and is gone. */
async function respondOnce(spec: Parameters<typeof createEnvironment>[0], given = turn()) {
  const environment = createEnvironment(spec);
  try {
    await environment.start();
    return await environment.respond(given, signal);
  } finally {
    await environment.dispose();
  }
}

describe("a function as an environment", () => {
  test.each<[string, unknown, unknown]>([
    ["nothing", undefined, { ...silent, state: 7 }],
    ["null", null, { ...silent, state: 7 }],
    ["a text", "Sure?", { ...silent, messages: [{ role: "user", content: "Sure?" }], state: 7 }],
    ["messages", [{ role: "tool", content: "3" }], { ...silent, messages: [{ role: "tool", content: "3" }], state: 7 }],
    [
      "a reply",
      { messages: "Sure?", state: { n: 1 }, reward: 0.5, detail: { hit: true } },
      { messages: [{ role: "user", content: "Sure?" }], state: { n: 1 }, reward: 0.5, detail: { hit: true } },
    ],
    ["a reply that forgets", { state: null }, { ...silent, state: null }],
  ])("returns %s", async (_, returned, reply) => {
    expect(await respondOnce(() => returned as never, turn({ state: 7 }))).toEqual(reply);
  });

  test.each<[string, unknown, RegExp]>([
    ["a number", 3, /a text or a list of \{ role, content \} but the environment returned 3/],
    ["a message without a role", [{ content: "a" }], /both texts, as message 1/],
    ["words of the assistant", [{ role: "assistant", content: "a" }], /somebody else than the assistant/],
    ["a reward that is none", { reward: Number.NaN }, /a finite number as reward/],
    ["a misspelt field", { message: "a" }, /messages, state, reward and detail alone/],
    ["a state that is no data", { state: { n: 1n } }, /plain data/],
    ["an infinite reward", { reward: Infinity }, /a finite number as reward but the environment returned Infinity/],
    ["a Map", new Map([["messages", "a"]]), /a reply in plain data but the environment returned a Map\./],
    ["a date", new Date(0), /but the environment returned a Date\./],
    ["an error", new RangeError("no"), /but the environment returned a RangeError\./],
    ["a class with nothing of its own", new (class Game {})(), /but the environment returned a Game\./],
    ["a state with a Map", { state: { seen: new Map() } }, /returned a Map as "seen", of which JSON holds nothing/],
    ["a state that was not awaited", { state: Promise.resolve(1) }, /returned a Promise as "state"/],
    ["a state with no number", { state: { best: [-Infinity] } }, /returned -Infinity as "0", which JSON has not/],
    ["a detail of a class", { detail: new Map() }, /an object as detail but the environment returned a Map/],
    ["a detail that is none", { detail: 3 }, /an object as detail/],
    ["a list as detail", { detail: [3] }, /an object as detail/],
    ["what becomes something else as JSON", [{ role: "user", content: "a", toJSON: () => 5 }], /plain data/],
    ["a detail that becomes something else as JSON", { detail: { toJSON: () => 5 } }, /plain data/],
    [
      "what cannot be read",
      {
        get messages() {
          throw new Error("no");
        },
      },
      /plain data/,
    ],
    ["what has no text", Object.assign(Object.create(null), { reward: Object.create(null) }), /a finite number/],
  ])("that returns %s has not answered", async (_, returned, message) => {
    const reply = await respondOnce(() => returned as never);
    expect(reply).toEqual({ fault: { reason: "bad-reply", detail: { message: expect.stringMatching(message) } } });
  });

  test("may return what has fields of its own, and details that JSON has not", async () => {
    class Told {
      readonly messages = "Sure?";
      readonly state = { at: new Date(0) };
      readonly detail = { loss: Number.NaN, seen: new Map() };
    }
    expect(await respondOnce(() => new Told())).toEqual({
      messages: [{ role: "user", content: "Sure?" }],
      state: { at: "1970-01-01T00:00:00.000Z" },
      reward: 0,
      detail: { loss: null, seen: {} },
    });
  });

  test("that throws, or rejects, has not answered", async () => {
    const thrown = await respondOnce(() => {
      throw new Error("no game");
    });
    expect(thrown).toEqual({ fault: { reason: "error", detail: { message: "Error: no game" } } });
    expect(await respondOnce(async () => Promise.reject(new Error("no game")))).toEqual(thrown);
    const without = await respondOnce(() => {
      throw Object.create(null);
    });
    expect(without).toEqual({ fault: { reason: "error", detail: { message: "something without a text" } } });
  });

  test("is told when nobody waits any more", async () => {
    const stop = new AbortController();
    let heard: AbortSignal | undefined;
    const environment = createEnvironment((_, own) => {
      heard = own;
      return new Promise(() => {});
    });
    const waits = environment.respond(turn(), stop.signal);
    stop.abort(new Error("enough"));
    await expect(waits).rejects.toThrow("enough");
    expect(heard?.aborted).toBe(true);
  });

  test("what it keeps is a copy", async () => {
    const state = { n: 1 };
    const reply = await respondOnce(() => ({ state }));
    state.n = 2;
    expect(reply).toMatchObject({ state: { n: 1 } });
  });
});

describe("an environment of one's own", () => {
  const own = (respond: (given: Turn) => unknown) =>
    ({ tools: [], start: async () => {}, respond, dispose: async () => {} }) as unknown as Environment;

  test.each<[string, (given: Turn) => unknown, unknown]>([
    ["a checked reply", ({ state }) => ({ ...silent, state }), { ...silent, state: 7 }],
    ["a text", () => "Sure?", { ...silent, messages: [{ role: "user", content: "Sure?" }], state: 7 }],
    ["nothing", () => undefined, { ...silent, state: 7 }],
    [
      "a turn as it understood it",
      () => ({ turn: { role: "assistant", content: "b" } }),
      { ...silent, state: 7, turn: { role: "assistant", content: "b" } },
    ],
    ["a fault", () => ({ fault: { reason: "down", detail: {} } }), { fault: { reason: "down", detail: {} } }],
    ["no reply", () => 3, { fault: { reason: "bad-reply", detail: { message: expect.stringMatching(/returned 3/) } } }],
    [
      "a turn of somebody else",
      () => ({ turn: { role: "user", content: "b" } }),
      {
        fault: { reason: "bad-reply", detail: { message: expect.stringMatching(/of the assistant as turn .*"user"/) } },
      },
    ],
    [
      "no reward",
      () => ({ reward: "1", turn: { role: "assistant", content: "b" } }),
      { fault: { reason: "bad-reply", detail: expect.anything() } },
    ],
    [
      "a rejection",
      () => Promise.reject(new Error("no game")),
      { fault: { reason: "error", detail: { message: "Error: no game" } } },
    ],
    [
      "a rejection with what has no text",
      () => Promise.reject(Object.create(null)),
      { fault: { reason: "error", detail: { message: "something without a text" } } },
    ],
  ])("returns %s", async (_, respond, reply) => {
    expect(await respondOnce(own(respond), turn({ state: 7 }))).toEqual(reply);
  });

  test("that rejects because nobody asks any more has no fault", async () => {
    const stop = new AbortController();
    const environment = createEnvironment(
      own(async () => {
        stop.abort(new Error("enough"));
        throw new Error("late");
      }),
    );
    await expect(environment.respond(turn(), stop.signal)).rejects.toThrow("enough");
  });
});

const CALL = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>';
const ADD = {
  description: "Adds two numbers.",
  parameters: { type: "object", properties: { a: { type: "number" }, b: { type: "number" } }, required: ["a", "b"] },
};
const result = (content: string, i = 0) => ({ role: "tool", name: "add", tool_call_id: `call0000${i}`, content });

describe("tools as an environment", () => {
  const add = { ...ADD, call: ({ a, b }: { a: number; b: number }) => a + b };
  const answers = async (raw: string, call: (given: never, context: never) => unknown = add.call, o: object = {}) =>
    respondOnce({ type: "tools", tools: { add: { ...ADD, call } }, ...o }, turn({ raw }));

  test("answer the calls of a turn, each by its own number", async () => {
    expect(await answers(`So: ${CALL}${CALL}`)).toEqual({
      messages: [result("3"), result("3", 1)],
      state: { calls: 2, failedCalls: 0 },
      detail: { calls: 2, failedCalls: 0 },
      reward: 0,
      turn: {
        role: "assistant",
        content: "So:",
        tool_calls: [0, 1].map((i) => ({
          id: `call0000${i}`,
          type: "function",
          function: { name: "add", arguments: { a: 1, b: 2 } },
        })),
      },
    });
  });

  test("have nothing to say to a turn without one", async () => {
    expect(await answers("It is 3.")).toMatchObject({ messages: [], detail: { calls: 0 } });
  });

  test.each<[string, unknown, string]>([
    ["a text as it is", "three", "three"],
    ["anything else as JSON", { sum: [3] }, '{"sum":[3]}'],
    ["nothing as null", undefined, "null"],
    ["a promise's value", Promise.resolve(3), "3"],
    ["no number by its name", -1 / 0, "-Infinity"],
  ])("return %s", async (_, returned, content) => {
    expect(await answers(CALL, () => returned)).toMatchObject({ messages: [{ content }], detail: { failedCalls: 0 } });
  });

  test.each<[string, string, string]>([
    ["no such tool", CALL.replace("add", "ad"), 'Error: there is no tool "ad": did you mean "add"?'],
    ["no tool at all like it", CALL.replace("add", "multiply"), 'Error: there is no tool "multiply", only add'],
    [
      "a missing argument",
      CALL.replace(', "b": 2', ""),
      "Error: the arguments do not fit: the object must have required property 'b'",
    ],
    ["an argument of another type", CALL.replace("2", '"2"'), "Error: the arguments do not fit: /b must be number"],
    ["no call", "<tool_call>add</tool_call>", "Error: the call cannot be read: it is not JSON"],
  ])("tell the model of %s, and are not called", async (_, raw, content) => {
    const call = jest.fn();
    expect(await answers(raw, call)).toMatchObject({
      messages: [{ content: expect.stringContaining(content) }],
      detail: { calls: 1, failedCalls: 1 },
    });
    expect(call).not.toHaveBeenCalled();
  });

  test("tell the model what a tool throws, and that one does not answer", async () => {
    const thrown = () => {
      throw new Error("division by zero");
    };
    expect(await answers(CALL, thrown)).toMatchObject({ messages: [result("Error: division by zero")] });
    const late = await answers(CALL, () => new Promise(() => {}), { deadlineMs: 20 });
    expect(late).toMatchObject({ messages: [result("Error: the tool did not answer within 0.02 s")] });
    const circle: Record<string, unknown> = {};
    circle.circle = circle;
    expect(await answers(CALL, () => circle)).toMatchObject({
      messages: [{ content: expect.stringMatching(/circular/) }],
    });
  });

  test("say that a long result was cut", async () => {
    const reply = await answers(CALL, () => "x".repeat(100), { maxCharacters: 10 });
    expect(reply).toMatchObject({ messages: [result("xxxxxxxxxx\n... (90 characters left out)")] });
    const whole = await answers(CALL, () => "x\u{1f600}y", { maxCharacters: 2 });
    expect(whole).toMatchObject({ messages: [result("x\n... (3 characters left out)")] });
    const throwing = () => {
      throw new Error("x".repeat(100));
    };
    const thrown = await answers(CALL, throwing, { maxCharacters: 20 });
    expect(thrown).toMatchObject({ messages: [result("Error: xxxxxxxxxxxxx\n... (87 characters left out)")] });
    const unknown = await answers(CALL.replace("add", "z".repeat(1000)), add.call, { maxCharacters: 30 });
    expect(unknown).toMatchObject({
      messages: [{ content: expect.stringMatching(/^Error: there is no tool "zzzzz\n/) }],
    });
  });

  test.each([
    ["a Map", new Map(), "a Map"],
    ["an error that it did not throw", { error: new TypeError("no") }, 'a TypeError as "error"'],
  ])("tell the model of %s that it returns", async (_, returned, what) => {
    const content = `Error: the tool returned ${what}, of which JSON holds nothing`;
    const reply = { messages: [result(content)], detail: { failedCalls: 1 } };
    expect(await answers(CALL, () => returned)).toMatchObject(reply);
  });

  test("tell the model of what a tool throws that has no text", async () => {
    const reply = await answers(CALL, () => {
      throw Object.create(null);
    });
    expect(reply).toMatchObject({ messages: [result("Error: something without a text")] });
  });

  test("make no more than 32 calls of a turn", async () => {
    const call = jest.fn(() => 3);
    const reply = await answers(CALL.repeat(40), call);
    expect(call).toHaveBeenCalledTimes(32);
    expect(reply).toMatchObject({ detail: { calls: 40, failedCalls: 8 } });
    expect("messages" in reply && reply.messages[32]!.content).toBe("Error: a turn makes at most 32 calls");
  });

  test("tell the model that too many wait", async () => {
    const path = moduleFile(
      `export const add = { description: "Adds.", call: () => new Promise((done) => setTimeout(done, 200, 3)) };`,
    );
    const raw = '<tool_call>{"name": "add"}</tool_call>'.repeat(20);
    const reply = await respondOnce({ type: "tools", path, workers: 1, maxQueue: 4 }, turn({ raw }));
    const said = "messages" in reply ? reply.messages.map(({ content }) => content) : [];
    expect(said[0]).toBe("3");
    expect(said.at(-1)).toMatch(/^Error: 4 samples are waiting for the environment/);
  });

  test("are given the row", async () => {
    const reply = await answers(CALL, (_: never, { row }: { row: { answer: string } }) => row.answer);
    expect(reply).toMatchObject({ messages: [result("3")] });
  });
});

describe("a module as an environment", () => {
  test("answers in a worker, keeps what it is given, and is made with options", async () => {
    const path = moduleFile(`
      export const respond = ({ turn, state, row }) => ({ messages: "again", state: (state ?? 0) + turn, reward: Number(row.answer) });
      export const make = (options) => () => options;`);
    const first = await respondOnce({ type: "module", path }, turn({ turn: 2, state: 5 }));
    expect(first).toEqual({ messages: [{ role: "user", content: "again" }], state: 7, reward: 3, detail: {} });
    const second = await respondOnce({ type: "module", path, export: "make", options: "hello" });
    expect(second).toMatchObject({ messages: [{ role: "user", content: "hello" }] });
  });

  test("that hangs, crashes or throws has not answered, and the next turn is", async () => {
    const path = moduleFile(`
      export const respond = ({ completion }) => {
        if (completion === "hang") for (;;);
        if (completion === "exit") process.exit(3);
        if (completion === "throw") throw new Error("no game");
        if (completion === "throw nothing") throw Object.create(null);
        const returned = { function: () => 1, map: new Map(), nan: { reward: NaN }, best: { state: { best: Infinity } } };
        return returned[completion] ?? "again";
      };`);
    const environment = createEnvironment({ type: "module", path, deadlineMs: 500, workers: 1 });
    const of = (completion: string) => environment.respond(turn({ completion }), signal);
    try {
      expect(await Promise.all(["hang", "a", "exit", "throw", "throw nothing"].map(of))).toMatchObject([
        { fault: { reason: "timeout", detail: { deadlineMs: 500 } } },
        { messages: [{ content: "again" }] },
        { fault: { reason: "crash" } },
        { fault: { reason: "error", detail: { message: expect.stringMatching(/^Error: no game/) } } },
        { fault: { reason: "error", detail: { message: "something without a text" } } },
      ]);
      // What a worker cannot send is no answer of nothing, and is told as what it was.
      const bad = (message: RegExp) => ({
        fault: { reason: "bad-reply", detail: { message: expect.stringMatching(message) } },
      });
      expect(await Promise.all(["function", "map", "nan", "best"].map(of))).toEqual([
        bad(/a text or a list of .* returned a function/),
        bad(/returned a Map\./),
        bad(/a finite number as reward but the environment returned NaN/),
        bad(/returned Infinity as "best"/),
      ]);
    } finally {
      await environment.dispose();
    }
  });

  test("of tools offers those that it exports, and calls them in a worker", async () => {
    const path = moduleFile(`
      export const add = { description: "Adds.", parameters: ${JSON.stringify(ADD.parameters)}, call: ({ a, b }) => ({ sum: a + b }) };
      export const fail = { description: "Fails.", call: () => { throw new TypeError("no"); } };
      export const spin = { description: "Spins.", call: () => { for (;;); } };
      export const map = { description: "Maps.", call: () => new Map() };
      export const divide = { description: "Divides.", call: () => 1 / 0 };
      export const helper = () => 1;`);
    const environment = createEnvironment({ type: "tools", path, deadlineMs: 500 });
    try {
      expect(environment.tools).toEqual([]);
      await environment.start();
      expect(environment.tools.map((tool) => (tool.function as { name: string }).name).sort()).toEqual([
        "add",
        "divide",
        "fail",
        "map",
        "spin",
      ]);
      const others = ["spin", "fail", "map", "divide"].map((name) => `<tool_call>{"name": "${name}"}</tool_call>`);
      const reply = await environment.respond(turn({ raw: CALL + others.join("") }), signal);
      expect(reply).toMatchObject({
        messages: [
          { content: '{"sum":3}' },
          { name: "spin", content: "Error: the tool did not answer within 0.5 s" },
          { content: "Error: TypeError: no" },
          { content: "Error: the tool returned a Map, of which JSON holds nothing" },
          { content: "Infinity" },
        ],
        detail: { calls: 5, failedCalls: 3 },
      });
    } finally {
      await environment.dispose();
    }
  });

  test("of tools needs a function for its options, and may have a table of them without, or one of that name", async () => {
    const one = '{ description: "a", call: () => 5 }';
    const lone = moduleFile(`export const add = ${one};`);
    await expect(respondOnce({ type: "tools", path: lone, options: {} })).rejects.toThrow(
      /to export the function "tools", which "options" are given to, but it exports add/,
    );
    for (const [source, name] of [
      [`export const tools = { add: ${one} };`, "add"],
      [`export const tools = ${one};`, "tools"],
    ] as const) {
      const raw = `<tool_call>{"name": "${name}"}</tool_call>`;
      const reply = await respondOnce({ type: "tools", path: moduleFile(source) }, turn({ raw }));
      expect(reply).toMatchObject({ messages: [{ content: "5" }] });
    }
  });

  test("has the channel of its worker to itself", async () => {
    const path = moduleFile(`
      process.send?.(null);
      const forged = { kind: "verdict", id: 0, verdict: { said: "forged" } };
      export const respond = ({ turn }) => {
        process.send?.(turn === 1 ? forged : null);
        return "real";
      };`);
    expect(await respondOnce({ type: "module", path })).toMatchObject({ messages: [{ content: "real" }] });
    expect(await respondOnce({ type: "module", path }, turn({ turn: 2 }))).toMatchObject({
      messages: [{ content: "real" }],
    });
  });

  test("of tools may make them of options", async () => {
    const path = moduleFile(`
      export const tools = ({ by }) => ({ add: { description: "Adds " + by, call: () => by } });`);
    expect(
      await respondOnce(
        { type: "tools", path, options: { by: 4 } },
        turn({ raw: '<tool_call>{"name": "add"}</tool_call>' }),
      ),
    ).toMatchObject({
      messages: [{ content: "4" }],
    });
  });
});

describe("what is no environment", () => {
  test.each<[unknown, RegExp]>([
    ["tools", /a function, or an environment with a "type"/],
    [{ type: "tool", path: "a.mjs" }, /no environment "tool"\. Did you mean "tools"\?/],
    [{ respond: () => null, start: () => {} }, /but this one lacks tools and dispose\. What answers .* a function/],
    [{ type: "module" }, /a non-empty string for option "path" of the environment "module"/],
    [{ type: "module", path: "./nowhere.mjs" }, /"path" of the environment "module" to be a file but there is none at/],
    [{ type: "tools", path: "./nowhere.mjs" }, /"path" of the environment "tools" to be a file but there is none at/],
    [{ type: "tools", tools: {} }, /tools by their names/],
    [{ type: "tools", tools: {}, path: "a.mjs" }, /takes "tools" from code or the "path" .* was given both: leave one/],
    [{ type: "tools", tools: { add: { call: () => 1 } } }, /the tool "add".*\{ description, parameters, call \}/],
    [
      { type: "tools", tools: { add: { ...ADD, parameters: { type: "nothing" }, call: () => 1 } } },
      /parameters of the tool "add" to be a JSON Schema/,
    ],
    [{ type: "tools", tools: {}, deadline: 3 }, /has no option "deadline"\. Did you mean "deadlineMs"\?/],
  ])("%j", (spec, message) => {
    expect(() => createEnvironment(spec as EnvironmentSpec)).toThrow(message);
    expect(() => createEnvironment(spec as EnvironmentSpec)).toThrow(
      expect.objectContaining({ code: "ERR_RLSD_ENVIRONMENT" }),
    );
  });

  test.each(["module", "tools"])("a %s that its options break says where", async (type) => {
    const path = moduleFile("export const tools = (options) => options.by.twice();\nexport const respond = tools;");
    const environment = createEnvironment({ type, path, options: {} } as EnvironmentSpec);
    await expect(environment.start()).rejects.toMatchObject({
      code: "ERR_RLSD_ENVIRONMENT",
      message: expect.stringMatching(
        /environment\.mjs, called with its options, threw TypeError: .*environment\.mjs:1:\d+\)\.$/,
      ),
    });
    await environment.dispose();
  });

  test.each<[string, string, RegExp]>([
    ["module", "export const answer = 1;", /to export the function "respond" but it exports answer/],
    ["module", "syntax error", /could not be loaded: SyntaxError.*\(node --check .*mjs shows where\)/],
    [
      "tools",
      "export const answer = 1;",
      /to export \{ description, parameters, call \} under the name of each tool but it exports answer/,
    ],
    [
      "tools",
      "export const tools = ({ by }) => ({});",
      /the name of each tool, or to be given "options" for its "tools", but it exports tools/,
    ],
    ["tools", "export const add = { call: () => 1 };", /the tool "add" of .*environment\.mjs to be/],
  ])("a %s of %j", async (type, source, message) => {
    const environment = createEnvironment({ type, path: moduleFile(source) } as EnvironmentSpec);
    await expect(environment.start()).rejects.toThrow(message);
    await environment.dispose();
  });
});
