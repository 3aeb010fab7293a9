// SPDX-License-Identifier: Apache-2.0
// Whole runs on documents that are kept apart (data.documents: separate).
#include "small_run.h"

namespace amalgam {
namespace {

using test::differing_datasets;
using test::expect_end;
using Names = std::vector<std::string>;
namespace fs = std::filesystem;

class DocumentsPipeline : public test::SmallRun {
  protected:
    DocumentsPipeline() {
        write("train.h5", 60 * test::small_length, 1, {});
        write("validation.h5", 12 * test::small_length, 2, {5, 20, 40});
        test::set_steps(job.finetune, 3);
        job.align.repeat_fraction = 0.2;
        job.checkpoint.background = BackgroundSaving::never;  // so that it is known which are there after a kill
        job.data.documents = DocumentBorders::separate;
    }
    void write(const std::string& name, int64_t tokens, uint64_t seed, const std::vector<int64_t>& answers) const {
        fs::remove(folder / name);
        test::write_tokens(folder / name, test::simple_text(tokens, test::small_vocabulary, seed),
                           test::small_vocabulary, answers, "none", test::document_borders(tokens, 9, seed));
    }
    void expect_same_results(const fs::path& a, const fs::path& b) const {
        for (const char* file : {"checkpoints/align.h5", "scores.h5", "checkpoints/distill.h5",
                                 "checkpoints/finetune.h5", "evaluation.h5"})
            EXPECT_EQ(differing_datasets(a / file, b / file, test::times_and_places), Names{}) << file;
    }
};

TEST_F(DocumentsPipeline, gives_the_same_bits_on_any_number_of_ranks_and_after_a_stop) {
    job.name = "undisturbed";
    expect_end(run(1), 0, {"finished in"});
    const fs::path undisturbed = run_folder();
    job.name = "stopped";
    job.checkpoint.every_steps = 2;
    setenv("AMALGAM_FAULT", "distill.step:kill:step=3", 1);
    EXPECT_NE(run(2).status, 0);
    unsetenv("AMALGAM_FAULT");
    job.sharding.strategy = ShardingSetting::full;
    job.sharding.activations = Activations::recompute;
    expect_end(run(2), 0, {"align: done before", "distill: goes on from step", "finished in"});
    expect_same_results(undisturbed, run_folder());
}

TEST_F(DocumentsPipeline, is_another_run_than_of_joined_documents) {
    job.score.tokens = 0;
    job.select.rule = "uniform";
    expect_end(run(1), 0, {"finished in"});
    const fs::path separate = run_folder();
    job.data.documents = DocumentBorders::joined;
    expect_end(run(1), 2, {"data.documents: was separate, now joined"});
    job.name = "joined";
    expect_end(run(1), 0, {"finished in"});
    for (const char* file : {"checkpoints/align.h5", "checkpoints/finetune.h5", "evaluation.h5"})
        EXPECT_NE(differing_datasets(separate / file, run_folder() / file), Names{}) << file;
    job.name = "reusing";
    job.reuse = separate.string();
    expect_end(run(1), 2, {"data.documents"});
}

TEST_F(DocumentsPipeline, packed_documents_are_another_run_again_and_go_on_after_a_stop) {
    job.score.tokens = 0;
    job.select.rule = "uniform";
    job.name = "not_packed";
    expect_end(run(1), 0, {"finished in"});
    const fs::path not_packed = run_folder();
    job.data.packing = DocumentPacking::best_fit;
    expect_end(run(1), 2, {"data.packing: was none, now best_fit"});
    job.name = "packed";
    expect_end(run(1), 0, {"align: documents packed by best fit", "distill: documents packed", "finished in"});
    const fs::path packed = run_folder();
    EXPECT_NE(differing_datasets(packed / "checkpoints/align.h5", not_packed / "checkpoints/align.h5"), Names{});
    job.name = "stopped";
    job.checkpoint.every_steps = 2;
    setenv("AMALGAM_FAULT", "distill.step:kill:step=3", 1);
    EXPECT_NE(run(2).status, 0);
    unsetenv("AMALGAM_FAULT");
    expect_end(run(2), 0, {"distill: goes on from step", "finished in"});
    for (const char* file : {"checkpoints/align.h5", "checkpoints/distill.h5", "checkpoints/finetune.h5"})
        EXPECT_EQ(differing_datasets(packed / file, run_folder() / file, test::times_and_places), Names{}) << file;
}

TEST_F(DocumentsPipeline, needs_documents) {
    test::write_tokens(folder / "one.h5", test::simple_text(60 * test::small_length, test::small_vocabulary, 1),
                       test::small_vocabulary);
    job.data.training = (folder / "one.h5").string();
    expect_end(run(2), 2, {"data.training is one document"});
    EXPECT_FALSE(fs::exists(run_folder()));
}

}  // namespace
}  // namespace amalgam
