// SPDX-License-Identifier: Apache-2.0
#include "system/signals.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

namespace amalgam {
namespace {

/// One test: a stop request stays for the life of the process.
TEST(Signals, arrive_as_flags) {
    install_signal_handlers();
    EXPECT_FALSE(take_signals().save);
    EXPECT_FALSE(take_signals().save_and_stop);

    raise(SIGUSR2);
    SignalFlags flags = take_signals();
    EXPECT_TRUE(flags.save);
    EXPECT_FALSE(flags.save_and_stop);
    EXPECT_FALSE(take_signals().save) << "a save request must be taken once";

    raise(SIGUSR1);
    EXPECT_TRUE(take_signals().save_and_stop);
    EXPECT_TRUE(take_signals().save_and_stop) << "a stop request stays";
    EXPECT_FALSE(take_signals().save);
}

TEST(SignalsDeathTest, usr1_would_kill_without_handlers) {
    EXPECT_EXIT(
        {
            signal(SIGUSR1, SIG_DFL);
            raise(SIGUSR1);
        },
        testing::KilledBySignal(SIGUSR1), "");
}

TEST(SignalsDeathTest, term_asks_for_a_stop) {
    EXPECT_EXIT(
        {
            install_signal_handlers();
            raise(SIGTERM);
            _exit(take_signals().save_and_stop ? 0 : 1);
        },
        testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace amalgam
