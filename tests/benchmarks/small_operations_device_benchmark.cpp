// SPDX-License-Identifier: Apache-2.0
// Memory traffic of the elementwise and row-wise CUDA kernels beside a device copy of as many bytes, as CSV. Shapes: a
// micro-batch of SmolLM2-135M (16384 tokens) and of Qwen2.5-1.5B (8192 tokens); losses over both vocabularies and over
// that of Llama 3. Operands rotate through memory larger than the cache; ten calls are timed together.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "kernels/adamw/adamw.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/gated_rms_norm/gated_rms_norm.h"
#include "kernels/kl_divergence/kl_divergence.h"
#include "kernels/rms_norm/rms_norm.h"
#include "kernels/rotary/rotary.h"
#include "kernels/silu_convolution/silu_convolution.h"
#include "kernels/swiglu/swiglu.h"

namespace {

using namespace amalgam::kernels;

constexpr std::int64_t pool_bytes = std::int64_t{12} << 30;
constexpr int repetitions = 15, calls = 10;

void check(cudaError_t error) {
    if (error == cudaSuccess) return;
    std::fprintf(stderr, "%s\n", cudaGetErrorString(error));
    std::exit(1);
}

// Hands out consecutive pieces of one large block, from the start again where it ends.
class Pool {
  public:
    Pool() {
        check(cudaMalloc(&memory_, pool_bytes));
        // Random bfloat16 pairs of magnitude about one are also reasonable float32 values.
        std::vector<std::uint32_t> words(std::size_t{64} << 18);
        std::mt19937 generator(1);
        for (auto& word : words) word = (generator() & 0x80ff80ffU) | 0x3f003f00U;
        for (std::int64_t at = 0; at < pool_bytes; at += std::int64_t(words.size()) * 4)
            check(cudaMemcpy(memory_ + at, words.data(), words.size() * 4, cudaMemcpyHostToDevice));
    }

    template <class T = void>
    T* take(std::int64_t bytes) {
        bytes = (bytes + 4095) / 4096 * 4096;
        if (position_ + bytes > pool_bytes) position_ = 0;
        position_ += bytes;
        return reinterpret_cast<T*>(memory_ + position_ - bytes);
    }

  private:
    unsigned char* memory_ = nullptr;
    std::int64_t position_ = 0;
};

struct Model {
    const char* name;
    std::int64_t tokens, hidden, heads, key_value_heads, head, mlp;
};

// For what must keep its contents.
template <class T>
T* allocate(std::int64_t bytes) {
    void* memory = nullptr;
    check(cudaMalloc(&memory, bytes));
    return static_cast<T*>(memory);
}

class Benchmark {
  public:
    Benchmark() {
        check(cudaEventCreate(&start_));
        check(cudaEventCreate(&stop_));
        workspace_ = allocate<void>(256 << 20);
        std::printf(
            "operation,shape,type,us,minimal_bytes,gb_per_s,copy_gb_per_s,share_of_copy,floor_us_at_copy_speed\n");
    }

    void all(const Model& m, ElementType type) {
        type_ = type;
        size_ = type == ElementType::bfloat16 ? 2 : 4;
        tokens_ = m.tokens;
        shape_ = m.name;
        rms_norm(m);
        head_norm(m);
        gated_rms_norm(m);
        swiglu(m);
        rotary(m);
        silu_convolution(m);
    }

    void losses(ElementType type, std::int64_t rows, std::int64_t vocabulary) {
        type_ = type;
        size_ = type == ElementType::bfloat16 ? 2 : 4;
        tokens_ = rows;
        shape_ = std::to_string(rows) + "x" + std::to_string(vocabulary);
        const std::int64_t matrix = rows * vocabulary * size_;
        auto* loss = allocate<float>(rows * 4);
        auto* targets = allocate<std::int64_t>(rows * 8);
        const std::vector<std::int64_t> sevens(rows, 7);
        check(cudaMemcpy(targets, sevens.data(), rows * 8, cudaMemcpyHostToDevice));
        const auto logits = [&] { return Rows{pool_.take(matrix), vocabulary}; };
        row("kl_divergence", 2 * matrix, [&] {
            cuda::kl_divergence({type_, rows, vocabulary, 1, logits(), logits(), loss}, nullptr);
        });
        row("kl_divergence with gradient", 3 * matrix, [&] {
            cuda::kl_divergence_with_gradient({type_, rows, vocabulary, 1, 1, logits(), logits(), loss}, nullptr);
        });
        row("cross_entropy", matrix, [&] {
            cuda::cross_entropy({type_, rows, vocabulary, logits(), targets, loss, nullptr}, nullptr);
        });
        row("cross_entropy with gradient", 2 * matrix, [&] {
            cuda::cross_entropy_with_gradient({type_, rows, vocabulary, 1, logits(), targets, loss, nullptr}, nullptr);
        });
    }

    void optimizer(std::int64_t parameters, std::int64_t each) {
        shape_ = std::to_string(parameters) + "x" + std::to_string(each);
        type_ = ElementType::float32;
        AdamwStep settings;
        std::vector<cuda::AdamwParameter> list;
        for (std::int64_t i = 0; i < parameters; ++i)
            list.push_back({each, 0, pool_.take<float>(each * 4), pool_.take<float>(each * 4),
                            pool_.take<float>(each * 4), pool_.take<float>(each * 4), pool_.take(each * 2)});
        row("adamw_step", parameters * each * 30, [&] { cuda::adamw_step(settings, list, {}, nullptr); });
        auto* result = pool_.take<double>(8);
        const std::int64_t count = parameters * each;
        row("sum_of_squares", count * 4,
            [&] { cuda::sum_of_squares(pool_.take<float>(count * 4), count, result, workspace_, nullptr); });
    }

  private:
    Rows view(std::int64_t width) { return {pool_.take(tokens_ * width * size_), width}; }
    Rows second_half(const Rows& fused, std::int64_t width) const {
        return {static_cast<unsigned char*>(fused.data) + width * size_, fused.stride};
    }

    void rms_norm(const Model& m) {
        const std::int64_t matrix = tokens_ * m.hidden * size_, weight = m.hidden * 4, rstd = tokens_ * 4;
        row("rms_norm + residual forward", 4 * matrix, [&] {
            RmsNormForward a{type_, tokens_, 1, m.hidden};
            a.x = view(m.hidden), a.residual = view(m.hidden), a.sum = view(m.hidden), a.y = view(m.hidden);
            a.weight = pool_.take<float>(weight), a.rstd = pool_.take<float>(rstd);
            cuda::rms_norm_forward(a, nullptr);
        });
        row("rms_norm + residual backward", 4 * matrix, [&] {
            RmsNormBackward a{type_, tokens_, 1, m.hidden};
            a.y_gradient = view(m.hidden), a.sum_gradient = view(m.hidden), a.x = view(m.hidden);
            a.x_gradient = view(m.hidden), a.weight = pool_.take<float>(weight), a.rstd = pool_.take<float>(rstd);
            a.weight_gradient = pool_.take<float>(weight);
            cuda::rms_norm_backward(a, workspace_, nullptr);
        });
    }

    void head_norm(const Model& m) {
        const std::int64_t width = m.heads * m.head, matrix = tokens_ * width * size_;
        row("rms_norm of heads forward", 2 * matrix, [&] {
            RmsNormForward a{type_, tokens_, m.heads, m.head};
            a.x = view(width), a.y = view(width);
            a.weight = pool_.take<float>(m.head * 4), a.rstd = pool_.take<float>(tokens_ * m.heads * 4);
            cuda::rms_norm_forward(a, nullptr);
        });
    }

    void gated_rms_norm(const Model& m) {
        const std::int64_t width = m.heads * m.head, matrix = tokens_ * width * size_;
        row("gated_rms_norm forward", 3 * matrix, [&] {
            GatedRmsNormForward a{type_, tokens_, m.heads, m.head};
            // The gate lies in the fused projection of a gated delta net.
            a.o = view(width), a.z = view(4 * width + 2 * m.heads), a.y = view(width);
            a.weight = pool_.take<float>(m.head * 4), a.rstd = pool_.take<float>(tokens_ * m.heads * 4);
            cuda::gated_rms_norm_forward(a, nullptr);
        });
        row("gated_rms_norm backward", 5 * matrix, [&] {
            GatedRmsNormBackward a{type_, tokens_, m.heads, m.head};
            a.y_gradient = view(width), a.o = view(width), a.z = view(4 * width + 2 * m.heads);
            a.o_gradient = view(width), a.z_gradient = view(width);
            a.weight = pool_.take<float>(m.head * 4), a.rstd = pool_.take<float>(tokens_ * m.heads * 4);
            a.weight_gradient = pool_.take<float>(m.head * 4);
            cuda::gated_rms_norm_backward(a, workspace_, nullptr);
        });
    }

    void swiglu(const Model& m) {
        const std::int64_t matrix = tokens_ * m.mlp * size_;
        row("swiglu forward", 3 * matrix, [&] {
            const Rows fused = view(2 * m.mlp);
            cuda::swiglu_forward({type_, tokens_, m.mlp, fused, second_half(fused, m.mlp), view(m.mlp)}, nullptr);
        });
        row("swiglu backward", 5 * matrix, [&] {
            const Rows fused = view(2 * m.mlp), gradient = view(2 * m.mlp);
            cuda::swiglu_backward({type_, tokens_, m.mlp, view(m.mlp), fused, second_half(fused, m.mlp), gradient,
                                   second_half(gradient, m.mlp)},
                                  nullptr);
        });
    }

    void rotary(const Model& m) {
        const std::int64_t heads = m.heads + m.key_value_heads, width = heads * m.head, positions = 2048;
        const auto* table = pool_.take<float>(positions * m.head * 4);
        row("rotary", 2 * tokens_ * width * size_ + 2 * positions * m.head * 4, [&] {
            cuda::rotary_forward({type_, tokens_, heads, m.head, positions, table, table, view(width), view(width)},
                                 nullptr);
        });
    }

    void silu_convolution(const Model& m) {
        const std::int64_t channels = 3 * m.heads * m.head, matrix = tokens_ * channels * size_, batch = tokens_ / 2048;
        row("silu_convolution forward", 2 * matrix, [&] {
            SiluConvolutionForward a{type_, batch, 2048, channels};
            a.x = view(channels), a.y = view(channels), a.weight = pool_.take<float>(channels * 16);
            cuda::silu_convolution_forward(a, nullptr);
        });
        row("silu_convolution backward", 3 * matrix, [&] {
            SiluConvolutionBackward a{type_, batch, 2048, channels};
            a.y_gradient = view(channels), a.x = view(channels), a.x_gradient = view(channels);
            a.weight = pool_.take<float>(channels * 16), a.weight_gradient = pool_.take<float>(channels * 16);
            cuda::silu_convolution_backward(a, workspace_, nullptr);
        });
    }

    double median_microseconds(const std::function<void()>& call) {
        std::vector<float> milliseconds;
        for (int i = 0; i < repetitions + 1; ++i) {
            check(cudaEventRecord(start_));
            for (int c = 0; c < calls; ++c) call();
            check(cudaEventRecord(stop_));
            check(cudaEventSynchronize(stop_));
            float elapsed = 0;
            check(cudaEventElapsedTime(&elapsed, start_, stop_));
            if (i > 0) milliseconds.push_back(elapsed);
        }
        std::nth_element(milliseconds.begin(), milliseconds.begin() + repetitions / 2, milliseconds.end());
        return 1e3 * milliseconds[repetitions / 2] / calls;
    }

    // `bytes`: what the operation must read and write.
    void row(const char* name, std::int64_t bytes, const std::function<void()>& call) {
        const double us = median_microseconds(call);
        const double copy = median_microseconds([&] {
            check(cudaMemcpyAsync(pool_.take(bytes / 2), pool_.take(bytes / 2), bytes / 2, cudaMemcpyDeviceToDevice));
        });
        std::printf("%s,%s,%s,%.2f,%lld,%.0f,%.0f,%.2f,%.2f\n", name, shape_.c_str(),
                    type_ == ElementType::bfloat16 ? "bfloat16" : "float32", us, static_cast<long long>(bytes),
                    1e-3 * double(bytes) / us, 1e-3 * double(bytes) / copy, copy / us, copy);
        std::fflush(stdout);
    }

    Pool pool_;
    ElementType type_ = ElementType::bfloat16;
    std::int64_t size_ = 2, tokens_ = 0;
    std::string shape_;
    void* workspace_ = nullptr;
    cudaEvent_t start_ = nullptr, stop_ = nullptr;
};

}  // namespace

int main() {
    Benchmark benchmark;
    benchmark.losses(ElementType::bfloat16, 4096, 49152);
    benchmark.losses(ElementType::bfloat16, 2048, 128256);
    benchmark.losses(ElementType::bfloat16, 2048, 151936);
    benchmark.losses(ElementType::bfloat16, 1024, 256000);
    benchmark.losses(ElementType::float32, 2048, 49152);
    benchmark.all({"smollm2-135m 16384", 16384, 576, 9, 3, 64, 1536}, ElementType::bfloat16);
    benchmark.all({"qwen2.5-1.5b 8192", 8192, 1536, 12, 2, 128, 8960}, ElementType::bfloat16);
    benchmark.optimizer(270, 500000);
}
