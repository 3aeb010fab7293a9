// SPDX-License-Identifier: Apache-2.0
#include "system/fault_injection.h"

#include <signal.h>
#include <unistd.h>

#include <charconv>
#include <optional>
#include <sstream>
#include <vector>

#include "system/error.h"

namespace amalgam {
namespace {

enum class Action { kill, stop, throw_error, hang, nan };

struct Fault {
    std::string point;
    Action action;
    std::optional<int64_t> rank, step;
};

std::vector<Fault> faults;  // of this rank

std::vector<std::string> split(const std::string& line, char separator) {
    std::vector<std::string> parts;
    std::istringstream stream(line);
    for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
    return parts;
}

Action parse_action(const std::string& name) {
    if (name == "kill") return Action::kill;
    if (name == "stop") return Action::stop;
    if (name == "throw") return Action::throw_error;
    if (name == "hang") return Action::hang;
    require(name == "nan", "AMALGAM_FAULT: action \"", name, "\" is not known (kill, stop, throw, hang, nan)");
    return Action::nan;
}

Fault parse(const std::string& specification) {
    const auto parts = split(specification, ':');
    require(parts.size() >= 2, "AMALGAM_FAULT: \"", specification, "\" (POINT:ACTION[:rank=R][:step=S] is needed)");
    Fault fault{parts[0], parse_action(parts[1]), {}, {}};
    for (size_t i = 2; i < parts.size(); ++i) {
        const size_t equals = parts[i].find('=');
        const std::string key = parts[i].substr(0, equals);
        int64_t value = -1;
        if (equals != std::string::npos)
            std::from_chars(parts[i].data() + equals + 1, parts[i].data() + parts[i].size(), value);
        require((key == "rank" || key == "step") && value >= 0, "AMALGAM_FAULT: \"", parts[i],
                "\" is not known (rank=R, step=S)");
        (key == "rank" ? fault.rank : fault.step) = value;
    }
    return fault;
}

void strike(const Fault& fault) {
    switch (fault.action) {
        case Action::kill:
            raise(SIGKILL);
            break;
        case Action::stop:
            raise(SIGSTOP);
            break;
        case Action::throw_error:
            throw Error(text("fault on purpose at ", fault.point, " (AMALGAM_FAULT is set)"));
        case Action::hang:
            while (true) pause();
        case Action::nan:
            break;
    }
}

}  // namespace

void set_up_fault_injection(const std::string& specification, int rank) {
    faults.clear();
    for (const std::string& part : split(specification, ',')) {
        const Fault fault = parse(part);
        if (!fault.rank || *fault.rank == rank) faults.push_back(fault);
    }
}

bool fault_point(std::string_view point, int64_t step) {
    bool nan = false;
    for (const Fault& fault : faults) {
        if (fault.point != point || (fault.step && *fault.step != step)) continue;
        strike(fault);
        nan = nan || fault.action == Action::nan;
    }
    return nan;
}

}  // namespace amalgam
