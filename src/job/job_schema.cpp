// SPDX-License-Identifier: Apache-2.0
#include "job/job_schema.h"

#include <set>
#include <type_traits>
#include <utility>

#include "exports/formats.h"
#include "mixers/declaration.h"
#include "system/error.h"

namespace amalgam {

namespace {

constexpr Range at_least(double low) {
    return {.low = low};
}
constexpr Range above(double low) {
    return {.low = low, .low_excluded = true};
}
constexpr Range below_one() {
    return {.low = 0, .high = 1, .high_excluded = true};
}
constexpr Range fraction() {
    return {.low = 0, .high = 1};
}

/// Adds the keys of one section. `Part` is the struct behind it, `part` finds that struct in a Job.
template <class Part>
class SectionKeys {
  public:
    SectionKeys(std::vector<JobKey>& schema, std::string section, std::function<Part&(Job&)> part)
        : schema_(schema), prefix_(section.empty() ? "" : section + "."), part_(std::move(part)) {}

    template <class Owner, class Value>
    JobKey& add(const std::string& name, Value Owner::*member, const std::string& unit,
                const std::string& description) {
        auto part = part_;
        JobKey key{.path = prefix_ + name, .unit = unit, .description = description, .member = nullptr};
        if constexpr (std::is_enum_v<Value>) {
            key.member = [part, member](Job& job) { return Member(EnumMember(&(part(job).*member))); };
            key.choices = names_of<Value>();
        } else {
            key.member = [part, member](Job& job) { return Member(&(part(job).*member)); };
        }
        schema_.push_back(std::move(key));
        return schema_.back();
    }

  private:
    std::vector<JobKey>& schema_;
    std::string prefix_;
    std::function<Part&(Job&)> part_;
};

/// Adds keys that a kind of thing declares itself. `values` finds in a Job where theirs are stored.
void add_options(std::vector<JobKey>& schema, const std::string& section, const std::vector<Option>& declared,
                 const std::function<Options&(Job&)>& values) {
    for (const Option& option : declared) {
        const auto member = [values, name = option.name](Job& job) {
            return std::visit([](auto& value) { return Member(&value); }, values(job).at(name));
        };
        schema.push_back({.path = section + "." + option.name,
                          .unit = option.unit,
                          .description = option.description,
                          .member = member,
                          .range = option.range,
                          .choices = option.choices});
    }
}

void add_run(std::vector<JobKey>& schema) {
    SectionKeys<Job> keys(schema, "", [](Job& job) -> Job& { return job; });
    keys.add("name", &Job::name, "", "name of the run; its folder is OUTPUT/NAME");
    keys.add("output", &Job::output, "", "folder that holds the run folders").is_path = true;
    keys.add("reuse", &Job::reuse, "",
             "run folder whose finished transfer and align stages are taken over, its job must agree in them; and its "
             "scores, if it agrees in those too; and its teacher's answers to the same evaluate.requests")
        .is_path = true;
    keys.add("seed", &Job::seed, "", "of initial values and of the order of sequences").range = at_least(0);
    keys.add("recipe", &Job::recipe, "",
             "defaults of the keys not given here; reference: as the published code does it");
    keys.add("device", &Job::device, "", "auto: cuda where there is a GPU");
    keys.add(
        "precision", &Job::precision, "",
        "of the computation, master weights are always float32; auto: bfloat16 where the device multiplies it (GPUs, "
        "CPUs with AMX or AVX512_BF16), else float32");
    keys.add("deterministic", &Job::deterministic, "",
             "the same bits on any number of ranks, however they share the models; slower");
    keys.add("threads_per_rank", &Job::threads_per_rank, "threads",
             "of the CPU; 0: cores that the ranks of the node may use / number of these ranks, beside a GPU at most 4")
        .range = at_least(0);
    keys.add("walltime", &Job::walltime, "hh:mm:ss",
             "after it the run saves, stops and exits with 75; empty: no limit");
    keys.add("log_every_steps", &Job::log_every_steps, "steps", "between progress lines").range = at_least(1);
    keys.add("spike_guard", &Job::spike_guard, "",
             "an update is skipped if its loss lies so many standard deviations above the last 128; 0: off")
        .range = at_least(0);
    keys.add("max_skipped_updates", &Job::max_skipped_updates, "steps",
             "of a stage or candidate (loss or gradient not finite, spikes); one more ends the run")
        .range = at_least(0);
    keys.add("peak_flops", &Job::peak_flops, "flop/s",
             "of a rank's device, for the MFU; auto: a GPU's data sheet, else a short measurement; empty: no MFU");
}

void add_inputs(std::vector<JobKey>& schema) {
    SectionKeys<TeacherJob> teacher(schema, "teacher", [](Job& job) -> TeacherJob& { return job.teacher; });
    teacher.add("path", &TeacherJob::path, "", "folder with config.json, *.safetensors and tokenizer files").is_path =
        true;
    SectionKeys<DataJob> data(schema, "data", [](Job& job) -> DataJob& { return job.data; });
    data.add("training", &DataJob::training, "", "HDF5 token file").is_path = true;
    data.add("validation", &DataJob::validation, "", "HDF5 token file that is never trained on").is_path = true;
    data.add("allow_other_tokenizer", &DataJob::allow_other_tokenizer, "",
             "train on token files of another tokenizer.json than the teacher's");
    data.add("documents", &DataJob::documents, "",
             "in one sequence, when training and measuring; separate: tokens see their own document only, and no loss "
             "crosses a border");
    data.add("packing", &DataJob::packing, "",
             "of documents that are separate into training sequences; best_fit: so that few are cut");
}

/// Every option of a linear mixer once, whichever mixers have it.
void add_mixer_options(std::vector<JobKey>& schema) {
    std::map<std::string, std::string> owners;  // option -> mixers, for people
    for (const MixerDeclaration* mixer : mixer_declarations())
        for (const Option& option : mixer->options()) {
            std::string& names = owners[option.name];
            names += (names.empty() ? "" : ", ") + mixer->name();
        }
    std::set<std::string> added;
    for (const MixerDeclaration* mixer : mixer_declarations())
        for (const Option& option : mixer->options()) {
            if (!added.insert(option.name).second) continue;
            const std::string name = option.name, mixers = owners[name];
            const auto member = [name, value = option.default_value](Job& job) {
                OptionValue& stored = job.student.options.try_emplace(name, value).first->second;
                return std::visit([](auto& one) { return Member(&one); }, stored);
            };
            const auto absence = [name, mixers](const Job& job) {
                if (job.student.options.contains(name)) return std::string();
                return text("student.mixer ", job.student.mixer, " has no such option; only ", mixers, " has");
            };
            schema.push_back({.path = "student." + name,
                              .unit = option.unit,
                              .description = option.description,
                              .member = member,
                              .range = option.range,
                              .choices = option.choices,
                              .absence = absence});
        }
}

void add_student(std::vector<JobKey>& schema) {
    SectionKeys<StudentJob> keys(schema, "student", [](Job& job) -> StudentJob& { return job.student; });
    JobKey& mixer = keys.add("mixer", &StudentJob::mixer, "", "what mixes tokens in the linear layers");
    std::vector<std::string> variants;
    std::map<std::string, std::string> refused;
    for (const MixerDeclaration* one : mixer_declarations()) {
        if (one->is_linear()) mixer.choices.push_back(one->name());
        for (const MixerVariant& variant : one->variants()) variants.push_back(variant.name);
        refused.merge(one->variants_not_offered());
    }
    JobKey& variant = keys.add("variant", &StudentJob::variant, "",
                               "sets the mixer and those of its options below that are not given");
    variant.choices = variants;
    variant.refused = refused;
    add_mixer_options(schema);
    keys.add("key_value_expansion", &StudentJob::key_value_expansion, "",
             "K and V of grouped heads to all query heads");
    keys.add("output_norm_eps", &StudentJob::output_norm_eps, "", "teacher: its rms_norm_eps; reference: 1e-5");
}

template <class Stage>
void add_training(std::vector<JobKey>& schema, const std::string& section, Stage Job::*stage) {
    SectionKeys<TrainingJob> keys(schema, section, [stage](Job& job) -> TrainingJob& { return job.*stage; });
    keys.add("tokens", &TrainingJob::tokens, "tokens",
             section == "score"     ? "per candidate; 0: the stage is skipped"
             : section == "distill" ? "over all ranks; 0: skipped, the student is taken as it is put together"
                                    : "over all ranks; 0: the stage is skipped")
        .range = at_least(0);
    keys.add("sequence_length", &TrainingJob::sequence_length, "tokens", "of one sequence").range = at_least(2);
    keys.add("batch_sequences", &TrainingJob::batch_sequences, "sequences",
             section == "score" ? "in one optimizer step of a candidate" : "in one optimizer step, over all ranks")
        .range = at_least(1);
    keys.add("micro_batch_sequences", &TrainingJob::micro_batch_sequences, "sequences",
             "of one rank in one forward; 0: all of its share")
        .range = at_least(0);
    keys.add("phases", &TrainingJob::phases, "",
             "one after another under one schedule, each {tokens, sequence_length, batch_sequences, "
             "micro_batch_sequences}; what one leaves out is as above, and tokens above are their sum; []: one phase");
    keys.add("repeat_fraction", &TrainingJob::repeat_fraction, "",
             "of a sequence's tokens that are replaced by copies of passages from earlier in it, which only recall "
             "predicts")
        .range = {.low = 0, .high = 0.5};
    keys.add("question_fraction", &TrainingJob::question_fraction, "",
             "of the sequences: recall questions with their answers, made as evaluate.recall's, in place of text")
        .range = below_one();
    JobKey& kinds = keys.add("question_kinds", &TrainingJob::question_kinds, "",
                             "of these questions: as evaluate.recall.kinds; passages alone needs no wording");
    kinds.choices = names_of<RecallKind>();
}

template <class Stage>
void add_optimizer(std::vector<JobKey>& schema, const std::string& section, Stage Job::*stage) {
    SectionKeys<OptimizerJob> keys(schema, section + ".optimizer",
                                   [stage](Job& job) -> OptimizerJob& { return (job.*stage).optimizer; });
    keys.add("beta1", &OptimizerJob::beta1, "", "decay of AdamW's first moment").range = below_one();
    keys.add("beta2", &OptimizerJob::beta2, "", "decay of AdamW's second moment").range = below_one();
    keys.add("epsilon", &OptimizerJob::epsilon, "", "of AdamW").range = above(0);
    keys.add("weight_decay", &OptimizerJob::weight_decay, "", "decoupled, of every trained parameter").range =
        at_least(0);
    keys.add("gradient_clip", &OptimizerJob::gradient_clip, "",
             "largest global L2 norm of the gradient; 0: no clipping")
        .range = at_least(0);
    keys.add("learning_rate", &OptimizerJob::learning_rate, "",
             "of the mixers; auto: by a rule of thumb for the model's width")
        .range = at_least(0);
    keys.add("learning_rate_rest", &OptimizerJob::learning_rate_rest, "",
             section == "align" ? "not used: only mixers are trained here"
                                : "of MLPs, norms, embeddings and head; 0: they stay as they are")
        .range = at_least(0);
    keys.add("race_fraction", &OptimizerJob::race_fraction, "",
             section == "score" ? "of the tokens of all candidates that the race for automatic rates may cost, and a "
                                  "tenth of one candidate's at most; 0: the rule of thumb alone"
                                : "of the stage's tokens that the race for automatic rates may cost; 0: the rule of "
                                  "thumb alone")
        .range = at_least(0);
    keys.add("schedule", &OptimizerJob::schedule, "", "of the learning rates after the warm-up");
    keys.add("final_fraction", &OptimizerJob::final_fraction, "", "of the learning rates at the end (all but constant)")
        .range = fraction();
    keys.add("decay_fraction", &OptimizerJob::decay_fraction, "",
             "of the steps, the last ones, in which the rates fall (warmup_stable_decay)")
        .range = fraction();
    keys.add("warmup_steps", &OptimizerJob::warmup_steps, "steps", "in which the learning rates rise linearly from 0")
        .range = at_least(0);
    keys.add("warmup_fraction", &OptimizerJob::warmup_fraction, "",
             "the same as a fraction of the stage's steps; the longer warm-up counts")
        .range = below_one();
}

/// `Stage` is a DistillJob or an EvaluateJob.
template <class Stage>
void add_loss_chunk(std::vector<JobKey>& schema, const std::string& section, Stage Job::*stage) {
    SectionKeys<Stage> keys(schema, section, [stage](Job& job) -> Stage& { return job.*stage; });
    keys.add("loss_chunk_tokens", &Stage::loss_chunk_tokens, "tokens",
             "for which logits are in memory at once; 0: 1024 on CPUs, as many as fill 4 GiB on GPUs")
        .range = at_least(0);
}

template <class Stage>
void add_distillation(std::vector<JobKey>& schema, const std::string& section, Stage Job::*stage) {
    SectionKeys<Stage> keys(schema, section, [stage](Job& job) -> Stage& { return job.*stage; });
    keys.add("temperature", &DistillJob::temperature, "", "of teacher and student in the KL divergence").range =
        above(0);
    keys.add("hidden_state_weight", &DistillJob::hidden_state_weight, "",
             "of |h_T-h_S|^2 / |h_T|^2 of the states before the head, added to the KL divergence")
        .range = at_least(0);
}

/// `Stage` is a ScoreJob or an EvaluateJob.
template <class Stage>
void add_recall(std::vector<JobKey>& schema, const std::string& section, Stage Job::*stage) {
    SectionKeys<RecallJob> recall(schema, section + ".recall",
                                  [stage](Job& job) -> RecallJob& { return (job.*stage).recall; });
    recall.add("questions", &RecallJob::questions, "questions", "of each kind, length and depth; 0: none").range =
        at_least(0);
    JobKey& kinds =
        recall.add("kinds", &RecallJob::kinds, "",
                   "where the fact is hidden: in noise that repeats, in text, in text among three others, "
                   "in a list of pairs; passages: of text, one of which begins again (needs no wording); chains: "
                   "as four_keys, but asked by the alias of an alias of its key");
    kinds.choices = names_of<RecallKind>();
    recall.add("lengths", &RecallJob::lengths, "tokens", "of a question with its answer").range = at_least(1);
    recall.add("depths", &RecallJob::depths, "%", "of the context that lies before the fact").range = {.low = 0,
                                                                                                       .high = 100};
    recall.add("seed", &RecallJob::seed, "", "of the questions: the same seed asks the same").range = at_least(0);
}

void add_far_context(std::vector<JobKey>& schema) {
    SectionKeys<FarContextJob> keys(schema, "score.far_context",
                                    [](Job& job) -> FarContextJob& { return job.score.far_context; });
    keys.add("weight", &FarContextJob::weight, "",
             "of their KL in the score, beside the text's and the answers'; 0: it is not measured")
        .range = at_least(0);
    keys.add("window", &FarContextJob::window, "tokens",
             "near context, with which the teacher predicts once more: the last one to two windows of the sequence")
        .range = at_least(1);
    keys.add("gain", &FarContextJob::gain, "nat",
             "by which the whole context lowers the loss of such a token, at least")
        .range = above(0);
}

void add_gates(std::vector<JobKey>& schema) {
    SectionKeys<GatesJob> keys(schema, "score.gates", [](Job& job) -> GatesJob& { return job.score.gates; });
    keys.add("steps", &GatesJob::steps, "steps",
             "each of batch_sequences sequences of training text (with objective kl), and as many questions")
        .range = at_least(1);
    keys.add("learning_rate", &GatesJob::learning_rate, "", "of Adam: what a gate moves in a step at most, or so")
        .range = above(0);
    keys.add("objective", &GatesJob::objective, "",
             "kl: of text, answers and far context; hidden_states: |h-h_T|^2 of the states after every layer, at the "
             "tokens of answers alone (FlashMorph); relative_hidden_states: the same / |h_T|^2");
    keys.add("penalty_schedule", &GatesJob::penalty_schedule, "",
             "rising: a thousandfold, penalty is relative; fixed: penalty is what each gate of 1 costs in every step");
    keys.add("penalty", &GatesJob::penalty, "",
             "rising: on the sum of the gates in the last step, 1: gates of 1 cost what the loss rises by where all "
             "are 0; fixed: on each gate (FlashMorph: 0.1)")
        .range = at_least(0);
}

void add_select(std::vector<JobKey>& schema) {
    SectionKeys<SelectJob> keys(schema, "select", [](Job& job) -> SelectJob& { return job.select; });
    JobKey& rule = keys.add("rule", &SelectJob::rule, "", "how the layers that keep softmax are chosen");
    for (const SelectionRule& one : selection_rules()) rule.choices.push_back(one.name);
    add_options(schema, "select", options_of(selection_rules()),
                [](Job& job) -> Options& { return job.select.options; });
}

void add_results(std::vector<JobKey>& schema) {
    SectionKeys<EvaluateJob> evaluate(schema, "evaluate", [](Job& job) -> EvaluateJob& { return job.evaluate; });
    evaluate.add("sequences", &EvaluateJob::sequences, "sequences", "of the validation file; 0: the stage is skipped")
        .range = at_least(0);
    evaluate.add("sequence_length", &EvaluateJob::sequence_length, "tokens", "of one sequence").range = at_least(2);
    evaluate.add("position_bins", &EvaluateJob::position_bins, "", "of positions, for perplexity and KL by position")
        .range = at_least(1);
    add_loss_chunk(schema, "evaluate", &Job::evaluate);
    evaluate
        .add("requests", &EvaluateJob::requests, "",
             "file of lm_eval_export.py whose requests teacher and student answer; empty: none")
        .is_path = true;
    add_recall(schema, "evaluate", &Job::evaluate);
    SectionKeys<ExportJob> export_to(schema, "export", [](Job& job) -> ExportJob& { return job.export_to; });
    JobKey& formats = export_to.add("formats", &ExportJob::formats, "", "Hugging Face folders to write; []: none");
    for (const ExportFormat* format : export_formats()) formats.choices.push_back(format->name());
    export_to.add("precision", &ExportJob::precision, "", "of the written weights");
    SectionKeys<CheckpointJob> checkpoint(schema, "checkpoint",
                                          [](Job& job) -> CheckpointJob& { return job.checkpoint; });
    checkpoint.add("every_steps", &CheckpointJob::every_steps, "steps", "within a stage; 0: only at its end").range =
        at_least(0);
    checkpoint.add("every_minutes", &CheckpointJob::every_minutes, "minutes", "since the last one; 0: by steps only")
        .range = at_least(0);
    checkpoint.add("keep_last", &CheckpointJob::keep_last, "files", "of a stage; older ones are deleted").range =
        at_least(1);
    checkpoint
        .add("keep_every_steps", &CheckpointJob::keep_every_steps, "steps",
             "checkpoints of these steps are made and never deleted; 0: none")
        .range = at_least(0);
    checkpoint.add("background", &CheckpointJob::background, "",
                   "written while training goes on; auto: where the memory allows a copy");
}

void add_deadlines(std::vector<JobKey>& schema) {
    SectionKeys<DeadlinesJob> keys(schema, "deadlines", [](Job& job) -> DeadlinesJob& { return job.deadlines; });
    keys.add("setup", &DeadlinesJob::setup, "hh:mm:ss", "for a piece of reading, preparing or evaluating; 0: none");
    keys.add("step", &DeadlinesJob::step, "hh:mm:ss", "for a micro-batch or an exchange of a step; 0: none");
    keys.add("checkpoint", &DeadlinesJob::checkpoint, "hh:mm:ss", "for writing a checkpoint; 0: none");
}

void add_sharding(std::vector<JobKey>& schema) {
    SectionKeys<ShardingJob> keys(schema, "sharding", [](Job& job) -> ShardingJob& { return job.sharding; });
    keys.add("strategy", &ShardingJob::strategy, "",
             "none: every rank has everything; optimizer: gradients, masters and moments are spread over the ranks; "
             "full: weights too; hybrid: full within a node; auto: the first of them that fits into memory");
    keys.add("activations", &ShardingJob::activations, "",
             "of blocks, between forward and backward pass; recompute: less memory, a third more arithmetic");
    keys.add("reduce", &ShardingJob::reduce, "", "type of gradients on their way between ranks, if these are sharded");
    keys.add("gather_ahead", &ShardingJob::gather_ahead, "", "weights of the next block while one is computed");
    keys.add("context", &ShardingJob::context, "ranks",
             "that share each sequence of all stages, a piece each: for sequences that are too long for one")
        .range = at_least(1);
}

std::vector<JobKey> make_schema() {
    std::vector<JobKey> schema;
    add_run(schema);
    add_inputs(schema);
    add_student(schema);

    add_training(schema, "align", &Job::align);
    SectionKeys<AlignJob>(schema, "align", [](Job& job) -> AlignJob& {
        return job.align;
    }).add("loss", &AlignJob::loss, "", "norm: mean |u_T-u_S| / sqrt(hidden size); relative: |u_T-u_S|^2 / |u_T|^2");
    add_optimizer(schema, "align", &Job::align);

    add_training(schema, "score", &Job::score);
    add_distillation(schema, "score", &Job::score);
    add_loss_chunk(schema, "score", &Job::score);
    SectionKeys<ScoreJob> score(schema, "score", [](Job& job) -> ScoreJob& { return job.score; });
    score
        .add("validation_sequences", &ScoreJob::validation_sequences, "sequences",
             "on which a candidate's KL is measured")
        .range = at_least(1);
    score.add("measurements", &ScoreJob::measurements, "", "of that KL, evenly spaced; the last one is the score")
        .range = at_least(1);
    score
        .add("ranks_per_candidate", &ScoreJob::ranks_per_candidate, "ranks",
             "that measure one candidate together; at least as many as share a sequence (sharding.context)")
        .range = at_least(1);
    score
        .add("candidates_in_step", &ScoreJob::candidates_in_step, "",
             "that a group of ranks trains in turn on each batch, with one teacher forward for all; 0: several where "
             "the teacher's states are not kept and memory allows")
        .range = at_least(0);
    score
        .add("teacher_cache_gib", &ScoreJob::teacher_cache_gib, "GiB",
             "of a rank's memory for the teacher's states, which all candidates share")
        .range = at_least(0);
    score
        .add("recall_weight", &ScoreJob::recall_weight, "",
             "of the answers' KL in the score, beside the text's; of rules that measure candidates without training")
        .range = at_least(0);
    add_recall(schema, "score", &Job::score);
    add_far_context(schema);
    add_gates(schema);
    add_optimizer(schema, "score", &Job::score);

    add_select(schema);

    add_training(schema, "distill", &Job::distill);
    add_distillation(schema, "distill", &Job::distill);
    add_loss_chunk(schema, "distill", &Job::distill);
    add_optimizer(schema, "distill", &Job::distill);

    add_training(schema, "finetune", &Job::finetune);
    add_loss_chunk(schema, "finetune", &Job::finetune);
    add_optimizer(schema, "finetune", &Job::finetune);

    add_sharding(schema);
    add_results(schema);
    add_deadlines(schema);
    return schema;
}

}  // namespace

const std::vector<JobKey>& job_schema() {
    static const std::vector<JobKey> schema = make_schema();
    return schema;
}

const std::vector<JobSection>& job_sections() {
    static const std::vector<JobSection> sections = {
        {"teacher", "the softmax Transformer to convert"},
        {"data", "tokens to train and to measure on"},
        {"student", "the linear layers"},
        {"align", "stage: each linear mixer learns the teacher's attention output on the teacher's hidden states"},
        {"align.optimizer", "AdamW"},
        {"score",
         "stage: candidates for the student, of which layers keep softmax, are measured; for which and how, the "
         "rule decides"},
        {"score.recall", "questions that candidates are asked by rules that measure them without training"},
        {"score.far_context",
         "tokens of plain text whose prediction needs far context, for rules that measure candidates without training"},
        {"score.gates", "gates between both kinds of layers, trained by rules that choose by them"},
        {"score.optimizer", "AdamW"},
        {"select", "stage: which layers keep softmax"},
        {"distill", "stage: the selected hybrid learns the teacher's logits, all parameters"},
        {"distill.optimizer", "AdamW"},
        {"finetune", "stage: next-token training at long context, without the teacher"},
        {"finetune.optimizer", "AdamW"},
        {"evaluate", "stage: perplexity, KL and recall on the validation file"},
        {"evaluate.recall", "questions about a fact told earlier; their wording lies in the validation file"},
        {"export", "stage: the student as folders that other programs load"},
        {"sharding", "how the ranks that train a model together share it"},
        {"checkpoint", "when to save, and how much to keep"},
        {"deadlines", "if nothing gets finished for so long, the run ends and says who is stuck"},
    };
    return sections;
}

const JobKey* find_key(const std::string& path) {
    for (const JobKey& key : job_schema())
        if (key.path == path) return &key;
    return nullptr;
}

const JobSection* find_section(const std::string& path) {
    for (const JobSection& section : job_sections())
        if (section.path == path) return &section;
    return nullptr;
}

}  // namespace amalgam
