// Random calls of the CUDA kernels on the emulator, for sanitizers to watch (tests/kernels/cuda).
//
// Every call runs with units of two sizes, and without dropout by the low-latency plan, which must
// agree: tiles, masks and barriers then differ, the decisions do not. Arrays are of the exact size,
// so that a step past an end is seen.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "lares_cuda.h"

namespace {

std::mt19937 generator(7);

int number(int low, int high) { return std::uniform_int_distribution<int>(low, high)(generator); }

std::vector<float> numbers(size_t count, float scale) {
    std::normal_distribution<float> normal(0.0f, scale);
    std::vector<float> made(count);
    for (auto& x : made) x = normal(generator);
    return made;
}

std::vector<uint16_t> halves(size_t count) {
    std::vector<uint16_t> made(count);
    const std::vector<float> x = numbers(count, 0.1f);
    for (size_t i = 0; i < count; ++i) {
        uint32_t bits;
        __builtin_memcpy(&bits, &x[i], 4);
        made[i] = uint16_t(bits >> 16);
    }
    return made;
}

LaresCudaRate rate(bool drops) {
    if (!drops) return {0, 0, 1.0f};
    return {0x60000000u, 3, 1.0f / (1.0f - 0.375f)};  // 3 / 8
}

struct Problem {
    LaresCudaCall call = {};
    int sequences, rows;
    bool staged;  // weights of calls in tiles
    int heads;    // bytes of two heads of them, which forward of wide rows takes by halves
    std::vector<int64_t> lengths, order, num_steps;
    std::vector<float> hidden, vectors;
    std::vector<uint16_t> matrices;

    Problem() {
        const int longest = number(1, 2) == 1 ? number(1, 16) : number(17, 64);
        const int scale = number(0, 2), d = 32 << scale, head_tiles = 1 << number(scale / 2, scale);
        call.abi = LARES_CUDA_ABI;
        call.d_model = d;
        call.head_tiles = head_tiles;
        call.n_heads = d / (16 * head_tiles);
        call.d_ff = 32 * number(1, 3);
        call.n_layers = number(1, 2);
        call.adapter = number(LARES_ADAPTER_ADD, LARES_ADAPTER_CONCAT);
        call.activation = number(LARES_GELU, LARES_SILU);
        call.pre_norm = number(0, 1);
        call.precision = LARES_BF16;
        call.eps = 1e-12f;
        call.state_scale = 3.0f;
        call.score_scale = 1.442695f / std::sqrt(16.0f * head_tiles);
        const bool drops = number(0, 2) > 0;
        call.residual = rate(drops && number(0, 1));
        call.attention = rate(drops);
        call.n_groups = number(1, 5);
        call.rollouts = number(1, 2);
        call.longest = longest;
        call.max_steps = number(1, 3);
        call.state_mode = LARES_STATE_DRAWN;
        static int64_t seed;
        call.seed = &seed;
        call.seed_low = 17;
        sequences = call.n_groups * call.rollouts;
        int total = 0;
        for (int i = 0; i < call.n_groups; ++i) {
            lengths.push_back(number(1, longest));
            total += int(lengths.back());
        }
        const bool padded = number(0, 1);
        call.padded_length = padded ? longest : 0;
        call.n_hidden_rows = padded ? call.n_groups * longest : total;
        rows = call.n_hidden_rows * call.rollouts;
        call.kept_rows = total * call.rollouts;
        hidden = numbers(size_t(call.n_hidden_rows) * d, 1.0f);
        // Sequences in order of depth: the first ones run all steps, the others one.
        for (int i = 0; i < sequences; ++i) {
            order.push_back(sequences - 1 - i);
            num_steps.push_back(i % 2 == 0 ? call.max_steps : 1);
        }
        std::stable_sort(order.begin(), order.end(),
                         [&](int64_t a, int64_t b) { return num_steps[a] > num_steps[b]; });
        const int chunks = d / 16;
        const int layer = 4 * call.n_heads * head_tiles * chunks + call.d_ff / 16 * 2 * chunks;
        const int concat = call.adapter == LARES_ADAPTER_CONCAT ? 2 * chunks * chunks : 0;
        matrices = halves(size_t(call.n_layers * layer + concat) * 256);
        const int vector = 48 * call.n_heads * head_tiles + 6 * d + call.d_ff;
        vectors = numbers(size_t(call.n_layers * vector + 3 * d + 4), 0.5f);
        call.resident = d == 32 || (d == 64 && number(0, 1));  // as compiled
        staged = !call.resident && number(0, 1);
        heads = staged ? 2 * 4 * head_tiles * chunks * 512 : 0;
        call.shared_bytes =
            int(4 * vectors.size()) + (call.resident ? call.n_layers * layer * 512 : 0);
    }

    // The trajectory, computed by units of `unit_warps` warps.
    std::vector<float> run(int unit_warps) {
        LaresCudaCall c = call;
        const int tiles = sequences, tile_rows = 16 * unit_warps;
        c.unit_warps = unit_warps;
        c.units = 8 / unit_warps > 2 ? 2 : 8 / unit_warps;
        c.blocks = tiles > 1 ? 2 : 1;
        const bool drops = call.residual.planes > 0 || call.attention.planes > 0;
        c.staged = staged;
        const int pieces = call.d_model > 64 ? heads / 2 : heads;
        c.shared_bytes = call.shared_bytes + pieces + c.units * unit_warps * of_warp(drops);
        c.max_tiles = tiles;
        c.programs = c.program_blocks = 1;
        std::vector<int32_t> of_sequences(LARES_CUDA_SEQUENCE_FIELDS * sequences),
            sums(LARES_CUDA_PROGRAM_SUMS), tile_start(tiles), tile_count(1),
            info(size_t(tiles) * LARES_CUDA_FIELDS * tile_rows);
        std::vector<float> trajectory(size_t(sequences) * call.max_steps * call.d_model, NAN),
            final_state(size_t(rows) * call.d_model),
            kept(size_t(call.max_steps) * call.kept_rows * call.d_model);
        c.lengths = lengths.data();
        c.order = order.data();
        c.num_steps = num_steps.data();
        c.hidden = hidden.data();
        c.matrices = matrices.data();
        c.vectors = vectors.data();
        c.sequences = of_sequences.data();
        c.sums = sums.data();
        c.tile_start = tile_start.data();
        c.tile_count = tile_count.data();
        c.rows = info.data();
        c.trajectory = trajectory.data();
        if (number(0, 1)) c.final_state = final_state.data();
        const bool backward = call.head_tiles <= 2 || !call.resident;  // as compiled
        if (backward) c.kept = kept.data();
        require(lares_cuda_forward(&c));
        if (backward) run_backward(c, trajectory);
        return trajectory;
    }

    // The trajectory by the low-latency plan, which knows no dropout: a block for each sequence.
    std::vector<float> run_split() {
        LaresCudaCall c = call;
        const int d = call.d_model, chunks = d / 16, mixed = call.n_heads * call.head_tiles;
        const int inner = call.d_ff / 16, attention = 3 * mixed + std::max(mixed, chunks);
        c.unit_warps = (call.longest + 15) / 16;
        c.units = 1;
        c.blocks = sequences;
        c.split_parts = inner % 4 == 0 ? 2 : 1;
        c.shared_bytes += c.unit_warps * (std::max(attention, inner) * 512 +
                                          c.split_parts * 16 * (d + 8) * int(sizeof(float)));
        std::vector<float> trajectory(size_t(sequences) * call.max_steps * d, NAN),
            final_state(size_t(rows) * d);
        c.lengths = lengths.data();
        c.num_steps = num_steps.data();
        c.hidden = hidden.data();
        c.matrices = matrices.data();
        c.vectors = vectors.data();
        c.trajectory = trajectory.data();
        if (number(0, 1)) c.final_state = final_state.data();
        require(lares_cuda_forward(&c));
        return trajectory;
    }

    // Bytes of shared memory of a warp: keys and values of a head, and of wide rows those that
    // wait.
    int of_warp(bool drops) const {
        return 2 * call.head_tiles * 512 +
               (drops && call.d_model > 64 ? call.d_model / 8 * 512 : 0);
    }

    // Backward in two calls where there are two steps, of a loss whose gradient is the trajectory.
    void run_backward(LaresCudaCall c, const std::vector<float>& g_trajectory) {
        const int d = call.d_model, chunks = d / 16;
        const int unit_count = 4 * call.n_heads * call.head_tiles + call.d_ff / 8;
        const int vector_size = int(vectors.size());
        const size_t warp_tiles = size_t(c.max_tiles) * c.unit_warps;
        const int warps = c.blocks * c.units * c.unit_warps;
        c.shared_bytes = call.shared_bytes + heads + c.units * c.unit_warps * of_warp(true);
        c.scratch_bytes =
            ((3 * call.n_layers + 2) * d / 8 + 4 * call.head_tiles * (c.unit_warps - 1)) * 512;
        c.splits = 2;
        c.products_ahead = number(0, 1);
        c.transposed = c.resident && number(0, 1);
        const size_t steps = call.max_steps;
        std::vector<unsigned char> spill(steps * call.n_layers * warp_tiles *
                                         (unit_count + 4 * chunks) * 512),
            concat_spill(steps * warp_tiles * 3 * chunks * 512),
            scratch(size_t(warps) * c.scratch_bytes);
        std::vector<float> g_hidden(size_t(rows) * d), g_first(size_t(rows) * d),
            carry(size_t(call.kept_rows) * d), gradients(size_t(warps) * vector_size),
            g_matrices(c.splits * matrices.size()), g_vectors(size_t(c.splits) * vector_size);
        c.g_trajectory = g_trajectory.data();
        c.g_hidden = g_hidden.data();
        c.g_first = g_first.data();
        c.carry = carry.data();
        c.spill = spill.data();
        c.concat_spill = call.adapter == LARES_ADAPTER_CONCAT ? concat_spill.data() : nullptr;
        c.scratch = scratch.data();
        c.gradients = gradients.data();
        c.g_matrices = g_matrices.data();
        c.g_vectors = g_vectors.data();
        for (int last = call.max_steps; last >= 1; last -= 2) {
            c.first_step = last > 1 ? last - 1 : 1;
            c.last_step = last;
            c.begins = last == call.max_steps;
            require(lares_cuda_backward(&c));
        }
        for (float g : g_hidden)
            if (!std::isfinite(g)) require("a gradient is not a number");
    }

    static void require(const char* error) {
        if (error == nullptr) return;
        std::fprintf(stderr, "a call failed: %s\n", error);
        std::exit(1);
    }
};

// Keys come in another order, so sums are rounded otherwise; a wrong mask is off by 0.1 or more.
bool near(const std::vector<float>& one, const std::vector<float>& other) {
    double error = 0.0, size = 0.0;
    for (size_t k = 0; k < one.size(); ++k) {
        error += double(one[k] - other[k]) * (one[k] - other[k]);
        size += double(one[k]) * one[k];
    }
    return error <= 4e-4 * size;
}

}  // namespace

int main(int argc, char** argv) {
    const int calls = argc > 1 ? std::atoi(argv[1]) : 20;
    for (int i = 0; i < calls; ++i) {
        Problem problem;
        int warps = 1;
        while (16 * warps < problem.call.longest) warps *= 2;
        const std::vector<float> one = problem.run(warps), other = problem.run(2 * warps);
        if (!near(one, other)) {
            std::fprintf(stderr, "call %d: units of %d and %d warps differ\n", i, warps, 2 * warps);
            return 1;
        }
        const bool drops = problem.call.residual.planes + problem.call.attention.planes > 0;
        if (!drops && !near(one, problem.run_split())) {
            std::fprintf(stderr, "call %d: the low-latency plan differs from tiles\n", i);
            return 1;
        }
    }
    std::printf("%d calls: nothing wrong\n", calls);
    return 0;
}
