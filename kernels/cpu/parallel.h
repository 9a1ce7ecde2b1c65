// Work split over the threads that torch was told to use.
#pragma once

#include <algorithm>
#include <cstdint>

#ifdef _OPENMP
#include <omp.h>
#else
inline int omp_get_max_threads() { return 1; }
inline int omp_get_num_threads() { return 1; }
inline int omp_get_thread_num() { return 0; }
#endif

// As many threads as there are, but no more than leave `grain` work to each: waking one takes
// microseconds.
inline int64_t threads_for(int64_t work, int64_t grain) {
    return std::clamp<int64_t>(work / std::max<int64_t>(grain, 1), 1, omp_get_max_threads());
}

// Calls body(begin, end) for ranges that together cover [0, count), one range a thread.
template <typename Body>
void parallel_ranges(int64_t count, int64_t grain, Body body) {
    const int64_t num_threads = threads_for(count, grain);
    if (num_threads == 1) {
        body(0, count);
        return;
    }
#pragma omp parallel num_threads(num_threads)
    {
        const int64_t thread = omp_get_thread_num();
        const int64_t team = omp_get_num_threads();
        body(count * thread / team, count * (thread + 1) / team);
    }
}

// Calls body(row) for each of num_rows rows, elementwise work on row_size numbers.
template <typename Body>
void parallel_rows(int64_t num_rows, int64_t row_size, Body body) {
    constexpr int64_t WORTH_A_THREAD = 16384;
    parallel_ranges(num_rows, WORTH_A_THREAD / row_size, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) body(row);
    });
}

// Calls body(task) for each task, each thread taking the next one when it is free: for tasks of
// unequal size. `work` is the number of multiply-adds in all of them.
template <typename Body>
void parallel_tasks(int64_t num_tasks, int64_t work, Body body) {
    constexpr int64_t WORTH_A_THREAD = 1 << 18;
    const int64_t num_threads = std::min(threads_for(work, WORTH_A_THREAD), num_tasks);
    if (num_threads <= 1) {
        for (int64_t task = 0; task < num_tasks; ++task) body(task);
        return;
    }
#pragma omp parallel for schedule(dynamic, 1) num_threads(num_threads)
    for (int64_t task = 0; task < num_tasks; ++task) body(task);
}
