"""Makes golden.json again: greedy continuations of the default weights by Hugging Face transformers, in float32.

The weights are the GGUF file's, dequantized by transformers itself. It needs what the project does not install:

    python -m venv /tmp/golden && /tmp/golden/bin/pip install "torch==2.13.0" transformers gguf accelerate
    /tmp/golden/bin/python tests/worker/engines/llama/golden/make.py FILE.gguf

For each of 50 prompts the file holds the prompt's tokens, the 24 that follow, and for each of these by how much its
logit was ahead of the next best one's. llama.cpp multiplies 4-bit weights with 8-bit activations, so its logits differ
a little: where the two differ, the margin has to be small.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

LENGTH = 24
TOPICS = (
    "the sea",
    "a lighthouse",
    "winter in the mountains",
    "how bread is made",
    "the first train",
    "a lost key",
    "prime numbers",
    "the moon",
    "an old library",
    "rain",
    "a football match",
    "the history of paper",
    "photosynthesis",
    "a small dog",
    "volcanoes",
    "the number seven",
    "Rome",
    "jazz music",
    "honest work",
    "a broken clock",
    "gravity",
    "the colour blue",
    "bicycles",
    "a good friend",
    "computers",
)
FORMS = (
    "Once upon a time, in a story about {},",
    "<|im_start|>user\nTell me about {}.<|im_end|>\n<|im_start|>assistant\n",
)


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        shutil.copy(sys.argv[1], Path(directory) / "model.gguf")
        tokenizer = AutoTokenizer.from_pretrained(directory, gguf_file="model.gguf")
        model = AutoModelForCausalLM.from_pretrained(directory, gguf_file="model.gguf", dtype=torch.float32)
    cases = []
    for topic in TOPICS:
        for form in FORMS:
            prompt = tokenizer(form.format(topic), add_special_tokens=False).input_ids
            cases.append({"prompt": prompt, **_continue(model, prompt)})
    path = Path(__file__).with_name("golden.json")
    path.write_text("[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "\n]\n")


@torch.no_grad()
def _continue(model: AutoModelForCausalLM, prompt: list[int]) -> dict[str, list]:
    tokens, margins = list(prompt), []
    past = None
    for _ in range(LENGTH):
        feed = tokens if past is None else tokens[-1:]
        output = model(torch.tensor([feed]), past_key_values=past, use_cache=True)
        past = output.past_key_values
        best = torch.topk(output.logits[0, -1], 2)
        tokens.append(int(best.indices[0]))
        margins.append(round(float(best.values[0] - best.values[1]), 3))
    return {"tokens": tokens[len(prompt) :], "margins": margins}


main()
