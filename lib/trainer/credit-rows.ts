import { RlsdError } from "../errors.js";
import { exactJson } from "../exact-json.js";
import type { Policy } from "../policy/policy.js";
import type { Tokenizer } from "../policy/tokenizer.js";
import type { Verifier } from "../verifiers/verifier.js";
import type { ResolvedConfig } from "./config.js";
import type { Talk } from "./conversation.js";
import { completionsOf, finishOf } from "./data/completions.js";
import { loadDataset, settleProblems } from "./data/dataset.js";
import type { Row } from "./data/read-rows.js";
import { prompted, type TextParts } from "./prepare.js";
import type { Prompted, Rollout } from "./rollout.js";
import { offering } from "./talk.js";

interface ReadCompletions extends TextParts {
  /** Whole groups, one after the other. Log-probs are not there yet. */
  readonly rollouts: readonly Rollout[];
  /** Rows left out because they do not fit. */
  readonly skipped: number;
}

interface Drawn {
  readonly tokenIds: Int32Array;
  /** Without the end token. */
  readonly text: string;
}

/** A text as the model would have drawn it: one that ended by itself ends in one end token, written out or not. */
function drawn(given: string, finish: Rollout["finish"], tokenizer: Tokenizer, ends: readonly number[]): Drawn {
  const tokenIds = tokenizer.encode(given);
  if (finish === "length" || ends.length === 0) return { tokenIds, text: given };
  const last = tokenIds.at(-1);
  if (last === undefined || !ends.includes(last)) {
    return { tokenIds: Int32Array.from([...tokenIds, ends[0]!]), text: given };
  }
  const [end = ""] = tokenizer.pieces([last]);
  return { tokenIds, text: given.endsWith(end) ? given.slice(0, given.length - end.length) : given };
}

/**
 * The tokens that a row says its completion was drawn as, where they are that text to this tokenizer: a text alone may be
 * written in other tokens, and of a conversation that was cut does not tell whether its last turn had ended.
 */
function namedTokens({ tokenIds, completions }: Row, given: string, tokenizer: Tokenizer): Drawn | undefined {
  if (completions !== undefined || !Array.isArray(tokenIds)) return undefined;
  const known = (id: unknown) => Number.isSafeInteger(id) && Number(id) >= 0 && Number(id) < tokenizer.size;
  if (!tokenIds.every(known)) return undefined;
  const same = tokenizer.decode(tokenIds, { skipSpecialTokens: true }) === given;
  return same ? { tokenIds: Int32Array.from(tokenIds), text: given } : undefined;
}

/** The completions of a group's rows as if they had been drawn. */
function toRollouts(prompts: readonly Prompted[], group: number, tokenizer: Tokenizer, policy: Policy): Rollout[] {
  const ends = policy.endTokenIds ?? [];
  let size = 0;
  return prompts.flatMap((prompt) => {
    const { row, id, where } = prompt.example;
    const finish = finishOf(row);
    return completionsOf(row).map((given): Rollout => {
      const { tokenIds, text } = namedTokens(row, given, tokenizer) ?? drawn(given, finish, tokenizer, ends);
      if (tokenIds.length === 0) throw new RlsdError("ERR_RLSD_DATA", `${where}: a completion has no tokens.`);
      const length = prompt.ids.length + tokenIds.length;
      if (length > policy.maxLength) {
        const message = `${where}: prompt and completion have ${length} tokens, but the model reads ${policy.maxLength}.`;
        throw new RlsdError("ERR_RLSD_DATA", message);
      }
      return { id: `${id}#${size++}`, group, prompt, tokenIds, logProbs: new Float32Array(0), finish, text };
    });
  });
}

/**
 * The completions of rows; every row is checked, and rows with the same prompt are a group. With `limit` only the first
 * groups that hold so many become tokens: a file may have a hundred thousand rows more.
 */
export async function readCompletions(
  files: readonly string[],
  config: ResolvedConfig,
  text: TextParts & { readonly talk?: Talk | undefined },
  verifier: Verifier,
  policy: Policy,
  limit: number,
): Promise<ReadCompletions> {
  const groups = new Map<string, Prompted[]>();
  let found = 0;
  const data = await loadDataset(files, {
    fields: config.data.fields,
    system: config.data.system,
    template: config.data.template,
    answerOf: (row) => verifier.answerOf?.(row),
    check: (example) => {
      const count = completionsOf(example.row).length;
      verifier.check?.(example.row);
      const asked = offering(example, text.talk);
      const key = exactJson([asked.messages, asked.tools]);
      const group = groups.get(key) ?? [];
      // A later row may still belong to a group that is wanted.
      if (group.length === 0 && found >= limit) return;
      group.push(prompted(asked, text.prompter, policy.maxLength));
      groups.set(key, group);
      found += count;
    },
  });
  const skipped = settleProblems("the data", data, config.data.invalid);
  const rollouts = [...groups.values()].flatMap((rows, group) => toRollouts(rows, group, text.tokenizer, policy));
  return { ...text, rollouts, skipped };
}
