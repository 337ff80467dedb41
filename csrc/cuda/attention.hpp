// Causal attention inside a tile. Of all that is computed only keys and values of one head leave a
// warp's registers: the unit's later warps, whose rows may belong to the same sequence, need them,
// and the warp itself has better use for the registers meanwhile.
#pragma once

#include <cmath>

#include "apart.hpp"
#include "products.hpp"
#include "tile.hpp"

namespace lares::cuda {

// Warps that work together, and their barriers.
struct Unit {
    Block block;
    int index, warps;         // of the block; in the unit
    unsigned char* exchange;  // of the unit's first warp, kOfWarp bytes for each

    LARES_DEVICE void barrier() const {
        if (warps > 1) block.unit_barrier(index, warps);
    }
    // The same barrier, which also makes each warp's memory writes visible to the others.
    LARES_DEVICE void memory_barrier() const {
        if (warps > 1) block.fence();
        barrier();
    }
};

// A query's bits of attention dropout, by key position, of rows g and g + 8.
struct KeptKeys {
    Word upper[2], lower[2];
};

// Bits from `shift` >= -31 on of a 64-bit word that goes on with ones: sequences with more than 64
// keys drop none.
LARES_DEVICE Word window(const Word (&word)[2], Int shift) {
    const Mask far = shift >= 32;
    const Word right =
        funnel_right(select(far, word[1], word[0]), select(far, wide(~0u), word[1]), shift & 31);
    return select(shift < 0, word[0] << as_word(smaller(larger(-shift, wide(0)), wide(31))), right);
}

// Softmax over the keys seen so far: sums of exponentials relative to the greatest score.
template <class S>
struct Softmax {
    Sums context[S::kHead];
    Float most[2], total[2];  // of rows g and g + 8

    // Take 16 more keys, columns 0..15: visible are from first[r] to last[r]. `keys` is what
    // head_keys() left for them.
    template <bool First>
    LARES_DEVICE void add(const Word (&query)[S::kHead][4], const unsigned char* keys,
                          const Int (&first)[2], const Int (&last)[2], float score_scale,
                          const KeptKeys& kept) {
        using T = typename S::Type;
        Sums s;
        LARES_UNROLL
        for (int c = 0; c < S::kHead; ++c) {
            Word key[4];
            load_shared(key, keys + c * kFragment);
            add_product<T>(s, query[c], key);
        }
        const Int column = first_column();
        LARES_UNROLL
        for (int r = 0; r < 2; ++r) {
            Float here = wide(-INFINITY);
            LARES_UNROLL
            for (int half = 0; half < 2; ++half) {
                LARES_UNROLL
                for (int e = 0; e < 2; ++e) {
                    const Int key = column + (8 * half + e);
                    Float& score = s.c[half][2 * r + e];
                    const Mask visible = both(key >= first[r], key <= last[r]);
                    score = select(visible, score * score_scale, wide(-INFINITY));
                    here = larger(here, score);
                }
            }
            here = quad_max(here);
            if constexpr (First) {
                most[r] = here;  // of a query at least itself
                total[r] = wide(0.0f);
            } else {
                here = larger(here, most[r]);
                const Float share = exp2(most[r] - here);
                most[r] = here;
                total[r] = total[r] * share;
                LARES_UNROLL
                for (int c = 0; c < S::kHead; ++c) {
                    LARES_UNROLL
                    for (int half = 0; half < 2; ++half) {
                        context[c].c[half][2 * r] = context[c].c[half][2 * r] * share;
                        context[c].c[half][2 * r + 1] = context[c].c[half][2 * r + 1] * share;
                    }
                }
            }
            Word bits{};
            if constexpr (S::kDrops) {
                bits = window(r == 0 ? kept.upper : kept.lower, -first[r]) >> as_word(column);
            }
            LARES_UNROLL
            for (int half = 0; half < 2; ++half) {
                LARES_UNROLL
                for (int e = 0; e < 2; ++e) {
                    Float& p = s.c[half][2 * r + e];
                    p = exp2(p - most[r]);
                    total[r] = total[r] + p;
                    if constexpr (S::kDrops)
                        p = select((bits & (1u << (8 * half + e))) != 0u, p, wide(0.0f));
                }
            }
        }
        Word weights[4];
        pack_operand<T>(weights, s);
        LARES_UNROLL
        for (int c = 0; c < S::kHead; ++c) {
            Word value[4];
            load_shared(value, keys + (S::kHead + c) * kFragment);
            add_product<T>(context[c], weights, value);
        }
    }

    // The mixed values as operand of the next product.
    LARES_DEVICE void finish(Word (&a)[S::kHead][4], float scale) {
        const Float share[2] = {scale * inverse(quad_sum(total[0])),
                                scale * inverse(quad_sum(total[1]))};
        LARES_UNROLL
        for (int c = 0; c < S::kHead; ++c) {
            LARES_UNROLL
            for (int half = 0; half < 2; ++half) {
                LARES_UNROLL
                for (int i = 0; i < 4; ++i)
                    context[c].c[half][i] = context[c].c[half][i] * share[i / 2];
            }
            pack_operand<typename S::Type>(a[c], context[c]);
        }
    }
};

// Sixteen columns of a head's projections of 16 rows; `weights` has their fragments from `first`,
// `bias` is theirs.
template <class S, class W>
LARES_DEVICE Sums project(const Operand<S>& a, const W& weights, int first, const float* bias) {
    Sums s = column_bias(bias);
    add_product<S>(s, a, weights, first);
    return s;
}

// A query is the first operand of Q K^T,
template <class S, class W>
LARES_DEVICE void project_query(Word (&query)[4], const Operand<S>& a, const W& weights, int first,
                                const float* bias) {
    pack_operand<typename S::Type>(query, project<S>(a, weights, first, bias));
}

// a key its second,
template <class S, class W>
LARES_DEVICE void project_key(Word (&key)[4], const Operand<S>& a, const W& weights, int first,
                              const float* bias) {
    pack_transposed<typename S::Type>(key, project<S>(a, weights, first, bias));
}

// and a value the second of P V, which has a pair of keys in a word where V itself has them in two
// rows: hence V^T = W x^T.
template <class S, class W>
LARES_DEVICE void project_value(Word (&value)[4], const Operand<S>& a, const W& weights, int first,
                                const float* bias) {
    using T = typename S::Type;
    const Int output = lane_number() >> 2;
    const Float upper = load(bias, output), lower = load(bias, output + 8);
    Sums s;
    LARES_UNROLL
    for (int half = 0; half < 2; ++half) {
        s.c[half][0] = s.c[half][1] = upper;
        s.c[half][2] = s.c[half][3] = lower;
    }
    LARES_UNROLL
    for (int k = 0; k < S::kChunks; ++k) {
        Word w[4];
        weights.load(w, first + k);
        mma<T>(s.c[0], w[0], w[2], w[1], w[3], a[k][0], a[k][2]);
        mma<T>(s.c[1], w[0], w[2], w[1], w[3], a[k][1], a[k][3]);
    }
    pack_transposed<T>(value, s);
}

// One head's queries; `weights` and `bias` are the head's own.
template <class S, class W>
LARES_DEVICE void head_query(Word (&query)[S::kHead][4], const Operand<S>& a, const W& weights,
                             const float* bias) {
    LARES_UNROLL
    for (int c = 0; c < S::kHead; ++c)
        project_query<S>(query[c], a, weights, c * S::kChunks, bias + 16 * c);
}

// One head's keys and values of 16 rows as second operands, of Q K^T and of P V, left in shared
// memory. A lane writes what it will itself read of its own warp's.
template <class S>
struct LeftKeys {
    using T = typename S::Type;

    unsigned char* to;
    Word trace = {};  // of all that was left

    template <class W>
    LARES_DEVICE void leave_keys(const Operand<S>& a, const W& weights, const float* bias) {
        LARES_UNROLL
        for (int c = 0; c < S::kHead; ++c) {
            const int column = S::kHead + c;
            Word key[4];
            project_key<S>(key, a, weights, column * S::kChunks, bias + 16 * column);
            leave(key, c);
        }
    }
    template <class W>
    LARES_DEVICE void leave_values(const Operand<S>& a, const W& weights, const float* bias) {
        LARES_UNROLL
        for (int c = 0; c < S::kHead; ++c) {
            const int column = 2 * S::kHead + c;
            Word value[4];
            project_value<S>(value, a, weights, column * S::kChunks, bias + 16 * column);
            leave(value, S::kHead + c);
        }
    }
    // All that was left is finite from here on, but for keys that are NaN (apart.hpp).
    LARES_DEVICE void set_apart() const {
        if (any(spoilt(trace))) set_keys_apart<S>(to);
    }

  private:
    LARES_DEVICE void leave(const Word (&made)[4], int place) {
        store_shared(to + place * kFragment, made);
        LARES_UNROLL
        for (int i = 0; i < 4; ++i) trace = add_trace<T>(trace, made[i]);
    }
};

// Both of a head whose weights are at hand at once.
template <class S, class W>
LARES_DEVICE void head_keys(unsigned char* to, const Operand<S>& a, const W& weights,
                            const float* bias) {
    LeftKeys<S> left = {to};
    left.leave_keys(a, weights, bias);
    left.leave_values(a, weights, bias);
    left.set_apart();
}

}  // namespace lares::cuda
