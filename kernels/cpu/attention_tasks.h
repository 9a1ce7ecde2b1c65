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

// A task whose segments threads share: the first of its parts, which are neighbours.
struct CutTask {
    int64_t first, num_parts;
};

class Plan {
  public:
    std::vector<Task> tasks;
    std::vector<CutTask> cut;
    int64_t num_parts = 0;  // Of all that are cut.
    // A thread takes tasks [runs[i], runs[i + 1]), one after the other.
    std::vector<int64_t> runs = {0};
    int64_t num_threads;

    template <typename U>
    Plan(const Attention<U>& a, const int32_t* seq_lens, const int32_t* query_start_loc,
         int64_t num_requests) {
        int64_t work = 0;
        for (int64_t i = 0; i < num_requests; ++i) {
            work += a.num_heads * (query_start_loc[i + 1] - query_start_loc[i]) * seq_lens[i];
        }
        num_threads = threads_for(work, WORTH_A_THREAD);
        const int64_t most_runs = num_threads == 1 ? 1 : num_threads * RUNS_PER_THREAD;
        for (int64_t request = 0; request < num_requests; ++request) {
            const int64_t begin = query_start_loc[request], end = query_start_loc[request + 1];
            if (begin < end) add(a, request, begin, end, seq_lens[request], work / most_runs);
        }
        share_out(a.heads_per_kv_head(), most_runs);
    }

    int64_t num_runs() const { return runs.size() - 1; }

  private:
    static constexpr int64_t RUNS_PER_THREAD = 4;
    // Scores.
    static constexpr int64_t WORTH_A_THREAD = 512;

    // Adds tasks of at most MAX_ROWS rows. Of a request with more than a run's share of the step's
    // scores, threads share the heads.
    template <typename U>
    void add(const Attention<U>& a, int64_t request, int64_t begin, int64_t end, int64_t seq_len,
             int64_t share) {
        const int64_t group = a.heads_per_kv_head(), num_kv_heads = a.layout.num_kv_heads;
        const int64_t num_tiles = (end - begin + MAX_ROWS / group - 1) / (MAX_ROWS / group);
        const int64_t most_queries = (end - begin + num_tiles - 1) / num_tiles;
        const int64_t head_bytes =
            KEY_TILE * a.layout.head_units() * sizeof(typename U::Unit) / a.layout.lanes();
        const bool is_long = a.num_heads * (end - begin) * seq_len > share;
        const int64_t most_heads = std::clamp<int64_t>(
            std::min(MAX_ROWS / (most_queries * group), MAX_TILE_BYTES / head_bytes), 1,
            is_long ? 1 : num_kv_heads);
        for (int64_t head = 0; head < num_kv_heads; head += most_heads) {
            const int64_t num_heads = std::min(most_heads, num_kv_heads - head);
            for (int64_t token = begin; token < end; token += most_queries) {
                const int64_t num_queries = std::min(most_queries, end - token);
                const int64_t position = seq_len - (end - token);
                const int64_t lanes = a.lanes_to(position + num_queries - 1);
                add({request, head, num_heads, token, num_queries, position, 0, lanes, -1}, group,
                    share);
            }
        }
    }

    // Of a task with more than two runs' share, threads share the segments: to add them up again takes
    // longer than to wait for a smaller one.
    void add(Task task, int64_t heads_per_kv_head, int64_t share) {
        const int64_t lanes = task.last_lane;
        if (task.num_rows(heads_per_kv_head) * lanes <= 2 * share || lanes <= SEGMENT) {
            tasks.push_back(task);
            return;
        }
        cut.push_back({int64_t(tasks.size()), (lanes + SEGMENT - 1) / SEGMENT});
        for (int64_t lane = 0; lane < lanes; lane += SEGMENT) {
            task.first_lane = lane;
            task.last_lane = std::min(lane + SEGMENT, lanes);
            task.part = num_parts++;
            tasks.push_back(task);
        }
    }

    // As many runs as threads can share, of about the same number of scores.
    void share_out(int64_t heads_per_kv_head, int64_t most_runs) {
        std::vector<int64_t> work = {0};
        for (const Task& task : tasks) {
            const int64_t lanes = task.last_lane - task.first_lane;
            work.push_back(work.back() + task.num_rows(heads_per_kv_head) * lanes);
        }
        for (int64_t i = 1; i < most_runs; ++i) {
            const auto end = std::lower_bound(work.begin(), work.end(), work.back() * i / most_runs);
            runs.push_back(end - work.begin());
        }
        runs.push_back(tasks.size());
    }
};
