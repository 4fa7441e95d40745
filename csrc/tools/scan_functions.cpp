// Scans elementary functions over bit patterns of their argument against a binary64 oracle; scripts/scan_functions.py builds and
// runs it.
//
//   scan_functions FUNCTION FIRST LAST STRIDE      every STRIDE-th bit pattern of [FIRST, LAST)
//   scan_functions pow SEED COUNT 0                COUNT pairs: structured and random
//
// Prints one JSON object. An ulp is a unit in the last place of binary32 at the exact result, subnormal results on their own scale.
// The oracle is the C library's binary64 function (glibc's vector one where RO_SCAN_LIBMVEC is set), right to 4 units of 2^-53, or
// a short formula of such; that moves an error by less than 1e-6 ulp (the compositions: 1e-5).
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#if defined(__AVX2__)
#define RO_ISA scan
#define RO_ISA_AVX2
#else
#define RO_ISA scan
#define RO_ISA_SCALAR
#endif
#include "kernels/prim.h"
#include "kernels/simd.h"
#include "kernels/functions.h"

using ro::scan::F;
using ro::scan::kLanes;

constexpr int kWide = 4;  // lanes of binary64
typedef double D __attribute__((vector_size(32)));
typedef int64_t L __attribute__((vector_size(32)));

#if defined(RO_SCAN_LIBMVEC)
#define RO_ORACLE(name)                   \
  extern "C" D _ZGVdN4v_##name(D x);      \
  static D d_##name(D x) { return _ZGVdN4v_##name(x); }
extern "C" D _ZGVdN4vv_pow(D x, D y);
static D d_pow(D x, D y) { return _ZGVdN4vv_pow(x, y); }
#else
#define RO_ORACLE(name)                                    \
  static D d_##name(D x) {                                 \
    for (int i = 0; i < kWide; ++i) x[i] = std::name(x[i]); \
    return x;                                              \
  }
static D d_pow(D x, D y) {
  for (int i = 0; i < kWide; ++i) x[i] = std::pow(x[i], y[i]);
  return x;
}
#endif
RO_ORACLE(exp)
RO_ORACLE(exp2)
RO_ORACLE(expm1)
RO_ORACLE(log)
RO_ORACLE(log2)
RO_ORACLE(log10)
RO_ORACLE(log1p)
RO_ORACLE(tanh)
RO_ORACLE(erf)
RO_ORACLE(erfc)
RO_ORACLE(sin)
RO_ORACLE(cos)

static D all(double x) { return D{x, x, x, x}; }
static D where(L m, D a, D b) { return (D)((m & (L)a) | (~m & (L)b)); }
static D clip(D x, double low, double high) {
  x = where(x < low, all(low), x);
  return where(x > high, all(high), x);
}
static D root(D x) {
  for (int i = 0; i < kWide; ++i) x[i] = std::sqrt(x[i]);
  return x;
}
static D logistic(D x) {  // of a finite argument
  const D e = d_exp(-clip(x, -700, 700));
  return 1 / (1 + e);
}
static const double kPi = 3.14159265358979323846, kGate = 2 * std::sqrt(2 / kPi);
static D normal(D x) { return d_erfc(clip(x, -40, 40) * -std::sqrt(0.5)) / 2; }
static D gate(D x) { return kGate * (x + 0.044715 * x * x * x); }
// x times a factor that vanishes at -inf
static D gated(D x, D factor) { return where(x < -1e3, all(-0.0), x * factor); }
static D gelu_erf_slope(D x) {
  const D y = clip(x, -40, 40);
  return normal(y) + y * d_exp(-y * y / 2) / std::sqrt(2 * kPi);
}
static D gelu_tanh_slope(D x) {
  const D y = clip(x, -40, 40), s = logistic(gate(y));
  return s + y * s * logistic(-gate(y)) * kGate * (1 + 3 * 0.044715 * y * y);
}
static D softplus(D x) {
  const D a = (D)((L)x & (L)all(-0.0) ^ (L)x);
  return where(x > 0, x, all(0)) + d_log1p(d_exp(-a));
}

struct Function {
  const char* name;
  F (*ours)(F);
  D (*truth)(D);
};
#define RO_SCAN(name, oracle) {#name, [](F x) { return ro::scan::f_##name(x); }, [](D x) -> D { return oracle; }}
static const Function kFunctions[] = {
    {"rsqrt", [](F x) { return canonical(div(F::bits(ro::scan::kOneBits), sqrt(x))); }, [](D x) -> D { return 1 / root(x); }},
    RO_SCAN(exp, d_exp(x)),
    RO_SCAN(exp2, d_exp2(x)),
    RO_SCAN(expm1, d_expm1(x)),
    RO_SCAN(log, d_log(x)),
    RO_SCAN(log2, d_log2(x)),
    RO_SCAN(log10, d_log10(x)),
    RO_SCAN(log1p, d_log1p(x)),
    RO_SCAN(sin, d_sin(x)),
    RO_SCAN(cos, d_cos(x)),
    RO_SCAN(softplus, softplus(x)),
    RO_SCAN(tanh, d_tanh(x)),
    RO_SCAN(erf, d_erf(x)),
    RO_SCAN(sigmoid, logistic(x)),
    RO_SCAN(silu, gated(x, logistic(x))),
    RO_SCAN(gelu_erf, gated(x, normal(x))),
    RO_SCAN(gelu_tanh, gated(x, logistic(gate(x)))),
    RO_SCAN(gelu_erf_slope, gelu_erf_slope(x)),
    RO_SCAN(gelu_tanh_slope, gelu_tanh_slope(x)),
};

struct Worst {
  double ulp = 0, absolute = 0, either = 0;
  uint64_t ulp_at = 0, absolute_at = 0, either_at = 0, count = 0, wrong = 0, wrong_at = 0;
};

static double spacing(double truth) {
  int e;
  std::frexp(truth, &e);
  return std::ldexp(1.0, (e < -125 ? -125 : e) - 24);
}

static bool signed_zeros = true;  // whether the sign of a zero is a matter of this function

// One result, the slow way: where something is not finite, or a maximum is beaten. x is 0 where there is no single argument.
static void judge(Worst& w, float y, double truth, double x, uint64_t at) {
  const float rounded = (float)truth;
  const double edge = 3.4028234663852886e38 * (1 - 0x1p-23);
  bool right;
  if (std::isnan(truth)) {
    right = ro::bits_of(y) == ro::kNanBits;
  } else if (std::isinf(rounded) || std::isinf(y)) {  // at the edge of overflow either neighbour may be taken
    right = !std::isnan(y) && std::fabs((double)y) > edge && std::fabs(truth) > edge && std::signbit(y) == std::signbit(truth);
  } else {
    right = !std::isnan(y) && (!signed_zeros || (y != 0 && truth != 0) || std::signbit(y) == std::signbit(truth));
    const double error = std::fabs(y - truth), ulp = error / spacing(truth);
    const double relative = error / std::fabs(x) * 0x1p23, either = x == 0 || !(ulp / 2 > relative) ? ulp / 2 : relative;
    if (ulp > w.ulp) w.ulp = ulp, w.ulp_at = at;
    if (error > w.absolute && std::fabs(x) <= 100) w.absolute = error, w.absolute_at = at;
    if (either > w.either) w.either = either, w.either_at = at;
  }
  if (!right && w.wrong++ == 0) w.wrong_at = at;
}

// Eight results. Only those that may beat a maximum, or are not finite or zero, are judged one by one.
static void judge(Worst& w, const float* y, const D* truth, const float* x, const uint64_t* at, int n) {
  constexpr double kHuge = 1.7e308;
  for (int h = 0; h * kWide < n; ++h) {
    D v, u;
    for (int i = 0; i < kWide; ++i) v[i] = y[h * kWide + i], u[i] = x[h * kWide + i];
    const D t = truth[h];
    const L magnitude = ~(L)all(-0.0);
    const D error = (D)((L)(v - t) & magnitude), size = (D)((L)t & magnitude), argument = (D)((L)u & magnitude);
    const L power = (L)size & (L)all(__builtin_inf());
    const D unit = (D)(power - (((L)D{} + 23) << 52)), least = all(0x1p-149);  // 2^(e - 23)
    const D ulp = where(unit < least, least, unit);
    const L plain = (size < 3.4e38) & (size > 0) & ((D)((L)v & magnitude) > 0) & ((D)((L)v & magnitude) < kHuge);
    const L either = (error <= 2 * w.either * ulp) | (error * 0x1p23 <= w.either * argument);
    const L quiet = plain & (error <= w.ulp * ulp) & either & ((error <= w.absolute) | (argument > 100));
    if ((quiet[0] & quiet[1] & quiet[2] & quiet[3]) != 0) continue;
    for (int i = 0; i < kWide && h * kWide + i < n; ++i) {
      if (!quiet[i]) judge(w, y[h * kWide + i], t[i], u[i], at[h * kWide + i]);
    }
  }
}

static void print(const char* name, const Worst& w) {
  std::printf("{\"function\": \"%s\", \"inputs\": %" PRIu64 ", \"wrong\": %" PRIu64 ", \"wrong_at\": \"%08" PRIX64
              "\", \"ulp\": %.4f, \"ulp_at\": \"%08" PRIX64 "\", \"absolute\": %.4g, \"absolute_at\": \"%08" PRIX64
              "\", \"either\": %.4f, \"either_at\": \"%08" PRIX64 "\"}\n",
              name, w.count, w.wrong, w.wrong_at, w.ulp, w.ulp_at, w.absolute, w.absolute_at, w.either, w.either_at);
}

static Worst scan(const Function& f, uint64_t first, uint64_t last, uint64_t stride) {
  constexpr int kBatch = 8;
  Worst w;
  for (uint64_t start = first; start < last; start += kBatch * stride) {
    float x[kBatch], y[kBatch];
    uint64_t at[kBatch];
    D truth[kBatch / kWide];
    int n = 0;
    for (int i = 0; i < kBatch; ++i) {
      const uint64_t bits = start + i * stride;
      n += bits < last;
      at[i] = bits < last ? bits : last - 1;
      x[i] = ro::float_of((uint32_t)at[i]);
    }
    for (int i = 0; i < kBatch; i += kLanes) f.ours(F::load(x + i)).store(y + i);
    for (int i = 0; i < kBatch; ++i) truth[i / kWide][i % kWide] = x[i];
    for (D& t : truth) t = f.truth(t);
    judge(w, y, truth, x, at, n);
    w.count += n;
  }
  return w;
}

// Pairs for pow: a case of each kind in turn.
struct Random {
  uint64_t state;
  uint64_t word() {
    uint64_t z = state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
  }
  double uniform(double low, double high) { return low + (high - low) * (double)(word() >> 11) * 0x1p-53; }
  float pattern() { return ro::float_of((uint32_t)word()); }
  template <size_t n>
  float of(const float (&table)[n]) { return table[word() % n]; }
};
static void pair(Random& r, uint64_t i, float& x, float& y) {
  static const float kSpecial[] = {0.0f, -0.0f, 1.0f, -1.0f, INFINITY, -INFINITY, NAN, 2.0f, -2.0f, 0.5f, -0.5f, 3.0f, -3.0f, 1e-45f, -1e-45f,
                                   1.17549435e-38f, 3.4028235e38f, -3.4028235e38f, 8388607.5f, 16777215.0f, -16777215.0f, 16777216.0f};
  static const float kExponent[] = {0.5f, -0.5f, 1.5f, -1.5f, 2.5f, 0.25f, 0.75f, 1.0f / 3, -1.0f / 3, 0.1f, 2.2f, -0.8f, 0.9f, 3.0f, -2.0f};
  static const float kDecay[] = {0.9f, 0.95f, 0.98f, 0.99f, 0.999f, 0.9995f, 0.9999f, 0.99999f};
  static const float kBase[] = {2.0f, 10.0f, 10000.0f, 500000.0f, 1000000.0f, 1e-4f, 0.5f, 2.7182817f};
  switch (i % 8) {
    case 0:
      x = r.pattern(), y = r.pattern();
      return;
    case 1:  // any result
    case 2:
      x = std::fabs(r.pattern());
      y = (float)(r.uniform(-150, 129) / std::log2((double)x));
      return;
    case 3:  // near 1
      x = (float)(1 + std::ldexp(r.uniform(-1, 1), -(int)(r.word() % 24)));
      y = (float)(r.uniform(-150, 129) / std::log2((double)x));
      return;
    case 4:
      x = r.word() & 1 ? r.of(kSpecial) : r.pattern();
      y = r.word() & 1 ? r.of(kSpecial) : (float)((int64_t)(r.word() % 4096) - 2048) / 2;
      return;
    case 5:
      x = (float)std::exp2(r.uniform(-149, 128)), y = r.of(kExponent);
      return;
    case 6:
      x = r.of(kDecay), y = (float)(1 + r.word() % 1000000);
      return;
    default:
      x = r.of(kBase), y = (float)r.uniform(-4, 4);
      return;
  }
}
static Worst scan_pow(uint64_t seed, uint64_t count) {
  constexpr int kBatch = 8;
  static_assert(kBatch % kLanes == 0);
  Random random{seed};
  Worst w;
  for (uint64_t i = 0; i < count; i += kBatch) {
    float x[kBatch], y[kBatch], r[kBatch], none[kBatch] = {};
    uint64_t at[kBatch];
    D truth[kBatch / kWide], exponent[kBatch / kWide];
    for (int j = 0; j < kBatch; ++j) {
      pair(random, i + j, x[j], y[j]);
      at[j] = (uint64_t)ro::bits_of(x[j]) << 32 | ro::bits_of(y[j]);
      truth[j / kWide][j % kWide] = x[j];
      exponent[j / kWide][j % kWide] = y[j];
    }
    for (int j = 0; j < kBatch; j += kLanes) ro::scan::f_pow(F::load(x + j), F::load(y + j)).store(r + j);
    for (int j = 0; j < kBatch / kWide; ++j) truth[j] = d_pow(truth[j], exponent[j]);
    for (int j = 0; j < kBatch; ++j) {  // the special cases by the scalar function
      if (!(x[j] > 0 && std::isfinite(x[j]) && std::isfinite(y[j]))) truth[j / kWide][j % kWide] = std::pow((double)x[j], (double)y[j]);
    }
    judge(w, r, truth, none, at, kBatch);
    w.count += kBatch;
  }
  return w;
}

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  const uint64_t first = std::strtoull(argv[2], nullptr, 0), last = std::strtoull(argv[3], nullptr, 0);
  if (std::strcmp(argv[1], "pow") == 0) {
    print("pow", scan_pow(first, last));
    return 0;
  }
  for (const Function& f : kFunctions) {
    if (std::strcmp(f.name, argv[1]) != 0) continue;
    signed_zeros = std::strstr(f.name, "_slope") == nullptr;
    print(f.name, scan(f, first, last, std::strtoull(argv[4], nullptr, 0)));
    return 0;
  }
  std::fprintf(stderr, "no function %s\n", argv[1]);
  return 2;
}
