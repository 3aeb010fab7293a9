// SPDX-License-Identifier: Apache-2.0
// P12: what is not finite becomes no result: it is neither ranked nor kept as a checkpoint, evaluated or exported. The
// run ends with exit code 5, says what to do, and keeps what was good.
#include <cmath>
#include <limits>

#include "faulty_run.h"
#include "selection/score_file.h"
#include "storage/checksum.h"
#include "storage/hdf5.h"

namespace amalgam {
namespace {

namespace fs = std::filesystem;
using test::expect_end;

class Diverged : public test::FaultyRun {
  protected:
    Diverged() {
        job.export_to.formats = {"qwen3_5"};
        test::set_steps(job.align, 2);
        test::set_steps(job.score, 2);
        job.score.measurements = 1;
    }
    void expect_no_student() const {
        for (const char* file : {"checkpoints/distill.h5", "evaluation.h5", "student"})
            EXPECT_FALSE(fs::exists(result(file))) << file;
        EXPECT_TRUE(fs::exists(result("selection.h5")));
    }
    /// Makes the first number of /kl NaN, with its checksum.
    static void spoil_kl(const fs::path& file) {
        H5File h5 = H5File::update(file);
        auto values = h5.read_doubles("/kl");
        std::fill(values.begin(), values.end(), std::numeric_limits<double>::quiet_NaN());
        h5.write_rows("/kl", 0, h5.describe("/kl").shape[0], values.data());
        h5.set_attribute("/kl", "crc32", int64_t{crc32_of(values.data(), int64_t(values.size() * sizeof(double)))});
    }
    void distill(int64_t steps, double rate) {
        test::set_steps(job.distill, steps);
        job.distill.optimizer.learning_rate = job.distill.optimizer.learning_rate_rest = rate;
    }
};

/// Rates at which losses become NaN, weights overflow, and only the model that the very last update leaves is bad.
TEST_F(Diverged, students_are_neither_kept_nor_evaluated_nor_exported) {
    struct Case {
        int64_t steps;
        double rate;
        const char* said;
    };
    for (const Case& one : {Case{8, 1e3, "distill"}, Case{8, 1e30, "distill"}, Case{1, 1e30, "distill"},
                            Case{1, 1e300, "computes a loss of"}}) {
        SCOPED_TRACE(text(one.steps, " steps at ", one.rate));
        if (job.reuse.empty() && fs::exists(run_folder())) job.reuse = run_folder().string();
        job.name = text("rate-", one.rate, "-", one.steps);
        distill(one.steps, one.rate);
        expect_end(run(2), int(ExitCode::diverged), {one.said, "learning rate", "another name"});
        expect_no_student();
        if (const auto latest = StageCheckpoints(result("checkpoints"), "distill", 1).latest())
            EXPECT_NO_THROW(Checkpoint(*latest).look_through(1 << 30)) << "what is kept on the way is finite";
    }
    // As the message says: another rate in a run of another name, which takes the earlier stages over.
    job.name = "again";
    distill(4, 1e-3);
    expect_end(run(2), 0, {"align: done before", "score: done before", "export: finished"});
}

TEST_F(Diverged, candidates_are_not_ranked_and_spare_the_others) {
    setenv("AMALGAM_FAULT", "score.gradient:nan", 1);
    expect_end(run(2), int(ExitCode::diverged),
               {"score: diverged: candidate 0, layer 0; candidate 1, layer 1", "cannot be ranked",
                "score.optimizer.learning_rate"});
    unsetenv("AMALGAM_FAULT");
    EXPECT_FALSE(fs::exists(result("candidates/candidate-000.h5")));
    EXPECT_FALSE(fs::exists(result("scores.h5")));
    expect_end(run(2), 0, {"score: 4 of 4 candidates to do", "export: finished"});

    // One of them has a KL that is not finite, as earlier versions of the program wrote it.
    for (const char* file : {"scores.h5", "selection.h5", "checkpoints/distill.h5", "evaluation.h5"})
        fs::remove(result(file));
    fs::remove_all(result("student"));
    const fs::path candidate = result("candidates/candidate-002.h5");
    const ScoreTable table = [&] {
        const int64_t layers = test::small_layers;
        const Candidate expected{keep_softmax(layers, job.student.mixer, {2}), {}};
        return ScoreTable{{read_candidate(candidate, expected)}, {}};
    }();
    CandidateResult bad = table.candidates[0];
    EXPECT_TRUE(bad.is_finite());
    bad.kl.back()[0] = NAN;
    EXPECT_FALSE(bad.is_finite());
    test::expect_error([&] { write_candidate(candidate, bad, Provenance{}); }, ExitCode::diverged,
                       {candidate.string()});
    spoil_kl(candidate);
    expect_end(run(1), 0,
               {candidate.string() + ": its KL is not finite; it is scored again", "1 of 4 candidates to do"});
    spoil_kl(result("scores.h5"));
    expect_end(run(1), int(ExitCode::diverged), {result("scores.h5").string(), "cannot be ranked"});
}

}  // namespace
}  // namespace amalgam
