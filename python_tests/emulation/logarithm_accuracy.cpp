// The host's vector logarithm against the C library's in extended precision. Run by test_logarithm.py.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#pragma GCC diagnostic ignored "-Wpsabi"  // everything that passes vectors is inlined
#include "cpu/logarithm.h"

namespace {

template <class W>
void expect_close(W x, W found, long double bound) {
  const long double exact = std::log(static_cast<long double>(x));
  const bool right = x == 1 ? found == 0 : std::abs(found - exact) <= bound * std::abs(exact) && (x > 1) == (found > 0);
  if (right) return;
  std::fprintf(stderr, "log(%a) is %.20Lg, expected %.20Lg\n", static_cast<double>(x), static_cast<long double>(found),
               exact);
  std::exit(3);
}

// Every `step`-th number from `first` on.
template <class W, class Bits>
void check(Bits first, Bits last, Bits step, long double bound) {
  W x[mtl::kLanes<W>], y[mtl::kLanes<W>];
  for (Bits bits = first; bits < last; bits += step * mtl::kLanes<W>) {
    for (int lane = 0; lane < mtl::kLanes<W>; ++lane) {
      const Bits of_lane = bits + step * lane;
      std::memcpy(x + lane, &of_lane, sizeof of_lane);
    }
    mtl::store(y, mtl::logarithm(mtl::load(x)));
    for (int lane = 0; lane < mtl::kLanes<W>; ++lane) expect_close(x[lane], y[lane], bound);
  }
}

}  // namespace

int main() {
  check<float, uint32_t>(0x00800000u, 0x7f7f0000u, 4099, 3 * 0x1p-24L);
  check<float, uint32_t>(0x3f000000u, 0x3fc00000u, 13, 3 * 0x1p-24L);
  check<float, uint32_t>(0x3f7ff000u, 0x3f801000u, 1, 3 * 0x1p-24L);
  check<double, uint64_t>(0x0010000000000000u, 0x7fe0000000000000u, 0x00000f1357924681u, 4 * 0x1p-53L);
  check<double, uint64_t>(0x3fe0000000000000u, 0x3ff8000000000000u, 0x0000000f13579245u, 4 * 0x1p-53L);
  check<double, uint64_t>(0x3feffffffffff000u, 0x3ff0000000001000u, 1, 4 * 0x1p-53L);
}
