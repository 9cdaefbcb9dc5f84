// Vectors of 32 bytes in GNU vector types, and functions compiled once per instruction set.
//
// A leaf function marked MTL_CLONES exists for plain x86-64, x86-64-v3 (AVX2, FMA) and x86-64-v4 (AVX-512); the loader
// picks one. Everything it calls must be inlined into it (MTL_INLINE), since the attribute does not follow calls.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

// The sanitizers' run-time cannot resolve the clones at load time.
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define MTL_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4"), noinline))
#else
#define MTL_CLONES __attribute__((noinline))
#endif
#define MTL_INLINE __attribute__((always_inline)) inline

namespace mtl {

template <class T>
struct VectorOf {
  static constexpr int lanes = 32 / sizeof(T);
  typedef T type __attribute__((vector_size(32)));
  typedef T unaligned __attribute__((vector_size(32), aligned(sizeof(T)), may_alias));
};

template <class T>
using Vector = typename VectorOf<T>::type;

template <class T>
constexpr int kLanes = VectorOf<T>::lanes;

template <class T>
MTL_INLINE Vector<T> load(const T* source) {
  return *reinterpret_cast<const typename VectorOf<T>::unaligned*>(source);
}

template <class T>
MTL_INLINE void store(T* target, Vector<T> value) {
  *reinterpret_cast<typename VectorOf<T>::unaligned*>(target) = value;
}

// Zeroed memory that starts on a cache line.
template <class T>
class AlignedBuffer {
 public:
  explicit AlignedBuffer(int64_t size)
      : values_(static_cast<T*>(::operator new(size * sizeof(T), std::align_val_t(64)))) {
    std::uninitialized_fill_n(values_.get(), size, T(0));
  }
  T* get() const { return values_.get(); }

 private:
  struct Free {
    void operator()(T* values) const { ::operator delete(values, std::align_val_t(64)); }
  };
  std::unique_ptr<T[], Free> values_;
};

}  // namespace mtl
