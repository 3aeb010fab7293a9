// SPDX-License-Identifier: Apache-2.0
#include "sharding/nccl_context.h"

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <deque>
#include <exception>
#include <memory>
#include <vector>

#include "sharding/nccl_link.h"
#include "system/activity.h"

namespace amalgam {
namespace {

constexpr int blocks_of_all_pairs = 32, most_blocks_of_a_pair = 8;
// Questions of one softmax layer about 64 Ki tokens of 12 heads of 128, to three ranks, are 0.9 GB
// (attention_of_piece).
constexpr size_t most_bytes_on_the_way = size_t{1} << 30;

class NcclContext : public ContextGroup {
  public:
    NcclContext(const Communicator& group, at::Device device) : group_(group), device_(device) {
        pairs_.resize(size_t(group_.size()));
        const int blocks = std::clamp(blocks_of_all_pairs / std::max(group_.size() - 1, 1), 1, most_blocks_of_a_pair);
        for (int high = 1; high < group_.size(); ++high)
            for (int low = 0; low < high; ++low) {
                ncclUniqueId id{};
                if (group_.rank() == low) id = make_nccl_id();
                group_.broadcast(std::span<char>(reinterpret_cast<char*>(&id), sizeof id), low);
                if (group_.rank() == low) pairs_[size_t(high)] = std::make_unique<Pair>(id, 0, device_, blocks);
                if (group_.rank() == high) pairs_[size_t(low)] = std::make_unique<Pair>(id, 1, device_, blocks);
            }
    }

    ~NcclContext() override {
        // While an exception is on its way other ranks may be missing: nothing may wait for them.
        if (std::uncaught_exceptions() > 0) return;
        const Waiting waiting("the last messages of a context group");
        for (const auto& pair : pairs_)
            if (pair) (void)cudaStreamSynchronize(pair->stream.stream());  // a destructor does not throw
    }

    int64_t ranks() const override { return group_.size(); }
    int64_t rank() const override { return group_.rank(); }

    void send(const at::Tensor& t, int64_t to) override {
        const c10::cuda::CUDAGuard guard(device_);
        const at::Tensor whole = t.contiguous();
        forget_what_is_sent(whole.nbytes());
        Pair& pair = *pairs_[size_t(to)];
        pair.wait_for_current();
        {
            const Waiting waiting("ncclSend");
            check_nccl(ncclSend(whole.const_data_ptr(), whole.nbytes(), ncclInt8, pair.other, pair.link.get(),
                                pair.stream.stream()),
                       "ncclSend");
        }
        OnTheWay& sent = on_the_way_.emplace_back();
        sent.tensor = whole;
        sent.done.record(pair.stream);
        bytes_on_the_way_ += whole.nbytes();
    }

    Arrival expect(at::IntArrayRef sizes, const at::TensorOptions& like, int64_t from) override {
        const c10::cuda::CUDAGuard guard(device_);
        forget_what_is_sent(0);
        at::Tensor t = at::empty(sizes, like);
        Pair& pair = *pairs_[size_t(from)];
        pair.wait_for_current();  // its memory may have been another tensor's, which queued work still reads
        {
            const Waiting waiting("ncclRecv");
            check_nccl(ncclRecv(t.data_ptr(), t.nbytes(), ncclInt8, pair.other, pair.link.get(), pair.stream.stream()),
                       "ncclRecv");
        }
        const auto there = std::make_shared<at::cuda::CUDAEvent>();
        there->record(pair.stream);
        return [t, there] {
            there->block(c10::cuda::getCurrentCUDAStream(t.get_device()));
            return t;
        };
    }

  private:
    /// This rank and another one.
    struct Pair {
        NcclLink link;
        int other;  // in the communicator
        c10::cuda::CUDAStream stream;

        /// Sends a number each way, so that NCCL connects the two now and no later call waits for that.
        Pair(const ncclUniqueId& id, int own, at::Device device, int blocks)
            : link(id, 2, own, device, blocks),
              other(1 - own),
              stream(c10::cuda::getStreamFromPool(/*isHighPriority=*/true, device.index())) {
            const c10::cuda::CUDAGuard guard(device);
            const at::Tensor numbers = at::zeros({2}, at::TensorOptions(device).dtype(at::kFloat));
            wait_for_current();
            float* const data = numbers.data_ptr<float>();
            const Waiting waiting("the first messages of a context group");
            check_nccl(ncclGroupStart(), "ncclGroupStart");
            check_nccl(ncclSend(data, 1, ncclFloat32, other, link.get(), stream.stream()), "ncclSend");
            check_nccl(ncclRecv(data + 1, 1, ncclFloat32, other, link.get(), stream.stream()), "ncclRecv");
            check_nccl(ncclGroupEnd(), "ncclGroupEnd");
            stream.synchronize();
        }

        void wait_for_current() const {
            at::cuda::CUDAEvent ready;
            ready.record(c10::cuda::getCurrentCUDAStream(stream.device_index()));
            ready.block(stream);
        }
    };

    struct OnTheWay {
        at::Tensor tensor;
        at::cuda::CUDAEvent done;
    };

    /// Lets go of tensors that have arrived, and waits until so many bytes more may be on the way.
    void forget_what_is_sent(size_t more) {
        while (!on_the_way_.empty()) {
            OnTheWay& first = on_the_way_.front();
            if (!first.done.query()) {
                if (bytes_on_the_way_ + more <= most_bytes_on_the_way) return;
                const Waiting waiting("sending of a piece's end");
                first.done.synchronize();
            }
            bytes_on_the_way_ -= first.tensor.nbytes();
            on_the_way_.pop_front();
        }
    }

    Communicator group_;
    at::Device device_;
    std::vector<std::unique_ptr<Pair>> pairs_;  // with each of the others
    std::deque<OnTheWay> on_the_way_;
    size_t bytes_on_the_way_ = 0;
};

}  // namespace

std::unique_ptr<ContextGroup> make_nccl_context(const Communicator& group, at::Device device) {
    return std::make_unique<NcclContext>(group, device);
}

}  // namespace amalgam
