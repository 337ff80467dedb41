// The processor's matrix unit (AMX), in the build for processors that have one for bfloat16.
//
// It has eight registers of 16 rows of 64 bytes, and multiplies 16 x 32 numbers with 32 x 16 in
// sixteen cycles. A process may have to ask for it (once/processor.cpp).
#pragma once

#include "simd.hpp"

namespace lares::LARES_ISA {

#if defined(__AMX_BF16__)

constexpr bool kMatrixUnit = true;
constexpr int kUnitRows = 16;   // of a register
constexpr int kUnitPairs = 16;  // pairs of bfloat16 in one of its rows

// As the processor reads it.
struct alignas(64) UnitShapes {
    uint8_t palette = 0, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};

    static constexpr UnitShapes whole_registers() {
        UnitShapes shapes;
        shapes.palette = 1;
        for (int i = 0; i < 8; ++i) {
            shapes.row_bytes[i] = 4 * kUnitPairs;
            shapes.rows[i] = kUnitRows;
        }
        return shapes;
    }
};
inline constexpr UnitShapes kWholeRegisters = UnitShapes::whole_registers();

// Products on this thread need one of these alive. It leaves the unit as it found it: other
// libraries of the process use it, too.
class MatrixUnit {
  public:
    MatrixUnit() {
        _tile_storeconfig(&before_);
        _tile_loadconfig(&kWholeRegisters);
    }
    ~MatrixUnit() {
        if (before_.palette)
            _tile_loadconfig(&before_);
        else
            _tile_release();
    }
    MatrixUnit(const MatrixUnit&) = delete;
    MatrixUnit& operator=(const MatrixUnit&) = delete;

  private:
    UnitShapes before_;
};

// sums (16, 16 V; rows 64 apart) of A (16 rows of pairs) and B (rows of pairs, 16 V columns), over
// `steps` times 16 pairs.
template <int V>
LARES_INLINE void unit_product(const uint32_t* a, ptrdiff_t a_stride, const uint32_t* b,
                               ptrdiff_t b_stride, int steps, float* sums) {
    static_assert(V >= 1 && V <= 4, "four registers of sums");
    // The unit's operands must be in memory: compilers do not see its loads as such.
    asm volatile("" ::: "memory");
    const ptrdiff_t a_bytes = 4 * a_stride, b_bytes = 4 * b_stride;
    _tile_zero(0);
    if constexpr (V > 1) _tile_zero(1);
    if constexpr (V > 2) _tile_zero(2);
    if constexpr (V > 3) _tile_zero(3);
    for (int k = 0; k < steps; ++k, a += kUnitPairs, b += kUnitPairs * b_stride) {
        _tile_loadd(4, a, a_bytes);
        _tile_loadd(5, b, b_bytes);
        _tile_dpbf16ps(0, 4, 5);
        if constexpr (V > 1) {
            _tile_loadd(6, b + kLanes, b_bytes);
            _tile_dpbf16ps(1, 4, 6);
        }
        if constexpr (V > 2) {
            _tile_loadd(7, b + 2 * kLanes, b_bytes);
            _tile_dpbf16ps(2, 4, 7);
        }
        if constexpr (V > 3) {
            _tile_loadd(5, b + 3 * kLanes, b_bytes);
            _tile_dpbf16ps(3, 4, 5);
        }
    }
    constexpr ptrdiff_t kSumBytes = 4 * 4 * kLanes;
    _tile_stored(0, sums, kSumBytes);
    if constexpr (V > 1) _tile_stored(1, sums + kLanes, kSumBytes);
    if constexpr (V > 2) _tile_stored(2, sums + 2 * kLanes, kSumBytes);
    if constexpr (V > 3) _tile_stored(3, sums + 3 * kLanes, kSumBytes);
    asm volatile("" ::: "memory");
}

#else

constexpr bool kMatrixUnit = false;

struct MatrixUnit {
    MatrixUnit() {}  // or compilers call it an unused variable
};

#endif

}  // namespace lares::LARES_ISA
