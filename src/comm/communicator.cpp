// SPDX-License-Identifier: Apache-2.0
#include "comm/communicator.h"

#include <algorithm>
#include <climits>
#include <cmath>
#include <limits>

#include "system/activity.h"
#include "system/error.h"
#include "system/provenance.h"

namespace amalgam {

struct Communicator::Handle {
    MPI_Comm comm;

    explicit Handle(MPI_Comm made) : comm(made) {}
    Handle(const Handle&) = delete;
    Handle& operator=(const Handle&) = delete;
    ~Handle() {
        int finalized = 0;
        MPI_Finalized(&finalized);
        if (!finalized) MPI_Comm_free(&comm);
    }
};

namespace {

// MPI counts are int: longer messages go in pieces.
constexpr size_t piece = size_t{1} << 28;

template <class Element, class Call>
void in_pieces(std::span<Element> values, const Call& call) {
    for (size_t first = 0; first < values.size(); first += piece) {
        const size_t count = std::min(piece, values.size() - first);
        call(values.data() + first, static_cast<int>(count));
    }
}

template <class Number>
Number reduce(MPI_Comm comm, Number value, MPI_Datatype type, MPI_Op operation) {
    if (comm == MPI_COMM_NULL) return value;
    const Waiting waiting("MPI_Allreduce");
    Number result = value;
    check_mpi(MPI_Allreduce(&value, &result, 1, type, operation, comm), "MPI_Allreduce");
    return result;
}

/// A NaN on any rank is the result on all ranks; MPI leaves open what its own maximum makes of one.
double max_with_nan(MPI_Comm comm, double value) {
    if (comm == MPI_COMM_NULL) return value;
    const bool is_nan = std::isnan(value);
    const double sent[2] = {is_nan ? -std::numeric_limits<double>::infinity() : value, is_nan ? 1.0 : 0.0};
    const Waiting waiting("MPI_Allreduce");
    double received[2] = {0, 0};
    check_mpi(MPI_Allreduce(sent, received, 2, MPI_DOUBLE, MPI_MAX, comm), "MPI_Allreduce");
    return received[1] > 0 ? std::numeric_limits<double>::quiet_NaN() : received[0];
}

template <class Number>
void reduce_all(MPI_Comm comm, std::span<Number> values, MPI_Datatype type, MPI_Op operation) {
    if (comm == MPI_COMM_NULL) return;
    const Waiting waiting("MPI_Allreduce");
    in_pieces(values, [&](Number* first, int count) {
        check_mpi(MPI_Allreduce(MPI_IN_PLACE, first, count, type, operation, comm), "MPI_Allreduce");
    });
}

template <class Element>
void broadcast_all(MPI_Comm comm, std::span<Element> values, MPI_Datatype type, int root) {
    if (comm == MPI_COMM_NULL) return;
    const Waiting waiting("MPI_Bcast");
    in_pieces(values,
              [&](Element* first, int count) { check_mpi(MPI_Bcast(first, count, type, root, comm), "MPI_Bcast"); });
}

template <class Number>
std::vector<Number> gather_all(MPI_Comm comm, int ranks, std::span<const Number> values, MPI_Datatype type) {
    if (comm == MPI_COMM_NULL) return {values.begin(), values.end()};
    if (values.size() > INT_MAX) throw Error(text("all_gather of ", values.size(), " numbers (MPI counts are int)"));
    const Waiting waiting("MPI_Allgather");
    std::vector<Number> result(values.size() * static_cast<size_t>(ranks));
    const int count = static_cast<int>(values.size());
    check_mpi(MPI_Allgather(values.data(), count, type, result.data(), count, type, comm), "MPI_Allgather");
    return result;
}

}  // namespace

void check_mpi(int code, const char* call) {
    if (code == MPI_SUCCESS) return;
    char reason[MPI_MAX_ERROR_STRING] = "";
    int length = 0, initialized = 0, finalized = 0, rank = 0;
    MPI_Error_string(code, reason, &length);
    MPI_Initialized(&initialized);
    MPI_Finalized(&finalized);
    if (initialized && !finalized) MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    throw Error(text(call, " failed on rank ", rank, ", host ", host_name(), ": ", std::string(reason, length)),
                ExitCode::communication);
}

Communicator Communicator::duplicate(MPI_Comm parent) {
    const Waiting waiting("MPI_Comm_dup");
    MPI_Comm made = MPI_COMM_NULL;
    check_mpi(MPI_Comm_dup(parent, &made), "MPI_Comm_dup");
    return adopt(made);
}

Communicator Communicator::adopt(MPI_Comm made) {
    Communicator result;
    result.handle_ = std::make_shared<Handle>(made);
    check_mpi(MPI_Comm_set_errhandler(made, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    check_mpi(MPI_Comm_rank(made, &result.rank_), "MPI_Comm_rank");
    check_mpi(MPI_Comm_size(made, &result.size_), "MPI_Comm_size");
    return result;
}

MPI_Comm Communicator::get() const {
    return handle_ ? handle_->comm : MPI_COMM_NULL;
}

Communicator Communicator::split(int color) const {
    if (!handle_) return {};
    MPI_Comm made = MPI_COMM_NULL;
    const Waiting waiting("MPI_Comm_split");
    check_mpi(MPI_Comm_split(get(), color, rank_, &made), "MPI_Comm_split");
    return adopt(made);
}

Communicator Communicator::split_by_node() const {
    if (!handle_) return {};
    MPI_Comm made = MPI_COMM_NULL;
    const Waiting waiting("MPI_Comm_split_type");
    check_mpi(MPI_Comm_split_type(get(), MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &made), "MPI_Comm_split_type");
    return adopt(made);
}

void Communicator::barrier() const {
    if (!handle_) return;
    const Waiting waiting("MPI_Barrier");
    check_mpi(MPI_Barrier(get()), "MPI_Barrier");
}

double Communicator::sum(double value) const {
    return reduce(get(), value, MPI_DOUBLE, MPI_SUM);
}
int64_t Communicator::sum(int64_t value) const {
    return reduce(get(), value, MPI_INT64_T, MPI_SUM);
}
double Communicator::max(double value) const {
    return max_with_nan(get(), value);
}
int64_t Communicator::max(int64_t value) const {
    return reduce(get(), value, MPI_INT64_T, MPI_MAX);
}
double Communicator::min(double value) const {
    return -max_with_nan(get(), -value);
}
bool Communicator::all(bool value) const {
    return reduce(get(), int{value}, MPI_INT, MPI_MIN) != 0;
}
bool Communicator::any(bool value) const {
    return reduce(get(), int{value}, MPI_INT, MPI_MAX) != 0;
}

void Communicator::sum_in_place(std::span<double> values) const {
    reduce_all(get(), values, MPI_DOUBLE, MPI_SUM);
}
void Communicator::sum_in_place(std::span<float> values) const {
    reduce_all(get(), values, MPI_FLOAT, MPI_SUM);
}
void Communicator::unite_in_place(std::span<uint64_t> bits) const {
    reduce_all(get(), bits, MPI_UINT64_T, MPI_BOR);
}

void Communicator::broadcast(std::span<char> bytes, int root) const {
    broadcast_all(get(), bytes, MPI_CHAR, root);
}
void Communicator::broadcast(std::span<double> values, int root) const {
    broadcast_all(get(), values, MPI_DOUBLE, root);
}
void Communicator::broadcast(std::span<float> values, int root) const {
    broadcast_all(get(), values, MPI_FLOAT, root);
}

int64_t Communicator::broadcast(int64_t value, int root) const {
    broadcast_all(get(), std::span<int64_t>(&value, 1), MPI_INT64_T, root);
    return value;
}

std::string Communicator::broadcast(const std::string& value, int root) const {
    const int64_t length = broadcast(static_cast<int64_t>(value.size()), root);
    std::string result = rank_ == root ? value : std::string(static_cast<size_t>(length), '\0');
    broadcast(std::span<char>(result), root);
    return result;
}

std::vector<double> Communicator::all_gather(std::span<const double> values) const {
    return gather_all(get(), size_, values, MPI_DOUBLE);
}

std::vector<int64_t> Communicator::all_gather(std::span<const int64_t> values) const {
    return gather_all(get(), size_, values, MPI_INT64_T);
}

std::pair<size_t, size_t> Communicator::part_of(size_t bytes, int rank) const {
    const size_t part = (bytes + size_t(size_) - 1) / size_t(size_), first = std::min(bytes, part * size_t(rank));
    return {first, std::min(part, bytes - first)};
}

void Communicator::exchange_parts(std::span<char> whole) const {
    if (!handle_) return;
    if (whole.size() > INT_MAX) throw Error(text("exchange of ", whole.size(), " bytes (MPI counts are int)"));
    std::vector<int> counts, starts;
    for (int r = 0; r < size_; ++r) {
        const auto [first, count] = part_of(whole.size(), r);
        starts.push_back(int(first));
        counts.push_back(int(count));
    }
    check_mpi(MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_CHAR, whole.data(), counts.data(), starts.data(), MPI_CHAR, get()),
              "MPI_Allgatherv");
}

std::vector<std::string> Communicator::gather(const std::string& value, int root) const {
    if (!handle_) return {value};
    const int64_t total = sum(static_cast<int64_t>(value.size()));
    if (total > INT_MAX)  // known to all ranks, so all of them leave
        throw Error(text("gather of ", total, " bytes (MPI counts are int)"), ExitCode::communication);

    const bool receives = rank_ == root;
    const int length = static_cast<int>(value.size());
    std::vector<int> lengths(receives ? size_ : 0), starts(receives ? size_ : 0);
    const Waiting waiting("MPI_Gather");
    check_mpi(MPI_Gather(&length, 1, MPI_INT, lengths.data(), 1, MPI_INT, root, get()), "MPI_Gather");
    for (size_t i = 1; i < lengths.size(); ++i) starts[i] = starts[i - 1] + lengths[i - 1];
    std::string joined(receives ? static_cast<size_t>(total) : 0, '\0');
    check_mpi(MPI_Gatherv(value.data(), length, MPI_CHAR, joined.data(), lengths.data(), starts.data(), MPI_CHAR, root,
                          get()),
              "MPI_Gatherv");
    std::vector<std::string> result;
    for (size_t i = 0; i < lengths.size(); ++i) result.push_back(joined.substr(starts[i], lengths[i]));
    return result;
}

void Communicator::together(const std::function<void()>& work) const {
    std::string message;
    int64_t code = 0;
    bool failed = true;
    try {
        work();
        failed = false;
    } catch (const Error& error) {
        message = error.what();
        code = static_cast<int64_t>(error.code());
    } catch (const std::exception& error) {
        message = error.what();
        code = static_cast<int64_t>(ExitCode::failure);
    } catch (...) {
        message = "an exception of unknown type";
        code = static_cast<int64_t>(ExitCode::failure);
    }
    const int first_failed = reduce(get(), failed ? rank_ : size_, MPI_INT, MPI_MIN);
    if (first_failed == size_) return;
    message = broadcast(message, first_failed);
    code = broadcast(code, first_failed);
    throw SharedError(message, static_cast<ExitCode>(code));
}

void Communicator::on_root(const std::function<void()>& work) const {
    together([&] {
        if (is_root()) work();
    });
}

}  // namespace amalgam
