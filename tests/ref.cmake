# The float64 reference operators, for every test program that wants a judge.
add_library(soulchat_ref STATIC ref_ops.c ref_norm.c ref_linear.c ref_attn.c
            ref_rounded.c)
target_include_directories(soulchat_ref PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
target_compile_options(soulchat_ref PRIVATE -O2)
target_link_libraries(soulchat_ref PUBLIC soulchat_kernels m PRIVATE soulchat_options)
