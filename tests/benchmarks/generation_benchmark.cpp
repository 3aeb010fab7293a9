// SPDX-License-Identifier: Apache-2.0
// Speed of generation: time to the first token of one sequence, and the time of a token for a batch of sequences that
// have seen so many tokens, beside the time that the memory needs for what a token must read and write: weights,
// cached keys and values, states. Random weights. Prints CSV.
//
// usage: generation_benchmark [--device cuda|cpu] [--type bf16|f32] [--threads N] [--steps N] [--header]
//            SHAPE:LAYOUT:BATCH:CONTEXT ...
// SHAPE: smollm2-135m, qwen2.5-1.5b, ... LAYOUT: teacher, linear, or the number of softmax layers to keep.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <sstream>

#include "generation/speed.h"
#include "random_models.h"

namespace amalgam::benchmarks {
namespace {

struct Settings {
    std::string device = at::hasCUDA() ? "cuda" : "cpu", type = "bf16";
    int64_t steps = 30;
};

struct Case {
    std::string shape, layout;
    int64_t batch, context;
};

Case parse_case(const std::string& text) {
    std::istringstream in(text);
    Case c;
    std::string batch, context;
    std::getline(in, c.shape, ':');
    std::getline(in, c.layout, ':');
    std::getline(in, batch, ':');
    std::getline(in, context, ':');
    require(!batch.empty() && !context.empty(), text, ": is no SHAPE:LAYOUT:BATCH:CONTEXT");
    c.batch = std::stoll(batch);
    c.context = std::stoll(context);
    return c;
}

void measure(const Case& c, const Settings& settings) {
    const at::NoGradGuard no_grad;
    const at::Device device(settings.device);
    const at::ScalarType type = settings.type == "f32" ? at::kFloat : at::kBFloat16;
    const ModelConfig config = config_of(c.shape, 0);
    CausalLM model({config, layout_of(c.layout, config.layers), {}}, device, type, /*trainable=*/false);
    fill_randomly(model);
    const double bandwidth = copy_bandwidth(device), floor = least_bytes_of_step(model, c.context, c.batch) / bandwidth;
    const AnswerSpeed speed = measure_speed(model, c.context, c.batch, settings.steps);
    std::printf("%s,%s,%ld,%ld,%s,%s,%d,%.3f,%.4f,%.4f,%.3f,%.1f,%.0f,%.4f\n", c.shape.c_str(), c.layout.c_str(),
                long(c.batch), long(c.context), settings.device.c_str(), settings.type.c_str(), at::get_num_threads(),
                1e3 * speed.first_token, 1e3 * speed.step, 1e3 * floor, floor / speed.step, bandwidth / 1e9,
                double(c.batch) / speed.step, 1e3 * speed.step_processor);
    std::fflush(stdout);
}

int run(int argc, char** argv) {
    Settings settings;
    std::vector<Case> cases;
    for (int i = 1; i < argc; ++i) {
        const std::string argument = argv[i];
        const auto value = [&] {
            require(i + 1 < argc, argument, ": has no value");
            return std::string(argv[++i]);
        };
        if (argument == "--device")
            settings.device = value();
        else if (argument == "--type")
            settings.type = value();
        else if (argument == "--threads")
            at::set_num_threads(std::stoi(value()));
        else if (argument == "--steps")
            settings.steps = std::stoll(value());
        else if (argument == "--header")
            std::puts(
                "shape,layout,batch,context,device,type,threads,first_token_ms,token_ms,floor_ms,share_of_bandwidth,"
                "copy_gb_s,tokens_s,token_processor_ms");
        else
            cases.push_back(parse_case(argument));
    }
    for (const Case& c : cases) measure(c, settings);
    return 0;
}

}  // namespace
}  // namespace amalgam::benchmarks

int main(int argc, char** argv) {
    try {
        return amalgam::benchmarks::run(argc, argv);
    } catch (const std::exception& error) {
        std::cerr << "generation_benchmark: " << error.what() << '\n';
        return 1;
    }
}
