// SPDX-License-Identifier: Apache-2.0
#pragma once

// Device memory with random numbers, and medians of what runs on it, for benchmarks that need no tensor library.

#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

namespace amalgam::benchmarks {

inline void check(cudaError_t error, const char* what) {
    if (error == cudaSuccess) return;
    std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
    std::exit(1);
}

struct Block {
    explicit Block(size_t bytes) { check(cudaMalloc(&data, bytes), "cudaMalloc"); }
    Block(const Block&) = delete;
    ~Block() { cudaFree(data); }
    std::byte* at(int64_t byte) const { return static_cast<std::byte*>(data) + byte; }
    float* floats() const { return static_cast<float*>(data); }
    void* data = nullptr;
};

inline uint16_t random_bf16(unsigned& state) {
    float sum = -2.0F;  // of four uniform numbers: near a normal one
    for (int i = 0; i < 4; ++i) {
        state = state * 1664525U + 1013904223U;
        sum += static_cast<float>(state >> 8) / 16777216.0F;
    }
    sum *= 1.73F;
    uint32_t bits;
    std::memcpy(&bits, &sum, 4);
    return static_cast<uint16_t>(bits >> 16);
}

inline std::unique_ptr<Block> random_block(int64_t elements) {
    // One period of random numbers, repeated: their values do not matter to the time.
    constexpr int64_t period = 1 << 20;
    static const std::vector<uint16_t> numbers = [] {
        std::vector<uint16_t> all(period);
        unsigned state = 1;
        for (uint16_t& x : all) x = random_bf16(state);
        return all;
    }();
    auto block = std::make_unique<Block>(size_t(elements) * 2);
    for (int64_t at = 0; at < elements; at += period)
        check(cudaMemcpy(block->at(2 * at), numbers.data(), size_t(std::min(period, elements - at)) * 2,
                         cudaMemcpyHostToDevice),
              "copy");
    return block;
}

inline double median_milliseconds(int repetitions, const std::function<void(int)>& run) {
    cudaEvent_t start, end;
    cudaEventCreate(&start);
    cudaEventCreate(&end);
    for (int i = 0; i < 4; ++i) run(i);
    std::vector<float> times;
    for (int i = 0; i < repetitions; ++i) {
        cudaEventRecord(start);
        run(i);
        cudaEventRecord(end);
        check(cudaEventSynchronize(end), "run");
        float time = 0;
        cudaEventElapsedTime(&time, start, end);
        times.push_back(time);
    }
    cudaEventDestroy(start);
    cudaEventDestroy(end);
    std::nth_element(times.begin(), times.begin() + repetitions / 2, times.end());
    return times[repetitions / 2];
}

/// Median microseconds of one of `launches` runs in a graph, run(i, stream).
inline double graph_microseconds(int launches, const std::function<void(int, cudaStream_t)>& run) {
    cudaStream_t stream;
    check(cudaStreamCreate(&stream), "stream");
    for (int i = 0; i < 2; ++i) run(i, stream);
    check(cudaStreamSynchronize(stream), "warm up");
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
    for (int i = 0; i < launches; ++i) run(i, stream);
    check(cudaStreamEndCapture(stream, &graph), "capture");
    check(cudaGraphInstantiate(&executable, graph, 0), "instantiate");
    const double milliseconds = median_milliseconds(15, [&](int) {
        check(cudaGraphLaunch(executable, stream), "launch");
        check(cudaStreamSynchronize(stream), "run");
    });
    cudaGraphExecDestroy(executable);
    cudaGraphDestroy(graph);
    cudaStreamDestroy(stream);
    return 1e3 * milliseconds / launches;
}

inline double copy_bytes_per_nanosecond() {
    constexpr size_t bytes = size_t(1) << 30;
    const Block from(bytes), to(bytes);
    return 2.0 * bytes / 1e6 /
           median_milliseconds(9, [&](int) { cudaMemcpyAsync(to.data, from.data, bytes, cudaMemcpyDeviceToDevice); });
}

}  // namespace amalgam::benchmarks
