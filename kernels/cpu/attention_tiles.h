// What attention reads of the cache: tiles of KEY_TILE lanes, wherever their blocks lie.
#pragma once

#include <algorithm>

#include "kv_layout.h"

constexpr int64_t KEY_TILE = 128;
constexpr int64_t TILE_GROUPS = KEY_TILE / PAGE_LANES;

template <typename U>
struct Attention {
    using Element = typename U::Element;
    using Unit = typename U::Unit;

    const Element* q;
    const Unit* pages;
    const int32_t* block_tables;
    Element* out;
    KvLayout<U> layout;
    int64_t num_heads, q_stride, table_stride;
    float scale;

    int64_t heads_per_kv_head() const { return num_heads / layout.num_kv_heads; }
    int64_t dim_units() const { return layout.dim_units(); }
    // Lanes of a request up to and with a position.
    int64_t lanes_to(int64_t position) const {
        return position / layout.block_size * layout.lanes() + position % layout.block_size + 1;
    }
};

// Neighbouring queries of one request, and some of its KV heads. What shares a KV head is worked on
// together, as rows: row = query * heads_per_kv_head + head.
struct Task {
    int64_t request, first_kv_head, num_kv_heads, first_token, num_queries, first_position;
    // Of the request's lanes; all of them, unless threads share them.
    int64_t first_lane, last_lane;
    // Then it is one of the parts of the step's tasks that are to be added up; -1 otherwise.
    int64_t part;

    int64_t end_token() const { return first_token + num_queries; }
    // Of all its KV heads.
    int64_t num_rows(int64_t heads_per_kv_head) const {
        return num_kv_heads * num_queries * heads_per_kv_head;
    }
};

// KEY_TILE lanes of a request from `start` on, of which `count` have been written.
template <typename U>
struct Tile {
    using Unit = typename U::Unit;

    int64_t start, count;
    // The keys and values of the task's first KV head, PAGE_LANES lanes each.
    const Unit *keys[TILE_GROUPS], *values[TILE_GROUPS];
    // The same of all heads of the task, as one stretch of memory after the other.
    const Unit* stretches[TILE_GROUPS];
    int64_t stretch_bytes;

    // These lanes of another KV head.
    Tile of_head(int64_t index, const KvLayout<U>& layout) const {
        Tile tile = *this;
        for (auto& keys : tile.keys) keys += index * layout.head_units();
        for (auto& values : tile.values) values += index * layout.head_units();
        return tile;
    }
};

template <typename U>
Tile<U> find_tile(const Attention<U>& a, const Task& task, int64_t start) {
    const auto& layout = a.layout;
    const int64_t lanes = layout.lanes();
    const int64_t stretch = task.num_kv_heads * layout.head_units() / (lanes / PAGE_LANES);
    Tile<U> tile = {start, std::min(task.last_lane - start, KEY_TILE), {}, {}, {}, 0};
    tile.stretch_bytes = stretch * sizeof(typename U::Unit);
    const int32_t* table = a.block_tables + task.request * a.table_stride;
    for (int64_t group = 0; group < TILE_GROUPS; ++group) {
        // What lies past the end repeats the last group, and is masked.
        const int64_t lane = start + std::min(group * PAGE_LANES, (tile.count - 1) & -PAGE_LANES);
        const int64_t offset = lane % lanes;
        const auto* keys = a.pages + layout.keys(table[lane / lanes], task.first_kv_head);
        tile.keys[group] = keys + offset;
        tile.values[group] =
            keys + layout.page_units() + offset / U::PER_UNIT * layout.value_stride();
        tile.stretches[group] = keys + offset / PAGE_LANES * stretch;
    }
    return tile;
}

// What a thread reads next, while the steps of its work fetch it.
class Ahead {
  public:
    template <typename U>
    void follow(const Tile<U>& next) {
        num_left_ = (next.count + PAGE_LANES - 1) / PAGE_LANES;
        for (int64_t group = 0; group < num_left_; ++group) {
            stretches_[group] = reinterpret_cast<const char*>(next.stretches[group]);
        }
        stretch_bytes_ = next.stretch_bytes;
        stretch_ = offset_ = 0;
    }

    // Where to fetch so many bytes from, some again at the end of a stretch that they do not divide;
    // when nothing is left, what is read last.
    const char* take(int64_t num_bytes) {
        const int64_t last = std::max<int64_t>(stretch_bytes_ - num_bytes, 0);
        const char* begin = stretches_[stretch_] + std::min(offset_, last);
        if (num_left_ == 0) return begin;
        offset_ += num_bytes;
        if (offset_ < stretch_bytes_) return begin;
        offset_ = 0;
        if (--num_left_ > 0) ++stretch_;
        return begin;
    }

    // Fetches so many bytes at once, or what is left.
    void fetch(int64_t num_bytes) {
        for (; num_bytes > 0 && num_left_ > 0; num_bytes -= CACHE_LINE) {
            __builtin_prefetch(take(CACHE_LINE), 0, 2);
        }
    }

    int64_t bytes_left() const { return num_left_ * stretch_bytes_ - offset_; }

  private:
    const char* stretches_[TILE_GROUPS];
    int64_t stretch_bytes_, num_left_, stretch_, offset_;
};

// The tiles of a thread's tasks in the order it works on them, and the one that comes next.
template <typename U>
class TileWalk {
  public:
    TileWalk(const Attention<U>& attention, const Task* begin, const Task* end)
        : attention_(attention), task_(begin), end_(end) {
        next_ = find_tile(attention_, *task_, task_->first_lane);
        ahead_.follow(next_);
        advance();
    }

    const Tile<U>& tile() const { return tile_; }
    Ahead& ahead() { return ahead_; }

    void advance() {
        tile_ = next_;
        int64_t start = tile_.start + KEY_TILE;
        if (start >= task_->last_lane && task_ + 1 < end_) start = (++task_)->first_lane;
        if (start >= task_->last_lane) return;
        next_ = find_tile(attention_, *task_, start);
        ahead_.follow(next_);
    }

  private:
    const Attention<U>& attention_;
    const Task *task_, *end_;
    Tile<U> tile_, next_;
    Ahead ahead_;
};
