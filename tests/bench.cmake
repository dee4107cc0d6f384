# Benchmarks: programs to be read by people, not tests. `build/bin/bench_ops --help`
add_executable(bench_ops bench/bench_ops.c)
set_target_properties(bench_ops PROPERTIES LINKER_LANGUAGE CXX)
target_link_libraries(bench_ops PRIVATE soulchat_kernels soulchat_options)
