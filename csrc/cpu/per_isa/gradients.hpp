// Where the gradients of the parameters are gathered, padded like the activations they are made of.
#pragma once

#include "weights.hpp"

namespace lares::LARES_ISA {

struct LayerGradients {
    float *qkv, *qkv_bias, *out, *out_bias, *attn_norm_weight, *attn_norm_bias;
    float *up, *up_bias, *down, *down_bias, *ffn_norm_weight, *ffn_norm_bias;
    float *filter_norm_weight, *filter_norm_bias, *band_scale;
    float* filter;  // (L, dp), of the convolution kernel
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
            if (s.attends()) {
                matrix(kQkvWeight, l, 3, s.d, s.d, dp, dp);
                vector(kQkvBias, l, 3, s.d, dp);
                matrix(kOutWeight, l, 1, s.d, s.d, dp, dp);
                vector(kOutBias, l, 1, s.d, dp);
                vector(kAttnNormWeight, l, 1, s.d, dp);
                vector(kAttnNormBias, l, 1, s.d, dp);
            }
            matrix(kUpWeight, l, 1, s.f, s.d, fp, dp);
            vector(kUpBias, l, 1, s.f, fp);
            matrix(kDownWeight, l, 1, s.d, s.f, dp, fp);
            vector(kDownBias, l, 1, s.d, dp);
            vector(kFfnNormWeight, l, 1, s.d, dp);
            vector(kFfnNormBias, l, 1, s.d, dp);
            if (s.windowed()) {
                vector(kFilterNormWeight, l, 1, s.d, dp);
                vector(kFilterNormBias, l, 1, s.d, dp);
            }
            if (s.banded()) vector(kBandScale, l, 1, s.d, dp);
            if (l == 0) layer_places_ = places.size();
        }
        if (!s.attends()) {
            filters_ = size;
            size += ptrdiff_t(s.layers) * s.window * dp;
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
        size_t place = layer_places_ * size_t(l);
        const auto next = [&] { return buffer + places[place++].from; };
        LayerGradients g{};
        float** const attention[] = {&g.qkv,      &g.qkv_bias,         &g.out,
                                     &g.out_bias, &g.attn_norm_weight, &g.attn_norm_bias};
        float** const feed_forward[] = {&g.up,        &g.up_bias,         &g.down,
                                        &g.down_bias, &g.ffn_norm_weight, &g.ffn_norm_bias};
        float** const window[] = {&g.filter_norm_weight, &g.filter_norm_bias};
        if (shape_.attends())
            for (float** at : attention) *at = next();
        for (float** at : feed_forward) *at = next();
        if (shape_.windowed())
            for (float** at : window) *at = next();
        if (shape_.banded()) g.band_scale = next();
        if (!shape_.attends()) g.filter = filter(buffer, l);
        return g;
    }
    // The gradient of layer l's convolution kernel, from which its spectrum's is made.
    float* filter(float* buffer, int l) const {
        return buffer + filters_ + ptrdiff_t(l) * shape_.window * shape_.dp;
    }
    // The i-th place after the layers': the core's LayerNorm, then the adapter's.
    float* core(float* buffer, int i) const {
        return buffer + places[layer_places_ * size_t(shape_.layers) + size_t(i)].from;
    }

    Array<GradientPlace> places;
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
    size_t layer_places_ = 0;  // of each layer
    ptrdiff_t filters_ = 0;    // where the kernels' gradients begin
};

}  // namespace lares::LARES_ISA
