// SPDX-License-Identifier: Apache-2.0
#include "comm/mpi_session.h"

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <string>

#include "system/error.h"
#include "system/fault_injection.h"
#include "system/log.h"
#include "system/provenance.h"

namespace amalgam {

namespace {

/// "Open MPI v4.1.4, package: ..." and "MPICH Version:\t4.0.2\n..." -> "Open MPI v4.1.4", "MPICH Version: 4.0.2".
std::string library_version() {
    char version[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int length = 0;
    MPI_Get_library_version(version, &length);
    std::string result(version, length);
    result.resize(std::min(result.size(), result.find_first_of(",\n")));
    for (char& c : result)
        if (c == '\t') c = ' ';
    return result;
}

}  // namespace

MpiSession::MpiSession(int* argc, char*** argv) {
    int provided = MPI_THREAD_SINGLE;
    check_mpi(MPI_Init_thread(argc, argv, MPI_THREAD_MULTIPLE, &provided), "MPI_Init_thread");
    report_library(library_version());
    // For errors in making our first communicator; all others have their own handler.
    check_mpi(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    world_ = Communicator::duplicate(MPI_COMM_WORLD);
    if (provided < MPI_THREAD_MULTIPLE)
        throw Error(text(library_version(), " offers thread level ", provided, ", not MPI_THREAD_MULTIPLE (",
                         MPI_THREAD_MULTIPLE,
                         "; transfers in the background and the watchdog need it); use a library built with threads"),
                    ExitCode::communication);
    const char* faults = std::getenv("AMALGAM_FAULT");
    set_up_fault_injection(faults != nullptr ? faults : "", world_.rank());
}

MpiSession::~MpiSession() {
    if (std::uncaught_exceptions() > 0 && world_.size() > 1) {
        // The other ranks may wait for this one in a collective; MPI_Finalize would wait for them.
        log_rank(LogLevel::error, "this rank was left by an exception; all ranks of the job are ended");
        abort(static_cast<int>(ExitCode::failure));
    }
    world_ = Communicator();
    MPI_Finalize();
}

void MpiSession::abort(int exit_code) const {
    MPI_Abort(MPI_COMM_WORLD, exit_code);
    std::_Exit(exit_code);  // MPI_Abort may return
}

}  // namespace amalgam
