// SPDX-License-Identifier: Apache-2.0
// How the candidates of a scorer (rules/scorers.h) are measured. The race (race.h) decides which group of ranks
// measures which candidate and when; a measurement knows what is done with one.
#pragma once

#include <functional>
#include <memory>

#include "checkpoints/checkpoint.h"
#include "evaluation/held_out.h"
#include "questions/recall_questions.h"
#include "rules/scorers.h"
#include "selection/score_file.h"
#include "sharding/student.h"
#include "training/trainer.h"

namespace amalgam {

/// One candidate at work. All methods are collective over its group of ranks.
class CandidateInTraining {
  public:
    virtual ~CandidateInTraining() = default;
    virtual bool is_done() const = 0;
    virtual void step() = 0;
    /// What the next step costs, in steps like the last one.
    virtual double next_step_cost() const { return 1.0; }
    /// Keeps its state, so that make() goes on from there in a later start. Returns the steps done.
    virtual int64_t save() = 0;
    /// After the last step. What was done by earlier starts, and `logged`, are there on the group's root only.
    virtual CandidateResult result() = 0;
};

/// One object on each rank, for its group. What all ranks of the run must do together is done by the constructor and
/// all_linear_kl(). Every group asks in_step() once; one that gets no candidate never comes to begin() and what
/// follows, which is collective over the group.
class Measurement {
  public:
    virtual ~Measurement() = default;
    /// Of each held-out sequence, where all candidates begin, nat/token. Collective over all ranks of the run.
    virtual std::vector<double> all_linear_kl() = 0;
    /// How many of `candidates` one group had best train in step. At least 1.
    virtual int64_t in_step(int64_t candidates) const = 0;
    /// The candidates that are made from now on are only of interest if they are better than that with this number,
    /// which has its file; nothing: all of them are.
    virtual void expect_better_than(std::optional<int64_t> number) = 0;
    /// So many candidates are made and trained in step from now on.
    virtual void begin(int64_t candidates) = 0;
    /// Goes on from the state that save() kept, if there is one.
    virtual std::unique_ptr<CandidateInTraining> make(int64_t number, const Candidate& candidate) = 0;
    /// All candidates in step have done a step.
    virtual void end_step() = 0;
};

/// What a measurement may use of the run around it.
struct MeasurementSetup {
    const ScoreJob& job;
    std::string mixer;  // of the linear layers
    const Communicator &world, &node, &group;
    ContextGroup* context;    // the ranks of the group that share sequences with this one; null: none do
    const CausalLM& teacher;  // spread over the group as the students are
    const TensorSource& teacher_weights;
    std::unique_ptr<Checkpoint> all_linear;  // the student that all candidates start from
    HeldOutSet held_out;
    std::unique_ptr<RecallQuestions> questions;  // for candidates that are not distilled; null: none
    double race_errors = 0.0;                    // of such candidates (early_exit.h); 0: none leaves early
    std::unique_ptr<Batches> batches;            // for those that are
    Activations activations;
    TrainerSetup trainer;  // as the stage's, for the whole group
    std::function<std::filesystem::path(int64_t number)> candidate_file;
    /// For the group. Each tensor comes from the first source that has it.
    std::function<Student(const Layout&, const std::vector<const TensorSource*>&)> make_student;
    /// Of a training step, for one token of a sequence of `time` tokens, where the teacher's states are known.
    std::function<double(const ModelSpec&, int64_t time)> flops_per_token;
    /// Out of so many, those for whose training in step a rank has memory.
    std::function<int64_t(int64_t)> candidates_that_fit;

    SequenceRanks ranks() const { return {group, context}; }
    /// That a rank may keep of states of one kind.
    double cache_bytes() const { return job.teacher_cache_gib * double(1 << 30); }
};

/// Collective over all ranks of the run.
std::unique_ptr<Measurement> make_measurement(const Scorer& scorer, MeasurementSetup setup);

}  // namespace amalgam
