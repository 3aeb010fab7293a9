// SPDX-License-Identifier: Apache-2.0
// Times one alignment, one distillation and one score step (forward, backward, clipping, AdamW) of a student with
// random weights. Prints one line: seconds per step, each the median over the repetitions, and floating-point
// operations per token (multiplications and additions, backward twice the forward):
//     ALIGN_SECONDS DISTILL_SECONDS SCORE_SECONDS ALIGN_FLOPS DISTILL_FLOPS SCORE_FLOPS
//
// usage: training_step_benchmark [SEQUENCES TIME bf16|fp32 THREADS REPETITIONS [LAYERS [cpu|cuda [SHAPE [PROFILE
//            [VARIANT]]]]]]
// SHAPE: smollm2-135m (the default), qwen2.5-1.5b, -3b or -7b, with as many layers unless LAYERS is given and not 0.
// PROFILE, GPUs only: rows of a table of device time by operation, of one more step of each kind, on standard error.
// VARIANT: of the student's linear layers, student.variant of a job (gdn_v4).
// The distilled student keeps softmax in every fourth layer, the scored one in its middle layer; a score step finds the
// teacher's hidden states kept from before.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/cuda.h>

#include <cstdlib>
#include <iostream>
#include <string>

#include "app/memory.h"
#include "device_profile.h"
#include "job/job_reader.h"
#include "objectives/alignment.h"
#include "objectives/distillation.h"
#include "optimizer/adamw.h"
#include "random_models.h"
#include "stages/compute.h"
#include "stages/training_stage.h"
#include "system/clock.h"
#include "system/error.h"

namespace {

using namespace amalgam;

void fill_randomly(CausalLM& model) {
    model.parameters().for_each_named(
        [](const std::string& name, at::Tensor t, Parameter&) { benchmarks::fill_randomly(name, t); });
    model.parameters().refresh_compute();
}

struct Settings {
    int64_t sequences, time, profile_rows;
    at::ScalarType type;
    at::Device device;
    int threads, repetitions;
    std::string shape;
    ModelConfig config;
    StudentJob student;
};

Settings settings(int argc, char** argv) {
    const auto argument = [&](int i, const char* fallback) { return std::string(argc > i ? argv[i] : fallback); };
    const std::string shape = argument(8, "smollm2-135m");
    return {std::stoll(argument(1, "4")),
            std::stoll(argument(2, "512")),
            std::stoll(argument(9, "0")),
            argument(3, "bf16") == "bf16" ? at::kBFloat16 : at::kFloat,
            asks_for_cuda("device", value_named<DeviceChoice>("device", argument(7, "cpu"))) ? at::Device(at::kCUDA, 0)
                                                                                             : at::Device(at::kCPU),
            std::stoi(argument(4, "2")),
            std::stoi(argument(5, "3")),
            shape,
            benchmarks::config_of(shape, std::stoll(argument(6, "0"))),
            parse_job("", "VARIANT", {"student.variant=" + argument(10, "gdn_v4")}).student};
}

/// Median seconds of whole optimizer steps, after two that are not counted.
/// `same_tokens`: every step takes them as the same ones of the corpus, whose teacher states may be known.
double time_steps(const std::string& name, Objective& objective, const at::Tensor& tokens, const Settings& s,
                  bool same_tokens = false) {
    const auto parameters = objective.trained();
    Gradients gradients(parameters, s.device, false);
    AdamW optimizer(parameters, {.learning_rate = 1e-3, .learning_rate_rest = 1e-3});
    int64_t cursor = 0;
    const auto step = [&] {
        std::vector<double> losses(size_t(objective.losses()), 0.0);
        gradients.clear();
        objective.accumulate(tokens, same_tokens ? 0 : cursor++, 1.0, gradients, losses);
        const double norm = gradients.norm(s.threads);
        optimizer.step(gradients, 1.0, norm > 1.0 ? 1.0 / norm : 1.0, s.threads);
        if (s.device.is_cuda()) torch::cuda::synchronize();
    };
    const int uncounted = s.device.is_cuda() ? 2 : 1;
    std::vector<double> seconds;
    for (int i = 0; i < uncounted + s.repetitions; ++i) {
        const Stopwatch watch;
        step();
        if (i >= uncounted) seconds.push_back(watch.seconds());
    }
    if (s.profile_rows > 0 && s.device.is_cuda()) {
        std::cerr << "profile," << s.shape << ',' << name << ',' << s.sequences << " x " << s.time << '\n';
        print_device_profile(step, s.profile_rows, std::cerr);
    }
    return benchmarks::median(seconds);
}

void run(int argc, char** argv) {
    const Settings s = settings(argc, argv);
    keep_freed_memory();
    at::set_num_threads(s.threads);
    at::manual_seed(0);
    set_product_precision(s.type);

    const int64_t layers = s.config.layers;
    const std::string& mixer = s.student.mixer;
    ModelSpec spec{s.config, all_softmax(layers), s.student.options, s.config.rms_norm_eps};
    CausalLM teacher(spec, s.device, s.type, false);
    fill_randomly(teacher);
    const at::Tensor tokens = at::randint(spec.config.vocabulary_size, {s.sequences, s.time}, at::kLong).to(s.device);

    spec.layout = all_linear(layers, mixer);
    double align_seconds = 0.0;
    {
        CausalLM student(spec, s.device, s.type, true);
        fill_randomly(student);
        Alignment alignment(student, teacher, AlignmentLoss::norm);
        align_seconds = time_steps("align", alignment, tokens, s);
    }
    const double align_flops = alignment_flops(spec, s.time);
    const auto distill = [&](const std::string& name, const Layout& layout, bool same_tokens) {
        spec.layout = layout;
        CausalLM student(spec, s.device, s.type, true);
        fill_randomly(student);
        TeacherStates states(teacher, same_tokens ? int64_t{1} << 40 : 0);
        Distillation distillation(student, states, DistillJob());
        return time_steps(name, distillation, tokens, s, same_tokens);
    };
    const Layout hybrid = benchmarks::hybrid(layers, mixer), candidate = keep_softmax(layers, mixer, {layers / 2});
    const double distill_seconds = distill("distill", hybrid, false);
    const double score_seconds = distill("score", candidate, true);
    spec.layout = hybrid;
    const double distill_flops = distillation_flops(spec, s.time);
    spec.layout = candidate;
    const double score_flops = known_states_flops(spec, s.time);
    std::cout << align_seconds << ' ' << distill_seconds << ' ' << score_seconds << ' ' << align_flops << ' '
              << distill_flops << ' ' << score_flops << '\n';
}

}  // namespace

int main(int argc, char** argv) {
    try {
        run(argc, argv);
        return EXIT_SUCCESS;
    } catch (const std::exception& error) {
        std::cerr << "training_step_benchmark: " << error.what() << '\n';
        return EXIT_FAILURE;
    }
}
