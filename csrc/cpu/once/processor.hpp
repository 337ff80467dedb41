// Features of the processor that runs this.
#pragma once

#include <cstdint>

namespace lares {

// Features as the sets of instructions need them, as bits; a system that does not save the
// registers lacks the feature.
enum Feature : uint32_t {
    kHasAvx2 = 1,    // with FMA and BMI
    kHasAvx512 = 2,  // F, BW, CD, DQ and VL
    kHasAvx512Bf16 = 4,
    kHasAmxBf16 = 8,  // and Linux lets this process use it
    kHasNeonBf16 = 16,
};

// All that this processor has.
uint32_t processor_features();

// Seconds since some moment, for measuring.
double seconds_now();

}  // namespace lares
