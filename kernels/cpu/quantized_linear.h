// The linear layer of quantized weights, for linear.cpp.
#pragma once

#include "ops.h"

// `linear` for a weight whose layout is one of the quantized ones.
void quantized_linear(const PackedWeight& weight, const void* x, void* out, int64_t num_rows);
