"""TRL's GRPOTrainer, a step on request: one JSON object a line in, one out.

{"op": "load", "directory", "prompts", "count", "tokens", "threads"} makes a trainer: `prompts` rendered texts a step, `count`
completions of each of at most `tokens` tokens.
{"op": "step"} lets it make its next step: the seconds from its start to its end, and the mean length of its completions.
"""

import os
import sys
import time

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import datasets
import torch
import transformers
import trl
from json_lines import answer, requests


asked = requests()


class OnRequest(transformers.TrainerCallback):
    """Holds every step back until it is asked for, and answers once its log has been written, which comes after its end."""

    def on_step_begin(self, args, state, control, **_):
        if next(asked, None) is None:
            os._exit(0)
        self.start = time.perf_counter()

    def on_step_end(self, args, state, control, **_):
        self.seconds = time.perf_counter() - self.start

    def on_log(self, args, state, control, logs, **_):
        if "completions/mean_length" in logs:
            answer(seconds=self.seconds, length=logs["completions/mean_length"])


def contrast(completions, **_):
    """Every second completion is praised: each group has something to teach."""
    return [float(i % 2 == 0) for i in range(len(completions))]


def trainer(directory, prompts, count, tokens, threads):
    torch.set_num_threads(threads)
    batch = len(prompts) * count
    config = trl.GRPOConfig(
        output_dir=os.path.join(directory, "trl"),
        use_cpu=True,
        bf16=False,
        model_init_kwargs={"dtype": "float32"},
        per_device_train_batch_size=batch,
        num_generations=count,
        max_completion_length=tokens,
        temperature=1.0,
        beta=0.0,
        loss_type="grpo",
        learning_rate=0.0,
        weight_decay=0.0,
        max_grad_norm=1.0,
        max_steps=1_000_000,
        logging_steps=1,
        save_strategy="no",
        gradient_checkpointing=False,
        report_to="none",
        disable_tqdm=True,
    )
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(directory)
    return trl.GRPOTrainer(
        model=directory,
        processing_class=tokenizer,
        reward_funcs=contrast,
        args=config,
        train_dataset=datasets.Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
        callbacks=[OnRequest()],
    )


load = next(asked)
load.pop("op")
made = trainer(**load)
made.remove_callback(transformers.trainer_callback.PrinterCallback)
answer(version=f"TRL {trl.__version__}, transformers {transformers.__version__}, PyTorch {torch.__version__}")
sys.stdout = sys.stderr
made.train()
