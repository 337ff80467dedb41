// A whole call for one instruction set. Compiled once for each, with LARES_ISA naming it.

#include <chrono>
#include <cmath>
#include <memory>

#include "isa.hpp"
#include "threads.hpp"
#include "tile.hpp"
#include "weight_cache.hpp"

namespace lares::LARES_ISA {
namespace {

// Rows of a tile: enough for the products, few enough that a tile and the weights share the L2
// cache.
constexpr int kTileRows = 96;

// Parts of a batch whose parameter gradients are gathered apart and then added in order. Their
// number depends on the batch alone, so that any number of threads gives the same bits.
constexpr int kParts = 16;
// Work beside which packing the weights is nothing.
constexpr double kWorthPacking = 5e8;

double layer_operations(const Shape& s, const Batch& batch, int64_t steps) {
    const double row = 2.0 * (4.0 * s.d * s.d + 2.0 * s.d * s.f) * s.layers;
    return row * double(batch.rows) * double(steps);
}

// Whole windows where these are what is computed.
int tile_rows(const LaresCall& call) {
    if (call.mixer == LARES_MIXER_ATTENTION) return kTileRows;
    const int64_t windows = (kTileRows + call.window / 2) / call.window;
    return int(std::max<int64_t>(windows, 1) * call.window);
}

void forward_tiles(const CallPlan& plan, double operations) {
    run_pieces(int(plan.batch.tiles.size()), threads_for(plan.call.threads, operations),
               [&](int tile) {
                   BorrowedArena arena;
                   forward_tile(plan, plan.batch.tiles[size_t(tile)], *arena);
               });
}

void forward(const LaresCall& call) {
    const Shape shape(call);
    const Batch batch(call, tile_rows(call));
    const double operations = layer_operations(shape, batch, call.max_steps);
    if (operations < kWorthPacking) {
        const auto packed = WeightCache::instance().get(shape, call.parameters);
        return forward_tiles({call, batch, shape, *packed->weights}, operations);
    }
    BorrowedArena weight_arena;
    weight_arena->reserve(Weights::bytes(shape, false));
    const Weights weights(shape, call.parameters, false, *weight_arena);
    forward_tiles({call, batch, shape, weights}, operations);
}

// The tiles of part `part` of `parts`: about equally many rows each.
std::pair<int, int> tiles_of_part(const Batch& batch, int part, int parts) {
    const int64_t tiles = int64_t(batch.tiles.size());
    return {int(tiles * part / parts), int(tiles * (part + 1) / parts)};
}

void write_parameter_gradients(const LaresCall& call, const Shape& s, const GradientLayout& layout,
                               float* grads) {
    const ptrdiff_t spectrum = ptrdiff_t(frequencies(std::max(s.window, 1))) * s.d * 2;
    for (int l = 0; l < s.layers && !s.attends(); ++l)
        filter_kernel_backward(layout.filter(grads, l), s.window, s.d, s.dp,
                               call.g_parameters[kFilterWeight] + l * spectrum);
    for (const GradientPlace& p : layout.places)
        for (int g = 0; g < p.groups; ++g)
            for (int r = 0; r < p.rows; ++r)
                std::memcpy(call.g_parameters[p.parameter] + p.to + g * p.to_group_stride +
                                r * p.to_row_stride,
                            grads + p.from + g * p.group_stride + r * p.row_stride,
                            size_t(p.columns) * sizeof(float));
}

// H's gradient of a sequence is the sum over its rollouts, in order.
void add_rollouts(const CallPlan& plan, const float* rows) {
    const int64_t d = plan.shape.d, rollouts = plan.call.rollouts;
    for (const Sequence& q : plan.batch.sequences) {
        if (q.index % rollouts) continue;
        float* to = plan.call.g_hidden + q.hidden_row * d;
        const float* from = rows + q.row * d;
        const int64_t size = q.length * d;
        std::memcpy(to, from, size_t(size) * sizeof(float));
        for (int64_t g = 1; g < rollouts; ++g)
            for (int64_t i = 0; i < size; ++i) to[i] += from[g * size + i];
        clear_padding(plan, q, q.hidden_row, plan.call.g_hidden);
    }
}

void backward(const LaresCall& call) {
    const Shape shape(call);
    const Batch batch(call, tile_rows(call));
    BorrowedArena weight_arena, grad_arena;
    weight_arena->reserve(Weights::bytes(shape, true));
    const Weights weights(shape, call.parameters, true, *weight_arena);
    const CallPlan plan{call, batch, shape, weights};
    const GradientLayout layout(shape);

    const int parts = std::min(kParts, int(batch.tiles.size()));
    const size_t rollout_rows = call.rollouts > 1 ? size_t(batch.rows) * shape.d : 0;
    grad_arena->reserve((size_t(parts) * layout.size + rollout_rows) * sizeof(float) +
                        2 * kAlignment);
    float* grads = grad_arena->take<float>(size_t(parts) * layout.size);
    float* g_hidden = rollout_rows ? grad_arena->take<float>(rollout_rows) : call.g_hidden;

    const int threads =
        threads_for(call.threads, 4 * layer_operations(shape, batch, call.max_steps));
    run_pieces(parts, threads, [&](int part) {
        float* own = grads + part * layout.size;
        std::memset(own, 0, size_t(layout.size) * sizeof(float));
        BorrowedArena arena;
        const auto [first, end] = tiles_of_part(batch, part, parts);
        for (int tile = first; tile < end; ++tile)
            backward_tile(plan, batch.tiles[size_t(tile)], layout, own, g_hidden, *arena);
    });

    constexpr ptrdiff_t kSlice = 4096;
    const int slices = int((layout.size + kSlice - 1) / kSlice);
    run_pieces(slices, threads, [&](int slice) {
        const ptrdiff_t end = std::min(layout.size, (slice + 1) * kSlice);
        for (int part = 1; part < parts; ++part)
            for (ptrdiff_t i = slice * kSlice; i < end; i += kLanes)
                add_to(grads + i, load(grads + part * layout.size + i));
    });
    write_parameter_gradients(call, shape, layout, grads);
    if (rollout_rows) add_rollouts(plan, g_hidden);
}

#if defined(__AMX_BF16__)

// Products of registers of the matrix unit.
double measure_peak() {
    constexpr int kRounds = 2000, kOperations = 2 * kUnitRows * kLanes * 2 * kUnitPairs;
    const MatrixUnit unit;
    double best = 0.0;
    for (int trial = 0; trial < 50; ++trial) {
        const auto start = std::chrono::steady_clock::now();
        for (int round = 0; round < kRounds; ++round) {
            _tile_dpbf16ps(0, 4, 5);
            _tile_dpbf16ps(1, 4, 6);
            _tile_dpbf16ps(2, 4, 7);
            _tile_dpbf16ps(3, 4, 5);
        }
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
        best = std::max(best, 4.0 * kOperations * kRounds / took.count());
    }
    return best * 1e-9;
}

#else

// Multiply-adds on as many independent sums as hide their latency, from registers alone.
double measure_peak() {
    constexpr int kSums = 2 * kBlockRows * kPanelVectors > 24 ? 24 : 12, kRounds = 2000;
    double best = 0.0;
    Vec sums[kSums];
    for (auto& v : sums) v = broadcast(1.0f);
    for (int trial = 0; trial < 200; ++trial) {
        const Vec a = broadcast(1.0f + 1e-7f * float(trial)), c = broadcast(1e-7f);
        const auto step = [&](Vec sum) LARES_INLINE_LAMBDA {
            return kBf16 ? multiply_add(bits_as<OperandVec>(a), bits_as<OperandVec>(c), sum)
                         : sum * a + c;
        };
        const auto start = std::chrono::steady_clock::now();
        for (int round = 0; round < kRounds; ++round) {
#pragma GCC unroll 24
            for (int i = 0; i < kSums; ++i) sums[i] = step(sums[i]);
        }
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
        best = std::max(best, 2.0 * kFold * kLanes * kSums * kRounds / took.count());
    }
    volatile float sink = 0.0f;
    for (const auto& v : sums) sink = sink + v[0];
    return best * 1e-9;
}

#endif

Vec evaluate(int function, Vec x) {
    switch (function) {
        case LARES_EXP:
            return exp(x);
        case LARES_LOG:
            return log(x);
        case LARES_ERF_SCALED:
            return erf_scaled(x);
        case LARES_GELU_SLOPE:
            return Gelu::both(x).slope;
        default:
            return sigmoid(x);
    }
}

bool evaluate(int function, int64_t count, const float* x, float* y) {
    if (function < LARES_EXP || function > LARES_SIGMOID) return false;
    for (int64_t i = 0; i < count; i += kLanes) {
        float in[kLanes] = {}, out[kLanes];
        const size_t size = size_t(std::min<int64_t>(kLanes, count - i)) * sizeof(float);
        for (auto& value : in) value = 1.0f;
        std::memcpy(in, x + i, size);
        store(out, evaluate(function, load(in)));
        std::memcpy(y + i, out, size);
    }
    return true;
}

bool usable() {
#if defined(__AVX512F__)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           (!kBf16 || __builtin_cpu_supports("avx512bf16")) && matrix_unit_usable();
#elif defined(__AVX2__)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return true;
#endif
}

}  // namespace

#define LARES_TEXT2(x) #x
#define LARES_TEXT(x) LARES_TEXT2(x)
extern const CatalogueKernels catalogue_kernels;
extern const IsaKernels kernels;
const IsaKernels kernels{LARES_TEXT(LARES_ISA),
                         kBf16 ? LARES_BF16 : LARES_FP32,
                         usable,
                         forward,
                         backward,
                         &catalogue_kernels,
                         measure_peak,
                         evaluate};

}  // namespace lares::LARES_ISA
