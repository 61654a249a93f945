import { checkInteger, checkNumber, checkObject, checkPath, invalid } from "../check.js";
import { RlsdError } from "../errors.js";
import { native } from "../native/load.js";
import { encodingOf } from "../objectives/encode.js";
import type { Objective } from "../objectives/objective.js";
import type { DType } from "../tensor/dtype.js";
import type { PolicyResult } from "../tensor/results.js";
import { accumulate } from "./accumulate.js";
import { readAdapterFolder } from "./adapter-folder.js";
import { checkAlike, copiedModel, mergedModel, newAdapters, putAdapters } from "./adapters.js";
import { ARCHITECTURES } from "./architecture.js";
import { type CachedDraw, cacheBytes, checkedDraw } from "./cache-bytes.js";
import { encodeConfig, type ModelConfig } from "./config.js";
import { DISTILL_FIELDS, distill } from "./distill.js";
import { generate, MAX_SEQUENCES } from "./generation.js";
import { type GgufSaveOptions, type GgufSummary, saveGgufFile } from "./gguf/save.js";
import { type LoraConfig, type LoraOptions, resolveLora } from "./lora.js";
import type { NativeModel } from "./model-handle.js";
import { batchTokensOf, heldType, layoutOf, settled, settledValue, shareModel, trainingBytes } from "./native-model.js";
import type { PolicyOrigin } from "./origin.js";
import { readWhole, writeWhole } from "./parameters.js";
import { Home } from "./place.js";
import type {
  Completion,
  DistillBatch,
  DistillOptions,
  DistillResult,
  PassOptions,
  Policy,
  SamplingOptions,
  ScoreOptions,
  ScoreRequest,
  StepOptions,
  StepResult,
  TrainBatch,
} from "./policy.js";
import { keepPrefixes, type PrefixUse, prefixUse } from "./prefixes.js";
import { loadOptimizer, type SaveOptions, saveModel } from "./save.js";
import { logits, score } from "./scoring.js";
import { encodeStep } from "./step-options.js";
import { adaptedOrigin } from "./text-files.js";
import type { Tokenizer } from "./tokenizer.js";

const PASS_FIELDS = new Set(["lossScale", "signal"]);

/** The native decoder. Made by `loadPolicy` and `createPolicy`. */
export class EnginePolicy implements Policy {
  readonly vocabSize: number;
  readonly maxLength: number;
  readonly endTokenIds: readonly number[];
  readonly parameterCount: number;
  readonly trainedParameterCount: number;
  readonly batchTokens: number;
  readonly maxSequences: number;
  /** Shape of the model. */
  readonly config: ModelConfig;
  readonly lora: LoraConfig | undefined;
  /** undefined: its folder, or the files that it was created with, have none. */
  readonly tokenizer: Tokenizer | undefined;
  /** Settles when the last call so far has. */
  #turn: Promise<unknown> = Promise.resolve();
  #disposed: Promise<void> | undefined;
  readonly #model: NativeModel;
  readonly #origin: PolicyOrigin;
  /** Of the weights, those under the adapters. */
  readonly #home: Home;

  constructor(model: NativeModel, origin: PolicyOrigin, home = new Home()) {
    this.#model = model;
    this.#origin = origin;
    this.#home = home;
    this.config = model.config;
    this.lora = model.lora;
    this.vocabSize = model.config.vocabSize;
    this.maxLength = model.config.maxLength;
    this.endTokenIds = model.config.endTokenIds;
    this.batchTokens = batchTokensOf(encodeConfig(model.config, model.lora), model.placement);
    this.maxSequences = origin.maxSequences ?? MAX_SEQUENCES;
    this.trainedParameterCount = model.layout.parameterCount;
    const under = model.lora === undefined ? 0 : layoutOf(model.config).parameterCount;
    this.parameterCount = under + this.trainedParameterCount;
    this.tokenizer = origin.tokenizer;
  }

  /** No folder has these weights any more. */
  #changed(): void {
    if (this.lora === undefined) this.#home.leave();
  }

  /** Runs `body` after every earlier call on this policy, and on `others`, and before every later one. */
  async #inTurn<T>(body: () => Promise<T>, others: readonly EnginePolicy[] = []): Promise<T> {
    const policies = [this, ...others];
    for (const policy of policies) policy.#checkAlive();
    const before = Promise.allSettled(policies.map((policy) => policy.#turn));
    const call = before.then(body);
    const after = call.then(
      () => undefined,
      () => undefined,
    );
    for (const policy of policies) policy.#turn = after;
    return call;
  }

  #checkAlive(): void {
    if (this.#disposed === undefined) return;
    throw new RlsdError("ERR_RLSD_DISPOSED", "The policy was disposed: load or create another one.");
  }

  async generate(prompts: readonly Int32Array[], options: SamplingOptions): Promise<Completion[][]> {
    return this.#inTurn(generate(this.#model, this.tokenizer, prompts, options, this.maxSequences));
  }

  async score(requests: readonly ScoreRequest[], o: ScoreOptions = {}): Promise<Float32Array[]> {
    return this.#inTurn(score(this.#model, requests, o));
  }

  /** Logits (T, V), row-major, of every position of one sequence. */
  async logits(ids: Int32Array): Promise<Float32Array> {
    return this.#inTurn(logits(this.#model, ids));
  }

  async accumulate(batch: TrainBatch, objective: Objective, o: PassOptions = {}): Promise<PolicyResult> {
    const encoded = encodingOf(objective);
    checkObject(o, "options", PASS_FIELDS);
    const call = accumulate(this.#model, batch, objective, encoded, o);
    return this.#inTurn(call);
  }

  async distill(batch: DistillBatch, options: DistillOptions, o: PassOptions = {}): Promise<DistillResult> {
    checkObject(o, "options", PASS_FIELDS);
    checkObject(batch, "batch", DISTILL_FIELDS);
    const { teacher } = batch;
    if (!(teacher instanceof EnginePolicy)) {
      throw invalid("a policy of this engine", "batch.teacher", teacher);
    }
    return this.#inTurn(distill(this.#model, teacher.#model, batch, options, o), [teacher]);
  }

  async step(options: StepOptions): Promise<StepResult> {
    const encoded = encodeStep(options);
    return this.#inTurn(async () => {
      const [gradientNorm, skipped] = await settledValue(native.engineStep(this.#model.handle, encoded));
      this.#changed();
      return { gradientNorm, skipped: skipped !== 0 };
    });
  }

  /** Names of the parameters that are trained, as in the safetensors file that `save` writes. */
  get parameterNames(): readonly string[] {
    return this.#model.layout.names;
  }

  /** A copy of one parameter, or of its accumulated gradient; row-major. */
  async readParameter(name: string, what: "weights" | "gradient" = "weights"): Promise<Float32Array> {
    return this.#inTurn(readWhole(this.#model, name, what));
  }

  /** Overwrites one parameter that is trained; row-major, as readParameter gives it. */
  async writeParameter(name: string, values: Float32Array): Promise<void> {
    const write = writeWhole(this.#model, name, values);
    await this.#inTurn(async () => {
      await write();
      this.#changed();
    });
  }

  /**
   * Bytes that weights, gradient, optimizer state, activations and scratch memory take now. Weights that several policies
   * read count in each.
   */
  async memoryBytes(): Promise<number> {
    return this.#inTurn(async () => (await settledValue(native.engineState(this.#model.handle, -1)))[0]);
  }

  async keepPrefixes(maxBytes?: number): Promise<void> {
    await this.#inTurn(keepPrefixes(this.#model, maxBytes));
  }

  /** What `keepPrefixes` holds and saved. */
  async prefixUse(): Promise<PrefixUse> {
    return this.#inTurn(() => prefixUse(this.#model));
  }

  async heldType(): Promise<DType> {
    return this.#inTurn(() => heldType(this.#model));
  }

  activationBytes(tokens: number, gradients: boolean): number {
    checkInteger(tokens, "tokens", { min: 1 });
    if (typeof gradients !== "boolean") throw invalid("a boolean", "gradients", gradients);
    const config = encodeConfig(this.config, this.lora);
    return gradients
      ? trainingBytes(config, tokens, this.#model.placement)
      : native.engineActivationBytes(config, tokens, 0);
  }

  cacheBytes(draw: CachedDraw): number {
    return cacheBytes(this.config, checkedDraw(draw), this.maxSequences);
  }

  async snapshot(): Promise<EnginePolicy> {
    return this.#inTurn(async () => {
      const copy = await copiedModel(this.#model);
      return new EnginePolicy(copy, this.#origin, this.lora === undefined ? this.#home.copy() : this.#home);
    });
  }

  async withLora(options: LoraOptions = {}): Promise<EnginePolicy> {
    const lora = resolveLora(options, ARCHITECTURES[this.config.modelType].fused);
    if (this.lora !== undefined) {
      const message = "The policy has adapters already: train those, or call merge() and put new ones on the result.";
      throw new RlsdError("ERR_RLSD_INVALID_ARGUMENT", message);
    }
    return this.#sharing(() => newAdapters(this.#model, lora));
  }

  async withAdapters(directory: string): Promise<EnginePolicy> {
    checkPath(directory, "directory");
    return this.#inTurn(async () => {
      const folder = await readAdapterFolder(directory);
      const origin = adaptedOrigin(this.#origin, folder.companions, directory);
      return new EnginePolicy(await putAdapters(this.#model, directory, folder), origin, this.#home);
    });
  }

  async base(): Promise<EnginePolicy> {
    this.#requireLora();
    return this.#sharing(() => shareModel(this.#model), this.#origin.model);
  }

  async merge(): Promise<EnginePolicy> {
    this.#requireLora();
    const origin = { ...this.#origin, model: undefined };
    return this.#inTurn(async () => new EnginePolicy(await mergedModel(this.#model), origin));
  }

  /** A policy that reads these weights. */
  async #sharing(make: () => Promise<NativeModel>, origin = this.#origin): Promise<EnginePolicy> {
    return this.#inTurn(async () => new EnginePolicy(await make(), origin, this.#home));
  }

  #requireLora(): void {
    if (this.lora !== undefined) return;
    throw new RlsdError("ERR_RLSD_INVALID_ARGUMENT", "The policy has no adapters: it is its own base.");
  }

  async copyFrom(other: Policy, rate = 0): Promise<void> {
    checkNumber(rate, "rate", { min: 0, max: 1 });
    if (!(other instanceof EnginePolicy)) throw invalid("a policy of this engine", "other", other);
    checkAlike(this.#model, other.#model, this.#home.isOf(other.#home));
    if (other === this) return;
    await this.#inTurn(async () => {
      await settled(native.engineCopy(this.#model.handle, other.#model.handle, rate));
      this.#changed();
    }, [other]);
  }

  async save(directory: string, o: SaveOptions = {}): Promise<void> {
    await this.#inTurn(async () => {
      const place = await saveModel(this.#model, { ...this.#origin, under: await this.#home.folder() }, directory, o);
      if (place !== undefined) this.#home.add(place);
    });
  }

  /**
   * Writes the model as one GGUF file with its tokenizer and chat template, for llama.cpp, Ollama, LM Studio. `file` is a new
   * one.
   *
   * @throws RlsdError ERR_RLSD_UNSUPPORTED_MODEL and ERR_RLSD_TOKENIZER for what llama.cpp does not compute, before anything
   *   is written; ERR_RLSD_SAVE
   */
  async saveGguf(file: string, o: GgufSaveOptions = {}): Promise<GgufSummary> {
    if (this.lora !== undefined) {
      const message = "The policy has adapters, which a GGUF file has not: save what merge() gives.";
      throw new RlsdError("ERR_RLSD_INVALID_ARGUMENT", message);
    }
    return this.#inTurn(() => saveGgufFile(this.#model, this.#origin, file, o));
  }

  async loadOptimizer(directory: string): Promise<void> {
    checkPath(directory, "directory");
    await this.#inTurn(() => loadOptimizer(this.#model, directory));
  }

  async dispose(): Promise<void> {
    this.#disposed ??= this.#inTurn(() => settled(native.engineRelease(this.#model.handle)));
    await this.#disposed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }
}
