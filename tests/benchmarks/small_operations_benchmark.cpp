// SPDX-License-Identifier: Apache-2.0
// Memory traffic of the elementwise and row-wise CPU kernels beside a plain copy of as many bytes, at the shapes of one
// SmolLM2-135M micro-batch: 2048 tokens, hidden 576, 9 + 3 heads of 64, feed-forward 1536, vocabulary 49152.
// Usage: small_operations_benchmark [threads]. Operands rotate through memory larger than the caches.
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "kernels/adamw/adamw.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/gated_rms_norm/gated_rms_norm.h"
#include "kernels/isa/isa.h"
#include "kernels/kl_divergence/kl_divergence.h"
#include "kernels/rms_norm/rms_norm.h"
#include "kernels/rotary/rotary.h"
#include "kernels/silu_convolution/silu_convolution.h"
#include "kernels/swiglu/swiglu.h"

namespace {

using namespace amalgam::kernels;

constexpr std::int64_t tokens = 2048, hidden = 576, head = 64, mlp = 1536, vocabulary = 49152;
constexpr std::int64_t logit_rows = 512;  // one chunk of the fused linear loss
constexpr std::int64_t pool_bytes = std::int64_t{640} << 20;
constexpr int repetitions = 15;

// Hands out consecutive pieces of one large block, from the start again where it ends.
class Pool {
  public:
    Pool() : memory_(static_cast<unsigned char*>(std::aligned_alloc(4096, pool_bytes))) {
        // Random bfloat16 pairs of magnitude about one are also reasonable float32 values.
        std::mt19937 generator(1);
        auto* words = reinterpret_cast<std::uint32_t*>(memory_.get());
        for (std::int64_t i = 0; i < pool_bytes / 4; ++i) words[i] = (generator() & 0x80ff80ffU) | 0x3f003f00U;
    }

    template <class T = void>
    T* take(std::int64_t bytes) {
        bytes = (bytes + 4095) / 4096 * 4096;
        if (position_ + bytes > pool_bytes) position_ = 0;
        position_ += bytes;
        return reinterpret_cast<T*>(memory_.get() + position_ - bytes);
    }

  private:
    struct Free {
        void operator()(void* memory) const { std::free(memory); }
    };
    std::unique_ptr<unsigned char, Free> memory_;
    std::int64_t position_ = 0;
};

double median_seconds(const std::function<void()>& prepare, const std::function<void()>& function) {
    std::vector<double> seconds;
    for (int i = 0; i < repetitions + 2; ++i) {
        prepare();
        const auto start = std::chrono::steady_clock::now();
        function();
        if (i >= 2) {
            seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
        }
    }
    std::nth_element(seconds.begin(), seconds.begin() + repetitions / 2, seconds.end());
    return seconds[repetitions / 2];
}

class Benchmark {
  public:
    Benchmark(ElementType type, int threads)
        : type_(type), threads_(threads), size_(type == ElementType::bfloat16 ? 2 : 4) {}

    void rms_norm() {
        const std::int64_t matrix = tokens * hidden * size_;
        RmsNormForward forward{.type = type_, .tokens = tokens, .width = hidden};
        row(
            "rms_norm + residual, forward", 4 * matrix,
            [&] {
                forward.x = view(hidden), forward.residual = view(hidden), forward.sum = view(hidden);
                forward.y = view(hidden), forward.weight = pool_.take<float>(hidden * 4),
                forward.rstd = pool_.take<float>(tokens * 4);
            },
            [&] { rms_norm_forward(forward, threads_); });
        RmsNormBackward backward{.type = type_, .tokens = tokens, .width = hidden};
        row(
            "rms_norm + residual, backward", 4 * matrix,
            [&] {
                backward.y_gradient = view(hidden), backward.sum_gradient = view(hidden), backward.x = view(hidden);
                backward.x_gradient = view(hidden), backward.weight = pool_.take<float>(hidden * 4);
                backward.rstd = pool_.take<float>(tokens * 4), backward.weight_gradient = pool_.take<float>(hidden * 4);
            },
            [&] { rms_norm_backward(backward, threads_); });
    }

    void gated_rms_norm() {
        const std::int64_t matrix = tokens * hidden * size_;
        GatedRmsNormForward forward{.type = type_, .tokens = tokens, .heads = hidden / head, .width = head};
        row(
            "gated_rms_norm, forward", 3 * matrix,
            [&] {
                forward.o = view(hidden), forward.z = view(hidden), forward.y = view(hidden);
                forward.weight = pool_.take<float>(head * 4),
                forward.rstd = pool_.take<float>(tokens * hidden / head * 4);
            },
            [&] { gated_rms_norm_forward(forward, threads_); });
        GatedRmsNormBackward backward{.type = type_, .tokens = tokens, .heads = hidden / head, .width = head};
        row(
            "gated_rms_norm, backward", 5 * matrix,
            [&] {
                backward.y_gradient = view(hidden), backward.o = view(hidden), backward.z = view(hidden);
                backward.o_gradient = view(hidden), backward.z_gradient = view(hidden);
                backward.weight = pool_.take<float>(head * 4),
                backward.rstd = pool_.take<float>(tokens * hidden / head * 4);
                backward.weight_gradient = pool_.take<float>(head * 4);
            },
            [&] { gated_rms_norm_backward(backward, threads_); });
    }

    void swiglu() {
        const std::int64_t matrix = tokens * mlp * size_;
        SwigluForward forward{.type = type_, .tokens = tokens, .width = mlp};
        row(
            "swiglu, forward", 3 * matrix,
            [&] {
                const Rows fused = view(2 * mlp);
                forward.gate = fused, forward.up = second_half(fused, mlp), forward.y = view(mlp);
            },
            [&] { swiglu_forward(forward, threads_); });
        SwigluBackward backward{.type = type_, .tokens = tokens, .width = mlp};
        row(
            "swiglu, backward", 5 * matrix,
            [&] {
                const Rows fused = view(2 * mlp), gradient = view(2 * mlp);
                backward.gate = fused, backward.up = second_half(fused, mlp), backward.y_gradient = view(mlp);
                backward.gate_gradient = gradient, backward.up_gradient = second_half(gradient, mlp);
            },
            [&] { swiglu_backward(backward, threads_); });
    }

    void rotary() {
        constexpr std::int64_t width = hidden + 3 * head;  // queries and keys
        const std::vector<float> table(tokens * head, 0.7F);
        Rotary arguments{.type = type_,
                         .tokens = tokens,
                         .heads = width / head,
                         .width = head,
                         .positions = tokens,
                         .cos = table.data(),
                         .sin = table.data()};
        row(
            "rotary", tokens * (2 * width * size_ + 8 * head),
            [&] { arguments.x = view(width), arguments.y = view(width); },
            [&] { rotary_forward(arguments, threads_); });
    }

    void losses() {
        const std::int64_t matrix = logit_rows * vocabulary * size_;
        std::vector<float> loss(logit_rows);
        const std::vector<std::int64_t> targets(logit_rows, 7);
        KlDivergence kl{.type = type_, .rows = logit_rows, .vocabulary = vocabulary, .loss = loss.data()};
        row(
            "kl_divergence", 2 * matrix, [&] { kl.student = logits(), kl.teacher = logits(); },
            [&] { kl_divergence(kl, threads_); });
        KlDivergenceGradient gradient{.type = type_, .rows = logit_rows, .vocabulary = vocabulary, .loss = loss.data()};
        row(
            "kl_divergence with gradient", 3 * matrix,
            [&] { gradient.student = logits(), gradient.teacher = logits(); },
            [&] { kl_divergence_with_gradient(gradient, threads_); });
        CrossEntropyGradient ce{.type = type_,
                                .rows = logit_rows,
                                .vocabulary = vocabulary,
                                .targets = targets.data(),
                                .loss = loss.data()};
        row(
            "cross_entropy with gradient", 2 * matrix, [&] { ce.logits = logits(); },
            [&] { cross_entropy_with_gradient(ce, threads_); });
    }

    void silu_convolution() {
        constexpr std::int64_t channels = 3 * hidden;
        const std::int64_t matrix = tokens * channels * size_;
        SiluConvolutionForward forward{.type = type_, .batch = 4, .time = tokens / 4, .channels = channels};
        row(
            "silu_convolution, forward", 2 * matrix,
            [&] {
                forward.x = view(channels), forward.y = view(channels),
                forward.weight = pool_.take<float>(channels * 16);
            },
            [&] { silu_convolution_forward(forward, threads_); });
        SiluConvolutionBackward backward{.type = type_, .batch = 4, .time = tokens / 4, .channels = channels};
        row(
            "silu_convolution, backward", 3 * matrix,
            [&] {
                backward.y_gradient = view(channels), backward.x = view(channels), backward.x_gradient = view(channels);
                backward.weight = pool_.take<float>(channels * 16),
                backward.weight_gradient = pool_.take<float>(channels * 16);
            },
            [&] { silu_convolution_backward(backward, threads_); });
    }

    void optimizer() {
        constexpr std::int64_t count = 8 << 20;
        AdamwStep step{.count = count, .learning_rate = 1e-3};
        std::vector<float> gradient(count, 1e-3F), master(count, 1.0F), exp_avg(count), exp_avg_sq(count);
        std::vector<std::uint16_t> copy(count);
        step.gradient = gradient.data(), step.master = master.data(), step.bfloat16_copy = copy.data();
        step.exp_avg = exp_avg.data(), step.exp_avg_sq = exp_avg_sq.data();
        row(
            "adamw_step, 8 M parameters", 30 * count, [&] {}, [&] { adamw_step(step, threads_); });
        row(
            "sum_of_squares, 8 M", 4 * count, [&] {},
            [&] {
                if (!(sum_of_squares(gradient.data(), count, threads_) > 0)) std::abort();
            });
    }

  private:
    Rows view(std::int64_t width) { return {pool_.take(tokens * width * size_), width}; }
    Rows logits() { return {pool_.take(logit_rows * vocabulary * size_), vocabulary}; }
    Rows second_half(const Rows& fused, std::int64_t width) const {
        return {static_cast<unsigned char*>(fused.data) + width * size_, fused.stride};
    }

    // A copy that reads and writes `bytes` in all.
    double copy_seconds(std::int64_t bytes) {
        const std::int64_t half = bytes / 2;
        unsigned char *from = nullptr, *to = nullptr;
        return median_seconds([&] { from = pool_.take<unsigned char>(half), to = pool_.take<unsigned char>(half); },
                              [&] {
#pragma omp parallel num_threads(threads_)
                                  {
                                      const std::int64_t part = half / omp_get_num_threads();
                                      std::memcpy(to + part * omp_get_thread_num(), from + part * omp_get_thread_num(),
                                                  part);
                                  }
                              });
    }

    void row(const char* name, std::int64_t bytes, const std::function<void()>& prepare,
             const std::function<void()>& function) {
        const double seconds = median_seconds(prepare, function);
        const double copy = copy_seconds(bytes);
        std::printf("| %-30s | %-8s | %7.2f | %6.1f | %6.1f | %5.2f |\n", name,
                    type_ == ElementType::bfloat16 ? "bfloat16" : "float32", seconds * 1e3, bytes / seconds * 1e-9,
                    bytes / copy * 1e-9, copy / seconds);
        std::fflush(stdout);
    }

    ElementType type_;
    int threads_;
    std::int64_t size_;
    Pool pool_;
};

}  // namespace

int main(int argc, char** argv) {
    const int threads = argc > 1 ? std::atoi(argv[1]) : omp_get_max_threads();
    std::printf("variant %s, %d threads; median of %d runs\n\n", isa_name(resolve_isa(Isa::automatic)).data(), threads,
                repetitions);
    std::printf("| operation                      | type     |      ms |   GB/s | copy   | ratio |\n");
    std::printf("|--------------------------------|----------|--------:|-------:|-------:|------:|\n");
    for (ElementType type : {ElementType::bfloat16, ElementType::float32}) {
        Benchmark benchmark(type, threads);
        benchmark.rms_norm();
        benchmark.gated_rms_norm();
        benchmark.swiglu();
        benchmark.rotary();
        benchmark.silu_convolution();
        benchmark.losses();
        if (type == ElementType::float32) benchmark.optimizer();
    }
}
