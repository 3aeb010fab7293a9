// SPDX-License-Identifier: Apache-2.0
// P14: one run in a folder, on this host and on others, with locks of the kernel and without; and a lock that a killed
// process held does not stay.
#include "storage/folder_lock.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <mutex>
#include <optional>
#include <thread>

#include "temporary_folder.h"

namespace amalgam {
namespace {

namespace fs = std::filesystem;
using test::expect_error;

/// Times that suit a test.
constexpr LockTimes quick = {.beat = 0.05, .patience = 0.6, .grace = 0.2, .settle = 0.2};

/// With locks of the kernel, and where the file system has none.
class OneInAFolder : public test::TemporaryFolder, public testing::WithParamInterface<bool> {
  protected:
    const fs::path run = folder / "run", file = run / "lock";

    std::optional<FolderLock> lock(const LockHolder& me, LockTimes times = quick) const {
        return std::optional<FolderLock>(std::in_place, run, me, times, GetParam());
    }
    void expect_busy(const LockHolder& me, std::initializer_list<std::string> parts) const {
        expect_error([&] { lock(me); }, ExitCode::busy, parts);
    }

    /// A process that holds the lock and then waits for a signal.
    pid_t holder() const {
        const pid_t child = fork();
        if (child != 0) {
            while (!fs::exists(file) || test::content_of(file).find("beat") == std::string::npos) usleep(1000);
            return child;
        }
        const auto held = lock(this_process());
        while (true) pause();
    }
};

TEST_P(OneInAFolder, a_second_one_is_told_who_is_there) {
    const pid_t first = holder();
    expect_busy(this_process(), {run.string(), "another run is at work", text("process ", first, " on "), "since 20"});
    kill(first, SIGKILL);
    waitpid(first, nullptr, 0);
    EXPECT_TRUE(fs::exists(file)) << "nobody could remove it";
    EXPECT_TRUE(lock(this_process())) << "a killed one is not there any more";
}

TEST_P(OneInAFolder, gives_it_back) {
    lock(this_process()).reset();
    EXPECT_FALSE(fs::exists(file));
    EXPECT_TRUE(lock(this_process()));
}

TEST_P(OneInAFolder, number_of_a_dead_process_may_be_used_again) {
    LockHolder earlier = this_process();
    earlier.started -= 1;
    fs::create_directories(run);
    test::put(file, text("host: ", earlier.host, "\nprocess: ", earlier.process, "\njob: \nsince: then\nmachine: ",
                         earlier.machine, "\nstarted: ", earlier.started, "\nbeat: 000000000007\n"));
    EXPECT_TRUE(lock(this_process()));
    test::put(file, text("host: ", earlier.host, "\nprocess: ", earlier.process, "\njob: \nsince: then\nmachine: ",
                         earlier.machine, "\nstarted: ", earlier.started + 1, "\nbeat: 000000000007\n"));
    LockHolder another = this_process();
    another.process += 1;
    expect_busy(another, {text("process ", earlier.process)});  // that of this test, which is alive
}

TEST_P(OneInAFolder, what_is_half_written_says_nothing) {
    fs::create_directories(run);
    for (const std::string content : {"", "host: somewhere\nproc", "beat: 00"}) {
        test::put(file, content);
        EXPECT_TRUE(lock(this_process())) << content;
    }
}

INSTANTIATE_TEST_SUITE_P(FolderLocks, OneInAFolder, testing::Bool(),
                         [](const auto& info) { return info.param ? "of_the_kernel" : "by_heartbeat"; });

/// Across hosts without locks that reach so far.
class OnAnotherHost : public test::TemporaryFolder {
  protected:
    const fs::path run = folder / "run", file = run / "lock";
    static LockHolder on(const std::string& host) {
        LockHolder other = this_process();
        other.host = host;
        other.machine = "that of " + host;
        other.job = "4711";
        return other;
    }
    void leave(const LockHolder& holder) const {
        fs::create_directories(run);
        test::put(file, text("host: ", holder.host, "\nprocess: ", holder.process, "\njob: ", holder.job,
                             "\nsince: then\nmachine: ", holder.machine, "\nstarted: ", holder.started,
                             "\nbeat: 000000000007\n"));
    }
};

TEST_F(OnAnotherHost, a_heartbeat_says_that_it_is_alive) {
    const FolderLock first(run, on("host-a"), quick, false);
    expect_error([&] { FolderLock(run, on("host-b"), quick, false); }, ExitCode::busy,
                 {"on host-a", "job 4711", "since"});
}

TEST_F(OnAnotherHost, a_heartbeat_that_stands_still_has_ended) {
    leave(on("host-a"));
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_NO_THROW(FolderLock(run, on("host-b"), quick, true));
    const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - begin;
    EXPECT_GE(waited.count(), quick.patience) << "it might have beaten in that time";
    EXPECT_FALSE(fs::exists(file));
}

TEST_F(OnAnotherHost, an_old_heartbeat_needs_no_watching) {
    leave(on("host-a"));
    fs::last_write_time(file, fs::file_time_type::clock::now() - std::chrono::hours(1));
    LockTimes patient = quick;
    patient.patience = 1000.0;
    EXPECT_NO_THROW(FolderLock(run, on("host-b"), patient, true));
}

TEST_F(OnAnotherHost, of_two_that_take_over_at_once_one_wins) {
    leave(on("host-a"));
    int won = 0;
    std::mutex mutex;
    const auto contend = [&](const std::string& host) {
        try {
            const FolderLock lock(run, on(host), quick, false);
            const std::lock_guard guard(mutex);
            ++won;
            usleep(1000000);
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ExitCode::busy) << error.what();
        }
    };
    std::thread b([&] { contend("host-b"); }), c([&] { contend("host-c"); });
    b.join();
    c.join();
    EXPECT_EQ(won, 1);
}

/// It was suspended for longer than others wait.
TEST_F(OnAnotherHost, whoever_has_lost_the_folder_ends) {
    const pid_t child = fork();
    if (child == 0) {
        const FolderLock lock(run, on("host-a"), quick, false);
        while (true) pause();
    }
    while (test::content_of(file).find("beat") == std::string::npos) usleep(1000);
    kill(child, SIGSTOP);
    const FolderLock second(run, on("host-b"), quick, false);
    kill(child, SIGCONT);
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), int(ExitCode::busy));
    EXPECT_NE(test::content_of(file).find("host: host-b"), std::string::npos);
}

TEST_F(OnAnotherHost, a_removed_file_comes_back) {
    const FolderLock lock(run, on("host-a"), quick, true);
    fs::remove(file);
    for (int i = 0; i < 200 && test::content_of(file).find("host-a") == std::string::npos; ++i) usleep(20000);
    EXPECT_NE(test::content_of(file).find("host-a"), std::string::npos);
}

TEST_F(OnAnotherHost, a_folder_that_cannot_be_made_is_a_storage_error) {
    test::put(folder / "file", "");
    expect_error([&] { FolderLock(folder / "file" / "run"); }, ExitCode::storage, {(folder / "file" / "run").string()});
}

}  // namespace
}  // namespace amalgam
