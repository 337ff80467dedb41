// Rows of the low-latency plan: eight lanes have a row, a warp four; lane c of the eight has
// columns 16 j + 2 c and 16 j + 2 c + 1.
#pragma once

#include "draws.hpp"
#include "stage.hpp"

namespace lares::cuda {

template <class S>
using OwnRow = Float[S::kChunks][2];

// Numbers from a row of sums to the next: those of a quad's rows lie in banks of their own.
template <class S>
constexpr int kSumStride = S::kWidth + 8;

LARES_DEVICE Int own_column() { return 2 * (lane_number() & 7); }

// f(number of x, number of y) for every number of two rows, x = f.
template <class S, class F>
LARES_DEVICE void combine(OwnRow<S>& x, const OwnRow<S>& y, F f) {
    LARES_UNROLL
    for (int j = 0; j < S::kChunks; ++j) {
        LARES_UNROLL
        for (int e = 0; e < 2; ++e) x[j][e] = f(x[j][e], y[j][e]);
    }
}

template <class S>
LARES_DEVICE void clear_row(OwnRow<S>& x) {
    combine<S>(x, x, [](Float, Float) { return wide(0.0f); });
}

template <class S>
LARES_DEVICE void copy_row(OwnRow<S>& x, const OwnRow<S>& y) {
    combine<S>(x, y, [](Float, Float b) { return b; });
}

template <class S>
LARES_DEVICE void mix_rows(OwnRow<S>& x, const OwnRow<S>& y, float share) {
    combine<S>(x, y, [&](Float a, Float b) { return a * share + b * (1.0f - share); });
}

// LayerNorm in place; `parameters` holds its weight, then its bias.
template <class S>
LARES_DEVICE void row_norm(OwnRow<S>& x, const float* parameters, float eps) {
    constexpr float kShare = 1.0f / S::kWidth;
    Float mean{}, square{};
    combine<S>(x, x, [&](Float a, Float) {
        mean += a;
        return a;
    });
    mean = octet_sum(mean) * kShare;
    combine<S>(x, x, [&](Float a, Float) {
        square = multiply_add(a - mean, a - mean, square);
        return a - mean;
    });
    const Float scale = inverse_root(multiply_add(octet_sum(square), wide(kShare), wide(eps)));
    LARES_UNROLL
    for (int j = 0; j < S::kChunks; ++j) {
        Float w[2], b[2];
        load_pair(w[0], w[1], parameters, own_column() + 16 * j);
        load_pair(b[0], b[1], parameters, own_column() + (S::kWidth + 16 * j));
        LARES_UNROLL
        for (int e = 0; e < 2; ++e) x[j][e] = multiply_add(x[j][e] * scale, w[e], b[e]);
    }
}

// All of 16 outputs' weights in registers.
template <class S>
struct HeldFragments {
    Word held[S::kChunks][4];

    template <class W>
    LARES_DEVICE HeldFragments(const W& weights, int first) {
        LARES_UNROLL
        for (int k = 0; k < S::kChunks; ++k) weights.load(held[k], first + k);
    }
    LARES_DEVICE void load(Word (&to)[4], int index) const {
        LARES_UNROLL
        for (int i = 0; i < 4; ++i) to[i] = held[index][i];
    }
};

// They, or, where rows are wide and the registers are wanted, what reads them again for each 16
// rows.
template <class S, class W>
LARES_DEVICE auto hold(const W& weights, int first) {
    if constexpr (S::kWidth <= 64)
        return HeldFragments<S>(weights, first);
    else
        return weights.from(first);
}

template <class S>
LARES_DEVICE void load_operand(Operand<S>& a, const unsigned char* from) {
    LARES_UNROLL
    for (int k = 0; k < S::kChunks; ++k) load_shared(a[k], from + k * kFragment);
}

// A block's sequence, and the row of it that a lane has.
template <class S>
struct SplitRows {
    const LaresCudaCall& call;
    int sequence, depth, tiles, stream;
    bool any;  // this warp has rows of the tiles
    Int row;   // in the sequence
    Mask real;
    Int hidden_row, state_row;
    Int newest;  // 0 for lanes of the newest token, else -1

    LARES_DEVICE SplitRows(const LaresCudaCall& call, const Block& block) : call(call) {
        sequence = block.index;
        const int group = sequence / call.rollouts, rollout = sequence - group * call.rollouts;
        const int length = length_of(group);
        tiles = (length + 15) / 16;
        any = 4 * block.warp < 16 * tiles;
        row = 4 * block.warp + (lane_number() >> 3);
        real = row < length;
        int first_hidden = group * call.padded_length, first_state = sequence * call.padded_length;
        if (call.padded_length == 0) {
            first_hidden = tokens_before(group);
            first_state = call.rollouts * first_hidden + rollout * length;
        }
        // A bad length leads out of no array.
        hidden_row = smaller(first_hidden + row, wide(call.n_hidden_rows - 1));
        state_row = smaller(first_state + row, wide(call.n_hidden_rows * call.rollouts - 1));
        newest = select(row == length - 1, wide(0), wide(-1));
        int number = group;
        if (call.sequence_ids != nullptr) number = one_of(call.sequence_ids, group);
        stream = number | rollout << 24;
        depth = call.max_steps;
        if (call.num_steps != nullptr) {
            const int own = one_of(call.num_steps, sequence);
            depth = own < depth ? own : depth;
        }
    }

    // Numbers of a row, zeros where there is none.
    LARES_DEVICE void load(OwnRow<S>& x, const float* from, Int at) const {
        LARES_UNROLL
        for (int j = 0; j < S::kChunks; ++j)
            load_pair(x[j][0], x[j][1], from, at * S::kWidth + own_column() + 16 * j, real);
    }

    LARES_DEVICE void store(float* to, Int at, const OwnRow<S>& x, Mask mask) const {
        LARES_UNROLL
        for (int j = 0; j < S::kChunks; ++j)
            store_pair(to, at * S::kWidth + own_column() + 16 * j, x[j][0], x[j][1], mask);
    }

    LARES_DEVICE void first_state(OwnRow<S>& x) const {
        if (call.state_mode == LARES_STATE_GIVEN) {
            load(x, call.state, state_row);
        } else if (call.state_mode == LARES_STATE_DRAWN) {
            const Int lane = lane_number();
            const Mask second = (lane & 1) == 1;
            const Seed seed = seed_at(call.seed);
            LARES_UNROLL
            for (int j = 0; j < S::kChunks; ++j) {
                Word c[4] = {wide(uint32_t(stream)), as_word(row),
                             wide(site_word(kSiteState, 0, 0)), as_word(((lane & 7) >> 1) + 4 * j)};
                philox(c, seed);
                LARES_UNROLL
                for (int e = 0; e < 2; ++e)
                    x[j][e] = truncated_normal(select(second, c[2 + e], c[e])) * call.state_scale;
            }
        } else if (call.state_mode != LARES_STATE_ZERO) {  // where x is as it was, zero
            fault();
        }
    }

    // The row in 16 bits, in operands of `chunks` fragments for each 16 rows, from the `first`.
    LARES_DEVICE void put_operand(unsigned char* to, int chunks, int first,
                                  const OwnRow<S>& x) const {
        // As mma takes it: the lane 4 g + t of row g or g + 8, and which of its four words.
        const Int lane = lane_number(), in_tile = row & 15;
        const Int holder = 4 * (in_tile & 7) + (lane & 3);
        const Int word = (in_tile >> 3) + 2 * ((lane & 7) >> 2);
        const Int place = ((row >> 4) * chunks + first) * (kFragment / 4) + 4 * holder + word;
        LARES_UNROLL
        for (int j = 0; j < S::kChunks; ++j)
            store_word(to, place + j * (kFragment / 4), pack<typename S::Type>(x[j][0], x[j][1]));
    }

    // A branch's input: the row, normalised first where `norm` is given.
    LARES_DEVICE void put_input(unsigned char* to, const OwnRow<S>& x, const float* norm) const {
        OwnRow<S> input;
        copy_row<S>(input, x);
        if (norm != nullptr) row_norm<S>(input, norm, call.eps);
        put_operand(to, S::kChunks, 0, input);
    }

    // x += all parts of the sums that multiply() left, and a bias.
    LARES_DEVICE void add_sums(OwnRow<S>& x, const float* sums, int parts,
                               const float* bias) const {
        OwnRow<S> more;
        LARES_UNROLL
        for (int j = 0; j < S::kChunks; ++j)
            load_pair(more[j][0], more[j][1], bias, own_column() + 16 * j);
        combine<S>(x, more, [](Float a, Float b) { return a + b; });
        LARES_ROLLED
        for (int part = 0; part < parts; ++part) {
            const float* from = sums + part * part_size();
            LARES_UNROLL
            for (int j = 0; j < S::kChunks; ++j)
                load_pair(more[j][0], more[j][1], from,
                          row * kSumStride<S> + own_column() + 16 * j);
            combine<S>(x, more, [](Float a, Float b) { return a + b; });
        }
    }

    // Numbers from one part of sums to the next.
    LARES_DEVICE int part_size() const { return 16 * call.unit_warps * kSumStride<S>; }

    // Write a step's outputs; a trajectory repeats its last state.
    LARES_DEVICE void write(const OwnRow<S>& x, int step) const {
        const int last = step == depth ? call.max_steps : step;
        LARES_ROLLED
        for (int at = step; at <= last; ++at)
            store(call.trajectory, wide(sequence * call.max_steps + at - 1), x, newest == 0);
        if (step == depth && call.last != nullptr) store(call.last, wide(sequence), x, newest == 0);
        if (step == depth && call.final_state != nullptr)
            store(call.final_state, state_row, x, real);
    }

  private:
    LARES_DEVICE int one_of(const int64_t* from, int index) const {
        return warp_max(::lares::cuda::load(from, wide(index), wide(0) == 0, 0));
    }

    // Held to 1 .. longest.
    LARES_DEVICE int length_of(int group) const {
        const int length = one_of(call.lengths, group);
        return length < 1 ? 1 : length > call.longest ? call.longest : length;
    }

    LARES_DEVICE int tokens_before(int group) const {
        int sum = 0;
        LARES_ROLLED
        for (int base = 0; base < group; base += 32) {
            const Int at = base + lane_number();
            const Mask inside = at < group;
            const Int length = ::lares::cuda::load(call.lengths, at, inside, 0);
            const Int held = smaller(larger(length, wide(1)), wide(call.longest));
            sum += warp_sum(select(inside, held, wide(0)));
        }
        return sum;
    }
};

}  // namespace lares::cuda
