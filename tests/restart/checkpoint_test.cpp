// SPDX-License-Identifier: Apache-2.0
// Checkpoints of real runs that are really killed: a resumed run ends where an undisturbed one ends, to the last bit of
// weights and moments, and no moment of a kill leaves anything but whole checkpoints behind.
#include <stdlib.h>

#include "../stages/small_run.h"
#include "checkpoints/stage_checkpoints.h"
#include "storage/checksum.h"
#include "storage/posix_file.h"

namespace amalgam {
namespace {

namespace fs = std::filesystem;
using test::differing_datasets;
using test::expect_end;
using Names = std::vector<std::string>;

class Checkpoints : public test::SmallRun {
  protected:
    static constexpr const char* compared[] = {"checkpoints/distill-00000010.h5", "checkpoints/distill.h5"};

    Checkpoints() {
        test::set_steps(job.align, 2);
        test::set_steps(job.distill, 12);
        job.score.tokens = 0;
        job.select.rule = "uniform";
        job.evaluate.sequences = 0;
        job.checkpoint.every_steps = 0;
        job.checkpoint.keep_last = 1;
        job.checkpoint.keep_every_steps = 5;  // 5 and 10, with their moments
        job.checkpoint.background = BackgroundSaving::never;
    }
    ~Checkpoints() override { unsetenv("AMALGAM_FAULT"); }

    fs::path on_the_way(int64_t step) const {
        return StageCheckpoints(result("checkpoints"), "distill", 1).at_step(step);
    }

    /// The run is struck by `fault` and dies of it.
    void run_into(const std::string& fault, int ranks) {
        setenv("AMALGAM_FAULT", fault.c_str(), 1);
        const auto finished = run(ranks);
        unsetenv("AMALGAM_FAULT");
        EXPECT_NE(finished.status, 0) << finished.output;
        EXPECT_EQ(finished.output.find("distill: finished"), std::string::npos) << finished.output;
    }

    /// Datasets and numbers of the state in which the run differs from another one after its tenth step and in the end.
    Names differences(const fs::path& expected) const {
        Names found;
        for (const char* file : compared) {
            for (const std::string& name : differing_datasets(expected / file, result(file)))
                found.push_back(file + name);
            const H5File a = H5File::open(expected / file), b = H5File::open(result(file));
            for (const char* number : {"step", "tokens", "data_cursor", "seed", "optimizer_steps"})
                if (a.has_attribute("/", number) &&
                    a.integer_attribute("/", number) != b.integer_attribute("/", number))
                    found.push_back(std::string(file) + ": " + number);
        }
        return found;
    }
};

TEST_F(Checkpoints, resumed_in_a_fresh_process_ends_where_an_undisturbed_run_ends) {
    const fs::path expected = undisturbed();
    EXPECT_EQ(H5File::open(expected / "checkpoints/distill-00000010.h5").integer_attribute("/", "optimizer_steps"), 10);
    run_into("checkpoint.before_purge:kill:rank=0:step=5", 2);
    const fs::path half = run_folder();
    const auto take_up = [&](const std::string& name, int ranks, const std::function<void(const fs::path&)>& change) {
        job.name = name;
        fs::copy(half, run_folder(), fs::copy_options::recursive);
        change(on_the_way(5));
        expect_end(run(ranks), 0, {"distill: goes on from step"});
        return differences(expected);
    };
    const auto leave = [](const fs::path&) {};
    for (const int ranks : {1, 2, 3}) EXPECT_EQ(take_up("on-" + std::to_string(ranks), ranks, leave), Names{});

    // Each part of the state is needed: without it the run ends elsewhere.
    const std::string moment = "/optimizer/exp_avg/model.layers.0.mlp.up_proj.weight";
    EXPECT_NE(take_up("without-a-moment", 2,
                      [&](const fs::path& path) {
                          const int64_t offset = H5File::open(path).offset_of(moment);
                          const auto shape = H5File::open(path).describe(moment).shape;
                          const std::vector<float> zeros(size_t(shape[0] * shape[1]), 0.0F);
                          const int64_t bytes = int64_t(zeros.size() * sizeof(float));
                          PosixFile::update(path).write_at(offset, zeros.data(), bytes);
                          H5File::update(path).set_attribute(moment, "crc32", int64_t{crc32_of(zeros.data(), bytes)});
                      }),
              Names{});
    EXPECT_NE(take_up("without-the-cursor", 2,
                      [](const fs::path& path) { H5File::update(path).set_attribute("/", "data_cursor", int64_t{0}); }),
              Names{});
    EXPECT_NE(
        take_up("without-the-moments-steps", 2,
                [](const fs::path& path) { H5File::update(path).set_attribute("/", "optimizer_steps", int64_t{0}); }),
        Names{});
    EXPECT_NE(take_up("without-the-step", 2,
                      [&](const fs::path& path) {
                          H5File::update(path).set_attribute("/", "step", int64_t{0});
                          fs::rename(path, on_the_way(0));
                      }),
              Names{});
}

struct Kill {
    const char* point;
    int rank;
    bool background;
};

void PrintTo(const Kill& kill, std::ostream* out) {
    *out << kill.point << ", rank " << kill.rank << (kill.background ? ", in the background" : "");
}

class KilledWhileSaving : public Checkpoints, public testing::WithParamInterface<Kill> {};

TEST_P(KilledWhileSaving, goes_on_from_the_newest_whole_checkpoint) {
    const Kill& kill = GetParam();
    const fs::path expected = undisturbed();
    job.checkpoint.background = kill.background ? BackgroundSaving::always : BackgroundSaving::never;
    run_into(std::string("checkpoint.") + kill.point + ":kill:rank=" + std::to_string(kill.rank) + ":step=10", 2);

    const bool renamed = kill.point == std::string("before_purge");
    const auto temporary = test::temporaries_of(on_the_way(10));
    EXPECT_EQ(fs::exists(on_the_way(10)), renamed);
    ASSERT_EQ(temporary.size(), renamed ? 0U : 1U);
    const fs::path newest = on_the_way(renamed ? 10 : 5);
    Names said = {"distill: goes on from step " + std::to_string(renamed ? 10 : 5) + " (" + newest.string() + ")"};
    if (!renamed) said.push_back(temporary[0].string() + ": left by an interrupted write, removed");
    expect_end(run(2), 0, said);
    EXPECT_TRUE(test::temporaries_of(on_the_way(10)).empty());
    EXPECT_EQ(differences(expected), Names{});
}

INSTANTIATE_TEST_SUITE_P(EveryStep, KilledWhileSaving,
                         testing::Values(Kill{"created", 0, false}, Kill{"mid_write", 0, false},
                                         Kill{"mid_write", 1, true}, Kill{"before_fsync", 0, true},
                                         Kill{"before_fsync", 1, false}, Kill{"before_mark", 0, true},
                                         Kill{"before_rename", 0, false}, Kill{"before_rename", 0, true},
                                         Kill{"before_purge", 0, false}, Kill{"before_purge", 0, true}));

TEST_F(Checkpoints, a_failed_background_save_ends_the_run_and_spares_the_checkpoint_before) {
    job.checkpoint.background = BackgroundSaving::always;
    run_into("checkpoint.mid_write:throw:rank=1:step=10", 2);
    EXPECT_TRUE(fs::exists(on_the_way(5)));
    EXPECT_FALSE(fs::exists(on_the_way(10)));
    EXPECT_TRUE(test::temporaries_of(on_the_way(10)).empty());
    expect_end(run(2), 0, {"distill: goes on from step 5"});
}

TEST_F(Checkpoints, training_goes_on_while_a_rank_still_writes) {
    job.checkpoint.background = BackgroundSaving::always;
    setenv("AMALGAM_FAULT", "checkpoint.before_fsync:hang:rank=1:step=5", 1);
    const auto running = start(2);
    unsetenv("AMALGAM_FAULT");
    // Four steps later the save has not ended, and only the next one would wait for it.
    ASSERT_TRUE(test::wait_until(60.0, [&] {
        return test::content_of(result("metrics.csv")).find(",distill,,,9,") != std::string::npos;
    })) << running->output();
    EXPECT_FALSE(fs::exists(on_the_way(5))) << "rank 1 has not written its part";
    EXPECT_EQ(test::temporaries_of(on_the_way(5)).size(), 1U);
    for (const pid_t rank : running->children()) ::kill(rank, SIGKILL);
    EXPECT_NE(running->wait(20.0).status, 0);
    expect_end(run(2), 0, {"distill: finished"});
}

TEST_F(Checkpoints, damage_is_found_and_named) {
    run_into("checkpoint.before_purge:kill:rank=0:step=10", 2);
    const fs::path path = on_the_way(10);
    const std::string good = test::content_of(path);
    const std::string dataset = "/optimizer/exp_avg_sq/model.layers.3.mlp.down_proj.weight";
    const int64_t offset = H5File::open(path).offset_of(dataset);

    std::string flipped = good;
    flipped[size_t(offset) + 101] ^= 0x20;
    test::put(path, flipped);
    expect_end(run(2), int(ExitCode::damaged_file), {path.string(), dataset, "checksum"});
    test::put(path, good.substr(0, good.size() - 1));
    expect_end(run(2), int(ExitCode::damaged_file), {path.string(), "truncated"});
    test::put(path, test::content_of(on_the_way(5)));
    test::put(on_the_way(5), good);
    expect_end(run(2), int(ExitCode::damaged_file), {path.string(), "distill step 5", "swapped"});
    test::put(path, good);
    expect_end(run(2), 0, {"distill: goes on from step 10"});
}

}  // namespace
}  // namespace amalgam
