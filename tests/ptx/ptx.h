/*
 * ptx.h - runs the PTX that nvcc makes of a kernel, on the host and its memory: the instructions
 * that a card's assembler would be given, in the order and with the operands they have there.
 *
 *     std::string error;
 *     ptx::module_ptr code = ptx::load(text, &error);
 *     const ptx::kernel *k = ptx::find(*code, "_Z5scalePfPKffl");
 *     ptx::launch call = { k, { blocks, 1, 1 }, { 256, 1, 1 }, 0, packed_parameters };
 *     error = ptx::run(*code, call);           // empty: it ran to its end
 *
 * Semantics are those of NVIDIA's "PTX ISA" document; what is not understood is an error that names
 * the instruction and its line, never a guess. What else is an error, with kernel, block, warp,
 * lane and the line of the PTX:
 *   - an access that is misaligned, outside shared memory, or outside what `owner` vouches for;
 *   - a barrier or warp operation that some of its lanes do not reach;
 *   - shared memory written by one thread and used by another with no barrier between, read before
 *     anything was written there, or used while a cp.async into it is on its way (it arrives at the
 *     wait and no sooner);
 *   - global memory that threads use likewise, and that one block writes and another one uses.
 * Blocks run one after another, in an order that `seed` shuffles, and so do the warps of a block
 * between two barriers.
 *
 * A module is not changed by running it but for its own .global variables: one run at a time.
 */
#ifndef TESTS_PTX_PTX_H
#define TESTS_PTX_PTX_H

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace ptx
{

/* A kernel's parameter: its place in the packed buffer. */
struct param {
    int64_t offset, bytes, align;
};

struct kernel {
    std::string name; /* as in the PTX: mangled */
    std::vector<param> params;
    int64_t param_bytes;  /* of the packed buffer */
    int64_t shared_bytes; /* declared; the launch's dynamic bytes come on top */
    int64_t threads_max;  /* .maxntid's product; 1024 where there is none */
};

/* A loaded text: kernels and variables. */
struct module;
struct module_delete {
    void operator()(module *) const;
};
using module_ptr = std::unique_ptr<module, module_delete>;

/* nullptr: it cannot be understood, *error says why, with its line. */
module_ptr load(const std::string &text, std::string *error);

/* All kernels, in the order of the text; they live as long as the module. */
std::vector<const kernel *> kernels(const module &);
/* nullptr: there is none of this name. */
const kernel *find(const module &, const std::string &name);
/* A .global or .const variable's memory, *bytes long; nullptr: there is none of this name. */
void *variable(module &, const std::string &name, int64_t *bytes);

/* Memory from begin to before end; empty: none. */
struct range {
    uint64_t begin, end;
};

struct launch {
    const kernel *code;
    uint32_t grid[3], block[3];
    int64_t dynamic_bytes; /* of shared memory */
    const void *params;    /* code->param_bytes, packed at their offsets */
    /* The allocation that an address lies in; nullptr: all of the host's memory may be used. */
    range (*owner)(void *context, uint64_t address) = nullptr;
    void *context = nullptr;
    uint64_t seed = 1;
    bool same_bits = false; /* several blocks may write them to one place */
};

/* Empty, or one line on what went wrong. */
std::string run(module &, const launch &);

/* Instructions that runs of this module have executed, each counted once per thread. */
int64_t instructions(const module &);

} // namespace ptx

#endif
