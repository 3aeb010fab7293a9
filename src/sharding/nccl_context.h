// SPDX-License-Identifier: Apache-2.0
// ContextGroup over NCCL, for device tensors, one GPU a rank: point-to-point messages of a communicator for each pair
// of ranks, which the program never waits for, except that no more than 1 GiB are on the way.
//
// A pair has a stream of its own, on both sides. What it sends it reads after the work queued so far on the current
// stream, which does not wait for it; the tensor is kept until it is sent. What it expects it receives after that work,
// too, beside what is queued later; the current stream waits for it where its arrival is asked for.
//
// Why no rank waits for ever. NCCL's kernels wait on the device for their peers, and more may wait for them than the
// program says: operations of one communicator run one after the other, streams may share a queue of the hardware, and
// the program waits where too much is on the way, or for the whole device where it allocates or loads a kernel. At the
// very most, every operation of a rank waits for all that the program queued before it there, and every message for its
// receiver. That is harmless: messages are in an order in which each could wait for its receiver (context_group.h),
// collectives on sharded weights are calls at the same places of the same program on all ranks, and of all operations
// that are not over, the earliest waits for none of the others. It needs room on the device, though, while later ones
// may hold theirs. A block of NCCL's takes most of a multiprocessor, of which an H100 has 132: messages may occupy 32
// altogether (one for each of the other ranks, if these are more), gathering, reducing and the sum over replicas of
// sharded weights 32 each, if NCCL chooses its most. Kernels that compute wait for nobody and end.
#pragma once

#include <memory>

#include "comm/communicator.h"
#include "mixers/context_group.h"

namespace amalgam {

/// Collective over `group`. Sizes are not compared: a receiver that expects other ones gets what comes, or waits.
std::unique_ptr<ContextGroup> make_nccl_context(const Communicator& group, at::Device device);

}  // namespace amalgam
