// Natural logarithm of vectors, by polynomials of our own (minimax fits): libm's cannot be vectorised.
//
// For normal numbers above 0: exact 0 at 1, never positive below, relative error below 3 * 2^-24 for float and 4 *
// 2^-53 for double. 0, subnormal numbers, NaN and infinity give some finite number.
#pragma once

#include <cstdint>

#include "cpu/vector.h"

namespace mtl {

// x = 2^exponent * (1 + offset) with 1 + offset in [sqrt(1/2), sqrt(2)).
template <class W>
struct Decomposed {
  Vector<W> exponent;
  Vector<W> offset;
};

template <class W, class Bits, int kMantissa, Bits kOne, Bits kRootHalf>
MTL_INLINE Decomposed<W> decompose(Vector<W> x) {
  using Words = Vector<Bits>;
  // Moved so that the exponent field steps at sqrt(1/2) instead of at 1: field = exponent + bias.
  const Words field = (reinterpret_cast<Words>(x) + (kOne - kRootHalf)) >> kMantissa;
  const Words mantissa = reinterpret_cast<Words>(x) - (field << kMantissa) + kOne;
  // A small integer beside the exponent of 2^kMantissa is that power plus the integer.
  constexpr Bits kBias = kOne >> kMantissa;
  constexpr Bits kPower = (kBias + kMantissa) << kMantissa;
  const W shift = static_cast<W>(Bits(1) << kMantissa) + static_cast<W>(kBias);
  return {reinterpret_cast<Vector<W>>(field | kPower) - shift, reinterpret_cast<Vector<W>>(mantissa) - W(1)};
}

// offset + offset^2 R(offset).
MTL_INLINE Vector<float> logarithm(Vector<float> x) {
  constexpr float kR[] = {-0.499999916f, 0.333339485f, -0.250017580f, 0.199621329f,
                          -0.165704696f, 0.149173516f, -0.143076058f, 0.0873662780f};
  const auto [exponent, offset] = decompose<float, uint32_t, 23, 0x3f800000u, 0x3f3504f3u>(x);
  const Vector<float> square = offset * offset;
  const Vector<float> low = (kR[1] * offset + kR[0]) + square * (kR[3] * offset + kR[2]);
  const Vector<float> high = (kR[5] * offset + kR[4]) + square * (kR[7] * offset + kR[6]);
  return exponent * 0.693147181f + (square * (square * square * high + low) + offset);
}

// 2 atanh(s) = 2 s + s^3 A(s^2) with s = offset / (2 + offset).
MTL_INLINE Vector<double> logarithm(Vector<double> x) {
  constexpr double kA[] = {0.66666666666666855925, 0.39999999999701771711, 0.28571428684228504848,
                           0.22222204101823337569, 0.18183295022940962455, 0.1532056425322977414,
                           0.14733925635579014843};
  const auto [exponent, offset] = decompose<double, uint64_t, 52, 0x3ff0000000000000u, 0x3fe6a09e667f3bcdu>(x);
  const Vector<double> s = offset / (offset + 2.0);
  const Vector<double> z = s * s;
  Vector<double> a = z * kA[6] + kA[5];
#pragma GCC unroll 5
  for (int n = 4; n >= 0; --n) a = a * z + kA[n];
  return exponent * 0.69314718055994530942 + (s * z * a + 2.0 * s);
}

}  // namespace mtl
