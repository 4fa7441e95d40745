"""repops.commit: the committed vectors, and properties against the padded trees of an independent oracle."""

from __future__ import annotations

import array
import importlib.util
import json
import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repops import commit
from repops.commit import ZERO, Divergence, TensorTree, Tree, keccak256
from repops.dtypes import DType
from repops.errors import CommitmentError, TensorError

ROOT = Path(__file__).parents[2]


def load_oracle() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_vectors", ROOT / "scripts" / "build_vectors.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


oracle = load_oracle()
VECTORS: dict[str, Any] = json.loads((ROOT / "tests" / "vectors" / "commitments.json").read_text())


def rows(name: str, flat: str | None = None) -> list[dict[str, Any]]:
    """The cases of a table, hex as bytes, the ragged column sliced."""
    table = dict(VECTORS[name])
    ragged = table.pop(flat) if flat else []
    cases = [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
    for case in cases:
        if flat:
            case[flat] = ragged[case["offset"] : case["offset"] + case["count"]]
        for key, value in case.items():
            if isinstance(value, list):
                case[key] = [bytes.fromhex(word[2:]) for word in value]
            elif isinstance(value, str) and value.startswith("0x"):
                case[key] = bytes.fromhex(value[2:])
    assert cases
    return cases


# ---- vectors --------------------------------------------------------------------------------------------------------


def test_the_vector_file_is_what_the_script_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["build_vectors.py", "--check"])
    assert oracle.main() == 0


def test_check_notices_a_stale_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "commitments.json").write_text("{}\n")
    monkeypatch.setattr(oracle, "DIRECTORY", tmp_path)
    monkeypatch.setattr(sys, "argv", ["build_vectors.py", "--check"])
    assert oracle.main() == 1
    assert "commitments.json" in capsys.readouterr().err


def test_vectors_keccak() -> None:
    for case in rows("keccak"):
        assert keccak256(case["data"]) == case["hash"]


def test_vectors_zeros() -> None:
    assert [commit.zero_root(level) for level in range(65)] == [bytes.fromhex(word[2:]) for word in VECTORS["zeros"]]


def test_vectors_tensor() -> None:
    seen = set()
    for case in rows("tensor"):
        dtype = DType.parse(case["dtype"])
        data = np.frombuffer(case["data"], dtype.numpy)
        assert len(data) == case["elements"]
        tree = TensorTree(data)
        assert commit.tensor_root(data) == tree.root == case["root"]
        assert tree.height == case["height"]
        seen.add(dtype)
    assert seen == set(DType) - {DType.ROOT}


def test_vectors_tree() -> None:
    for case in rows("tree", "leaves"):
        assert Tree(case["leaves"], case["height"]).root == case["root"]


def test_vectors_proof() -> None:
    outcomes = set()
    for case in rows("proof", "siblings"):
        arguments = (case["root"], case["height"], case["index"], case["leaf"], case["siblings"])
        assert commit.verify_proof(*arguments) is case["valid"], case
        outcomes.add(case["valid"])
    assert outcomes == {True, False}


def test_vectors_structure() -> None:
    trees = {"state": commit.state_tree, "batch": commit.batch_tree, "data": commit.data_tree}
    trees |= {"constants": commit.constants_tree, "claim": commit.claim_tree, "trace": commit.trace_tree}
    root_of = {"state": commit.state_root, "batch": commit.batch_root, "data": commit.data_root}
    root_of["constants"] = commit.constants_root
    for case in rows("structure", "roots"):
        tree = trees[case["kind"]](case["roots"])
        assert (tree.root, tree.height, tree.count) == (case["root"], case["height"], case["count"])
        if case["kind"] in root_of:
            assert root_of[case["kind"]](case["roots"]) == case["root"]


def test_vectors_hash_nodes() -> None:
    states = {case["count"]: case["roots"] for case in rows("structure", "roots") if case["kind"] == "state"}
    cases = [case for case in rows("hashNodes", "values") if case["slots"] in states]
    assert len(cases) >= 5
    for case in cases:
        values = commit.hash_node_roots(states[case["slots"]])
        assert values.dtype == np.uint8 and values.tobytes() == b"".join(case["values"])
        assert values[-1].tobytes() == case["root"]


def test_vectors_divergence() -> None:
    outcomes = set()
    for case in rows("divergence", "siblings"):
        arguments = [case[key] for key in ("nodeA", "nodeB", "m", "index", "a", "b", "siblings")]
        assert commit.verify_divergence(*arguments) is case["valid"], case["name"]
        outcomes.add(case["name"])
    assert len(outcomes) == 10


# ---- tensors --------------------------------------------------------------------------------------------------------


TORCH = {DType.F32: torch.float32, DType.BF16: torch.bfloat16, DType.F16: torch.float16, DType.I64: torch.int64,
         DType.I32: torch.int32, DType.BOOL: torch.bool}  # fmt: skip


@pytest.mark.parametrize("dtype", TORCH)
def test_torch_and_numpy_agree_on_every_dtype(dtype: DType) -> None:
    tensor = torch.arange(3000).reshape(50, 60).remainder(7).to(TORCH[dtype])
    plain = tensor.view(torch.int16).numpy().view(np.uint16) if dtype is DType.BF16 else tensor.numpy()
    expected = oracle.tensor_root_of(plain.tobytes())
    for form in (tensor, plain, plain.tobytes(), bytearray(plain.tobytes()), plain.reshape(60, 50)):
        assert commit.tensor_root(form) == expected
        assert TensorTree(form).root == expected
    transposed = oracle.tensor_root_of(plain.T.tobytes())
    assert commit.tensor_root(tensor.T) == commit.tensor_root(plain.T) == transposed != expected


def test_other_carriers_of_a_tensor() -> None:
    data = np.arange(500, dtype=np.float32)

    class OnlyDlpack:
        def __dlpack__(self, **options: Any) -> Any:
            return data.__dlpack__(**options)

        def __dlpack_device__(self) -> Any:
            return data.__dlpack_device__()

    frozen = data.copy()
    frozen.flags.writeable = False
    expected = oracle.tensor_root_of(data.tobytes())
    for form in (
        OnlyDlpack(),
        frozen,
        array.array("f", data.tolist()),
        memoryview(data),
        torch.from_numpy(data.copy()).requires_grad_(),
        torch.from_numpy(data.copy()).view(torch.uint8),
        np.ndarray(500, np.float32, b"\0" + data.tobytes(), offset=1),
    ):
        assert commit.tensor_root(form) == expected


def test_a_tensor_is_hashed_from_its_own_memory() -> None:
    data = np.zeros(4096, np.float32)
    tree = TensorTree(data)
    data[0] = 1
    assert tree.tile(0) == data[:256].tobytes()


@settings(max_examples=60, deadline=None)
@given(size=st.integers(0, 6000), seed=st.integers(0, 2**32))
def test_tensor_trees_open_every_tile(size: int, seed: int) -> None:
    data = random.Random(seed).randbytes(size)
    tree = TensorTree(data)
    tiles = oracle.tiles_of(data)
    assert (tree.nbytes, tree.count, tree.height) == (size, len(tiles), commit.height(len(tiles)))
    assert tree.root == oracle.tensor_root_of(data) == commit.tensor_root(data)
    for index, tile in enumerate(tiles):
        assert tree.tile(index) == tile and tree.leaf(index) == oracle.keccak(tile)
        assert commit.verify_proof(tree.root, tree.height, index, keccak256(tile), tree.prove(index))
    for index in (-1, len(tiles)):
        with pytest.raises(CommitmentError, match="tile"):
            tree.tile(index)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (4, 0, 2)])
def test_no_elements_no_tree(shape: tuple[int, ...]) -> None:
    for empty in (np.zeros(shape, np.float32), torch.zeros(shape)):
        tree = TensorTree(empty)
        assert (tree.root, tree.height, tree.count) == (ZERO, 0, 0) and commit.tensor_root(empty) == ZERO


def test_refused_tensors() -> None:
    for wrong in (5, 1.5, None, "text", [1, 2], np.zeros(3), np.zeros(3, ">f4"), np.zeros(3, np.complex64),
                  np.array(["a"]), torch.zeros(3, dtype=torch.float64), array.array("d", [1.0])):  # fmt: skip
        with pytest.raises(TensorError):
            commit.tensor_root(wrong)
        with pytest.raises(TensorError):
            TensorTree(wrong)
    with pytest.raises(CommitmentError, match="0 threads"):
        commit.tensor_root(b"", threads=0)


# ---- trees ----------------------------------------------------------------------------------------------------------


def distinct(count: int, seed: int) -> list[bytes]:
    return [keccak256(f"{seed}/{i}".encode()) for i in range(count)]


@settings(max_examples=80, deadline=None)
@given(count=st.integers(0, 33), extra=st.integers(0, 2), seed=st.integers(0, 2**32))
def test_trees_equal_padded_trees(count: int, extra: int, seed: int) -> None:
    leaves = distinct(count, seed)
    height = oracle.height_of(count) + extra
    full = oracle.levels_of(leaves, height)
    tree = Tree(leaves, height)
    assert (tree.root, tree.height, tree.count) == (full[-1][0], height, count)
    assert tree.leaves().tobytes() == b"".join(leaves) and not tree.leaves().flags.writeable
    for level in range(height + 1):
        assert [tree.node(level, i) for i in range(2 ** (height - level))] == full[level]
        for m in range(level + 1):
            joined = [child for i in range(2 ** (height - level)) for child in tree.children(level, i, m)]
            assert joined == full[level - m]
    for index in range(2**height):
        proof = tree.prove(index)
        assert proof == oracle.siblings_of(full, index)
        assert commit.verify_proof(tree.root, height, index, full[0][index], proof)


@settings(max_examples=150, deadline=None)
@given(count=st.integers(1, 20), extra=st.integers(0, 2), seed=st.integers(0, 2**32), data=st.data())
def test_no_changed_proof_verifies(count: int, extra: int, seed: int, data: st.DataObject) -> None:
    tree = Tree(distinct(count, seed), commit.height(count) + extra)
    index = data.draw(st.integers(0, count - 1))
    leaf, proof = tree.leaf(index), tree.prove(index)
    words = [leaf, *proof]
    position = data.draw(st.integers(0, len(words) - 1))
    byte, bit = data.draw(st.integers(0, 31)), data.draw(st.integers(0, 7))
    flipped = bytearray(words[position])
    flipped[byte] ^= 1 << bit
    words[position] = bytes(flipped)
    assert not commit.verify_proof(tree.root, tree.height, index, words[0], words[1:])
    other = data.draw(st.integers(0, 2**tree.height - 1))
    assert commit.verify_proof(tree.root, tree.height, other, leaf, proof) is (other == index)
    assert not commit.verify_proof(tree.root, tree.height + 1, index, leaf, proof)


def test_strangers_input_is_refused_without_an_error() -> None:
    tree = Tree(distinct(4, 1))
    leaf, proof = tree.leaf(1), tree.prove(1)
    assert commit.verify_proof(tree.root, 2, 1, leaf, proof)
    # The same 64 bytes cut elsewhere would hash to the same parent.
    joined = proof[0] + leaf
    for cut in (0, 31, 33, 64):
        assert not commit.verify_proof(tree.root, 2, 1, joined[cut:], [joined[:cut], proof[1]])
    assert not commit.verify_proof(tree.root, 1, 0, tree.node(0, 0) + tree.node(0, 1), [tree.node(1, 1)])
    for index in (-1, -3, 4, 5, 2**70):
        assert not commit.verify_proof(tree.root, 2, index, leaf, proof)
    assert not commit.verify_proof(tree.root, -1, 0, leaf, [])
    assert not commit.verify_proof(tree.root, 2, 1, None, proof)  # type: ignore[arg-type]
    assert not commit.verify_divergence(tree.root, ZERO, 10**12, 0, leaf, ZERO, [])
    assert not commit.verify_divergence(tree.root, ZERO, -1, 0, leaf, ZERO, [])
    assert not commit.verify_divergence(tree.root, ZERO, 0, 0, tree.root, b"", [])
    assert commit.verify_divergence(tree.root, ZERO, 0, 0, tree.root, ZERO, [])


def test_leaves_are_copied_and_may_be_an_array() -> None:
    leaves = distinct(5, 2)
    block = np.frombuffer(bytearray(b"".join(leaves)), np.uint8).reshape(5, 32)
    tree = Tree(block)
    block[:] = 0
    assert tree.root == Tree(leaves).root and tree.leaf(4) == leaves[4]
    assert not tree.leaves().flags.writeable
    assert Tree(np.frombuffer(b"".join(leaves * 2), np.uint8).reshape(10, 32)[::2]).root != ZERO


def test_trees_of_great_height_are_cheap() -> None:
    tree = Tree(distinct(3, 3), 40)
    proof = tree.prove(2**39 + 5)
    assert commit.verify_proof(tree.root, 40, 2**39 + 5, ZERO, proof)
    assert Tree([], 64).root == commit.zero_root(64)


def test_refused_trees_and_requests() -> None:
    tree = Tree(distinct(3, 4))
    requests = [
        lambda: Tree([b"short"]), lambda: Tree([bytes(33)]), lambda: Tree(["x" * 32]), lambda: Tree([bytes(32)] * 3, 1),
        lambda: Tree([], 65), lambda: Tree([], -1), lambda: Tree(np.zeros((2, 31), np.uint8)),
        lambda: Tree(np.zeros((2, 32), np.int8)), lambda: Tree([], threads=0), lambda: tree.node(3, 0),
        lambda: tree.node(-1, 0), lambda: tree.node(1, 2), lambda: tree.leaf(4), lambda: tree.leaf(-1),
        lambda: tree.prove(4), lambda: tree.children(1, 0, 2), lambda: tree.children(1, 0, -1),
        lambda: commit.height(-1), lambda: commit.zero_root(65),
        lambda: commit.hash_pair(bytes(31), bytes(33)), lambda: commit.data_root([]),
        lambda: commit.claim_tree([]), lambda: commit.segment_tree([]), lambda: commit.trace_tree([]),
    ]  # fmt: skip
    for request in requests:
        with pytest.raises(CommitmentError):
            request()


def test_heights() -> None:
    assert [commit.height(n) for n in (0, 1, 2, 3, 4, 5, 8, 9, 2**40, 2**40 + 1)] == [0, 0, 1, 2, 2, 3, 3, 4, 40, 41]


# ---- divergence -----------------------------------------------------------------------------------------------------


def check(proof: Divergence, a: Tree, b: Tree, level: int, index: int) -> None:
    assert commit.verify_divergence(
        a.node(level, index), b.node(level, index), proof.m, proof.index, proof.a, proof.b, proof.siblings
    )
    assert not commit.verify_divergence(
        b.node(level, index), a.node(level, index), proof.m, proof.index, proof.a, proof.b, proof.siblings
    )


@settings(max_examples=150, deadline=None)
@given(
    counts=st.tuples(st.integers(1, 40), st.integers(1, 40)), common=st.integers(0, 40), arity=st.integers(1, 6),
    seed=st.integers(0, 2**32), resume=st.booleans(),
)  # fmt: skip
def test_a_played_level_ends_at_the_first_difference(
    counts: tuple[int, int], common: int, arity: int, seed: int, resume: bool
) -> None:
    """A descent by alternating moves ends where the one-transaction form and the comparison of leaves end."""
    draw = random.Random(seed)
    leaves_a, leaves_b = distinct(counts[0], seed), distinct(counts[1], seed + 1)
    leaves_b[:common] = leaves_a[: min(common, len(leaves_b))]
    if resume and len(leaves_b) <= len(leaves_a):
        leaves_b[-1] = leaves_a[len(leaves_b) - 1]
    height = commit.height(max(counts)) + draw.randrange(2)
    a, b = Tree(leaves_a, height), Tree(leaves_b, height)
    if a.root == b.root:
        with pytest.raises(CommitmentError, match="equal"):
            commit.divergence_between(a, b, height, 0)
        return
    expected = next(i for i in range(2**height) if a.leaf(i) != b.leaf(i))

    whole = commit.divergence_between(a, b, height, 0)
    assert (whole.m, whole.index, whole.a, whole.b) == (height, expected, a.leaf(expected), b.leaf(expected))
    check(whole, a, b, height, 0)

    rest, position, mover_is_a = height, 0, False
    while rest:
        m = min(arity, rest)
        mine, other = (a, b) if mover_is_a else (b, a)
        proof = commit.divergence_proof(mine, rest, position, other.children(rest, position, m), mine_is_a=mover_is_a)
        assert proof == commit.divergence_between(a, b, rest, position, m)
        assert proof.index == commit.first_difference(a.children(rest, position, m), b.children(rest, position, m))
        check(proof, a, b, rest, position)
        rest, position, mover_is_a = rest - m, position << m | proof.index, not mover_is_a
        assert (proof.a, proof.b) == (a.node(rest, position), b.node(rest, position))
    assert position == expected


@settings(max_examples=150, deadline=None)
@given(m=st.integers(1, 5), seed=st.integers(0, 2**32), data=st.data())
def test_no_later_difference_and_no_changed_proof_verifies(m: int, seed: int, data: st.DataObject) -> None:
    leaves_a, leaves_b = distinct(2**m, seed), distinct(2**m, seed + 1)
    first = data.draw(st.integers(0, 2**m - 1))
    leaves_b[:first] = leaves_a[:first]
    full_a, full_b = oracle.levels_of(leaves_a, m), oracle.levels_of(leaves_b, m)
    roots = (full_a[-1][0], full_b[-1][0])
    index = data.draw(st.integers(0, 2**m - 1))
    for left in ((full_a, full_b), (full_b, full_a)):
        siblings = oracle.divergence_of(*left, index)
        verdict = commit.verify_divergence(*roots, m, index, leaves_a[index], leaves_b[index], siblings)
        # At the first difference the left siblings are shared; the order of a left turn's two words is still A, then B.
        assert verdict is (index == first and (left[0] is full_a or index == 2**m - 1))
    siblings = oracle.divergence_of(full_a, full_b, first)
    position = data.draw(st.integers(0, len(siblings) - 1))
    flipped = bytearray(siblings[position])
    flipped[data.draw(st.integers(0, 31))] ^= 1 << data.draw(st.integers(0, 7))
    changed = [*siblings[:position], bytes(flipped), *siblings[position + 1 :]]
    assert commit.verify_divergence(*roots, m, first, leaves_a[first], leaves_b[first], siblings)
    assert not commit.verify_divergence(*roots, m, first, leaves_a[first], leaves_b[first], changed)


def test_refused_divergences() -> None:
    a, b = Tree(distinct(8, 5)), Tree(distinct(8, 6))
    requests = [
        lambda: commit.divergence_between(a, Tree(distinct(8, 6), 4), 3, 0),
        lambda: commit.divergence_between(a, b, 4, 0),
        lambda: commit.divergence_between(a, b, 3, 1),
        lambda: commit.divergence_between(a, b, 2, 0, 3),
        lambda: commit.divergence_between(a, a, 3, 0),
        lambda: commit.divergence_proof(a, 3, 0, b.children(3, 0, 2)[:3], mine_is_a=True),
        lambda: commit.divergence_proof(a, 3, 0, [b.root], mine_is_a=True),
        lambda: commit.divergence_proof(a, 1, 0, b.children(3, 0, 2), mine_is_a=True),
        lambda: commit.divergence_proof(a, 3, 0, a.children(3, 0, 2), mine_is_a=True),
        lambda: commit.first_difference([ZERO], [ZERO, ZERO]),
        lambda: commit.first_difference([ZERO], [ZERO]),
    ]
    for request in requests:
        with pytest.raises(CommitmentError):
            request()
