// Memory that a thread keeps from one call to the next, so that the system need not find it anew.
#pragma once

#include <cstdint>
#include <memory>

// Room for `count` elements of any content: one piece of memory for each type of them.
template <typename T>
T* scratch(int64_t count) {
    thread_local std::unique_ptr<T[]> memory;
    thread_local int64_t size = 0;
    if (size < count) {
        memory.reset(new T[count]);
        size = count;
    }
    return memory.get();
}
