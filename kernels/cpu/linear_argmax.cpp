// The largest output of a linear layer: the product gives that of each panel, and then they are compared.

#include <cmath>

#include "linear.h"
#include "panel_maxima.h"
#include "scratch.h"

namespace {

// -1 if one of them is NaN, or the largest is not finite.
int64_t largest_of(const PanelMaximum* maxima, int64_t num_panels) {
    PanelMaximum largest = {-__builtin_inff(), -1};
    for (int64_t i = 0; i < num_panels; ++i) {
        if (std::isnan(maxima[i].value)) return -1;
        if (maxima[i].value > largest.value) largest = maxima[i];
    }
    return std::isfinite(largest.value) ? largest.feature : -1;
}

}  // namespace

extern "C" void linear_argmax(const PackedWeight* weight, const void* x, int64_t* features,
                              int64_t num_rows) {
    const int64_t num_panels = panels_of(*weight);
    auto* maxima = scratch<PanelMaximum>(num_rows * num_panels);
    product(x, num_rows, PanelMaxima{*weight, maxima});
    for (int64_t row = 0; row < num_rows; ++row) {
        features[row] = largest_of(maxima + row * num_panels, num_panels);
    }
}
