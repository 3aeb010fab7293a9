// SPDX-License-Identifier: Apache-2.0
// Gates between the teacher's layers and linear ones: the gated model against the models that it lies between, its
// gradients against differences in fp64, and their training.
#include <algorithm>
#include <functional>

#include "../model/small_model.h"
#include "../questions/recall_contents.h"
#include "../storage/temporary_folder.h"
#include "../training/small_corpus.h"
#include "selection/assembled_model.h"
#include "selection/gate_training.h"
#include "selection/gated_pass.h"

namespace amalgam {
namespace {

constexpr int64_t layers = 4;
const ModelConfig config = test::small_config("qwen3", layers);

std::unique_ptr<CausalLM> with_layout(const Layout& layout, at::ScalarType type = at::kFloat) {
    return test::small_model(ModelSpec{config, layout, {}}, 3, /*trainable=*/false, type);
}

/// Both models of one type.
struct BothEnds {
    explicit BothEnds(at::ScalarType type) {
        teacher = with_layout(all_softmax(layers), type);
        aligned = with_layout(all_linear(layers, test::linear_mixer), type);
    }
    GatedPass pass(const std::vector<double>& gates, const at::Tensor& tokens,
                   Activations activations = Activations::keep) const {
        return {*teacher, *aligned, gates, tokens, activations};
    }
    std::unique_ptr<CausalLM> teacher, aligned;
};

TEST(GatedPass, of_open_and_closed_gates_is_the_assembled_model) {
    const BothEnds both(at::kFloat);
    const at::Tensor tokens = test::random_tokens(2, 30, 61, 1);
    AssembledModel model(*both.teacher, *both.aligned, 0);
    for (const std::vector<int64_t>& kept : std::vector<std::vector<int64_t>>{{}, {2}, {0, 3}, {0, 1, 2, 3}}) {
        std::vector<double> gates(size_t(layers), 0.0);
        for (const int64_t layer : kept) gates[size_t(layer)] = 1.0;
        const at::Tensor expected = model.hidden(tokens, keep_softmax(layers, test::linear_mixer, kept), 0);
        EXPECT_TRUE(at::equal(both.pass(gates, tokens).hidden(), expected.flatten(0, 1))) << kept.size();
    }
}

/// d loss / d gate by central differences.
void expect_gradients(const std::vector<double>& found, const std::vector<double>& gates,
                      const std::function<double(const std::vector<double>&)>& loss) {
    for (size_t layer = 0; layer < gates.size(); ++layer) {
        constexpr double step = 1e-4;
        auto more = gates, less = gates;
        more[layer] += step;
        less[layer] -= step;
        const double expected = (loss(more) - loss(less)) / (2 * step);
        EXPECT_NEAR(found[layer], expected, 1e-5 * std::abs(expected) + 1e-6) << "layer " << layer;
    }
}

/// What all blocks made of the tokens at `places`: [layers, places, width].
at::Tensor block_outputs(const GatedPass& pass, const at::Tensor& places) {
    std::vector<at::Tensor> all;
    for (int64_t layer = 0; layer < layers; ++layer) all.push_back(pass.block_output(layer).index_select(0, places));
    return at::stack(all);
}

/// Of losses that are linear in the states: in those before the head, and in those after every block.
TEST(GatedPass, has_the_gradients_of_its_gates) {
    const BothEnds both(at::kDouble);
    const at::Tensor tokens = test::random_tokens(2, 20, 61, 2);
    const std::vector<double> gates = {1.0, 0.3, 0.0, 0.8};
    const at::Tensor weights = test::normal_numbers({40, config.hidden_size}, 5).to(at::kDouble);
    expect_gradients(both.pass(gates, tokens).backward(weights), gates, [&](const std::vector<double>& changed) {
        return (both.pass(changed, tokens).hidden() * weights).sum().item<double>();
    });
    const at::Tensor places = at::tensor({5, 19, 20, 38}, at::kLong),
                     of_blocks = test::normal_numbers({layers, 4, config.hidden_size}, 6).to(at::kDouble);
    expect_gradients(both.pass(gates, tokens).backward(places, of_blocks), gates,
                     [&](const std::vector<double>& changed) {
                         return (block_outputs(both.pass(changed, tokens), places) * of_blocks).sum().item<double>();
                     });
}

TEST(GatedPass, has_what_the_blocks_of_the_teacher_make_where_gates_are_open) {
    const BothEnds both(at::kFloat);
    const at::Tensor tokens = test::random_tokens(2, 30, 61, 1), places = at::tensor({0, 31, 59}, at::kLong);
    const at::Tensor expected = both.teacher->block_outputs(tokens, places);
    for (const Activations activations : {Activations::keep, Activations::recompute})
        EXPECT_TRUE(at::equal(block_outputs(both.pass({1.0, 1.0, 1.0, 1.0}, tokens, activations), places), expected));
    EXPECT_FALSE(at::equal(block_outputs(both.pass({1.0, 0.5, 1.0, 1.0}, tokens), places), expected));
}

TEST(GatedPass, may_compute_activations_again) {
    const BothEnds both(at::kFloat);
    const at::Tensor tokens = test::random_tokens(2, 20, 61, 3);
    const at::Tensor weights = test::normal_numbers({40, config.hidden_size}, 5);
    const std::vector<double> gates = {0.5, 1.0, 0.0, 0.25};
    GatedPass kept = both.pass(gates, tokens), again = both.pass(gates, tokens, Activations::recompute);
    EXPECT_TRUE(at::equal(kept.hidden(), again.hidden()));
    EXPECT_EQ(kept.backward(weights), again.backward(weights));
    const at::Tensor places = at::tensor({5, 19, 20, 38}, at::kLong),
                     of_blocks = test::normal_numbers({layers, 4, config.hidden_size}, 6);
    EXPECT_EQ(both.pass(gates, tokens).backward(places, of_blocks),
              both.pass(gates, tokens, Activations::recompute).backward(places, of_blocks));
}

class Gates : public test::TemporaryFolder {
  protected:
    Gates() {
        test::write_tokens(folder / "text.h5", test::sentences(4000), 61);
        text = std::make_unique<TokenFile>(folder / "text.h5");
        job.sequence_length = 32;
        job.batch_sequences = 4;
        job.recall = {.questions = 1, .kinds = {"text", "noise"}, .lengths = {48, 64}, .depths = {0, 50}, .seed = 1};
        job.gates.steps = 8;
        job.gates.learning_rate = 0.25;
    }

    /// Without layer 2: its output projections are zero in both models, so that nothing depends on its gate.
    static void silence_layer_2(CausalLM& model) {
        for (Parameter& parameter : model.parameters().all())
            if (parameter.layer == 2 && parameter.name.find("o_proj") != std::string::npos) parameter.compute.zero_();
    }

    std::optional<GateCourse> train(const Communicator& ranks, const std::string& file, StopRequest& stop) {
        const GateBatches batches(*text, job, test::small_wording(), 11);
        return train_gates({.job = job,
                            .world = ranks,
                            .teacher = *both.teacher,
                            .aligned = *both.aligned,
                            .batches = batches,
                            .activations = Activations::keep,
                            .file = folder / file,
                            .save_every_steps = 3,
                            .provenance = Provenance{},
                            .stop = stop});
    }

    GateCourse trained(const Communicator& ranks, const std::string& file) {
        StopRequest never(folder, 0.0);
        return train(ranks, file, never).value();
    }

    void compare_states(GateObjective objective = GateObjective::hidden_states) {
        job.gates.objective = objective;
        job.gates.penalty_schedule = PenaltySchedule::fixed;
        job.gates.penalty = 0.1;
    }

    /// The error of the states with these gates on the batch of a step, as it is written down: in fp64.
    double state_error(int64_t step, const std::vector<double>& gates) const {
        static const BothEnds exact(at::kDouble);
        double sum = 0.0, values = 0.0;
        for (const GateBatch& batch : GateBatches(*text, job, test::small_wording(), 11).of_step(step)) {
            const auto states = [&](const std::vector<double>& of) {
                return block_outputs(exact.pass(of, batch.tokens), batch.places);
            };
            const at::Tensor of_teacher = states(std::vector<double>(size_t(layers), 1.0));
            at::Tensor errors = (states(gates) - of_teacher).square().sum(-1);
            if (job.gates.objective == GateObjective::relative_hidden_states)
                errors = errors / of_teacher.square().sum(-1);
            sum += errors.sum().item<double>();
            values += double(layers * batch.places.numel());
        }
        return sum / values;
    }

    const Communicator world = Communicator::duplicate(MPI_COMM_WORLD);
    const BothEnds both{at::kFloat};
    std::unique_ptr<TokenFile> text;
    ScoreJob job;
};

TEST_F(Gates, see_text_and_questions_that_depend_on_the_step_alone) {
    const GateBatches batches(*text, job, test::small_wording(), 11);
    int64_t sequences = 0, answers = 0;
    for (const GateBatch& batch : batches.of_step(5)) {
        if (batch.is_text)
            sequences += batch.tokens.size(0);
        else
            answers += batch.places.numel();
        EXPECT_EQ(batch.is_text, batch.tokens.size(1) == 32);
    }
    EXPECT_EQ(sequences, 4);
    EXPECT_EQ(answers, 4 * 3) << "values of three tokens";
    const auto again = batches.of_step(5), other = batches.of_step(6);
    EXPECT_TRUE(at::equal(batches.of_step(5).back().tokens, again.back().tokens));
    EXPECT_FALSE(at::equal(again.front().tokens, other.front().tokens));
    job.recall.questions = 0;
    for (const GateBatch& batch : GateBatches(*text, job, {}, 11).of_step(0)) EXPECT_TRUE(batch.is_text);
}

/// Where states at answers are compared, text does not count, and need not be long enough for a sequence.
TEST_F(Gates, see_no_text_that_does_not_count) {
    compare_states();
    job.sequence_length = 5000;
    const auto batches = GateBatches(*text, job, test::small_wording(), 11).of_step(5);
    EXPECT_FALSE(batches.empty());
    for (const GateBatch& batch : batches) EXPECT_FALSE(batch.is_text);
}

TEST_F(Gates, may_be_trained_on_states_with_a_fixed_penalty) {
    for (const GateObjective objective : {GateObjective::hidden_states, GateObjective::relative_hidden_states}) {
        compare_states(objective);
        const std::string name(name_of(objective));
        job.far_context = {.weight = 2.0, .window = 4, .gain = 0.01};  // counts for candidates, not here
        const GateCourse course = trained(world, name);
        EXPECT_EQ(course.penalty, 0.1);
        EXPECT_TRUE(course.kl.empty() && course.recall_kl.empty() && course.far_kl.empty());
        ASSERT_EQ(course.state_error.size(), 8U);
        EXPECT_EQ(course.state_error[0], 0.0) << "the teacher";
        for (int64_t step = 1; step < 8; ++step) {
            const double expected = state_error(step, course.gates[size_t(step)]);
            EXPECT_NEAR(course.state_error[size_t(step)], expected, 1e-4 * expected + 1e-9) << step;
        }
        for (const double gate : course.gates[1]) EXPECT_NEAR(gate, 0.75, 1e-6) << "nothing but the penalty at first";
        world.on_root([&] { EXPECT_EQ(read_gate_state(folder / name).course.state_error, course.state_error); });
    }
}

/// Adam's first moments say what the gradients of each step were.
TEST_F(Gates, follow_the_gradient_of_the_states_error) {
    for (const GateObjective objective : {GateObjective::hidden_states, GateObjective::relative_hidden_states}) {
        compare_states(objective);
        const std::string name(name_of(objective));
        job.gates.steps = 2;
        trained(Communicator(), name);
        const GateState state = read_gate_state(folder / name);
        const double beta = job.optimizer.beta1, of_first = (1.0 - beta) * 0.1;  // of the penalty alone
        std::vector<double> gradients;
        for (const double moment : state.first_moment)
            gradients.push_back((moment - beta * of_first) / (1.0 - beta) - 0.1);
        constexpr double step = 1e-4;
        for (size_t layer = 0; layer < gradients.size(); ++layer) {
            auto more = state.course.gates[1], less = more;
            more[layer] += step;
            less[layer] -= step;
            const double expected = (state_error(1, more) - state_error(1, less)) / (2 * step);
            EXPECT_NEAR(gradients[layer], expected, 1e-3 * std::abs(expected) + 1e-6) << layer;
        }
    }
}

/// One schedule for both losses: the unit of the penalty is the only difference.
TEST_F(Gates, take_either_schedule_with_either_objective) {
    job.gates.penalty = 0.3;
    job.gates.penalty_schedule = PenaltySchedule::fixed;
    EXPECT_EQ(trained(world, "kl.h5").penalty, 0.3);
    compare_states();
    job.gates.penalty_schedule = PenaltySchedule::rising;
    const double closed = state_error(0, std::vector<double>(size_t(layers), 0.0));
    EXPECT_NEAR(trained(world, "states.h5").penalty, 0.1 * closed / double(layers), 1e-4 * closed);
}

TEST_F(Gates, close_first_where_nothing_depends_on_them) {
    silence_layer_2(*both.teacher);
    silence_layer_2(*both.aligned);
    const GateCourse course = trained(world, "gates.h5");
    ASSERT_EQ(course.gates.size(), 9U);
    EXPECT_EQ(course.gates[0], std::vector<double>(4, 1.0));
    EXPECT_NEAR(course.kl[0], 0.0, 1e-6) << "the teacher";
    EXPECT_GT(*std::max_element(course.kl.begin(), course.kl.end()), 0.0);
    EXPECT_EQ(course.latest()[2], 0.0);
    EXPECT_EQ(course.order().back(), 2);
    EXPECT_GT(course.penalty, 0.0);
    for (const auto& row : course.gates)
        for (const double gate : row) EXPECT_TRUE(gate >= 0.0 && gate <= 1.0);
}

TEST_F(Gates, are_the_same_on_any_number_of_ranks) {
    for (const std::string objective : {"kl", "hidden_states"}) {
        if (objective == "hidden_states") compare_states();
        const GateCourse together = trained(world, objective + "-together.h5"),
                         alone = trained(Communicator(), objective + "-" + std::to_string(world.rank()) + ".h5");
        EXPECT_EQ(together.gates, alone.gates);
        EXPECT_EQ(together.kl, alone.kl);
        EXPECT_EQ(together.recall_kl, alone.recall_kl);
        EXPECT_EQ(together.state_error, alone.state_error);
        EXPECT_EQ(together.tokens, alone.tokens);
    }
}

TEST_F(Gates, weigh_far_context) {
    const GateCourse without = trained(world, "without.h5");
    EXPECT_TRUE(without.far_kl.empty());
    job.far_context = {.weight = 2.0, .window = 4, .gain = 0.01};
    const GateCourse together = trained(world, "together.h5"),
                     alone = trained(Communicator(), "alone-" + std::to_string(world.rank()) + ".h5");
    ASSERT_EQ(together.far_kl.size(), 8U);
    EXPECT_NEAR(together.far_kl[0], 0.0, 1e-6) << "the teacher";
    EXPECT_GT(together.far_kl[7], 0.0);
    EXPECT_NE(together.far_kl[7], together.kl[7]);
    EXPECT_GT(together.penalty, without.penalty) << "of what is lost by closing all gates";
    EXPECT_NE(together.gates, without.gates);
    EXPECT_EQ(together.gates, alone.gates);
    EXPECT_EQ(together.far_kl, alone.far_kl);
    EXPECT_EQ(read_gate_state(folder / ("alone-" + std::to_string(world.rank()) + ".h5")).course.far_kl, alone.far_kl);
}

TEST_F(Gates, go_on_from_where_they_were_stopped) {
    for (const std::string objective : {"kl", "hidden_states"}) {
        if (objective == "hidden_states") compare_states();
        const std::string file = objective + "-parts.h5";
        const GateCourse whole = trained(world, objective + "-whole.h5");
        StopRequest at_once(folder, 1e-9);
        EXPECT_FALSE(train(world, file, at_once).has_value());
        world.on_root([&] { EXPECT_EQ(read_gate_state(folder / file).course.steps(), 1); });
        const GateCourse rest = trained(world, file);
        EXPECT_EQ(rest.gates, whole.gates);
        EXPECT_EQ(rest.recall_kl, whole.recall_kl);
        EXPECT_EQ(rest.state_error, whole.state_error);
        EXPECT_EQ(rest.tokens, whole.tokens);
        world.on_root([&] { EXPECT_EQ(read_gate_state(folder / file).course.gates, whole.gates); });
    }
}

TEST_F(Gates, begin_again_if_their_state_is_damaged) {
    const GateCourse whole = trained(world, "gates.h5");
    world.on_root([&] { test::put(folder / "gates.h5", "damaged"); });
    EXPECT_EQ(trained(world, "gates.h5").gates, whole.gates);
}

TEST(GateCourse, orders_layers_by_gates_and_closed_ones_by_how_long_they_were_open) {
    GateCourse course;
    course.gates = {{1.0, 1.0, 1.0, 1.0}, {0.5, 0.2, 0.9, 0.2}, {0.0, 0.0, 0.7, 0.0}};
    EXPECT_EQ(course.order(), (std::vector<int64_t>{2, 0, 1, 3}));
}

}  // namespace
}  // namespace amalgam
