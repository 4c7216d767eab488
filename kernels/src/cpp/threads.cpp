#include "threads.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

namespace harness {
namespace {

using Body = std::function<void(int64_t, int64_t, int)>;

// A product takes some hundred microseconds; waking a sleeping thread takes tens. Workers look this many times for the
// next product before they sleep, some ten microseconds.
constexpr int kSpins = 2000;

inline void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

class Pool {
public:
    explicit Pool(int workers) {
        for (int i = 0; i < workers; ++i) members_.emplace_back([this, i] { work(i + 1); });
    }

    ~Pool() {
        stop_ = true;
        announce();
        for (auto& member : members_) member.join();
    }

    int workers() const { return static_cast<int>(members_.size()); }

    void run(int64_t count, int64_t grain, const Body& body) {
        body_ = &body;
        count_ = count;
        grain_ = grain;
        next_.store(0, std::memory_order_relaxed);
        busy_.store(workers(), std::memory_order_relaxed);
        announce();
        take(0);
        for (int i = 0; busy_.load(std::memory_order_acquire) > 0; ++i) {
            if (i < kSpins) {
                relax();
            } else {
                std::this_thread::yield();
            }
        }
    }

private:
    void announce() {
        round_.fetch_add(1, std::memory_order_release);
        round_.notify_all();
    }

    void take(int worker) {
        for (;;) {
            const int64_t begin = next_.fetch_add(grain_, std::memory_order_relaxed);
            if (begin >= count_) return;
            (*body_)(begin, std::min(begin + grain_, count_), worker);
        }
    }

    void work(int worker) {
        uint64_t seen = 0;
        for (;;) {
            for (int i = 0; i < kSpins && round_.load(std::memory_order_acquire) == seen; ++i) relax();
            round_.wait(seen, std::memory_order_acquire);
            ++seen;
            if (stop_) return;
            take(worker);
            busy_.fetch_sub(1, std::memory_order_release);
        }
    }

    std::vector<std::thread> members_;
    std::atomic<uint64_t> round_{0};
    std::atomic<int64_t> next_{0};
    std::atomic<int> busy_{0};
    std::atomic<bool> stop_{false};
    const Body* body_ = nullptr;
    int64_t count_ = 0;
    int64_t grain_ = 1;
};

std::mutex gate;
std::atomic<int> wanted{1};
Pool* pool = nullptr;  // Leaked at exit: joining threads while the interpreter shuts down can deadlock.
pid_t owner = 0;

Pool& current(int count) {
    if (pool && owner != getpid()) pool = nullptr;  // After a fork the threads are in the parent.
    if (pool && pool->workers() != count - 1) {
        delete pool;
        pool = nullptr;
    }
    if (!pool) pool = new Pool(count - 1);
    owner = getpid();
    return *pool;
}

}  // namespace

int threads() { return wanted; }

void set_threads(int count) { wanted = count; }

void parallel(int64_t count, int64_t grain, const Body& body) {
    const int used = static_cast<int>(std::min<int64_t>(wanted, (count + grain - 1) / grain));
    std::unique_lock lock(gate, std::try_to_lock);
    if (used <= 1 || !lock.owns_lock()) {  // Called from two Python threads at once: the second runs on its own.
        for (int64_t begin = 0; begin < count; begin += grain) body(begin, std::min(begin + grain, count), 0);
        return;
    }
    current(wanted).run(count, grain, body);
}

}  // namespace harness
