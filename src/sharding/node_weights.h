// SPDX-License-Identifier: Apache-2.0
// Weights of a Hugging Face folder, read from the file system once per node: every rank of a node reads a piece of each
// tensor, and the ranks exchange their parts in memory. A shared file system sees each byte requested once for a node,
// by all its ranks at the same time.
#pragma once

#include "comm/communicator.h"
#include "model/weights.h"
#include "storage/posix_file.h"

namespace amalgam {

class NodeSource : public HuggingFaceSource {
  public:
    /// The tensors of `listed`. find() is collective over `node`: all its ranks ask for the same tensors in the same
    /// order. If one of them cannot read its piece, all throw its error.
    NodeSource(const HuggingFaceSource& listed, const Communicator& node) : HuggingFaceSource(listed), node_(node) {}

    /// Of tensors, by this rank so far.
    int64_t bytes_read() const { return bytes_read_; }

  protected:
    void read(const SafetensorsEntry& entry, void* destination) const override;

  private:
    const PosixFile& open(const std::filesystem::path& file) const;

    Communicator node_;
    mutable std::map<std::filesystem::path, PosixFile> files_;  // each is opened once
    mutable int64_t bytes_read_ = 0;
};

}  // namespace amalgam
