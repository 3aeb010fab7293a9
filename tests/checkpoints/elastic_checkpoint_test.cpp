// SPDX-License-Identifier: Apache-2.0
// Checkpoints do not depend on the ranks: written by any number in any parts they have the same bytes, and any number
// reads any parts of them. Eight ranks play groups of 1, 2, 3, 4 and 8.
#include <map>

#include "../model/small_model.h"
#include "../storage/temporary_folder.h"
#include "checkpoints/checkpoint.h"

namespace amalgam {
namespace {

using test::expect_error;
using Pieces = std::vector<TensorPiece>;

/// How ranks divide a tensor: the first element of each, and the end.
using Cut = std::function<std::vector<int64_t>(int64_t elements, int64_t ranks)>;

std::vector<int64_t> even(int64_t elements, int64_t ranks) {
    std::vector<int64_t> firsts;
    for (int64_t r = 0; r <= ranks; ++r) firsts.push_back(elements * r / ranks);
    return firsts;
}

/// Rank r has 2^r parts in 2^ranks - 1, so the first ones of a short tensor have none.
std::vector<int64_t> uneven(int64_t elements, int64_t ranks) {
    std::vector<int64_t> firsts;
    for (int64_t r = 0; r <= ranks; ++r) firsts.push_back(elements * ((1 << r) - 1) / ((1 << ranks) - 1));
    return firsts;
}

std::vector<int64_t> all_on_the_last(int64_t elements, int64_t ranks) {
    std::vector<int64_t> firsts(size_t(ranks), 0);
    firsts.push_back(elements);
    return firsts;
}

class ElasticCheckpoint : public test::TemporaryFolder {
  protected:
    void SetUp() override {
        shared = world.broadcast(folder.string());
        // Nothing here is divisible by 2, 3 or 8; 61 is the size of a vocabulary.
        for (const auto& shape : std::vector<std::vector<int64_t>>{{61, 47}, {1}, {5}, {7, 3, 11}, {4099}, {2053}})
            whole.push_back(whole_tensor("/model/tensor" + std::to_string(whole.size()),
                                         test::normal_numbers(shape, whole.size())));
    }
    void TearDown() override { world.barrier(); }

    Pieces pieces(const Pieces& of, const Cut& cut, int64_t rank, int64_t ranks) const {
        Pieces result;
        for (const TensorPiece& t : of) {
            const auto firsts = cut(t.values.numel(), ranks);
            const int64_t first = firsts[size_t(rank)], count = firsts[size_t(rank) + 1] - first;
            result.push_back({t.name, t.shape, first, t.values.narrow(0, first, count)});
        }
        return result;
    }

    /// By the first `ranks` ranks; the last of them has the first parts if `reversed`.
    std::filesystem::path write(const std::string& name, int ranks, const Cut& cut, bool reversed = false) {
        const Communicator group = world.split(world.rank() < ranks);
        if (world.rank() < ranks) {
            const int place = reversed ? ranks - 1 - group.rank() : group.rank();
            CheckpointWriter writer(shared / name, header, pieces(whole, cut, place, ranks), group);
            writer.write();
            writer.finish();
        }
        world.barrier();
        return shared / name;
    }

    /// Empty tensors like `whole`.
    Pieces blank() const {
        Pieces result = whole;
        for (TensorPiece& t : result) t.values = at::full_like(t.values, -1e30);
        return result;
    }

    static std::string first_difference(const Pieces& a, const Pieces& b) {
        for (size_t i = 0; i < a.size(); ++i)
            if (!at::equal(a[i].values, b[i].values)) return a[i].name;
        return "";
    }

    const Communicator world = Communicator::duplicate(MPI_COMM_WORLD);
    const CheckpointHeader header{
        {"align", 3, 1536, 12, 77}, {test::small_config("llama"), all_softmax(3), {}}, 7, Provenance{}};
    std::filesystem::path shared;
    Pieces whole;
};

/// Every dataset with its bytes and checksum.
std::map<std::string, std::pair<std::string, int64_t>> datasets_of(const std::filesystem::path& path) {
    const H5File file = H5File::open(path);
    std::map<std::string, std::pair<std::string, int64_t>> all;
    for (const DatasetInfo& info : file.list()) {
        size_t bytes = bytes_of(info.type);
        for (const int64_t extent : info.shape) bytes *= size_t(extent);
        std::string content(bytes, 'x');
        file.read(info.path, info.type, content.data());
        all[info.path] = {content, file.integer_attribute(info.path, "crc32")};
    }
    return all;
}

TEST_F(ElasticCheckpoint, has_the_same_bytes_and_checksums_whoever_wrote_it) {
    const auto expected = datasets_of(write("one", 1, even));
    ASSERT_EQ(expected.size(), whole.size());
    for (const int ranks : {2, 3, 4, 8})
        for (const Cut& cut : std::vector<Cut>{even, uneven, all_on_the_last})
            for (const bool reversed : {false, true}) {
                const auto path = write("many", ranks, cut, reversed);
                if (world.is_root()) {
                    EXPECT_TRUE(datasets_of(path) == expected) << ranks << " ranks";
                }
                world.barrier();
            }
}

TEST_F(ElasticCheckpoint, carries_checksums_that_anybody_can_take) {
    const auto path = write("four", 4, uneven);
    if (!world.is_root()) return;
    const H5File file = H5File::open(path);
    // The reference: bit by bit, polynomial 0xEDB88320.
    const auto crc = [](const at::Tensor& t) {
        uint32_t state = 0xFFFFFFFFU;
        const auto* bytes = static_cast<const unsigned char*>(t.const_data_ptr());
        for (size_t i = 0; i < t.nbytes(); ++i) {
            state ^= bytes[i];
            for (int bit = 0; bit < 8; ++bit) state = (state >> 1) ^ (state & 1 ? 0xEDB88320U : 0U);
        }
        return int64_t{state ^ 0xFFFFFFFFU};
    };
    for (const TensorPiece& t : whole) EXPECT_EQ(file.integer_attribute(t.name, "crc32"), crc(t.values)) << t.name;
}

TEST_F(ElasticCheckpoint, is_read_by_any_number_of_ranks) {
    const auto path = write("four", 4, uneven);
    const Checkpoint checkpoint(path);
    EXPECT_EQ(checkpoint.optimizer_steps(), 7);
    for (const int ranks : {1, 2, 3, 8}) {
        const Communicator group = world.split(world.rank() < ranks);
        if (world.rank() < ranks) {
            for (const Cut& cut : std::vector<Cut>{even, uneven, all_on_the_last}) {
                const Pieces mine = pieces(blank(), cut, group.rank(), ranks);
                checkpoint.read(mine, group);
                EXPECT_EQ(first_difference(mine, pieces(whole, cut, group.rank(), ranks)), "");
            }
            const Pieces everything = blank(), replica = blank();
            checkpoint.read(everything, group);
            EXPECT_EQ(first_difference(everything, whole), "");
            checkpoint.read_replicas(replica, group);
            EXPECT_EQ(first_difference(replica, whole), "");
        }
        world.barrier();
    }
}

TEST_F(ElasticCheckpoint, a_flipped_bit_is_found_by_all_ranks_however_they_read) {
    const auto path = write("four", 4, even);
    if (world.is_root()) {
        const int64_t offset = H5File::open(path).offset_of("/model/tensor4");
        std::string content = test::content_of(path);
        content[size_t(offset) + 4 * 2050] ^= 4;
        test::put(path, content);
    }
    world.barrier();
    const Checkpoint checkpoint(path);
    for (const Cut& cut : std::vector<Cut>{even, uneven, all_on_the_last})
        expect_error([&] { checkpoint.read(pieces(blank(), cut, world.rank(), world.size()), world); },
                     ExitCode::damaged_file, {path.string(), "/model/tensor4", "checksum"});
    expect_error([&] { checkpoint.read(blank(), world); }, ExitCode::damaged_file, {path.string(), "/model/tensor4"});
    expect_error([&] { checkpoint.read_replicas(blank(), world); }, ExitCode::damaged_file, {"/model/tensor4"});
}

TEST_F(ElasticCheckpoint, missing_and_misshapen_tensors_are_named_on_all_ranks) {
    const Checkpoint checkpoint(write("four", 4, even));
    Pieces more = blank();
    more.push_back(whole_tensor("/model/another", at::zeros({3})));
    expect_error([&] { checkpoint.read_replicas(more, world); }, ExitCode::damaged_file,
                 {checkpoint.where(), "/model/another"});
    Pieces other = blank();
    other[3].shape = {7, 33};
    expect_error([&] { checkpoint.read_replicas(other, world); }, ExitCode::damaged_file,
                 {checkpoint.where(), "/model/tensor3", "[7, 3, 11]", "[7, 33]"});
}

TEST_F(ElasticCheckpoint, parts_that_do_not_cover_a_tensor_are_an_error) {
    const auto path = shared / "holes";
    const auto attempt = [&](const Pieces& mine) {
        CheckpointWriter writer(path, header, mine, world);
        writer.write();
        writer.finish();
    };
    Pieces mine = pieces(whole, even, world.rank(), world.size());
    if (world.rank() == 5) mine[0].values = mine[0].values.narrow(0, 1, mine[0].values.numel() - 1);
    expect_error([&] { attempt(mine); }, ExitCode::failure, {path.string(), "/model/tensor0"});
    mine = pieces(whole, even, world.rank(), world.size());
    if (world.rank() == 3) std::swap(mine[0], mine[1]);
    expect_error([&] { attempt(mine); }, ExitCode::failure, {path.string(), "different tensors"});
    world.barrier();
    EXPECT_FALSE(std::filesystem::exists(path));
    world.barrier();
    if (world.is_root()) {
        EXPECT_EQ(std::distance(std::filesystem::directory_iterator(shared), {}), 0);
    }
}

TEST_F(ElasticCheckpoint, a_rank_that_cannot_write_is_everybodys_failure_and_spares_the_old_file) {
    const auto path = write("checkpoint", 4, even);
    const std::string before = test::content_of(path);
    CheckpointWriter writer(path, header, pieces(whole, even, world.rank(), world.size()), world);
    if (world.rank() == 6) std::filesystem::remove(test::temporaries_of(path).at(0));
    world.barrier();
    writer.write();
    expect_error([&] { writer.finish(); }, ExitCode::storage, {path.string(), "No such file"});
    EXPECT_TRUE(test::content_of(path) == before);
}

TEST(EvenPieces, cover_each_tensor_once_in_equal_stretches) {
    Pieces whole;
    for (const int64_t elements : {3, 5000, 1, 100000, 2048, 7})
        whole.push_back(whole_tensor("t", at::arange(elements, at::kFloat)));
    const int64_t total = 3 + 5000 + 1 + 100000 + 2048 + 7;
    for (const int64_t ranks : {1, 2, 3, 8, 500}) {
        std::vector<int64_t> next(whole.size(), 0);
        for (int64_t rank = 0; rank < ranks; ++rank) {
            int64_t mine = 0;
            const Pieces part = even_pieces(whole, rank, ranks);
            for (size_t i = 0; i < part.size(); ++i) {
                ASSERT_EQ(part[i].first, next[i]);
                if (part[i].values.numel() > 0) {
                    EXPECT_EQ(part[i].values[0].item<float>(), float(part[i].first));
                }
                if (part[i].first < whole_elements(part[i])) {
                    EXPECT_EQ(part[i].first % 1024, 0);
                }
                next[i] += part[i].values.numel();
                mine += part[i].values.numel();
            }
            EXPECT_LE(mine, total / ranks + 1 + 2 * 1024);
        }
        for (size_t i = 0; i < whole.size(); ++i) EXPECT_EQ(next[i], whole_elements(whole[i]));
    }
}

}  // namespace
}  // namespace amalgam
