# Compiler flags shared by every target, as an interface target.
add_library(soulchat_options INTERFACE)
target_compile_definitions(soulchat_options INTERFACE _GNU_SOURCE
                           SOULCHAT_VERSION="${PROJECT_VERSION}")
set(host_options -Wall -Wextra -Wshadow -Wpointer-arith -Wwrite-strings -Wundef
                 $<$<BOOL:${SOULCHAT_WERROR}>:-Werror> -fno-math-errno -fno-omit-frame-pointer)
target_compile_options(soulchat_options INTERFACE
  "$<$<COMPILE_LANGUAGE:C,CXX>:${host_options}>"
  $<$<COMPILE_LANGUAGE:C>:-Wstrict-prototypes -Wmissing-prototypes -Wvla>)
# clang warns where it cannot follow `omp simd`, which in instrumented code is no defect.
target_compile_options(soulchat_options INTERFACE
  $<$<C_COMPILER_ID:Clang>:-Wno-pass-failed>)
if(BUILD_TESTING)
  target_compile_definitions(soulchat_options INTERFACE SOULCHAT_FAULTS)
endif()
if(SOULCHAT_SANITIZE)
  target_compile_definitions(soulchat_options INTERFACE SOULCHAT_SLOW_CHECKS)
  target_compile_options(soulchat_options INTERFACE -fsanitize=${SOULCHAT_SANITIZE}
                         -fno-sanitize-recover=all)
  target_link_options(soulchat_options INTERFACE -fsanitize=${SOULCHAT_SANITIZE})
endif()
if(SOULCHAT_FUZZ)
  target_compile_options(soulchat_options INTERFACE -fsanitize=fuzzer-no-link)
endif()
