// SPDX-License-Identifier: Apache-2.0
// What a user is told of exceptions.
#include "app/failure.h"

#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <new>
#include <vector>

namespace amalgam {
namespace {

Failure failure_after(const std::function<void()>& action) {
    try {
        action();
    } catch (const std::exception& error) {
        return failure_of(error);
    }
    return {"no exception", ExitCode::success};
}

bool contains(const Failure& failure, const std::string& part) {
    return failure.message.find(part) != std::string::npos;
}

TEST(Failure, of_ours_is_what_it_says) {
    const Failure failure = failure_after([] { throw Error("a.h5: is damaged", ExitCode::damaged_file); });
    EXPECT_EQ(failure.message, "a.h5: is damaged");
    EXPECT_EQ(failure.code, ExitCode::damaged_file);
}

TEST(Failure, of_libtorch_has_no_stack) {
    const Failure failure = failure_after([] { TORCH_CHECK(false, "shapes differ"); });
    EXPECT_TRUE(contains(failure, "shapes differ"));
    EXPECT_FALSE(contains(failure, "frame #"));
    EXPECT_EQ(failure.code, ExitCode::failure);
}

TEST(Failure, for_lack_of_memory_says_what_helps) {
    for (const auto& action : std::vector<std::function<void()>>{
             [] { TORCH_CHECK_WITH(OutOfMemoryError, false, "CUDA out of memory. Tried to allocate 96.00 MiB."); },
             [] { throw std::bad_alloc(); }}) {
        const Failure failure = failure_after(action);
        EXPECT_TRUE(contains(failure, "out of memory"));
        EXPECT_TRUE(contains(failure, "micro_batch_sequences"));
        EXPECT_FALSE(contains(failure, "frame #"));
    }
}

TEST(Failure, of_a_file_system_names_the_file) {
    const Failure failure = failure_after([] { (void)std::filesystem::file_size("/nowhere/at/all"); });
    EXPECT_TRUE(contains(failure, "/nowhere/at/all"));
    EXPECT_EQ(failure.code, ExitCode::bad_input);
}

}  // namespace
}  // namespace amalgam
