// SPDX-License-Identifier: Apache-2.0
// Sequences that the ranks share (sharding.context), with random weights: time and memory of training steps, time of
// the mixers, and whether pieces give what whole sequences give. Prints CSV on rank 0.
//
// usage: mpirun -np N context_benchmark [TIMES THREADS ROUNDS fp32|bf16 LAYERS SHAPE
//                                       [cpu|cuda [WORKS [SOFTMAX [ACTIVATIONS]]]]]
// TIMES: tokens of the sequence, or several such as 65536,131072. LAYERS: 0: those of the shape. WORKS, with commas
// between them (default: mixers,distill):
//     mixers    forward and backward pass of each mixer; they take turns
//     shares    of softmax attention on CPUs: seconds that each rank's processor computes in LibTorch's attention,
//     waiting
//               left out, in a forward and backward pass
//     distill   a step with the teacher: one sequence, all ranks together
//     finetune  a step without it
//     linear    a step without it of the student whose layers are all linear
//     check     of 4 layers and short sequences: the loss, and the error of all gradients against whole sequences in
//               fp32 on one rank (and of whole sequences in bf16 for comparison)
// SOFTMAX: layers of the student that keep softmax, evenly spread (default: every fourth). ACTIVATIONS: keep or
// recompute. To be compared on CPUs: one rank with N threads and N ranks with one. Seconds are medians, of the slowest
// rank. On GPUs, one a rank, a step's memory is printed of every rank: between steps and the most in one (weights,
// masters, moments, gradients and the teacher on each rank), and what `amalgam check` expects of the largest. A step
// that one rank alone has no memory for is left out.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/record_function.h>
#include <c10/util/Exception.h>
#include <time.h>
#include <torch/csrc/autograd/autograd.h>

#include <atomic>
#include <cstdlib>
#include <iostream>
#include <sstream>
#include <string>

#include "app/memory.h"
#include "comm/mpi_session.h"
#include "device_memory.h"
#include "estimate/job_estimate.h"
#include "mixers/implementation.h"
#include "mixers/sequence_pieces.h"
#include "objectives/distillation.h"
#include "optimizer/gradients.h"
#include "optimizer/trained_weights.h"
#include "random_models.h"
#include "sharding/context_ranks.h"
#include "system/clock.h"

namespace {

using namespace amalgam;
using benchmarks::finish_device_work;

struct Settings {
    std::vector<int64_t> times;
    int64_t rounds;
    int threads;
    at::ScalarType type;
    ModelConfig config;
    at::Device device;
    Layout layout;  // of the student
    Activations activations;

    std::string type_name() const { return type == at::kBFloat16 ? "bf16" : "fp32"; }
};

void fill(ParameterStore& store) {
    store.for_each_named([](const std::string& name, at::Tensor t, Parameter&) { benchmarks::fill_randomly(name, t); });
    store.refresh_compute();
}

ModelSpec spec_of(const ModelConfig& config, const Layout& layout) {
    ModelSpec spec{config, layout, {}};
    spec.output_norm_eps = config.rms_norm_eps;
    return spec;
}

/// The same weights on every rank and, of trainable models, in either type.
std::unique_ptr<CausalLM> model_of(const ModelSpec& spec, at::Device device, at::ScalarType type, bool trainable,
                                   uint64_t seed = 1) {
    at::manual_seed(seed);
    auto model = std::make_unique<CausalLM>(spec, device, type, trainable);
    fill(model->parameters());
    return model;
}

at::Tensor random_tokens(const ModelConfig& config, int64_t time, at::Device device) {
    at::manual_seed(3);
    return at::randint(config.vocabulary_size, {1, time}, at::kLong).to(device);
}

/// Seconds of the slowest rank.
template <class Work>
double seconds(const Communicator& world, at::Device device, Work work) {
    finish_device_work(device);
    world.barrier();
    const Stopwatch watch;
    work();
    finish_device_work(device);
    return world.max(watch.seconds());
}

void print_row(const Communicator& world, const Settings& s, const std::string& what, int64_t time, double seconds,
               const std::string& memory) {
    if (!world.is_root()) return;
    std::cout << what << ',' << world.size() << ',' << s.threads << ',' << time << ',' << s.type_name() << ','
              << 1e3 * seconds << ',' << double(time) / seconds << memory << std::endl;
}

/// A mixer that computes this rank's piece.
class Layer {
  public:
    Layer(const std::string& mixer, const Settings& s, int64_t time, ContextGroup* context) {
        ModelSpec spec = spec_of(s.config, {mixer});
        spec.config.layers = 1;
        mixer_ = find_implementation(mixer).make(spec, 0, store_);
        store_.allocate(s.device, s.type, true);
        fill(store_);
        const SequencePiece piece =
            context ? sequence_piece(time, context->ranks(), context->rank()) : SequencePiece{0, time};
        places_ = {rotary_tables(spec.config.rope, spec.config.head_dim, piece.first, piece.count, s.device, time),
                   context, time};
        leaves_ = {at::randn({1, piece.count, spec.config.hidden_size}, at::TensorOptions(s.device).dtype(s.type))
                       .requires_grad_(true)};
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

void time_mixers(const Settings& s, int64_t time, const Communicator& world, ContextGroup* context) {
    std::vector<std::string> names;
    std::vector<std::unique_ptr<Layer>> layers;
    for (const MixerDeclaration* mixer : mixer_declarations()) {
        names.push_back(mixer->name());
        layers.push_back(std::make_unique<Layer>(mixer->name(), s, time, context));
    }
    std::vector<std::vector<double>> measured(layers.size());
    for (int64_t round = 0; round <= s.rounds; ++round)
        for (size_t i = 0; i < layers.size(); ++i) {
            const double took = seconds(world, s.device, [&] { layers[i]->forward_and_backward(); });
            if (round > 0) measured[i].push_back(took);
        }
    const std::string no_memory = s.device.is_cpu() ? "" : ",,,";
    for (size_t i = 0; i < layers.size(); ++i)
        print_row(world, s, names[i], time, benchmarks::median(measured[i]), no_memory);
}

/// Seconds of the processor in LibTorch's attention since the last reset; backward passes have a thread of their own.
class AttentionSeconds {
  public:
    AttentionSeconds()
        : handle_(at::addGlobalCallback(at::RecordFunctionCallback(begin, end).scopes({at::RecordScope::FUNCTION}))) {}
    ~AttentionSeconds() { at::removeCallback(handle_); }
    AttentionSeconds(const AttentionSeconds&) = delete;
    AttentionSeconds& operator=(const AttentionSeconds&) = delete;

    static double taken_now() { return sum.exchange(0.0); }

  private:
    struct Began : at::ObserverContext {
        double at = 0;
    };
    static double now() {
        timespec t{};
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
        return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
    }
    static bool counts(const at::RecordFunction& f) {
        return std::string_view(f.name()).starts_with("aten::_scaled_dot_product_flash_attention_for_cpu");
    }
    static std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction& f) {
        if (!counts(f)) return nullptr;
        auto began = std::make_unique<Began>();
        began->at = now();
        return began;
    }
    static void end(const at::RecordFunction&, at::ObserverContext* began) {
        if (began) sum += now() - static_cast<Began*>(began)->at;
    }

    static inline std::atomic<double> sum = 0;
    at::CallbackHandle handle_;
};

std::string by_rank(const Communicator& world, double number) {
    std::ostringstream text;
    text.precision(3);
    const auto all = world.all_gather(std::span<const double>(&number, 1));
    for (size_t rank = 0; rank < all.size(); ++rank) text << (rank ? "/" : "") << all[rank];
    return text.str();
}

void share_attention(const Settings& s, int64_t time, const Communicator& world, ContextGroup* context) {
    const AttentionSeconds attention;
    const Layer layer(softmax_mixer, s, time, context);
    std::vector<double> measured;
    for (int64_t round = 0; round <= s.rounds; ++round) {
        AttentionSeconds::taken_now();
        layer.forward_and_backward();
        if (round > 0) measured.push_back(AttentionSeconds::taken_now());
    }
    const std::string shares = by_rank(world, 1e3 * benchmarks::median(measured));
    if (world.is_root())
        std::cout << "shares," << world.size() << ',' << s.threads << ',' << time << ',' << s.type_name() << ','
                  << shares << std::endl;
}

/// Gigabytes that `amalgam check` expects of the rank that needs most.
double expected_gigabytes(const Settings& s, const Layout& layout, int64_t time, int64_t ranks, bool with_teacher) {
    Job job;
    job.align.tokens = job.finetune.tokens = job.distill.tokens = 0;
    DistillJob& stage = with_teacher ? job.distill : job.finetune;
    stage.tokens = stage.sequence_length = time;
    stage.batch_sequences = stage.micro_batch_sequences = 1;
    job.sharding.context = ranks;
    job.sharding.activations = s.activations;
    job.select.rule = "uniform";
    job.select.options["budget"] = std::to_string(softmax_layers(layout).size());
    Machine machine;
    machine.ranks = ranks;
    machine.cpu = s.device.is_cpu();
    machine.fast_bfloat16 = s.type == at::kBFloat16;
    for (const StageEstimate& found : estimate_job(job, s.config, machine).stages)
        if (found.name == (with_teacher ? "distill" : "finetune")) return found.shardings.front().memory.total() / 1e9;
    return 0;
}

void time_steps(const Settings& s, const std::string& what, const Layout& layout, int64_t time,
                const Communicator& world, ContextGroup* context) {
    const bool with_teacher = what == "distill";
    const auto student = model_of(spec_of(s.config, layout), s.device, s.type, true);
    const auto teacher =
        with_teacher ? model_of(spec_of(s.config, all_softmax(s.config.layers)), s.device, s.type, false) : nullptr;
    std::unique_ptr<TeacherStates> states;
    std::unique_ptr<Objective> objective;
    if (with_teacher) {
        states = std::make_unique<TeacherStates>(*teacher, 0);
        objective = std::make_unique<Distillation>(*student, *states, DistillJob(), s.activations, context);
    } else {
        objective = std::make_unique<NextToken>(*student, DistillJob().loss_chunk_tokens, s.activations, context);
    }
    const auto weights = make_trained_weights(*student, nullptr, objective->trained(), world,
                                              {.optimizer = {.learning_rate = 1e-3, .learning_rate_rest = 1e-3}});
    const at::Tensor tokens = random_tokens(s.config, time, s.device);
    std::vector<double> measured;
    double kept = 0, most = 0;
    for (int64_t round = 0; round <= s.rounds; ++round) {
        finish_device_work(s.device);
        world.barrier();
        const Stopwatch watch;
        weights->begin_step();
        std::vector<double> losses(1);
        objective->accumulate(tokens, round, 1.0, weights->gradients(), losses);
        weights->end_micro_batch();
        weights->reduce();
        const double norm = weights->norm(s.threads);
        weights->update(1.0, norm > 1.0 ? 1.0 / norm : 1.0, s.threads);
        const benchmarks::DeviceMemory memory = finish_device_work(s.device);
        const double took = world.max(watch.seconds());
        if (round > 0) measured.push_back(took);
        kept = std::max(kept, memory.now);
        most = std::max(most, memory.most);
    }
    std::ostringstream memory;
    if (!s.device.is_cpu()) {
        memory << ',' << by_rank(world, kept / 1e9) << ',' << by_rank(world, most / 1e9) << ',';
        memory.precision(3);
        memory << expected_gigabytes(s, layout, time, world.size(), with_teacher);
    }
    print_row(world, s, what, time, benchmarks::median(measured), memory.str());
}

/// Loss and gradients of a distillation step.
struct Computed {
    std::vector<double> losses = std::vector<double>(1);
    at::Tensor gradients;
};

Computed compute(const Settings& s, at::ScalarType type, const at::Tensor& tokens, const Communicator* group,
                 ContextGroup* context) {
    const auto student = model_of(spec_of(s.config, benchmarks::hybrid(s.config.layers)), s.device, type, true),
               teacher = model_of(spec_of(s.config, all_softmax(s.config.layers)), s.device, type, true, 2);
    set_product_precision(type);
    TeacherStates states(*teacher, 0);
    Distillation objective(*student, states, DistillJob(), Activations::recompute, context);
    Gradients gradients(objective.trained(), s.device, false);
    gradients.clear();
    Computed result;
    objective.accumulate(tokens, 0, 1.0, gradients, result.losses);
    gradients.commit();
    if (group) {
        gradients.reduce(*make_tensor_collectives(*group, s.device));
        group->sum_in_place(result.losses);
    }
    result.gradients = gradients.flat().clone();
    set_product_precision(s.type);
    return result;
}

/// On rank 0's whole sequences and everybody's pieces.
void check(Settings s, const Communicator& world, ContextGroup* context) {
    s.config.layers = std::min<int64_t>(s.config.layers, 4);
    s.config.window.assign(size_t(s.config.layers), 0);
    const int64_t time = std::min<int64_t>(s.times.front(), 1000);
    const at::Tensor tokens = random_tokens(s.config, time, s.device);
    const Computed exact = compute(s, at::kFloat, tokens, nullptr, nullptr);
    const auto print = [&](const std::string& what, const Computed& found) {
        const double error = (found.gradients - exact.gradients).norm().item<double>(),
                     norm = exact.gradients.norm().item<double>();
        if (world.is_root())
            std::cout << what << ',' << (what.starts_with("whole") ? 1 : world.size()) << ',' << time << ','
                      << found.losses[0] << ',' << exact.losses[0] << ',' << error / norm << std::endl;
    };
    if (world.is_root()) std::cout << "check,ranks,tokens,loss,loss of whole fp32,error of gradients\n";
    print("pieces fp32", compute(s, at::kFloat, tokens, &world, context));
    if (s.type == at::kFloat) return;
    print("pieces bf16", compute(s, s.type, tokens, &world, context));
    print("whole bf16", compute(s, s.type, tokens, nullptr, nullptr));
}

template <class Work>
void with_memory_for(const std::string& what, int64_t time, const Communicator& world, Work work) {
    if (world.size() > 1) return work();  // the others would wait for one that gives up
    try {
        work();
    } catch (const c10::OutOfMemoryError&) {
        std::cout << what << ",1,," << time << ",does not fit" << std::endl;
    }
}

std::vector<std::string> parts_of(const std::string& list) {
    std::vector<std::string> parts;
    std::istringstream in(list);
    for (std::string part; std::getline(in, part, ',');) parts.push_back(part);
    return parts;
}

void run(int argc, char** argv, const Communicator& world) {
    const auto argument = [&](int i, const char* fallback) { return std::string(argc > i ? argv[i] : fallback); };
    const ModelConfig config = benchmarks::config_of(argument(6, "smollm2-135m"), std::stoll(argument(5, "8")));
    const std::string kept = argument(9, "");
    Settings s{{},
               std::stoll(argument(3, "5")),
               std::stoi(argument(2, "1")),
               argument(4, "fp32") == "bf16" ? at::kBFloat16 : at::kFloat,
               config,
               benchmarks::device_named(argument(7, "cpu"), world),
               kept.empty() ? benchmarks::hybrid(config.layers) : benchmarks::layout_of(kept, config.layers),
               value_named<Activations>("activations", argument(10, "keep"))};
    for (const std::string& time : parts_of(argument(1, "4096"))) s.times.push_back(std::stoll(time));
    keep_freed_memory();
    at::set_num_threads(s.threads);
    set_product_precision(s.type);
    const auto context = world.size() > 1 ? make_context_group(world, s.device) : nullptr;

    const std::vector<std::string> works = parts_of(argument(8, "mixers,distill"));
    for (const std::string& work : works)
        if (work == "check") check(s, world, context.get());
    if (world.is_root())
        std::cout << "what,ranks,threads_per_rank,tokens,type,milliseconds,tokens_per_second"
                  << (s.device.is_cpu() ? "" : ",gigabytes_kept_by_rank,gigabytes_most_by_rank,gigabytes_expected")
                  << std::endl;
    for (const int64_t time : s.times)
        for (const std::string& work : works) {
            if (work == "check") continue;
            with_memory_for(work, time, world, [&] {
                if (work == "mixers")
                    time_mixers(s, time, world, context.get());
                else if (work == "shares")
                    share_attention(s, time, world, context.get());
                else
                    time_steps(s, work, work == "linear" ? benchmarks::layout_of("linear", s.config.layers) : s.layout,
                               time, world, context.get());
            });
        }
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
