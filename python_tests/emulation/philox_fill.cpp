// The host's Philox: published answers, and vectors of counters against single ones. Run by test_philox.py.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "cpu/philox.h"

namespace {

void expect(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "%s\n", what);
  std::exit(3);
}

void check_known(uint32_t fill, const mtl::PhiloxWords& expected) {
  const mtl::PhiloxWords found = mtl::philox4x32({{fill, fill, fill, fill}}, fill, fill);
  expect(std::memcmp(&found, &expected, sizeof found) == 0, "philox4x32 differs from the published answer");
}

}  // namespace

int main() {
  check_known(0, {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}});
  check_known(0xffffffff, {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}});
  const int64_t seed[2] = {-0x123456789abcdef, 3};
  const mtl::PhiloxStream stream(seed);
  constexpr int64_t kBlocks = 77;
  const auto fill_uniform = mtl::choose_fill_uniform();
  for (const int64_t block : {int64_t{0}, int64_t{5}, int64_t{0xffffffff} - 40, int64_t{1} << 40}) {
    float scalar[4 * kBlocks], vector[4 * kBlocks];
    mtl::fill_uniform_scalar(stream, 9, block, kBlocks, scalar);
    fill_uniform(stream, 9, block, kBlocks, vector);
    expect(std::memcmp(scalar, vector, sizeof scalar) == 0, "fill_uniform differs from fill_uniform_scalar");
  }
}
