"""A decoder of transformers that samples, scores and learns, on request: one JSON object a line in, one out.

{"op": "load", "directory", "threads"} opens a model folder.
{"op": "draw", "prompts", "count", "tokens"} samples `count` completions of each prompt, `tokens` long.
{"op": "score", "prompts", "completions"} finds the log-prob of every token of the completions.
{"op": "train", "prompts", "completions", "advantages"} adds the gradient of GRPO's loss, on-policy.
{"op": "step"} clips the gradient by its global norm, applies AdamW and clears it.

Every answer but the first has the seconds that the work took. All prompts are of one length, and so are all completions: a
batch has no padding, and logits are made of the completions alone.
"""

import time

import torch
import transformers
from json_lines import answer, requests

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


class Model:
    def __init__(self, directory, threads):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            directory, dtype=torch.float32, attn_implementation="sdpa"
        )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.0, weight_decay=0.0, fused=True)

    @torch.inference_mode()
    def draw(self, prompts, count, tokens):
        ids = torch.tensor(prompts)
        settings = transformers.GenerationConfig(
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            num_return_sequences=count,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            pad_token_id=0,
        )
        self.model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        return {}

    def log_probs(self, prompts, completions):
        completions = torch.tensor(completions)
        length = completions.shape[1]
        ids = torch.cat([torch.tensor(prompts), completions], 1)
        logits = self.model(ids, logits_to_keep=length + 1, use_cache=False).logits[:, :-1]
        return torch.log_softmax(logits, -1).gather(-1, completions[:, :, None])[:, :, 0]

    @torch.inference_mode()
    def score(self, prompts, completions):
        return {"logProbs": self.log_probs(prompts, completions).flatten().tolist()}

    def train(self, prompts, completions, advantages):
        current = self.log_probs(prompts, completions)
        a = torch.tensor(advantages)[:, None]
        ratio = torch.exp(current - current.detach())
        loss = -torch.min(ratio * a, ratio.clamp(0.8, 1.2) * a).mean(1).mean()
        loss.backward()
        return {"loss": loss.item()}

    def step(self):
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)
        return {}


model = None
for request in requests():
    op = request.pop("op")
    if op == "load":
        model = Model(**request)
        answer(version=f"PyTorch {torch.__version__}, transformers {transformers.__version__}")
    else:
        start = time.perf_counter()
        told = getattr(model, op)(**request)
        answer(**told, seconds=time.perf_counter() - start)
