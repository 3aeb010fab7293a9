// SPDX-License-Identifier: Apache-2.0
// A small run in which AMALGAM_FAULT (system/fault_injection.h) makes something go wrong.
#pragma once

#include <cstdlib>

#include "../stages/small_run.h"
#include "checkpoints/stage_checkpoints.h"

namespace amalgam::test {

class FaultyRun : public SmallRun {
  protected:
    FaultyRun() { job.checkpoint.every_steps = 2; }
    void TearDown() override { unsetenv("AMALGAM_FAULT"); }

    Finished run_with(const std::string& fault, int ranks, double time_limit) {
        setenv("AMALGAM_FAULT", fault.c_str(), 1);
        const Finished finished = run(ranks, time_limit);
        unsetenv("AMALGAM_FAULT");
        EXPECT_EQ(processes_left(), 0) << "after " << fault;
        return finished;
    }

    /// A run that stops itself at `point`, on all ranks or on `held` of them; returns when it has.
    std::unique_ptr<test::Process> held_at(const std::string& point, int ranks, const std::string& place = "",
                                           int held = 0) {
        setenv("AMALGAM_FAULT", (point + ":stop" + place).c_str(), 1);
        auto running = start(ranks);
        unsetenv("AMALGAM_FAULT");
        EXPECT_TRUE(test::wait_until(40.0, [&] {
            const auto children = running->children();
            return std::count_if(children.begin(), children.end(), is_stopped) == (held > 0 ? held : ranks);
        })) << running->output();
        return running;
    }
    static bool is_stopped(pid_t process) {
        const std::string status = test::content_of(std::filesystem::path("/proc") / std::to_string(process) / "stat");
        return status.find(") T ") != std::string::npos;
    }
    /// Sends USR1 to mpirun, and returns when those ranks that are held have it before them.
    static void ask_to_stop(const test::Process& running) {
        running.send(SIGUSR1);
        EXPECT_TRUE(test::wait_until(20.0, [&] {
            const auto children = running.children();
            return std::all_of(children.begin(), children.end(),
                               [](pid_t rank) { return !is_stopped(rank) || has_pending(rank, SIGUSR1); });
        })) << running.output();
    }
    static bool has_pending(pid_t process, int signal) {
        std::ifstream status("/proc/" + std::to_string(process) + "/status");
        for (std::string line; std::getline(status, line);)
            if (line.starts_with("ShdPnd:")) return (std::stoull(line.substr(7), nullptr, 16) >> (signal - 1)) % 2 != 0;
        return false;
    }
    static void go_on(const test::Process& running) {
        for (const pid_t rank : running.children()) kill(rank, SIGCONT);
    }

    /// Processes of this run that are still there, after giving them a moment to go.
    int processes_left() const {
        int left = 0;
        wait_until(3.0, [&] {
            left = 0;
            for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
                std::ifstream stream(entry.path() / "cmdline");
                const std::string command{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
                left += command.find(folder.string()) != std::string::npos;
            }
            return left == 0;
        });
        return left;
    }

    /// Without faults the run goes to its end, as if nothing had happened.
    void expect_recovery(int ranks) {
        expect_end(run(ranks), 0, {"finished in"});
        const auto expected = undisturbed();
        using Names = std::vector<std::string>;
        EXPECT_EQ(differing_datasets(expected / "scores.h5", result("scores.h5"), times_and_places), Names{});
        for (const char* file : {"checkpoints/align.h5", "selection.h5", "checkpoints/distill.h5", "evaluation.h5"})
            EXPECT_EQ(differing_datasets(expected / file, result(file)), Names{}) << file;
        for (const auto& entry : std::filesystem::recursive_directory_iterator(run_folder()))
            EXPECT_NE(entry.path().extension(), ".tmp") << entry.path();
    }
};

}  // namespace amalgam::test
