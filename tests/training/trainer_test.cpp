// SPDX-License-Identifier: Apache-2.0
// The training loop on any number of ranks against one process, and what it does when numbers are not finite.
#include "training/trainer.h"

#include <map>
#include <set>

#include "small_training.h"

namespace amalgam {
namespace {

using Trainers = test::TrainingTest;

TEST_F(Trainers, reduces_the_loss) {
    const auto student = new_student();
    const auto outcome = run(*student, world, setup(false));
    ASSERT_TRUE(outcome.finished);
    EXPECT_EQ(outcome.steps, steps);
    EXPECT_EQ(outcome.tokens, steps * batch * length);
    ASSERT_EQ(outcome.step_losses.size(), size_t(steps));
    EXPECT_LT(outcome.step_losses.back(), 0.9 * outcome.step_losses.front());
}

TEST_F(Trainers, any_number_of_ranks_gives_the_same_up_to_rounding) {
    const auto alone = new_student(), together = new_student();
    const auto expected = run(*alone, Communicator(), setup(false)), found = run(*together, world, setup(false));
    for (int64_t s = 0; s < steps; ++s)
        EXPECT_NEAR(found.step_losses[size_t(s)] / expected.step_losses[size_t(s)], 1.0, 1e-4) << "step " << s;
}

TEST_F(Trainers, any_number_of_ranks_gives_the_same_bits_if_deterministic) {
    const auto alone = new_student(), together = new_student();
    const auto expected = run(*alone, Communicator(), setup(true)), found = run(*together, world, setup(true));
    EXPECT_EQ(found.step_losses, expected.step_losses);
    EXPECT_EQ(test::first_difference(test::weights_of(*together), test::weights_of(*alone)), "");
}

TEST_F(Trainers, replicas_stay_equal) {
    for (const bool deterministic : {false, true}) {
        const auto student = new_student();
        run(*student, world, setup(deterministic));
        for (const auto& [name, tensor] : test::weights_of(*student)) {
            const at::Tensor flat = tensor.flatten().contiguous();
            std::vector<float> of_root(flat.data_ptr<float>(), flat.data_ptr<float>() + flat.numel());
            world.broadcast(std::span<float>(of_root));
            EXPECT_TRUE(std::equal(of_root.begin(), of_root.end(), flat.data_ptr<float>())) << name;
        }
    }
}

TEST_F(Trainers, micro_batches_only_change_rounding) {
    const auto whole = new_student(), cut = new_student();
    const auto expected = run(*whole, Communicator(), setup(false));
    plan.micro_batch_sequences = 1;
    const auto found = run(*cut, world, setup(false));
    for (int64_t s = 0; s < steps; ++s)
        EXPECT_NEAR(found.step_losses[size_t(s)] / expected.step_losses[size_t(s)], 1.0, 1e-4) << "step " << s;
}

TEST_F(Trainers, utilisation_is_never_above_one) {
    TrainerSetup with = setup(false);
    with.candidate = 0;  // whose progress is kept in the outcome
    with.log_every_steps = 1;
    const double flops = 1e6;
    with.flops_per_token = [&](int64_t) { return flops; };
    with.peak_flops = 1e-3;  // measured at a bad moment
    bool above = false;
    for (const StepMetrics& m : run(*new_student(), Communicator(), with).logged) {
        ASSERT_TRUE(m.utilisation.has_value());
        EXPECT_GT(*m.utilisation, 0.0);
        EXPECT_LE(*m.utilisation, 1.0);
        above = above || m.tokens_per_second * flops / with.peak_flops > 1.0;
    }
    EXPECT_TRUE(above) << "this test shows nothing";
    with.peak_flops = 1e30;
    for (const StepMetrics& m : run(*new_student(), Communicator(), with).logged) EXPECT_LT(*m.utilisation, 1e-3);
}

TEST_F(Trainers, clipping_bounds_the_update) {
    plan.optimizer.gradient_clip = 1e-3;
    plan.optimizer.epsilon = 1.0;  // then AdamW's step is near the gradient itself
    plan.optimizer.weight_decay = 0.0;
    plan.tokens = batch * length;
    plan.optimizer.warmup_steps = 0;
    plan.optimizer.schedule = Schedule::constant;
    const auto student = new_student();
    const auto before = test::weights_of(*student);
    run(*student, world, setup(false));
    double squares = 0.0;
    for (const auto& [name, tensor] : test::weights_of(*student))
        squares += (tensor - before.at(name)).square().sum(at::kDouble).item<double>();
    EXPECT_NEAR(std::sqrt(squares), 1e-2 * 1e-3, 1e-2 * 1e-3 * 1e-2);
}

/// Hands on another objective's gradients, and spoils those of some steps on one rank.
class Poisoned : public Objective {
  public:
    enum class What { gradient, loss, large_gradient, spike };
    Poisoned(Objective& inner, What what, std::set<int64_t> steps, int64_t batch)
        : inner_(inner), what_(what), steps_(std::move(steps)), batch_(batch) {}
    std::vector<Parameter*> trained() override { return inner_.trained(); }
    void accumulate(const TokenBatch& batch, int64_t cursor, double weight, GradientSink& gradients,
                    std::vector<double>& losses) override {
        inner_.accumulate(batch, cursor, weight, gradients, losses);
        const bool last_of_batch = (cursor + batch.sequences()) % batch_ == 0;
        if (!last_of_batch || !steps_.contains(cursor / batch_)) return;
        if (what_ == What::loss)
            losses[0] = NAN;
        else if (what_ == What::spike)
            losses[0] += 100.0;
        else
            gradients.of(*trained()[3]).flatten()[0] = what_ == What::gradient ? NAN : 1e6;
    }

  private:
    Objective& inner_;
    What what_;
    std::set<int64_t> steps_;
    int64_t batch_;
};

class NotFinite : public test::TrainingTest {
  protected:
    /// Weights after every step; the error that ended the training, if one did.
    struct Run {
        std::vector<std::map<std::string, at::Tensor>> weights;
        std::string message;
        ExitCode code = ExitCode::success;
        int64_t steps = 0, skipped = 0;
    };
    double guard = 0.0;
    std::optional<StageCheckpoints> files;  // of every step, if there are any
    std::function<void(int64_t)> on_step = [](int64_t) {};
    Run poisoned(Poisoned::What what, const std::set<int64_t>& bad_steps, int64_t count, bool deterministic) {
        plan.tokens = count * batch * length;
        const auto student = new_student();
        TeacherStates states(*teacher, 0);
        Distillation inner(*student, states, plan);
        Poisoned objective(inner, what, bad_steps, batch);
        Run result;
        TrainerSetup with = setup(deterministic);
        with.spike_guard = guard;
        with.checkpoints = files;
        with.checkpoint.every_steps = 1;
        with.checkpoint.background = BackgroundSaving::never;
        with.on_step = [&](int64_t done) {
            result.weights.push_back(test::weights_of(*student));
            on_step(done);
        };
        try {
            const TrainerOutcome outcome = train(*student, objective, plan, *batches, world, with);
            result.steps = outcome.steps;
            result.skipped = outcome.skipped_updates;
        } catch (const Error& error) {
            result.message = error.what();
            result.code = error.code();
            result.weights.push_back(test::weights_of(*student));
        }
        return result;
    }
};

TEST_F(NotFinite, never_changes_a_weight) {
    for (const bool deterministic : {false, true})
        for (const auto what : {Poisoned::What::gradient, Poisoned::What::loss}) {
            const Run found = poisoned(what, {2, 4}, 6, deterministic);
            ASSERT_EQ(found.weights.size(), 7U);
            for (size_t step = 0; step < 6; ++step) {
                const bool same = test::first_difference(found.weights[step], found.weights[step + 1]).empty();
                EXPECT_EQ(same, step == 2 || step == 4) << "step " << step;
            }
            for (const auto& [name, tensor] : found.weights.back())
                EXPECT_TRUE(tensor.isfinite().all().item<bool>()) << name;
            EXPECT_EQ(found.code, ExitCode::success);
        }
}

/// The order-independent sums cannot hold it, so it counts as not finite.
TEST_F(NotFinite, a_gradient_out_of_range_is_not_taken_either) {
    const Run found = poisoned(Poisoned::What::large_gradient, {1}, 3, true);
    EXPECT_EQ(test::first_difference(found.weights[1], found.weights[2]), "");
    EXPECT_NE(test::first_difference(found.weights[2], found.weights[3]), "");
}

TEST_F(NotFinite, ten_in_a_row_end_the_training_on_every_rank) {
    std::set<int64_t> bad;
    for (int64_t step = 2; step < 12; ++step) bad.insert(step);
    for (const bool deterministic : {false, true}) {
        const Run found = poisoned(Poisoned::What::gradient, bad, 20, deterministic);
        EXPECT_EQ(found.code, ExitCode::diverged);
        const std::string rank = text("from rank ", world.size() - 1);  // it has the last micro-batch
        for (const std::string part : {"distill", "step 11", "10 steps in a row", "model.layers.0.", rank.c_str()})
            EXPECT_NE(found.message.find(part), std::string::npos) << part << " is missing in: " << found.message;
        EXPECT_EQ(test::first_difference(found.weights[2], found.weights.back()), "");
    }
}

TEST_F(NotFinite, a_good_step_starts_the_count_anew) {
    std::set<int64_t> bad;
    for (int64_t step = 1; step < 19; ++step)
        if (step != 10) bad.insert(step);
    const Run found = poisoned(Poisoned::What::gradient, bad, 36, false);
    EXPECT_EQ(found.code, ExitCode::success);
    EXPECT_EQ(found.steps, 36);
}

/// All steps were good, and what the last update left is not: only trying it out tells.
TEST_F(NotFinite, a_result_that_computes_no_finite_loss_is_not_kept) {
    for (const int64_t bad : {steps, steps + 1}) {  // the step that would come next, and the one after
        files = StageCheckpoints(shared / std::to_string(bad), "distill", 1);
        if (world.is_root()) std::filesystem::create_directories(shared / std::to_string(bad));
        world.barrier();
        const Run found = poisoned(Poisoned::What::loss, {bad}, steps, false);
        world.barrier();
        EXPECT_EQ(found.code, bad == steps ? ExitCode::diverged : ExitCode::success) << found.message;
        EXPECT_EQ(files->is_finished(), bad != steps);
        EXPECT_EQ(files->latest().has_value(), bad == steps) << "the last good one stays";
        world.barrier();
    }
}

/// One that no step has gone on from may be bad: those before it stay until it has proved good.
TEST_F(NotFinite, a_checkpoint_replaces_those_before_it_once_it_has_proved_good) {
    files = StageCheckpoints(shared, "distill", 1);
    std::map<int64_t, std::vector<int64_t>> there;  // steps of checkpoints, by steps done
    on_step = [&](int64_t done) {
        for (int64_t step = 1; step <= steps; ++step)
            if (std::filesystem::exists(files->at_step(step))) there[done].push_back(step);
        world.barrier();
    };
    EXPECT_EQ(poisoned(Poisoned::What::gradient, {3}, steps, false).code, ExitCode::success);
    EXPECT_EQ(there[3], (std::vector<int64_t>{1, 2}));
    EXPECT_EQ(there[4], (std::vector<int64_t>{2, 3})) << "the step from 3 was not finite";
    EXPECT_EQ(there[5], (std::vector<int64_t>{2, 3})) << "nothing is saved then";
    EXPECT_EQ(there[6], (std::vector<int64_t>{3, 5}));
}

TEST_F(NotFinite, spikes_are_skipped_if_asked) {
    for (const double spike_guard : {0.0, 6.0}) {
        guard = spike_guard;
        const Run found = poisoned(Poisoned::What::spike, {20}, 22, false);
        EXPECT_EQ(test::first_difference(found.weights[20], found.weights[21]).empty(), spike_guard > 0.0);
        EXPECT_EQ(found.skipped, spike_guard > 0.0 ? 1 : 0);
    }
}

TEST_F(Trainers, writes_metrics_on_the_root_only) {
    MetricsFile metrics(world.is_root() ? shared / "metrics.csv" : std::filesystem::path());
    TrainerSetup with = setup(false);
    with.announce = true;
    with.metrics = &metrics;
    with.log_every_steps = 4;
    const auto student = new_student();
    run(*student, world, with);
    world.barrier();
    const std::string rows = test::content_of(shared / "metrics.csv");
    EXPECT_EQ(std::count(rows.begin(), rows.end(), '\n'), 1 + 3) << rows;  // steps 1, 4 and 6
    EXPECT_NE(rows.find(",distill,,,6," + std::to_string(plan.tokens) + ","), std::string::npos) << rows;
}

}  // namespace
}  // namespace amalgam
