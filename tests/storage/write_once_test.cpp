// SPDX-License-Identifier: Apache-2.0
#include "storage/write_once.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "temporary_folder.h"

namespace amalgam {
namespace {

using test::content_of;
using test::expect_error;
using test::put;

class WriteOnce : public test::TemporaryFolder {
  protected:
    const std::filesystem::path path = folder / "result.txt", temporary = temporary_for(path);
};

TEST_F(WriteOnce, text_arrives_whole) {
    const std::string content(100000, 'x');
    write_text_once(path, content);
    EXPECT_EQ(content_of(path), content);
    EXPECT_FALSE(exists(temporary));
    write_text_once(path, "");
    EXPECT_EQ(content_of(path), "");
}

TEST_F(WriteOnce, final_name_appears_only_at_the_end) {
    write_once(path, [&](const std::filesystem::path& given) {
        EXPECT_EQ(given, temporary);
        put(given, "new");
        EXPECT_FALSE(exists(path));
    });
    EXPECT_EQ(content_of(path), "new");
}

TEST_F(WriteOnce, exception_leaves_the_old_file_and_nothing_else) {
    put(path, "old");
    expect_error(
        [&] {
            write_once(path, [](const std::filesystem::path& given) {
                put(given, "half of the n");
                throw Error("diverged", ExitCode::diverged);
            });
        },
        ExitCode::diverged, {"diverged"});
    EXPECT_EQ(content_of(path), "old");
    EXPECT_FALSE(exists(temporary));
}

TEST_F(WriteOnce, leftover_of_an_interrupted_run_is_replaced) {
    put(temporary, "leftover");
    write_once(path, [&](const std::filesystem::path& given) {
        EXPECT_FALSE(exists(given));
        put(given, "new");
    });
    EXPECT_EQ(content_of(path), "new");
}

/// Those of other processes that are there, and of other hosts, belong to somebody.
TEST_F(WriteOnce, leftovers_of_dead_processes_of_this_host_are_removed) {
    const pid_t dead = fork();
    if (dead == 0) _exit(0);
    waitpid(dead, nullptr, 0);
    const std::string name = temporary_for(path).string(), own = std::to_string(getpid());
    const auto of_process = [&](pid_t process) {
        return name.substr(0, name.rfind(own)) + std::to_string(process) + ".tmp";
    };
    const std::filesystem::path others = folder / ("result.txt.another-host." + std::to_string(dead) + ".tmp");
    for (const std::filesystem::path& left :
         {std::filesystem::path(of_process(dead)), std::filesystem::path(of_process(1)), others})
        put(left, "half");
    write_text_once(path, "new");
    EXPECT_FALSE(exists(std::filesystem::path(of_process(dead))));
    EXPECT_TRUE(exists(std::filesystem::path(of_process(1))));
    EXPECT_TRUE(exists(others));
}

TEST_F(WriteOnce, failure_is_a_storage_error_naming_the_path) {
    expect_error([&] { write_text_once(folder / "missing" / "x.txt", "x"); }, ExitCode::storage,
                 {(folder / "missing" / "x.txt").string(), "No such file or directory"});
    expect_error([&] { write_once(path, [](const std::filesystem::path&) {}); }, ExitCode::storage, {path.string()});
    expect_error(
        [&] {
            write_once(path, [](const std::filesystem::path& given) {
                throw std::filesystem::filesystem_error("copying", given, std::make_error_code(std::errc::io_error));
            });
        },
        ExitCode::storage, {path.string(), "copying"});
}

TEST_F(WriteOnce, folder_in_the_way_is_a_storage_error) {
    create_directory(path);
    put(path / "inside", "x");
    expect_error([&] { write_text_once(path, "x"); }, ExitCode::storage, {path.string(), "renamed"});
    EXPECT_FALSE(exists(temporary));
}

TEST_F(WriteOnce, publish_renames) {
    put(folder / "a", "content");
    publish(folder / "a", path);
    EXPECT_EQ(content_of(path), "content");
    EXPECT_FALSE(exists(folder / "a"));
    expect_error([&] { publish(folder / "none", path); }, ExitCode::storage, {path.string(), "none"});
    EXPECT_EQ(content_of(path), "content");
}

}  // namespace
}  // namespace amalgam
