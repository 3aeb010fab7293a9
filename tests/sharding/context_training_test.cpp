// SPDX-License-Identifier: Apache-2.0
// Training with a piece of each sequence on each rank, against one process that has whole sequences.
#include "../training/small_training.h"
#include "mixers/sequence_pieces.h"
#include "objectives/alignment.h"
#include "optimizer/gradients.h"
#include "sharded_student.h"
#include "sharding/context_ranks.h"
#include "synchronous_context.h"

namespace amalgam {
namespace {

class ContextTraining : public test::TrainingTest {
  protected:
    struct Result {
        std::vector<double> losses;
        std::map<std::string, at::Tensor> weights;
    };

    /// All linear mixers beside softmax.
    std::unique_ptr<CausalLM> mixed_student() const {
        const Layout mixers = {"gated_delta_net", softmax_mixer, "kimi_delta_attention", "gated_linear_attention"};
        Layout layout;
        for (int64_t layer = 0; layer < layers; ++layer) layout.push_back(mixers[size_t(layer) % mixers.size()]);
        return test::small_model({test::small_config("llama", layers), layout, {}}, 2, true);
    }
    std::unique_ptr<CausalLM> mixed_teacher() const {
        return test::small_model({test::small_config("llama", layers), all_softmax(layers), {}}, 1);
    }

    using MakeObjective = std::function<std::unique_ptr<Objective>(CausalLM& student, ContextGroup* context)>;

    struct Sums {
        std::vector<double> losses;
        at::Tensor gradients;
    };
    /// Of a micro-batch, summed over the ranks of the context group, if there is one.
    Sums accumulate(const MakeObjective& make, ContextGroup* group) {
        const auto student = mixed_student();
        const auto objective = make(*student, group);
        Gradients gradients(objective->trained(), test::device(), false);
        Sums sums;
        sums.losses.assign(size_t(objective->losses()), 0.0);
        const TokenBatch batch(test::random_tokens(2, 150, vocabulary, 3), borders);
        objective->accumulate(batch, 0, 0.7, gradients, sums.losses);
        if (group) {
            const auto collectives = make_tensor_collectives(world, test::device());
            gradients.reduce(*collectives);
            world.sum_in_place(sums.losses);
        }
        sums.gradients = gradients.flat().clone();
        return sums;
    }

    void expect_gradients_of_whole_sequences(const MakeObjective& make) {
        const Sums expected = accumulate(make, nullptr), found = accumulate(make, context.get());
        EXPECT_LT(test::relative_error(found.gradients, expected.gradients), 1e-5);
        for (size_t i = 0; i < expected.losses.size(); ++i)
            EXPECT_NEAR(found.losses[i], expected.losses[i], 1e-5 * std::abs(expected.losses[i])) << i;
    }

    /// The run of small_training.h on the ranks of `group`, `ranks` of which share each sequence.
    Result trained(const Communicator& group, int64_t ranks, bool deterministic,
                   const std::optional<ShardingOptions>& sharding = {}, Activations activations = Activations::keep) {
        const auto shared =
            ranks > 1 ? make_context_group(group.split(int(group.rank() / ranks)), test::device()) : nullptr;
        auto student = new_student();
        std::unique_ptr<test::ShardedCopy> student_copy, teacher_copy;
        if (sharding) {
            student_copy = std::make_unique<test::ShardedCopy>(*student, true, group, *sharding);
            teacher_copy = std::make_unique<test::ShardedCopy>(*teacher, false, group, *sharding);
        }
        CausalLM& model = sharding ? *student_copy->model : *student;
        TeacherStates states(sharding ? *teacher_copy->model : *teacher, 0);
        Distillation objective(model, states, plan, activations, shared.get());
        TrainerSetup with = setup(deterministic);
        with.context = shared.get();
        if (sharding) {
            with.shards = student_copy->shards.get();
            with.in_step = true;
        }
        const auto outcome = train(model, objective, plan, *batches, group, with);
        return {outcome.step_losses, sharding ? std::map<std::string, at::Tensor>{} : test::weights_of(model)};
    }

    static void expect_near(const Result& found, const Result& expected, const std::string& what) {
        ASSERT_EQ(found.losses.size(), expected.losses.size());
        for (size_t s = 0; s < found.losses.size(); ++s)
            EXPECT_NEAR(found.losses[s] / expected.losses[s], 1.0, 1e-4) << what << ", step " << s;
    }

    int64_t layers = 4;  // of the mixed models
    Borders borders;     // of documents that are kept apart in a micro-batch of these
    const std::unique_ptr<ContextGroup> context = make_context_group(world, test::device());
};

TEST_F(ContextTraining, gradients_of_the_divergence) {
    const auto mixed = mixed_teacher();
    TeacherStates states(*mixed, 0);
    plan.hidden_state_weight = 0.1;
    for (const Activations activations : {Activations::keep, Activations::recompute})
        expect_gradients_of_whole_sequences([&](CausalLM& student, ContextGroup* group) {
            return std::make_unique<Distillation>(student, states, plan, activations, group);
        });
}

TEST_F(ContextTraining, needs_no_message_to_be_sent_before_it_is_received) {
    if (!test::device().is_cpu()) GTEST_SKIP() << "the order of messages is that of the CPU's";
    layers = 13;
    const auto mixed = mixed_teacher();
    TeacherStates states(*mixed, 0);
    test::SynchronousContext synchronous(world);
    for (const Activations activations : {Activations::keep, Activations::recompute}) {
        const MakeObjective make = [&](CausalLM& student, ContextGroup* group) {
            return std::make_unique<Distillation>(student, states, plan, activations, group);
        };
        EXPECT_TRUE(at::equal(accumulate(make, &synchronous).gradients, accumulate(make, context.get()).gradients));
    }
}

TEST_F(ContextTraining, gradients_of_the_next_token_loss) {
    expect_gradients_of_whole_sequences([&](CausalLM& student, ContextGroup* group) {
        return std::make_unique<NextToken>(student, 20, Activations::keep, group);
    });
}

TEST_F(ContextTraining, gradients_of_the_alignment) {
    const auto mixed = mixed_teacher();
    for (const AlignmentLoss loss : {AlignmentLoss::norm, AlignmentLoss::relative})
        expect_gradients_of_whole_sequences([&](CausalLM& student, ContextGroup* group) {
            return std::make_unique<Alignment>(student, *mixed, loss, group);
        });
}

/// Documents of a token before a border of pieces, and over several of these, for any number of ranks.
TEST_F(ContextTraining, gradients_of_documents_that_are_kept_apart) {
    borders = {{1, 50, 63, 64, 128, 149}, {75}};
    const auto mixed = mixed_teacher();
    TeacherStates states(*mixed, 0);
    expect_gradients_of_whole_sequences([&](CausalLM& student, ContextGroup* group) {
        return std::make_unique<Distillation>(student, states, plan, Activations::recompute, group);
    });
    expect_gradients_of_whole_sequences([&](CausalLM& student, ContextGroup* group) {
        return std::make_unique<NextToken>(student, 20, Activations::keep, group);
    });
    expect_gradients_of_whole_sequences([&](CausalLM& student, ContextGroup* group) {
        return std::make_unique<Alignment>(student, *mixed, AlignmentLoss::norm, group);
    });
}

/// Ranks that share a sequence, and groups of them that share the batch.
TEST_F(ContextTraining, gives_the_losses_of_whole_sequences) {
    const Result expected = trained(Communicator(), 1, false);
    for (int64_t ranks = 2; ranks <= world.size(); ++ranks)
        if (world.size() % ranks == 0) expect_near(trained(world, ranks, false), expected, std::to_string(ranks));
}

TEST_F(ContextTraining, goes_with_every_way_of_sharding) {
    const Result expected = trained(Communicator(), 1, false);
    for (const auto strategy : test::strategies(world))
        expect_near(trained(world, world.size(), false, test::sharding(strategy), Activations::recompute), expected,
                    name_of(strategy));
}

/// 7 sequences in micro-batches of 2 for two groups: one group goes on without tokens.
TEST_F(ContextTraining, goes_with_uneven_micro_batches) {
    if (world.size() != 4) GTEST_SKIP() << "two groups of two ranks";
    plan.batch_sequences = 7;
    plan.micro_batch_sequences = 3;
    const Result expected = trained(Communicator(), 1, false);
    expect_near(trained(world, 2, false), expected, "whole models");
    expect_near(trained(world, 2, false, test::sharding(ShardingStrategy::full)), expected, "full");
}

TEST_F(ContextTraining, repeats_bit_for_bit_however_many_groups_share_the_batch) {
    if (!test::device().is_cpu()) GTEST_SKIP() << "LibTorch's operations on GPUs repeat only where a job asks for it";
    const Result first = trained(world, world.size(), true),
                 again = trained(world, world.size(), true, {}, Activations::recompute);
    EXPECT_EQ(again.losses, first.losses);
    EXPECT_EQ(test::first_difference(again.weights, first.weights), "");
    if (world.size() != 4) return;
    const Result of_two_groups = trained(world, 2, true), of_one = trained(world.split(world.rank() / 2), 2, true);
    EXPECT_EQ(of_two_groups.losses, of_one.losses);
    EXPECT_EQ(test::first_difference(of_two_groups.weights, of_one.weights), "");
}

}  // namespace
}  // namespace amalgam
