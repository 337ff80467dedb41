// The compilers' own __builtin_cpu_supports is not used: it needs a part of their run-time library
// that not every tool chain links, and names of features that not every version knows.

#include "processor.hpp"

#include <chrono>
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__linux__) && defined(__aarch64__)
#include <sys/auxv.h>
#endif
#if defined(__APPLE__) && defined(__aarch64__)
#include <sys/sysctl.h>
#endif

namespace lares {
namespace {

#if defined(__x86_64__)

struct Leaf {
    unsigned a = 0, b = 0, c = 0, d = 0;
    Leaf(unsigned leaf, unsigned part) { __get_cpuid_count(leaf, part, &a, &b, &c, &d); }
};

constexpr bool has(unsigned word, unsigned bits) { return (word & bits) == bits; }

// The registers that the system saves when it switches threads (XCR0).
unsigned saved_registers() {
    unsigned low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

// Linux lets a process use the matrix unit that asks.
bool may_use_matrix_unit() {
#if defined(__linux__)
    constexpr long kAsk = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, kAsk, kTileData) == 0;
#else
    return false;
#endif
}

uint32_t find_features() {
    constexpr unsigned kFma = 1u << 12, kXsave = 1u << 27, kAvx = 1u << 28;  // leaf 1, ECX
    constexpr unsigned kBmi = 1u << 3, kAvx2 = 1u << 5, kBmi2 = 1u << 8;     // leaf 7, EBX
    constexpr unsigned kAvx512 = 1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31;  // the same
    constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;     // leaf 7, EDX
    constexpr unsigned kAvx512Bf16 = 1u << 5;                        // leaf 7.1, EAX
    constexpr unsigned kWide = 6, kWidest = 0xE6, kTiles = 0x60000;  // XCR0
    const Leaf one(1, 0), seven(7, 0);
    if (!has(one.c, kFma | kXsave | kAvx) || !has(seven.b, kBmi | kAvx2 | kBmi2)) return 0;
    const unsigned saved = saved_registers();
    if (!has(saved, kWide)) return 0;
    uint32_t found = kHasAvx2;
    if (!has(seven.b, kAvx512) || !has(saved, kWidest)) return found;
    found |= kHasAvx512;
    // Leaf 7's EAX counts its parts.
    if (seven.a < 1 || !has(Leaf(7, 1).a, kAvx512Bf16)) return found;
    found |= kHasAvx512Bf16;
    if (has(seven.d, kAmxBf16 | kAmxTile) && has(saved, kTiles) && may_use_matrix_unit())
        found |= kHasAmxBf16;
    return found;
}

#elif defined(__aarch64__) && defined(__linux__)

uint32_t find_features() {
    constexpr unsigned long kCapabilities2 = 26, kBf16 = 1ul << 14;  // AT_HWCAP2, HWCAP2_BF16
    return getauxval(kCapabilities2) & kBf16 ? kHasNeonBf16 : 0;
}

#elif defined(__aarch64__) && defined(__APPLE__)

uint32_t find_features() {
    int value = 0;
    size_t size = sizeof value;
    const bool known =
        sysctlbyname("hw.optional.arm.FEAT_BF16", &value, &size, nullptr, 0) == 0 && value;
    return known ? kHasNeonBf16 : 0;
}

#else

uint32_t find_features() { return 0; }

#endif

}  // namespace

uint32_t processor_features() {
    static const uint32_t found = find_features();
    return found;
}

double seconds_now() {
    const std::chrono::duration<double> now = std::chrono::steady_clock::now().time_since_epoch();
    return now.count();
}

}  // namespace lares
