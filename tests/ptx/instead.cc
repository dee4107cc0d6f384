/*
 * Loaded before the emulator's library, this executes its launches from PTX: the tests of the
 * emulated GPU, unchanged, then judge what nvcc made of the kernels.
 *
 *     LD_PRELOAD=libsoulchat_ptx.so SOULCHAT_PTX=DIR build/tests/test_kernels_ops_norm
 *
 * DIR holds the .ptx files of all kernels. SOULCHAT_PTX_LOG: a file to which each kernel's name is
 * appended, once per process. A fault ends the program, as the emulator's do.
 */
#include "kernels/emu/emu.h"
#include "ptx/ptx.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <dlfcn.h>
#include <fstream>
#include <map>
#include <mutex>
#include <set>
#include <sstream>

namespace
{

struct library {
    std::mutex lock;
    std::map<std::string, ptx::module_ptr> modules; /* by file */
    std::map<std::string, std::pair<ptx::module *, const ptx::kernel *>> kernels;
    std::set<std::string> logged;
};

library all;

[[noreturn]] void fail(const std::string &what)
{
    fprintf(stderr, "ptx: %s\n", what.c_str());
    abort();
}

std::string env(const char *name)
{
    const char *text = getenv(name);
    return text == nullptr ? "" : text;
}

void load_file(const std::string &path)
{
    std::ifstream file(path);
    std::stringstream text;
    text << file.rdbuf();
    std::string error;
    ptx::module_ptr m = ptx::load(text.str(), &error);
    if (m == nullptr) fail(path + ": " + error);
    for (const ptx::kernel *k : ptx::kernels(*m)) all.kernels[k->name] = { m.get(), k };
    all.modules[path] = std::move(m);
}

void load_folder()
{
    const std::string folder = env("SOULCHAT_PTX");
    DIR *dir = opendir(folder.c_str());
    if (dir == nullptr) fail("SOULCHAT_PTX names no folder: '" + folder + "'");
    while (const dirent *entry = readdir(dir)) {
        const std::string name = entry->d_name;
        if (name.size() > 4 && name.compare(name.size() - 4, 4, ".ptx") == 0)
            load_file(folder + "/" + name);
    }
    closedir(dir);
}

/* A function and its kernel have the same mangled name. */
std::string symbol_of(const void *function)
{
    Dl_info info;
    if (dladdr(function, &info) == 0 || info.dli_sname == nullptr || info.dli_saddr != function)
        fail("a kernel's function has no name");
    return info.dli_sname;
}

void log_once(const std::string &name)
{
    const std::string path = env("SOULCHAT_PTX_LOG");
    if (path.empty() || !all.logged.insert(name).second) return;
    std::ofstream(path, std::ios::app) << name << "\n";
}

std::vector<unsigned char> packed(const ptx::kernel &k, const emu::request &call)
{
    std::vector<unsigned char> out(static_cast<size_t>(k.param_bytes));
    if (k.params.size() != call.param_count) fail(k.name + ": another number of parameters");
    for (size_t i = 0; i < call.param_count; i++) {
        if (static_cast<size_t>(k.params[i].bytes) != call.params[i].bytes)
            fail(k.name + ": a parameter of another size");
        memcpy(out.data() + k.params[i].offset, call.params[i].data, call.params[i].bytes);
    }
    return out;
}

ptx::range owner(void *context, uint64_t address)
{
    const emu::request &call = *static_cast<const emu::request *>(context);
    uintptr_t begin = 0, end = 0;
    if (!call.device_block(address, &begin, &end)) return { 0, 0 };
    return { begin, end };
}

/* The heads of a group each store the group's new key and value, and read them again. */
bool several_write(const emu::request &call) { return strcmp(call.name, "decode_split") == 0; }

} // namespace

__attribute__((visibility("default"))) void emu::start(const request &call)
{
    const std::lock_guard<std::mutex> held(all.lock);
    if (all.kernels.empty()) load_folder();
    const std::string name = symbol_of(call.kernel);
    const auto known = all.kernels.find(name);
    if (known == all.kernels.end()) fail(name + " is in no PTX");
    log_once(name);

    const ptx::kernel &k = *known->second.second;
    const std::vector<unsigned char> params = packed(k, call);
    const dim3 g = call.grid, b = call.block;
    const ptx::launch launch = { &k,
                                 { g.x, g.y, g.z },
                                 { b.x, b.y, b.z },
                                 call.shared_bytes,
                                 params.data(),
                                 owner,
                                 const_cast<emu::request *>(&call),
                                 1,
                                 several_write(call) };
    const std::string error = ptx::run(*known->second.first, launch);
    if (!error.empty()) fail(std::string("kernel ") + call.name + ": " + error);
}
