// SPDX-License-Identifier: Apache-2.0
// Whole runs in which ranks share training sequences (sharding.context).
#include "small_run.h"

namespace amalgam {
namespace {

using test::differing_datasets;
using test::expect_end;
using Names = std::vector<std::string>;
namespace fs = std::filesystem;

class ContextPipeline : public test::SmallRun {
  protected:
    ContextPipeline() {
        test::set_steps(job.finetune, 3);
        job.score.tokens = 0;
        job.select.rule = "uniform";
    }

    /// Losses of all steps of the training stages, in their order; those of align are followed by its layers'.
    std::vector<double> losses(const fs::path& run) const {
        std::istringstream rows(test::content_of(run / "metrics.csv"));
        std::string line;
        std::getline(rows, line);
        const auto fields = [](const std::string& row) {
            std::vector<std::string> result(1);
            for (const char c : row)
                if (c == ',')
                    result.emplace_back();
                else
                    result.back() += c;
            return result;
        };
        const std::vector<std::string> names = fields(line);
        const size_t column = size_t(std::find(names.begin(), names.end(), "loss") - names.begin());
        std::vector<double> values;
        while (std::getline(rows, line)) values.push_back(std::stod(fields(line).at(column)));
        return values;
    }

    void expect_near_weights(const fs::path& a, const fs::path& b) const {
        const H5File expected = H5File::open(a), found = H5File::open(b);
        int64_t compared = 0;
        for (const DatasetInfo& dataset : expected.list("/")) {
            if (dataset.type != StoredType::float32) continue;
            const at::Tensor x = at::empty(dataset.shape), y = at::empty(dataset.shape);
            expected.read(dataset.path, dataset.type, x.data_ptr());
            found.read(dataset.path, dataset.type, y.data_ptr());
            EXPECT_LT(test::relative_error(y, x), 1e-3) << dataset.path;
            ++compared;
        }
        EXPECT_GT(compared, 20);
    }

    void expect_near(const std::vector<double>& found, const std::vector<double>& expected) const {
        ASSERT_EQ(found.size(), expected.size());
        for (size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i] / expected[i], 1.0, 2e-4) << "row " << i;
    }
};

TEST_F(ContextPipeline, trains_as_a_run_with_whole_sequences) {
    job.name = "whole";
    expect_end(run(1), 0, {"finished in"});
    const auto whole = run_folder();
    job.sharding.context = 2;
    job.name = "pieces";
    expect_end(run(2), 0, {"2 ranks share each sequence", "finished in"});
    const auto pieces = run_folder();
    ASSERT_EQ(losses(whole).size(), 6U * (1 + test::small_layers) + 6U + 3U);
    expect_near(losses(pieces), losses(whole));

    // The bits depend on how many ranks share a sequence, and on nothing else.
    job.sharding.strategy = ShardingSetting::full;
    job.sharding.activations = Activations::recompute;
    job.name = "two-groups";
    expect_end(run(4), 0, {"align: sharding full over 4 ranks", "finished in"});
    for (const char* file :
         {"checkpoints/align.h5", "checkpoints/distill.h5", "checkpoints/finetune.h5", "evaluation.h5"})
        EXPECT_EQ(differing_datasets(pieces / file, run_folder() / file), Names{}) << file;
}

TEST_F(ContextPipeline, goes_on_with_other_ranks) {
    job.evaluate.sequences = 0;
    job.checkpoint.every_steps = 2;
    job.name = "undisturbed";
    expect_end(run(1), 0, {});
    const auto undisturbed = run_folder();
    job.name = "stopped";
    job.sharding.context = 3;
    setenv("AMALGAM_FAULT", "distill.step:kill:step=3", 1);
    EXPECT_NE(run(3).status, 0);
    unsetenv("AMALGAM_FAULT");
    job.sharding.context = 2;
    job.sharding.strategy = ShardingSetting::optimizer;
    expect_end(run(4), 0, {"align: done before", "distill: goes on from step"});
    expect_near_weights(undisturbed / "checkpoints/finetune.h5", result("checkpoints/finetune.h5"));
}

TEST_F(ContextPipeline, ranks_that_cannot_share_are_refused) {
    job.sharding.context = 2;
    expect_end(run(3), 2, {"sharding.context is 2 but there are 3 ranks"});
    EXPECT_FALSE(fs::exists(run_folder()));
}

}  // namespace
}  // namespace amalgam
