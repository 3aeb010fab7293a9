// SPDX-License-Identifier: Apache-2.0
// Training of sharded models against one process that has everything.
#include <torch/csrc/autograd/autograd.h>

#include "../training/small_training.h"
#include "checkpoints/checkpoint.h"
#include "objectives/alignment.h"
#include "sharded_student.h"
#include "system/error.h"

namespace amalgam {
namespace {

class ShardedTraining : public test::TrainingTest {
  protected:
    struct Result {
        std::vector<double> losses;
        std::map<std::string, at::Tensor> weights;
    };

    std::unique_ptr<CausalLM> student_of(const std::string& family, at::ScalarType type) const {
        const ModelConfig c = test::small_config(family, 4);
        return test::small_model({c, keep_softmax(4, test::linear_mixer, {1}), {}}, 2, true, type);
    }

    std::unique_ptr<CausalLM> teacher_of(at::ScalarType type) const {
        return test::small_model({config, all_softmax(config.layers), {}}, 1, false, type);
    }

    /// One process, unsharded.
    Result alone(const std::string& family, at::ScalarType type, bool deterministic) {
        const auto student = student_of(family, type), whole_teacher = teacher_of(type);
        TeacherStates states(*whole_teacher, 0);
        Distillation objective(*student, states, plan);
        const auto outcome = train(*student, objective, plan, *batches, Communicator(), setup(deterministic));
        return {outcome.step_losses, test::weights_of(*student)};
    }

    Result sharded(const std::string& family, at::ScalarType type, bool deterministic, const ShardingOptions& options,
                   Activations activations = Activations::keep, bool sharded_teacher = true) {
        const auto original = student_of(family, type), whole_teacher = teacher_of(type);
        const test::ShardedCopy student(*original, true, world, options);
        std::unique_ptr<test::ShardedCopy> teacher_copy;
        if (sharded_teacher) teacher_copy = std::make_unique<test::ShardedCopy>(*whole_teacher, false, world, options);
        TeacherStates states(teacher_copy ? *teacher_copy->model : *whole_teacher, 0);
        Distillation objective(*student.model, states, plan, activations);
        TrainerSetup with = setup(deterministic);
        with.shards = student.shards.get();
        with.in_step = true;
        const auto outcome = train(*student.model, objective, plan, *batches, world, with);
        EXPECT_LE(student.shards->most_blocks_gathered(), 4);
        return {outcome.step_losses, whole_weights(student)};
    }

    /// Gathers the masters of all ranks.
    std::map<std::string, at::Tensor> whole_weights(const test::ShardedCopy& copy) const {
        std::map<std::string, at::Tensor> weights;
        const auto collectives = make_tensor_collectives(copy.shards->groups().shards, at::kCPU);
        for (const FlatParameters* flat : copy.shards->flats()) {
            const at::Tensor whole = at::empty({flat->elements()});
            collectives->all_gather_into(whole, flat->shard()).wait();
            for (const Parameter* p : flat->parameters())
                for_each_named_piece(
                    *p, [&](const std::string& name, const std::vector<int64_t>& shape, int64_t first) {
                        const int64_t elements = c10::multiply_integers(shape);
                        weights[name] = whole.narrow(0, flat->first_of(*p) + first, elements).view(shape).clone();
                    });
        }
        return weights;
    }

    static void expect_near(const Result& found, const Result& expected, double bound, const std::string& what) {
        ASSERT_EQ(found.losses.size(), expected.losses.size());
        for (size_t s = 0; s < found.losses.size(); ++s)
            EXPECT_NEAR(found.losses[s] / expected.losses[s], 1.0, bound) << what << ", step " << s;
    }
};

TEST_F(ShardedTraining, gives_the_same_bits_if_deterministic) {
    for (const auto& [family, type] : {std::pair{"llama", at::kFloat}, std::pair{"qwen3", at::kBFloat16}}) {
        const Result expected = alone(family, type, true);
        for (const auto strategy : test::strategies(world)) {
            const Result found = sharded(family, type, true, test::sharding(strategy));
            EXPECT_EQ(found.losses, expected.losses) << name_of(strategy);
            EXPECT_EQ(test::first_difference(found.weights, expected.weights), "") << name_of(strategy);
        }
    }
}

TEST_F(ShardedTraining, gives_the_same_up_to_rounding) {
    const Result expected = alone("qwen2", at::kFloat, false);
    for (const auto strategy : test::strategies(world))
        expect_near(sharded("qwen2", at::kFloat, false, test::sharding(strategy)), expected, 1e-4, name_of(strategy));
}

TEST_F(ShardedTraining, gradients_may_travel_in_bfloat16) {
    const Result expected = alone("llama", at::kFloat, false);
    ShardingOptions options = test::sharding(ShardingStrategy::full);
    options.reduce_in_bfloat16 = true;
    const Result found = sharded("llama", at::kFloat, false, options);
    expect_near(found, expected, 6e-2, "bf16");
    EXPECT_NE(test::first_difference(found.weights, expected.weights), "") << "nothing was rounded";
}

TEST_F(ShardedTraining, recomputing_and_gathering_late_change_no_bit) {
    ShardingOptions options = test::sharding(ShardingStrategy::full);
    const Result kept = sharded("llama", at::kFloat, true, options),
                 recomputed = sharded("llama", at::kFloat, true, options, Activations::recompute);
    EXPECT_EQ(recomputed.losses, kept.losses);
    EXPECT_EQ(test::first_difference(recomputed.weights, kept.weights), "");
    options.gather_ahead = false;
    const Result late = sharded("llama", at::kFloat, true, options, Activations::keep, false);
    EXPECT_EQ(late.losses, kept.losses);
    EXPECT_EQ(test::first_difference(late.weights, kept.weights), "");
}

/// 7 sequences on up to 4 ranks, several micro-batches for some, none for others in the last round.
TEST_F(ShardedTraining, uneven_micro_batches_change_no_bit) {
    plan.batch_sequences = 7;
    plan.micro_batch_sequences = 2;
    const Result expected = alone("llama", at::kFloat, true);
    for (const auto strategy : test::strategies(world)) {
        const Result found = sharded("llama", at::kFloat, true, test::sharding(strategy));
        EXPECT_EQ(found.losses, expected.losses) << name_of(strategy);
        EXPECT_EQ(test::first_difference(found.weights, expected.weights), "") << name_of(strategy);
    }
}

/// Two blocks are gathered at any time: the one that is computed and the next.
TEST_F(ShardedTraining, holds_two_blocks_at_most) {
    const auto original = student_of("llama", at::kFloat);
    const test::ShardedCopy student(*original, true, world, test::sharding(ShardingStrategy::full));
    TeacherStates states(*teacher, 0);
    Distillation objective(*student.model, states, plan);
    TrainerSetup with = setup(false);
    with.shards = student.shards.get();
    with.in_step = true;
    train(*student.model, objective, plan, *batches, world, with);
    EXPECT_EQ(student.shards->most_blocks_gathered(), 2);
    EXPECT_EQ(student.shards->blocks_gathered(), 0);
}

TEST_F(ShardedTraining, alignment_gives_the_same_bits_and_gathers_mixers_only) {
    const ModelSpec spec{config, all_linear(config.layers, test::linear_mixer), {}};
    const auto whole = test::small_model(spec, 2, true);
    Alignment expected(*whole, *teacher, AlignmentLoss::norm);
    const auto outcome = train(*whole, expected, plan, *batches, Communicator(), setup(true));
    for (const auto strategy : test::strategies(world)) {
        const auto original = test::small_model(spec, 2, true);
        const test::ShardedCopy student(*original, true, world, test::sharding(strategy),
                                        [&](const Parameter&p) { return Alignment::trains(spec, p); }),
            teacher_copy(*teacher, false, world, test::sharding(strategy));
        Alignment objective(*student.model, *teacher_copy.model, AlignmentLoss::norm);
        TrainerSetup with = setup(true);
        with.shards = student.shards.get();
        with.in_step = true;
        EXPECT_EQ(train(*student.model, objective, plan, *batches, world, with).step_losses, outcome.step_losses);
        EXPECT_EQ(test::first_difference(whole_weights(student), test::weights_of(*whole)), "");
    }
}

/// Stopped unsharded and gone on with sharded, and the other way round: the last checkpoint is that of an undisturbed
/// run, bit for bit.
TEST_F(ShardedTraining, checkpoints_do_not_depend_on_sharding) {
    const Result expected = alone("llama", at::kFloat, true);
    for (const auto strategy : test::strategies(world))
        for (const bool sharded_first : {true, false}) {
            const auto place = shared / text(name_of(strategy), sharded_first);
            if (world.is_root()) std::filesystem::create_directories(place);
            world.barrier();
            for (const bool first_part : {true, false}) {
                const auto original = student_of("llama", at::kFloat);
                const bool is_sharded = sharded_first == first_part;
                const test::ShardedCopy copy(*original, true, world, test::sharding(strategy));
                CausalLM& model = is_sharded ? *copy.model : *original;
                TeacherStates states(*teacher, 0);
                Distillation objective(model, states, plan);
                StopRequest stop(place, 0.0);
                TrainerSetup with = setup(true);
                with.checkpoints = StageCheckpoints(place, "distill", 2);
                with.shards = is_sharded ? copy.shards.get() : nullptr;
                with.in_step = is_sharded;
                with.stop = &stop;
                with.on_step = [&](int64_t done) {
                    if (first_part && done == 3 && world.is_root()) test::put(place / "stop", "");
                };
                EXPECT_EQ(train(model, objective, plan, *batches, world, with).finished, !first_part);
                world.barrier();
                if (world.is_root()) std::filesystem::remove(place / "stop");
                world.barrier();
            }
            const Checkpoint last(StageCheckpoints(place, "distill", 2).finished());
            for (const auto& [name, tensor] : expected.weights)
                EXPECT_TRUE(at::equal(*last.find(name), tensor)) << name << ", " << name_of(strategy);
            world.barrier();
        }
}

/// Poisons the gradient of one parameter on the last rank in one step.
class PoisonedOnce : public Objective {
  public:
    PoisonedOnce(Objective& inner, const Parameter& parameter, int64_t cursor)
        : inner_(inner), parameter_(parameter), cursor_(cursor) {}
    std::vector<Parameter*> trained() override { return inner_.trained(); }
    void accumulate(const TokenBatch& batch, int64_t cursor, double weight, GradientSink& gradients,
                    std::vector<double>& losses) override {
        if (cursor == cursor_) gradients.of(parameter_).flatten()[0] = NAN;
        inner_.accumulate(batch, cursor, weight, gradients, losses);
    }

  private:
    Objective& inner_;
    const Parameter& parameter_;
    int64_t cursor_;
};

TEST_F(ShardedTraining, a_gradient_that_is_not_finite_reaches_no_weight) {
    for (const bool deterministic : {false, true}) {
        const auto original = student_of("llama", at::kFloat);
        const test::ShardedCopy student(*original, true, world, test::sharding(ShardingStrategy::full));
        TeacherStates states(*teacher, 0);
        Distillation inner(*student.model, states, plan);
        const Parameter& poisoned = student.model->parameters().all()[5];
        PoisonedOnce objective(inner, poisoned, batch);  // the first sequence of step 1
        TrainerSetup with = setup(deterministic);
        with.shards = student.shards.get();
        with.in_step = true;
        std::vector<std::map<std::string, at::Tensor>> weights;
        with.on_step = [&](int64_t) { weights.push_back(whole_weights(student)); };
        train(*student.model, objective, plan, *batches, world, with);
        EXPECT_NE(test::first_difference(weights[0], weights[1]), "");
        EXPECT_EQ(test::first_difference(weights[1], weights[2]), "");
        EXPECT_NE(test::first_difference(weights[2], weights[3]), "");
    }
}

}  // namespace
}  // namespace amalgam
