// Launches without a card: what cuda/device/launch.hpp asks of CUDA's runtime, and what it makes of
// the answers. Compiled by tests/kernels/cuda/test_launch.py.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "launch.hpp"

namespace lares::cuda {
unsigned char shared[16];  // which a card gives each block
}
using namespace lares::cuda;

#define REQUIRE(condition)                                                         \
    if (!(condition)) {                                                            \
        std::fprintf(stderr, "line %d: %s does not hold\n", __LINE__, #condition); \
        std::exit(1);                                                              \
    }

template <int Number>
struct Nothing {
    static constexpr int kMaxWarps = 8;
    Nothing(const LaresCudaCall&, const Block&, unsigned char*) {}
    void run() const {}
};

int main() {
    LaresCudaCall call = {};
    int stream = 0;
    call.stream = &stream;

    // Less shared memory after more, as from another thread: the limit is the card's, set once.
    REQUIRE(launch<Nothing<0>>(call, 3, 2, 60000) == nullptr);
    REQUIRE(launch<Nothing<0>>(call, 1, 4, 100) == nullptr);
    REQUIRE(launch<Nothing<0>>(call, 1, 4, 232448) == nullptr);
    REQUIRE(stand_in::times_set == 1);
    const cudaLaunchConfig_t& first = stand_in::launched.front();
    REQUIRE(first.gridDim.x == 3 && first.blockDim.x == 64 && first.stream == &stream);
    REQUIRE(first.dynamicSmemBytes == 60000);

    // Another kernel, and another card, have limits of their own.
    REQUIRE(launch<Nothing<1>>(call, 1, 1, 60000) == nullptr);
    stand_in::card = 1;
    REQUIRE(launch<Nothing<0>>(call, 1, 1, 60000) == nullptr);
    REQUIRE(stand_in::times_set == 3);

    // A failed launch is reported, and not as the next one's error.
    REQUIRE(std::strcmp(launch<Nothing<0>>(call, 1, 1, 232449), "invalid value") == 0);
    REQUIRE(cudaGetLastError() == cudaSuccess);
    REQUIRE(launch<Nothing<0>>(call, 1, 1, 8) == nullptr);

    // So is a limit that is refused, which is asked for again.
    stand_in::most_shared = 300000;
    REQUIRE(std::strcmp(launch<Nothing<2>>(call, 1, 1, 8), "invalid value") == 0);
    REQUIRE(cudaGetLastError() == cudaSuccess);
    stand_in::most_shared = 232448;
    REQUIRE(launch<Nothing<2>>(call, 1, 1, 8) == nullptr);

    // A call may ask for more cache; what it asks for ends with it.
    call.carveout = 40;
#if CUDART_VERSION >= 12060
    REQUIRE(launch<Nothing<2>>(call, 1, 1, 8) == nullptr);
    REQUIRE(stand_in::carveouts.back() == 40);
#else
    REQUIRE(std::strstr(launch<Nothing<2>>(call, 1, 1, 8), "largest_cache") != nullptr);
#endif
    call.carveout = 0;
    REQUIRE(launch<Nothing<2>>(call, 1, 1, 8) == nullptr);
    REQUIRE(stand_in::carveouts.empty() || stand_in::carveouts.back() == 0);

    // An error that another kernel left is not this launch's.
    stand_in::last = cudaErrorLaunchFailure;
    REQUIRE(launch<Nothing<2>>(call, 1, 1, 8) == nullptr);
    cudaGetLastError();

    {
        const DeviceGuard guard(-1);
        REQUIRE(std::strcmp(guard.error, "invalid value") == 0);
    }
    REQUIRE(stand_in::card == 1 && cudaGetLastError() == cudaSuccess);
    {
        const DeviceGuard guard(0);
        REQUIRE(guard.error == nullptr && stand_in::card == 0);
    }
    REQUIRE(stand_in::card == 1);
    std::puts("launches are right");
    return 0;
}
