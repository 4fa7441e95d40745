"""Finds the groups of nodes that one fused kernel computes at once, with the nodes' own bits.

A group is found from one of its operators, mostly the last (`Operator.fused` in the table). Its inside is never stored,
so nobody outside may read it; its call stands where its last node stood, so nobody may read an output before that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from repops.dtypes import DType
from repops.graph.ir import Input, Node, Program, Ref, RefKind, element_count
from repops.ops.table import OPERATORS


@dataclass(frozen=True, slots=True)
class Group:
    """One fused call: its kernel, the nodes it replaces, what it reads, the nodes whose outputs it writes."""

    name: str
    nodes: frozenset[int]
    inputs: tuple[Input, ...]
    outputs: tuple[int, ...]
    params: tuple[int, ...] = ()
    literals: tuple[int, ...] = ()
    over: Mapping[int, frozenset[Ref]] = field(
        default_factory=dict
    )  # for an output the inputs whose memory it may take

    @property
    def last(self) -> int:
        """The node in whose place the call stands."""
        return max(self.nodes)


def find_groups(program: Program, available: Iterable[str]) -> list[Group]:
    """The groups of a checked program for which there is a kernel, none with a node of its own in another."""
    kernels = set(available)
    graph = Graph(program)
    found: list[Group] = []
    taken: set[int] = set()
    for index, node in enumerate(program.nodes):
        name = OPERATORS[node.op].fused
        group = _MATCHERS[name](graph, index) if name in kernels else None
        if group is None or group.nodes & taken:
            continue
        if graph.nobody_reads_early(group) and graph.computes_in_f32(group):
            found.append(group)
            taken |= group.nodes
    found += _joined_links(graph, taken) if kernels else []
    # A group may go only if what is inside it is read inside groups alone; giving one up may take others along.
    while True:
        inside = frozenset().union(*(g.nodes for g in found)) if found else frozenset()
        kept = [g for g in found if all(graph.readers(i) <= inside for i in g.nodes - set(g.outputs))]
        if len(kept) == len(found):
            return found
        found = kept


def _joined_links(graph: Graph, taken: set[int]) -> list[Group]:
    """Folds of several links, none of them taken, as one call of their operator over all terms."""
    nodes = graph.program.nodes
    joined: list[Group] = []
    seen = set(taken)
    for index in reversed(range(len(nodes))):
        node = nodes[index]
        links = graph.links(index) if node.op in _FOLDS and index not in seen else None
        if links is not None and len(links) > 1 and not seen.intersection(links):
            seen.update(links)
            params = (*node.params[:-2], 0, node.params[-1])
            joined.append(Group(node.op, frozenset(links), node.inputs[:-1], (index,), params))
    return joined


_FOLDS = {"sum", "amax", "sum_sq", "sum_mul", "sum_sq_centered", "sum_exp", "sum_mul_normalized"}


class Graph:
    """Who reads which node."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._readers: dict[Ref, set[int]] = {}
        for index, node in enumerate(program.nodes):
            for item in node.inputs:
                self._readers.setdefault(item.ref, set()).add(index)
        for slot in program.slots:
            self._readers.setdefault(slot.update, set()).add(len(program.nodes))

    def readers(self, index: int) -> set[int]:
        """The nodes that read a node; the number of nodes stands for the new state."""
        return self._readers.get(Ref.node(index), set())

    def computes_in_f32(self, group: Group) -> bool:
        """Whether what the group's own nodes read of each other is f32: a fused kernel does not round inside."""
        nodes = self.program.nodes
        return all(nodes[i].dtype is DType.F32 for i in group.nodes if self.readers(i) & group.nodes)

    def nobody_reads_early(self, group: Group) -> bool:
        """Whether every reader of an output that is outside the group comes after the group's last node."""
        return all(reader > group.last for i in group.outputs for reader in self.readers(i) - group.nodes)

    def node(self, item: Input, op: str) -> tuple[int, Node] | None:
        """The node that an input refers to, if it is of this operator."""
        if item.ref.kind is RefKind.NODE and self.program.nodes[item.ref.index].op == op:
            return item.ref.index, self.program.nodes[item.ref.index]
        return None

    def only_reader(self, index: int, op: str, besides: Iterable[int] = ()) -> int | None:
        """The one node that reads a node, if it is of this operator; not counting some."""
        readers = self.readers(index) - set(besides)
        reader = readers.pop() if len(readers) == 1 else len(self.program.nodes)
        return reader if reader < len(self.program.nodes) and self.program.nodes[reader].op == op else None

    def operands(self, item: Input, op: str, *ops: str) -> tuple[int, tuple[Input, ...]] | None:
        """The node that an input refers to and its inputs, if it is of this operator and they of the others, "" any."""
        found = self.node(item, op)
        if found is None:
            return None
        inputs = found[1].inputs
        fit = all(not other or self.node(x, other) for x, other in zip(inputs, ops, strict=True))
        return (found[0], inputs) if fit else None

    def links(self, last: int) -> tuple[int, ...] | None:
        """The links of the fold over all terms that ends in a node: each but the first has the one before as carry."""
        nodes = self.program.nodes
        found = [last]
        while nodes[found[0]].params[-2]:
            link = nodes[found[0]]
            carry = self.node(link.inputs[-1], link.op)
            follows = carry is not None and carry[1].params[:-2] == link.params[:-2]
            if carry is None or not follows or carry[1].params[-1] != link.params[-2]:
                return None
            own = link.inputs[:-1] if carry[1].params[-2] == 0 else (*link.inputs[:-1], carry[1].inputs[-1])
            if carry[1].inputs != own:
                return None
            found.insert(0, carry[0])
        return tuple(found)

    def over_rows(self, item: Input, op: str, length: int) -> tuple[tuple[int, ...], Node] | None:
        """The reduction of rows of this length, which are its inputs' last axis: its links and the last of them."""
        found = self.node(item, op)
        links = self.links(found[0]) if found is not None else None
        if found is None or links is None:
            return None
        node = found[1]
        rank = len(node.shape)
        whole = node.params[:2] == (1, rank - 1) and node.params[-1] == length
        rows = node.inputs[0].shape[-1:] == (length,) and len(node.inputs[0].shape) == rank
        return (links, node) if whole and rows else None

    def over_columns(self, op: str, terms: Sequence[Input], rows: int, length: int) -> tuple[int, ...] | None:
        """The links of the reduction of these inputs over their rows."""
        for index in sorted(self._readers.get(terms[0].ref, ())):
            node = self.program.nodes[index] if index < len(self.program.nodes) else None
            if node is None or node.op != op or node.shape != (1, length):
                continue
            read, shapes = node.inputs[: len(terms)], {(rows, length), (rows, 1)}
            same = [i.ref for i in read] == [i.ref for i in terms] and {i.shape for i in read} <= shapes
            links = self.links(index)
            if same and links is not None and node.params[:2] == (1, 0) and node.params[-1] == rows:
                return links
        return None

    def divided(self, item: Input, count: int) -> tuple[int, Node] | None:
        """div by a fill of a number, whose pattern is given."""
        found = self.node(item, "div")
        if found is None:
            return None
        fill = self.node(found[1].inputs[1], "fill")
        same = fill is not None and fill[1].literals == (count,) and fill[1].dtype is DType.F32
        return found if same else None


def _one_per_row(item: Input, rows: int) -> bool:
    return item.shape == (rows, 1) or (rows == 1 and element_count(item.shape) == 1)


def _is_rows(item: Input, rows: int, length: int) -> bool:
    return item.shape == (rows, length) or (rows == 1 and item.shape == (length,))


def _layer_norm_forward(graph: Graph, index: int) -> Group | None:
    """sum, div, sum_sq_centered, rstd, layer_norm -> out, mean, rstd."""
    x, mean_in, rstd_in, w, b = graph.program.nodes[index].inputs
    length = element_count(w.shape)
    rows = element_count(x.shape) // max(length, 1)
    rstd = graph.node(rstd_in, "rstd")
    if rstd is None or not length or w.shape != (length,) or b.shape != (length,) or not _is_rows(x, rows, length):
        return None
    mean = graph.divided(mean_in, rstd[1].literals[0])
    ssq = graph.over_rows(rstd[1].inputs[0], "sum_sq_centered", length)
    total = graph.over_rows(mean[1].inputs[0], "sum", length) if mean else None
    if mean is None or ssq is None or total is None:
        return None
    same = ssq[1].inputs[0].ref == total[1].inputs[0].ref == x.ref and ssq[1].inputs[1].ref == mean_in.ref
    if not same or not _one_per_row(mean_in, rows) or not _one_per_row(rstd_in, rows):
        return None
    nodes = frozenset({index, mean[0], rstd[0], *ssq[0], *total[0]})
    return Group("layer_norm_forward", nodes, (x, w, b), (index, mean[0], rstd[0]), literals=rstd[1].literals)


def _layer_norm_backward(graph: Graph, index: int) -> Group | None:
    """c1 and c2 with their sums, mul(dy, w), layer_norm_grad -> dx."""
    dy, x, mean, rstd, w, c1_in, c2_in = graph.program.nodes[index].inputs
    length = element_count(w.shape)
    rows = element_count(x.shape) // max(length, 1)
    c1, c2 = graph.node(c1_in, "div"), graph.node(c2_in, "div")
    if c1 is None or c2 is None or not length or w.shape != (length,):
        return None
    fill = graph.node(c1[1].inputs[1], "fill")
    dot = graph.over_rows(c1[1].inputs[0], "sum_mul", length)
    normalized = graph.over_rows(c2[1].inputs[0], "sum_mul_normalized", length)
    product = graph.node(normalized[1].inputs[0], "mul") if normalized else None
    if fill is None or dot is None or normalized is None or product is None:
        return None
    if graph.divided(c2_in, fill[1].literals[0]) is None:
        return None
    refs = [i.ref for i in normalized[1].inputs[1:4]]
    same = refs == [x.ref, mean.ref, rstd.ref] and [i.ref for i in dot[1].inputs[:2]] == [dy.ref, w.ref]
    same = same and [i.ref for i in product[1].inputs] == [dy.ref, w.ref] and product[1].inputs[1].shape == (length,)
    rowwise = all(_one_per_row(i, rows) for i in (mean, rstd, c1_in, c2_in))
    if not (same and rowwise and _is_rows(x, rows, length) and _is_rows(dy, rows, length)):
        return None
    nodes = frozenset({index, c1[0], c2[0], *dot[0], *normalized[0], product[0]})
    outputs: tuple[int, ...] = (index,)
    dw = graph.over_columns("sum_mul_normalized", (dy, x, mean, rstd), rows, length)
    db = graph.over_columns("sum", (dy,), rows, length)
    if dw is not None and db is not None:
        nodes |= {*dw, *db}
        outputs = (index, dw[-1], db[-1])
    over = {index: _places(graph, index, dy, x)}
    return Group("layer_norm_backward", nodes, (dy, x, mean, rstd, w), outputs, literals=fill[1].literals, over=over)


def _softmax(name: str) -> Callable[[Graph, int], Group | None]:
    """amax, sum_exp, softmax or log_softmax -> out, max, sum."""

    def match(graph: Graph, index: int) -> Group | None:
        x, m_in, s_in = graph.program.nodes[index].inputs
        length = x.shape[-1] if x.shape else 0
        rows = element_count(x.shape) // max(length, 1)
        m, s = graph.over_rows(m_in, "amax", length), graph.over_rows(s_in, "sum_exp", length)
        if not length or m is None or s is None or not _is_rows(x, rows, length):
            return None
        same = m[1].inputs[0].ref == s[1].inputs[0].ref == x.ref and s[1].inputs[1].ref == m_in.ref
        if not same or not _one_per_row(m_in, rows) or not _one_per_row(s_in, rows):
            return None
        nodes = frozenset({index, *m[0], *s[0]})
        over = {index: _places(graph, index, x)}
        return Group(name, nodes, (x,), (index, m[0][-1], s[0][-1]), over=over)

    return match


def _places(graph: Graph, index: int, *inputs: Input) -> frozenset[Ref]:
    """The inputs whose memory an output of as many f32 elements may take."""
    f32 = graph.program.nodes[index].dtype is DType.F32
    return frozenset(x.ref for x in inputs if f32 and x.dtype is DType.F32)


def _softmax_backward(graph: Graph, index: int) -> Group | None:
    """mul(sub(dy, sum of dy * y), y) -> dx."""
    centred_in, y = graph.program.nodes[index].inputs
    centred = graph.operands(centred_in, "sub", "", "sum_mul")
    if centred is None:
        return None
    dy, total = centred[1]
    sums = _row_sums(graph, total, "sum_mul", (dy, y), (centred_in,))
    if sums is None:
        return None
    nodes = frozenset({index, centred[0], *sums})
    return Group("softmax_backward", nodes, (dy, y), (index,), over={index: _places(graph, index, dy, y)})


def _log_softmax_backward(graph: Graph, index: int) -> Group | None:
    """sub(dy, exp(y) * sum of dy) -> dx. Found from exp."""
    nodes = graph.program.nodes
    (y,) = nodes[index].inputs
    scaled = graph.only_reader(index, "mul")
    dx = graph.only_reader(scaled, "sub") if scaled is not None else None
    if scaled is None or dx is None:
        return None
    (exp_in, total), (dy, scaled_in) = nodes[scaled].inputs, nodes[dx].inputs
    sums = _row_sums(graph, total, "sum", (dy,), (y, exp_in, scaled_in))
    if sums is None or exp_in.ref != Ref.node(index) or scaled_in.ref != Ref.node(scaled):
        return None
    inside = frozenset({index, scaled, dx, *sums})
    return Group("log_softmax_backward", inside, (dy, y), (dx,), over={dx: _places(graph, dx, dy, y)})


def _row_sums(
    graph: Graph, total: Input, op: str, terms: Sequence[Input], others: Sequence[Input]
) -> tuple[int, ...] | None:
    """The links of a sum of each row over these inputs, if all have its shape, and so have others."""
    shape = terms[0].shape
    length = shape[-1] if shape else 0
    rows = element_count(shape) // max(length, 1)
    sums = graph.over_rows(total, op, length) if length else None
    if sums is None or not _one_per_row(total, rows):
        return None
    read = sums[1].inputs[: len(terms)]
    same = [i.ref for i in read] == [i.ref for i in terms]
    return sums[0] if same and all(_is_rows(i, rows, length) for i in (*terms, *read, *others)) else None


def _attention_forward(graph: Graph, index: int) -> Group | None:
    """attention_scores, attention_max, attention_sum, attention_out -> out, max, sum."""
    node = graph.program.nodes[index]
    s_in, m_in, l_in, v = node.inputs
    s, m, total = (
        graph.node(item, f"attention_{kind}") for item, kind in ((s_in, "scores"), (m_in, "max"), (l_in, "sum"))
    )
    if s is None or m is None or total is None:
        return None
    read = [i.ref for i in (*m[1].inputs, *total[1].inputs)]
    if read != [s_in.ref, s_in.ref, m_in.ref] or {s[1].params, m[1].params, total[1].params} != {node.params}:
        return None
    nodes = frozenset({index, s[0], m[0], total[0]})
    inputs = (*s[1].inputs, v)
    return Group("attention_forward", nodes, inputs, (index, m[0], total[0]), node.params, s[1].literals)


def _attention_backward(graph: Graph, index: int) -> Group | None:
    """attention_dv, _dp, _ds, _dq, _dk -> dq, dk, dv; the scores are computed again."""
    dk = graph.program.nodes[index]
    ds_in, q = dk.inputs
    ds = graph.node(ds_in, "attention_ds")
    if ds is None:
        return None
    s_in, m, total, dp_in, delta = ds[1].inputs
    s, dp = graph.node(s_in, "attention_scores"), graph.node(dp_in, "attention_dp")
    if s is None or dp is None or s[1].dtype is not DType.F32:
        return None
    k, (do, v) = s[1].inputs[1], dp[1].inputs
    nodes = graph.program.nodes
    dq = [i for i in graph.readers(ds[0]) if i < len(nodes) and nodes[i].op == "attention_dq"]
    dv = [i for i in graph.readers(s[0]) if i < len(nodes) and nodes[i].op == "attention_dv"]
    dv = [i for i in dv if [x.ref for x in nodes[i].inputs] == [s_in.ref, m.ref, total.ref, do.ref]]
    if len(dq) != 1 or len(dv) != 1 or nodes[dq[0]].inputs[1].ref != k.ref or s[1].inputs[0].ref != q.ref:
        return None
    members = [ds[1], dp[1], s[1], dk, nodes[dq[0]], nodes[dv[0]]]
    scales = {n.literals for n in (s[1], dk, nodes[dq[0]])}
    if len({n.params for n in members}) != 1 or len(scales) != 1:
        return None
    group = frozenset({index, ds[0], dp[0], dq[0], dv[0]})
    inputs = (q, k, v, m, total, do, delta)
    return Group("attention_backward", group, inputs, (dq[0], index, dv[0]), dk.params, dk.literals)


def _cross_entropy_backward(graph: Graph, index: int) -> Group | None:
    """sub(hot * scale, exp(x) * sum(hot * scale)), where hot is zero but for one value in each row -> dx.

    Found from its first operator, the scatter that makes `hot`.
    """
    nodes = graph.program.nodes
    scatter = nodes[index]
    rows = scatter.shape[0] if scatter.shape else 0
    zeros, one = graph.node(scatter.inputs[0], "fill"), (rows, 1)
    fits = len(scatter.shape) == 2 and scatter.dtype is DType.F32 and scatter.params == (1,)
    if zeros is None or zeros[1].literals != (0,) or not fits or scatter.inputs[1].shape != one:
        return None
    hot = graph.only_reader(index, "mul")
    sums = [i for i in graph.readers(hot) if i < len(nodes) and nodes[i].op == "sum"] if hot is not None else []
    dx = graph.only_reader(hot, "sub", sums) if hot is not None else None
    scaled = graph.operands(nodes[dx].inputs[1], "mul", "exp", "sum") if dx is not None else None
    exp = graph.operands(scaled[1][0], "exp", "") if scaled else None
    if hot is None or dx is None or scaled is None or exp is None:
        return None
    links = graph.links(max(sums)) if sums else None
    whole = (1, 1, scatter.shape[1])  # over the rows, to their end
    if links is None or set(links) != set(sums) or nodes[links[-1]].params[:2] + nodes[links[-1]].params[3:] != whole:
        return None
    inputs = (exp[1][0], scatter.inputs[1], nodes[hot].inputs[1])
    read = (nodes[hot].inputs[0], nodes[dx].inputs[0], scaled[1][0], *(nodes[i].inputs[0] for i in sums))
    same = all(x.shape == scatter.shape for x in (*read, inputs[0])) and inputs[0].dtype is DType.F32
    ends_right = scaled[1][1].ref == Ref.node(links[-1])
    reads_right = nodes[hot].inputs[0].ref == Ref.node(index) and nodes[dx].inputs[0].ref == Ref.node(hot)
    small = inputs[2].shape == scaled[1][1].shape == one and inputs[2].dtype is DType.F32
    if not (same and ends_right and reads_right and small):
        return None
    inside = {index, hot, dx, scaled[0], exp[0], *sums}
    if graph.readers(zeros[0]) == {index}:
        inside.add(zeros[0])
    over = {dx: frozenset({inputs[0].ref})} if nodes[dx].dtype is DType.F32 else {}
    return Group("cross_entropy_backward", frozenset(inside), inputs, (dx,), (), scatter.literals, over)


def _adamw(graph: Graph, index: int) -> Group | None:
    """m = m * beta1 + g * (1 - beta1), v = v * beta2 + (g * g) * (1 - beta2),
    p * decay - step_size * (m / (sqrt(v) / bias2_sqrt + eps)) -> p, m, v."""
    kept, moved = graph.program.nodes[index].inputs
    scaled, step = graph.operands(kept, "mul", "", ""), graph.operands(moved, "mul", "", "div")
    if scaled is None or step is None:
        return None
    quotient = graph.operands(step[1][1], "div", "add", "add")
    root = graph.operands(quotient[1][1], "add", "div", "") if quotient else None
    ratio = graph.operands(root[1][0], "div", "sqrt", "") if root else None
    sqrt = graph.operands(ratio[1][0], "sqrt", "add") if ratio else None
    if quotient is None or root is None or ratio is None or sqrt is None:
        return None
    mean, square = graph.operands(quotient[1][0], "add", "mul", "mul"), graph.operands(sqrt[1][0], "add", "mul", "mul")
    if mean is None or square is None:
        return None
    terms = [graph.operands(x, "mul", "", "") for x in (*mean[1], *square[1])]
    squared = graph.operands(terms[3][1][0], "mul", "", "") if terms[3] else None
    if any(t is None for t in terms) or squared is None:
        return None
    (m, beta1), (g, rest1), (v, beta2), (_, rest2) = (t[1] for t in terms if t)
    p, decay = scaled[1]
    full, scalars = (p, g, m, v), (beta1, rest1, beta2, rest2, ratio[1][1], root[1][1], decay, step[1][0])
    if {x.ref for x in squared[1]} != {g.ref} or not _one_pass(graph.program.nodes[index], full, scalars):
        return None
    inside = (index, scaled, step, quotient, root, ratio, sqrt, mean, square, squared, *terms)
    nodes = frozenset(x if isinstance(x, int) else x[0] for x in inside if x is not None)
    outputs = (index, mean[0], square[0])
    over = dict.fromkeys(outputs, frozenset(x.ref for x in full))
    return Group("adamw", nodes, (*full, *scalars), outputs, over=over)


def _one_pass(node: Node, full: Sequence[Input], scalars: Sequence[Input]) -> bool:
    """Whether all is f32, and the inputs have as many elements as the output, or one."""
    count = element_count(node.shape)
    sizes = all(element_count(x.shape) == count for x in full) and all(element_count(x.shape) == 1 for x in scalars)
    return sizes and {node.dtype, *(x.dtype for x in (*full, *scalars))} == {DType.F32}


_MATCHERS: dict[str, Callable[[Graph, int], Group | None]] = {
    "layer_norm_forward": _layer_norm_forward,
    "layer_norm_backward": _layer_norm_backward,
    "softmax_forward": _softmax("softmax_forward"),
    "log_softmax_forward": _softmax("log_softmax_forward"),
    "softmax_backward": _softmax_backward,
    "log_softmax_backward": _log_softmax_backward,
    "attention_forward": _attention_forward,
    "attention_backward": _attention_backward,
    "adamw": _adamw,
    "cross_entropy_backward": _cross_entropy_backward,
}
