// SPDX-License-Identifier: Apache-2.0
#include "kernels/isa/isa.h"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string>

#if defined(AMALGAM_KERNELS_X86) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace amalgam::kernels {
namespace {

constexpr Isa every_isa[] = {Isa::reference, Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx_bf16};

#ifdef AMALGAM_KERNELS_X86
/// Whether the processor has it and the system lets this process use it. By number: not every compiler and C library
/// has names for these bits and requests.
bool gets_amx_bf16() {
#ifdef __linux__
    constexpr unsigned bf16 = 1U << 22, tile = 1U << 24;
    constexpr int request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & bf16) != 0 && (edx & tile) != 0 &&
           syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
    return false;
#endif
}
#endif

std::string supported_names() {
    std::string names;
    for (Isa isa : supported_isas()) names += (names.empty() ? "" : ", ") + std::string(isa_name(isa));
    return names;
}

Isa isa_from_environment() {
    const char* name = std::getenv("AMALGAM_ISA");
    if (name == nullptr || *name == '\0') return Isa::automatic;
    for (Isa isa : every_isa) {
        if (isa_name(isa) == name) return isa;
    }
    throw std::invalid_argument("AMALGAM_ISA names '" + std::string(name) +
                                "' (no CPU kernel variant has that name); use one of: " + supported_names());
}

}  // namespace

std::string_view isa_name(Isa isa) {
    switch (isa) {
        case Isa::automatic:
            return "automatic";
        case Isa::reference:
            return "reference";
        case Isa::avx2:
            return "avx2";
        case Isa::avx512:
            return "avx512";
        case Isa::avx512_bf16:
            return "avx512_bf16";
        case Isa::amx_bf16:
            return "amx_bf16";
    }
    return "unknown";
}

std::vector<Isa> supported_isas() {
    std::vector<Isa> isas{Isa::reference};
#ifdef AMALGAM_KERNELS_X86
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (avx2) isas.push_back(Isa::avx2);
    if (avx512) isas.push_back(Isa::avx512);
    const bool avx512_bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
    if (avx512_bf16) isas.push_back(Isa::avx512_bf16);
    if (avx512_bf16 && gets_amx_bf16()) isas.push_back(Isa::amx_bf16);
#endif
    return isas;
}

Isa resolve_isa(Isa wanted) {
    static const std::vector<Isa> supported = supported_isas();
    if (wanted == Isa::automatic) {
        static const Isa preferred = isa_from_environment();
        wanted = preferred == Isa::automatic ? supported.back() : preferred;
    }
    if (std::find(supported.begin(), supported.end(), wanted) == supported.end()) {
        throw std::invalid_argument(
            "CPU kernel variant '" + std::string(isa_name(wanted)) +
            "' cannot run here (the processor or this build lacks it); use one of: " + supported_names());
    }
    return wanted;
}

}  // namespace amalgam::kernels
