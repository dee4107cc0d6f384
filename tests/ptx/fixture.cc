#include "ptx/fixture.h"

#include "testing.h"

std::string ptx_text(const std::string &lines)
{
    return ".version 8.0\n.target sm_80\n.address_size 64\n"
           ".extern .shared .align 16 .b8 d[];\n"
           ".visible .entry k(.param .u64 data)\n.maxntid 128, 1, 1\n{\n"
           ".reg .pred %p<10>; .reg .b16 %h<10>; .reg .b32 %r<40>; .reg .b64 %l<20>;\n"
           ".shared .align 16 .b8 s[4096];\n"
           "ld.param.u64 %l0, [data]; mov.u32 %r0, %tid.x; mul.wide.u32 %l9, %r0, 16;\n"
           "add.s64 %l9, %l9, %l0;\n" +
           lines + "\nret;\n}\n";
}

std::string ptx_run(const std::string &lines, void *data, const ptx_launch_shape &shape)
{
    std::string error;
    const ptx::module_ptr m = ptx::load(ptx_text(lines), &error);
    if (m == nullptr) fail_msg("%s\n%s", error.c_str(), lines.c_str());
    const ptx::launch call = { ptx::find(*m, "k"),
                               { shape.grid, 1, 1 },
                               { shape.block, 1, 1 },
                               shape.dynamic_bytes,
                               &data,
                               shape.owner,
                               shape.context,
                               1,
                               shape.same_bits };
    return ptx::run(*m, call);
}

void assert_ptx_refused(const std::string &answer, const char *part)
{
    if (answer.find(part) == std::string::npos)
        fail_msg("expected '%s', found '%s'", part, answer.c_str());
}
