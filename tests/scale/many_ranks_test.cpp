// SPDX-License-Identifier: Apache-2.0
// The same job on more ranks: nothing that one rank asks of MPI or of the file system, and nothing that is said or
// written, may grow with their number. Counted in whole runs of the program by call_counter.cpp.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>

#include "../stages/small_run.h"
#include "call_counts.h"

namespace amalgam {
namespace {

using test::CallCounts;

struct Counted {
    CallCounts calls;
    int64_t lines = 0, files = 0;
};

class ManyRanks : public test::SmallRun {
  protected:
    static constexpr int64_t most_ranks = 8;

    ManyRanks() { share_batches_among(most_ranks); }

    /// The same job for up to so many ranks.
    void share_batches_among(int64_t ranks) {
        for (TrainingJob* stage : std::initializer_list<TrainingJob*>{&job.align, &job.score, &job.distill}) {
            stage->batch_sequences = ranks;
            stage->micro_batch_sequences = 1;
            stage->tokens = 2 * ranks * stage->sequence_length;
        }
        job.score.ranks_per_candidate = 2;
        job.score.measurements = 1;
        job.checkpoint.every_steps = 1;
    }

    /// `program` on so many ranks, with its calls counted.
    CallCounts count_calls(int ranks, const std::vector<std::string>& program, double time_limit, std::string& output) {
        const auto counts = folder / text("counts-", program.size(), "-", ranks);
        std::filesystem::create_directories(counts);
        auto command = test::mpi_command(ranks, program);
        // Many ranks on few cores: who waits must let others work.
        command.insert(command.begin() + 1,
                       {"--mca", "mpi_yield_when_idle", "1", "-x", text("LD_PRELOAD=", AMALGAM_CALL_COUNTER), "-x",
                        text("AMALGAM_CALL_COUNTS=", counts.string())});
        const test::Finished finished = test::Process(command).wait(time_limit);
        test::expect_end(finished, 0, {});
        output = finished.output;
        const CallCounts calls = test::read_call_counts(counts);
        EXPECT_EQ(calls.ranks, ranks);
        return calls;
    }

    Counted count(int ranks, double time_limit = 100.0) {
        job.name = text("on-", 1000 + ranks);  // as long for every number of ranks: the job is broadcast as a text
        std::string output;
        Counted counted{count_calls(ranks, {AMALGAM_PROGRAM, "run", job_file().string()}, time_limit, output)};
        counted.lines = std::count(output.begin(), output.end(), '\n');
        for (const auto& entry : std::filesystem::recursive_directory_iterator(run_folder()))
            counted.files += entry.is_regular_file();
        return counted;
    }
};

TEST_F(ManyRanks, ask_no_more_of_anyone) {
    const Counted few = count(2), many = count(most_ranks);
    EXPECT_LE(many.lines, few.lines);  // less: the first group, which speaks for all, has fewer candidates
    EXPECT_EQ(many.files, few.files);
    EXPECT_EQ(many.calls.sum.at("file_created").calls, few.calls.sum.at("file_created").calls);
    for (const auto& [name, most] : many.calls.most) {
        ASSERT_TRUE(few.calls.most.contains(name)) << name;
        EXPECT_LE(most.calls, few.calls.most.at(name).calls) << name;
        EXPECT_LE(most.bytes, few.calls.most.at(name).bytes) << name;
    }
    // The counter counts: these are in every run.
    for (const char* name : {"MPI_Allreduce", "MPI_Bcast", "MPI_Comm_split", "file_opened", "safetensors_read"})
        EXPECT_GT(many.calls.most.at(name).calls, 0) << name;
}

// A gather to the root grows there: the counter would notice.
TEST_F(ManyRanks, would_be_noticed_if_a_root_gathered) {
    const auto received = [&](int ranks) {
        std::string output;
        return count_calls(ranks, {AMALGAM_GATHERING_PROGRAM}, 30.0, output).most.at("MPI_Gather").bytes;
    };
    EXPECT_EQ(received(4), 2 * received(2));
}

// AMALGAM_MANY_RANKS="4 16 64": a table for people, on as many ranks as the memory holds (about 70 MB each).
TEST_F(ManyRanks, as_asked_for) {
    const char* asked = std::getenv("AMALGAM_MANY_RANKS");
    if (asked == nullptr) GTEST_SKIP() << "set AMALGAM_MANY_RANKS to numbers of ranks";
    std::vector<int> numbers;
    std::istringstream words(asked);
    for (int ranks = 0; words >> ranks;) numbers.push_back(ranks);
    share_batches_among(*std::max_element(numbers.begin(), numbers.end()));
    std::cout << "ranks,quantity,most_calls_of_a_rank,most_bytes_of_a_rank,calls_of_all\n";
    for (const int ranks : numbers) {
        const Counted counted = count(ranks, 1500.0);
        std::cout << ranks << ",log_lines,,," << counted.lines << '\n'
                  << ranks << ",files_in_run_folder,,," << counted.files << '\n';
        for (const auto& [name, most] : counted.calls.most)
            std::cout << ranks << ',' << name << ',' << most.calls << ',' << most.bytes << ','
                      << counted.calls.sum.at(name).calls << '\n';
    }
}

}  // namespace
}  // namespace amalgam
