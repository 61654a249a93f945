import type { ChatMessage } from "./messages.js";
import { createSettingTemplate, type SettingTemplate } from "./setting-template.js";

type Row = Readonly<Record<string, unknown>>;

/** What a prompt asks in other words than its row: `data.template`. */
export interface QuestionTemplate {
  /**
   * The messages with another first one of the user. `hidden`: columns that tell the answer.
   *
   * @throws RlsdError ERR_RLSD_CONFIG for a template that fails on the row, or shows one of those columns
   */
  apply(messages: readonly ChatMessage[], row: Row, hidden: readonly string[]): readonly ChatMessage[];
}

/** Where a row has no such columns as the template names, it cannot be tried without one. */
function tried(template: SettingTemplate, content: string): string | undefined {
  try {
    return template.render({ content, row: {} });
  } catch {
    return undefined;
  }
}

/** ERR_RLSD_CONFIG when it is not Jinja or never shows the question. */
export function createQuestionTemplate(source: string): QuestionTemplate {
  const template = createSettingTemplate("data.template", source);
  const probe = "\u0001question";
  if (tried(template, probe)?.includes(probe) === false)
    template.fail("it never uses {{ content }}, so the model would not see the question.");
  return {
    apply(messages, row, hidden) {
      const at = messages.findIndex((message) => message.role === "user");
      if (at < 0) return messages;
      const { content } = messages[at]!;
      const open = Object.fromEntries(Object.entries(row).filter(([name]) => !hidden.includes(name)));
      const asked = template.render({ content, row: open });
      if (template.render({ content, row }) !== asked) {
        const told = hidden.filter((name) => {
          const seen = Object.hasOwn(row, name) ? { ...open, [name]: row[name] } : open;
          return template.render({ content, row: seen }) !== asked;
        });
        template.fail(`it shows ${told.map((name) => `"${name}"`).join(", ")}, which tells the answer.`);
      }
      return messages.map((message, i) => (i === at ? { ...message, content: asked } : message));
    },
  };
}
