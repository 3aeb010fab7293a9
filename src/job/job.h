// SPDX-License-Identifier: Apache-2.0
// The resolved job: plain structs with every default visible. Nothing else configures a run. Stages read the parts they
// need and know nothing of YAML; job_schema.h names every member for job files, job_reader.h fills them. Members whose
// values are a closed set are enumerations of options/choices.h, which says what the values mean.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "options/choices.h"
#include "options/options.h"
#include "rules/selection_rule.h"

namespace amalgam {

struct TeacherJob {
    std::string path;  // Hugging Face folder: config.json, *.safetensors, tokenizer files
};

struct DataJob {
    std::string training;                // HDF5 token file
    std::string validation;              // HDF5 token file, never trained on
    bool allow_other_tokenizer = false;  // than the teacher's in the token files
    DocumentBorders documents = DocumentBorders::joined;
    DocumentPacking packing = DocumentPacking::none;
};

struct StudentJob {
    StudentJob();  // the mixer and the options of the variant

    std::string variant = "gdn_v4";  // as in the paper's code; sets the mixer and its options
    std::string mixer;               // of the linear layers
    Options options;                 // of this mixer: those that its declaration names (mixers/declaration.h)
    KeyValueExpansion key_value_expansion = KeyValueExpansion::per_head;
    OutputNormEps output_norm_eps = OutputNormEps::teacher;
};

struct OptimizerJob {
    double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8;
    double weight_decay = 0.0;   // of every trained parameter
    double gradient_clip = 1.0;  // global L2 norm; 0: no clipping
    std::optional<double>
        learning_rate;  // of mixer parameters; nothing: auto, by the rule of thumb or a race around it
    std::optional<double> learning_rate_rest;  // of everything else: MLP, norms, embeddings, head
    double race_fraction = 0.0;                // of the stage's tokens, for trials around the rule; 0: the rule alone
    Schedule schedule = Schedule::constant;    // after the warm-up
    double final_fraction = 0.0;               // rate at the end, as a fraction of learning_rate (all but constant)
    double decay_fraction = 0.2;               // of the steps, in which warmup_stable_decay falls
    int64_t warmup_steps = 0;
    double warmup_fraction = 0.0;  // of the steps; the longer one of both counts
};

/// A part of a training stage, with sequences of its own. What a job file leaves out is the stage's.
struct TrainingPhase {
    int64_t tokens = 0;
    int64_t sequence_length = 512;
    int64_t batch_sequences = 32;
    int64_t micro_batch_sequences = 0;
};

/// What align, score, distill and finetune share.
struct TrainingJob {
    int64_t tokens = 0;                 // training tokens of the stage over all ranks; 0: the stage is skipped
    int64_t sequence_length = 512;      // tokens
    int64_t batch_sequences = 32;       // sequences in one optimizer step over all ranks
    int64_t micro_batch_sequences = 0;  // sequences of one rank in one forward; 0: all of its share
    /// One after another under one schedule of learning rates; `tokens` is their sum. Empty: the four above are all.
    std::vector<TrainingPhase> phases;
    double repeat_fraction = 0.0;  // of a sequence's tokens: copies of passages from earlier in it
    /// Of the sequences: recall questions in place of text (questions/question_sequences.h), of these kinds.
    double question_fraction = 0.0;
    std::vector<std::string> question_kinds = {"noise", "text", "four_keys", "pairs"};
    OptimizerJob optimizer;
};

struct AlignJob : TrainingJob {
    /// Many small steps at a high rate, and a loss that does not depend on a layer's scale: of what was tried with
    /// models of 2 M and 135 M parameters this aligns best for the tokens it takes (analysis/results/recipe).
    AlignJob() {
        optimizer.schedule = Schedule::cosine;
        optimizer.final_fraction = 0.01;
        optimizer.warmup_steps = 20;
    }
    AlignmentLoss loss = AlignmentLoss::relative;
};

struct DistillJob : TrainingJob {
    DistillJob() {
        sequence_length = 4096;
        optimizer.schedule = Schedule::cosine;
        optimizer.final_fraction = 0.1;
        optimizer.warmup_steps = 20;
    }
    double temperature = 1.0;
    double hidden_state_weight = 0.0;  // of a loss on the final hidden states beside the KL (objectives/distillation.h)
    int64_t loss_chunk_tokens = 0;     // logits exist for so many tokens at once; 0: see chunked_losses.h
};

/// Questions about a fact that was told earlier, which the program makes itself from the validation tokens and the
/// wording in their file (questions/recall_questions.h).
struct RecallJob {
    int64_t questions = 0;  // of each kind, length and depth; 0: none
    std::vector<std::string> kinds = {"noise", "text", "four_keys", "pairs"};
    std::vector<int64_t> lengths = {1024, 2048, 4096};   // of a question with its answer, tokens
    std::vector<int64_t> depths = {0, 25, 50, 75, 100};  // how much of the context lies before the fact, %
    int64_t seed = 0;                                    // same seed, same questions
    int64_t questions_of_a_length() const { return questions * int64_t(kinds.size() * depths.size()); }
};

/// The KL on those tokens of plain text whose prediction needs far context (selection/far_context.h).
struct FarContextJob {
    double weight = 0.0;   // of it in the score of candidates that are not distilled; 0: it is not measured
    int64_t window = 128;  // tokens: far is what lies before the last one to two windows
    double gain = 0.5;     // nat by which a token's loss falls with the far context, at least
};

/// Of rules that train a gate in every layer (selection/gate_training.h). Steps see batches of score.batch_sequences
/// sequences of training text, and as many questions; where states are compared, questions alone.
struct GatesJob {
    int64_t steps = 100;
    double learning_rate = 0.05;
    GateObjective objective = GateObjective::kl;
    PenaltySchedule penalty_schedule = PenaltySchedule::rising;
    double penalty = 1.0;  // rising: on the sum of the gates in the last step, 1 if all of them are to cost what
                           // closing all of them does; fixed: on each gate, in the objective's own unit
};

struct ScoreJob : DistillJob {
    ScoreJob() {
        optimizer.warmup_steps = 0;  // a candidate may have only a few steps
        optimizer.warmup_fraction = 0.1;
        recall.questions = 2;
        recall.lengths = {1024};
        recall.depths = {10, 50, 90};
        recall.seed = 1;  // other questions than evaluate's
    }
    int64_t validation_sequences = 32;  // held-out sequences on which every candidate's KL is measured
    int64_t measurements =
        4;  // held-out measurements during a candidate's training, evenly spaced; the last one is the score
    int64_t ranks_per_candidate = 1;
    int64_t candidates_in_step = 0;  // that a group trains in turn on each batch; 0: as many as use and memory allow
    double teacher_cache_gib =
        2.0;                     // of a rank's memory for the teacher's states: candidates train on the same batches
    double recall_weight = 1.0;  // of the KL of answers in the score of candidates that are not distilled
    RecallJob recall;            // what such candidates are asked
    FarContextJob far_context;   // what they are measured on besides
    GatesJob gates;
};

/// Next-token training at long context; no teacher, so the temperature is not used.
struct FinetuneJob : DistillJob {
    FinetuneJob() { sequence_length = 16384; }
};

struct SelectJob {
    std::string rule = selection_rules().front().name;
    Options options = default_values(options_of(selection_rules()));  // of all rules, by name
};

struct EvaluateJob {
    int64_t sequences = 64;         // validation sequences
    int64_t sequence_length = 512;  // tokens
    int64_t position_bins = 16;     // bins of positions for perplexity and KL by position
    int64_t loss_chunk_tokens = 0;  // as in distill
    std::string requests = "";      // file of lm_eval_export.py; empty: none
    /// Off by default: the file must have the wording, and one question of every kind, length and depth is 143 thousand
    /// tokens, four times what the defaults above measure on.
    RecallJob recall;
};

struct ExportJob {
    std::vector<std::string> formats = {"qwen3_5"};  // names of exports/formats.h
    ExportPrecision precision = ExportPrecision::bfloat16;
};

struct ShardingJob {
    ShardingSetting strategy = ShardingSetting::automatic;
    Activations activations = Activations::keep;
    ReductionPrecision reduce = ReductionPrecision::float32;
    bool gather_ahead = true;  // weights of the next block while one is computed
    int64_t context = 1;       // ranks that share each training sequence
};

struct CheckpointJob {
    int64_t every_steps = 200;   // within align, distill, finetune; 0: only at the end
    double every_minutes = 0.0;  // the same by the clock; 0: not by the clock
    int64_t keep_last = 2;
    int64_t keep_every_steps = 0;  // those of these steps are made and never removed; 0: none
    BackgroundSaving background = BackgroundSaving::automatic;
};

/// In which time something must get finished, or the job ends (comm/watchdog.h). hh:mm:ss; 0: none.
struct DeadlinesJob {
    std::string setup = "00:30:00";       // reading, preparing, evaluating
    std::string step = "00:10:00";        // a micro-batch, or waiting for the other ranks in a step
    std::string checkpoint = "00:30:00";  // writing one
};

struct Job {
    std::string name = "run";
    std::string output = "outputs";  // run folder is output/name
    std::string reuse = "";  // run folder whose finished transfer, align and score stages are taken; empty: none
    int64_t seed = 0;
    Recipe recipe = Recipe::amalgam;
    DeviceChoice device = DeviceChoice::automatic;
    ComputePrecision precision = ComputePrecision::automatic;
    bool deterministic = false;    // the same bits on any number of ranks, however they share the models
    int64_t threads_per_rank = 0;  // CPU threads; 0: cores of the node / ranks on it
    std::string walltime = "";     // "hh:mm:ss" after which the job saves and stops; empty: none
    int64_t log_every_steps = 10;
    double spike_guard = 0.0;           // z-score of the loss above which an update is skipped; 0: off
    int64_t max_skipped_updates = 100;  // of a stage (of a candidate); more of them end the run
    std::string peak_flops = "auto";    // of a rank's device, flop/s, for the MFU: auto, a number, or empty
    TeacherJob teacher;
    DataJob data;
    StudentJob student;
    AlignJob align;
    ScoreJob score;
    SelectJob select;
    DistillJob distill;
    FinetuneJob finetune;
    EvaluateJob evaluate;
    ExportJob export_to;
    ShardingJob sharding;
    CheckpointJob checkpoint;
    DeadlinesJob deadlines;

    std::string run_folder() const { return output + "/" + name; }
};

}  // namespace amalgam
