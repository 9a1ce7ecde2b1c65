// How a step's attention is cut into tasks, and these shared out among threads.
#pragma once

#include <vector>

#include "attention_tiles.h"
#include "online_softmax.h"
#include "parallel.h"

// Lanes of a request that are summed up apart from the others, so that threads can share a long one.
constexpr int64_t SEGMENT = 8 * KEY_TILE;
// What a task reads of a tile, at most, so that it and the next one stay in the L2 cache.
constexpr int64_t MAX_TILE_BYTES = 256 << 10;

class Plan {
  public:
    // Tasks of one request and KV head whose segments threads share are neighbours.
    std::vector<Task> tasks;
    // A thread takes tasks [runs[i], runs[i + 1]), one after the other.
    std::vector<int64_t> runs = {0};
    int64_t num_threads;

    template <typename U>
    Plan(const Attention<U>& a, const int32_t* seq_lens, const int32_t* query_start_loc,
         int64_t num_requests) {
        const bool are_shared = num_requests < REQUESTS_PER_THREAD * thread_pool::num_threads();
        for (int64_t request = 0; request < num_requests; ++request) {
            const int64_t begin = query_start_loc[request], end = query_start_loc[request + 1];
            if (begin < end) add(a, request, begin, end, seq_lens[request], are_shared);
        }
        share_out(a.heads_per_kv_head());
    }

    int64_t num_runs() const { return runs.size() - 1; }

  private:
    // So many, and each is a task of its own.
    static constexpr int64_t REQUESTS_PER_THREAD = 4;
    static constexpr int64_t RUNS_PER_THREAD = 4;
    // Scores.
    static constexpr int64_t WORTH_A_THREAD = 512;

    // Adds tasks of at most MAX_ROWS rows. Threads share the heads, and the segments of one query.
    template <typename U>
    void add(const Attention<U>& a, int64_t request, int64_t begin, int64_t end, int64_t seq_len,
             bool are_shared) {
        const int64_t group = a.heads_per_kv_head(), num_kv_heads = a.layout.num_kv_heads;
        const int64_t most_queries = std::min(MAX_ROWS / group, end - begin);
        const int64_t head_bytes = TILE_GROUPS * 2 * PAGE_LANES * a.layout.padded_dim() *
                                   sizeof(typename U::Element);
        const int64_t most_heads = std::clamp<int64_t>(
            std::min(MAX_ROWS / (most_queries * group), MAX_TILE_BYTES / head_bytes), 1,
            are_shared ? 1 : num_kv_heads);
        for (int64_t head = 0; head < num_kv_heads; head += most_heads) {
            const int64_t num_heads = std::min(most_heads, num_kv_heads - head);
            for (int64_t token = begin; token < end; token += most_queries) {
                const int64_t num_queries = std::min(most_queries, end - token);
                const int64_t position = seq_len - (end - token);
                const int64_t lanes = a.lanes_to(position + num_queries - 1);
                const int64_t step = are_shared && end - begin == 1 ? SEGMENT : lanes;
                for (int64_t lane = 0; lane < lanes; lane += step) {
                    tasks.push_back({request, head, num_heads, token, num_queries, position, lane,
                                     std::min(lane + step, lanes)});
                }
            }
        }
    }

    // As many runs as threads can share, of about the same number of scores.
    void share_out(int64_t heads_per_kv_head) {
        std::vector<int64_t> work = {0};
        for (const Task& task : tasks) {
            const int64_t lanes = task.last_lane - task.first_lane;
            work.push_back(work.back() + task.num_rows(heads_per_kv_head) * lanes);
        }
        num_threads = threads_for(work.back(), WORTH_A_THREAD);
        const int64_t most = num_threads == 1 ? 1 : num_threads * RUNS_PER_THREAD;
        for (int64_t i = 1; i < most; ++i) {
            const auto end = std::lower_bound(work.begin(), work.end(), work.back() * i / most);
            runs.push_back(end - work.begin());
        }
        runs.push_back(tasks.size());
    }
};
