// SPDX-License-Identifier: Apache-2.0
// What `amalgam check` says a stage needs, against the bytes of the tensors that a run of that stage allocates.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <iostream>

#include "../model/small_model.h"
#include "../storage/temporary_folder.h"
#include "counting_allocator.h"
#include "estimate/job_estimate.h"
#include "objectives/alignment.h"
#include "objectives/distillation.h"
#include "operations/products.h"
#include "small_corpus.h"
#include "training/trainer.h"

namespace amalgam {
namespace {

using test::CountingAllocator;

struct Measured {
    double fixed = 0;   // models, gradients, optimizer
    double needed = 0;  // on top of that within a step, at most
};

class MemoryModel : public test::TemporaryFolder {
  protected:
    static constexpr int64_t vocabulary = 4000, length = 256;

    MemoryModel() {
        at::set_num_threads(1);
        config_ = test::small_config("llama", 6);
        config_.hidden_size = 128;
        config_.query_heads = config_.key_value_heads = 2;
        config_.head_dim = 64;
        config_.intermediate_size = 384;
        config_.vocabulary_size = vocabulary;
        job_.device = DeviceChoice::cpu;
        job_.select.options["budget"] = "1";
        job_.score.tokens = 0;
        for (TrainingJob* stage : std::initializer_list<TrainingJob*>{&job_.align, &job_.distill}) {
            stage->sequence_length = length;
            stage->batch_sequences = 4;
            stage->micro_batch_sequences = 2;
            stage->tokens = 3 * 4 * length;
            stage->optimizer.warmup_steps = 0;
            stage->optimizer.learning_rate = stage->optimizer.learning_rate_rest = 1e-3;
        }
        job_.distill.loss_chunk_tokens = 128;
        test::write_tokens(folder / "tokens.h5", test::simple_text(20 * length, vocabulary, 1), vocabulary);
    }

    void set_precision(ComputePrecision precision) {
        job_.precision = precision;
        type_ = precision == ComputePrecision::bfloat16 ? at::kBFloat16 : at::kFloat;
    }

    Measured measure_distill() {
        return measure(keep_softmax(config_.layers, test::linear_mixer, {1}), job_.distill,
                       [&](CausalLM& student, CausalLM& teacher) {
                           states_ = std::make_unique<TeacherStates>(teacher, 0);
                           return std::make_unique<Distillation>(student, *states_, job_.distill);
                       });
    }
    Measured measure_align() {
        return measure(all_linear(config_.layers, test::linear_mixer), job_.align,
                       [&](CausalLM& student, CausalLM& teacher) {
                           return std::make_unique<Alignment>(student, teacher, AlignmentLoss::norm);
                       });
    }

    RankMemory expected(const std::string& stage) const {
        for (const StageEstimate& e : estimate_job(job_, config_, {.cpu = true, .fast_bfloat16 = false}).stages)
            if (e.name == stage) return e.sharding().memory;
        throw Error("no stage " + stage);
    }

    /// Fixed memory is exact but for norms and gates, which are fp32 in any case; a step's is a model of LibTorch. The
    /// blocks of operands that products.h widens are not in it: tens of megabytes at most, much for a model this small.
    void expect_near(const Measured& measured, const RankMemory& expected) const {
        const double step = expected.activations + expected.logits, fixed = expected.total() - step;
        EXPECT_NEAR(measured.fixed / fixed, 1.0, 0.02);
        const bool widened = job_.precision == ComputePrecision::bfloat16 && !cpu_multiplies_bfloat16();
        EXPECT_LT(measured.needed / step, widened ? 1.35 : 1.2);
        EXPECT_GT(measured.needed / step, 0.8);
        RecordProperty("fixed_bytes_measured", std::to_string(measured.fixed));
        RecordProperty("step_bytes_measured", std::to_string(measured.needed));
        std::cout << "fixed: measured " << measured.fixed << ", expected " << fixed << "; step: measured "
                  << measured.needed << ", expected " << step << " (activations " << expected.activations << ", logits "
                  << expected.logits << ")\n";
    }

    Job job_;

  private:
    template <class MakeObjective>
    Measured measure(const Layout& layout, const TrainingJob& plan, MakeObjective make) {
        CountingAllocator& allocator = CountingAllocator::install();
        const auto before = double(allocator.live());
        const auto teacher = test::small_model({config_, all_softmax(config_.layers), {}}, 1, false, type_);
        const auto student = test::small_model({config_, layout, {}}, 2, true, type_);
        const auto objective = make(*student, *teacher);
        const TokenFile file(folder / "tokens.h5");
        const Batches batches(file, plan, 5, "test");
        Measured measured;
        TrainerSetup setup;
        setup.stage = "test";
        setup.announce = false;
        setup.deterministic = job_.deterministic;
        // The first step makes what stays (rotary tables); the second is measured.
        setup.on_step = [&](int64_t done) {
            if (done == 1) {
                measured.fixed = double(allocator.live()) - before;
                allocator.mark();
            }
            if (done == 2) measured.needed = double(allocator.peak()) - before - measured.fixed;
        };
        train(*student, *objective, plan, batches, Communicator(), setup);
        return measured;
    }

    ModelConfig config_;
    at::ScalarType type_ = at::kFloat;
    std::unique_ptr<TeacherStates> states_;
};

TEST_F(MemoryModel, distillation_in_fp32) {
    set_precision(ComputePrecision::float32);
    expect_near(measure_distill(), expected("distill"));
}

TEST_F(MemoryModel, distillation_in_bf16) {
    set_precision(ComputePrecision::bfloat16);
    expect_near(measure_distill(), expected("distill"));
}

TEST_F(MemoryModel, deterministic_distillation) {
    set_precision(ComputePrecision::float32);
    job_.deterministic = true;
    const RankMemory memory = expected("distill");
    EXPECT_NEAR(measure_distill().fixed / (memory.total() - memory.activations - memory.logits), 1.0, 0.02);
}

TEST_F(MemoryModel, alignment_in_fp32) {
    set_precision(ComputePrecision::float32);
    expect_near(measure_align(), expected("align"));
}

TEST_F(MemoryModel, alignment_in_bf16) {
    set_precision(ComputePrecision::bfloat16);
    expect_near(measure_align(), expected("align"));
}

// If the model said something else, the test would notice: a model without its moments is far off.
TEST_F(MemoryModel, is_not_trivially_met) {
    set_precision(ComputePrecision::float32);
    RankMemory memory = expected("distill");
    memory.moments = 0;
    EXPECT_GT(measure_distill().fixed / (memory.total() - memory.activations - memory.logits), 1.1);
}

}  // namespace
}  // namespace amalgam
