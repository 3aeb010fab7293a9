// SPDX-License-Identifier: Apache-2.0
#include "gather_failures.h"

#include <sstream>
#include <string>

namespace amalgam::test {

namespace {

int rank_in(MPI_Comm comm) {
    int rank = 0;
    MPI_Comm_rank(comm, &rank);
    return rank;
}

int size_of(MPI_Comm comm) {
    int size = 1;
    MPI_Comm_size(comm, &size);
    return size;
}

std::string place(const testing::TestPartResult& failure) {
    std::ostringstream stream;
    stream << (failure.file_name() != nullptr ? failure.file_name() : "unknown file") << ":" << failure.line_number();
    return stream.str();
}

}  // namespace

GatherFailures::GatherFailures(MPI_Comm parent)
    : rank_(rank_in(parent)), ranks_(size_of(parent)), watchdog_(rank_, ranks_) {
    MPI_Comm_dup(parent, &comm_);
}

void GatherFailures::OnTestStart(const testing::TestInfo& test) {
    watchdog_.begin(std::string(test.test_suite_name()) + "." + test.name());
}

void GatherFailures::OnTestPartResult(const testing::TestPartResult& result) {
    if (!result.failed() || raising_) return;
    failures_.push_back(result);
    watchdog_.add_failure(place(result) + ": " + result.message());
}

void GatherFailures::OnTestEnd(const testing::TestInfo&) {
    watchdog_.finished();
    gather();
    watchdog_.idle();
}

/// What failed outside of tests: in setting up or tearing down a suite or the environment.
void GatherFailures::OnTestProgramEnd(const testing::UnitTest&) {
    watchdog_.begin("the end of all tests");
    watchdog_.finished();
    gather();
    watchdog_.idle();
    MPI_Comm_free(&comm_);
}

void GatherFailures::gather() {
    // Sending to rank 0 need not wait for it. No rank may go on before all are here, or the watchdog of one that left a
    // test early would forget what failed while the others hang.
    MPI_Barrier(comm_);

    std::ostringstream mine;
    if (rank_ != 0)  // rank 0 has printed its own when they happened
        for (const auto& failure : failures_)
            mine << "[rank " << rank_ << " of " << ranks_ << "] " << place(failure) << "\n"
                 << failure.message() << "\n";
    failures_.clear();

    const std::string sent = mine.str();
    const int length = static_cast<int>(sent.size());
    std::vector<int> lengths(ranks_), starts(ranks_);
    MPI_Gather(&length, 1, MPI_INT, lengths.data(), 1, MPI_INT, 0, comm_);
    for (int i = 1; i < ranks_; ++i) starts[i] = starts[i - 1] + lengths[i - 1];
    std::string received(rank_ == 0 ? starts.back() + lengths.back() : 0, '\0');
    MPI_Gatherv(sent.data(), length, MPI_CHAR, received.data(), lengths.data(), starts.data(), MPI_CHAR, 0, comm_);

    if (received.empty()) return;
    raising_ = true;
    ADD_FAILURE() << "on other ranks:\n" << received;
    raising_ = false;
}

}  // namespace amalgam::test
