// SPDX-License-Identifier: Apache-2.0
#include "stages/learning_rate_walk.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "../storage/temporary_folder.h"
#include "stages/learning_rate_file.h"
#include "system/error.h"

namespace amalgam {
namespace {

using Losses = std::function<std::vector<double>(const RatePosition&)>;
constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr AutomaticRates mixers_alone{true, false}, rest_alone{false, true}, both{true, true};

std::vector<RateTrial> walk(const AutomaticRates& automatic, const Losses& losses) {
    std::vector<RateTrial> done;
    while (const auto next = next_trial(automatic, done)) {
        done.push_back({*next, losses(*next), 0.0});
        if (done.size() > 20) throw std::logic_error("the walk does not end");
    }
    return done;
}

/// Hills that are lowest at `mixers` and `rest`, seen through the noise of batches, which is the same for all rates.
Losses valley(double mixers, double rest) {
    return [=](const RatePosition& p) {
        const double height = std::pow(double(p[0]) - mixers, 2) + std::pow(double(p[1]) - rest, 2);
        return std::vector<double>{1.0 + height, 3.0 + 1.01 * height, 2.0 + 0.99 * height};
    };
}

TEST(LearningRateWalk, ends_in_the_valley_within_its_reach) {
    for (const int64_t mixers : {-2, -1, 0, 1, 2}) {
        const auto done = walk(mixers_alone, valley(double(mixers), 0));
        EXPECT_EQ(best_trial(mixers_alone, done), (RatePosition{mixers, 0}));
        EXPECT_LE(done.size(), 4u);
        for (const RateTrial& trial : done) EXPECT_EQ(trial.position[1], 0) << "the rest is given";
        // Both move together first, then the rest's by one.
        for (const int64_t further : {-1, 0, 1}) {
            const auto of_both = walk(both, valley(double(mixers), double(mixers + further)));
            EXPECT_LE(of_both.size(), 6u);
            const RatePosition best = best_trial(both, of_both);
            EXPECT_LE(std::abs(best[0] - mixers) + std::abs(best[1] - mixers - further), 1)
                << mixers << " " << further << ": " << best[0] << " " << best[1];
        }
    }
    EXPECT_EQ(best_trial(rest_alone, walk(rest_alone, valley(0, 1))), (RatePosition{0, 1}));
    EXPECT_EQ(best_trial(mixers_alone, walk(mixers_alone, valley(9, 0))), (RatePosition{2, 0})) << "no further";
}

TEST(LearningRateWalk, begins_with_the_rule_and_stays_there_without_evidence) {
    EXPECT_EQ(next_trial(both, {}), (RatePosition{0, 0}));
    const auto tie = walk(both, [](const RatePosition&) { return std::vector<double>{1.0, 2.0}; });
    EXPECT_EQ(best_trial(both, tie), (RatePosition{0, 0}));
    // A lower mean of which one batch alone is to blame.
    const auto noise = walk(both, [](const RatePosition& p) {
        return p == RatePosition{0, 0} ? std::vector<double>{1.0, 1.0, 1.0} : std::vector<double>{1.1, 1.1, 0.7};
    });
    EXPECT_EQ(best_trial(both, noise), (RatePosition{0, 0}));
    const auto evidence = walk(both, [](const RatePosition& p) {
        return p == RatePosition{0, 0} ? std::vector<double>{1.0, 1.0, 1.0} : std::vector<double>{0.9, 0.9, 0.7};
    });
    EXPECT_NE(best_trial(both, evidence), (RatePosition{0, 0}));
}

TEST(LearningRateWalk, trials_that_diverge_lose) {
    const auto above_minus_one = [](const RatePosition& p) {
        return p[0] > -1 ? std::vector<double>{0.1, nan} : std::vector<double>{5.0, 5.0 + double(p[0])};
    };
    const auto done = walk(mixers_alone, above_minus_one);
    EXPECT_FALSE(is_finite(done.front()));
    EXPECT_EQ(best_trial(mixers_alone, done)[0], -1);
    const auto up = walk(mixers_alone, [](const RatePosition& p) {
        return p[0] > 0 ? std::vector<double>{nan} : std::vector<double>{1.0 - double(p[0])};
    });
    EXPECT_EQ(best_trial(mixers_alone, up), (RatePosition{0, 0}));
    const auto all = walk(mixers_alone, [](const RatePosition&) { return std::vector<double>{INFINITY}; });
    EXPECT_EQ(best_trial(mixers_alone, all), (RatePosition{-2, 0})) << "the lowest that was tried";
}

TEST(LearningRateWalk, goes_on_from_any_trial_to_the_same_end) {
    for (const auto& automatic : {mixers_alone, both}) {
        const auto losses = valley(1, 2);
        const auto undisturbed = walk(automatic, losses);
        for (size_t begun = 0; begun < undisturbed.size(); ++begun) {
            std::vector<RateTrial> done(undisturbed.begin(), undisturbed.begin() + std::ptrdiff_t(begun));
            EXPECT_EQ(next_trial(automatic, done), undisturbed[begun].position);
        }
        EXPECT_EQ(next_trial(automatic, undisturbed), std::nullopt);
    }
}

TEST(LearningRateWalk, rates_by_factors_of_three) {
    EXPECT_EQ(rates_at({6e-3, 1e-4}, {0, 0}), (LearningRates{6e-3, 1e-4}));
    EXPECT_DOUBLE_EQ(rates_at({6e-3, 1e-4}, {1, -1}).mixers, 18e-3);
    EXPECT_DOUBLE_EQ(rates_at({6e-3, 1e-4}, {1, -1}).rest, 1e-4 / 3);
}

class LearningRateFile : public test::TemporaryFolder {
  protected:
    const std::filesystem::path path = folder / "align.h5";
};

TEST_F(LearningRateFile, reads_back_what_was_written) {
    LearningRateRecord record;
    record.stage = "align";
    record.rule = {6e-3, 1e-4};
    record.sequence_length = 128, record.trained_steps = 24, record.measured_steps = 2;
    record.trials = {{{0, 0}, {1.5, 2.5}, 3.0}, {{-1, -1}, {nan, 2.0}, 4.0}};
    write_learning_rates(path, record, Provenance{});
    const LearningRateRecord on_the_way = read_learning_rates(path);
    EXPECT_FALSE(on_the_way.chosen);
    EXPECT_EQ(on_the_way.stage, "align");
    EXPECT_EQ(on_the_way.rule, record.rule);
    EXPECT_EQ(on_the_way.trained_steps, 24);
    ASSERT_EQ(on_the_way.trials.size(), 2u);
    EXPECT_EQ(on_the_way.trials[0].losses, record.trials[0].losses);
    EXPECT_EQ(on_the_way.trials[1].position, (RatePosition{-1, -1}));
    EXPECT_FALSE(is_finite(on_the_way.trials[1]));
    record.chosen = LearningRates{2e-3, 3e-5};
    write_learning_rates(path, record, Provenance{});
    EXPECT_EQ(read_learning_rates(path).chosen, record.chosen);
    record.trials.clear();
    write_learning_rates(path, record, Provenance{});
    EXPECT_TRUE(read_learning_rates(path).trials.empty());
}

TEST_F(LearningRateFile, damage_is_found) {
    LearningRateRecord record;
    record.stage = "align";
    record.measured_steps = 2;
    record.trials = {{{0, 0}, {1.25, 2.5}, 3.0}};
    write_learning_rates(path, record, Provenance{});
    std::string content = test::content_of(path);
    const double loss = 1.25;
    const size_t place = content.find(std::string(reinterpret_cast<const char*>(&loss), sizeof loss));
    ASSERT_NE(place, std::string::npos);
    content[place] = char(content[place] ^ 0x10);
    test::put(path, content);
    try {
        read_learning_rates(path);
        ADD_FAILURE() << "a flipped bit passed";
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::damaged_file);
        EXPECT_NE(std::string(error.what()).find("/held_out_loss"), std::string::npos) << error.what();
    }
}

}  // namespace
}  // namespace amalgam
