// SPDX-License-Identifier: Apache-2.0
#include "sharding/mpi_collectives.h"

#include <ATen/ATen.h>

#include <atomic>
#include <cstring>
#include <exception>
#include <limits>
#include <thread>

#include "sharding/worker_thread.h"
#include "system/activity.h"
#include "system/clock.h"
#include "system/error.h"

namespace amalgam {
namespace {

constexpr int64_t most = std::numeric_limits<int>::max();  // MPI counts are int

int count_of(const at::Tensor& t) {
    if (t.numel() > most)
        throw Error(text("a collective of ", t.numel(), " elements for each rank (MPI counts are int); use more ranks"),
                    ExitCode::communication);
    return int(t.numel());
}

MPI_Datatype type_of(const at::Tensor& t) {
    switch (t.scalar_type()) {
        case at::kFloat:
            return MPI_FLOAT;
        case at::kLong:
            return MPI_INT64_T;
        case at::kBFloat16:
            return MPI_UINT16_T;  // MPI has no such type; see add_bfloat16
        default:
            throw Error(text("collectives on ", t.scalar_type(), " are not offered"));
    }
}

void add_bfloat16(void* in, void* inout, int* count, MPI_Datatype*) {
    const auto* a = static_cast<const at::BFloat16*>(in);
    auto* b = static_cast<at::BFloat16*>(inout);
    for (int i = 0; i < *count; ++i) b[i] = at::BFloat16(float(a[i]) + float(b[i]));
}

class MpiCollectives : public TensorCollectives {
  public:
    explicit MpiCollectives(const Communicator& group) : group_(group) {
        if (group_.size() == 1) return;
        background_ = Communicator::duplicate(group_.get());
        int level = MPI_THREAD_SINGLE;
        check_mpi(MPI_Query_thread(&level), "MPI_Query_thread");
        threaded_ = level >= MPI_THREAD_MULTIPLE;
        check_mpi(MPI_Op_create(add_bfloat16, /*commute=*/1, &bfloat16_sum_), "MPI_Op_create");
    }

    ~MpiCollectives() override {
        // While an exception is on its way other ranks may be missing: nothing may wait for them.
        if (std::uncaught_exceptions() > 0) abandoned_ = true;
        int finalized = 0;
        MPI_Finalized(&finalized);
        if (bfloat16_sum_ != MPI_OP_NULL && !finalized) MPI_Op_free(&bfloat16_sum_);
    }

    void all_reduce(at::Tensor& t) override {
        if (group_.size() == 1) return;
        const Waiting waiting("all-reduce of gradients");
        char* data = static_cast<char*>(t.data_ptr());
        for (int64_t first = 0; first < t.numel(); first += most) {
            const int count = int(std::min(most, t.numel() - first));
            check_mpi(
                MPI_Allreduce(MPI_IN_PLACE, data + first * t.element_size(), count, type_of(t), MPI_SUM, group_.get()),
                "MPI_Allreduce");
        }
    }

    Pending start_all_reduce(at::Tensor t) override {
        if (group_.size() == 1) return {};
        return start("all-reduce of gradients", [this, t, count = count_of(t)](MPI_Request* request) {
            check_mpi(
                MPI_Iallreduce(MPI_IN_PLACE, t.data_ptr(), count, type_of(t), MPI_SUM, background_.get(), request),
                "MPI_Iallreduce");
        });
    }

    Pending all_gather_into(at::Tensor whole, at::Tensor own) override {
        const bool in_place = own.data_ptr() == part_of(whole, own);
        if (group_.size() == 1) {
            if (!in_place) std::memcpy(whole.data_ptr(), own.data_ptr(), own.nbytes());
            return {};
        }
        return start("gathering of weights", [this, whole, own, in_place, count = count_of(own)](MPI_Request* request) {
            const void* send = in_place ? MPI_IN_PLACE : own.data_ptr();
            check_mpi(MPI_Iallgather(send, count, type_of(own), whole.data_ptr(), count, type_of(whole),
                                     background_.get(), request),
                      "MPI_Iallgather");
        });
    }

    Pending reduce_scatter_into(at::Tensor own, at::Tensor whole) override {
        if (group_.size() == 1) {
            std::memcpy(own.data_ptr(), whole.data_ptr(), own.nbytes());
            return {};
        }
        return start("reduce-scatter of gradients", [this, own, whole, count = count_of(own)](MPI_Request* request) {
            const MPI_Op sum = own.scalar_type() == at::kBFloat16 ? bfloat16_sum_ : MPI_SUM;
            check_mpi(MPI_Ireduce_scatter_block(whole.data_ptr(), own.data_ptr(), count, type_of(own), sum,
                                                background_.get(), request),
                      "MPI_Ireduce_scatter_block");
        });
    }

    double seconds_waited() const override { return waited_; }

  private:
    void* part_of(const at::Tensor& whole, const at::Tensor& own) const {
        return static_cast<char*>(whole.data_ptr()) + int64_t(group_.rank()) * int64_t(own.nbytes());
    }

    template <class Call>
    Pending start(const char* name, Call call) {
        auto work = [this, call] {
            if (abandoned_) return;
            MPI_Request request = MPI_REQUEST_NULL;
            call(&request);
            // A blocking call would spin; this leaves the core to the threads that compute.
            for (int done = 0; !done && !abandoned_; std::this_thread::yield())
                check_mpi(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
        };
        if (!threaded_) {
            const Waiting waiting(name);
            const Stopwatch watch;
            work();
            waited_ += watch.seconds();
            return {};
        }
        auto done = std::make_shared<std::future<void>>(worker_.run(std::move(work)));
        return Pending([this, name, done] {
            const Waiting waiting(name);
            const Stopwatch watch;
            done->wait();
            waited_ += watch.seconds();
            done->get();
        });
    }

    Communicator group_, background_;
    bool threaded_ = false;
    MPI_Op bfloat16_sum_ = MPI_OP_NULL;
    double waited_ = 0.0;
    std::atomic<bool> abandoned_ = false;
    WorkerThread worker_;  // last: it ends before what it uses
};

}  // namespace

std::unique_ptr<TensorCollectives> make_mpi_collectives(const Communicator& group) {
    return std::make_unique<MpiCollectives>(group);
}

}  // namespace amalgam
