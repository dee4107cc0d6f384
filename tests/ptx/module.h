/* module.h - what load() makes of a text. */
#ifndef TESTS_PTX_MODULE_H
#define TESTS_PTX_MODULE_H

#include "ptx/machine.h"

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace ptx
{

/* A variable as declared. bytes 0: its size is the launch's to say. */
struct declared {
    std::string name;
    int64_t bytes, align, element;
};

struct module {
    std::vector<std::unique_ptr<code>> kernels;
    std::map<std::string, declared> shared;
    std::map<std::string, std::vector<unsigned char>> variables; /* .global and .const */
    std::vector<std::string> files;                              /* the sources, by number */
    int64_t instructions = 0;
};

} // namespace ptx

#endif
