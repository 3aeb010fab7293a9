// SPDX-License-Identifier: Apache-2.0
#include "generation/speed.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <functional>
#include <numeric>
#include <vector>

#include "generation/decoder.h"

namespace amalgam {
namespace {

constexpr int repetitions = 5, prompts = 3, warm_up = 3;

double seconds(const std::function<void()>& work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
    std::ranges::nth_element(values, values.begin() + std::ptrdiff_t(values.size() / 2));
    return values[values.size() / 2];
}

}  // namespace

AnswerSpeed measure_speed(const CausalLM& model, int64_t context, int64_t batch, int64_t steps) {
    const at::NoGradGuard no_grad;
    Decoder decoder(model, {batch, context + warm_up + steps});
    const at::Tensor tokens = at::randint(model.config().vocabulary_size, {1, context}, at::kLong);
    const at::Tensor slot = at::zeros({1}, at::TensorOptions(model.device()).dtype(at::kLong));
    std::vector<int64_t> slots(static_cast<size_t>(batch));
    std::iota(slots.begin(), slots.end(), 0);
    std::vector<double> first, step, processor;
    decoder.on_own_stream([&] {
        for (int i = 0; i < prompts; ++i)
            first.push_back(seconds([&] { HostCopy(decoder.prefill(tokens, slot, 0, context)).wait(); }));
        decoder.lay_out(slots);
        for (int i = 0; i < repetitions; ++i) {
            decoder.repeat_first_slot(context);
            for (int s = 0; s < warm_up; ++s) HostCopy(decoder.step()).wait();
            const std::clock_t used = std::clock();
            const double all = seconds([&] {
                for (int64_t s = 1; s < steps; ++s) decoder.step();
                HostCopy(decoder.step()).wait();
            });
            step.push_back(all / double(steps));
            processor.push_back(double(std::clock() - used) / CLOCKS_PER_SEC / double(steps));
        }
    });
    return {median(first), median(step), median(processor)};
}

double least_bytes_of_step(CausalLM& model, int64_t context, int64_t batch) {
    double weights = 0.0;
    model.parameters().for_each_named([&](const std::string&, const at::Tensor& t, Parameter& p) {
        if (&p != &model.embedding_parameter() || &p == &model.head_parameter())
            weights += double(t.numel()) * double(p.compute.element_size());
    });
    const double states = double(model.cache_bytes(0)), all = double(model.cache_bytes(context));
    return weights + double(batch) * (all + states);
}

double copy_bandwidth(at::Device device) {
    const int64_t elements = device.is_cuda() ? int64_t(1) << 28 : int64_t(1) << 26;  // past all caches
    const at::Tensor from = at::ones({elements}, at::TensorOptions(device).dtype(at::kFloat)),
                     to = at::empty_like(from);
    std::vector<double> times;
    for (int i = 0; i < repetitions; ++i)
        times.push_back(seconds([&] {
            to.copy_(from);
            to.select(0, 0).item<float>();  // waits
        }));
    return 2.0 * double(from.nbytes()) / median(times);
}

}  // namespace amalgam
