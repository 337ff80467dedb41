// Buffers of the parameters' gradients, padded like the activations they are made of.
#pragma once

#include "weights.hpp"

namespace lares::LARES_ISA {

// Gradients of a layer, by place; null for parameters that it does not have.
struct LayerGradients {
    float* places[LARES_PARAMETERS];
    float* operator[](Parameter parameter) const { return places[parameter]; }
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
    explicit GradientLayout(const Shape& s) {
        fill(from_, from_ + LARES_PARAMETERS, ptrdiff_t(-1));
        for_parameters(s, [&](const ParameterShape& p) {
            // From the gradient of a filter's kernel (L, dp) that of its spectrum is made.
            const bool is_kernel = p.parameter == kFilterWeight;
            const int rows = is_kernel ? s.window : p.rows.total();
            const ptrdiff_t numbers = ptrdiff_t(rows) * (is_kernel ? s.dp : p.columns.total());
            from_[p.parameter] = size;
            of_layer_[p.parameter] = p.layers > 1 ? numbers : 0;
            for (int l = 0; l < p.layers; ++l, size += numbers)
                if (!is_kernel) add_places(p, l);
        });
    }

    // Gradient of a parameter in layer l; null where a core does not have it.
    float* at(float* buffer, Parameter parameter, int l = 0) const {
        const ptrdiff_t from = from_[parameter];
        return from < 0 ? nullptr : buffer + from + l * of_layer_[parameter];
    }
    LayerGradients layer(float* buffer, int l) const {
        LayerGradients g;
        for (int p = 0; p < LARES_PARAMETERS; ++p) g.places[p] = at(buffer, Parameter(p), l);
        return g;
    }

    Array<GradientPlace> places;
    ptrdiff_t size = 0;  // floats of a buffer, a multiple of kLanes

  private:
    // Adds the places of layer l, whose gradient begins at `size`.
    void add_places(const ParameterShape& p, int l) {
        const Blocks &rows = p.rows, &columns = p.columns;
        const ptrdiff_t stride = columns.total(), to_stride = columns.real();
        for (int g = 0; g < columns.groups; ++g)
            places.push_back({size + g * columns.padded, p.parameter,
                              l * rows.real() * to_stride + g * columns.size, rows.groups,
                              rows.size, columns.size, rows.padded * stride, stride,
                              rows.size * to_stride, to_stride});
    }

    ptrdiff_t from_[LARES_PARAMETERS], of_layer_[LARES_PARAMETERS];
};

}  // namespace lares::LARES_ISA
