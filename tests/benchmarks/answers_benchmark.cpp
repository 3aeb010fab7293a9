// SPDX-License-Identifier: Apache-2.0
// How long the engine takes for the answers to many prompts of unequal lengths, all of the same number of new tokens,
// as RULER asks them, and how long for their first tokens alone, which is the time of the prompts. Random weights and
// prompts, lengths spread evenly over the last quarter up to LONGEST. Prints CSV.
//
// usage: answers_benchmark [--device cuda|cpu] [--type bf16|f32] [--slots N] [--chunk N]
//            SHAPE:LAYOUT:PROMPTS:LONGEST:NEW ...
// 13 tasks of 500 questions at 4096 tokens: smollm2-135m:teacher:6500:3968:128
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <chrono>
#include <cstdio>
#include <iostream>
#include <sstream>

#include "generation/engine.h"
#include "random_models.h"

namespace amalgam::benchmarks {
namespace {

struct Settings {
    std::string device = at::hasCUDA() ? "cuda" : "cpu", type = "bf16";
    EngineLimits limits;
};

struct Case {
    std::string shape, layout;
    int64_t prompts, longest, count;
};

Case parse_case(std::string text) {
    const std::string given = text;
    std::ranges::replace(text, ':', ' ');
    std::istringstream in(text);
    Case c;
    in >> c.shape >> c.layout >> c.prompts >> c.longest >> c.count;
    require(bool(in), given, ": is no SHAPE:LAYOUT:PROMPTS:LONGEST:NEW");
    return c;
}

void measure(const Case& c, const Settings& settings) {
    const at::NoGradGuard no_grad;
    const ModelConfig config = config_of(c.shape, 0);
    CausalLM model({config, layout_of(c.layout, config.layers), {}}, at::Device(settings.device),
                   settings.type == "f32" ? at::kFloat : at::kBFloat16, /*trainable=*/false);
    fill_randomly(model);
    const at::Tensor tokens = at::randint(config.vocabulary_size, {c.longest}, at::kInt);
    std::vector<Prompt> prompts;
    double total = 0.0;
    for (int64_t i = 0; i < c.prompts; ++i) {
        const int64_t length = c.longest - c.longest / 4 * i / c.prompts;
        prompts.push_back({{tokens.const_data_ptr<int32_t>(), size_t(length)}, c.count});
        total += double(length);
    }
    const auto seconds = [&](std::span<const Prompt> asked) {
        const auto start = std::chrono::steady_clock::now();
        generate(model, asked, settings.limits);
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    };
    seconds(std::span(prompts).first(std::min<size_t>(prompts.size(), 16)));  // libraries load what they need
    const double all = seconds(prompts);
    for (Prompt& prompt : prompts) prompt.count = 1;
    const double first = seconds(prompts);
    std::printf("%s,%s,%ld,%ld,%ld,%s,%s,%.2f,%.2f,%.0f\n", c.shape.c_str(), c.layout.c_str(), long(c.prompts),
                long(c.longest), long(c.count), settings.device.c_str(), settings.type.c_str(), all, first,
                total / first);
    std::fflush(stdout);
}

int run(int argc, char** argv) {
    Settings settings;
    std::puts("shape,layout,prompts,longest,new_tokens,device,type,seconds,prefill_seconds,prefill_tokens_s");
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
        else if (argument == "--slots")
            settings.limits.slots = std::stoll(value());
        else if (argument == "--chunk")
            settings.limits.chunk_tokens = std::stoll(value());
        else
            measure(parse_case(argument), settings);
    }
    return 0;
}

}  // namespace
}  // namespace amalgam::benchmarks

int main(int argc, char** argv) {
    try {
        return amalgam::benchmarks::run(argc, argv);
    } catch (const std::exception& error) {
        std::cerr << "answers_benchmark: " << error.what() << '\n';
        return 1;
    }
}
