// The linear layer of quantized weights, for linear.cpp.
#pragma once

#include "fetch_ahead.h"
#include "ops.h"

// As `product` of linear.h, for a weight whose layout is one of the quantized ones; along with it what
// there is to fetch.
template <typename R>
void quantized_product(const void* x, int64_t num_rows, FetchAhead& ahead, const R& result);

// Of all outputs of a panel.
int64_t quantized_panel_bytes(const PackedWeight& weight);
