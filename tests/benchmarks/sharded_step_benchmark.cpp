// SPDX-License-Identifier: Apache-2.0
// Times distillation steps of a student with random weights, under every way of sharding. The ways take turns, so that
// what else the machine does falls on all of them; each is made anew in every round, since together they would not fit
// into memory. Prints a CSV on rank 0: medians over the rounds.
//
// usage: mpirun -np 2 sharded_step_benchmark [SEQUENCES TIME fp32|bf16 LAYERS ROUNDS STEPS
//                                            [cpu|cuda [SHAPE [WAYS [ACTIVATIONS [PROFILE]]]]]]
// SEQUENCES: of one rank in a step. LAYERS: 0: those of the shape. STEPS: timed in each round, after one that is not.
// SHAPE: smollm2-135m (the default), qwen2.5-1.5b, -3b or -7b. WAYS: such as none,full (the default:
// none,optimizer,full); reduced_in_bf16 is full, too. ACTIVATIONS: keep or recompute. On GPUs, one a rank, the memory
// of a rank is printed instead of the share of waiting, which happens on the device: after a step (weights, gradients,
// moments, teacher), and the most in a step. PROFILE, GPUs only: rows of a table of rank 0's device time by operation,
// of one more step of each way, on standard error.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cstdlib>
#include <iostream>
#include <map>
#include <string>

#include "app/memory.h"
#include "comm/mpi_session.h"
#include "device_memory.h"
#include "device_profile.h"
#include "objectives/distillation.h"
#include "optimizer/trained_weights.h"
#include "random_models.h"
#include "stages/compute.h"
#include "system/clock.h"
#include "system/error.h"

namespace {

using namespace amalgam;

ModelSpec student_spec(const ModelConfig& config) {
    ModelSpec spec{config, benchmarks::hybrid(config.layers), {}};
    spec.output_norm_eps = spec.config.rms_norm_eps;
    return spec;
}

/// A model, sharded or not.
struct Sharded {
    std::unique_ptr<CausalLM> model;
    std::unique_ptr<ShardedModel> shards;

    Sharded(const ModelSpec& spec, at::Device device, at::ScalarType type, bool trainable, const Communicator& world,
            const ShardingOptions& options, bool whole) {
        model = std::make_unique<CausalLM>(spec, device, type, trainable, whole ? Allocation::now : Allocation::later);
        if (whole) {
            model->parameters().for_each_named(
                [](const std::string& name, at::Tensor t, Parameter&) { benchmarks::fill_randomly(name, t); });
            model->parameters().refresh_compute();
            return;
        }
        shards = std::make_unique<ShardedModel>(*model, trainable, world, options);
        for (const FlatParameters* flat : shards->flats())
            for (const ShardPiece& piece : flat->pieces())
                benchmarks::fill_randomly(piece.parameter->name, flat->shard().narrow(0, piece.in_shard, piece.count));
    }
};

struct Way {
    std::string name;
    ShardingStrategy strategy;
    bool gather_ahead;
    bool reduce_in_bfloat16 = false;
};

const Way all_ways[] = {{"none", ShardingStrategy::none, true},
                        {"optimizer", ShardingStrategy::optimizer, true},
                        {"optimizer", ShardingStrategy::optimizer, false},
                        {"full", ShardingStrategy::full, true},
                        {"full", ShardingStrategy::full, false},
                        {"reduced_in_bf16", ShardingStrategy::full, true, true}};

struct Measured {
    std::vector<double> seconds, waited;
    double kept = 0, most = 0;  // device memory of a rank after a step, and in one; bytes
};

struct Settings {
    int64_t sequences, time, rounds, steps;
    at::ScalarType type;
    ModelConfig config;
    std::string ways;  // names with commas between them
    Activations activations = Activations::keep;
    int64_t profile_rows = 0;
    at::Device device = at::kCPU;
};

using benchmarks::DeviceMemory, benchmarks::finish_device_work;

void measure(const Way& way, const Settings& s, bool profile, const Communicator& world, Measured& result) {
    const bool none = way.strategy == ShardingStrategy::none;
    ShardingOptions options;
    options.strategy = none ? ShardingStrategy::full : way.strategy;
    options.gather_ahead = way.gather_ahead;
    options.reduce_in_bfloat16 = way.reduce_in_bfloat16;
    const ModelSpec spec = student_spec(s.config);
    const Sharded student(spec, s.device, s.type, true, world, options, none);
    const Sharded teacher({spec.config, all_softmax(spec.config.layers), {}}, s.device, s.type, false, world, options,
                          none || way.strategy == ShardingStrategy::optimizer);
    TeacherStates states(*teacher.model, 0);
    Distillation objective(*student.model, states, DistillJob(), s.activations);
    const auto weights = make_trained_weights(*student.model, student.shards.get(), objective.trained(), world,
                                              {.optimizer = {.learning_rate = 1e-3, .learning_rate_rest = 1e-3}});
    const at::Tensor tokens = at::randint(spec.config.vocabulary_size, {s.sequences, s.time}, at::kLong).to(s.device);
    finish_device_work(s.device);
    const auto train = [&](int64_t step) {
        weights->begin_step();
        std::vector<double> losses(1);
        objective.accumulate(tokens, step, 1.0 / double(world.size()), weights->gradients(), losses);
        weights->end_micro_batch();
        weights->reduce();
        const double norm = weights->norm(1);
        weights->update(1.0, norm > 1.0 ? 1.0 / norm : 1.0, 1);
        return finish_device_work(s.device);
    };
    for (int64_t step = 0; step <= s.steps; ++step) {
        world.barrier();
        const double waited = weights->seconds_waited();
        const Stopwatch watch;
        const DeviceMemory memory = train(step);
        const double seconds = world.max(watch.seconds());
        result.kept = std::max(result.kept, world.max(memory.now));
        result.most = std::max(result.most, world.max(memory.most));
        if (step == 0) continue;
        result.seconds.push_back(seconds);
        result.waited.push_back(world.max(weights->seconds_waited() - waited) / seconds);
    }
    if (!profile) return;
    world.barrier();
    if (world.is_root()) {
        std::cerr << "profile," << way.name << '\n';
        print_device_profile([&] { train(s.steps + 1); }, s.profile_rows, std::cerr);
    } else {
        train(s.steps + 1);
    }
}

void run(int argc, char** argv, const Communicator& world) {
    const auto argument = [&](int i, const char* fallback) { return std::string(argc > i ? argv[i] : fallback); };
    const std::string shape = argument(8, "smollm2-135m");
    Settings s{std::stoll(argument(1, "1")),
               std::stoll(argument(2, "512")),
               std::stoll(argument(5, "3")),
               std::stoll(argument(6, "2")),
               argument(3, "fp32") == "bf16" ? at::kBFloat16 : at::kFloat,
               benchmarks::config_of(shape, std::stoll(argument(4, "0"))),
               argument(9, "none,optimizer,full"),
               value_named<Activations>("activations", argument(10, "keep")),
               std::stoll(argument(11, "0"))};
    s.device = benchmarks::device_named(argument(7, "cpu"), world);
    keep_freed_memory();
    at::set_num_threads(1);
    at::manual_seed(uint64_t(world.rank()));
    set_product_precision(s.type);
    std::vector<Way> ways;
    for (const Way& way : all_ways)
        if (s.ways.find(way.name) != std::string::npos) ways.push_back(way);
    std::vector<Measured> measured(ways.size());
    for (int64_t round = 0; round < s.rounds; ++round)
        for (size_t w = 0; w < ways.size(); ++w) {
            const bool profile = s.profile_rows > 0 && round == s.rounds - 1;
            measure(ways[w], s, profile, world, measured[w]);
        }
    if (!world.is_root()) return;
    const bool cpu = s.device.is_cpu();
    std::cout << "shape,strategy,gather_ahead,ranks,sequences_per_rank,tokens,layers,type,steps,seconds_per_step,"
                 "tokens_per_second,"
              << (cpu ? "share_waiting" : "activations,gigabytes_kept,gigabytes_most") << '\n';
    for (size_t w = 0; w < ways.size(); ++w) {
        const double seconds = benchmarks::median(measured[w].seconds);
        std::cout << shape << ',' << ways[w].name << ',' << (ways[w].gather_ahead ? "yes" : "no") << ',' << world.size()
                  << ',' << s.sequences << ',' << s.time << ',' << s.config.layers << ',' << argument(3, "fp32") << ','
                  << measured[w].seconds.size() << ',' << seconds << ','
                  << double(world.size() * s.sequences * s.time) / seconds << ',';
        if (cpu)
            std::cout << benchmarks::median(measured[w].waited) << '\n';
        else
            std::cout << (s.activations == Activations::keep ? "keep," : "recompute,") << measured[w].kept / 1e9 << ','
                      << measured[w].most / 1e9 << '\n';
    }
}

}  // namespace

int main(int argc, char** argv) {
    const MpiSession session(&argc, &argv);
    try {
        run(argc, argv, session.world());
        return EXIT_SUCCESS;
    } catch (const std::exception& error) {
        std::cerr << "sharded_step_benchmark: " << error.what() << '\n';
        session.abort(EXIT_FAILURE);
    }
}
