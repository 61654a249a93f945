import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Objective } from "../../lib/objectives/objective.js";
import { policyLossSync } from "../../lib/ops/policy-loss.js";
import type {
  Completion,
  Policy,
  SamplingOptions,
  ScoreRequest,
  StepOptions,
  StepResult,
  TrainBatch,
} from "../../lib/policy/policy.js";
import type { PolicyResult } from "../../lib/tensor/results.js";
import { hashSeed, randomStream } from "../../lib/trainer/random.js";

const WEIGHTS = "tiny.bin";
const OPTIMIZER = "tiny-optimizer.bin";

/** Characters that the tiny tokenizer knows, one token each; before them: pad, end, user, assistant. */
export const ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz :.?#\n";
export const SPECIALS = ["<pad>", "<end>", "<user>", "<assistant>"];
const END = 1;

export function writeTinyModel(directory: string, maxLength = 96): string {
  mkdirSync(directory, { recursive: true });
  const vocab = Object.fromEntries([...SPECIALS, ...ALPHABET].map((token, id) => [token, id]));
  const added = SPECIALS.map((content, id) => ({
    id,
    content,
    special: true,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
  }));
  const tokenizer = {
    version: "1.0",
    added_tokens: added,
    normalizer: null,
    pre_tokenizer: null,
    post_processor: null,
    decoder: { type: "Fuse" },
    model: { type: "BPE", vocab, merges: [] },
  };
  writeFileSync(join(directory, "tokenizer.json"), JSON.stringify(tokenizer));
  writeFileSync(
    join(directory, "chat_template.jinja"),
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}",
  );
  writeFileSync(
    join(directory, "config.json"),
    JSON.stringify({ model_type: "tiny", max_position_embeddings: maxLength }),
  );
  const size = SPECIALS.length + ALPHABET.length;
  const weights = new Float32Array(2 * size * size);
  // What the prompt says is likelier than the rest, so that a longer prompt is other evidence from the start.
  for (let v = SPECIALS.length; v < size; v++) weights[size * size + v * size + v] = 10;
  writeFileSync(join(directory, WEIGHTS), Buffer.from(weights.buffer));
  return directory;
}

/** The token that a number u in [0, 1) draws. */
function pick(logp: Float64Array, u: number): number {
  let left = u;
  for (const [token, p] of logp.entries()) {
    left -= Math.exp(p);
    if (left < 0) return token;
  }
  return logp.length - 1;
}

/** What a test may watch or break. */
export interface TinyProbe {
  generated: number;
  scored: number;
  accumulated: number;
}

/**
 * A policy in plain TypeScript: logits = W[previous token] + mean over the prompt's tokens u of U[u]. It can learn to say
 * what the prompt says, and a longer (privileged) prompt gives it other log-probs. AdamW, as the engine's.
 */
export class TinyPolicy implements Policy {
  readonly vocabSize = SPECIALS.length + ALPHABET.length;
  readonly parameterCount = 2 * this.vocabSize ** 2;
  readonly maxLength: number;
  readonly probe: TinyProbe = { generated: 0, scored: 0, accumulated: 0 };
  private readonly weights: Float32Array;
  private readonly gradient: Float64Array;
  private moments: { m: Float32Array; v: Float32Array; t: number };

  constructor(weights: Float32Array, maxLength: number) {
    this.weights = weights;
    this.maxLength = maxLength;
    this.gradient = new Float64Array(weights.length);
    this.moments = { m: new Float32Array(weights.length), v: new Float32Array(weights.length), t: 0 };
  }

  static load = async (directory: string): Promise<TinyPolicy> => {
    const bytes = readFileSync(join(directory, WEIGHTS));
    const { max_position_embeddings: maxLength } = JSON.parse(readFileSync(join(directory, "config.json"), "utf8"));
    return new TinyPolicy(new Float32Array(new Uint8Array(bytes).buffer), maxLength);
  };

  private logits(prompt: Int32Array, previous: number): Float64Array {
    const V = this.vocabSize;
    const z = Float64Array.from(this.weights.subarray(previous * V, (previous + 1) * V));
    for (const u of prompt) {
      const at = V * V + u * V;
      for (let v = 0; v < V; v++) z[v] += this.weights[at + v] / prompt.length;
    }
    return z;
  }

  private logSoftmax(prompt: Int32Array, previous: number, temperature: number): Float64Array {
    const z = this.logits(prompt, previous).map((x) => x / temperature);
    const top = Math.max(...z);
    const log = top + Math.log(z.reduce((sum, x) => sum + Math.exp(x - top), 0));
    return z.map((x) => x - log);
  }

  private draw(prompt: Int32Array, o: SamplingOptions, stream: number, maxTokens: number): Completion {
    const next = randomStream(stream);
    const greedy = o.temperature === 0;
    const tokenIds: number[] = [];
    const logProbs: number[] = [];
    let previous = prompt.at(-1)!;
    while (tokenIds.length < maxTokens && previous !== END) {
      const logp = this.logSoftmax(prompt, previous, greedy ? 1 : (o.temperature ?? 1));
      const token = greedy ? logp.indexOf(Math.max(...logp)) : pick(logp, next());
      tokenIds.push(token);
      logProbs.push(logp[token]);
      previous = token;
    }
    return {
      tokenIds: Int32Array.from(tokenIds),
      logProbs: Float32Array.from(logProbs),
      finish: previous === END ? "stop" : "length",
    };
  }

  async generate(prompts: readonly Int32Array[], o: SamplingOptions): Promise<Completion[][]> {
    o.signal?.throwIfAborted();
    const count = o.count ?? 1;
    this.probe.generated += prompts.length * count;
    const most = (i: number) => (typeof o.maxTokens === "number" ? o.maxTokens : o.maxTokens[i]);
    const stream = (i: number, j: number) =>
      typeof o.seed === "number" ? hashSeed(o.seed, i * count + j) : hashSeed(o.seed[i], j);
    return prompts.map((prompt, i) =>
      Array.from({ length: count }, (_, j) => this.draw(prompt, o, stream(i, j), most(i))),
    );
  }

  private logProbsOf({ prompt, completion }: ScoreRequest, temperature: number): Float32Array {
    return Float32Array.from(completion, (token, t) => {
      const previous = t === 0 ? prompt.at(-1)! : completion[t - 1];
      return this.logSoftmax(prompt, previous, temperature)[token];
    });
  }

  async score(requests: readonly ScoreRequest[], o: { temperature?: number; signal?: AbortSignal } = {}) {
    o.signal?.throwIfAborted();
    this.probe.scored += requests.length;
    return requests.map((request) => this.logProbsOf(request, o.temperature ?? 1));
  }

  async accumulate(batch: TrainBatch, objective: Objective): Promise<PolicyResult> {
    const { sequences, teacherLogProbs, contrastLogProbs, ...rest } = batch;
    this.probe.accumulated += sequences.length;
    const rows = sequences.map((sequence) => this.logProbsOf(sequence, objective.temperature));
    const cuSeqlens = new Int32Array(sequences.length + 1);
    for (const [b, row] of rows.entries()) cuSeqlens[b + 1] = cuSeqlens[b] + row.length;
    const result = policyLossSync(
      {
        ...rest,
        student: { logProbs: Float32Array.from(rows.flatMap((row) => [...row])) },
        ...(teacherLogProbs && { teacher: { logProbs: teacherLogProbs } }),
        ...(contrastLogProbs && { contrast: { logProbs: contrastLogProbs } }),
        tokenIds: Int32Array.from(sequences.flatMap((s) => [...s.completion])),
        cuSeqlens,
      },
      objective,
    );
    let i = 0;
    for (const { prompt, completion } of sequences) {
      for (const [t, token] of completion.entries()) {
        const previous = t === 0 ? prompt.at(-1)! : completion[t - 1];
        this.backward(prompt, previous, token, result.gradient.logProbs[i++], objective.temperature);
      }
    }
    return result;
  }

  private backward(prompt: Int32Array, previous: number, token: number, g: number, temperature: number): void {
    if (g === 0) return;
    const V = this.vocabSize;
    const dz = this.logSoftmax(prompt, previous, temperature).map(
      (p, v) => (g * (Number(v === token) - Math.exp(p))) / temperature,
    );
    for (let v = 0; v < V; v++) {
      this.gradient[previous * V + v] += dz[v];
      for (const u of prompt) this.gradient[V * V + u * V + v] += dz[v] / prompt.length;
    }
  }

  async step(o: StepOptions): Promise<StepResult> {
    const { m, v } = this.moments;
    const [beta1, beta2] = o.betas ?? [0.9, 0.95];
    const gradientNorm = Math.sqrt(this.gradient.reduce((sum, g) => sum + g * g, 0));
    const scale = Math.min(1, (o.maxGradientNorm ?? 1) / gradientNorm);
    const t = ++this.moments.t;
    for (const [i, raw] of this.gradient.entries()) {
      const g = raw * scale;
      m[i] = beta1 * m[i] + (1 - beta1) * g;
      v[i] = beta2 * v[i] + (1 - beta2) * g * g;
      const update = m[i] / (1 - beta1 ** t) / (Math.sqrt(v[i] / (1 - beta2 ** t)) + (o.eps ?? 1e-8));
      this.weights[i] -= o.learningRate * (update + (o.weightDecay ?? 0) * this.weights[i]);
    }
    this.gradient.fill(0);
    return { gradientNorm, skipped: false };
  }

  async snapshot(): Promise<TinyPolicy> {
    return new TinyPolicy(this.weights.slice(), this.maxLength);
  }

  async copyFrom(other: Policy, rate = 0): Promise<void> {
    for (const [i, w] of (other as TinyPolicy).weights.entries()) {
      this.weights[i] = w * (1 - rate) + this.weights[i] * rate;
    }
  }

  async save(directory: string, o: { optimizer?: boolean } = {}): Promise<void> {
    mkdirSync(directory, { recursive: true });
    const config = { model_type: "tiny", max_position_embeddings: this.maxLength };
    writeFileSync(join(directory, "config.json"), JSON.stringify(config));
    writeFileSync(join(directory, WEIGHTS), Buffer.from(this.weights.slice().buffer));
    if (!o.optimizer) return;
    const { m, v, t } = this.moments;
    writeFileSync(join(directory, OPTIMIZER), Buffer.from(Float32Array.of(t, ...m, ...v).buffer));
  }

  async loadOptimizer(directory: string): Promise<void> {
    const all = new Float32Array(new Uint8Array(readFileSync(join(directory, OPTIMIZER))).buffer);
    const n = this.weights.length;
    this.moments = { t: all[0], m: all.slice(1, 1 + n), v: all.slice(1 + n) };
  }

  /** For comparing two policies bit for bit. */
  get bytes(): Buffer {
    return Buffer.from(this.weights.slice().buffer);
  }

  async dispose(): Promise<void> {}
}
