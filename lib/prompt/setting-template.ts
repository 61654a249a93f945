import { messageOf, RlsdError } from "../errors.js";
import { createTemplate, type JinjaTemplate } from "./template.js";

/** A template that a setting has: what is wrong with it is ERR_RLSD_CONFIG and names the setting. */
export interface SettingTemplate {
  render(variables: Readonly<Record<string, unknown>>): string;
  fail(why: string): never;
}

export function createSettingTemplate(setting: string, source: string): SettingTemplate {
  const fail = (why: string): never => {
    throw new RlsdError("ERR_RLSD_CONFIG", `"${setting}": ${why}`);
  };
  let template: JinjaTemplate;
  try {
    template = createTemplate(source);
  } catch (error) {
    return fail(`not valid Jinja: ${messageOf(error)}`);
  }
  const render = (variables: Readonly<Record<string, unknown>>): string => {
    try {
      return template.render({ ...variables });
    } catch (error) {
      return fail(messageOf(error));
    }
  };
  return { render, fail };
}
