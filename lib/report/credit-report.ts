import type { RunConfig, SampleLine } from "../trainer/run-folder.js";
import { createTally } from "./digest.js";
import { html } from "./html.js";
import { page } from "./page.js";
import { samplesSection } from "./samples.js";
import { tokensSection } from "./tokens.js";

/** Completions on a page, and all that are held; the tables are over all. */
const SHOWN = 200;

/** A page of completions with the credit of every token, filled one by one. */
export function createCreditReport(title: string, config: RunConfig) {
  const tally = createTally();
  const samples: SampleLine[] = [];
  return {
    add(sample: SampleLine): void {
      tally.add(sample);
      if (samples.length < SHOWN) samples.push(sample);
    },
    end(): string {
      const all = { ...tally.end(), name: title, config, samples };
      const body = html`<header><h1>${title}</h1></header>${samplesSection(all, "the first")}${tokensSection(all)}`;
      return page(`rlsd: ${title}`, body);
    },
  };
}
