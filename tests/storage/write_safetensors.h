// SPDX-License-Identifier: Apache-2.0
// A model folder of tensors that are all there.
#pragma once

#include "storage/safetensors.h"

namespace amalgam::test {

struct TensorToWrite {
    std::string name;
    SafetensorsType type;
    std::vector<int64_t> shape;
    const void* data;  // contiguous
};

inline void write_safetensors(const std::filesystem::path& folder, const std::vector<TensorToWrite>& tensors,
                              int64_t shard_bytes = int64_t{4} << 30) {
    SafetensorsWriter writer(folder, shard_bytes);
    for (const TensorToWrite& t : tensors) writer.add(t.name, t.type, t.shape, t.data);
    writer.finish();
    writer.publish();
}

}  // namespace amalgam::test
