// A GPU block on the host, one fiber per thread, to run the sources of the CUDA kernels without a
// GPU. It is slower than any GPU and stricter than all of them:
//  - lanes of a warp must arrive at the same collective instruction, all of them;
//  - asynchronous copies land at the wait, not before; shared memory starts as NaN;
//  - two accesses to the same shared word without a barrier between are a race, and an error;
//  - global accesses outside the buffers given, or misaligned, are errors; so is writing twice;
//  - threads run in an order drawn from a seed.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace emulated {

constexpr int LANES = 32;

// Global memory that the kernel may touch; bytes written are counted.
struct Buffer {
    const unsigned char *begin;
    int64_t bytes;
    bool writable;
    std::vector<unsigned char> written;
};

struct Counters {
    int64_t matrix_phases = 0;     // eight rows of ldmatrix or stmatrix, one cycle each at best
    int64_t matrix_wavefronts = 0; // what they take with bank conflicts
    int64_t multiplications = 0;   // mma.m16n8k16
    int64_t barriers = 0;
};

class Machine {
  public:
    std::vector<Buffer> buffers;
    Counters counters;

    void add(const void *begin, int64_t bytes, bool writable) {
        buffers.push_back({static_cast<const unsigned char *>(begin), bytes, writable, {}});
        if (writable) buffers.back().written.assign(bytes, 0);
    }

    // Runs one block to its end; throws what any of its threads, or the rules above, object to.
    void run(int block, int threads, int shared_bytes, uint32_t seed,
             const std::function<void()> &body) {
        if (threads % LANES) fail("the block is no whole number of warps");
        block_ = block, body_ = &body;
        shared.assign(shared_bytes, 0xff);
        words_.assign((shared_bytes + 3) / 4, {});
        readers_.assign(words_.size() * (threads / LANES), {});
        warps_.assign(threads / LANES, {});
        threads_.clear();
        arrived_ = block_epoch_ = 0;
        error_.clear();
        for (int i = 0; i < threads; ++i) {
            threads_.push_back(std::make_unique<Thread>());
            Thread &t = *threads_.back();
            t.stack.resize(STACK);
            getcontext(&t.context);
            t.context.uc_stack.ss_sp = t.stack.data();
            t.context.uc_stack.ss_size = STACK;
            t.context.uc_link = &scheduler_;
            makecontext(&t.context, &Machine::enter, 0);
        }
        std::mt19937 random(seed);
        std::vector<int> order(threads);
        for (int i = 0; i < threads; ++i) order[i] = i;
        for (int alive = threads; alive > 0;) {
            std::shuffle(order.begin(), order.end(), random);
            progress_ = false;
            for (int i : order) {
                if (threads_[i]->done) continue;
                current_ = i;
                swapcontext(&scheduler_, &threads_[i]->context);
                if (!error_.empty()) throw std::runtime_error(error_);
                alive -= threads_[i]->done;
            }
            if (!progress_) throw std::runtime_error("deadlock: no thread can go on");
        }
    }

    int thread() const { return current_; }
    int block() const { return block_; }

    [[noreturn]] void fail(const std::string &what) const {
        throw std::runtime_error(what + " (block " + std::to_string(block_) + ", thread " +
                                 std::to_string(current_) + ")");
    }

    // Every lane brings `mine`; the last one to arrive runs `all` on the 32 of them.
    void collective(const char *name, void *mine, const std::function<void(void **)> &all) {
        Warp &warp = warps_[current_ / LANES];
        if (warp.arrived == 0) warp.name = name;
        if (std::strcmp(warp.name, name))
            fail(std::string("lanes part: ") + warp.name + " and " + name);
        warp.slots[current_ % LANES] = mine;
        if (++warp.arrived == LANES) {
            warp.arrived = 0, ++warp.generation, progress_ = true;
            all(warp.slots);
        } else {
            const int64_t before = warp.generation;
            while (warp.generation == before) yield();
        }
    }

    void sync_warp() {
        int nothing = 0;
        collective("__syncwarp", &nothing,
                   [&](void **) { ++warps_[current_ / LANES].epoch; });
    }

    void sync_block() {
        const int64_t before = block_epoch_;
        if (++arrived_ == static_cast<int>(threads_.size())) {
            arrived_ = 0, ++block_epoch_, ++counters.barriers, progress_ = true;
            for (Warp &warp : warps_) ++warp.epoch;
        } else {
            while (block_epoch_ == before) yield();
        }
    }

    void copy_async(uint32_t to, const void *from) {
        global(from, 16, false);
        if (to % 16) fail("an asynchronous copy to a misaligned place");
        threads_[current_]->open.push_back({to, static_cast<const unsigned char *>(from)});
    }
    void commit_copies() {
        Thread &t = *threads_[current_];
        t.groups.push_back(std::move(t.open));
        t.open.clear();
    }
    void wait_copies(int pending) {
        Thread &t = *threads_[current_];
        while (static_cast<int>(t.groups.size()) > pending) {
            for (const Copy &copy : t.groups.front())
                std::memcpy(write(copy.to, 16), copy.from, 16);
            t.groups.pop_front();
        }
    }

    // Shared memory for this thread to read or write, or an error.
    unsigned char *read(uint32_t at, int bytes) { return touch(at, bytes, false); }
    unsigned char *write(uint32_t at, int bytes) { return touch(at, bytes, true); }

    void global(const void *at, int bytes, bool writing) {
        const auto *p = static_cast<const unsigned char *>(at);
        if (reinterpret_cast<uintptr_t>(at) % bytes) fail("a misaligned global access");
        for (Buffer &buffer : buffers) {
            if (p < buffer.begin || p + bytes > buffer.begin + buffer.bytes) continue;
            if (!writing) return;
            if (!buffer.writable) fail("a write to a tensor that is only read");
            for (int i = 0; i < bytes; ++i)
                if (buffer.written[p - buffer.begin + i]++) fail("a byte that is written twice");
            return;
        }
        fail("a global access outside all tensors");
    }

    // Eight rows of 16 bytes pass at once if they lie in different banks (or in the same place).
    void count_phase(const uint32_t *rows) {
        int worst = 0;
        for (int bank = 0; bank < 8; ++bank) {
            std::vector<uint32_t> seen;
            for (int i = 0; i < 8; ++i)
                if (static_cast<int>(rows[i] / 16 % 8) == bank &&
                    std::find(seen.begin(), seen.end(), rows[i]) == seen.end())
                    seen.push_back(rows[i]);
            worst = std::max(worst, static_cast<int>(seen.size()));
        }
        ++counters.matrix_phases;
        counters.matrix_wavefronts += worst;
    }

    std::vector<unsigned char> shared;

    static Machine *&running() {
        static Machine *machine = nullptr;
        return machine;
    }

  private:
    static constexpr int STACK = 1 << 16;
    struct Copy {
        uint32_t to;
        const unsigned char *from;
    };
    struct Thread {
        ucontext_t context;
        std::vector<char> stack;
        std::vector<Copy> open;
        std::deque<std::vector<Copy>> groups;
        bool done = false;
    };
    struct Warp {
        int arrived = 0;
        int64_t generation = 0, epoch = 0;
        const char *name = "";
        void *slots[LANES];
    };
    // Who touched a word last: a thread, or SEVERAL lanes of one warp.
    static constexpr int NOBODY = -1, SEVERAL = -2;
    struct Access {
        int thread = NOBODY, warp = NOBODY;
        int64_t block_epoch = 0, warp_epoch = 0;
    };

    static void enter() {
        Machine &m = *running();
        try {
            (*m.body_)();
            Thread &t = *m.threads_[m.current_];
            if (!t.open.empty() || !t.groups.empty()) m.fail("a thread ends before its copies");
        } catch (const std::exception &error) {
            m.error_ = error.what();
        }
        m.threads_[m.current_]->done = true;
        m.progress_ = true;
    }

    void yield() {
        const int self = current_;
        swapcontext(&threads_[self]->context, &scheduler_);
        current_ = self;
    }

    bool unordered(const Access &then, int warp) const {
        if (then.thread == NOBODY || then.thread == current_) return false;
        if (then.warp == warp) return then.warp_epoch == warps_[warp].epoch;
        return then.block_epoch == block_epoch_;
    }

    unsigned char *touch(uint32_t at, int bytes, bool writing) {
        if (at % bytes) fail("a misaligned access to shared memory");
        if (at + bytes > shared.size()) fail("an access beyond shared memory");
        const int warp = current_ / LANES, warps = static_cast<int>(warps_.size());
        const Access mine{current_, warp, block_epoch_, warps_[warp].epoch};
        for (uint32_t word = at / 4; word < (at + bytes) / 4; ++word) {
            if (unordered(words_[word], warp))
                fail("a race on shared byte " + std::to_string(word * 4));
            if (writing) {
                for (int w = 0; w < warps; ++w)
                    if (unordered(readers_[word * warps + w], warp))
                        fail("a race with a reader of shared byte " + std::to_string(word * 4));
                words_[word] = mine;
            } else {
                Access &last = readers_[word * warps + warp];
                const bool other = last.thread != NOBODY && last.thread != current_ &&
                                   last.warp_epoch == mine.warp_epoch;
                last = mine;
                if (other) last.thread = SEVERAL;
            }
        }
        return shared.data() + at;
    }

    int block_ = 0, current_ = 0, arrived_ = 0;
    int64_t block_epoch_ = 0;
    bool progress_ = false;
    std::string error_;
    const std::function<void()> *body_ = nullptr;
    ucontext_t scheduler_;
    std::vector<std::unique_ptr<Thread>> threads_;
    std::vector<Warp> warps_;
    std::vector<Access> words_, readers_;
};

}  // namespace emulated
