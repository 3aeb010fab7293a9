// SPDX-License-Identifier: Apache-2.0
// The KL divergence behind the language-model heads, with both gradients, beside the bare matrix products it is made
// of, on a GPU, as CSV. The bare products run over the same chunks, write bf16 logits, and add the head's gradient in
// fp32; nothing else runs between them. Usage: chunked_losses_benchmark [chunk tokens; 0: automatic]
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <c10/cuda/CUDAFunctions.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#include "objectives/chunked_losses.h"
#include "system/clock.h"

namespace amalgam {
namespace {

struct Case {
    const char* name;
    int64_t tokens, student_width, teacher_width, vocabulary;
    bool frozen;  // the head's gradient is not asked for
};

constexpr Case cases[] = {
    {"smollm2-135m", 16384, 576, 576, 49152, false},   {"smollm2-135m frozen head", 16384, 576, 576, 49152, true},
    {"qwen2.5-1.5b", 8192, 1536, 1536, 151936, false}, {"qwen2.5-1.5b frozen head", 8192, 1536, 1536, 151936, true},
    {"llama-3.2-3b", 8192, 3072, 3072, 128256, false}, {"qwen2.5-7b", 8192, 3584, 3584, 152064, false},
};

double median_milliseconds(const std::function<void()>& work) {
    std::vector<double> times;
    for (int i = 0; i < 8; ++i) {
        c10::cuda::device_synchronize();
        const Stopwatch watch;
        work();
        c10::cuda::device_synchronize();
        if (i > 1) times.push_back(1e3 * watch.seconds());
    }
    std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
    return times[times.size() / 2];
}

void measure(const Case& c, int64_t chunk) {
    const auto options = at::TensorOptions(at::kCUDA).dtype(at::kBFloat16);
    const auto numbers = [&](at::IntArrayRef sizes, double scale) { return at::randn(sizes, options) * scale; };
    const at::Tensor student = numbers({c.tokens, c.student_width}, 1),
                     teacher = numbers({c.tokens, c.teacher_width}, 1);
    const at::Tensor student_head = numbers({c.vocabulary, c.student_width}, 0.03),
                     teacher_head = numbers({c.vocabulary, c.teacher_width}, 0.03);
    const at::Tensor d_head =
        c.frozen ? at::Tensor() : at::zeros({c.vocabulary, c.student_width}, options.dtype(at::kFloat));
    const double fused = median_milliseconds([&] {
        chunked_kl_divergence(student, student_head, teacher, teacher_head, 1.0, 1.0 / double(c.tokens), chunk, d_head);
    });
    const int64_t part = chunk > 0 ? chunk : automatic_loss_chunk(2, student_head);
    at::Tensor d_hidden = at::empty_like(student);
    const double products = median_milliseconds([&] {
        for (int64_t first = 0; first < c.tokens; first += part) {
            const int64_t count = std::min(part, c.tokens - first);
            const at::Tensor hidden = student.narrow(0, first, count);
            const at::Tensor logits = at::linear(hidden, student_head);
            at::linear(teacher.narrow(0, first, count), teacher_head);
            at::Tensor d = d_hidden.narrow(0, first, count);
            at::mm_out(d, logits, student_head);
            at::Tensor sum = d_head;
            if (sum.defined()) at::addmm_out(sum, sum, logits.t(), hidden, at::kFloat);
        }
    });
    const double flops =
        2.0 * double(c.tokens) * double(c.vocabulary) * double(c.student_width * (c.frozen ? 2 : 3) + c.teacher_width);
    std::printf("%s,%lld,%lld,%lld,%.3f,%.3f,%.3f,%.0f,%.0f\n", c.name, static_cast<long long>(c.tokens),
                static_cast<long long>(c.vocabulary), static_cast<long long>(part), fused, products, products / fused,
                1e-9 * flops / fused, 1e-9 * flops / products);
    std::fflush(stdout);
}

}  // namespace
}  // namespace amalgam

int main(int argc, char** argv) {
    const c10::NoGradGuard no_grad;
    std::printf(
        "case,tokens,vocabulary,chunk,fused_ms,products_ms,share_of_products_speed,fused_tflops,products_tflops\n");
    for (const amalgam::Case& c : amalgam::cases) amalgam::measure(c, argc > 1 ? std::atoll(argv[1]) : 0);
}
