// SPDX-License-Identifier: Apache-2.0
#include "system/signals.h"

#include <signal.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "system/error.h"

namespace amalgam {

namespace {

// A signal handler may touch nothing but lock-free atomics.
std::atomic<bool> stop_requested{false};
std::atomic<bool> save_requested{false};
static_assert(std::atomic<bool>::is_always_lock_free);

void request_stop(int) {
    stop_requested = true;
}
void request_save(int) {
    save_requested = true;
}

void install(int signal, void (*handler)(int)) {
    struct sigaction action {};
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART;  // reads and writes in progress go on
    sigemptyset(&action.sa_mask);
    if (sigaction(signal, &action, nullptr) != 0)
        throw Error(text("cannot install a handler for signal ", signal, ": ", std::strerror(errno),
                         " (the job could not be asked to save)"));
}

}  // namespace

void install_signal_handlers() {
    install(SIGUSR1, request_stop);
    install(SIGTERM, request_stop);
    install(SIGUSR2, request_save);
}

SignalFlags take_signals() {
    return {.save_and_stop = stop_requested.load(), .save = save_requested.exchange(false)};
}

}  // namespace amalgam
