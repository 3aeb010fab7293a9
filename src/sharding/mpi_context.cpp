// SPDX-License-Identifier: Apache-2.0
#include "sharding/mpi_context.h"

#include <ATen/ATen.h>

#include <atomic>
#include <deque>
#include <exception>
#include <future>
#include <memory>
#include <thread>
#include <vector>

#include "sharding/worker_thread.h"
#include "system/activity.h"
#include "system/error.h"

namespace amalgam {
namespace {

constexpr int tag = 0;
constexpr size_t most_bytes = size_t{1} << 30;  // of one message: MPI counts are int
constexpr size_t most_on_the_way = 16;          // tensors that wait for later ranks, which may be layers behind

class MpiContext : public ContextGroup {
  public:
    explicit MpiContext(const Communicator& group) : group_(Communicator::duplicate(group.get())) {
        int level = MPI_THREAD_SINGLE;
        check_mpi(MPI_Query_thread(&level), "MPI_Query_thread");
        threaded_ = level >= MPI_THREAD_MULTIPLE;
    }

    ~MpiContext() override {
        // While an exception is on its way other ranks may be missing: nothing may wait for them.
        if (std::uncaught_exceptions() > 0) abandoned_ = true;
    }

    int64_t ranks() const override { return group_.size(); }
    int64_t rank() const override { return group_.rank(); }

    void send(const at::Tensor& t, int64_t to) override {
        const Waiting waiting("sending of a piece's end");
        const auto work = [this, t = t.contiguous(), to] {
            Parts parts = begin(t, to, /*sends=*/true);
            finish(parts, to, /*sends=*/true);
        };
        if (!threaded_) return work();
        while (!on_the_way_.empty() && (on_the_way_.size() >= most_on_the_way || is_over(on_the_way_.front()))) {
            on_the_way_.front().get();
            on_the_way_.pop_front();
        }
        on_the_way_.push_back(sender_.run(work));
    }

    Arrival expect(at::IntArrayRef sizes, const at::TensorOptions& like, int64_t from) override {
        const at::Tensor t = at::empty(sizes, like);
        const auto parts = std::make_shared<Parts>(begin(t, from, /*sends=*/false));
        return [this, t, parts, from] {
            const Waiting waiting("waiting for the rank with a neighbouring piece");
            finish(*parts, from, /*sends=*/false);
            return t;
        };
    }

  private:
    static bool is_over(const std::future<void>& work) {
        return work.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
    }

    /// A tensor on its way: a message of each most_bytes.
    struct Part {
        MPI_Request request;
        int bytes;
    };
    using Parts = std::vector<Part>;

    Parts begin(const at::Tensor& t, int64_t other, bool sends) const {
        char* data = static_cast<char*>(t.data_ptr());
        Parts parts;
        for (size_t first = 0; first < t.nbytes(); first += most_bytes) {
            Part& part = parts.emplace_back(Part{MPI_REQUEST_NULL, int(std::min(most_bytes, t.nbytes() - first))});
            if (sends)
                check_mpi(MPI_Isend(data + first, part.bytes, MPI_BYTE, int(other), tag, group_.get(), &part.request),
                          "MPI_Isend");
            else
                check_mpi(MPI_Irecv(data + first, part.bytes, MPI_BYTE, int(other), tag, group_.get(), &part.request),
                          "MPI_Irecv");
        }
        return parts;
    }

    void finish(Parts& parts, int64_t other, bool sends) const {
        for (Part& part : parts) {
            // A blocking call would spin; this leaves the core to the threads that compute.
            MPI_Status status;
            for (int done = 0; !done && !abandoned_; std::this_thread::yield())
                check_mpi(MPI_Test(&part.request, &done, &status), sends ? "MPI_Isend" : "MPI_Irecv");
            if (!sends && !abandoned_) expect_size(status, part.bytes, other);
        }
    }

    /// A message of another size means that the ranks have lost step.
    void expect_size(const MPI_Status& status, int bytes, int64_t other) const {
        int came = 0;
        check_mpi(MPI_Get_count(&status, MPI_BYTE, &came), "MPI_Get_count");
        if (came != bytes)
            throw Error(text("rank ", rank(), " of a context group got ", came, " bytes from rank ", other,
                             " and expected ", bytes),
                        ExitCode::communication);
    }

    Communicator group_;
    bool threaded_ = false;
    std::atomic<bool> abandoned_ = false;
    std::deque<std::future<void>> on_the_way_;
    WorkerThread sender_;  // last: it ends before what it uses
};

}  // namespace

std::unique_ptr<ContextGroup> make_mpi_context(const Communicator& group) {
    return std::make_unique<MpiContext>(group);
}

}  // namespace amalgam
