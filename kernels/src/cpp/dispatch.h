// Which instruction set runs, and memory for one call.
#pragma once

#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "kernels.h"

namespace harness {

std::vector<const Table*> available();
const Table& table();
bool choose_table(const std::string& name);  // false where this machine does not have it

// Memory aligned to cache lines, kept from call to call by each calling thread.
class Buffer {
public:
    template <class T>
    T* of(int64_t count) {
        const size_t bytes = (static_cast<size_t>(count) * sizeof(T) + 127) / 64 * 64;
        if (bytes > size_) {
            data_.reset(static_cast<char*>(std::aligned_alloc(64, bytes)));
            size_ = data_ ? bytes : 0;
            if (!data_) throw std::bad_alloc();
        }
        return reinterpret_cast<T*>(data_.get());
    }

private:
    struct Free {
        void operator()(char* p) const { std::free(p); }
    };
    std::unique_ptr<char, Free> data_;
    size_t size_ = 0;
};

}  // namespace harness
