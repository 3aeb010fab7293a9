// SPDX-License-Identifier: Apache-2.0
// Rank 1 throws while the others wait in a barrier.
#include <stdexcept>

#include "comm/mpi_session.h"
#include "system/log.h"
#include "system/provenance.h"

int main(int argc, char** argv) {
    try {
        amalgam::MpiSession session(&argc, &argv);
        amalgam::start_logging(session.world().rank(), session.world().size(), amalgam::host_name());
        if (session.world().rank() == 1) throw std::runtime_error("only here");
        session.world().barrier();
    } catch (const std::exception&) {
    }
    return 0;  // never reached: the exit status must come from the session
}
