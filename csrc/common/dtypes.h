// Storage types of bfloat16 and float16 and their conversions, for host and device alike. Arithmetic is always float or
// double: half types are widened on load and rounded to nearest even on store.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__CUDACC__)
#include <cuda_fp16.h>
#define MTL_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define MTL_HOST_DEVICE inline
#endif

namespace mtl {

struct bfloat16 {
  uint16_t bits;
};

struct float16 {
  uint16_t bits;
};

// The type of the arithmetic on T.
template <class T>
using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;

MTL_HOST_DEVICE float bits_to_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

MTL_HOST_DEVICE uint32_t float_to_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

MTL_HOST_DEVICE float widen(float value) { return value; }
MTL_HOST_DEVICE double widen(double value) { return value; }
MTL_HOST_DEVICE float widen(bfloat16 value) { return bits_to_float(static_cast<uint32_t>(value.bits) << 16); }

MTL_HOST_DEVICE float widen(float16 value) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(value.bits));
#else
  // Exponent and mantissa moved into a float and scaled by 2^112 (exact, subnormals too); Inf and NaN get the top
  // exponent.
  const uint32_t magnitude = static_cast<uint32_t>(value.bits & 0x7fff) << 13;
  uint32_t result = float_to_bits(bits_to_float(magnitude) * 0x1p112f);
  result |= magnitude >= 0x0f800000u ? 0x7f800000u : 0u;
  return bits_to_float(result | static_cast<uint32_t>(value.bits & 0x8000) << 16);
#endif
}

template <class T, class W>
MTL_HOST_DEVICE T narrow(W value) {
  return static_cast<T>(value);
}

template <>
MTL_HOST_DEVICE bfloat16 narrow<bfloat16, float>(float value) {
  const uint32_t bits = float_to_bits(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return {static_cast<uint16_t>(bits >> 16 | 0x40)};  // NaN stays NaN
  return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

template <>
MTL_HOST_DEVICE float16 narrow<float16, float>(float value) {
#if defined(__CUDA_ARCH__)
  return {__half_as_ushort(__float2half_rn(value))};
#else
  const uint32_t bits = float_to_bits(value);
  const uint32_t sign = bits >> 16 & 0x8000;
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return {static_cast<uint16_t>(sign | 0x7e00)};   // NaN
  if (magnitude >= 0x477ff000) return {static_cast<uint16_t>(sign | 0x7c00)};  // rounds to infinity
  if (magnitude < 0x38800000) {
    // Subnormal result: adding 0.5 puts the float's last mantissa bit at 2^-24, the spacing of subnormal halves.
    return {static_cast<uint16_t>(sign | (float_to_bits(bits_to_float(magnitude) + 0.5f) - 0x3f000000))};
  }
  return {static_cast<uint16_t>(sign | (magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13)};
#endif
}

}  // namespace mtl
