// SPDX-License-Identifier: Apache-2.0
// Times one alignment step and one distillation step (forward, backward, clipping, AdamW) of a student in the shapes of
// SmolLM2-135M with random weights. Prints one line, seconds per step, each the median over the repetitions:
//     ALIGN_SECONDS DISTILL_SECONDS
//
// usage: training_step_benchmark [SEQUENCES TIME bf16|fp32 THREADS REPETITIONS [LAYERS]]
// The distilled student keeps softmax in every fourth layer.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <string>

#include "app/memory.h"
#include "system/clock.h"
#include "training/adamw.h"
#include "training/alignment.h"
#include "training/distillation.h"

namespace {

using namespace amalgam;

ModelConfig smollm2(int64_t layers) {
    ModelConfig c;
    c.family = "llama";
    c.hidden_size = 576;
    c.layers = layers;
    c.query_heads = 9;
    c.key_value_heads = 3;
    c.head_dim = 64;
    c.intermediate_size = 1536;
    c.vocabulary_size = 49152;
    c.max_positions = 8192;
    c.rms_norm_eps = 1e-5;
    c.tied_head = true;
    c.rope.theta = 100000.0;
    c.window.assign(size_t(layers), 0);
    return c;
}

void fill_randomly(CausalLM& model) {
    model.parameters().for_each_named([](const std::string& name, at::Tensor t, Parameter&) {
        if (name.find("norm.weight") != std::string::npos)
            t.fill_(1.0);
        else
            t.normal_(0.0, 0.02);
    });
    model.parameters().refresh_compute();
}

double median(std::vector<double> values) {
    std::nth_element(values.begin(), values.begin() + std::ptrdiff_t(values.size() / 2), values.end());
    return values[values.size() / 2];
}

/// Median seconds of whole optimizer steps, after one that is not counted.
double time_steps(Objective& objective, const OptimizerJob& options, const at::Tensor& tokens, int threads, int repetitions) {
    const auto parameters = objective.trained();
    Gradients gradients(parameters, at::kCPU, false);
    AdamW optimizer(parameters, options);
    std::vector<double> seconds;
    for (int i = 0; i <= repetitions; ++i) {
        const Stopwatch watch;
        std::vector<double> losses(size_t(objective.losses()), 0.0);
        gradients.clear();
        objective.accumulate(tokens, i, 1.0, gradients, losses);
        const double norm = gradients.norm(threads);
        optimizer.step(gradients, 1.0, norm > 1.0 ? 1.0 / norm : 1.0, threads);
        if (i > 0) seconds.push_back(watch.seconds());
    }
    return median(seconds);
}

}  // namespace

int main(int argc, char** argv) {
    const auto argument = [&](int i, const char* fallback) { return std::string(argc > i ? argv[i] : fallback); };
    const int64_t sequences = std::stoll(argument(1, "4")), time = std::stoll(argument(2, "512")), layers = std::stoll(argument(6, "30"));
    const at::ScalarType type = argument(3, "bf16") == "bf16" ? at::kBFloat16 : at::kFloat;
    const int threads = std::stoi(argument(4, "2")), repetitions = std::stoi(argument(5, "3"));
    keep_freed_memory();
    at::set_num_threads(threads);
    at::manual_seed(0);

    ModelSpec spec{smollm2(layers), all_softmax(layers), {}};
    spec.linear.norm_eps = spec.config.rms_norm_eps;
    CausalLM teacher(spec, at::kCPU, type, false);
    fill_randomly(teacher);
    const at::Tensor tokens = at::randint(spec.config.vocabulary_size, {sequences, time}, at::kLong);
    OptimizerJob options;

    spec.layout = all_linear(layers, "gated_delta_net");
    double align_seconds = 0.0;
    {
        CausalLM student(spec, at::kCPU, type, true);
        fill_randomly(student);
        Alignment alignment(student, teacher, AlignmentLoss::norm);
        align_seconds = time_steps(alignment, options, tokens, threads, repetitions);
    }
    for (int64_t layer = 3; layer < layers; layer += 4) spec.layout[size_t(layer)] = softmax_mixer;
    CausalLM student(spec, at::kCPU, type, true);
    fill_randomly(student);
    TeacherStates states(teacher, 0);
    Distillation distillation(student, states, DistillJob());
    const double distill_seconds = time_steps(distillation, options, tokens, threads, repetitions);
    std::cout << align_seconds << ' ' << distill_seconds << '\n';
    return EXIT_SUCCESS;
}
