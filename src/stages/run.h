// SPDX-License-Identifier: Apache-2.0
// A run: the job, the ranks, the run folder, and what several stages need of them (teacher, token files, metrics).
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "evaluation/held_out.h"
#include "objectives/blockwise_forward.h"
#include "sharding/student.h"
#include "stages/compute.h"
#include "stages/sharding_choice.h"
#include "storage/folder_lock.h"
#include "training/trainer.h"

namespace amalgam {

class Run {
  public:
    /// Opens or makes the run folder, for this run alone until its end. Collective. Throws Error(busy) if another run
    /// is at work there; else what open_run_folder() throws (run_folder.h).
    Run(const Job& job, const Communicator& world);

    const Job job;
    const Communicator world;
    const Communicator node;  // the ranks of this rank's node
    const std::filesystem::path folder;
    const Compute compute;
    StopRequest stop;

    const Provenance& provenance() const { return provenance_; }
    MetricsFile& metrics() { return *metrics_; }

    const ModelConfig& teacher_config();
    /// Loaded when first asked for, and again if asked for with other ranks or another kind of sharding (optimizer
    /// leaves it whole). Collective: every rank must ask.
    CausalLM& teacher(ShardingStrategy sharding, const Communicator& group);
    const HuggingFaceSource& teacher_source();
    const TokenFile& training_tokens();
    const TokenFile& validation_tokens();
    /// The sequences that a stage trains on, in the order of this name: the stage's, or another of its own. Of one
    /// rank: all of them have asked for training_tokens() before. Throws what Batches and read_recall_wording() throw.
    Batches batches(const std::string& stage, const TrainingJob& training, const std::string& order);
    HeldOutSet held_out(int64_t sequences, int64_t sequence_length);

    ModelSpec student_spec(const Layout& layout);
    /// How `ranks` share the models of a stage that the job runs. Says why in the log.
    ShardingStrategy sharding(const std::string& stage, int64_t ranks);
    /// A trainable student with weights from the first source that has each tensor. Parameters for which `is_used` is
    /// false are not needed whole. Collective over `group`.
    Student make_student(const Layout& layout, const std::vector<const TensorSource*>& sources,
                         const Communicator& group, ShardingStrategy sharding,
                         const std::function<bool(const Parameter&)>& is_used = nullptr);
    /// What the stage needs on these ranks. Collective.
    const StageEstimate& estimate(const std::string& stage);
    /// Bytes that a rank may take. Collective when first asked for.
    double memory();

    /// The ranks that share sequences with this one; null: none do. Collective when first asked for.
    ContextGroup* context();

    StageCheckpoints checkpoints(const std::string& stage) const;
    std::filesystem::path learning_rates_file(const std::string& stage) const;
    std::filesystem::path scores_file() const { return folder / "scores.h5"; }
    std::filesystem::path selection_file() const { return folder / "selection.h5"; }
    std::filesystem::path evaluation_file() const { return folder / "evaluation.h5"; }
    std::filesystem::path candidate_file(int64_t candidate) const;

    /// The newest all-linear student: align.h5, or transfer.h5 where alignment is skipped.
    std::unique_ptr<Checkpoint> all_linear();
    /// The layout that the select stage chose.
    Layout selected_layout();
    /// The newest hybrid student (finetune.h5, distill.h5), or none yet.
    std::unique_ptr<Checkpoint> newest_student();

    /// Settings that all training stages share.
    TrainerSetup trainer_setup(const std::string& stage);

  private:
    /// Is the stage's final checkpoint there? The root looks, so that all ranks go the same way. Collective.
    bool is_finished(const std::string& stage) const;
    std::unique_ptr<Checkpoint> open_finished(const std::string& stage) const;

    std::unique_ptr<FolderLock> lock_;  // on the root; given back last
    Provenance provenance_;
    std::unique_ptr<MetricsFile> metrics_;
    const TeacherFolder& teacher_folder();

    std::optional<TeacherFolder> teacher_folder_;
    std::unique_ptr<HuggingFaceSource> teacher_source_;
    std::unique_ptr<CausalLM> teacher_;
    std::unique_ptr<ShardedModel> teacher_shards_;
    std::pair<ShardingStrategy, MPI_Comm> teacher_is_for_;
    std::unique_ptr<ContextGroup> context_;
    std::optional<double> memory_;
    std::optional<Estimate> estimate_;
    std::unique_ptr<TokenFile> training_, validation_;
};

}  // namespace amalgam
