"""csrc/hash: every instruction set against independent keccak and tree definitions, byte for byte."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from eth_utils import keccak
from hypothesis import given, settings
from hypothesis import strategies as st

from repops import _kernels

ISAS = _kernels.hash_isas()
TILE = 1024
CHUNK = 512 * TILE  # tiles that one thread folds at a time


def random_bytes(size: int, seed: int = 7) -> np.ndarray:
    return np.random.default_rng([seed, size]).integers(0, 256, size, dtype=np.uint8)


def naive_levels(leaves: list[bytes], height: int) -> list[list[bytes]]:
    levels = [leaves + [bytes(32)] * (2**height - len(leaves))]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append([keccak(below[i] + below[i + 1]) for i in range(0, len(below), 2)])
    return levels


def naive_tensor_levels(data: bytes) -> list[list[bytes]]:
    leaves = [keccak(data[i : i + TILE].ljust(TILE, b"\0")) for i in range(0, len(data), TILE)]
    height = 0
    while 2**height < len(leaves):
        height += 1
    return naive_levels(leaves, height)


def test_scalar_is_always_there_and_last() -> None:
    assert ISAS[-1] == "scalar"
    assert len(set(ISAS)) == len(ISAS)


@pytest.mark.parametrize("size", [*range(0, 280), 1023, 1024, 1025, 4096, 10_000])
def test_keccak256_of_every_block_boundary(size: int) -> None:
    data = random_bytes(size).tobytes()
    assert _kernels.keccak256(data) == keccak(data)


def test_keccak256_is_not_sha3() -> None:
    assert _kernels.keccak256(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"


# Around the lane widths 4 and 8, tile ends, and more than one chunk (of 128 or 512 tiles) with a partial last tile.
SIZES = [0, 1, 1023, 1024, 1025, *(n * TILE + d for n in (2, 3, 4, 5, 7, 8, 9, 15, 16, 17) for d in (-1, 0, 1)),
         *(CHUNK // 4 + d for d in (-1, 0, 1)), CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5 * TILE + 17]  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
def test_tensor_trees_of_every_isa_and_thread_count(size: int) -> None:
    data = random_bytes(size)
    expected = naive_tensor_levels(data.tobytes())
    for isa in ISAS:
        for threads in (1, 2, 5):
            assert _kernels.tensor_roots([data], threads, isa)[0] == expected[-1][0], (isa, threads)
            levels = _kernels.tensor_levels(data, threads, isa)
            assert len(levels) == len(expected)
            for level, (nodes, full) in enumerate(zip(levels, expected, strict=True)):
                real = -(-size // (TILE << level))
                assert nodes.shape == (real, 32) and nodes.dtype == np.uint8
                assert nodes.tobytes() == b"".join(full[:real]), (isa, threads, level)


@pytest.mark.parametrize("copies", [1, 12])
def test_tensors_in_one_go(copies: int) -> None:
    """12 copies of these sizes are more than 64 chunks: those of several threads then have 512 tiles, too."""
    tensors = [random_bytes(size) for size in SIZES] * copies
    expected = [_kernels.tensor_roots([tensor], 1, "scalar")[0] for tensor in tensors[: len(SIZES)]] * copies
    for isa in ISAS:
        for threads in (1, 2, 5):
            assert _kernels.tensor_roots(tensors, threads, isa) == expected, (isa, threads)
    assert _kernels.tensor_roots([], 2) == []


@pytest.mark.parametrize("isa", ISAS)
def test_every_alignment(isa: str) -> None:
    data = random_bytes(9 * TILE + 64)
    for shift in range(64):
        part = data[shift : shift + 9 * TILE]
        assert _kernels.tensor_roots([part], 1, isa) == _kernels.tensor_roots([part.copy()], 1, "scalar")


@pytest.mark.parametrize("isa", ISAS)
def test_each_lane_is_hashed_by_itself(isa: str) -> None:
    """One flipped bit changes exactly the leaf of its tile, wherever in the tile and in whichever lane it is."""
    data = random_bytes(8 * TILE)
    before = _kernels.tensor_levels(data, 1, isa)[0]
    for tile in range(8):
        for position in (0, 7, 8, 63, 64, 127, 128, 135, 136, 951, 952, 1015, 1016, 1023):
            data[tile * TILE + position] ^= 0x80
            changed = (_kernels.tensor_levels(data, 1, isa)[0] != before).any(axis=1)
            data[tile * TILE + position] ^= 0x80
            assert changed.tolist() == [i == tile for i in range(8)]


@settings(max_examples=60, deadline=None)
@given(count=st.integers(0, 40), extra=st.integers(0, 3), seed=st.integers(0, 2**32), isa=st.sampled_from(ISAS),
       threads=st.integers(1, 3))  # fmt: skip
def test_tree_levels_against_a_padded_tree(count: int, extra: int, seed: int, isa: str, threads: int) -> None:
    leaves = random_bytes(32 * count, seed).reshape(count, 32)
    height = max(count - 1, 0).bit_length() + extra
    expected = naive_levels([leaf.tobytes() for leaf in leaves], height)
    levels = _kernels.tree_levels(leaves, height, threads, isa)
    assert len(levels) == height
    for level, nodes in enumerate(levels, start=1):
        real = -(-count // 2**level)
        assert nodes.tobytes() == b"".join(expected[level][:real])
        assert all(node == _kernels.zero_root(level) for node in expected[level][real:])


def test_many_leaves_by_many_threads() -> None:
    count = 5 * 512 * 2 + 3
    leaves = random_bytes(32 * count).reshape(count, 32)
    expected = naive_levels([leaf.tobytes() for leaf in leaves], 13)
    for isa in ISAS:
        levels = _kernels.tree_levels(leaves, 13, 3, isa)
        assert levels[-1].tobytes() == expected[-1][0], isa


def test_height_beyond_the_leaves_costs_no_padding() -> None:
    leaf = random_bytes(32).reshape(1, 32)
    levels = _kernels.tree_levels(leaf, 64, 1)
    node = leaf.tobytes()
    zero = bytes(32)
    for nodes in levels:
        node, zero = keccak(node + zero), keccak(zero + zero)
        assert nodes.tobytes() == node
    assert _kernels.zero_root(64) == zero
    assert [nodes.shape for nodes in _kernels.tree_levels(np.empty((0, 32), np.uint8), 64, 1)] == [(0, 32)] * 64


def test_a_tensor_larger_than_two_gibibytes() -> None:
    """Zero pages of a sparse mapping: only sizes and offsets beyond 2^31 are large."""
    size = (1 << 31) + 3 * TILE + 5
    data = np.zeros(size, np.uint8)
    data[-1] = 1
    zero_leaf = keccak(bytes(TILE))
    tail = [zero_leaf] * 3 + [keccak(bytes(4) + b"\1" + bytes(TILE - 5))]
    node = naive_levels(tail, 21 - 19)[-1][0]
    left = zero_leaf
    zero = _kernels.zero_root(2)
    for level in range(21):
        if level >= 2:
            node = keccak(node + zero)
            zero = keccak(zero + zero)
        left = keccak(left + left)
    assert _kernels.tensor_roots([data], 2)[0] == keccak(left + node)


def test_the_interpreter_runs_on_while_hashing() -> None:
    data = np.zeros(64 << 20, np.uint8)
    started, counts = threading.Event(), []

    def hash_it() -> None:
        started.set()
        _kernels.tensor_roots([data], 1, "scalar")

    worker = threading.Thread(target=hash_it)
    worker.start()
    started.wait()
    while worker.is_alive():
        counts.append(None)
        worker.join(0.001)
    assert len(counts) > 5


def test_results_live_on_without_the_input() -> None:
    levels = _kernels.tensor_levels(random_bytes(5 * TILE), 1)
    view = _kernels.byte_view(random_bytes(3000))
    assert levels[-1].tobytes() == _kernels.tensor_roots([random_bytes(5 * TILE)], 1)[0]
    assert view.tobytes() == random_bytes(3000).tobytes()
    assert not view.flags.writeable


def test_refusals() -> None:
    data = np.zeros(10, np.uint8)
    leaves = np.zeros((3, 32), np.uint8)
    with pytest.raises(ValueError, match="threads"):
        _kernels.tensor_roots([data], 0)
    with pytest.raises(ValueError, match="sse9"):
        _kernels.tensor_roots([data], 1, "sse9")
    with pytest.raises(ValueError, match="more leaves"):
        _kernels.tree_levels(leaves, 1, 1)
    for height in (-1, 65):
        with pytest.raises(ValueError, match="height"):
            _kernels.tree_levels(leaves, height, 1)
        with pytest.raises(ValueError, match="height"):
            _kernels.zero_root(height)
    for wrong in (np.zeros((3, 31), np.uint8), np.zeros((3, 32), np.int8), np.zeros(32, np.uint8)):
        with pytest.raises(TypeError):
            _kernels.tree_levels(wrong, 5, 1)
    with pytest.raises(TypeError):
        _kernels.tensor_roots([np.zeros((4, 4), np.float32).T[:, 1:]], 1)
