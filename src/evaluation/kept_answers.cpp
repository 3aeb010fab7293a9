// SPDX-License-Identifier: Apache-2.0
#include "evaluation/kept_answers.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "storage/hdf5.h"
#include "system/error.h"
#include "system/log.h"

namespace amalgam {
namespace {

namespace fs = std::filesystem;

constexpr const char* filetype = "amalgam kept answers";
constexpr auto interval = std::chrono::minutes(1);

void write_file(const fs::path& path, const std::string& fingerprint, const std::vector<int64_t>& requests,
                const std::map<int64_t, Answer>& answers) {
    std::vector<double> loglikelihood;
    std::vector<int32_t> greedy, generated;
    std::vector<int64_t> offsets = {0};
    for (const int64_t i : requests) {
        const Answer& answer = answers.at(i);
        loglikelihood.push_back(answer.loglikelihood);
        greedy.push_back(answer.greedy);
        generated.insert(generated.end(), answer.generated.begin(), answer.generated.end());
        offsets.push_back(int64_t(generated.size()));
    }
    write_h5_once(path, [&](H5File& file) {
        file.describe_file(filetype, provenance());
        file.set_attribute("/", "fingerprint", fingerprint);
        const auto write = [&](const char* name, const auto& values) {
            file.write(name, std::vector<int64_t>{int64_t(values.size())}, std::span(values));
        };
        write("/request", requests);
        write("/loglikelihood", loglikelihood);
        write("/greedy", greedy);
        write("/generated", generated);
        write("/generated_offsets", offsets);
    });
}

/// Answers to `requests`, which lie in `group` ("" or "/requests/MODEL") as in all files that have answers.
std::map<int64_t, Answer> read_answers(const H5File& file, const std::string& group,
                                       const std::vector<int64_t>& requests) {
    const auto greedy = file.read_integers(group + "/greedy"), generated = file.read_integers(group + "/generated"),
               offsets = file.read_integers(group + "/generated_offsets");
    const auto loglikelihood = file.read_doubles(group + "/loglikelihood");
    const size_t count = requests.size();
    if (greedy.size() != count || loglikelihood.size() != count || offsets.size() != count + 1 || offsets[0] != 0 ||
        !std::ranges::is_sorted(offsets) || offsets.back() != int64_t(generated.size()))
        throw Error(
            text(file.path().string(), ": its answers do not fit together; remove it (they are computed again)"),
            ExitCode::damaged_file);
    std::map<int64_t, Answer> answers;
    for (size_t i = 0; i < count; ++i)
        answers[requests[i]] = {
            loglikelihood[i], int32_t(greedy[i]), {generated.begin() + offsets[i], generated.begin() + offsets[i + 1]}};
    return answers;
}

/// False if the file answers other requests.
bool read_file(const fs::path& path, const std::string& fingerprint, std::map<int64_t, Answer>& answers) {
    const H5File file = H5File::open(path);
    file.expect_filetype(filetype);
    if (file.string_attribute("/", "fingerprint") != fingerprint) return false;
    answers.merge(read_answers(file, "", file.read_integers("/request")));
    return true;
}

std::map<int64_t, Answer> read_folder(const AnswerPlace& place, const std::string& fingerprint) {
    std::map<int64_t, Answer> answers;
    if (!fs::exists(place.folder)) return answers;
    for (const auto& entry : fs::directory_iterator(place.folder)) {
        if (entry.path().extension() == ".tmp") {
            fs::remove(entry.path());
        } else if (entry.path().filename().string().starts_with(place.model + ".") &&
                   !read_file(entry.path(), fingerprint, answers)) {
            warn(text(entry.path().string(), ": answers other requests than the job's, removed"));
            fs::remove(entry.path());
        }
    }
    return answers;
}

template <class T>
void put(std::string& bytes, const T* values, size_t count) {
    bytes.append(reinterpret_cast<const char*>(values), count * sizeof(T));
}
template <class T>
void take(const char*& from, T* values, size_t count) {
    std::memcpy(values, from, count * sizeof(T));
    from += count * sizeof(T);
}

/// All ranks run the same program on machines of one kind: the bytes need no format.
std::string packed(const std::map<int64_t, Answer>& answers) {
    std::string bytes;
    for (const auto& [request, answer] : answers) {
        const int64_t count = int64_t(answer.generated.size());
        put(bytes, &request, 1);
        put(bytes, &answer.loglikelihood, 1);
        put(bytes, &answer.greedy, 1);
        put(bytes, &count, 1);
        put(bytes, answer.generated.data(), answer.generated.size());
    }
    return bytes;
}

std::map<int64_t, Answer> unpacked(const std::string& bytes) {
    std::map<int64_t, Answer> answers;
    for (const char *from = bytes.data(), *end = from + bytes.size(); from != end;) {
        int64_t request = 0, count = 0;
        Answer answer;
        take(from, &request, 1);
        take(from, &answer.loglikelihood, 1);
        take(from, &answer.greedy, 1);
        take(from, &count, 1);
        answer.generated.resize(size_t(count));
        take(from, answer.generated.data(), answer.generated.size());
        answers[request] = std::move(answer);
    }
    return answers;
}

}  // namespace

KeptAnswers::KeptAnswers(const AnswerPlace& place, const std::string& fingerprint, const Communicator& group)
    : place_(place), fingerprint_(fingerprint) {
    if (place.folder.empty()) return;
    std::string bytes;
    group.on_root([&] {
        bytes = packed(read_folder(place, fingerprint));
        fs::create_directories(place.folder);
    });
    found_ = unpacked(group.broadcast(bytes));
}

void KeptAnswers::add(int64_t request, Answer answer) {
    own_[request] = std::move(answer);
    unwritten_.push_back(request);
    if (std::chrono::steady_clock::now() - written_ > interval) write();
}

void KeptAnswers::write() {
    if (!place_.folder.empty() && !unwritten_.empty()) {
        std::ranges::sort(unwritten_);
        write_file(place_.folder / text(place_.model, ".", unwritten_.front(), ".h5"), fingerprint_, unwritten_, own_);
    }
    unwritten_.clear();
    written_ = std::chrono::steady_clock::now();
}

int64_t keep_evaluated_answers(const fs::path& evaluation, const AnswerPlace& place) {
    const H5File file = H5File::open(evaluation);
    const std::string group = "/requests/" + place.model;
    if (!file.has(group)) return 0;
    std::vector<int64_t> requests(file.read_integers(group + "/greedy").size());
    std::iota(requests.begin(), requests.end(), int64_t{0});
    fs::create_directories(place.folder);
    write_file(place.folder / (place.model + ".0.h5"), file.string_attribute("/requests", "fingerprint"), requests,
               read_answers(file, group, requests));
    return int64_t(requests.size());
}

void remove_kept_answers(const fs::path& folder) {
    std::error_code failed;
    fs::remove_all(folder, failed);
    if (failed) warn(text(folder.string(), ": cannot be removed: ", failed.message(), " (nobody needs it any more)"));
}

}  // namespace amalgam
