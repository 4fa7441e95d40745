"""The data interface: what is served when, and that nothing is believed that does not hash to its root."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from world import mlp, root_of, training_job

from node.adversaries import Nothing, noise
from node.data import PUBLIC, Embargo, Fetcher, MemoryStore
from node.errors import MissingData, WrongRoot
from repops.commit import ZERO, TensorTree, Tree, claim_tree, state_tree, tensor_root
from repops.dtypes import DType


class Clock:
    """The chain's times, as far as a store is concerned."""

    def __init__(self) -> None:
        self.final = self.latest = 0

    def __call__(self) -> tuple[int, int]:
        return self.final, self.latest


SEALED = Embargo(final=100, latest=200)


class Fixed(Nothing):
    """A source that gives one answer to everything."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def _say(self) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def program(self, root: bytes) -> Mapping[str, bytes]:
        return self._say()

    def tensor(self, root: bytes, size: int) -> bytes:
        return self._say()

    def leaves(self, root: bytes, height: int) -> bytes:
        return self._say()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock)


def numbers(count: int) -> np.ndarray[Any, Any]:
    return np.arange(count, dtype=np.float32)


# ------------------------------------------------------------------------------------------------------------- Embargo


@pytest.mark.parametrize(
    ("early", "late"), [((99, 150), (100, 150)), ((0, 199), (0, 200))], ids=["finalized", "not finalized"]
)
def test_nothing_of_a_claim_is_served_before_its_deadline(
    store: MemoryStore, clock: Clock, early: tuple[int, int], late: tuple[int, int]
) -> None:
    tree = claim_tree([noise("a"), noise("b"), noise("c")])
    store.put_tree(tree, SEALED)
    state_root = store.put_tensors({"w": numbers(5)}, SEALED)
    tensor = tensor_root(numbers(5))
    nodes = Tree([noise(f"state {i}") for i in range(4)])
    store.put_nodes(nodes, SEALED)
    clock.final, clock.latest = early
    for ask in (
        lambda: store.leaves(tree.root, tree.height),
        lambda: store.leaves(state_root, 1),
        lambda: store.tensor(tensor, 20),
        lambda: store.tile(tensor, 20, 0),
        lambda: store.nodes(nodes.root, 2, 2, 0, 1),
    ):
        with pytest.raises(MissingData):
            ask()
    clock.final, clock.latest = late
    assert store.leaves(tree.root, tree.height) == b"".join([noise("a"), noise("b"), noise("c")])
    assert store.leaves(state_root, 1) == tensor
    assert store.tensor(tensor, 20) == numbers(5).tobytes()
    assert store.tile(tensor, 20, 0) == numbers(5).tobytes().ljust(1024, b"\0")
    assert store.nodes(nodes.root, 2, 2, 0, 1) == b"".join(nodes.children(2, 0, 1))


def test_the_answer_before_the_deadline_is_the_answer_to_an_unknown_root(store: MemoryStore) -> None:
    root = store.put_tensor(numbers(5), SEALED)
    with pytest.raises(MissingData) as early:
        store.tensor(root, 20)
    with pytest.raises(MissingData) as unknown:
        store.tensor(noise("nobody has it"), 20)
    assert type(early.value) is type(unknown.value)
    assert early.value.what == unknown.value.what


@pytest.mark.parametrize("embargoes", [(PUBLIC, SEALED), (SEALED, PUBLIC)], ids=["first", "second"])
def test_what_is_public_already_stays_public(store: MemoryStore, embargoes: tuple[Embargo, Embargo]) -> None:
    for embargo in embargoes:
        root = store.put_tensor(numbers(5), embargo)
        store.put_tree(state_tree([root]), embargo)
    assert store.tensor(root, 20) == numbers(5).tobytes()
    assert store.leaves(state_tree([root]).root, 1) == root


def test_a_store_keeps_bytes_not_arrays(store: MemoryStore) -> None:
    array = numbers(5)
    root = store.put_tensor(array)
    array[0] = 7
    assert store.tensor(root, 20) == numbers(5).tobytes()


# --------------------------------------------------------------------------------------------------------- Equal roots


def test_tensors_of_different_sizes_with_one_root_are_told_apart(store: MemoryStore) -> None:
    small, large = np.zeros(1, np.float32), np.zeros((48, 3), np.float32)
    assert store.put_tensor(small) == store.put_tensor(large), "both are one tile of zeros"
    fetcher = Fetcher([store])
    assert fetcher.tensor(tensor_root(small), DType.F32, (1,)).nbytes == 4
    assert fetcher.tensor(tensor_root(small), DType.F32, (48, 3)).nbytes == 576


def test_a_claim_of_one_checkpoint_does_not_hide_the_state_of_the_same_root(store: MemoryStore) -> None:
    state = {"a": numbers(3), "b": numbers(4)}
    store.put_tree(claim_tree([root_of(state)]))
    store.put_tensors(state)
    fetcher = Fetcher([store])
    assert fetcher.leaves(root_of(state), 2, 1) == [tensor_root(numbers(3)), tensor_root(numbers(4))]
    assert fetcher.leaves(root_of(state), 1, 0) == [root_of(state)]


# ------------------------------------------------------------------------------------------------------------ Fetching


def test_a_tensor_is_read_as_it_is_asked_for(store: MemoryStore) -> None:
    array = np.arange(6, dtype=np.int64).reshape(2, 3)
    got = Fetcher([store]).tensor(store.put_tensor(array), DType.I64, (3, 2))
    assert got.dtype == np.int64 and got.shape == (3, 2) and got.tobytes() == array.tobytes()
    got[0, 0] = 9  # its own memory
    assert Fetcher([store]).tensor(tensor_root(array), DType.I64, (2, 3))[0, 0] == 0


@pytest.mark.parametrize(
    "lie",
    [b"", b"\0" * 20, numbers(5).tobytes() + b"\0", numbers(5).tobytes()[:-1], numbers(5)[::-1].tobytes()],
    ids=["nothing", "other bytes", "too long", "too short", "reversed"],
)
def test_wrong_bytes_are_not_believed_and_the_next_source_is_asked(store: MemoryStore, lie: bytes) -> None:
    root = store.put_tensor(numbers(5))
    with pytest.raises(WrongRoot, match=root.hex()):
        Fetcher([Fixed(lie)]).tensor(root, DType.F32, (5,))
    assert Fetcher([Nothing(), Fixed(lie), store]).tensor(root, DType.F32, (5,)).tobytes() == numbers(5).tobytes()


@pytest.mark.parametrize(
    "lie",
    [b"", b"x" * 31, noise("b") + noise("a"), noise("a"), (noise("a") + noise("b")) * 2],
    ids=["nothing", "not words", "other order", "too few", "too many"],
)
def test_wrong_leaves_are_not_believed(lie: bytes) -> None:
    tree = Tree([noise("a"), noise("b")], 1)
    with pytest.raises(WrongRoot):
        Fetcher([Fixed(lie)]).tree(tree.root, 1)


def test_missing_leaves_may_be_left_out_or_not() -> None:
    tree = Tree([noise("a"), noise("b"), noise("c")], 2)
    real = b"".join([noise("a"), noise("b"), noise("c")])
    for content in (real, real + ZERO):
        got = Fetcher([Fixed(content)]).tree(tree.root, 2)
        assert [got.leaf(i) for i in range(4)] == [noise("a"), noise("b"), noise("c"), ZERO]


def test_a_source_that_breaks_is_passed_over(store: MemoryStore) -> None:
    root = store.put_tensor(numbers(5))
    broken = Fixed(ConnectionError("reset"))
    assert Fetcher([broken, store]).tensor(root, DType.F32, (5,)).tobytes() == numbers(5).tobytes()
    assert Fetcher([broken]).verdicts(1) == []


def test_nobody_has_it() -> None:
    with pytest.raises(MissingData):
        Fetcher([Nothing(), Nothing()]).tree(noise("x"), 3)
    with pytest.raises(MissingData):
        Fetcher([]).program(noise("x"))


def test_a_state_comes_home_with_names_dtypes_and_shapes(store: MemoryStore) -> None:
    job = training_job()
    root = store.put_tensors(job.initial)
    got = Fetcher([store]).state(root, job.program)
    assert list(got) == [slot.name for slot in job.program.slots]
    assert {n: (a.dtype, a.shape, a.tobytes()) for n, a in got.items()} == {
        n: (a.dtype, a.shape, a.tobytes()) for n, a in job.initial.items()
    }
    batch_root = store.put_tensors(job.batches[0])
    assert batch_root == job.batch_roots[0]
    assert list(Fetcher([store]).batch(batch_root, job.program)) == ["x", "y", "lr"]


# ------------------------------------------------------------------------------------------------------------ Programs


def test_a_program_comes_home_whole(store: MemoryStore) -> None:
    program = mlp()
    assert store.put_program(program) == program.root
    got = Fetcher([store]).program(program.root)
    assert got.root == program.root
    assert got.constants[0].data.tobytes() == program.constants[0].data.tobytes()


def test_damaged_or_foreign_program_files_are_not_believed(store: MemoryStore) -> None:
    program = mlp()
    root = store.put_program(program)
    good = dict(store.program(root))
    text = good["program.json"]
    lies: list[Mapping[str, bytes]] = [
        {},
        {"constants.safetensors": good["constants.safetensors"]},
        {"program.json": text},
        {**good, "program.json": text[:-1]},
        {**good, "program.json": text.replace(b'"tanh"', b'"relu"', 1)},
        {**good, "program.json": text.replace(root.hex().encode(), noise("root").hex().encode())},
        {**good, "constants.safetensors": good["constants.safetensors"][:-1]},
        {**good, "../escape": b"x"},
        {**good, "extra.pkl": b"x"},
    ]
    for lie in lies:
        with pytest.raises(WrongRoot):
            Fetcher([Fixed(lie)]).program(root)
    with pytest.raises(WrongRoot, match="the files are those of the program"):
        Fetcher([Fixed(good)]).program(noise("another program"))


# --------------------------------------------------------------------------------------------------------------- Tiles


def test_tiles_are_served_by_their_tensor_and_checked_by_their_hash(store: MemoryStore) -> None:
    array = numbers(700)
    tree = TensorTree(array)
    store.put_tensor(array)
    fetcher = Fetcher([Nothing(), store])
    for index in range(tree.count):
        assert fetcher.tile(tree.root, array.nbytes, index, tree.leaf(index)) == tree.tile(index)
    for index in (-1, tree.count):
        with pytest.raises(MissingData):
            fetcher.tile(tree.root, array.nbytes, index, tree.leaf(0))
    with pytest.raises(WrongRoot, match="not the tile"):
        fetcher.tile(tree.root, array.nbytes, 0, tree.leaf(1))


def test_only_nodes_that_exist_are_served_and_no_more_than_a_few_levels(store: MemoryStore) -> None:
    tree = Tree([noise(f"leaf {i}") for i in range(3)], 8)
    store.put_nodes(tree)
    assert store.nodes(tree.root, 8, 8, 0, 6) == b"".join(tree.children(8, 0, 6))
    for level, index, m in ((8, 1, 1), (9, 0, 1), (8, 0, 7), (2, 0, 3), (8, 0, -1), (-1, 0, 0)):
        with pytest.raises(MissingData):
            store.nodes(tree.root, 8, level, index, m)
