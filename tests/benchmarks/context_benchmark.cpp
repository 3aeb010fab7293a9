// SPDX-License-Identifier: Apache-2.0
// Times one sequence that the ranks share (sharding.context): forward and backward pass of each mixer, and a
// distillation step. The mixers take turns. Prints a CSV on rank 0: medians of the slowest rank.
//
// usage: mpirun -np N context_benchmark [TIME THREADS ROUNDS fp32|bf16 LAYERS SHAPE]
// To be compared: one rank with N threads and N ranks with one. LAYERS: of the step's models; 0: those of the shape.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>

#include <cstdlib>
#include <iostream>
#include <string>

#include "app/memory.h"
#include "comm/mpi_session.h"
#include "mixers/implementation.h"
#include "mixers/sequence_pieces.h"
#include "objectives/distillation.h"
#include "optimizer/gradients.h"
#include "random_models.h"
#include "sharding/context_ranks.h"
#include "system/clock.h"

namespace {

using namespace amalgam;

struct Settings {
    int64_t time, rounds;
    at::ScalarType type;
    ModelConfig config;
};

void fill(ParameterStore& store) {
    store.for_each_named([](const std::string& name, at::Tensor t, Parameter&) { benchmarks::fill_randomly(name, t); });
    store.refresh_compute();
}

/// Seconds of the slowest rank.
template <class Work>
double seconds(const Communicator& world, Work work) {
    world.barrier();
    const Stopwatch watch;
    work();
    return world.max(watch.seconds());
}

/// A mixer that computes this rank's piece.
class Layer {
  public:
    Layer(const std::string& mixer, const Settings& s, ContextGroup* context) {
        ModelSpec spec{s.config, {mixer}, {}};
        spec.config.layers = 1;
        spec.output_norm_eps = spec.config.rms_norm_eps;
        mixer_ = find_implementation(mixer).make(spec, 0, store_);
        store_.allocate(at::kCPU, s.type, true);
        fill(store_);
        const SequencePiece piece =
            context ? sequence_piece(s.time, context->ranks(), context->rank()) : SequencePiece{0, s.time};
        places_ = {rotary_tables(spec.config.rope, spec.config.head_dim, piece.first, piece.count, at::kCPU, s.time),
                   context, s.time};
        leaves_ = {at::randn({1, piece.count, spec.config.hidden_size}, s.type).requires_grad_(true)};
        for (const Parameter& p : store_.all()) leaves_.push_back(p.compute);
    }

    void forward_and_backward() const {
        const at::Tensor y = mixer_->forward(leaves_[0], places_);
        torch::autograd::grad({y}, leaves_, {at::ones_like(y)});
    }

  private:
    ParameterStore store_;
    std::unique_ptr<Mixer> mixer_;
    SequencePlaces places_;
    std::vector<at::Tensor> leaves_;
};

std::unique_ptr<CausalLM> model_of(const ModelSpec& spec, at::ScalarType type, bool trainable) {
    auto model = std::make_unique<CausalLM>(spec, at::kCPU, type, trainable);
    fill(model->parameters());
    return model;
}

void run(int argc, char** argv, const Communicator& world) {
    const auto argument = [&](int i, const char* fallback) { return std::string(argc > i ? argv[i] : fallback); };
    const int threads = std::stoi(argument(2, "1"));
    const Settings s{std::stoll(argument(1, "4096")), std::stoll(argument(3, "5")),
                     argument(4, "fp32") == "bf16" ? at::kBFloat16 : at::kFloat,
                     benchmarks::config_of(argument(6, "smollm2-135m"), std::stoll(argument(5, "8")))};
    keep_freed_memory();
    at::set_num_threads(threads);
    at::manual_seed(1);
    const auto context = world.size() > 1 ? make_context_group(world) : nullptr;

    std::vector<std::string> names;
    std::vector<std::function<void()>> works;
    std::vector<std::unique_ptr<Layer>> layers;
    for (const MixerDeclaration* mixer : mixer_declarations()) {
        layers.push_back(std::make_unique<Layer>(mixer->name(), s, context.get()));
        names.push_back(mixer->name());
        works.push_back([layer = layers.back().get()] { layer->forward_and_backward(); });
    }
    ModelSpec spec{s.config, benchmarks::hybrid(s.config.layers), {}};
    spec.output_norm_eps = spec.config.rms_norm_eps;
    const auto student = model_of(spec, s.type, true),
               teacher = model_of({s.config, all_softmax(s.config.layers), {}}, s.type, false);
    TeacherStates states(*teacher, 0);
    Distillation objective(*student, states, DistillJob(), Activations::keep, context.get());
    Gradients gradients(objective.trained(), at::kCPU, false);
    const auto collectives = make_tensor_collectives(world, at::kCPU);
    const at::Tensor tokens = at::randint(s.config.vocabulary_size, {1, s.time}, at::kLong);
    names.push_back("step");
    works.push_back([&] {
        gradients.clear();
        std::vector<double> losses(1);
        objective.accumulate(tokens, 0, 1.0, gradients, losses);
        gradients.commit();
        gradients.reduce(*collectives);
    });

    std::vector<std::vector<double>> measured(works.size());
    for (int64_t round = 0; round <= s.rounds; ++round)
        for (size_t w = 0; w < works.size(); ++w) {
            const double time = seconds(world, works[w]);
            if (round > 0) measured[w].push_back(time);
        }
    if (!world.is_root()) return;
    std::cout << "what,ranks,threads_per_rank,tokens,type,milliseconds\n";
    for (size_t w = 0; w < works.size(); ++w)
        std::cout << names[w] << ',' << world.size() << ',' << threads << ',' << s.time << ',' << argument(4, "fp32")
                  << ',' << 1e3 * benchmarks::median(measured[w]) << '\n';
}

}  // namespace

int main(int argc, char** argv) {
    const MpiSession session(&argc, &argv);
    try {
        run(argc, argv, session.world());
        return EXIT_SUCCESS;
    } catch (const std::exception& error) {
        std::cerr << "context_benchmark: " << error.what() << '\n';
        session.abort(EXIT_FAILURE);
    }
}
