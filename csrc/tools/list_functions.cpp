// Prints the elementary functions of functions.h as lists of primitives, one a line: the text of docs/spec/functions.md.
//
// The templates run on symbols instead of numbers: an operation on symbols writes a line and gives the line's name. Equal
// operations are written once. scripts/build_function_listings.py compiles and runs this.
#include <cstdint>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "kernels/prim.h"

namespace ro {
namespace symbolic {

struct Operation {
  std::string op;
  std::vector<std::string> arguments;
};
struct Listing {
  std::map<std::string, std::string> known;  // operation -> name
  std::map<std::string, Operation> operations;
} listing;

template <class... A>
std::string emit(const char* op, const A&... a) {
  std::string key = op;
  ((key += " " + a.v), ...);
  const auto [at, fresh] = listing.known.try_emplace(key, "?" + std::to_string(listing.known.size()));
  if (fresh) listing.operations[at->second] = {op, {a.v...}};
  return at->second;
}
std::string hex(uint32_t u) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08X", u);
  return text;
}

struct M {
  std::string v;
};
struct I {
  std::string v;
  static I set(int32_t x) { return {hex((uint32_t)x)}; }
};
struct F {
  using Int = I;
  using Mask = M;
  std::string v;
  static F bits(uint32_t u) { return {hex(u)}; }
  static F set(float x) { return bits(ro::bits_of(x)); }
};
struct Count {
  std::string v;
};
template <int n>
Count count() {
  return {std::to_string(n)};
}

// Operations that only negate or clear the sign of a constant are done here: -x of a literal is a literal.
bool none(M) { return false; }  // what a kernel may skip when no lane needs it, the page always has
bool is_literal(const F& a) { return a.v[0] == '0'; }
F literal_xor(const F& a, uint32_t mask, uint32_t flip) {
  return F::bits(((uint32_t)std::stoul(a.v, nullptr, 16) & mask) ^ flip);
}

M and_(M a, M b) { return {emit("MAND", a, b)}; }
M or_(M a, M b) { return {emit("MOR", a, b)}; }
M not_(M a) { return {emit("MNOT", a)}; }
F add(F a, F b) { return {emit("ADD", a, b)}; }
F sub(F a, F b) { return {emit("SUB", a, b)}; }
F mul(F a, F b) { return {emit("MUL", a, b)}; }
F div(F a, F b) { return {emit("DIV", a, b)}; }
F sqrt(F a) { return {emit("SQRT", a)}; }
F fma(F a, F b, F c) { return {emit("FMA", a, b, c)}; }
F and_(F a, F b) { return {emit("AND", a, b)}; }
F or_(F a, F b) { return {emit("OR", a, b)}; }
F xor_(F a, F b) { return {emit("XOR", a, b)}; }
F neg(F a) { return is_literal(a) ? literal_xor(a, 0xFFFFFFFFu, 0x80000000u) : F{emit("NEG", a)}; }
F abs(F a) { return is_literal(a) ? literal_xor(a, 0x7FFFFFFFu, 0) : F{emit("ABS", a)}; }
M lt(F a, F b) { return {emit("LT", a, b)}; }
M le(F a, F b) { return {emit("LE", a, b)}; }
M gt(F a, F b) { return {emit("GT", a, b)}; }
M ge(F a, F b) { return {emit("GE", a, b)}; }
M eq(F a, F b) { return {emit("EQ", a, b)}; }
M ne(F a, F b) { return {emit("NE", a, b)}; }
M is_nan(F a) { return {emit("ISNAN", a)}; }
M is_nan(F a, F b) { return or_(is_nan(a), is_nan(b)); }
F select(M m, F a, F b) { return {emit("SEL", m, a, b)}; }
I select(M m, I a, I b) { return {emit("ISEL", m, a, b)}; }
F max_raw(F a, F b) { return {emit("GREATER", a, b)}; }
F min_raw(F a, F b) { return {emit("LESS", a, b)}; }
I add(I a, I b) { return {emit("IADD", a, b)}; }
I sub(I a, I b) { return {emit("ISUB", a, b)}; }
I mul(I a, I b) { return {emit("IMUL", a, b)}; }
I and_(I a, I b) { return {emit("IAND", a, b)}; }
I or_(I a, I b) { return {emit("IOR", a, b)}; }
I xor_(I a, I b) { return {emit("IXOR", a, b)}; }
I andnot(I a, I b) { return {emit("IANDNOT", a, b)}; }
template <int n> I shl(I a) { return {emit("SHL", a, count<n>())}; }
template <int n> I shr(I a) { return {emit("SAR", a, count<n>())}; }
template <int n> I shr_logical(I a) { return {emit("SHR", a, count<n>())}; }
I min(I a, I b) { return {emit("IMIN", a, b)}; }
I max(I a, I b) { return {emit("IMAX", a, b)}; }
M lt(I a, I b) { return {emit("ILT", a, b)}; }
M gt(I a, I b) { return {emit("IGT", a, b)}; }
M eq(I a, I b) { return {emit("IEQ", a, b)}; }
I bits_of(F a) { return {emit("BITS", a)}; }
F float_of(I a) { return {emit("FLOAT", a)}; }
F to_float(I a) { return {emit("ITOF", a)}; }
I to_int(F a) { return {emit("FTOI", a)}; }
struct Turning {
  I quadrant;
  F high, low;
};
Turning turns(F a) { return {{emit("QUADRANT", a)}, {emit("TURNHIGH", a)}, {emit("TURNLOW", a)}}; }
F canonical(F a) { return select(is_nan(a), F::bits(kNanBits), a); }

}  // namespace symbolic
}  // namespace ro

#define RO_ISA symbolic
#define RO_OP static inline
#define RO_MEMBER inline
#include "kernels/functions.h"

namespace {

using ro::symbolic::F;

// Writes what `symbol` needs, operands first and from the left, and gives the name it got. The order in which a compiler
// evaluated the arguments of a call does not show.
std::string write(const std::string& symbol, std::map<std::string, std::string>& names) {
  const auto at = ro::symbolic::listing.operations.find(symbol);
  if (at == ro::symbolic::listing.operations.end()) return symbol;  // an argument or a literal
  if (const auto known = names.find(symbol); known != names.end()) return known->second;
  std::string text;
  for (const std::string& argument : at->second.arguments) text += (text.empty() ? "" : ", ") + write(argument, names);
  const std::string name = "t" + std::to_string(names.size());
  std::printf("    %s = %s(%s)\n", name.c_str(), at->second.op.c_str(), text.c_str());
  return names[symbol] = name;
}

template <class... A>
void print(const char* name, F (*function)(A...), const char* arguments, A... a) {
  ro::symbolic::listing = {};
  const F result = function(a...);
  std::printf("%s(%s)\n", name, arguments);
  std::map<std::string, std::string> names;
  const std::string last = write(result.v, names);
  std::printf("    return %s\n\n", last.c_str());
}
void unary(const char* name, F (*function)(F)) { print<F>(name, function, "x", F{"x"}); }

}  // namespace

int main() {
  using namespace ro::symbolic;
  unary("exp", f_exp<F>);
  unary("exp2", f_exp2<F>);
  unary("expm1", f_expm1<F>);
  unary("log", f_log<F>);
  unary("log2", f_log2<F>);
  unary("log10", f_log10<F>);
  unary("log1p", f_log1p<F>);
  unary("sin", f_sin<F>);
  unary("cos", f_cos<F>);
  unary("softplus", f_softplus<F>);
  print<F, F>("pow", f_pow<F>, "x, y", F{"x"}, F{"y"});
  unary("tanh", f_tanh<F>);
  unary("erf", f_erf<F>);
  unary("sigmoid", f_sigmoid<F>);
  unary("silu", f_silu<F>);
  unary("gelu_erf", f_gelu_erf<F>);
  unary("gelu_tanh", f_gelu_tanh<F>);
  unary("gelu_erf_slope", f_gelu_erf_slope<F>);
  unary("gelu_tanh_slope", f_gelu_tanh_slope<F>);
}
