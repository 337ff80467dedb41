// Where the gradients of the parameters are gathered, padded like the activations they are made of.
#pragma once

#include "weights.hpp"

namespace lares::LARES_ISA {

struct LayerGradients {
    float *qkv, *qkv_bias, *out, *out_bias, *attn_norm_weight, *attn_norm_bias;
    float *up, *up_bias, *down, *down_bias, *ffn_norm_weight, *ffn_norm_bias;
};

// A gradient in the buffer and where it goes: `groups` blocks of `rows` x `columns` numbers.
struct GradientPlace {
    ptrdiff_t from;  // in the buffer
    int parameter;   // of LaresCall
    ptrdiff_t to;    // in that parameter's gradient
    int groups, rows, columns;
    ptrdiff_t group_stride, row_stride;  // in the buffer
    ptrdiff_t to_group_stride, to_row_stride;
};

class GradientLayout {
  public:
    explicit GradientLayout(const Shape& s) : shape_(s) {
        const ptrdiff_t d = s.d, dp = s.dp, f = s.f, fp = s.fp;
        for (int l = 0; l < s.layers; ++l) {
            matrix(kQkvWeight, l, 3, s.d, s.d, dp, dp);
            vector(kQkvBias, l, 3, s.d, dp);
            matrix(kOutWeight, l, 1, s.d, s.d, dp, dp);
            vector(kOutBias, l, 1, s.d, dp);
            vector(kAttnNormWeight, l, 1, s.d, dp);
            vector(kAttnNormBias, l, 1, s.d, dp);
            matrix(kUpWeight, l, 1, s.f, s.d, fp, dp);
            vector(kUpBias, l, 1, s.f, fp);
            matrix(kDownWeight, l, 1, s.d, s.f, dp, fp);
            vector(kDownBias, l, 1, s.d, dp);
            vector(kFfnNormWeight, l, 1, s.d, dp);
            vector(kFfnNormBias, l, 1, s.d, dp);
        }
        (void)d, (void)f;
        if (!s.recurrent()) return;
        vector(kCoreNormWeight, 0, 1, s.d, dp);
        vector(kCoreNormBias, 0, 1, s.d, dp);
        if (s.adapter == LARES_ADAPTER_GATE) vector(kGate, 0, 1, 1, kLanes);
        if (s.adapter == LARES_ADAPTER_CONCAT) {
            // Groups are the columns of the state and those of H.
            places.push_back({size, kConcatWeight, 0, 2, s.d, s.d, dp, 2 * dp, s.d, 2 * s.d});
            size += 2 * dp * dp;
            vector(kConcatBias, 0, 1, s.d, dp);
        }
    }

    LayerGradients layer(float* buffer, int l) const {
        const auto at = [&](int i) { return buffer + places[size_t(12 * l + i)].from; };
        return {at(0), at(1), at(2), at(3), at(4),  at(5),
                at(6), at(7), at(8), at(9), at(10), at(11)};
    }
    // The i-th place after the layers': the core's LayerNorm, then the adapter's.
    float* core(float* buffer, int i) const {
        return buffer + places[size_t(12 * shape_.layers + i)].from;
    }

    std::vector<GradientPlace> places;
    ptrdiff_t size = 0;  // floats of a buffer, a multiple of kLanes

  private:
    void matrix(int parameter, int l, int groups, int rows, int columns, ptrdiff_t rows_padded,
                ptrdiff_t columns_padded) {
        const ptrdiff_t block = ptrdiff_t(rows) * columns;
        places.push_back({size, parameter, l * groups * block, groups, rows, columns,
                          rows_padded * columns_padded, columns_padded, block, columns});
        size += groups * rows_padded * columns_padded;
    }

    void vector(int parameter, int l, int groups, int columns, ptrdiff_t padded) {
        places.push_back({size, parameter, ptrdiff_t(l) * groups * columns, groups, 1, columns,
                          padded, padded, columns, columns});
        size += groups * padded;
    }

    Shape shape_;
};

}  // namespace lares::LARES_ISA
