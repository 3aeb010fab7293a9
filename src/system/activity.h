// SPDX-License-Identifier: Apache-2.0
// What this process is doing: phase, stage, step, operation. Whoever works or waits says so here, which costs a few
// stores; the watchdog (comm/watchdog.h) reads it from another thread. One thread is recorded, the one that runs the
// stages: what threads of their own do in the background shows up as the main thread's wait for them.
#pragma once

#include <cstdint>

namespace amalgam {

/// Which deadline holds.
enum class Phase : int { setup, step, checkpoint };

/// Names are string literals.
struct Activity {
    Phase phase = Phase::setup;
    const char* stage = "start";
    const char* operation = nullptr;  // a call that waits for other ranks; null: it works by itself
    int64_t candidate = -1, step = -1;
    int64_t count = 0;  // grows whenever something was begun or finished
};

/// Records what the calling thread does from now on, and no other thread.
void record_this_thread();

Activity current_activity();

/// A stage begins, in the phase setup.
void enter_stage(const char* stage);

/// Something was finished (a micro-batch, a file): the deadline starts again.
void mark_progress();

/// A phase from here to the end of the scope, and the step it belongs to.
class InPhase {
  public:
    explicit InPhase(Phase phase);
    InPhase(Phase phase, int64_t step, int64_t candidate = -1);
    ~InPhase();
    InPhase(const InPhase&) = delete;
    InPhase& operator=(const InPhase&) = delete;

  private:
    Activity before_;
};

/// A call that may wait for other ranks, from here to the end of the scope.
class Waiting {
  public:
    explicit Waiting(const char* call);
    ~Waiting();
    Waiting(const Waiting&) = delete;
    Waiting& operator=(const Waiting&) = delete;

  private:
    const char* before_;
};

}  // namespace amalgam
