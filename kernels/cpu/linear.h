// Products with a packed weight, for what is made of their sums; see linear.cpp.
#pragma once

#include "fetch_ahead.h"
#include "ops.h"

// `linear`, or `add_linear`, of ops.h, and along with it what there is to fetch.
void product(const PackedWeight& weight, const void* x, void* out, int64_t num_rows, bool adds,
             FetchAhead& ahead);

// Has threads that wait fetch a weight: the one that is multiplied by next.
void fetch_while_waiting(const PackedWeight& weight);

// Multiplies num_rows rows by result.weight; `result` stores the sums, piece by piece (see panels.h).
template <typename R>
void product(const void* x, int64_t num_rows, const R& result);
