// SPDX-License-Identifier: Apache-2.0
#include "stages/run.h"

#include <cstdio>
#include <fstream>
#include <sstream>

#include "job/job_values.h"
#include "job/job_writer.h"
#include "model/transfer.h"
#include "sharding/node_weights.h"
#include "stages/run_folder.h"
#include "system/clock.h"
#include "system/error.h"
#include "system/log.h"

namespace amalgam {

Run::Run(const Job& j, const Communicator& w)
    : job(j),
      world(w),
      folder(j.run_folder()),
      compute(set_up_compute(j, w)),
      stop(folder, double(walltime_seconds(j.walltime))) {
    world.on_root([&] { open_run_folder(job); });
    if (world.is_root()) log_to_file((folder / "log.txt").string());
    metrics_ = std::make_unique<MetricsFile>(world.is_root() ? folder / "metrics.csv" : std::filesystem::path());
    provenance_ = amalgam::provenance();
    provenance_.ranks = world.size();
    provenance_.job = to_yaml(job);
    info(text("run folder ", folder.string(), ", ", world.size(), " ranks, ", compute.description));
}

CausalLM& Run::teacher() {
    if (!teacher_) {
        const Stopwatch watch;
        world.together([&] { teacher_source_ = std::make_unique<HuggingFaceSource>(job.teacher.path); });
        int64_t bytes = 0;
        const Communicator node = world.split_by_node();
        world.together([&] {  // of other nodes; the ranks of one node fail together
            const NodeSource source(*teacher_source_, node);
            teacher_ = load_teacher(source, compute.device, compute.type);
            bytes = source.bytes_read();
        });
        info(text("teacher ", job.teacher.path, ": ", teacher_->config().family, ", ", teacher_->config().layers,
                  " layers, ", count_parameters(teacher_->config()), " parameters; each node read ", node.sum(bytes),
                  " bytes in ", format_duration(watch.seconds())));
    }
    return *teacher_;
}

const TensorSource& Run::teacher_source() {
    teacher();
    return *teacher_source_;
}

const TokenFile& Run::training_tokens() {
    if (!training_) world.together([&] { training_ = std::make_unique<TokenFile>(job.data.training); });
    return *training_;
}

const TokenFile& Run::validation_tokens() {
    if (!validation_) world.together([&] { validation_ = std::make_unique<TokenFile>(job.data.validation); });
    return *validation_;
}

HeldOutSet Run::held_out(int64_t sequences, int64_t sequence_length) {
    HeldOutSet set;
    const TokenFile& file = validation_tokens();
    world.together([&] { set = read_held_out(file, sequences, sequence_length); });
    return set;
}

LinearOptions Run::linear_options() {
    LinearOptions options;
    options.short_convolution = job.student.short_convolution;
    options.output_gate = job.student.output_gate;
    options.output_norm = job.student.output_norm;
    options.activation = job.student.activation;
    options.rope = job.student.rope;
    options.norm_eps = job.student.output_norm_eps == "reference" ? 1e-5 : teacher().config().rms_norm_eps;
    return options;
}

ModelSpec Run::student_spec(const Layout& layout) {
    return {teacher().config(), layout, linear_options()};
}

std::unique_ptr<CausalLM> Run::make_student(const Layout& layout, const std::vector<const TensorSource*>& sources,
                                            const Communicator& group) {
    auto student = std::make_unique<CausalLM>(student_spec(layout), compute.device, compute.type, /*trainable=*/true);
    group.together([&] { load_weights(*student, sources); });
    return student;
}

StageCheckpoints Run::checkpoints(const std::string& stage) const {
    return {folder / "checkpoints", stage, job.checkpoint.keep_last, job.checkpoint.keep_every_steps};
}

std::filesystem::path Run::candidate_file(int64_t candidate) const {
    char name[32];
    std::snprintf(name, sizeof name, "candidate-%03d.h5", int(candidate));
    return folder / "candidates" / name;
}

bool Run::is_finished(const std::string& stage) const {
    return world.broadcast(int64_t{world.is_root() && checkpoints(stage).is_finished()}) != 0;
}

std::unique_ptr<Checkpoint> Run::open_finished(const std::string& stage) const {
    std::unique_ptr<Checkpoint> checkpoint;
    world.together([&] { checkpoint = checkpoints(stage).open(checkpoints(stage).finished()); });
    return checkpoint;
}

std::unique_ptr<Checkpoint> Run::all_linear() {
    return open_finished(is_finished("align") ? "align" : "transfer");
}

Layout Run::selected_layout() {
    std::vector<int64_t> kept;
    world.together([&] {
        const ScoreTable table = read_scores(scores_file());
        if (!table.selection) throw Error(text(scores_file().string(), ": holds no selection"), ExitCode::damaged_file);
        kept = table.selection->layers;
    });
    return keep_softmax(teacher().config().layers, job.student.mixer, kept);
}

std::unique_ptr<Checkpoint> Run::newest_student() {
    for (const char* stage : {"finetune", "distill"})
        if (is_finished(stage)) return open_finished(stage);
    return nullptr;
}

TrainerSetup Run::trainer_setup(const std::string& stage) {
    TrainerSetup setup;
    setup.stage = stage;
    setup.seed = job.seed;
    setup.log_every_steps = job.log_every_steps;
    setup.deterministic = job.deterministic;
    setup.spike_guard = job.spike_guard;
    setup.max_skipped_updates = job.max_skipped_updates;
    setup.metrics = metrics_.get();
    setup.stop = &stop;
    setup.peak_flops = compute.peak_flops * world.size();
    setup.checkpoints = checkpoints(stage);
    setup.checkpoint = job.checkpoint;
    setup.provenance = provenance_;
    return setup;
}

}  // namespace amalgam
