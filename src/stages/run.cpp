// SPDX-License-Identifier: Apache-2.0
#include "stages/run.h"

#include <cstdio>
#include <fstream>
#include <span>
#include <sstream>

#include "evaluation/requests.h"
#include "job/job_values.h"
#include "job/job_writer.h"
#include "job/student_spec.h"
#include "job/training_plan.h"
#include "model/transfer.h"
#include "selection/selection.h"
#include "sharding/context_ranks.h"
#include "sharding/node_weights.h"
#include "stages/run_folder.h"
#include "stages/training_stage.h"
#include "system/clock.h"
#include "system/error.h"
#include "system/log.h"

namespace amalgam {

Run::Run(const Job& j, const Communicator& w)
    : job(j),
      world(w),
      node(w.split_by_node()),
      folder(j.run_folder()),
      compute(set_up_compute(j, world, node)),
      stop(folder, double(walltime_seconds(j.walltime))) {
    world.on_root([&] {
        lock_ = std::make_unique<FolderLock>(folder);
        open_run_folder(job);
    });
    if (world.is_root()) log_to_file((folder / "log.txt").string());
    metrics_ = std::make_unique<MetricsFile>(world.is_root() ? folder / "metrics.csv" : std::filesystem::path());
    provenance_ = provenance_of(job);
    provenance_.ranks = world.size();
    info(text("run folder ", folder.string(), ", ", world.size(), " ranks, ", compute.description));
    if (!compute.warning.empty()) warn(compute.warning);
}

const TeacherFolder& Run::teacher_folder() {
    if (!teacher_folder_) {
        // What takes reading values, the root does for all.
        world.on_root([&] { teacher_folder_ = read_teacher_folder(job.teacher.path); });
        const bool tied = world.broadcast(int64_t{world.is_root() && teacher_folder_->config.tied_head}) != 0;
        world.together([&] {
            if (!teacher_folder_) teacher_folder_ = read_teacher_folder(job.teacher.path, tied);
        });
        const ModelConfig& config = teacher_folder_->config;
        info(text("teacher ", job.teacher.path, ": ", config.family, ", ", config.layers, " layers, ",
                  count_parameters(config), " parameters"));
    }
    return *teacher_folder_;
}

const ModelConfig& Run::teacher_config() {
    return teacher_folder().config;
}

const HuggingFaceSource& Run::teacher_source() {
    if (!teacher_source_) teacher_source_ = std::make_unique<HuggingFaceSource>(teacher_folder());
    return *teacher_source_;
}

CausalLM& Run::teacher(ShardingStrategy sharding, const Communicator& group) {
    const bool whole = sharding == ShardingStrategy::none || sharding == ShardingStrategy::optimizer;
    const std::pair wanted = {whole ? ShardingStrategy::none : sharding, whole ? MPI_COMM_NULL : group.get()};
    if (teacher_ && teacher_is_for_ == wanted) return *teacher_;
    const Stopwatch watch;
    teacher_source();
    teacher_shards_.reset();
    const ModelSpec spec = {teacher_config(), all_softmax(teacher_config().layers), {}};
    teacher_ = std::make_unique<CausalLM>(spec, compute.device, compute.type, /*trainable=*/false,
                                          whole ? Allocation::now : Allocation::later);
    if (!whole)
        teacher_shards_ = std::make_unique<ShardedModel>(*teacher_, /*trainable=*/false, group,
                                                         sharding_options(job.sharding, sharding));
    int64_t bytes = 0;
    world.together([&] {  // of other nodes; the ranks of one node fail together
        const NodeSource source(*teacher_source_, node);
        if (teacher_shards_)
            load_weights(*teacher_shards_, {&source});
        else
            load_weights(*teacher_, {&source});
        bytes = source.bytes_read();
    });
    info(text("teacher: each node read ", node.sum(bytes), " bytes in ", format_duration(watch.seconds())));
    teacher_is_for_ = wanted;
    return *teacher_;
}

const TokenFile& Run::training_tokens() {
    if (!training_) world.together([&] { training_ = std::make_unique<TokenFile>(job.data.training); });
    return *training_;
}

const TokenFile& Run::validation_tokens() {
    if (!validation_) world.together([&] { validation_ = std::make_unique<TokenFile>(job.data.validation); });
    return *validation_;
}

Batches Run::batches(const std::string& stage, const TrainingJob& training, const std::string& order) {
    RecallWording wording;
    if (trains_on_questions(training))
        wording = read_recall_wording(job.data.validation, training.question_kinds, QuestionKeys::of_training(stage));
    Batches made(training_tokens(), training, uint64_t(job.seed), order, job.data.documents, wording, job.data.packing);
    const std::string packing = made.packing_in_words();
    if (!packing.empty() && order == stage) info(text(stage, ": ", packing));
    return made;
}

HeldOutSet Run::held_out(int64_t sequences, int64_t sequence_length) {
    HeldOutSet set;
    const TokenFile& file = validation_tokens();
    world.together([&] { set = read_held_out(file, sequences, sequence_length, job.data.documents); });
    return set;
}

ModelSpec Run::student_spec(const Layout& layout) {
    return amalgam::student_spec(job.student, teacher_config(), layout);
}

double Run::memory() {
    if (!memory_) memory_ = memory_of_a_rank(compute, world, node);
    return *memory_;
}

const StageEstimate& Run::estimate(const std::string& stage) {
    if (!estimate_) {
        Machine machine;
        machine.ranks = world.size();
        machine.memory_per_rank = memory();
        machine.cpu = compute.device.is_cpu();
        machine.fast_bfloat16 = compute.type == at::kBFloat16;
        machine.ranks_per_node = world.broadcast(int64_t{node.size()});
        RequestCounts requests;
        const ModelConfig& teacher = teacher_config();
        if (!job.evaluate.requests.empty()) {
            world.on_root([&] { requests = count_requests(RequestFile(job.evaluate.requests), teacher); });
            world.broadcast(std::span(reinterpret_cast<char*>(&requests), sizeof(requests)));
        }
        estimate_ = estimate_job(job, teacher, machine, requests);
    }
    for (const StageEstimate& found : estimate_->stages)
        if (found.name == stage) return found;
    throw Error(text("no estimate of the stage ", stage));
}

ShardingStrategy Run::sharding(const std::string& stage, int64_t ranks) {
    const ShardingChoice choice = choose_sharding(job, estimate(stage), ranks, memory());
    info(text(stage, ": sharding ", name_of(choice.strategy), " over ", ranks, " ranks (", choice.reason, ")"));
    return choice.strategy;
}

Student Run::make_student(const Layout& layout, const std::vector<const TensorSource*>& sources,
                          const Communicator& group, ShardingStrategy sharding,
                          const std::function<bool(const Parameter&)>& is_used) {
    Student student;
    const bool whole = sharding == ShardingStrategy::none;
    student.model = std::make_unique<CausalLM>(student_spec(layout), compute.device, compute.type, /*trainable=*/true,
                                               whole ? Allocation::now : Allocation::later);
    if (!whole)
        student.shards = std::make_unique<ShardedModel>(*student.model, /*trainable=*/true, group,
                                                        sharding_options(job.sharding, sharding), is_used);
    group.together([&] {
        if (student.shards)
            load_weights(*student.shards, sources);
        else
            load_weights(*student.model, sources);
    });
    return student;
}

ContextGroup* Run::context() {
    const int64_t ranks = job.sharding.context;
    if (ranks > 1 && !context_) {
        context_ = make_context_group(world.split(int(world.rank() / ranks)), compute.device);
        info(text(ranks, " ranks share each sequence"));
    }
    return context_.get();
}

StageCheckpoints Run::checkpoints(const std::string& stage) const {
    return {folder / "checkpoints", stage, job.checkpoint.keep_last, job.checkpoint.keep_every_steps};
}

std::filesystem::path Run::learning_rates_file(const std::string& stage) const {
    return folder / "learning_rates" / (stage + ".h5");
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
    Layout layout;
    world.together([&] { layout = read_selection(selection_file()).layout; });
    return layout;
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
