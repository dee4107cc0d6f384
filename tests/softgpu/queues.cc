/*
 * Streams and events. Work is kept back until something forces it: a synchronisation, or work of
 * another stream that waits for it; or it runs a little earlier, as a seed decides. A program that
 * misses an event computes with what was there before.
 */
#include "softgpu/late.h"
#include "softgpu/soft.h"

#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <time.h>
#include <vector>

namespace soft
{

namespace
{

struct work {
    std::function<cudaError_t()> run;
    touched memory[2];
};

struct stream {
    std::deque<work> waiting;
    int64_t done = 0;

    int64_t end() const { return done + static_cast<int64_t>(waiting.size()); }
};

using stream_ptr = std::shared_ptr<stream>;

/* Has happened when `on` has done `position` pieces of work. */
struct event {
    stream_ptr on; /* nullptr: never recorded */
    int64_t position = 0;
    double happened_ms = 0;
};

using event_ptr = std::shared_ptr<event>;

std::map<void *, stream_ptr> streams;
std::map<void *, event_ptr> events;
uint64_t draws;

stream_ptr stream_of(const char *call, cudaStream_t handle)
{
    const auto found = streams.find(handle);
    if (found == streams.end()) forbid(call, "no stream, or one that was destroyed");
    return found->second;
}

event_ptr event_of(const char *call, cudaEvent_t handle)
{
    const auto found = events.find(handle);
    if (found == events.end()) forbid(call, "no event, or one that was destroyed");
    return found->second;
}

void run_to(const stream_ptr &s, int64_t position)
{
    while (s->done < position) {
        const work next = std::move(s->waiting.front());
        s->waiting.pop_front();
        s->done++;
        const cudaError_t rc = next.run();
        if (rc != cudaSuccess) poison(rc);
    }
}

bool has_happened(const event &e) { return e.on == nullptr || e.on->done >= e.position; }

double now_ms()
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<double>(t.tv_sec) * 1e3 + static_cast<double>(t.tv_nsec) * 1e-6;
}

/* Knuth's generator of 64 bits: only that it differs from seed to seed counts. */
uint64_t draw(uint64_t seed)
{
    draws = draws * 6364136223846793005u + (seed * 2 + 1);
    return draws >> 33;
}

bool overlap(const touched &t, const void *data, size_t bytes)
{
    const char *a = static_cast<const char *>(t.data), *b = static_cast<const char *>(data);
    return a != nullptr && a < b + bytes && b < a + t.bytes;
}

} // namespace

void run_some()
{
    const char *text = getenv("SOFTGPU_SEED");
    const uint64_t seed = text == nullptr ? 0 : strtoull(text, nullptr, 10);
    if (seed == 0) return;
    for (auto &entry : streams)
        if (draw(seed) % 4 == 0 && !entry.second->waiting.empty())
            run_to(entry.second, entry.second->done + 1);
}

void run_all()
{
    for (auto &entry : streams) run_to(entry.second, entry.second->end());
}

bool is_awaited(const void *data, size_t bytes)
{
    for (auto &entry : streams)
        for (const work &w : entry.second->waiting)
            if (overlap(w.memory[0], data, bytes) || overlap(w.memory[1], data, bytes)) return true;
    return false;
}

void queue(const char *call, cudaStream_t handle, std::function<cudaError_t()> run, touched first,
           touched second)
{
    stream_of(call, handle)->waiting.push_back({ std::move(run), { first, second } });
    run_some();
}

void later(void *handle, std::function<void()> run)
{
    const std::lock_guard<std::recursive_mutex> guard(lock);
    require_device("launch");
    queue("launch", static_cast<cudaStream_t>(handle), [run = std::move(run)] {
        run();
        return cudaSuccess;
    });
}

} // namespace soft

using namespace soft;
using guard = std::lock_guard<std::recursive_mutex>;

extern "C" {

/* ---- streams ---- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned int flags)
{
    const guard g(lock);
    require_device("cudaStreamCreateWithFlags");
    if (flags != cudaStreamNonBlocking)
        forbid("cudaStreamCreate", "a stream that waits for the default one");
    const cudaError_t rc = result(cudaSuccess);
    if (rc != cudaSuccess) return rc;
    const stream_ptr s = std::make_shared<stream>();
    *out = reinterpret_cast<cudaStream_t>(s.get());
    streams[*out] = s;
    return cudaSuccess;
}

/* What is queued still runs. */
cudaError_t cudaStreamDestroy(cudaStream_t handle)
{
    const guard g(lock);
    require_device("cudaStreamDestroy");
    const stream_ptr s = stream_of("cudaStreamDestroy", handle);
    run_to(s, s->end());
    streams.erase(handle);
    return result(cudaSuccess);
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle)
{
    const guard g(lock);
    require_device("cudaStreamSynchronize");
    const stream_ptr s = stream_of("cudaStreamSynchronize", handle);
    run_to(s, s->end());
    return result(cudaSuccess);
}

cudaError_t cudaDeviceSynchronize(void)
{
    const guard g(lock);
    require_device("cudaDeviceSynchronize");
    run_all();
    return result(cudaSuccess);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event_handle, unsigned int)
{
    const guard g(lock);
    require_device("cudaStreamWaitEvent");
    const event_ptr e = event_of("cudaStreamWaitEvent", event_handle);
    const stream_ptr on = e->on;
    const int64_t position = e->position;
    const cudaError_t rc = result(cudaSuccess);
    if (rc != cudaSuccess || on == nullptr) return rc;
    queue("cudaStreamWaitEvent", handle, [=] {
        run_to(on, position);
        return cudaSuccess;
    });
    return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t handle, cudaHostFn_t function, void *data)
{
    const guard g(lock);
    require_device("cudaLaunchHostFunc");
    const cudaError_t rc = result(cudaSuccess);
    if (rc == cudaSuccess) later(handle, [=] { function(data); });
    return rc;
}

/* ---- events ---- */

cudaError_t cudaEventCreate(cudaEvent_t *out)
{
    const guard g(lock);
    require_device("cudaEventCreate");
    const cudaError_t rc = result(cudaSuccess);
    if (rc != cudaSuccess) return rc;
    const event_ptr e = std::make_shared<event>();
    *out = reinterpret_cast<cudaEvent_t>(e.get());
    events[*out] = e;
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t handle)
{
    const guard g(lock);
    require_device("cudaEventDestroy");
    (void)event_of("cudaEventDestroy", handle);
    events.erase(handle);
    return result(cudaSuccess);
}

cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t stream_handle)
{
    const guard g(lock);
    require_device("cudaEventRecord");
    const event_ptr e = event_of("cudaEventRecord", handle);
    const stream_ptr on = stream_of("cudaEventRecord", stream_handle);
    const cudaError_t rc = result(cudaSuccess);
    if (rc != cudaSuccess) return rc;
    e->on = on;
    e->position = on->end() + 1;
    queue("cudaEventRecord", stream_handle, [e] {
        e->happened_ms = now_ms();
        return cudaSuccess;
    });
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t handle)
{
    const guard g(lock);
    require_device("cudaEventSynchronize");
    const event_ptr e = event_of("cudaEventSynchronize", handle);
    if (e->on != nullptr) run_to(e->on, e->position);
    return result(cudaSuccess);
}

/* Who asks again and again is answered in the end. */
cudaError_t cudaEventQuery(cudaEvent_t handle)
{
    const guard g(lock);
    require_device("cudaEventQuery");
    const event_ptr e = event_of("cudaEventQuery", handle);
    const bool happened = has_happened(*e);
    if (!happened) run_to(e->on, e->on->done + 1);
    return result(happened ? cudaSuccess : cudaErrorNotReady);
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t begin, cudaEvent_t end)
{
    const guard g(lock);
    require_device("cudaEventElapsedTime");
    const event_ptr a = event_of("cudaEventElapsedTime", begin);
    const event_ptr b = event_of("cudaEventElapsedTime", end);
    if (a->on == nullptr || b->on == nullptr) return result(cudaErrorInvalidResourceHandle);
    if (!has_happened(*a) || !has_happened(*b)) return result(cudaErrorNotReady);
    *ms = static_cast<float>(b->happened_ms - a->happened_ms);
    return result(cudaSuccess);
}

} // extern "C"
