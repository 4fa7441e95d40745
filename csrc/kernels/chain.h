// A chain: pointwise nodes over the same elements, evaluated block by block, so that what only the chain reads stays in the first
// cache. Every node is computed by its operator's own span: the bits are those of the nodes one by one.
//
// Inputs broadcast to the shape of the first output; all outputs have as many elements. params: for each node, in order,
//   code (an index into pointwise_names()), dtype, register of the output, first literal, number of inputs, their registers.
// Registers: the inputs, then the outputs, then blocks that are kept for the chain alone. An output may lie exactly on an input that
// no node reads after the one that writes it.
//
// Include after pointwise.h.
#pragma once
#include <vector>

#include "pointwise.h"

namespace ro {
namespace RO_ISA {

constexpr int kMaxChain = 64;       // nodes; the planner knows these limits (repops/chains.py)
constexpr int kMaxRegisters = 48;
constexpr int64_t kChainBlock = 512;  // elements: a dozen blocks of f32 fill the first cache

struct ChainNode {
  TypedSpan span;
  const uint64_t* literals;
  int inputs;
  uint8_t in[kMaxInputs];
  int32_t item[kMaxInputs];  // bytes of an element of each: a register may hold one dtype, later another
  uint8_t out;
};

struct Chain {
  int nodes = 0, registers = 0;
  bool costly = false;
  ChainNode node[kMaxChain];
  int32_t dtype[kMaxRegisters];

  explicit Chain(const Call& call) {
    static const std::vector<FindSpan> spans = pointwise_spans(kIsa);
    for (; registers < call.inputs; ++registers) dtype[registers] = call.in[registers].dtype;
    registers += 1 + call.more_count;
    for (const int64_t* p = call.params; p < call.params + call.param_count;) {
      ChainNode& made = node[nodes++];
      const FindSpan find = spans[p[0]];
      const int32_t to = (int32_t)p[1];
      made.out = (uint8_t)p[2];
      made.literals = call.literals + p[3];
      made.inputs = (int)p[4];
      p += 5;
      int32_t from[kMaxInputs] = {};
      for (int k = 0; k < made.inputs; ++k) {
        made.in[k] = (uint8_t)*p++;
        from[k] = dtype[made.in[k]];
        made.item[k] = (int32_t)item_size(from[k]);
      }
      made.span = TypedSpan(find, made.inputs, from, to);
      costly |= made.span.costly();
      dtype[made.out] = to;
      if (made.out >= registers) registers = made.out + 1;
    }
  }
};

RO_FUSED_ANY(chain) {
  const int64_t n = element_count(call.out);
  if (n == 0) return;
  const Chain chain(call);
  const LoopNest nest(call, call.inputs);
  const int first = call.inputs, kept = first + 1 + call.more_count;
  const int64_t grain = (chain.costly ? kCostly : kCheap) / (chain.nodes < 4 ? chain.nodes : 4);
  parallel_for(n, grain, call.threads, [&](int64_t begin, int64_t end) {
    char* const blocks = (char*)scratch(7, (size_t)(chain.registers - kept + 1) * kChainBlock * 8);
    char* at[kMaxRegisters];
    int64_t inc[kMaxRegisters];
    for (int r = first; r < kept; ++r) inc[r] = item_size(chain.dtype[r]);
    for (int r = kept; r < chain.registers; ++r) at[r] = blocks + (r - kept) * kChainBlock * 8;
    run_range(nest, begin, end, [&](const char* const* p, const int64_t* step, int64_t i, int64_t count) {
      for (int r = 0; r < first; ++r) inc[r] = step[r];
      for (int64_t done = 0; done < count; done += kChainBlock) {
        const int64_t m = count - done < kChainBlock ? count - done : kChainBlock;
        for (int r = 0; r < first; ++r) at[r] = (char*)p[r] + done * inc[r];
        for (int r = first; r < kept; ++r) {
          char* const data = (char*)(r == first ? call.out.data : call.more[r - first - 1].data);
          at[r] = data + (i + done) * inc[r];
        }
        for (int k = 0; k < chain.nodes; ++k) {
          const ChainNode& node = chain.node[k];
          const char* from[kMaxInputs];
          int64_t advance[kMaxInputs];
          for (int j = 0; j < node.inputs; ++j) {
            from[j] = at[node.in[j]];
            advance[j] = node.in[j] < first ? inc[node.in[j]] : node.item[j];
          }
          node.span.run(node.literals, from, advance, at[node.out], m);
        }
      }
    });
  });
}

}  // namespace RO_ISA
}  // namespace ro
