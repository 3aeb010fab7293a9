// SPDX-License-Identifier: Apache-2.0
// How fast checkpoints are written, beside the same bytes written and synced plainly by as many processes, each to a
// file of its own. Both by turns; medians. Also: reading them, and how long training waits for a save in the
// background.
//
//   mpirun -np 2 checkpoint_benchmark FOLDER [LAYERS] [REPETITIONS]
//
// The tensors are those of SmolLM2-135M with 30 layers (the default), with both moments. CSV on standard output.
#include <ATen/ATen.h>

#include <cstdio>
#include <filesystem>

#include "checkpoints/checkpoint_saver.h"
#include "comm/mpi_session.h"
#include "random_models.h"
#include "storage/posix_file.h"

namespace amalgam {
namespace {

namespace fs = std::filesystem;
using benchmarks::median;

std::vector<TensorPiece> tensors_of(int64_t layers) {
    constexpr int64_t hidden = 576, intermediate = 1536, vocabulary = 49152, key_value = 192;
    std::vector<TensorPiece> all;
    for (const char* kind : {"/model/", "/optimizer/exp_avg/", "/optimizer/exp_avg_sq/"}) {
        const auto add = [&](const std::string& name, at::IntArrayRef shape) {
            all.push_back(whole_tensor(kind + name, at::randn(shape)));
        };
        add("embed", {vocabulary, hidden});
        for (int64_t layer = 0; layer < layers; ++layer) {
            const std::string prefix = "layers." + std::to_string(layer) + ".";
            for (const char* name : {"q", "o"}) add(prefix + name, {hidden, hidden});
            for (const char* name : {"k", "v"}) add(prefix + name, {key_value, hidden});
            for (const char* name : {"gate", "up"}) add(prefix + name, {intermediate, hidden});
            add(prefix + "down", {hidden, intermediate});
            for (const char* name : {"norm1", "norm2"}) add(prefix + name, {hidden});
        }
    }
    return all;
}

/// Seconds that the slowest rank takes.
double measure(const Communicator& world, const std::function<void()>& work) {
    world.barrier();
    const Stopwatch watch;
    work();
    return world.max(watch.seconds());
}

class Benchmark {
  public:
    Benchmark(fs::path folder, int64_t layers, const Communicator& world)
        : folder_(std::move(folder)),
          world_(world),
          whole_(tensors_of(layers)),
          mine_(even_pieces(whole_, world.rank(), world.size())),
          plain_(folder_ / ("plain-" + std::to_string(world.rank()))),
          files_(folder_, "distill", 1) {
        header_.state.stage = "distill";
        header_.optimizer_steps = 1;
        if (world.is_root()) fs::create_directories(folder_);
        world.barrier();
    }
    ~Benchmark() {
        fs::remove(plain_);
        world_.barrier();
        if (world_.is_root()) fs::remove(files_.at_step(header_.state.step));
    }

    int64_t bytes() const {
        int64_t all = 0;
        for (const TensorPiece& piece : whole_) all += int64_t(piece.values.nbytes());
        return all;
    }

    /// Each process into a file of its own.
    double plain_write() {
        fs::remove(plain_);
        return measure(world_, [&] {
            PosixFile file = PosixFile::create(plain_);
            for (const TensorPiece& piece : mine_)
                file.write(piece.values.const_data_ptr(), int64_t(piece.values.nbytes()));
            file.sync();
            file.close();
        });
    }

    /// All into one file, one behind the other, as in a checkpoint. Many file systems let only one write at a time.
    double plain_shared_write() {
        const fs::path path = folder_ / "plain";
        if (world_.is_root()) PosixFile::create(path).close();
        const double seconds = measure(world_, [&] {
            PosixFile file = PosixFile::update(path);
            int64_t offset = bytes() / world_.size() * world_.rank();
            for (const TensorPiece& piece : mine_) {
                file.write_at(offset, piece.values.const_data_ptr(), int64_t(piece.values.nbytes()));
                offset += int64_t(piece.values.nbytes());
            }
            file.sync();
            file.close();
        });
        if (world_.is_root()) fs::remove(path);
        return seconds;
    }

    struct Saved {
        double make, write, finish;
    };
    Saved checkpoint() {
        std::filesystem::remove(files_.at_step(header_.state.step));
        world_.barrier();
        ++header_.state.step;
        std::unique_ptr<CheckpointWriter> writer;
        Saved seconds{};
        seconds.make = measure(world_, [&] {
            writer = std::make_unique<CheckpointWriter>(files_.at_step(header_.state.step), header_, mine_, world_);
        });
        seconds.write = measure(world_, [&] { writer->write(); });
        seconds.finish = measure(world_, [&] { writer->finish(); });
        return seconds;
    }

    /// What training waits for: copying, making the file, and the end, when the data are on the disk.
    std::pair<double, double> background() {
        ++header_.state.step;
        CheckpointSaver saver(files_, options(BackgroundSaving::always), world_);
        const double begin = measure(world_, [&] { saver.save(header_, mine_); });
        double end = 0.0;
        while (!fs::exists(files_.at_step(header_.state.step))) end = measure(world_, [&] { saver.poll(); });
        return {begin, end};
    }

    double read() {
        return measure(world_, [&] { files_.open(files_.at_step(header_.state.step))->read(mine_, world_); });
    }

  private:
    static CheckpointJob options(BackgroundSaving background) {
        CheckpointJob job;
        job.background = background;
        return job;
    }

    fs::path folder_;
    Communicator world_;
    std::vector<TensorPiece> whole_, mine_;
    fs::path plain_;
    StageCheckpoints files_;
    CheckpointHeader header_;
};

void run(const Communicator& world, const fs::path& folder, int64_t layers, int repetitions) {
    Benchmark benchmark(folder, layers, world);
    std::vector<double> plain, shared, saved, make, write, finish, begin, end, read;
    for (int i = 0; i <= repetitions; ++i) {  // the first is not counted
        const double p = benchmark.plain_write(), one = benchmark.plain_shared_write();
        const auto s = benchmark.checkpoint();
        const double r = benchmark.read();
        const auto [b, e] = benchmark.background();
        if (i == 0) continue;
        plain.push_back(p);
        shared.push_back(one);
        saved.push_back(s.make + s.write + s.finish);
        make.push_back(s.make);
        write.push_back(s.write);
        finish.push_back(s.finish);
        read.push_back(r);
        begin.push_back(b);
        end.push_back(e);
    }
    if (!world.is_root()) return;
    const double mib = double(benchmark.bytes()) / double(1 << 20);
    std::printf("what,ranks,MiB,repetitions,median_s,MiB_per_s\n");
    const auto row = [&](const char* what, const std::vector<double>& seconds) {
        std::printf("%s,%d,%.0f,%d,%.4f,%.0f\n", what, world.size(), mib, repetitions, median(seconds),
                    mib / median(seconds));
    };
    row("plain write and fsync", plain);
    row("plain write and fsync (one shared file)", shared);
    row("checkpoint", saved);
    row("checkpoint: making the file", make);
    row("checkpoint: parts written and synced", write);
    row("checkpoint: marked and renamed", finish);
    row("read and checked (from the page cache)", read);
    row("background: training waits at the start", begin);
    row("background: training waits at the end", end);
    std::printf("# checkpoint at %.0f %% of the speed of plain write and fsync\n",
                100.0 * median(plain) / median(saved));
}

}  // namespace
}  // namespace amalgam

int main(int argc, char** argv) {
    const amalgam::MpiSession session(&argc, &argv);
    if (argc < 2) {
        std::fprintf(stderr, "usage: %s FOLDER [LAYERS] [REPETITIONS]\n", argv[0]);
        return 2;
    }
    amalgam::run(session.world(), argv[1], argc > 2 ? std::stoll(argv[2]) : 30, argc > 3 ? std::stoi(argv[3]) : 7);
    return 0;
}
