import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createPolicy } from "../lib/index.js";
import { fingerprint } from "../lib/policy/fingerprint.js";

const folder = mkdtempSync(join(tmpdir(), "rlsd-fingerprint-"));
const [one, cut] = [join(folder, "one"), join(folder, "cut")];
const weights = join(one, "model.safetensors");
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let before = "";
beforeAll(async () => {
  // An embedding of 256 KiB; every other tensor has 16 KiB at most.
  const shape = { vocabSize: 1024, hiddenSize: 64, intermediateSize: 64, numLayers: 1, numHeads: 2, maxLength: 32 };
  await using policy = await createPolicy({ ...shape, tieEmbeddings: true });
  await policy.save(one);
  await policy.save(cut, { maxShardBytes: 20_000 });
  before = await fingerprint(one);
});

/** That of the model with some bytes of a tensor, from `at` of its length on, turned. */
async function turned(tensor: string, at: number, count: number): Promise<string> {
  const kept = readFileSync(weights);
  const length = Number(kept.readBigUInt64LE());
  const { data_offsets } = JSON.parse(kept.toString("utf8", 8, 8 + length))[tensor];
  const [start, end] = data_offsets as [number, number];
  const bytes = Buffer.from(kept);
  const from = 8 + length + start + Math.floor((end - start - count) * at);
  for (let i = from; i < from + count; i++) bytes[i]! ^= 1;
  writeFileSync(weights, bytes);
  try {
    return await fingerprint(one);
  } finally {
    writeFileSync(weights, kept);
  }
}

test("one bit of a tensor of at most 64 KiB tells weights apart, and of a larger one at its ends", async () => {
  const seen = [before];
  for (const at of [0, 0.1, 0.9, 1]) seen.push(await turned("model.layers.0.mlp.up_proj.weight", at, 1));
  for (const at of [0, 1]) seen.push(await turned("model.embed_tokens.weight", at, 1));
  expect(new Set(seen).size).toBe(seen.length);
});

test("so does any sixteenth of a larger tensor", async () => {
  for (let at = 0; at <= 1; at += 0.11) {
    expect([at, await turned("model.embed_tokens.weight", at, 16384)]).not.toEqual([at, before]);
  }
});

test("config.json counts where it changes the mathematics, and not elsewhere; the cut into files does not", async () => {
  const file = join(one, "config.json");
  const kept = readFileSync(file, "utf8");
  const changed = async (change: object) => {
    writeFileSync(file, JSON.stringify({ ...JSON.parse(kept), ...change }));
    return fingerprint(one);
  };
  const rope = { rope_type: "default", rope_theta: 17 };
  for (const other of [{ rms_norm_eps: 0.5 }, { rope_parameters: rope }]) {
    expect([other, await changed(other)]).not.toEqual([other, before]);
  }
  expect(await changed({ eos_token_id: 3, note: "mine" })).toBe(before);
  writeFileSync(file, kept);
  expect(await fingerprint(cut)).toBe(before);
});
