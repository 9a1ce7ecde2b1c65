// The largest of a panel's outputs, which a product can give in place of all of them.
#pragma once

#include "panels.h"

struct PanelMaximum {
    float value;  // NaN if one of the outputs is.
    int32_t feature;  // Of equal outputs the first.
};

// What becomes of a product's sums when only the largest are wanted: [num_rows, panels_of(weight)].
struct PanelMaxima {
    const PackedWeight& weight;
    PanelMaximum* data;

    template <typename Sum>
    void store(const Piece& piece, Sum sum) const {
        const int64_t first = piece.panel * PANEL;
        const int64_t size = std::min<int64_t>(PANEL, weight.out_features - first);
        PanelMaximum* target = data + piece.first_row * panels_of(weight) + piece.panel;
        for (int64_t row = 0; row < piece.num_rows; ++row, target += panels_of(weight)) {
            *target = largest(size, [&](int64_t i) { return sum(row, i); });
            target->feature += first;
        }
    }

  private:
    // Of the first `size` lanes of the vectors at(0), at(VEC), ...
    template <typename At>
    static PanelMaximum largest(int64_t size, At at) {
        const VecI lanes = lane_numbers();
        Vec values = splat(-__builtin_inff());
        VecI features = lanes, are_nan = {};
        for (int64_t i = 0; i < size; i += VEC) {
            const VecI is_output = lanes < int32_t(size - i);
            const Vec v = at(i);
            const VecI is_larger = (v > values) & is_output;
            values = select(is_larger, v, values);
            features = is_larger ? lanes + int32_t(i) : features;
            are_nan |= (v != v) & is_output;
        }
        const float value = max(values);
        // Negated, for the largest is what there is a reduction for.
        const VecI negated = values == splat(value) ? -features : VecI{} - PANEL;
        return {max(-are_nan) ? __builtin_nanf("") : value, -max(negated)};
    }
};
