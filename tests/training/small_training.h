// SPDX-License-Identifier: Apache-2.0
// A training run of a few steps for tests of the trainer: a small teacher, a hybrid student, distillation.
#pragma once

#include <ATen/Parallel.h>

#include "../model/small_model.h"
#include "../storage/temporary_folder.h"
#include "comm/communicator.h"
#include "objectives/distillation.h"
#include "small_corpus.h"
#include "training/trainer.h"

namespace amalgam::test {

/// The same on every rank; files lie in a folder that all ranks share.
class TrainingTest : public TemporaryFolder {
  protected:
    static constexpr int64_t steps = 6, batch = 6, length = 16, vocabulary = 61;

    void SetUp() override {
        at::set_num_threads(1);
        shared = world.broadcast(folder.string());
        if (world.is_root()) write_tokens(shared / "tokens.h5", simple_text(40 * length, vocabulary, 1), vocabulary);
        world.barrier();
        file = std::make_unique<TokenFile>(shared / "tokens.h5");
        plan.tokens = steps * batch * length;
        plan.sequence_length = length;
        plan.batch_sequences = batch;
        plan.optimizer.warmup_steps = 2;
        plan.optimizer.learning_rate = plan.optimizer.learning_rate_rest = 1e-2;
        plan.optimizer.weight_decay = 0.01;
        plan.loss_chunk_tokens = 20;
        batches = std::make_unique<Batches>(*file, plan, 5, "distill");
    }
    void TearDown() override { world.barrier(); }  // nobody reads the folder any more

    std::unique_ptr<CausalLM> new_student(uint64_t seed = 2) const {
        return small_model({config, keep_softmax(config.layers, linear_mixer, {1}), {}}, seed, true);
    }

    TrainerSetup setup(bool deterministic) const {
        TrainerSetup s;
        s.stage = "distill";
        s.deterministic = deterministic;
        s.announce = false;
        return s;
    }

    TrainerOutcome run(CausalLM& student, const Communicator& group, const TrainerSetup& with) {
        TeacherStates states(*teacher, 0);
        Distillation objective(student, states, plan);
        return train(student, objective, plan, *batches, group, with);
    }

    const Communicator world = Communicator::duplicate(MPI_COMM_WORLD);
    const ModelConfig config = small_config("llama");
    std::unique_ptr<CausalLM> teacher = small_model({config, all_softmax(config.layers), {}}, 1);
    std::filesystem::path shared;
    std::unique_ptr<TokenFile> file;
    std::unique_ptr<Batches> batches;
    DistillJob plan;
};

/// Masters of all parameters, by name.
inline std::map<std::string, at::Tensor> weights_of(CausalLM& model) {
    std::map<std::string, at::Tensor> weights;
    model.parameters().for_each_named(
        [&](const std::string& name, at::Tensor t, Parameter&) { weights[name] = t.clone(); });
    return weights;
}

/// Name of the first tensor that is not the same bit for bit; empty if there is none.
inline std::string first_difference(const std::map<std::string, at::Tensor>& a,
                                    const std::map<std::string, at::Tensor>& b) {
    for (const auto& [name, tensor] : a)
        if (!at::equal(tensor, b.at(name))) return name;
    return a.size() == b.size() ? "" : "number of tensors";
}

}  // namespace amalgam::test
