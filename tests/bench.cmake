# Benchmarks: programs to be read by people, not tests. `build/bin/bench_ops --help`
add_executable(bench_ops bench/bench_ops.c bench/bench.c bench/bench_products.c
                         bench/bench_memory.c)
set_target_properties(bench_ops PROPERTIES LINKER_LANGUAGE CXX)
target_include_directories(bench_ops PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
target_link_libraries(bench_ops PRIVATE soulchat_kernels OpenMP::OpenMP_C soulchat_options)
