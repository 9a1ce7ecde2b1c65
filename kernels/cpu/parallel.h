// Work split over the threads of the pool.
#pragma once

#include <algorithm>
#include <cstdint>

#include "thread_pool.h"

// As many threads as there are, but no more than leave `grain` work to each: to hand over a piece of
// work takes a microsecond.
inline int64_t threads_for(int64_t work, int64_t grain) {
    return std::clamp<int64_t>(work / std::max<int64_t>(grain, 1), 1, thread_pool::num_threads());
}

// Calls body(i) for each i in [0, count), on any of so many threads.
template <typename Body>
void parallel_for(int64_t count, int64_t num_threads, Body body) {
    thread_pool::run(
        count, num_threads, [](void* it, int64_t i) { (*static_cast<Body*>(it))(i); }, &body);
}

// Calls body(begin, end) for ranges that together cover [0, count): a few for each thread, so that
// one that is held up leaves its share to the others.
template <typename Body>
void parallel_ranges(int64_t count, int64_t grain, Body body) {
    constexpr int64_t RANGES_PER_THREAD = 4;
    const int64_t num_threads = threads_for(count, grain);
    const int64_t num_ranges = num_threads == 1 ? 1 : std::min(count, num_threads * RANGES_PER_THREAD);
    parallel_for(num_ranges, num_threads, [&](int64_t i) {
        body(count * i / num_ranges, count * (i + 1) / num_ranges);
    });
}

// Calls body(row) for each of num_rows rows, elementwise work on row_size numbers.
template <typename Body>
void parallel_rows(int64_t num_rows, int64_t row_size, Body body) {
    constexpr int64_t WORTH_A_THREAD = 16384;
    parallel_ranges(num_rows, WORTH_A_THREAD / row_size, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) body(row);
    });
}

// Calls body(task) for each task; they may be of unequal size. `work` is the number of multiply-adds
// in all of them.
template <typename Body>
void parallel_tasks(int64_t num_tasks, int64_t work, Body body) {
    constexpr int64_t WORTH_A_THREAD = 1 << 18;
    parallel_for(num_tasks, std::min(threads_for(work, WORTH_A_THREAD), num_tasks), body);
}
