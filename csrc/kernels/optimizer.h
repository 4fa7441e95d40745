// An optimizer's nodes for one parameter in one pass over memory. Same bits as the nodes: what is inside an expression may hold any
// NaN, because arithmetic passes it on and every output is made canonical.
//
// Include after pointwise.h.
#pragma once
#include "pointwise.h"

namespace ro {
namespace RO_ISA {

struct AdamW {
  F beta1, rest1, beta2, rest2, bias, eps, decay, size;
  RO_MEMBER void update(F& x, F gradient, F& mean, F& square) const {
    mean = add(mul(mean, beta1), mul(gradient, rest1));
    square = add(mul(square, beta2), mul(mul(gradient, gradient), rest2));
    const F root = add(div(sqrt(square), bias), eps);
    x = canonical(sub(mul(x, decay), mul(size, div(mean, root))));
    mean = canonical(mean);
    square = canonical(square);
  }
};

// mul, mul, add; mul, mul, mul, add; sqrt, div, add, div; mul, mul, sub. Inputs p, g, m, v, and one element each of beta1, 1 - beta1,
// beta2, 1 - beta2, bias2_sqrt, eps, decay, step_size. Outputs p, m, v; each may lie exactly on one of the first four inputs.
RO_FUSED(adamw) {
  const auto scalar = [&](int k) { return F::set(load_f32(call.in[k].data, 0)); };
  const AdamW adamw{scalar(4), scalar(5), scalar(6), scalar(7), scalar(8), scalar(9), scalar(10), scalar(11)};
  parallel_for(element_count(call.out), kCostly, call.threads, [&](int64_t begin, int64_t end) {
    const AdamW own = adamw;  // and the pointers: in registers, where no store can change them
    const char *p = (const char*)call.in[0].data, *g = (const char*)call.in[1].data;
    const char *m = (const char*)call.in[2].data, *v = (const char*)call.in[3].data;
    char *p_out = (char*)call.out.data, *m_out = (char*)call.more[0].data, *v_out = (char*)call.more[1].data;
    int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) {
      F x = F::load(p + 4 * i), mean = F::load(m + 4 * i), square = F::load(v + 4 * i);
      own.update(x, F::load(g + 4 * i), mean, square);
      x.store(p_out + 4 * i);
      mean.store(m_out + 4 * i);
      square.store(v_out + 4 * i);
    }
    if (i < end) {
      const int rest = (int)(end - i);
      F x = F::load(p + 4 * i, rest), mean = F::load(m + 4 * i, rest), square = F::load(v + 4 * i, rest);
      own.update(x, F::load(g + 4 * i, rest), mean, square);
      x.store(p_out + 4 * i, rest);
      mean.store(m_out + 4 * i, rest);
      square.store(v_out + 4 * i, rest);
    }
  });
}

}  // namespace RO_ISA
}  // namespace ro
