// SPDX-License-Identifier: Apache-2.0
// stuck_ranks HOW RANK: under a watchdog with short deadlines, one rank does not come to a barrier, for the tests of
// the watchdog.
//
//   stop       it stops itself (SIGSTOP)          loop      it computes for ever
//   elsewhere  it waits in another collective     leave     it kills itself (SIGKILL)
//   suspend    all ranks stop for longer than the deadline and go on: no harm done
//   busy       it works for longer than the deadline, but gets on: no harm done
//   link       NCCL's stand-in on it reports an error
//   deaf       and cannot be given up: the watching thread itself is stuck
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <string>

#include "comm/mpi_session.h"
#include "comm/watchdog.h"
#include "system/clock.h"
#include "system/log.h"
#include "system/provenance.h"

namespace {

using namespace amalgam;

constexpr double deadline = 2.0;

void sleep_for(double seconds) {
    const Stopwatch watch;
    while (watch.seconds() < seconds) usleep(10000);
}

class BrokenLink : public WatchedLink {
  public:
    explicit BrokenLink(bool deaf) : deaf_(deaf) { watch(); }
    ~BrokenLink() override { unwatch(); }
    std::string problem() override { return "the link is broken"; }
    void abort() override {
        if (deaf_) sleep_for(1000.0);
        std::cerr << "the link is given up\n";
    }

  private:
    bool deaf_;
};

void misbehave(const std::string& how, const Communicator& world) {
    if (how == "stop") raise(SIGSTOP);
    if (how == "leave") raise(SIGKILL);
    if (how == "loop") sleep_for(1000.0);
    if (how == "elsewhere") world.sum(1.0);
    if (how == "link" || how == "deaf") {
        const BrokenLink link(how == "deaf");
        sleep_for(1000.0);
    }
    if (how == "busy")
        for (int piece = 0; piece < 12; ++piece) {
            sleep_for(deadline / 4.0);
            mark_progress();
        }
}

/// A child wakes this process up again.
void suspend() {
    const pid_t self = getpid();
    if (fork() == 0) {
        sleep_for(2.0 * deadline);
        kill(self, SIGCONT);
        _exit(0);
    }
    raise(SIGSTOP);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) return 2;
    const std::string how = argv[1];
    const MpiSession session(&argc, &argv);
    const Communicator& world = session.world();
    start_logging(world.rank(), world.size(), host_name());
    const Watchdog watchdog(world, {.setup = deadline, .step = deadline, .checkpoint = deadline});
    enter_stage("test");
    const InPhase phase(Phase::step, 7);
    if (how == "suspend")
        suspend();
    else if (world.rank() == std::atoi(argv[2]))
        misbehave(how, world);
    world.barrier();
    if (world.is_root()) std::cerr << "all ranks came through\n";
    return 0;
}
