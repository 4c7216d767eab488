"""Bad input of the tracks beside compress: more rows of `bad_input_table.CASES`."""

from __future__ import annotations

from bad_input_table import CASES, Case, Place

TASK = "{dataset: digits, train: 60, dev: 20, test: 20}"
TRACKS = {
    "train": {"models": '["mlp(width=8)"]', "problem": f"{{task: {TASK}}}", "methods": "[adamw]"},
    "merge": {
        "models": '["mlp(width=8)"]',
        "problem": f"{{task: {TASK}, tasks: [{{transform: mirror}}, {{transform: flip}}]}}",
        "methods": "[average]",
    },
    "continual": {
        "models": '["mlp(width=8)"]',
        "problem": f"{{task: {TASK}, sequence: 5, memory: 10}}",
        "methods": "[finetune]",
    },
    "policy": {"problem": "{env: grid, updates: 2}", "methods": "[reinforce]", "metrics": "[episode_return]"},
    "predict": {"problem": "{dataset: diabetes}", "methods": "[average]", "metrics": "[pinball_loss]"},
    "latency": {"models": "[96x128]", "methods": "[floating]", "metrics": "[product_time]", "baseline": "floating"},
}


def bad(title: str, track: str, *says: str, **fields: str) -> None:
    """A suite of a track, good but for the fields given."""

    def prepare(place: Place) -> list[str]:
        lines = {
            "suite": "bad",
            "title": "Bad input",
            "track": track,
            "metrics": "[accuracy]",
            **TRACKS[track],
            **fields,
        }
        return ["run", place.file("bad.yaml", "".join(f"{key}: {value}\n" for key, value in lines.items()))]

    CASES.append(Case(title, says, prepare))


bad("a method on the wrong track", "train", "bad.yaml:", "method gptq is of track compress", methods="[gptq]")
bad("a model of another kind than the task", "train", "bad.yaml:", "llama", "causal-lm", "vision", models="[llama]")
bad("a checkpoint that the track cannot take", "train", "minilm is of kind encoder", models="[minilm]")
bad("a budget of zero steps", "train", "budget: steps=0", problem=f"{{task: {TASK}, budget: {{steps: 0}}}}")
bad("less than no tries", "train", "tuning=-1", problem=f"{{task: {TASK}, tuning: -1}}")
bad("a task without a data set", "train", "dataset", problem="{task: {train: 5}}")
bad("more samples than there are", "train", "digits has 1437 samples", problem="{task: {dataset: digits, train: 9999}}")
bad("nothing to merge", "merge", "tasks", problem=f"{{task: {TASK}, tasks: []}}")
bad("an empty sequence of tasks", "continual", "sequence", problem=f"{{task: {TASK}, sequence: []}}")
bad("a class in two tasks", "continual", "sequence", problem=f"{{task: {TASK}, sequence: [[0, 1], [1, 2]]}}")
bad("an unknown environment", "policy", "unknown environment 'gird'", problem="{env: gird}")
bad("a method for another environment", "policy", "takes the environment reasoning", methods="[grpo]")
bad("quantiles that do not rise", "predict", "levels=[0.9, 0.1]", problem="{dataset: diabetes, levels: [0.9, 0.1]}")
bad("a metric of another track", "predict", "episode_return is for problems of the policy", metrics="[episode_return]")
bad("a calibration of the mean", "predict", "is for classes and quantiles (bases: quantile)",
    problem="{dataset: diabetes, bases: mean}", metrics="[calibration_error]")  # fmt: skip
bad("one trial under two spellings", "predict", "bad.yaml:", "would bear its name", "ridge",
    problem="{dataset: diabetes, bases: mean, tuning: 2}", methods='[linear_stack, "linear_stack(ridge=1.0)"]',
    metrics="[squared_error]")  # fmt: skip
bad("a continuation of images", "train", "continuation_bleu is for text; task digits is of kind vision",
    metrics="[continuation_bleu]")  # fmt: skip
bad("weights that are trained at sixteen bits", "train", "ofq: bits=16 is not accepted; it takes 1 to 8",
    methods='["ofq(bits=16)"]')  # fmt: skip
bad("more threads than there are cores", "latency", "threads=4096 is not accepted", problem="{threads: 4096}")
bad("no threads", "latency", "threads=0 is not accepted; it takes a number from 1", problem="{threads: 0}")
bad("an unknown shape", "latency", "model='lama-7b' is not accepted", "llama-7b", models="[lama-7b]")
bad("decoding with one product", "latency", "takes a language model", problem="{measure: token}")
bad("a baseline that is not in the suite", "latency", "low_rank is 0 of the suite's methods", baseline="low_rank")


def two_shapes(place: Place) -> list[str]:
    """digits-vit as the base, and as an expert the same with one tensor more."""
    import torch
    from safetensors.torch import load, save

    def longer(weights: bytes) -> bytes:
        state = load(weights)
        state["head.bias"] = torch.zeros(11)
        return save(state)

    place.model(longer)
    tasks = "[{transform: identity, expert: ./model}, {transform: mirror}]"
    lines = {"suite": "bad", "title": "Bad input", "track": "merge", "models": "[digits-vit]", "metrics": "[accuracy]"}
    lines |= {"problem": f"{{task: {TASK}, tasks: {tasks}}}", "methods": "[average]"}
    return ["run", place.file("bad.yaml", "".join(f"{key}: {value}\n" for key, value in lines.items()))]


CASES.append(Case("models of different shapes to merge", ("head.bias", "[11]", "[10]"), two_shapes))
