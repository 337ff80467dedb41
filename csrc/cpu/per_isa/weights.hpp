// The parameters of a core in the form the kernel reads: padded to whole vectors, weights in
// panels of operands.
#pragma once

#include "../../lares_kernels.h"
#include "gemm.hpp"
#include "mixing.hpp"
#include "philox.hpp"

namespace lares::LARES_ISA {

// Columns of the feed-forward worked on at a time, so that wide ones stay in the cache. Smaller
// chunks cost more than they save: the second product's sums go to memory and back with each.
constexpr int kChunk = 256;
static_assert(kChunk % kPanel == 0, "chunks are whole panels");

struct Shape {
    int d, heads, head_dim, f, layers;
    int dp, fp;  // d and f rounded up to whole vectors; the columns between are zero
    int adapter, activation;
    int mixer, window, kept;  // L of the mixers that have one; frequencies of BSARec's low band
    float band_share;
    bool post, query;  // neither: pre-norm
    float eps, state_scale;
    Rate dropout, attn_dropout, inner_dropout;
    bool spares_attention;

    explicit Shape(const LaresCall& call)
        : d(int(call.d_model)),
          heads(int(call.n_heads)),
          head_dim(int(call.d_model / call.n_heads)),
          f(int(call.d_ff)),
          layers(int(call.n_layers)),
          dp(round_up(d, kLanes)),
          fp(round_up(f, kLanes)),
          adapter(int(call.adapter)),
          activation(int(call.activation)),
          mixer(int(call.mixer)),
          window(int(call.window)),
          kept(int(call.cutoff / 2 + 1)),
          band_share(float(call.band_share)),
          post(call.norm == LARES_NORM_POST),
          query(call.norm == LARES_NORM_QUERY),
          eps(float(call.eps)),
          state_scale(float(call.state_scale)),
          dropout(rate_of(call.dropout_level)),
          attn_dropout(rate_of(call.attn_dropout_level)),
          inner_dropout(rate_of(call.inner_dropout_level)),
          spares_attention(call.spares_attention != 0) {}

    bool recurrent() const { return adapter != LARES_ADAPTER_NONE; }
    bool attends() const { return mixer != LARES_MIXER_FILTER; }
    bool banded() const { return mixer == LARES_MIXER_BSAREC; }
    bool windowed() const { return window > 0; }
    int bands() const { return band_rows(kept, window); }  // rows of the low band's basis

  private:
    static Rate rate_of(int64_t level) {
        Rate rate;
        if (level == 0) return rate;
        rate.threshold = int(level);
        rate.planes = 8;
        while (rate.threshold % 2 == 0) {
            rate.threshold /= 2;
            --rate.planes;
        }
        return rate;
    }
};

// Places of the parameters in LaresCall.
enum Parameter {
#define LARES_PARAMETER(name, place, ...) name = place,
#include "../../parameters.inc"
#undef LARES_PARAMETER
};

// A side of a matrix that may come in several groups, each padded apart (query, key and value).
struct Blocks {
    int groups, size, padded;  // numbers of a group, and rounded up
    int total() const { return groups * padded; }
    int64_t real() const { return int64_t(groups) * size; }
};

// A parameter of a core; a vector has one row, which nothing pads.
struct ParameterShape {
    Parameter parameter;
    int layers;  // 1 where it is not stacked
    Blocks rows, columns;
    bool is_vector() const { return rows.padded == 1; }
};

// Calls run(ParameterShape) for every parameter that a core has.
template <class Run>
inline void for_parameters(const Shape& s, const Run& run) {
    const int mixer = s.mixer, adapter = s.adapter;
    const int layers = s.layers, d = s.d, f = s.f, frequencies = LARES_ISA::frequencies(s.window);
    constexpr Blocks one_row{1, 1, 1};
    const auto side = [](int groups, int size) {
        return Blocks{groups, size, round_up(size, kLanes)};
    };
#define LARES_PARAMETER(name, place, layers, rows, columns, there)           \
    static_assert(place < LARES_PARAMETERS, "LaresCall has a place for it"); \
    if (there) run(ParameterShape{name, layers, rows, columns});
#include "../../parameters.inc"
#undef LARES_PARAMETER
}

// If queries have an input of their own, `qkv` holds keys and values only, and `q` queries.
struct LayerWeights {
    const Operand *qkv, *q, *out, *up, *down;
    // For backward: the same matrices, panels over their other dimension.
    const Operand *qkv_back, *q_back, *out_back, *up_back, *down_back;
    const float* filter;  // (2 L, dp): the convolution kernel, twice
    const float* band_square;
    const float* vectors[LARES_PARAMETERS];  // padded, by place; null for what is no vector
    const float* operator[](Parameter parameter) const { return vectors[parameter]; }
};

class Weights {
  public:
    Array<LayerWeights> layers;
    const Operand *concat = nullptr, *concat_back = nullptr;
    float gate = 0.0f;             // sigmoid of the parameter
    const float* basis = nullptr;  // (bands, L), of the low band

    // A vector of the core's: those lie with the first layer's.
    const float* operator[](Parameter parameter) const { return layers[0][parameter]; }

    Weights(const Shape& s, const float* const* p, bool backward) {
        layers.resize(size_t(s.layers));
        arena_.carve([&] { pack_all(s, p, backward); });
    }

  private:
    void pack_all(const Shape& s, const float* const* p, bool backward) {
        const Blocks d{1, s.d, s.dp}, f{1, s.f, s.fp}, qkv{3, s.d, s.dp}, both{2, s.d, s.dp};
        const Blocks together = s.query ? both : qkv;
        const int64_t dd = int64_t(s.d) * s.d, df = int64_t(s.d) * s.f;
        for_parameters(s, [&](const ParameterShape& of) {
            if (!of.is_vector()) return;
            for (int l = 0; l < of.layers; ++l)
                layers[size_t(l)].vectors[of.parameter] =
                    vector(p[of.parameter] + l * of.columns.real(), of.columns);
        });
        for (int l = 0; l < s.layers; ++l) {
            LayerWeights& w = layers[size_t(l)];
            if (s.windowed()) mixing(s, p, l, w);
            const float* qkv_weight = s.attends() ? p[kQkvWeight] + l * 3 * dd : nullptr;
            const float* out_weight = s.attends() ? p[kOutWeight] + l * dd : nullptr;
            const float* up_weight = p[kUpWeight] + l * df;
            const float* down_weight = p[kDownWeight] + l * df;
            const float* together_weight = qkv_weight + (s.query ? dd : 0);
            if (s.attends()) {
                w.qkv = pack(together_weight, together, s.d, s.d);
                if (s.query) w.q = pack(qkv_weight, d, s.d, s.d);
                w.out = pack(out_weight, d, s.d, s.d);
            }
            w.up = pack(up_weight, f, s.d, s.d);
            w.down = pack(down_weight, d, s.f, s.fp);
            if (backward) {
                if (s.attends()) {
                    w.qkv_back = pack_back(together_weight, together, d);
                    if (s.query) w.q_back = pack_back(qkv_weight, d, d);
                    w.out_back = pack_back(out_weight, {1, s.d, s.d}, d);
                }
                w.up_back = pack_back(up_weight, f, d);
                w.down_back = pack_back(down_weight, {1, s.d, s.d}, f);
            }
        }
        if (s.banded()) {
            float* to = arena_.take<float>(size_t(s.bands()) * s.window);
            if (to) band_basis(s.kept, s.window, to);
            basis = to;
        }
        if (s.adapter == LARES_ADAPTER_GATE) gate = 1.0f / (1.0f + __builtin_expf(-*p[kGate]));
        if (s.adapter == LARES_ADAPTER_CONCAT) {
            concat = pack(p[kConcatWeight], d, 2 * s.d, 2 * s.d);
            // Its two halves apart: one gives the state's gradient, the other H's.
            if (backward) concat_back = pack_back(p[kConcatWeight], {1, s.d, s.d}, both);
        }
    }

    // Packs a layer's mixing weights besides attention.
    void mixing(const Shape& s, const float* const* p, int l, LayerWeights& w) {
        if (s.banded()) {
            float* square = arena_.take<float>(size_t(s.dp));
            for (int c = 0; square && c < s.dp; ++c)
                square[c] = w[kBandScale][c] * w[kBandScale][c];
            w.band_square = square;
            return;
        }
        const ptrdiff_t size = ptrdiff_t(s.window) * s.dp;
        float* twice = arena_.take<float>(size_t(2 * size));
        w.filter = twice;
        if (arena_.counts()) return;
        filter_kernel(p[kFilterWeight] + ptrdiff_t(l) * frequencies(s.window) * s.d * 2, s.window,
                      s.d, s.dp, twice);
        std::memcpy(twice + size, twice, size_t(size) * sizeof(float));
    }

    const float* vector(const float* from, Blocks n) {
        float* to = arena_.take<float>(n.total());
        if (arena_.counts()) return to;
        for (int g = 0; g < n.groups; ++g) {
            std::memcpy(to + g * n.padded, from + g * n.size, n.size * sizeof(float));
            std::memset(to + g * n.padded + n.size, 0, (n.padded - n.size) * sizeof(float));
        }
        return to;
    }

    // W (n x k, row-major) as the right-hand side of x W^T: k rows (zeros to k_padded) of n
    // columns.
    const Operand* pack(const float* weight, Blocks n, int k, int k_padded) {
        const int columns = n.total();
        Operand* to = arena_.take<Operand>(size_t(folds(k_padded)) * columns);
        if (arena_.counts()) return to;
        for (int first = 0; first < columns; first += kPanel) {
            const int width = columns - first < kPanel ? columns - first : kPanel;
            Operand* packed = to + ptrdiff_t(first) * folds(k_padded);
            float* panel = draft(packed, k_padded);
            for (int j = 0; j < width; j += kLanes) {
                const int group = (first + j) / n.padded, row = (first + j) % n.padded;
                const float* from = weight + (ptrdiff_t(group) * n.size + row) * k;
                const int real = n.size - row < kLanes ? n.size - row : kLanes;
                int at = 0;
                if (real == kLanes)
                    for (; at + kLanes <= k; at += kLanes)
                        transpose_block(from + at, k, panel + ptrdiff_t(at) * width + j, width);
                for (; at < k_padded; ++at)
                    for (int i = 0; i < kLanes; ++i)
                        panel[ptrdiff_t(at) * width + j + i] =
                            i < real && at < k ? from[ptrdiff_t(i) * k + at] : 0.0f;
            }
            if constexpr (kBf16) by_columns(panel, width, k_padded, width, packed);
        }
        return to;
    }

    // W (k x n, row-major) as the right-hand side of g W: k rows of n columns.
    const Operand* pack_back(const float* weight, Blocks k, Blocks n) {
        const int columns = n.total(), rows = k.total(), stride = n.groups * n.size;
        Operand* to = arena_.take<Operand>(size_t(folds(rows)) * columns);
        if (arena_.counts()) return to;
        for (int first = 0; first < columns; first += kPanel) {
            const int width = columns - first < kPanel ? columns - first : kPanel;
            Operand* packed = to + ptrdiff_t(first) * folds(rows);
            float* panel = draft(packed, rows);
            for (int r = 0; r < rows; ++r) {
                const int in_group = r % k.padded;
                const bool real_row = in_group < k.size;
                const float* from = weight + (ptrdiff_t(r / k.padded) * k.size + in_group) * stride;
                for (int j = 0; j < width; j += kLanes) {
                    const int group = (first + j) / n.padded, column = (first + j) % n.padded;
                    const int real =
                        real_row ? (n.size - column < kLanes ? n.size - column : kLanes) : 0;
                    float* at = panel + ptrdiff_t(r) * width + j;
                    const float* values = from + group * n.size + column;
                    if (real == kLanes) {
                        store(at, load(values));
                    } else {
                        for (int i = 0; i < kLanes; ++i) at[i] = i < real ? values[i] : 0.0f;
                    }
                }
            }
            if constexpr (kBf16) by_columns(panel, width, rows, width, packed);
        }
        return to;
    }

    // Buffer in which a panel is assembled: the panel itself, unless it has to be rounded.
    float* draft(float* packed, int) { return packed; }
    float* draft(uint32_t*, int rows) {
        draft_.resize(size_t(rows) * kPanel);
        return draft_.begin();
    }

    Arena arena_;
    Array<float> draft_;
};

}  // namespace lares::LARES_ISA
