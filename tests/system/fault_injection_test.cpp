// SPDX-License-Identifier: Apache-2.0
#include "system/fault_injection.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include "../storage/temporary_folder.h"

namespace amalgam {
namespace {

using test::expect_error;

class FaultInjection : public testing::Test {
  protected:
    void TearDown() override { set_up_fault_injection("", 0); }
};

TEST_F(FaultInjection, nothing_happens_unless_asked) {
    EXPECT_FALSE(fault_point("a.point"));
    set_up_fault_injection("a.point:throw", 0);
    EXPECT_FALSE(fault_point("another.point"));
    set_up_fault_injection("", 0);
    EXPECT_FALSE(fault_point("a.point"));
}

TEST_F(FaultInjection, strikes_the_rank_and_step_it_is_meant_for) {
    set_up_fault_injection("a:nan:rank=1:step=7", 1);
    EXPECT_TRUE(fault_point("a", 7));
    EXPECT_FALSE(fault_point("a", 8));
    EXPECT_FALSE(fault_point("a"));
    set_up_fault_injection("a:nan:rank=1:step=7", 0);
    EXPECT_FALSE(fault_point("a", 7));
    set_up_fault_injection("a:nan", 3);
    EXPECT_TRUE(fault_point("a"));
    EXPECT_TRUE(fault_point("a", 5));
}

TEST_F(FaultInjection, several_faults) {
    set_up_fault_injection("a:nan:step=1,b:throw:rank=0", 0);
    EXPECT_TRUE(fault_point("a", 1));
    expect_error([] { fault_point("b"); }, ExitCode::failure, {"b", "AMALGAM_FAULT"});
}

TEST_F(FaultInjection, mistakes_are_named) {
    for (const char* wrong : {"a", "a:explode", "a:kill:rank=x", "a:kill:rank", "a:kill:place=1"})
        expect_error([&] { set_up_fault_injection(wrong, 0); }, ExitCode::bad_input, {"AMALGAM_FAULT"});
}

TEST(FaultInjectionDeathTest, kills) {
    EXPECT_EXIT(
        {
            set_up_fault_injection("a:kill", 0);
            fault_point("a");
            _exit(0);
        },
        testing::KilledBySignal(SIGKILL), "");
}

TEST(FaultInjectionDeathTest, hangs) {
    EXPECT_EXIT(
        {
            set_up_fault_injection("a:hang", 0);
            alarm(1);
            fault_point("a");
            _exit(0);
        },
        testing::KilledBySignal(SIGALRM), "");
}

}  // namespace
}  // namespace amalgam
