// SPDX-License-Identifier: Apache-2.0
// MPI communicators as values. Every communicator made here has MPI_ERRORS_RETURN, so a failed call becomes an
// exception that names rank, host and call. The null communicator behaves as one process, so code above never asks
// whether MPI is there. Host data only: device data goes through TensorCollectives.
#pragma once

#include <mpi.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace amalgam {

class Communicator {
  public:
    /// One process, no MPI.
    Communicator() = default;

    /// Takes a duplicate of `parent`.
    static Communicator duplicate(MPI_Comm parent);

    int rank() const { return rank_; }
    int size() const { return size_; }
    bool is_root() const { return rank_ == 0; }
    MPI_Comm get() const;  // MPI_COMM_NULL for the null communicator

    /// Ranks with equal `color` form one communicator, ordered by rank. Collective.
    Communicator split(int color) const;
    /// Ranks that share memory, i.e. of one node. Collective.
    Communicator split_by_node() const;

    void barrier() const;
    double sum(double value) const;
    int64_t sum(int64_t value) const;
    double max(double value) const;  // NaN if NaN on any rank
    int64_t max(int64_t value) const;
    double min(double value) const;  // likewise
    bool all(bool value) const;      // true if true on every rank
    bool any(bool value) const;

    void sum_in_place(std::span<double> values) const;
    void sum_in_place(std::span<float> values) const;
    /// Bitwise or.
    void unite_in_place(std::span<uint64_t> bits) const;
    void broadcast(std::span<char> bytes, int root = 0) const;
    void broadcast(std::span<double> values, int root = 0) const;
    void broadcast(std::span<float> values, int root = 0) const;
    std::string broadcast(const std::string& value, int root = 0) const;
    int64_t broadcast(int64_t value, int root = 0) const;
    /// Values of all ranks in rank order, on every rank. Equal counts.
    std::vector<double> all_gather(std::span<const double> values) const;
    std::vector<int64_t> all_gather(std::span<const int64_t> values) const;
    /// `whole` (at most 2 GiB) is cut into one part for each rank; every rank has filled its own and gets the others.
    void exchange_parts(std::span<char> whole) const;
    /// This rank's part of so many bytes: first and count. Nothing, perhaps, for the last ranks.
    std::pair<size_t, size_t> part_of(size_t bytes) const { return part_of(bytes, rank_); }
    /// Strings of all ranks in rank order, on root only (empty elsewhere).
    std::vector<std::string> gather(const std::string& value, int root = 0) const;

    /// Runs `work` on this rank, then agrees: if it threw on any rank, every rank throws a SharedError of the lowest
    /// such rank (its text and exit code). Keeps rank-local failures (a bad file, a full disk) from stranding the
    /// others in a collective; `work` itself must contain no collective.
    void together(const std::function<void()>& work) const;
    /// `work` on the root only; its failure, if any, is everybody's.
    void on_root(const std::function<void()>& work) const;

  private:
    struct Handle;
    std::pair<size_t, size_t> part_of(size_t bytes, int rank) const;
    static Communicator adopt(MPI_Comm made);
    std::shared_ptr<Handle> handle_;
    int rank_ = 0, size_ = 1;
};

/// Throws Error(communication) with the MPI error text, the call, the rank and the host unless code is MPI_SUCCESS.
void check_mpi(int code, const char* call);

}  // namespace amalgam
