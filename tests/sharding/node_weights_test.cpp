// SPDX-License-Identifier: Apache-2.0
#include "sharding/node_weights.h"

#include <gtest/gtest.h>

#include "../model/small_model.h"
#include "../storage/temporary_folder.h"
#include "system/error.h"

namespace amalgam {
namespace {

/// A folder that all ranks share; the ranks count as one node.
class NodeWeights : public test::TemporaryFolder {
  protected:
    void SetUp() override {
        shared = world.broadcast(folder.string());
        if (world.is_root()) test::write_model_folder(*model, shared);
        world.barrier();
    }
    void TearDown() override { world.barrier(); }

    const Communicator world = Communicator::duplicate(MPI_COMM_WORLD);
    const ModelConfig config = test::small_config();
    const std::unique_ptr<CausalLM> model = test::small_model({config, all_softmax(config.layers), {}}, 7);
    std::filesystem::path shared;
};

TEST_F(NodeWeights, are_the_same_and_each_byte_is_read_once) {
    const NodeSource source(HuggingFaceSource(shared), world);
    const auto loaded = load_teacher(config, source, at::kCPU, at::kFloat);
    int64_t bytes = 0;
    bool same = true;
    model->parameters().for_each_named([&](const std::string& name, at::Tensor t, Parameter&) {
        const auto found = ModelSource(*loaded, "").find(name);
        same = same && found && at::equal(*found, t);
        bytes += t.numel() * 4;
    });
    EXPECT_TRUE(world.all(same));
    EXPECT_EQ(world.sum(source.bytes_read()), bytes);
    const int64_t most = world.max(source.bytes_read());
    // Even parts, rounded up for each tensor.
    EXPECT_LE(most, bytes / world.size() + int64_t(model->parameters().all().size()) * 2 * world.size());
}

TEST_F(NodeWeights, that_one_rank_cannot_read_fail_on_all) {
    const NodeSource source(HuggingFaceSource(shared), world);
    world.barrier();  // all have listed the tensors before the file shrinks
    if (world.is_root())
        std::filesystem::resize_file(shared / "model.safetensors",
                                     std::filesystem::file_size(shared / "model.safetensors") - 1);
    world.barrier();
    std::string message;
    try {
        load_teacher(config, source, at::kCPU, at::kFloat);
    } catch (const SharedError& error) {
        message = error.what();
        EXPECT_EQ(error.code(), ExitCode::damaged_file);
    }
    EXPECT_TRUE(test::contains(message, "model.safetensors: ends at byte")) << message;
}

}  // namespace
}  // namespace amalgam
