// SPDX-License-Identifier: Apache-2.0
// Times distillation steps of a student of SmolLM2-135M's shapes with random weights, under every way of sharding. The
// ways take turns, so that what else the machine does falls on all of them; each is made anew in every round, since
// together they would not fit into memory. Prints a CSV on rank 0: medians over the rounds.
//
// usage: mpirun -np 2 sharded_step_benchmark [SEQUENCES TIME fp32|bf16 LAYERS ROUNDS STEPS]
// SEQUENCES: of one rank in a step. STEPS: timed in each round, after one that is not.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cstdlib>
#include <iostream>
#include <map>
#include <string>

#include "app/memory.h"
#include "comm/mpi_session.h"
#include "random_models.h"
#include "system/clock.h"
#include "system/error.h"
#include "training/distillation.h"
#include "training/trained_weights.h"

namespace {

using namespace amalgam;

ModelSpec student_spec(int64_t layers) {
    ModelSpec spec{benchmarks::smollm2(layers), benchmarks::hybrid(layers), {}};
    spec.linear.norm_eps = spec.config.rms_norm_eps;
    return spec;
}

/// A model, sharded or not.
struct Sharded {
    std::unique_ptr<CausalLM> model;
    std::unique_ptr<ShardedModel> shards;

    Sharded(const ModelSpec& spec, at::ScalarType type, bool trainable, const Communicator& world,
            const ShardingOptions& options, bool whole) {
        model =
            std::make_unique<CausalLM>(spec, at::kCPU, type, trainable, whole ? Allocation::now : Allocation::later);
        if (whole) {
            model->parameters().for_each_named(
                [](const std::string& name, at::Tensor t, Parameter&) { benchmarks::fill_randomly(name, t); });
            model->parameters().refresh_compute();
            return;
        }
        shards = std::make_unique<ShardedModel>(*model, trainable, world, options);
        for (const FlatParameters* flat : shards->flats())
            for (const ShardSlice& slice : flat->slices())
                benchmarks::fill_randomly(slice.parameter->name, flat->shard().narrow(0, slice.in_shard, slice.count));
    }
};

struct Way {
    std::string name;
    ShardingStrategy strategy;
    bool gather_ahead;
};

struct Measured {
    std::vector<double> seconds, waited;
};

struct Settings {
    int64_t sequences, time, layers, rounds, steps;
    at::ScalarType type;
};

void measure(const Way& way, const Settings& s, const Communicator& world, Measured& result) {
    const bool none = way.strategy == ShardingStrategy::none;
    ShardingOptions options;
    options.strategy = none ? ShardingStrategy::full : way.strategy;
    options.gather_ahead = way.gather_ahead;
    const ModelSpec spec = student_spec(s.layers);
    const Sharded student(spec, s.type, true, world, options, none);
    const Sharded teacher({spec.config, all_softmax(s.layers), {}}, s.type, false, world, options,
                          none || way.strategy == ShardingStrategy::optimizer);
    TeacherStates states(*teacher.model, 0);
    Distillation objective(*student.model, states, DistillJob());
    const auto weights = make_trained_weights(*student.model, student.shards.get(), objective.trained(), world, {});
    const at::Tensor tokens = at::randint(spec.config.vocabulary_size, {s.sequences, s.time}, at::kLong);
    for (int64_t step = 0; step <= s.steps; ++step) {
        world.barrier();
        const double waited = weights->seconds_waited();
        const Stopwatch watch;
        weights->begin_step();
        std::vector<double> losses(1);
        objective.accumulate(tokens, step, 1.0 / double(world.size()), weights->gradients(), losses);
        weights->end_micro_batch();
        weights->reduce();
        const double norm = weights->norm(1);
        weights->update(1.0, norm > 1.0 ? 1.0 / norm : 1.0, 1);
        const double seconds = world.max(watch.seconds());
        if (step == 0) continue;
        result.seconds.push_back(seconds);
        result.waited.push_back(world.max(weights->seconds_waited() - waited) / seconds);
    }
}

void run(int argc, char** argv, const Communicator& world) {
    const auto argument = [&](int i, const char* fallback) { return std::string(argc > i ? argv[i] : fallback); };
    const Settings s{std::stoll(argument(1, "1")),  std::stoll(argument(2, "512")),
                     std::stoll(argument(4, "30")), std::stoll(argument(5, "3")),
                     std::stoll(argument(6, "2")),  argument(3, "fp32") == "bf16" ? at::kBFloat16 : at::kFloat};
    keep_freed_memory();
    at::set_num_threads(1);
    at::manual_seed(uint64_t(world.rank()));
    const std::vector<Way> ways = {{"none", ShardingStrategy::none, true},
                                   {"optimizer", ShardingStrategy::optimizer, true},
                                   {"optimizer", ShardingStrategy::optimizer, false},
                                   {"full", ShardingStrategy::full, true},
                                   {"full", ShardingStrategy::full, false}};
    std::vector<Measured> measured(ways.size());
    for (int64_t round = 0; round < s.rounds; ++round)
        for (size_t w = 0; w < ways.size(); ++w) measure(ways[w], s, world, measured[w]);
    if (!world.is_root()) return;
    const double none = benchmarks::median(measured[0].seconds);
    std::cout << "strategy,gather_ahead,ranks,sequences_per_rank,tokens,layers,type,steps,seconds_per_step,"
                 "speed_of_none,share_waiting\n";
    for (size_t w = 0; w < ways.size(); ++w) {
        const double seconds = benchmarks::median(measured[w].seconds);
        std::cout << ways[w].name << ',' << (ways[w].gather_ahead ? "yes" : "no") << ',' << world.size() << ','
                  << s.sequences << ',' << s.time << ',' << s.layers << ',' << argument(3, "fp32") << ','
                  << measured[w].seconds.size() << ',' << seconds << ',' << none / seconds << ','
                  << benchmarks::median(measured[w].waited) << '\n';
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
