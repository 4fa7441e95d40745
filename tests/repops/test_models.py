"""Whole models of `transformers`, trained and run: captured, as eager torch, the same bits in every way of running.

The models are built from small configurations with random weights; nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import repops
from repops import _kernels
from repops.capture.attention import AttentionCapture
from repops.capture.random import RandomCapture
from repops.commit import state_root, tensor_root

transformers = pytest.importorskip("transformers")

Arrays = dict[str, Any]

VOCABULARY, LENGTH, WIDTH, CLASSES, IMAGE = 61, 10, 32, 3, 16
STEPS = 3
_SIZES = {"hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
_TEXT = {"vocab_size": VOCABULARY, "max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": 2}


@dataclass(frozen=True)
class Case:
    """How to build a model, and one of its batches by seed."""

    model: Callable[[], nn.Module]
    inputs: Callable[[torch.Generator], dict[str, Tensor]]


def gpt2(dropout: float = 0.0) -> nn.Module:
    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**_TEXT, n_embd=WIDTH, n_layer=1, n_head=2, **rates))


def llama() -> nn.Module:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**_TEXT, **_SIZES, num_key_value_heads=2))


def qwen3() -> nn.Module:
    config = transformers.Qwen3Config(**_TEXT, **_SIZES, num_key_value_heads=2, head_dim=8, tie_word_embeddings=True)
    return transformers.Qwen3ForCausalLM(config)


def bert(dropout: float = 0.0) -> nn.Module:
    rates = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), dropout)
    return transformers.BertForSequenceClassification(
        transformers.BertConfig(**_TEXT, **_SIZES, **rates, num_labels=CLASSES)
    )


def vit() -> nn.Module:
    config = transformers.ViTConfig(**_SIZES, image_size=IMAGE, patch_size=4, num_labels=CLASSES)
    return transformers.ViTForImageClassification(config)


def resnet(layer: str) -> nn.Module:
    """Convolutions, batch norm with running statistics, maximum pooling and the mean of each channel."""
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], layer_type=layer, num_labels=CLASSES
    )
    return transformers.ResNetForImageClassification(config)


def images(generator: torch.Generator) -> dict[str, Tensor]:
    """Four images with a class each."""
    pixels = torch.randn(4, 3, IMAGE, IMAGE, generator=generator)
    return {"pixel_values": pixels, "labels": torch.randint(CLASSES, (4,), generator=generator)}


def tokens(generator: torch.Generator) -> dict[str, Tensor]:
    """Two sequences, to be predicted."""
    ids = torch.randint(VOCABULARY, (2, LENGTH), generator=generator)
    return {"input_ids": ids, "labels": ids}


def padded(generator: torch.Generator) -> dict[str, Tensor]:
    """Two sequences, the second shorter: padding is masked and not predicted."""
    inputs = tokens(generator)
    mask = torch.ones(2, LENGTH, dtype=torch.int64)
    mask[1, LENGTH - 3 :] = 0
    return {**inputs, "attention_mask": mask, "labels": inputs["labels"].masked_fill(mask == 0, -100)}


def classes(inputs: Callable[[torch.Generator], dict[str, Tensor]]) -> Callable[[torch.Generator], dict[str, Tensor]]:
    """The same inputs, with one class each."""

    def make(generator: torch.Generator) -> dict[str, Tensor]:
        return {**inputs(generator), "labels": torch.randint(CLASSES, (2,), generator=generator)}

    return make


CASES = {
    "gpt2": Case(gpt2, tokens),
    "gpt2 padded": Case(gpt2, padded),
    "llama": Case(llama, tokens),
    "llama padded": Case(llama, padded),
    "qwen3": Case(qwen3, tokens),
    "bert": Case(bert, classes(tokens)),
    "bert padded": Case(bert, classes(padded)),
    "gpt2 with dropout": Case(lambda: gpt2(0.1), tokens),
    "bert with dropout": Case(lambda: bert(0.1), classes(padded)),
    "vit": Case(vit, images),
    "resnet": Case(lambda: resnet("basic"), images),
    "resnet with bottlenecks": Case(lambda: resnet("bottleneck"), images),
}


ATTENTION_GROUPS = ("gpt2", "llama", "qwen3", "bert", "vit")


@pytest.mark.parametrize("name", CASES)
def test_training(name: str) -> None:
    case = CASES[name]
    torch.manual_seed(3)
    model = case.model().train()
    generator = torch.Generator().manual_seed(4)
    optimizer, schedule = repops.AdamW(eps=1e-4), repops.linear_decay(1e-2, 10, warmup=2)
    step, state, make_batch = repops.lift(model, optimizer=repops.Clipped(optimizer, 0.5), schedule=schedule)
    batches = [make_batch(case.inputs(generator), index) for index in range(STEPS)]
    program = repops.capture(step, state, batches[0])
    assert len([s for s in program.slots if s.name in dict(model.named_parameters())]) == len(list(model.parameters()))
    assert ("attention_out" in {node.op for node in program.nodes}) == (name in ATTENTION_GROUPS), (
        "only masks and dropout are written out"
    )

    trained = run(repops.Executor(program), state, batches)
    for way, other in ways_to_run(program):
        assert_equal_bits(run(other, state, batches), trained, way)
    walk = repops.Executor(program, threads=2).walk(state, batches[0], roots=True)
    for _ in walk:
        pass
    first = repops.Executor(program).run(state, batches[0])
    assert_equal_bits(walk.state(), first, "node by node")
    assert walk.trace()[-1].tobytes() == state_root([tensor_root(first[s.name]) for s in program.slots])

    start = {k: v.detach().clone() for k, v in trainable(model).items()}
    losses, wanted = train_eagerly(model, batches, optimizer, schedule)
    assert float(trained["loss"]) == pytest.approx(losses[-1], rel=1e-4)
    assert losses[-1] != losses[0]
    for key, value in wanted.items():
        error = np.linalg.norm(trained[key] - value.numpy())
        assert error <= 2e-3 * torch.linalg.vector_norm(value - start[key]) + 1e-6, f"{key}: {error}"


def ways_to_run(program: repops.Program) -> Iterator[tuple[str, repops.Executor]]:
    """Every instruction set, one thread and two, with the fused kernels and node by node."""
    for isa in _kernels.isas():
        for threads in (1, 2):
            for fuse in (True, False):
                way = f"{isa}, {threads} threads, {'' if fuse else 'not '}fused"
                yield way, repops.Executor(program, threads, isa, fuse=fuse)


def run(executor: repops.Executor, state: Arrays, batches: list[Arrays]) -> Arrays:
    """The state after one step with each batch."""
    for batch in batches:
        state = executor.run(state, batch)
    return state


def assert_equal_bits(actual: Arrays, expected: Arrays, way: str) -> None:
    assert list(actual) == list(expected)
    differing = [name for name in expected if actual[name].tobytes() != expected[name].tobytes()]
    assert not differing, f"{way}: {differing}"


def train_eagerly(
    model: nn.Module, batches: list[Arrays], settings: repops.AdamW, schedule: Callable[[int], float]
) -> tuple[list[float], dict[str, Tensor]]:
    """The losses and what the same training with torch's own optimizer and clipping changes; the same dropout masks."""
    optimizer = torch.optim.AdamW(model.parameters(), eps=settings.eps, weight_decay=settings.weight_decay)
    losses = []
    for index, batch in enumerate(batches):
        inputs = {k: v for k, v in batch.items() if not k.startswith(("adam.", "dropout."))}
        optimizer.param_groups[0]["lr"] = schedule(index)
        optimizer.zero_grad()
        with RandomCapture(batch), AttentionCapture(random_only=True):
            loss = model(**inputs).loss
        loss.backward()
        assert torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5) > 0.5, "the gradients are clipped"
        optimizer.step()
        losses.append(loss.item())
    return losses, {k: v.detach() for k, v in trainable(model).items()}


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """What training changes: parameters, running statistics."""
    statistics = {k: v for k, v in model.named_buffers() if "running_" in k}
    return {**dict(model.named_parameters()), **statistics}


def test_a_forward_pass_is_a_program() -> None:
    model = gpt2().eval()
    inputs = {"input_ids": tokens(torch.Generator().manual_seed(5))["input_ids"]}
    step, state = repops.lift_forward(model, inputs, ["logits"])
    program = repops.capture(step, state, inputs)
    changed = [slot.name for i, slot in enumerate(program.slots) if slot.update != repops.Ref.state(i)]
    assert changed == ["logits"]
    outputs = repops.Executor(program).run(state, inputs)
    for way, executor in ways_to_run(program):
        assert_equal_bits(executor.run(state, inputs), outputs, way)
        frozen = executor.freeze(state)
        new = frozen.run({name: state[name] for name in frozen.slots}, inputs)
        assert_equal_bits(new, {"logits": outputs["logits"]}, way)
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(outputs["logits"]), model(**inputs).logits, rtol=1e-4, atol=1e-5)


def generation(model: nn.Module, layers: int, tokens: Tensor) -> tuple[Callable[..., Any], dict[str, Tensor]]:
    """One token of greedy generation as (step, state): the state has the keys and values so far, and the tokens.

    The step with batch {"position": p, "prompt": n} reads the token at p and, if p + 1 >= n, writes the one at p + 1.
    """
    cache_shape = (tokens.shape[0], model.config.n_head, tokens.shape[1], WIDTH // model.config.n_head)
    names = [f"{kind}/{layer}" for layer in range(layers) for kind in ("keys", "values")]
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    state = {**weights, **{name: torch.zeros(cache_shape) for name in names}, "tokens": tokens.clone()}

    def step(state: dict[str, Tensor], batch: dict[str, Tensor]) -> dict[str, Tensor]:
        position, row = batch["position"], state["tokens"]
        cache = transformers.StaticCache(config=model.config, max_cache_len=row.shape[1])
        for index, layer in enumerate(cache.layers):
            layer.keys, layer.values = (state[f"{kind}/{index}"].clone() for kind in ("keys", "values"))
            layer.cumulative_length, layer.is_initialized = position.clone(), True
            layer.device, layer.dtype = row.device, torch.float32
        given = {name: state[name] for name in weights}
        inputs = {"input_ids": row.index_select(1, position.view(1)), "past_key_values": cache, "use_cache": True}
        with torch.no_grad():
            logits = torch.func.functional_call(model, given, (), inputs).logits[:, -1]
        here = (torch.arange(row.shape[1]) == position + 1) & (position + 1 >= batch["prompt"])
        after = {
            f"{kind}/{i}": getattr(layer, kind) for i, layer in enumerate(cache.layers) for kind in ("keys", "values")
        }
        return {**given, **after, "tokens": torch.where(here, logits.argmax(-1, keepdim=True), row)}

    return step, state


def test_generation_with_a_cache() -> None:
    torch.manual_seed(6)
    model = gpt2().eval()
    prompt = torch.randint(3, VOCABULARY, (2, 4))
    step, state = generation(model, 1, torch.cat([prompt, torch.zeros(2, 8, dtype=torch.int64)], 1))
    batches = [{"position": torch.tensor(p), "prompt": torch.tensor(prompt.shape[1])} for p in range(11)]
    program = repops.capture(step, state, batches[5])
    done = run(repops.Executor(program), state, batches)
    for way, executor in ways_to_run(program):
        assert_equal_bits(run(executor, state, batches), done, way)
    wanted = model.generate(prompt, max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0)
    np.testing.assert_array_equal(done["tokens"], wanted.numpy())
