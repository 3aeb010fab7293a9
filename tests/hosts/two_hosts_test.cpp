// SPDX-License-Identifier: Apache-2.0
// The program on two hosts, which two_hosts.sh makes of this machine; skipped where it may not.
#include <gtest/gtest.h>

#include "../scale/call_counts.h"
#include "../stages/small_run.h"

namespace amalgam {
namespace {

using test::Finished;
using test::Process;

class TwoHosts : public test::SmallRun {
  protected:
    TwoHosts() {
        for (TrainingJob* stage : std::initializer_list<TrainingJob*>{&job.align, &job.score, &job.distill}) {
            stage->batch_sequences = 8;  // four ranks share them
            stage->tokens = 4 * stage->batch_sequences * stage->sequence_length;
        }
    }

    void SetUp() override {
        const Finished up = hosts("up").wait(60.0);
        if (up.status == 77) GTEST_SKIP() << up.output;
        ASSERT_EQ(up.status, 0) << up.output;
    }
    void TearDown() override { hosts("down").wait(30.0); }

    /// two_hosts.sh COMMAND with the state in the test's folder.
    Process hosts(const std::string& command, const std::vector<std::string>& more = {}) const {
        std::vector<std::string> all = {AMALGAM_TWO_HOSTS, command, folder.string()};
        all.insert(all.end(), more.begin(), more.end());
        return Process(all);
    }

    /// `amalgam run`, two ranks on each host.
    std::vector<std::string> run_command(const std::vector<std::string>& mpirun_options = {}) const {
        std::vector<std::string> all = {AMALGAM_TWO_HOSTS, "mpirun", folder.string()};
        all.insert(all.end(), mpirun_options.begin(), mpirun_options.end());
        all.insert(all.end(), {AMALGAM_PROGRAM, "run", job_file().string()});
        return all;
    }
};

/// Bytes of all tensors, and of the header before them.
std::pair<int64_t, int64_t> sizes_of(const std::filesystem::path& safetensors) {
    const std::string content = test::content_of(safetensors);
    int64_t header = 0;
    std::copy_n(content.data(), sizeof header, reinterpret_cast<char*>(&header));
    header += int64_t(sizeof header);
    return {int64_t(content.size()) - header, header};
}

TEST_F(TwoHosts, each_reads_the_weights_once_for_a_model) {
    job.align.tokens = job.score.tokens = 0;
    job.select.rule = "all_linear";
    const auto counts = folder / "counts";
    std::filesystem::create_directories(counts);
    const Finished finished = Process(run_command({"-x", text("LD_PRELOAD=", AMALGAM_CALL_COUNTER), "-x",
                                                   text("AMALGAM_CALL_COUNTS=", counts.string())}))
                                  .wait(100.0);
    test::expect_end(finished, 0, {});
    const auto [tensors, header] = sizes_of(folder / "teacher" / "model.safetensors");
    const auto read = [&](const std::string& host) {
        return test::read_call_counts(counts, host).sum.at("safetensors_read").bytes;
    };
    // Every rank lists the tensors; its host reads them once to transfer them, and once for the teacher.
    EXPECT_EQ(read("host-b"), 2 * tensors + 2 * header);
    // On host a the root has looked at them for the checks too, and has read them once for their fingerprint.
    EXPECT_EQ(read("host-a"), 3 * tensors + 5 * header);
}

TEST_F(TwoHosts, give_the_result_of_one) {
    test::expect_end(Process(run_command()).wait(100.0), 0, {});
    const auto two = results();
    job.name = "alone";
    test::expect_end(run(2, 100.0), 0, {});
    for (const char* file : {"checkpoints/distill.h5", "checkpoints/align.h5"})
        EXPECT_TRUE(test::differing_datasets(folder / "outputs" / "run" / file, result(file)).empty()) << file;
    EXPECT_TRUE(
        test::differing_datasets(folder / "outputs" / "run" / "scores.h5", result("scores.h5"), test::times_and_places)
            .empty());
}

TEST_F(TwoHosts, that_lose_one_end_and_go_on_later) {
    job.align.tokens *= 1000;  // long enough to be killed within
    job.checkpoint.every_steps = 20;
    {
        Process running(run_command());
        ASSERT_TRUE(test::wait_until(60.0, [&] {
            return std::filesystem::exists(run_folder() / "checkpoints" / "align-00000020.h5");
        })) << running.output();
        test::expect_end(hosts("kill", {"b"}).wait(20.0), 0, {});
        const Finished lost = running.wait(60.0);
        EXPECT_NE(lost.status, 0);
        EXPECT_NE(lost.output.find("lost communication"), std::string::npos) << lost.output;
        EXPECT_NE(lost.output.find("10.231.77.2"), std::string::npos) << lost.output;
    }
    test::expect_end(hosts("boot", {"b"}).wait(20.0), 0, {});
    Process again(run_command());
    EXPECT_TRUE(test::wait_until(60.0, [&] { return again.output().find("goes on from step") != std::string::npos; }))
        << again.output();
    test::put(run_folder() / "stop", "");
    test::expect_end(again.wait(60.0), 75, {"align: goes on from step"});
}

}  // namespace
}  // namespace amalgam
